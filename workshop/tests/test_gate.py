"""validate.fail_on stops the pipeline, after the reports, on findings that nobody has acknowledged."""

import json

import polars as pl
import pytest
from conftest import FIXES, Workspace, add_pictures, picture, save

from imagepack.errors import InputError
from stages.pack import Pack, Split
from stages.validate import Levels, Validate, validate


def params(*fail_on: str, **others) -> Validate:
    """With these codes to stop on."""
    return Validate(fail_on=list(fail_on), blurry=0, min_class_images=others.pop("min_class_images", 0), **others)


def fault(workspace: Workspace, *fail_on: str, **others) -> str:
    """What the stage stops with."""
    with pytest.raises(InputError) as error:
        workspace.validate(params(*fail_on, **others))
    return str(error.value)


@pytest.fixture
def flawed(workspace: Workspace) -> Workspace:
    """A duplicate and a file with the wrong extension, among good ones."""
    add_pictures(workspace.raw, 3)
    save(workspace.raw / "cat/img0 copy.png", picture(0))
    save(workspace.raw / "cat/odd, name.jpg", picture(9), format="PNG")
    return workspace


def digest(workspace: Workspace, path: str) -> str:
    """Of a file, by the manifest."""
    return pl.read_parquet(workspace.manifest).row(by_predicate=pl.col("path") == path, named=True)["sha256"]


def test_it_stops_once_the_reports_are_written_and_names_what_it_found(flawed: Workspace):
    said = fault(flawed, "extension_mismatch", "exact_duplicate", "dark")
    assert said.splitlines() == [
        "2 findings with a code of validate.fail_on (extension_mismatch, exact_duplicate, dark):",
        "  cat/odd, name.jpg: extension_mismatch (is PNG)",
        "  cat/img0 copy.png: exact_duplicate (same bytes as cat/img0.png)",
        f"mend the files, or acknowledge what is right by adding such lines to {flawed.acknowledged}:",
        f'  {digest(flawed, "cat/odd, name.jpg")},extension_mismatch,"cat/odd, name.jpg"',
        f"  {digest(flawed, 'cat/img0 copy.png')},exact_duplicate,cat/img0 copy.png",
    ]
    assert json.loads((flawed.reports / "validation.json").read_text())["files"] == 5
    assert (flawed.reports / "validation.html").exists()
    assert (flawed.reports / "rejected.csv").exists()


def test_codes_that_were_not_found_or_not_named_stop_nothing(flawed: Workspace):
    assert len(flawed.validate(params("dark", "label_conflict"))) == 5


def test_what_is_acknowledged_does_not_stop_it_but_the_next_of_its_kind_does(flawed: Workspace):
    said = fault(flawed, "extension_mismatch", "exact_duplicate")
    lines = [line.strip() for line in said.splitlines()[-2:]]
    flawed.acknowledged.write_text("\n".join(["image,code,note", *lines]) + "\n", encoding="utf-8")
    manifest = flawed.validate(params("extension_mismatch", "exact_duplicate"))
    assert manifest.filter(pl.col("status") == "rejected")["path"].to_list() == ["cat/img0 copy.png"]
    (flawed.raw / "cat/odd, name.jpg").rename(flawed.raw / "cat/moved.jpg")  # the content counts, not the name
    flawed.validate(params("extension_mismatch", "exact_duplicate"))
    save(flawed.raw / "cat/another.jpg", picture(10), format="PNG")
    said = fault(flawed, "extension_mismatch", "exact_duplicate")
    assert said.startswith("1 findings") and "cat/another.jpg: extension_mismatch" in said


def test_a_class_is_acknowledged_by_its_name(workspace: Workspace):
    add_pictures(workspace.raw, 4, "cat")
    add_pictures(workspace.raw, 1, "dog", first=4)
    said = fault(workspace, "class_too_small", min_class_images=2)
    assert "  dog: class_too_small (1 accepted images)" in said
    assert said.splitlines()[-1] == "  dog,class_too_small,dog"
    workspace.acknowledged.write_text("image,code,note\ndog,class_too_small,they are rare\n")
    workspace.validate(params("class_too_small", min_class_images=2))


