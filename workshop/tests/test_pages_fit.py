"""Pages in a narrow window and on paper: nothing is cut, and every picture is there."""

import base64
from pathlib import Path

import pytest
from browser import Browser
from conftest import REPOSITORY, picture, save
from dvc_render.html import render_html
from dvc_render.image import ImageRenderer
from dvc_render.vega import VegaRenderer
from summaries import change, comparison
from test_compare_page import image, written
from test_overview import labelled
from test_validation_page import findings
from test_validation_page import written as validation_written

from imagepack.compare.pictures import Pictures

pytestmark = pytest.mark.slow


def printed(browser: Browser) -> bytes:
    """The page that is open as a PDF, in which each picture that differs from others is one image."""
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    return base64.b64decode(browser.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])


def test_cards_that_nobody_scrolled_to_are_printed(browser: Browser, tmp_path: Path):
    summary, changes = comparison(*(change("edited", f"cat/{n:03}.jpg") for n in range(100)))
    written(tmp_path, (summary, changes), {n: Pictures(image(2 * n), image(2 * n + 1), None) for n in range(100)})
    browser.open(tmp_path / "page.html")
    assert printed(browser).count(b"/Subtype /Image") >= 200


def test_samples_and_findings_are_printed(browser: Browser, tmp_path: Path):
    table = labelled(cat=30)
    found = findings(*((path, "odd", "", "info", "") for path in table["path"]))
    validation_written(tmp_path, table, found, {path: image(n) for n, path in enumerate(table["path"])})
    browser.open(tmp_path / "page.html")
    assert printed(browser).count(b"/Subtype /Image") >= 30


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_of_dvc_plots_shows_all_of_each_plot(chromium: Browser, tmp_path: Path, width: int):
    for name in ("v1", "v2"):
        save(tmp_path / f"{name}.png", picture(1, 900, 500))
    points = [{"label": "w" * 30, "images": n, "rev": rev} for n in range(9) for rev in ("v1", "v2")]
    sheets = [{"rev": rev, "src": f"{rev}.png"} for rev in ("v1", "v2")]
    bars = VegaRenderer(points, "classes", template="bar_horizontal", x="images", y="label", anchors_y_definitions=[])
    render_html(
        [bars, ImageRenderer(sheets, "preview.png")], tmp_path / "page.html", REPOSITORY / ".dvc/plots/page.html"
    )
    chromium.open(tmp_path / "page.html", width=width)
    chromium.js("new Promise(done => setTimeout(done, 500))")
    assert chromium.js("document.querySelectorAll('canvas, img').length") == 3
    edges = "[...document.querySelectorAll('canvas, img')].map(plot => plot.getBoundingClientRect())"
    assert chromium.js(f"{edges}.filter(edge => edge.left < 0 || edge.right > innerWidth || !edge.height).length") == 0
    assert chromium.js("document.scrollingElement.scrollWidth <= innerWidth")
    tops = chromium.js(f"{edges}.slice(1).map(edge => edge.top)")
    assert (tops[0] == tops[1]) == (width == 1280)  # side by side where there is room
