"""The page of a comparison: what it shows of many changes, safe whatever is called how, and usable by keyboard."""

import re
import time
from pathlib import Path

import polars as pl
import pytest
from browser import HOSTILE, Browser
from summaries import COLUMNS, change, comparison, drifted, eventful, reference
from test_validation_page import thumbnail

from compare.page import MOST_CARDS, pictured, shown, write
from compare.pictures import Pictures

slow = pytest.mark.slow
PICTURES = Pictures(thumbnail(1), thumbnail(2), thumbnail(3), distance=7.0)


def written(folder: Path, found: tuple[dict, pl.DataFrame], pictures: dict[int, Pictures] | None = None) -> Path:
    write(folder / "page.html", *found, pictures or {})
    return folder / "page.html"


def many(count: int) -> pl.DataFrame:
    """Mostly edited images, and one of another kind."""
    rows = pl.concat([pl.DataFrame([change("edited")], schema=COLUMNS)] * count)
    rows = rows.with_columns(path_a=pl.format("cat/{}.jpg", pl.int_range(pl.len())), path_b=pl.lit("cat/x.jpg"))
    return pl.concat([rows, pl.DataFrame([change("removed", "cow/last.jpg")], schema=COLUMNS)])


def test_each_kind_is_shown_however_many_there_are_of_another():
    listed = shown(many(5000))
    assert len(listed) == MOST_CARDS
    assert listed.filter(pl.col("kind") == "removed")["row"].to_list() == [5000]
    assert pictured(many(5000), 3) == [0, 5000, 1]
    assert pictured(many(5), 0) == []


def test_a_hundred_thousand_changes_are_a_small_page(tmp_path: Path):
    found = comparison(counts={"edited": 100_000, "removed": 1})[0], many(100_000)
    begun = time.perf_counter()
    page = written(tmp_path, found)
    assert time.perf_counter() - begun < 20  # a second or two, on a machine that does nothing else
    assert page.stat().st_size < 2_000_000
    assert "1,000 of 100,001 shown" in page.read_text(encoding="utf-8")


def test_the_same_comparison_gives_the_same_bytes(tmp_path: Path):
    one, other = (written(tmp_path / name, eventful(), {0: PICTURES}).read_bytes() for name in "ab")
    assert one == other


def test_nothing_comes_from_elsewhere(tmp_path: Path):
    page = written(tmp_path, eventful(), {0: PICTURES}).read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import|unsafe", page)
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:"}
    assert not re.search("<!-- \\w+ -->", page)


def hostile() -> tuple[dict, pl.DataFrame]:
    """Hostile names wherever a name can stand."""
    name = HOSTILE[0]
    rows = [change("edited", each, label_a=each, label_b=each, split_b="test") for each in HOSTILE]
    return comparison(
        *rows,
        a={"name": name, "subject": HOSTILE[1], "warnings": HOSTILE},
        status={"newly_rejected": [reference(each, each) | {"split_a": "train", "split_b": None} for each in HOSTILE]},
        leakage={"new": [reference(each, each) for each in HOSTILE]},
        findings=[{"code": each, "a": 0, "b": 1, "new": [reference(each)], "resolved": []} for each in HOSTILE],
        classes={
            "added": HOSTILE,
            "renamed": [{"a": each, "b": each, "images": 1} for each in HOSTILE],
            "table": [{"class": each, "a": 0, "b": 1, "splits": {}} for each in HOSTILE],
        },
        pipeline={
            "explanation": HOSTILE,
            "stages": [
                {
                    "stage": each, "params": [{"param": each, "a": each, "b": 1}], "code": [each], "command": True,
                    "data": [],
                }
                for each in HOSTILE
            ],
        },
        metrics=[{"file": each, "metric": each, "a": each, "b": 1} for each in HOSTILE],
        drift={"drifted": True, "features": [drifted("size", "class", **{"class": each}) for each in HOSTILE]},
    )  # fmt: skip


@slow
def test_hostile_names_are_shown_as_they_are(browser: Browser, tmp_path: Path):
    found = hostile()
    note = Pictures(None, thumbnail(1), None, note=HOSTILE[1])
    browser.open(written(tmp_path, found, dict.fromkeys(range(len(HOSTILE)), note)))
    assert sorted(browser.visible()) == sorted(HOSTILE)
    assert browser.js("document.scripts.length") == 1
    assert browser.js("document.images.length") == len(HOSTILE)
    with pytest.raises(Exception, match="no such alert"):
        _ = browser.driver.switch_to.alert.text
    browser.choose("label", HOSTILE[-1][:2])
    assert browser.visible() == [HOSTILE[-1]]