def test_codes_on_which_nothing_could_stop_are_refused_before_anything_is_read(workspace: Workspace):
    said = fault(workspace, "darkk", "label_conflict", "blurry", levels=Levels(blurry="ignore"))
    assert said.splitlines() == [
        "params.yaml is not valid:",
        "  validate.fail_on: no code 'darkk' (did you mean dark?)",
        "  validate.fail_on: blurry is ignored by validate.levels: set it to info or more",
    ]


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", ["line 1: must be image,code,note,keep"]),
        (b"image,code\n", ["line 1: must be image,code,note,keep"]),
        (
            b"image,code,note\n" + b"0" * 64 + b",dark,x,keep\n",
            ["line 2: says keep, and there is no such column: line 1 must be image,code,note,keep"],
        ),
        (
            b"image,code,note,keep\ncat/a.png,truncated,,keep\ncat/a.png,dark,a, b\ndog,class_too_small,,keep\n"
            b",dark,x,keep\ncat/a.jpg,jpeg_damage,,keep\n",
            [
                "line 2: no image can be kept in spite of truncated; take `keep` away, and " + FIXES["truncated"],
                "line 3: the column keep has ' b': it must be keep, or empty; put a note with commas in quotes",
                "line 4: class_too_small rejects no image: take `keep` away",
                "line 5: names no image",
                "line 6: no image can be kept in spite of jpeg_damage alone; take `keep` away, and lower "
                "validate.levels.jpeg_damage, or " + FIXES["jpeg_damage"],
            ],
        ),
        (
            b"image,code,note\nabc,dark,x\n" + b"0" * 64 + b",drak,x\n\n" + b"0" * 64 + b",dark,x,y\n",
            [
                "line 2: 'abc' is no sha256 of 64 hexadecimal digits",
                "line 3: no code 'drak' (did you mean dark?)",
                "line 5: has 4 fields; put a note with commas in quotes",
            ],
        ),
    ],
)
def test_every_fault_of_the_file_is_named(content: bytes, wanted: list[str], workspace: Workspace):
    workspace.acknowledged.write_bytes(content)
    assert fault(workspace).splitlines() == [
        f"{workspace.acknowledged} is not valid:",
        *(f"  {line}" for line in wanted),
    ]


def test_a_file_that_is_no_text_is_refused(workspace: Workspace):
    workspace.acknowledged.write_bytes(b"\xff\xfe\0")
    assert "is no CSV file in UTF-8" in fault(workspace)


def test_a_file_of_a_spreadsheet_is_read(flawed: Workspace):
    """With a byte order mark, \\r\\n, and without the note."""
    fault(flawed, "extension_mismatch")
    line = f"{digest(flawed, 'cat/odd, name.jpg')},extension_mismatch"
    flawed.acknowledged.write_bytes(f"\ufeffimage,code,note\r\n{line}\r\n".encode())
    flawed.validate(params("extension_mismatch"))


def test_what_the_message_says_to_paste_is_taken(workspace: Workspace):
    """Also for what has no content, no content of its own, or an odd name."""
    add_pictures(workspace.raw, 2, "Cats, big")
    add_pictures(workspace.raw, 2, "cats, big", first=5)
    (workspace.raw / "cats, big/empty.png").touch()
    save(workspace.raw / "cats, big/line\u2028break \x0b.jpg", picture(9), format="PNG")
    codes = ("name_collision", "empty_file", "class_too_small", "extension_mismatch")
    said = fault(workspace, *codes, min_class_images=4)
    lines = said.split("adding such lines to")[1].split("\n")[1:]
    assert len(lines) == 3 + 1 + 2 + 1 + 1  # of three files in the twin folder, and the empty one is one of them
    workspace.acknowledged.write_text("\n".join(["image,code,note", *map(str.strip, lines)]) + "\n", encoding="utf-8")
    workspace.validate(params(*codes, min_class_images=4))


def keep(workspace: Workspace, *lines: str) -> None:
    """Write acknowledged.csv."""
    workspace.acknowledged.write_text("\n".join(["image,code,note,keep", *lines]) + "\n", encoding="utf-8")


