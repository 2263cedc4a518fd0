"""What the page says of a dataset as a whole: counts that add up, bars that fit, samples that stay the same."""

import time
from pathlib import Path

import polars as pl
import pytest
from browser import HOSTILE, Browser
from conftest import picture, save
from test_validation_page import damaged, files, findings, thumbnail, written

from imagepack.checks import overview
from imagepack.checks.validation_page import SAMPLE, write


def labelled(**counts: int) -> pl.DataFrame:
    """That many accepted images of each class, each with an id of its own."""
    table = files(*(f"{label}/{n}.png" for label, count in counts.items() for n in range(count)))
    return table.with_columns(sha256=pl.int_range(pl.len()).hash(1).cast(pl.String).str.pad_start(64, "0"))


def test_classes_are_counted_by_what_became_of_their_images():
    split = ["train"] * 6 + ["val", "test", "excluded", None]
    table = labelled(cat=7, dog=3).with_columns(split=pl.Series(split))
    table = table.with_columns(
        status=pl.when(pl.col("path") == "dog/2.png").then(pl.lit("rejected")).otherwise("status")
    )
    found = overview.classes(table)
    assert [(part["name"], part["count"]) for part in found["parts"]] == [
        ("train", 6), ("val", 1), ("test", 1), ("excluded", 1), ("rejected", 1),
    ]  # fmt: skip
    assert [(row["label"], row["images"]) for row in found["rows"]] == [("cat", 7), ("dog", 2)]
    for row in [*found["rows"], {"parts": found["parts"]}]:
        for part, after in zip(row["parts"], row["parts"][1:], strict=False):
            assert after["x"] <= part["x"] + part["width"] <= after["x"] + 1  # no gap
        assert row["parts"][-1]["x"] + row["parts"][-1]["width"] <= overview.WIDTH + 1
    without = overview.classes(table.drop("split"))
    assert [(part["name"], part["count"]) for part in without["parts"]] == [("accepted", 9), ("rejected", 1)]


def test_of_many_classes_the_largest_are_shown_and_the_rest_is_counted():
    found = overview.classes(labelled(**{f"c{n}": n for n in range(1, 41)}))
    assert [row["label"] for row in found["rows"]] == [f"c{n}" for n in range(40, 10, -1)]
    assert found["rest"] == {"classes": 10, "images": sum(range(1, 11))}
    samples = overview.samples(labelled(**{f"c{n}": n for n in range(1, 41)}))
    assert list(samples) == [f"c{n}" for n in range(40, 40 - overview.SAMPLED, -1)]


def test_sizes_are_those_that_are_seen_and_every_image_is_in_one_bar():
    table = labelled(cat=6).with_columns(
        width=pl.Series([15, 16, 500, 500, 375, 0], dtype=pl.Int32),
        height=pl.Series([15, 16, 375, 375, 500, 0], dtype=pl.Int32),
        orientation=pl.Series([1, 1, 1, 1, 6, 1], dtype=pl.Int8),
        brightness=pl.Series([0, 15.9, 16, 255, None, 255], dtype=pl.Float32),
    )
    found = overview.sizes(table)
    side, light = found["histograms"]
    assert [(bar["low"], bar["high"], bar["count"]) for bar in side["bars"] if bar["count"]] == [
        (1, 16, 1), (16, 23, 1), (362, 512, 3),
    ]  # fmt: skip
    assert [(bar["low"], bar["count"]) for bar in light["bars"] if bar["count"]] == [(0, 2), (16, 1), (240, 2)]
    assert all(0 <= bar["height"] <= overview.HEIGHT for chart in (side, light) for bar in chart["bars"])
    assert found["frequent"] == [(500, 375, 3)] and found["others"] == 3
    assert dict(found["shapes"]) == {"wide": 3, "square": 3}


def test_nothing_accepted_has_no_sizes_and_no_samples():
    table = labelled(cat=2).with_columns(status=pl.lit("rejected"))
    assert overview.sizes(table)["histograms"] == overview.sizes(table)["frequent"] == []
    assert overview.samples(table) == {}
    assert overview.classes(table)["rows"][0]["images"] == 0


def test_samples_are_accepted_images_and_others_come_and_go_without_them():
    table = labelled(cat=50)
    chosen = overview.samples(table)["cat"]
    assert len(chosen) == overview.EACH and set(chosen) < set(table["path"])
    fewer = table.filter(pl.col("path").is_in(chosen) | (pl.int_range(pl.len()) % 2 == 0))
    assert overview.samples(fewer.reverse())["cat"] == chosen
    without = table.with_columns(
        status=pl.when(pl.col("path") == chosen[0]).then(pl.lit("rejected")).otherwise("status")
    )
    assert overview.samples(without)["cat"][:-1] == chosen[1:]