EDITED = [f"cat/img{i}.jpg" for i in range(5)]


def opened(browser: Browser, folder: Path, **options) -> dict[str, int]:
    """Open the page of an eventful comparison, with pictures of the edited images; its row of each path."""
    found = eventful()
    rows = {path: row for row, path in enumerate(found[1]["path_a"]) if path}
    browser.open(written(folder, found, {rows[path]: PICTURES for path in EDITED}), **options)
    return rows


@slow
def test_what_happened_is_said_first_and_all_of_it_is_shown(browser: Browser, tmp_path: Path):
    opened(browser, tmp_path)
    assert "it matters" in browser.find(".verdict").text
    tiles = browser.js(
        "Object.fromEntries([...document.querySelectorAll('.tiles div')].map(t => t.innerText.split('\\n')))"
    )
    assert (tiles["edited"], tiles["added"], tiles["newly rejected"]) == ("5", "40", "1")
    text = browser.find("body").text
    for words in ("fox", "train → test", "preprocess.size is 64", "accuracy", "renamed: dog → hound", "blurry 3 -> 5"):
        assert words in text
    assert browser.counted() == f"Showing {len(eventful()[1])} of {len(eventful()[1])}"


@slow
def test_filters_choose_by_kind_class_split_and_path(browser: Browser, tmp_path: Path):
    opened(browser, tmp_path)
    browser.choose("kind", "edited")
    assert browser.visible() == EDITED
    browser.choose("split", "train")
    assert browser.visible() == []
    assert browser.find(".none").is_displayed()
    browser.find("[type=reset]").send_keys("\n")
    browser.choose("label", "dog")
    assert browser.visible() == ["cat/b.jpg"]  # relabelled from cat to dog
    browser.find("[type=reset]").send_keys("\n")
    browser.find("[type=search]").send_keys("2026/")
    assert browser.visible() == ["cat/c.jpg"]


@slow
def test_the_gallery_shows_before_after_and_difference_and_swipes_by_keyboard(browser: Browser, tmp_path: Path):
    opened(browser, tmp_path)
    captions = browser.js("[...document.querySelector('.card').querySelectorAll('figcaption')].map(c => c.textContent)")
    assert captions == ["before", "after", "difference"]
    assert browser.js("[...document.images].every(image => image.naturalWidth > 0)")
    body = browser.find("body")
    body.send_keys("j")
    assert browser.js("document.activeElement.querySelector('.path').textContent") == EDITED[0]
    body = browser.driver.switch_to.active_element
    body.send_keys("\ue014\ue014\ue014")  # right
    assert browser.js("getComputedStyle(document.querySelector('.over')).clipPath") == "inset(0px 70% 0px 0px)"
    body.send_keys("\ue012")  # left
    assert browser.js("document.activeElement.querySelector('input').value") == "20"
    body.send_keys("jj")
    browser.driver.switch_to.active_element.send_keys("k")
    assert browser.js("document.activeElement.querySelector('.path').textContent") == EDITED[1]
    browser.driver.switch_to.active_element.send_keys("/")
    assert browser.js("document.activeElement.name") == "text"


@slow
@pytest.mark.parametrize("width", [320, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_window_in_light_and_dark(browser: Browser, tmp_path: Path, width: int, scheme: str):
    browser.open(written(tmp_path, hostile(), {0: PICTURES}), width, prefers_color_scheme=scheme)
    assert browser.js("innerWidth") == width
    assert browser.js("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    light = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(246, 247, 249)"
    assert light == (scheme == "light")


@slow
def test_a_full_page_is_there_at_once(browser: Browser, tmp_path: Path):
    found = comparison(counts={"edited": 100_000, "removed": 1})[0], many(100_000)
    begun = time.perf_counter()
    browser.open(written(tmp_path, found, dict.fromkeys(pictured(found[1], 200), PICTURES)))
    assert time.perf_counter() - begun < 30
    browser.choose("kind", "removed")
    assert browser.visible() == ["cow/last.jpg"]