def test_an_image_is_kept_in_spite_of_an_error_and_the_finding_still_reported(flawed: Workspace):
    save(flawed.raw / "cat/small.png", picture(20, 8, 8))
    save(flawed.raw / "cat/small and odd.jpg", picture(21, 8, 8), format="PNG")
    flawed.validate(params())
    odd = digest(flawed, "cat/small and odd.jpg")
    copy = "cat/img0 copy.png,exact_duplicate,,keep"
    keep(flawed, "cat/small.png,too_small,an icon,keep", f"{odd},too_small,,keep", copy)
    strict = {"levels": Levels(extension_mismatch="error")}
    manifest = flawed.validate(params("too_small", "exact_duplicate", **strict))  # what is kept stops nothing either
    kept = manifest.filter(pl.col("seen").list.join("").str.contains("kept by acknowledged.csv", literal=True))
    assert {path: (status, seen) for path, status, seen in kept.select("path", "status", "seen").iter_rows()} == {
        "cat/small.png": ("accepted", ["8 x 8 pixels (kept by acknowledged.csv)"]),
        "cat/small and odd.jpg": ("rejected", ["is PNG", "8 x 8 pixels (kept by acknowledged.csv)"]),
        "cat/img0 copy.png": ("accepted", ["same bytes as cat/img0.png (kept by acknowledged.csv)"]),
    }
    rejected = pl.read_csv(flawed.reports / "rejected.csv")
    assert rejected.select("path", "code").rows() == [
        ("cat/odd, name.jpg", "extension_mismatch"),
        ("cat/small and odd.jpg", "extension_mismatch"),
    ]
    assert json.loads((flawed.reports / "validation.json").read_text())["issues"]["too_small"] == 2
    keep(flawed, copy)  # so of one code some are kept and some are not: the page lists it once
    flawed.validate(params(levels=Levels(exact_duplicate="error")))
    save(flawed.raw / "cat/img1 copy.png", picture(1))
    flawed.validate(params())
    page = (flawed.reports / "validation.html").read_text(encoding="utf-8")
    assert page.count('<option value="exact_duplicate">exact_duplicate (2)</option>') == 1


def test_of_one_picture_under_two_labels_the_one_that_is_named_stays(workspace: Workspace):
    add_pictures(workspace.raw, 2, "cat")
    add_pictures(workspace.raw, 2, "dog", first=10)
    for label in ("cat", "dog"):
        save(workspace.raw / label / "both.png", picture(5))
    keep(workspace, "cat/both.png,label_conflict,it is a cat,keep")
    status = dict(workspace.validate(params()).select("path", "status").iter_rows())
    assert (status["cat/both.png"], status["dog/both.png"]) == ("accepted", "rejected")
    keep(workspace, f"{digest(workspace, 'cat/both.png')},label_conflict,,keep")  # by content: both
    assert set(workspace.validate(params())["status"]) == {"accepted"}


def test_kept_copies_share_a_split_and_a_pack_holds_both(workspace: Workspace):
    add_pictures(workspace.raw, 8)
    for number in range(8):
        save(workspace.raw / f"cat/img{number} copy.png", picture(number))
    keep(workspace, *(f"cat/img{number} copy.png,exact_duplicate,,keep" for number in range(8)))
    packed = workspace.run(params(), packed=Pack(split=Split(train=0.4, val=0.3, test=0.3)))
    assert len(packed) == 16
    split = {packed.path(i): int(packed.index.splits[i]) for i in range(16)}
    assert len(set(split.values())) > 1
    for number in range(8):
        assert split[f"cat/img{number}.png"] == split[f"cat/img{number} copy.png"]
    assert len({packed.ids[i].tobytes() for i in range(16)}) == 8
    assert sum(len(images) for images, _ in packed.batches(5)) == 16


def test_a_line_that_keeps_nothing_any_more_is_named(flawed: Workspace):
    lines = ["cat/gone.png,dark,,keep", "cat/img1.png,dark,,keep", f"{'0' * 64},dark,,"]
    keep(flawed, "cat/img0 copy.png,exact_duplicate,,keep", *lines)
    told = validate(flawed.raw, flawed.acknowledged, flawed.manifest, flawed.reports, params())
    named = "line 3 (cat/gone.png, dark), line 4 (cat/img1.png, dark)"
    assert f"; nothing to keep any more: remove {named} from {flawed.acknowledged}" in told
