"""What users write in stages/: checks that look at pixels, and augmentation operations."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import Project, add_pictures, checker, picture, save
from PIL import Image

from imagepack import Augment
from imagepack.checks.validation import Checker
from imagepack.engine.memo import NO_MEMO
from stages.validate import Validate

GRAIN = """
def grain(image, rng):
    return (image + rng.integers(-8, 9, image.shape)).clip(0, 255).astype("uint8")

OPS = [grain]
"""


def no_red(image, params):
    if image.pixels()[..., 0].max() < 30:
        yield "no_red", f"{image.width} x {image.height} pixels of {image.pixels().shape}"


def test_a_check_sees_the_pixels_upright_in_rgb(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "cat/blue.jpg", Image.new("RGB", (40, 30), (0, 0, 255)), exif=exif)
    save(tmp_path / "cat/red.png", Image.new("RGBA", (40, 30), (255, 0, 0, 255)))
    found = Checker.of(tmp_path, Validate(), no_red, NO_MEMO)(["cat/blue.jpg", "cat/red.png"])[1]
    assert found == [("cat/blue.jpg", "no_red", "40 x 30 pixels of (40, 30, 3)", "")]
    assert checker(tmp_path, Validate(uniform=0, blurry=0, low_information=0))(["cat/red.png"])[1] == []


@pytest.mark.slow
def test_a_check_of_ones_own_has_a_level_a_fix_and_a_place_in_the_report(new_project):
    project: Project = new_project()
    add_pictures(project.folder / "data/raw", 12)
    for number in range(3):
        array = np.array(picture(70 + number))
        array[..., 0] = 0
        save(project.folder / f"data/raw/cat/blue{number}.png", Image.fromarray(array))
    text = (project.folder / "stages/validate.py").read_text(encoding="utf-8")
    text = text.replace(
        "OWN_CHECKS: dict[str, Check] = {}", 'OWN_CHECKS = {"no_red": Check("error", "is blue", "go red")}'
    )
    text = re.sub(r"    # (if image\.pixels.*\n)    # (    yield .*\n)", r"    \1    \2", text)
    project.write("stages/validate.py", text)
    project("dvc", "add", "data/raw")
    printed = project("dvc", "repro", "validate")
    assert "12 accepted, 3 rejected" in printed
    rejected = (project.folder / "reports/rejected.csv").read_text(encoding="utf-8")
    assert "cat/blue0.png,no_red,no pixel has 30 of 255 or more,go red" in rejected
    params = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", params.replace("  levels:\n", "  levels:\n    no_red: warning\n", 1))
    assert "15 accepted, 0 rejected" in project("dvc", "repro", "validate")


def test_operations_of_a_repository_are_applied_and_may_be_pickled(tmp_path: Path):
    for name in ("one", "two"):
        (tmp_path / name / "stages").mkdir(parents=True)
        (tmp_path / name / "params.yaml").write_text("augment: {hflip: 0, rotate: 0, crop: 1, aspect: 1}\n")
        grain = GRAIN if name == "one" else GRAIN.replace("-8, 9", "-80, 81")
        (tmp_path / name / "stages/augment.py").write_text(grain)
    image, image_id = np.full((16, 16, 3), 128, "u1"), bytes(32)
    one, two = (Augment.of_repository(tmp_path / name) for name in ("one", "two"))
    assert one.hflip == 0
    first = one(image, image_id, 0)
    assert np.array_equal(first, pickle.loads(pickle.dumps(one))(image, image_id, 0))
    assert np.array_equal(first, one(image, image_id, 0))
    spread = {name: int(np.ptp(augment(image, image_id, 0).astype(int))) for name, augment in (("1", one), ("2", two))}
    assert spread["1"] < spread["2"]
