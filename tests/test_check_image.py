"""`check_image` in stages/validate.py says what is wrong with an image, in codes that are declared.

To add a test: save a picture of which you know what is wrong in `tmp_path`, and look at what `codes` returns.
"""

from pathlib import Path

from PIL import Image

from imagepack.checks.codes import CHECKS
from imagepack.checks.validation import Checker
from imagepack.engine.memo import NO_MEMO
from stages.validate import OWN_CHECKS, check_image


def codes(folder: Path, names: list[str], params) -> set[str]:
    """Check some files of `folder`, by their paths below it, as validate does; return the codes that were found."""
    _, findings = Checker.of(folder, params["validate"], check_image, NO_MEMO)(names)
    return {code for _, code, *_ in findings}


def test_every_code_that_is_found_is_declared(handful: dict[str, bytes], tmp_path: Path, params):
    for name, content in handful.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert codes(tmp_path, list(handful), params) <= {*CHECKS, *OWN_CHECKS}


def test_an_image_that_is_too_small_is_said_to_be(tmp_path: Path, params):
    (tmp_path / "class").mkdir()
    Image.new("RGB", (5, 5)).save(tmp_path / "class/small.png")
    asked = params["validate"].model_copy(update={"min_side": 6})
    assert "too_small" in codes(tmp_path, ["class/small.png"], {"validate": asked})


def test_checks_of_your_own_say_what_they_mean_and_what_to_do():
    assert not {*OWN_CHECKS} & {*CHECKS}
    assert all(check.meaning and check.fix for check in OWN_CHECKS.values())