def test_a_million_images_in_a_thousand_classes_take_a_second():
    number = pl.int_range(1_000_000, eager=True)
    table = pl.DataFrame({"path": number.cast(pl.String), "label": (number % 1000).cast(pl.String)})
    table = table.with_columns(sha256=number.hash().cast(pl.String))
    table = table.join(files("cat/a.png").drop("path", "label", "sha256"), how="cross")
    start = time.process_time()
    found = overview.classes(table), overview.sizes(table), overview.samples(table)
    assert time.process_time() - start < 5
    assert len(found[0]["rows"]) == overview.CLASSES and len(found[2]) == overview.SAMPLED


def pictures_of(table: pl.DataFrame) -> dict[str, bytes]:
    return {path: thumbnail(number) for number, path in enumerate(table["path"])}


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page with two classes, a pair of twins and a damaged file."""
    table = labelled(cat=8, dog=4)
    twins = ("cat/0.png", "label_conflict", "same bytes", "error", "dog/0.png")
    mirrored = ("dog/0.png", "label_conflict", "same bytes", "error", "cat/0.png")
    found = pl.concat([findings(twins, mirrored), damaged("dog/1.png")])
    written(tmp_path, table, found, pictures_of(table))
    return tmp_path / "page.html"


@pytest.mark.slow
def test_samples_and_findings_are_enlarged_by_keyboard(browser: Browser, page: Path):
    browser.open(page)
    for key in ("\ue014", "\ue014", "\ue012"):  # right, right, left
        browser.find(".sample[tabindex='0']").send_keys(key)
    second = browser.js("document.querySelectorAll('.sample .path')[1].textContent")
    assert browser.js("document.activeElement.querySelector('.path').textContent") == second
    browser.driver.switch_to.active_element.send_keys("\n")
    shown = "[...document.querySelectorAll('dialog[open] .path')].map(path => path.textContent)"
    assert browser.js(shown) == [second]
    assert browser.js("document.querySelector('dialog img').width") > 3 * browser.js(
        "document.querySelector('.sample img').width"
    )
    browser.driver.switch_to.active_element.send_keys("\ue014")
    third = browser.js("document.querySelectorAll('.sample .path')[2].textContent")
    assert browser.js(shown) == [third]
    browser.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not browser.find("dialog").is_displayed()
    assert browser.js("document.activeElement.querySelector('.path').textContent") == third
    browser.find(".card.pair").send_keys("\n")
    assert browser.js(shown) == ["cat/0.png", "dog/0.png"]
    browser.find("dialog [name=next]").click()
    assert browser.js(shown) == ["dog/1.png"]
    assert browser.js("document.querySelector('dialog [name=next]').disabled")
    browser.find("dialog [name=close]").click()
    assert browser.js("document.querySelectorAll('.card').length") == 2  # the pair once


@pytest.mark.slow
def test_an_enlarged_picture_is_the_file_itself_where_that_is_beside_the_page(browser: Browser, tmp_path: Path):
    names = ["cat/a b#%3F.png", "cat/gone.png"]
    save(tmp_path / "data/raw" / names[0], picture(1, 300, 200))
    pictures = {(name, SAMPLE): thumbnail(1) for name in names}
    table = files(*names).with_columns(sha256=pl.Series(["0" * 64, "1" * 64]))
    page = tmp_path / "reports/page.html"
    write(page, table, findings(), {}, pictures)
    page.write_text(page.read_text().replace('<main data-raw="">', '<main data-raw="../data/raw/">'))  # as report does
    browser.open(page)
    widths = []
    for sample in browser.driver.find_elements("css selector", ".sample img"):
        sample.click()
        browser.js("new Promise(done => setTimeout(done, 300))")
        widths.append(browser.js("document.querySelector('dialog img').naturalWidth"))
        browser.find("dialog [name=close]").click()
    assert widths == [300, 48]
    assert "cat/gone.png" in browser.driver.get_log("browser")[0]["message"]  # which the browser says, and nobody sees


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 400, 1280])
def test_many_classes_with_long_names_fit(browser: Browser, tmp_path: Path, width: int):
    labels = ["w" * 200, *(name.replace("/", "") for name in HOSTILE), *(f"class {n}" for n in range(40))]
    table = files(*(f"{label}/a.png" for label in labels), width=1_000_000, height=1_000_000, bytes=123_456_789_012)
    written(tmp_path, table, damaged(table["path"][0]), pictures_of(table))
    browser.open(tmp_path / "page.html", width=width)
    assert browser.js("document.scrollingElement.scrollWidth <= innerWidth")
    boxes = "[...document.querySelectorAll('dd, h1, h2, h3, p, .bars li, .legend, .strip, .panel')]"
    assert browser.js(f"{boxes}.filter(box => box.scrollWidth > box.clientWidth + 1).map(box => box.outerHTML)") == []


@pytest.mark.slow
def test_on_paper_are_all_pictures_and_no_controls(browser: Browser, page: Path):
    browser.open(page, type="print")
    assert browser.js("[...document.images].filter(image => !image.checkVisibility()).length") == 0
    controls = "form, dialog, .compare"
    assert browser.js(f"[...document.querySelectorAll('{controls}')].filter(e => e.checkVisibility()).length") == 0
