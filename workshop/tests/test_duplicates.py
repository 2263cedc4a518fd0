"""Images that are there more than once are found, one is kept, and no twin gives away the answers of a test."""

import io
import json
import random
import re

import numpy as np
import polars as pl
import pytest
from conftest import Workspace, save
from PIL import Image, ImageEnhance, ImageFilter

from imagepack import PackedImages
from imagepack.checks import near_duplicates
from imagepack.checks.appearance import SIGNATURE_BYTES
from imagepack.errors import InputError
from stages.pack import Pack, Split
from stages.preprocess import Preprocess
from stages.validate import Levels, Validate

CALM = {"blurry": 0, "min_class_images": 0}
FRACTIONS = {"train": 0.4, "val": 0.3, "test": 0.3}


def view(number: int) -> Image.Image:
    """A picture with enough in it to be recognised, unlike every other number's."""
    noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((128, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))


def again(image: Image.Image, quality: int = 60, scale: float = 1.0, light: float = 1.0) -> Image.Image:
    """A copy that somebody has saved again."""
    small = image.resize([round(side * scale) for side in image.size])
    file = io.BytesIO()
    ImageEnhance.Brightness(small).enhance(light).save(file, "JPEG", quality=quality)
    return Image.open(file)


def found(workspace: Workspace, **params) -> dict[str, tuple[list[str], list[str]]]:
    """Codes and what was seen, of each image that has any."""
    manifest = workspace.validate(Validate(**CALM | {"levels": Levels(mode_mix="ignore")} | params))
    return {path: (issues, seen) for path, issues, seen in manifest.select("path", "issues", "seen").rows() if issues}


def test_the_same_pixels_in_other_bytes_are_a_duplicate_whatever_the_format(workspace: Workspace):
    rgb = view(1)
    save(workspace.raw / "cat/a.png", rgb)
    save(workspace.raw / "cat/b.bmp", rgb)
    save(workspace.raw / "cat/c.webp", rgb, lossless=True)
    save(workspace.raw / "cat/d.png", rgb.convert("RGBA"))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(workspace.raw / "cat/e.png", rgb.transpose(Image.Transpose.ROTATE_90), exif=exif)
    grey = view(2).convert("L")
    save(workspace.raw / "cat/f.png", grey)
    save(workspace.raw / "cat/g.png", grey.convert("RGB"))
    save(workspace.raw / "cat/h.png", grey.convert("P"))
    assert found(workspace, levels=Levels(mode_mix="ignore", exif_orientation="ignore")) == {
        **{
            f"cat/{name}": (["pixel_duplicate"], ["same pixels as cat/a.png"])
            for name in ("b.bmp", "c.webp", "d.png", "e.png")
        },
        **{f"cat/{name}": (["pixel_duplicate"], ["same pixels as cat/f.png"]) for name in ("g.png", "h.png")},
    }


def test_16_bits_that_differ_only_below_the_eighth_are_no_duplicates_of_pixels(workspace: Workspace):
    high = np.random.default_rng(1).integers(0, 255, (64, 64)).astype("u2") * 257
    for number in (0, 1):
        save(workspace.raw / f"cat/{number}.png", Image.fromarray(high + np.uint16(number)))
    codes = [code for codes, _ in found(workspace).values() for code in codes]
    assert sorted(codes) == ["near_duplicate", "reduced_depth", "reduced_depth"]


def test_saved_again_resized_or_lighter_is_a_near_duplicate_of_the_first(workspace: Workspace):
    for number in range(5):
        save(workspace.raw / f"cat/img{number}.png", view(number))
    copies = {
        "half": {"scale": 0.5},
        "low": {"quality": 40},
        "light": {"light": 1.1},
        "twice": {"scale": 2.0, "light": 0.9},
    }
    for name, how in copies.items():
        save(workspace.raw / f"cat/copy {name}.jpg", again(view(3), **how))
    issues = found(workspace)
    assert set(issues) == {"cat/copy light.jpg", "cat/copy low.jpg", "cat/copy twice.jpg", "cat/img3.png"}
    assert all(codes == ["near_duplicate"] for codes, _ in issues.values())
    assert all(
        re.fullmatch(r"looks like cat/copy half\.jpg: distance \d+ of 256, threshold 15", seen[0])
        for _, seen in issues.values()
    )
    metrics = json.loads((workspace.reports / "validation.json").read_text())
    assert metrics["near_duplicates"] == {"groups": 1, "images": 5, "largest": 5}


