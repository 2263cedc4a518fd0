"""Augmentation: what each knob does, that it depends on (seed, epoch, image id) alone, and what is refused."""

import colorsys
import dataclasses
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import REPOSITORY, Workspace, add_pictures, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imagepack import Augment, PackedImages
from imagepack.engine.params import defaults
from imagepack.reader.augment import WHOLE, Sampled, _affine, _tone, normalise
from stages.preprocess import Preprocess

OFF = {knob.name: max(knob.metadata["ge"], 0) for knob in dataclasses.fields(Augment) if knob.metadata} | {"crop": 1}
"""Every operation switched off."""


def image(number: int = 0, width: int = 32, height: int = 32, mode: str = "RGB") -> np.ndarray:
    """A smooth picture, uint8 (H, W, C)."""
    return np.array(picture(number, width, height, mode)).reshape(height, width, -1)


def an_id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def only(**knobs) -> Augment:
    """All off but these."""
    return Augment(**OFF | knobs)


def sharpness(pixels: np.ndarray) -> float:
    return float(np.abs(np.diff(pixels.astype(float), axis=0)).mean())


@pytest.fixture(scope="module", params=["RGB", "L"])
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PackedImages:
    """A pack of 40 images of 24 x 24."""
    workspace = Workspace(tmp_path_factory.mktemp("pack"))
    add_pictures(workspace.raw, 20, "cat")
    add_pictures(workspace.raw, 20, "dog", first=100)
    return workspace.run(preprocessed=Preprocess(size=24, mode=request.param))


def test_it_changes_images_and_is_the_same_again():
    before, augment = image(), Augment(seed=3, erase=1, vflip=0.5)
    first = augment(before, an_id(0), epoch=0)
    assert (first.shape, first.dtype) == (before.shape, np.uint8)
    assert np.array_equal(before, image())
    assert np.array_equal(first, augment(before, an_id(0), epoch=0))
    assert not np.array_equal(first, augment(before, an_id(0), epoch=1))
    assert not np.array_equal(first, augment(before, an_id(1), epoch=0))
    assert not np.array_equal(first, Augment(seed=4, erase=1, vflip=0.5)(before, an_id(0), epoch=0))


def test_an_images_augmentation_does_not_depend_on_its_batch(packed: PackedImages):
    augment = Augment()
    alone = [augment(packed[i][0], packed.ids[i].tobytes(), 5) for i in range(len(packed))]
    batched = [image for images, _ in packed.batches(9, epoch=5, augment=augment) for image in images]
    assert np.array_equal(alone, batched)


def test_it_is_the_same_in_another_process():
    code = "from imagepack import Augment; print(Augment().sample(bytes(32), 7))"
    env = os.environ | {"PYTHONHASHSEED": "1"}
    told = subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY, text=True, env=env)
    assert told.strip() == str(Augment().sample(bytes(32), 7))


def test_it_is_the_same_in_many_threads():
    augment, before = Augment(erase=0.5, blur=0.5), image()
    expected = [augment(before, an_id(n), 0) for n in range(100)]
    with ThreadPoolExecutor(8) as threads:
        assert np.array_equal(expected, list(threads.map(lambda n: augment(before, an_id(n), 0), range(100))))


def test_what_is_drawn_stays_the_same_from_version_to_version():
    """Whoever changes these numbers changes what every training sees: say so in the CHANGELOG."""
    sampled = Augment(erase=1, blur=1).sample(an_id(1), 0)
    told = "-4°, crop 97 %, bright 0.82, contrast 0.88, saturation 1.07, hue +2°, blur 0.6, erased"
    assert sampled.words() == told.split(", ")


