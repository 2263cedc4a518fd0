"""`fit` in stages/preprocess.py makes every image what params.yaml promises, and leaves alone the one it gets.

To add a test: draw or open an image of which you know what must become, call `fit`, and look at the pixels. For params
other than those of params.yaml: `params["preprocess"].model_copy(update={"size": 32})`.
"""

import numpy as np
import pytest
from PIL import Image

from stages.preprocess import fit

SIZES = [(128, 128), (17, 31), (640, 479), (300, 40), (40, 300)]
"""Width and height: as many kinds as you have, and a few odd ones."""


@pytest.fixture(params=SIZES, ids=str)
def image(request: pytest.FixtureRequest, params) -> Image.Image:
    """A noisy image in the mode in which `fit` gets it; a test that takes it runs once for each of SIZES."""
    width, height = request.param
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(params["preprocess"].mode)


def test_an_image_gets_the_size_and_mode_of_params_yaml(image: Image.Image, params):
    fitted = fit(image, params["preprocess"])
    assert fitted.size == (params["preprocess"].size, params["preprocess"].size)
    assert fitted.mode == params["preprocess"].mode


def test_an_image_keeps_something_to_see(image: Image.Image, params):
    assert np.std(fit(image, params["preprocess"])) > 1


def test_the_same_image_gives_the_same_pixels(image: Image.Image, params):
    before = image.copy()
    assert fit(image, params["preprocess"]) == fit(image, params["preprocess"])
    assert image == before  # `fit` works on a copy