def test_crops_mirrors_and_other_colours_are_other_images(workspace: Workspace):
    image = view(1)
    save(workspace.raw / "cat/a.png", image)
    save(workspace.raw / "cat/crop.png", image.crop((20, 15, 108, 81)))
    save(workspace.raw / "cat/mirror.png", image.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    red, green, blue = (Image.new("RGB", (128, 96), colour) for colour in ("#c00000", "#006000", "#0000ff"))
    for name, colour in (("red", red), ("green", green), ("blue", blue)):
        save(workspace.raw / f"cat/{name}.png", Image.blend(image.convert("L").convert("RGB"), colour, 0.5))
    assert found(workspace) == {}


@pytest.mark.parametrize(("kind", "conflict"), [("near", "similar_labels"), ("pixel", "label_conflict")])
def test_the_same_picture_under_two_labels_is_a_conflict_and_what_looks_like_it_another(
    kind: str, conflict: str, workspace: Workspace
):
    for number in range(3):
        save(workspace.raw / f"cat/img{number}.png", view(number))
        save(workspace.raw / f"dog/img{number}.png", view(10 + number))
    twin = again(view(2)) if kind == "near" else view(2)
    name = "x.jpg" if kind == "near" else "x.bmp"
    save(workspace.raw / "dog" / name, twin)
    save(workspace.raw / "cat" / "alike.bmp", view(1))
    issues = found(workspace)
    assert {path: codes for path, (codes, _) in issues.items()} == {
        "cat/img1.png": ["pixel_duplicate"],
        "cat/img2.png": [conflict],
        f"dog/{name}": [conflict],
    }
    assert f"dog/{name}" in issues["cat/img2.png"][1][0]
    assert "cat/img2.png" in issues[f"dog/{name}"][1][0]


def cell(number: int, cracked: bool) -> Image.Image:
    """A solar cell: the same structure in each, noise of its own, and perhaps a short crack."""
    grey = np.array(view(0).convert("L").resize((300, 300)), np.float64)
    grey += np.random.default_rng(number).normal(0, 5, grey.shape)
    if cracked:
        for step in range(40):
            grey[100 + number * 7 + step, 20 + step : 23 + step] = 10
    return Image.fromarray(grey.clip(0, 255).astype("u1"))


@pytest.mark.parametrize("level", ["warning", "error"])
def test_classes_that_differ_by_a_small_defect_lose_no_image_unless_params_say_so(level: str, workspace: Workspace):
    for number in range(6):
        save(workspace.raw / f"sound/{number}.png", cell(number, cracked=False))
        save(workspace.raw / f"cracked/{number}.png", cell(number, cracked=True))
    levels = Levels(similar_labels=level, near_duplicate="ignore", low_information="ignore")
    params = Validate(**CALM | {"levels": levels})
    if level == "error":
        with pytest.raises(InputError, match=r"(?s)none of 12 files .*validate\.near_distance is 15"):
            workspace.validate(params)
    else:
        workspace.validate(params)
    table = pl.read_parquet(workspace.manifest)
    assert table["issues"].to_list() == [["similar_labels"]] * 12
    assert set(table["status"]) == {"rejected" if level == "error" else "accepted"}
    assert table["group"].n_unique() == 1


def test_the_distance_up_to_which_images_look_alike_is_a_param(workspace: Workspace):
    for number in range(5):
        save(workspace.raw / f"cat/{number} a.png", view(number))
        save(workspace.raw / f"dog/{number} b.jpg", again(view(number), quality=20, light=1.1))
    twins = {path: int(re.search("distance ([0-9]+)", seen[0])[1]) for path, (_, seen) in found(workspace).items()}
    nearest = min(twins.values())
    assert len(twins) == 10 and nearest < max(twins.values())
    closer = found(workspace, near_distance=nearest)
    assert set(closer) == {path for path, distance in twins.items() if distance == nearest}
    assert pl.read_parquet(workspace.manifest).filter(pl.col("group") != "").height == len(
        closer
    )  # so pack leaves more


def test_flat_images_look_like_nothing_so_they_are_no_near_duplicates(workspace: Workspace):
    for number, colour in enumerate(("#101010", "#f0f0f0", "#00a0a0", "#00a1a0")):
        save(workspace.raw / f"cat/img{number}.png", Image.new("RGB", (64, 64), colour))
    assert {code for codes, _ in found(workspace).values() for code in codes} == {"uniform"}


def test_of_users_split_folders_the_twin_in_test_is_kept(workspace: Workspace):
    for batch in ("train", "val", "test"):
        save(workspace.raw / batch / "cat/same.png", view(1))
        save(workspace.raw / batch / "cat/own.png", view(ord(batch[1])))
    assert found(workspace) == {
        f"{batch}/cat/same.png": (["exact_duplicate"], ["same bytes as test/cat/same.png"])
        for batch in ("train", "val")
    }


def test_all_pairs_within_the_distance_are_found_and_nothing_else():
    """Against the comparison of each with each, on hashes of which many are nearly alike."""
    rng = np.random.default_rng(0)
    centres = rng.integers(0, 256, (20, 32), dtype=np.uint8)
    hashes = centres[rng.integers(0, 20, 300)]
    for row in hashes:
        for bit in rng.choice(256, rng.integers(0, 20), replace=False):
            row[bit // 8] ^= 128 >> bit % 8
    signatures = np.tile(rng.integers(0, 256, SIGNATURE_BYTES, dtype=np.uint8), (300, 1))
    distances = np.unpackbits(hashes[:, None] ^ hashes[None], axis=2).sum(2)
    wanted = np.argwhere(np.triu(distances <= near_duplicates.FURTHEST, 1))
    assert len(wanted) > 300
    assert near_duplicates.find(hashes, signatures).tolist() == wanted.tolist()
    assert near_duplicates.find(hashes, None).tolist() == wanted.tolist()
    nearer = np.argwhere(np.triu(distances <= 6, 1))
    assert near_duplicates.find(hashes, None, furthest=6).tolist() == nearer.tolist() != wanted.tolist()
    sides = rng.integers(0, 3, 300) == 0
    across = wanted[sides[wanted[:, 0]] != sides[wanted[:, 1]]]
    assert 100 < len(across) < len(wanted)
    assert near_duplicates.find(hashes, None, sides).tolist() == across.tolist()


def test_pixels_that_differ_deny_what_the_hash_says_unless_they_are_not_given():
    hashes = np.tile(np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8), (2, 1))
    signatures = np.random.default_rng(1).integers(0, 256, (2, SIGNATURE_BYTES), dtype=np.uint8)
    assert near_duplicates.find(hashes, signatures).tolist() == []
    assert near_duplicates.find(hashes, None).tolist() == [[0, 1]]
    assert near_duplicates.find(np.empty((0, 32), np.uint8), None).tolist() == []


def test_groups_are_linked_through_others():
    assert near_duplicates.groups(7, np.array([[1, 4], [2, 3], [4, 6]])).tolist() == [0, 1, 2, 2, 1, 5, 1]
    assert near_duplicates.groups(3, np.empty((0, 2), np.int64)).tolist() == [0, 1, 2]


def splits(workspace: Workspace, **params) -> dict[str, str]:
    """Validate, preprocess and pack; the split of each packed image."""
    packed: PackedImages = workspace.run(Validate(**CALM), Preprocess(size=16), Pack(split=Split(**FRACTIONS | params)))
    return {
        part.path(i): name
        for name in ("train", "val", "test", "excluded")
        for part in [packed.split(name)]
        for i in range(len(part))
    }


def test_a_group_of_images_that_look_alike_stands_in_one_split(workspace: Workspace):
    for number in range(30):
        save(workspace.raw / f"cat/{number} a.png", view(number))
        save(workspace.raw / f"cat/{number} b.jpg", again(view(number)))
        save(workspace.raw / f"cat/{number} c.jpg", again(view(number), scale=0.5))
    allowed = splits(workspace, leakage="allow")
    table = pl.read_parquet(workspace.manifest)
    assert table["group"].n_unique() == 30
    excluded = splits(workspace)
    lost = 0
    for group in table.partition_by("group"):
        mine = {allowed[path] for path in group["path"]}
        strongest = next(name for name in ("test", "val", "train") if name in mine)
        for path in group["path"]:
            assert excluded[path] == (strongest if allowed[path] == strongest else "excluded")
            lost += excluded[path] == "excluded"
    assert lost > 10
    assert json.loads((workspace.reports / "pack.json").read_text())["split"]["excluded"] == lost


@pytest.mark.slow
def test_what_is_added_removed_or_relabelled_moves_no_other_image_to_another_split(workspace: Workspace):
    """But out of train, or val, where a twin came to a split that matters more; and back when that goes."""
    chance = random.Random(0)
    for number in range(40):
        save(workspace.raw / f"cat/{number}.png", view(number))
    chosen = splits(workspace, leakage="allow")
    before = splits(workspace)
    for step in range(6):
        paths = sorted(path for path in workspace.raw.rglob("*") if path.is_file())
        touched = set()
        for path in chance.sample(paths, 3):
            touched.add(path.relative_to(workspace.raw).as_posix())
            path.unlink()
        for path in chance.sample([path for path in paths if path.exists() and path.parent.name == "cat"], 3):
            touched.add(path.relative_to(workspace.raw).as_posix())
            target = workspace.raw / "dog" / path.name
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            touched.add(target.relative_to(workspace.raw).as_posix())
        for number in range(3):
            save(workspace.raw / f"cat/new {step} {number}.png", view(1000 + 10 * step + number))
            twin = Image.open(chance.choice([path for path in paths if path.exists()])).convert("RGB")
            save(workspace.raw / f"cat/twin {step} {number}.jpg", again(twin, quality=90 - step))
        chosen |= splits(workspace, leakage="allow")
        after = splits(workspace)
        for path in (before.keys() & after.keys()) - touched:
            assert {before[path], after[path]} in ({chosen[path]}, {chosen[path], "excluded"}, {"excluded"}), path
        for path, name in chosen.items():
            if name == "test" and path in after:
                assert after[path] == "test"
        before = after
    assert "excluded" in before.values()