@pytest.mark.parametrize("knob", sorted(OFF.keys() - {"seed", "aspect", "blur_radius"}))
def test_an_operation_does_not_disturb_the_others(knob: str):
    everything = {"vflip": 0.5, "erase": 0.5, "blur": 0.5}
    names = {"rotate": "angle", "crop": "box", "erase": "erased"}
    for number in range(20):
        with_it = Augment(**everything).sample(an_id(number), 0)
        without = Augment(**everything | {knob: OFF[knob]}).sample(an_id(number), 0)
        name = names.get(knob, knob)
        assert dataclasses.replace(with_it, **{name: getattr(without, name)}) == without


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_nothing_on_changes_nothing(mode: str):
    before = image(width=32, height=24, mode=mode)
    after = only()(before, an_id(0), 0)
    assert np.array_equal(after, before)
    assert not np.shares_memory(after, before)
    assert only().sample(an_id(0), 0) == Sampled()
    assert Sampled().words() == []


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        ({"hflip": 1}, lambda image: image[:, ::-1]),
        ({"vflip": 1}, lambda image: image[::-1]),
        ({"hflip": 1, "vflip": 1}, lambda image: image[::-1, ::-1]),
    ],
)
def test_flips_are_exact(knobs: dict, expected, mode: str):
    before = image(width=32, height=24, mode=mode)
    assert np.array_equal(only(**knobs)(before, an_id(0), 0), expected(before))


def test_a_flip_happens_as_often_as_asked():
    augment = only(hflip=0.3)
    flipped = sum(augment.sample(an_id(n), 0).hflip for n in range(2000))
    assert 520 < flipped < 680  # 600, give or take four standard deviations


def test_a_turn_is_counterclockwise_as_pillows():
    before = image(3, 64, 64)
    sampled = only(rotate=45).sample(an_id(1), 0)
    assert abs(sampled.angle) > 5
    expected = Image.fromarray(before).rotate(sampled.angle, Image.Resampling.BILINEAR)
    after = only(rotate=45)(before, an_id(1), 0)
    inside = slice(20, 44)
    assert np.abs(after[inside, inside].astype(int) - np.array(expected)[inside, inside]).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(64, 64), (64, 20), (9, 64)])
