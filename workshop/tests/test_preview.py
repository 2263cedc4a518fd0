"""Preview: contact sheets that show what training will see, pixel by pixel, and say what was drawn."""

from pathlib import Path

import numpy as np
import pytest
from conftest import Workspace, add_pictures
from PIL import Image

import imagepack
from imagepack.errors import InputError
from imagepack.images.contact_sheet import CAPTION, GAP, HEADER, font, wrap
from stages.pack import Pack, Split
from stages.preprocess import Preprocess
from stages.preview import Augment, Preview, choose, draw, preview

ALL = Pack(split=Split(train=1, val=0, test=0))


def pack(folder: Path, size: int = 160, mode: str = "RGB") -> imagepack.PackedImages:
    """A pack of two classes, all of it for training; its train split."""
    workspace = Workspace(folder)
    add_pictures(workspace.raw, 6, "cat")
    add_pictures(workspace.raw, 6, "dog", first=100)
    return workspace.run(preprocessed=Preprocess(size=size, mode=mode), packed=ALL).split("train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pack")
    pack(folder)
    return folder / "packed"


@pytest.fixture(scope="module")
def train(folder: Path) -> imagepack.PackedImages:
    return imagepack.PackedImages(folder).split("train")


def cell(drawn: Image.Image, row: int, column: int, rows: int, side: int) -> np.ndarray:
    """The pixels of one image on a sheet."""
    down = (drawn.height - HEADER) // rows
    left, top = GAP + column * (side + GAP), HEADER + row * down
    return np.array(drawn)[top : top + side, left : left + side]


def test_it_draws_a_sheet_a_class(folder: Path, tmp_path: Path):
    (tmp_path / "sheets").mkdir()
    (tmp_path / "sheets/of a class that is gone.png").touch()
    told = preview(folder, tmp_path / "sheets", Preview(images=3, variants=2), Augment())
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == ["cat.png", "dog.png"]
    assert told.startswith("2 sheets of up to 3 images and 2 variants each")
    preview(folder, tmp_path / "sheets", Preview(classes=1), Augment())
    assert [path.name for path in (tmp_path / "sheets").iterdir()] == ["cat.png"]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_it_shows_the_pixels_that_training_sees(mode: str, tmp_path: Path):
    train, knobs = pack(tmp_path, mode=mode), Augment(erase=0.5, blur=0.5)
    preview(tmp_path / "packed", tmp_path / "sheets", Preview(images=3, variants=4), knobs)
    drawn = Image.open(tmp_path / "sheets/dog.png")
    chosen = choose(train, train.classes.index("dog"), 3)
    for row, i in enumerate(chosen):
        assert np.array_equal(cell(drawn, row, 0, 3, 160), np.broadcast_to(train[i][0], (160, 160, 3)))
    augment = imagepack.Augment(**knobs.model_dump())
    for epoch in range(4):
        images = np.concatenate([images for images, _ in train.batches(5, epoch=epoch, augment=augment)])
        for row, i in enumerate(chosen):
            assert np.array_equal(cell(drawn, row, 1 + epoch, 3, 160), np.broadcast_to(images[i], (160, 160, 3)))


def test_small_images_are_drawn_larger_each_pixel_as_a_square(tmp_path: Path):
    train = pack(tmp_path, size=50)
    drawn = draw(train, choose(train, 0, 1), imagepack.Augment(), 1)
    i = choose(train, 0, 1)[0]
    expected = imagepack.Augment()(train[i][0], train.ids[i].tobytes(), 0)
    assert np.array_equal(cell(drawn, 0, 1, 1, 150), expected.repeat(3, axis=0).repeat(3, axis=1))


def test_what_was_drawn_stands_under_the_picture(train: imagepack.PackedImages):
    chosen = choose(train, 0, 1)
    nothing = {"hflip": 0, "rotate": 0, "crop": 1, "aspect": 1, "brightness": 0, "contrast": 0, "saturation": 0}
    plain = imagepack.Augment(**nothing, hue=0, blur=0)
    flipped = imagepack.Augment(**nothing | {"hflip": 1}, hue=0, blur=0)
    under = [np.array(draw(train, chosen, augment, 1))[HEADER + 161 :, 160 + 2 * GAP :] for augment in (plain, flipped)]
    assert (under[0][1:] == 255).all()
    assert (under[1][1:] != 255).any()


def test_words_are_wrapped_to_the_width_and_cut_if_need_be():
    words = [
        "flip",
        "+7°",
        "crop 86 %",
        "bright 1.12",
        "contrast 0.93",
        "a-name-that-is-as-long-as-some-cameras-write.jpg",
    ]
    lines = wrap(words, 128)
    assert lines[0].startswith("flip  +7°  crop 86 %")
    assert all(font(CAPTION).getlength(line) <= 128 for line in lines)
    assert lines[-1].startswith("a-name-that")
    assert lines[-1].endswith("…")
    assert "  ".join(lines[:-1]).split("  ") == words[:-1]
    assert wrap([], 128) == []


def test_the_images_stay_the_same_when_others_come(train: imagepack.PackedImages, tmp_path: Path):
    before = {train.ids[i].tobytes() for i in choose(train, 0, 3)}
    workspace = Workspace(tmp_path)
    add_pictures(workspace.raw, 12, "cat")
    more = workspace.run(preprocessed=Preprocess(size=16), packed=ALL).split("train")
    after = sorted(more.ids[i].tobytes() for i in choose(more, 0, 3))
    assert after == sorted({id_.tobytes() for id_ in more.ids})[:3]
    assert set(after) & {id_.tobytes() for id_ in train.ids} <= before


def test_without_a_pack_there_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"dataset\.h5 does not exist"):
        preview(tmp_path / "packed", tmp_path / "sheets", Preview(), Augment())


def test_where_nothing_is_to_train_on_the_sheets_show_what_there_is_and_nothing_drawn(tmp_path: Path):
    workspace = Workspace(tmp_path)
    add_pictures(workspace.raw, 2)
    packed = workspace.run(preprocessed=Preprocess(size=160), packed=Pack(split=Split(train=0, val=0.5, test=0.5)))
    told = preview(workspace.packed, tmp_path / "sheets", Preview(), Augment())
    assert told.startswith("no image is in the train split (pack.split), so nothing is augmented: 1 sheet ")
    drawn = Image.open(tmp_path / "sheets/cat.png")
    assert drawn.width == 160 + 2 * GAP
    for row, i in enumerate(choose(packed, 0, 4)):
        assert np.array_equal(cell(drawn, row, 0, 2, 160), packed[i][0])