def test_a_turn_is_about_the_centre_and_fills_the_corners(width: int, height: int):
    before = np.full((height, width, 3), 200, np.uint8)
    middle = np.s_[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
    before[middle] = 20
    for epoch in range(20):
        turned = only(rotate=180)(before, an_id(0), epoch)
        assert turned[height // 2, width // 2].max() < 90
        assert turned[[0, 0, -1, -1], [0, -1, 0, -1]].min() >= 199


def test_a_crop_of_all_and_of_one_aspect_is_none():
    before = image()
    assert np.array_equal(only(crop=1, aspect=1)(before, an_id(0), 0), before)
    assert only(crop=1, aspect=4).sample(an_id(0), 0).box == WHOLE  # no other crop of all fits


def test_crops_have_the_asked_shares_and_aspects_and_lie_inside():
    boxes = np.array([only(crop=0.25, aspect=2).sample(an_id(n), 0).box for n in range(4000)])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    wide, tall = right - left, bottom - top
    shares, aspects = wide * tall, wide / tall
    assert abs(shares.min() - 0.25) < 0.01
    assert abs(shares.max() - 1) < 0.01
    assert abs(shares.mean() - 0.625) < 0.02  # uniform
    assert 0.5 - 1e-9 < aspects.min() < 0.51
    assert 1.96 < aspects.max() < 2 + 1e-9
    assert abs(np.log(aspects).mean()) < 0.03
    assert abs((left / np.maximum(1 - wide, 1e-9)).mean() - 0.5) < 0.03


@pytest.mark.parametrize("rotate", [0, 1e-6], ids=["as a crop", "as a turn by next to nothing"])
@pytest.mark.parametrize("knobs", [{}, {"hflip": 1}, {"vflip": 1}])
def test_a_crop_shows_its_box_at_full_size(knobs: dict, rotate: float):
    before = image(5, 64, 48)
    augment = only(crop=0.3, aspect=1.5, rotate=rotate, **knobs)
    left, top, right, bottom = augment.sample(an_id(0), 0).box
    flipped = only(**knobs)(before, an_id(0), 0)
    box = (left * 64, top * 48, right * 64, bottom * 48)
    expected = Image.fromarray(flipped).resize((64, 48), Image.Resampling.BILINEAR, box)
    assert np.abs(augment(before, an_id(0), 0).astype(int) - np.array(expected)).max() <= 2


def test_turned_crops_show_nothing_that_is_not_in_the_image():
    """A hole would be black."""
    white = np.full((33, 47, 3), 255, np.uint8)
    augment = only(rotate=180, crop=0.01, aspect=4, hflip=0.5)
    assert min(augment(white, an_id(n), 0).min() for n in range(300)) == 255


@pytest.mark.parametrize("number", range(5))
def test_turned_pixels_are_those_of_exact_arithmetic_and_so_the_same_on_every_machine(number: int):
    """Bilinear interpolation in whole numbers, coordinates in units of 2^-21; Pillow drops what is behind the point."""
    before, augment = image(number, 61, 43), only(rotate=30, crop=0.4, aspect=1.3)
    sampled = augment.sample(an_id(number), 0)
    sides = np.array(sampled.box) * (61, 43, 61, 43)
    affine, margin = _affine(sampled.angle, tuple(sides), 61, 43)
    a, b, c, d, e, f = (round(number * 2**20) for number in affine)
    x, y = np.meshgrid(2 * np.arange(61) + 1, 2 * np.arange(43) + 1)  # pixel centres, in halves
    x, y = a * x + b * y + 2 * c - 2**20, d * x + e * y + 2 * f - 2**20
    padded = np.pad(before.astype(np.int64), [(margin, margin), (margin, margin), (0, 0)], mode="symmetric")

    def at(down: int, right: int) -> np.ndarray:
        rows = np.clip((y >> 21) + down, 0, len(padded) - 1)
        return padded[rows, np.clip((x >> 21) + right, 0, padded.shape[1] - 1)]

    over, below = (x & (2**21 - 1))[..., None], (y & (2**21 - 1))[..., None]
    upper, lower = ((at(row, 0) << 21) + (at(row, 1) - at(row, 0)) * over for row in (0, 1))
    assert np.array_equal(augment(before, an_id(number), 0), ((upper << 21) + (lower - upper) * below) >> 42)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_brightness_and_contrast_are_factors(mode: str):
    before = image(mode=mode)
    bright = only(brightness=0.5)
    factor = bright.sample(an_id(0), 0).brightness
    assert 0.5 <= factor <= 1.5
    assert np.abs(bright(before, an_id(0), 0) - np.minimum(before * factor, 255)).max() < 0.7
    contrast = only(contrast=0.5)
    factor, grey = contrast.sample(an_id(0), 0).contrast, np.array(picture(0, 32, 32, "L")).mean()
    expected = np.clip((before - grey) * factor + grey, 0, 255)
    assert np.abs(contrast(before, an_id(0), 0) - expected).max() < 1.5


def test_saturation_nought_is_grey_and_keeps_the_luma():
    saturations = {n: only(saturation=1).sample(an_id(n), 0).saturation for n in range(300)}
    number = min(saturations, key=saturations.get)
    assert saturations[number] < 0.02
    after = only(saturation=1)(image(), an_id(number), 0)
    assert np.ptp(after.astype(int), axis=-1).max() <= 5
    assert np.abs(after[..., 0].astype(int) - np.array(picture(0, 32, 32, "L"))).max() <= 4


def test_hue_turns_red_to_the_sampled_colour():
    red = np.full((8, 8, 3), (255, 0, 0), np.uint8)
    seen = set()
    for number in range(60):
        augment = only(hue=180)
        angle = augment.sample(an_id(number), 0).hue
        (colour,) = np.unique(augment(red, an_id(number), 0).reshape(-1, 3), axis=0)
        hue = 360 * colorsys.rgb_to_hsv(*colour / 255)[0]
        assert abs((hue - angle + 180) % 360 - 180) < 9  # a turn about the grey axis is not quite HSV's
        seen.add(round(angle / 120) % 3)
    assert seen == {0, 1, 2}


@pytest.mark.parametrize(("hue", "expected"), [(120, (0, 255, 0)), (-120, (0, 0, 255)), (0, (255, 0, 0))])
def test_a_third_of_the_circle_turns_red_to_green_or_blue(hue: float, expected: tuple[int, ...]):
    red = Image.new("RGB", (4, 4), (255, 0, 0))
    assert _tone(red, Sampled(hue=hue)).getpixel((0, 0)) == expected


def test_grey_stays_grey_whatever_the_hue_and_saturation():
    grey = np.repeat(image(mode="L"), 3, axis=-1)
    after = only(hue=180, saturation=1)(grey, an_id(0), 0)
    assert np.abs(after.astype(int) - grey).max() <= 1


def test_colours_do_nothing_to_greyscale():
    before = image(mode="L")
    assert np.array_equal(only(hue=180, saturation=1)(before, an_id(0), 0), before)


def test_blur_lowers_sharpness_by_its_radius():
    before = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    augment = only(blur=1, blur_radius=3)
    by_radius = sorted((augment.sample(an_id(n), 0).blur, sharpness(augment(before, an_id(n), 0))) for n in range(20))
    assert all(0 < radius < 3 for radius, _ in by_radius)
    assert [s for _, s in by_radius] == sorted((s for _, s in by_radius), reverse=True)
    assert by_radius[-1][1] < sharpness(before) / 5


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_erase_sets_the_sampled_rectangle_to_the_mean_colour(mode: str):
    before, augment = image(width=60, height=40, mode=mode), only(erase=1)
    for number in range(50):
        left, top, right, bottom = augment.sample(an_id(number), 0).erased
        assert 0.02 - 1e-9 <= (right - left) * (bottom - top) <= 0.2
        after = augment(before, an_id(number), 0)
        inside = np.zeros((40, 60), bool)
        inside[round(top * 40) : round(bottom * 40), round(left * 60) : round(right * 60)] = True
        assert inside.any()
        assert np.array_equal(after[~inside], before[~inside])
        assert np.abs(after[inside] - before.mean((0, 1))).max() <= 1.5


@pytest.mark.parametrize(("knob", "drawn"), [("erase", "erased"), ("blur", "blur"), ("vflip", "vflip")])
def test_a_probability_is_kept(knob: str, drawn: str):
    count = sum(bool(getattr(only(**{knob: 0.25, "blur_radius": 1}).sample(an_id(n), 0), drawn)) for n in range(1000))
    assert 195 < count < 305  # 250, give or take four standard deviations


def test_the_sample_is_what_is_told():
    sampled = Sampled(True, True, 7.2, (0, 0.1, 0.8, 1), 1.124, 0.9, 1.05, -3.4, 0.81, WHOLE)
    told = (
        "flip, upside down, +7°, crop 72 %, aspect 0.89, bright 1.12, contrast 0.90, saturation 1.05, hue -3°, blur 0.8"
    )
    assert sampled.words() == [*told.split(", "), "erased"]
    assert not {"saturation 1.05", "hue -3°"} & set(sampled.words(grey=True))


def salt(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Set a tenth of the pixels to white, in place."""
    image[rng.random(image.shape[:2]) < 0.1] = 255
    return image


def shift(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(image, rng.integers(1, 5), axis=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_an_operation_of_ones_own_is_a_function(mode: str):
    before = image(mode=mode)
    salted = only(ops=[salt])(before, an_id(0), 0)
    assert np.array_equal(before, image(mode=mode))
    white = (salted == 255).all(-1)
    assert 0.05 < white.mean() < 0.2
    assert np.array_equal(salted[~white], before[~white])


def test_own_operations_do_not_disturb_each_other_and_are_keyed_like_the_others():
    before = np.zeros((32, 32, 1), np.uint8)
    before[:, 0] = 100
    alone = only(ops=[salt])(before, an_id(0), 0)
    assert np.array_equal(alone, only(ops=[salt])(before, an_id(0), 0))
    assert np.array_equal(alone == 255, only(ops=[shift, salt])(before, an_id(0), 0) == 255)
    for other in (only(ops=[salt])(before, an_id(1), 0), only(ops=[salt])(before, an_id(0), 1)):
        assert not np.array_equal(alone, other)
    assert not np.array_equal(alone, only(seed=1, ops=[salt])(before, an_id(0), 0))


def test_own_operations_come_after_the_others():
    def negative(image, rng):
        return 255 - image

    expected = 255 - Augment()(image(), an_id(0), 0)
    assert np.array_equal(Augment(ops=[negative])(image(), an_id(0), 0), expected)


def test_it_can_be_pickled_with_own_operations():
    augment = pickle.loads(pickle.dumps(Augment(rotate=3, ops=[salt])))
    assert augment == Augment(rotate=3, ops=[salt])
    assert np.array_equal(augment(image(), an_id(0), 0), Augment(rotate=3, ops=[salt])(image(), an_id(0), 0))


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda image: image.astype(np.float32), "float32 (32, 32, 3)"),
        (lambda image: image[:-1], "uint8 (31, 32, 3)"),
        (lambda image: image[..., 0], "uint8 (32, 32)"),
        (lambda image: None, "NoneType"),
    ],
)
def test_an_own_operation_that_returns_something_else_is_refused_by_name(result, words: str):
    def careless(image, rng):
        return result(image)

    with pytest.raises(ValueError) as error:
        Augment(ops=[careless])(image(), an_id(0), 0)
    assert str(error.value) == f"careless returned {words}, not uint8 (32, 32, 3)"


def test_own_operations_need_names_that_differ():
    with pytest.raises(ValueError, match="two ops are called salt: rename one"):
        Augment(ops=[salt, shift, salt])
    with pytest.raises(ValueError, match="'salt' in ops is no function"):
        Augment(ops=["salt"])


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (image().astype(np.float32), "float32 (32, 32, 3)"),
        (image()[..., 0], "uint8 (32, 32)"),
        (image()[..., :2], "uint8 (32, 32, 2)"),
        (image()[:0], "uint8 (0, 32, 3)"),
        (image()[None], "uint8 (1, 32, 32, 3)"),
        (Image.new("RGB", (32, 32)), "Image"),
    ],
)
def test_what_is_no_image_is_refused(broken, words: str):
    with pytest.raises(ValueError) as error:
        Augment()(broken, an_id(0), 0)
    assert str(error.value) == f"augment takes uint8 (H, W, 3) or (H, W, 1), not {words}"


@pytest.mark.parametrize("image_id", [7, "00" * 32, bytes(31), np.zeros(32, np.uint8)])
def test_what_is_no_id_is_refused(image_id):
    with pytest.raises(ValueError, match=r"an image id is 32 bytes \(ids\[i\]\.tobytes\(\)\), not"):
        Augment()(image(), image_id, 0)


@pytest.mark.parametrize("epoch", [-1, 1.0, "0", None])
def test_what_is_no_epoch_is_refused(epoch):
    with pytest.raises(ValueError, match=r"an epoch is 0, 1, 2, \.\.\., not"):
        Augment()(image(), an_id(0), epoch)
    assert Augment().sample(an_id(0), np.int64(3)) == Augment().sample(an_id(0), 3)


def test_knobs_out_of_range_are_all_named():
    with pytest.raises(ValueError) as error:
        Augment(seed=0.5, hflip=2, crop=0, hue="5", blur=float("nan"))
    assert str(error.value).split("; ") == [
        f"augment.seed must be a whole number between 0 and {2**63 - 1}, is 0.5",
        "augment.hflip must be between 0 and 1, is 2",
        "augment.crop must be between 0.01 and 1, is 0",
        "augment.hue must be between 0 and 180, is '5'",
        "augment.blur must be between 0 and 1, is nan",
    ]


@settings(max_examples=200, deadline=None)
@given(
    knobs=st.fixed_dictionaries(
        {
            knob.name: st.floats(knob.metadata["ge"], knob.metadata["le"])
            for knob in dataclasses.fields(Augment)
            if knob.metadata and knob.name != "seed"
        }
    ),
    width=st.integers(1, 40),
    height=st.integers(1, 40),
    channels=st.sampled_from([1, 3]),
    number=st.integers(0, 1000),
)
def test_any_knobs_take_any_image(knobs: dict, width: int, height: int, channels: int, number: int):
    before = np.full((height, width, channels), 77, np.uint8)
    after = Augment(**knobs)(before, an_id(number), number)
    assert (after.shape, after.dtype) == (before.shape, np.uint8)
    if not knobs["brightness"]:
        assert np.abs(after.astype(int) - 77).max() <= 2  # one tone stays that tone: no hole, no seam


@pytest.mark.parametrize("shape", [(5, 12, 10, 3), (12, 10, 1), (2, 3, 4, 5, 3)])
def test_normalised_pixels_are_those_of_the_formula(shape: tuple[int, ...]):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    mean, std = rng.uniform(0.3, 0.6, (2, shape[-1])).astype(np.float32)
    result = normalise(images, mean, std)
    assert (result.shape, result.dtype) == (shape, np.float32)
    assert np.abs(result - (images / 255 - mean) / std).max() < 1e-6
    out = np.empty(shape, np.float32)
    assert normalise(images, mean, std, out=out) is out
    assert np.array_equal(out, result)
    assert np.array_equal(normalise(images[..., ::-1, :], mean, std), result[..., ::-1, :])  # not contiguous


def test_normalised_with_their_own_mean_and_std_pixels_have_mean_0_and_std_1():
    images = np.stack([image(n) for n in range(20)])
    scaled = images / 255
    result = normalise(images, scaled.mean((0, 1, 2)), scaled.std((0, 1, 2)))
    assert np.allclose(result.mean((0, 1, 2)), 0, atol=1e-4)
    assert np.allclose(result.std((0, 1, 2)), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"images": np.zeros((2, 4, 4, 3))}, "takes uint8 (..., H, W, C), not float64 (2, 4, 4, 3)"),
        ({"images": np.zeros((4, 4), np.uint8)}, "takes uint8 (..., H, W, C), not uint8 (4, 4)"),
        ({"mean": [0.5]}, "mean and std must be 3 numbers, std above 0"),
        ({"std": [0.2, 0, 0.2]}, "mean and std must be 3 numbers, std above 0"),
        ({"out": np.zeros((2, 4, 4, 3))}, "out must be C-contiguous float32 (2, 4, 4, 3), not float64 (2, 4, 4, 3)"),
        (
            {"out": np.zeros((4, 4, 3), np.float32)},
            "out must be C-contiguous float32 (2, 4, 4, 3), not float32 (4, 4, 3)",
        ),
    ],
)
def test_what_cannot_be_normalised_is_refused(arguments: dict, words: str):
    whole = {"images": np.zeros((2, 4, 4, 3), np.uint8), "mean": [0.5] * 3, "std": [0.2] * 3}
    with pytest.raises(ValueError) as error:
        normalise(**whole | arguments)
    assert words in str(error.value)


def test_the_defaults_are_those_of_params_yaml():
    assert Augment(**defaults()["augment"]) == Augment()
