"""The page of a dataset: small, the same each time, safe whatever files are called, and all of it by keyboard too."""

import io
import re
from pathlib import Path

import polars as pl
import pytest
from browser import HOSTILE, Browser
from conftest import picture

from imagepack.checks.validation_page import LARGE, PAIRS, SAMPLE, on_page, once, pictured, write
from imagepack.images.manifest import FACTS
from imagepack.images.thumbnail import SIDE

COLUMNS = FACTS | {"status": pl.String, "issues": pl.List(pl.String), "seen": pl.List(pl.String)}
FIXES = {"jpeg_damage": "copy it again", "label_conflict": "keep it in one", "odd": "look at it", "few": "add some"}


def files(*paths: str, **facts) -> pl.DataFrame:
    """A manifest of accepted files, each 48 x 40 pixels and 1,234 bytes."""
    known = {
        "sha256": "0" * 64,
        "bytes": 1234,
        "frame": 1,
        "frames": 1,
        "brightness": 100.0,
        "format": "PNG",
        "mode": "RGB",
        "width": 48,
        "height": 40,
    }
    known |= {"orientation": 1, "batch": "", "status": "accepted", "issues": [], "seen": []} | facts
    labels = [path.split("/")[-2] if "/" in path else "" for path in paths]
    rows = [known | {"path": path, "label": label} for path, label in zip(paths, labels, strict=True)]
    return pl.DataFrame(rows, schema=COLUMNS)


def findings(*rows: tuple[str, ...]) -> pl.DataFrame:
    """Path, code, seen, level, other."""
    return pl.DataFrame(rows, schema=dict.fromkeys(["path", "code", "seen", "level", "other"], pl.String), orient="row")


def thumbnail(number: int) -> bytes:
    """A JPEG."""
    file = io.BytesIO()
    picture(number).save(file, "JPEG")
    return file.getvalue()


def damaged(*paths: str) -> pl.DataFrame:
    """An error for each path."""
    return findings(*((path, "jpeg_damage", f"bad marker in {path}", "error", "") for path in paths))


def written(folder: Path, table: pl.DataFrame, found: pl.DataFrame, thumbnails: dict[str, bytes] | None = None) -> str:
    """The page's text; each picture is of every size."""
    sized = {(path, side): jpeg for path, jpeg in (thumbnails or {}).items() for side in (SIDE, SAMPLE, LARGE)}
    write(folder / "page.html", table, found, FIXES, sized)
    return (folder / "page.html").read_text(encoding="utf-8")


def some_of_each(folder: Path) -> None:
    """Write a page with a pair, a damaged file, two warnings in a class, and a finding about a whole class."""
    table = files("cat/a.png", "dog/a.png", "cat/b.png", "cat/Été.png", "dog/c.png", "loose.png")
    found = findings(
        ("cat/a.png", "label_conflict", "same bytes as dog/a.png", "error", "dog/a.png"),
        ("cat/b.png", "jpeg_damage", "bad marker", "error", ""),
        ("cat/Été.png", "odd", "one colour", "warning", ""),
        ("loose.png", "odd", "one colour", "warning", ""),
        ("bird", "few", "1 image", "info", ""),
    )
    written(folder, table, found, {"cat/a.png": thumbnail(1), "dog/a.png": thumbnail(1), "cat/Été.png": thumbnail(2)})


def test_the_first_findings_of_each_code_are_shown_in_order():
    found = findings(*((f"{n}", "even" if n % 2 == 0 else "odd", "", "error", "") for n in range(100)), ("x", *"rare"))
    assert on_page(found, 2)["path"].to_list() == ["0", "1", "2", "3", "x"]
    assert on_page(found).height == 40 + 40 + 1


def test_each_file_shown_is_decoded_once_for_all_sizes_that_the_page_has_of_it():
    found = findings(("b", "odd", "", "error", "a"), ("c", "odd", "", "error", "a"), ("a", "few", "", "info", ""))
    none = files("a").clear()
    assert pictured(none, found) == {"b": (LARGE,), "a": (LARGE, SIDE), "c": (LARGE,)}
    assert pictured(files("a"), found)["a"] == (LARGE, SAMPLE, SIDE)
    assert pictured(none, found.clear()) == {}


def test_a_pair_is_shown_once():
    pair = findings(
        ("cat/a", "label_conflict", "same bytes as dog/a", "error", "dog/a"),
        ("dog/a", "label_conflict", "same bytes as cat/a", "error", "cat/a"),
        ("dog/b", "label_conflict", "same bytes as cat/a", "error", "cat/a"),
        ("dog/a", "odd", "looks like cat/a", "error", "cat/a"),
        ("dog/a", "odd", "looks like cat/a", "info", "cat/a"),
        ("cat/a", "few", "once", "info", ""),
        ("cat/a", "few", "again", "info", ""),
    )
    assert pair.filter(once(pair))["path"].to_list() == ["cat/a", "dog/b", "dog/a", "dog/a", "cat/a", "cat/a"]
    assert on_page(pair, 1)["seen"].to_list() == ["same bytes as dog/a", "looks like cat/a", "looks like cat/a", "once"]


def test_the_gravest_come_first_then_the_most_frequent(tmp_path: Path):
    found = [(f"{n}", code, "", level, "") for code, level, count in
             [("few", "info", 9), ("odd", "warning", 5), ("jpeg_damage", "error", 1), ("label_conflict", "error", 2)]
             for n in range(count)]  # fmt: skip
    page = written(tmp_path, files(*map(str, range(9))), findings(*found))
    assert re.findall('data-code="(.*?)"', page) == ["label_conflict", "jpeg_damage", "odd", "few"]


def test_the_same_input_gives_the_same_bytes(tmp_path: Path):
    for folder in ("one", "two"):
        some_of_each(tmp_path / folder)
    assert (tmp_path / "one/page.html").read_bytes() == (tmp_path / "two/page.html").read_bytes()


def test_nothing_comes_from_elsewhere(tmp_path: Path):
    some_of_each(tmp_path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import", page)
    assert set(re.findall('(?:src|href)="(.{5})', page)) == {"data:", "#find"}
    assert "content=\"default-src 'none'; img-src data: file:; style-src 'sha256-" in page
    assert "unsafe" not in page
    assert not re.search("<!-- \\w+ -->", page)


def test_a_name_is_no_markup(tmp_path: Path):
    found = pl.concat([damaged(*HOSTILE), findings(*((n, "odd", n, "info", n) for n in HOSTILE))])
    page = written(tmp_path, files(*HOSTILE), found)
    plain = written(tmp_path, files("cat/a.png"), damaged("cat/a.png"))
    for tag in ("<script", "</script", "</main", "</style"):
        assert page.count(tag) == plain.count(tag)
    assert "<img" not in page


def test_what_is_not_known_of_a_file_is_left_out(tmp_path: Path):
    unknown = written(tmp_path, files("cat/a.png", sha256="", bytes=0, width=0, height=0), damaged("cat/a.png"))
    assert ("not decoded" in unknown, " bytes<" in unknown, " pixels<" in unknown) == (True, False, False)
    known = written(tmp_path, files("cat/a.png"), damaged("cat/a.png"), {"cat/a.png": thumbnail(1)})
    assert ("not decoded" in known, "1,234 bytes" in known, "48 × 40 pixels" in known) == (False, True, True)


def test_of_many_findings_some_are_shown_and_all_are_counted(tmp_path: Path):
    page = written(tmp_path, files("a"), damaged(*map(str, range(12_345))))
    assert page.count('class="card"') == 40
    assert "40 shown, 12,305 more: all errors are in rejected.csv, all findings in manifest.parquet" in page
    exactly = written(tmp_path, files("a"), damaged(*map(str, range(40))))
    assert " shown, " not in exactly


def test_a_million_files_make_no_larger_a_page(tmp_path: Path):
    number = pl.int_range(1_000_000, eager=True)
    table = pl.DataFrame({"path": "cat/" + number.cast(pl.String) + ".png"})
    found = table.with_columns(
        code=pl.when(number % 2 == 0).then(pl.lit("odd")).otherwise(pl.lit("few")),
        seen=pl.lit("bad"),
        level=pl.lit("error"),
        other=pl.col("path").reverse(),
    )
    table = table.join(files("cat/a.png").drop("path"), how="cross")
    page = written(tmp_path, table, found, dict.fromkeys(pictured(table, found), b"x" * 3000))
    assert "<dd>1,000,000</dd>" in page
    assert len(page) < 2 * 40 * 2 * 4500 + 60_000


def test_a_dataset_without_findings_is_praised(tmp_path: Path):
    assert "Every file passed every check" in written(tmp_path, files("cat/a.png"), findings())
    assert "Every file passed every check" not in written(tmp_path, files("cat/a.png"), damaged("cat/a.png"))


EVERYTHING = ["cat/b.png", "cat/a.png", "cat/Été.png", "loose.png", "bird"]


@pytest.mark.slow
def test_all_is_visible_at_first_and_the_pictures_are_drawn(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    assert browser.visible() == EVERYTHING
    assert browser.counted() == "Showing 5 of 5 cards"
    assert browser.js("[...document.querySelectorAll('.card img')].map(image => image.naturalWidth)") == [48, 48, 48]
    twins = browser.driver.find_elements("css selector", ".pair .path")
    assert [twin.text for twin in twins] == ["cat/a.png", "dog/a.png"]
    assert twins[0].location["y"] == twins[1].location["y"]
    assert not browser.find(".none").is_displayed()


@pytest.mark.slow
def test_levels_are_switched_off_and_on_with_the_space_bar(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    for level, left in [("error", EVERYTHING[2:]), ("warning", ["bird"]), ("info", [])]:
        browser.find(f"[value={level}]").send_keys(" ")
        assert browser.visible() == left
        assert browser.counted() == f"Showing {len(left)} of 5 cards"
    assert browser.find(".none").text == "No findings match these filters."
    assert not browser.driver.find_element("css selector", ".group").is_displayed()
    browser.find("[value=warning]").send_keys(" ")
    assert browser.visible() == ["cat/Été.png", "loose.png"]
    assert not browser.find(".none").is_displayed()


@pytest.mark.slow
def test_a_pair_is_shown_large_side_by_side_by_keyboard(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    before = browser.js("document.querySelector('.pair img').width")
    browser.find(".pair .compare").send_keys(" ")
    shown_large = browser.js("[...document.querySelectorAll('dialog[open] img')].map(image => image.width)")
    assert len(shown_large) == 2 and min(shown_large) > 2 * before
    assert browser.find("dialog .seen").text == "same bytes as dog/a.png"
    browser.driver.switch_to.active_element.send_keys("\ue00c")  # Escape
    assert not browser.find("dialog").is_displayed()
    assert browser.js("document.activeElement.className") == "compare"


def test_the_first_pairs_of_a_code_have_large_pictures(tmp_path: Path):
    found = findings(*((f"cat/{n}", "odd", "", "info", f"dog/{n}") for n in range(2 * PAIRS)))
    wanted = pictured(files("cat/0").clear(), found)
    assert list(wanted.values()).count((LARGE,)) == 2 * PAIRS
    pictures = {("dog/0", SIDE): b"s"} | dict.fromkeys([(path, LARGE) for path in found["other"]], b"large")
    write(tmp_path / "page.html", files("cat/0"), found, FIXES, pictures)
    assert (tmp_path / "page.html").read_text().count("bGFyZ2U=") == PAIRS


@pytest.mark.slow
def test_a_code_is_chosen(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    browser.choose("code", "odd (2)")
    assert browser.visible() == ["cat/Été.png", "loose.png"]
    browser.choose("code", "\ue011")  # the Home key
    assert browser.visible() == EVERYTHING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("label", "left"),
    [("cat", EVERYTHING[:3]), ("dog", ["cat/a.png"]), ("bird", ["bird"]), ("(no class)", ["loose.png"])],
)
def test_a_class_is_chosen_and_twins_count(browser: Browser, tmp_path: Path, label: str, left: list[str]):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    browser.choose("class", label)
    assert browser.visible() == left


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "left"),
    [("CAT/", EVERYTHING[:3]), ("dog", ["cat/a.png"]), ("e\u0301te\u0301", ["cat/Été.png"]), ("?", [])],
)
def test_paths_are_searched(browser: Browser, tmp_path: Path, text: str, left: list[str]):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    browser.find("[type=search]").send_keys(text)
    assert browser.visible() == left


@pytest.mark.slow
def test_filters_combine_and_reset_shows_all_again(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    browser.choose("class", "cat")
    browser.find("[type=search]").send_keys("b.png\n")  # Enter must not leave the page
    browser.find("[value=info]").send_keys(" ")
    assert browser.visible() == ["cat/b.png"]
    browser.find("[type=reset]").send_keys("\n")
    assert browser.visible() == EVERYTHING
    assert browser.counted() == "Showing 5 of 5 cards"


def some_with_cells(folder: Path) -> None:
    """Write a page with findings about images with cells of each kind, some hostile, some empty, and about a class."""
    table = files("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png").with_columns(
        **{
            "column:age": pl.Series([7, 12, None, 40]),
            "column:site": pl.Series(["</script><script>alert(1)</script>", "north", None, "north"]),
            "column:ill": pl.Series([True, False, None, True]),
            "column:<b>seen": pl.Series(["2024-01-05", "2024-03-01", None, "2025-01-01"]).str.to_date(),
            "column:note": pl.Series(["x" * 100_000, "w\u202ew", None, "two\nlines"]),
        }
    )
    found = findings(
        ("cat/a.png", "label_conflict", "same bytes as dog/d.png", "error", "dog/d.png"),
        ("cat/b.png", "odd", "one colour", "warning", ""),
        ("dog/c.png", "odd", "one colour", "warning", ""),
        ("bird", "few", "1 image", "info", ""),
    )
    written(folder, table, found, {"cat/a.png": thumbnail(1), "dog/d.png": thumbnail(1), "cat/b.png": thumbnail(2)})


def test_cells_are_in_the_details_of_an_image_and_no_markup_and_long_ones_are_cut(tmp_path: Path):
    some_with_cells(tmp_path)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('<dd data-column="1">7</dd>') == 2  # in the pair, and as a sample
    assert page.count("5 of 5 columns") == 3 + 3
    assert page.count("<script") == 1
    assert len(page) < 100_000
    written(tmp_path, files("cat/a.png"), damaged("cat/a.png"))
    without = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert not re.search('<details|name="column"|<figure[^>]* data-cells', without)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "field", "value", "left"),
    [
        ("site", "cell", "north", ["cat/a.png", "cat/b.png"]),  # d is a's twin
        ("site", "cell", "(empty)", ["dog/c.png"]),
        ("site", "cell", "</script>", ["cat/a.png"]),
        ("ill", "cell", "false", ["cat/b.png"]),
        ("age", "from", "13", ["cat/a.png"]),
        ("age", "to", "12.5", ["cat/a.png", "cat/b.png"]),
        ("<b>seen", "from", "01052025", []),
        ("<b>seen", "to", "02012024", ["cat/a.png"]),
        ("site", None, None, ["cat/a.png", "cat/b.png", "dog/c.png"]),
        ("age", None, None, ["cat/a.png", "cat/b.png", "dog/c.png", "bird"]),
    ],
)
def test_a_column_is_chosen_and_a_cell_or_a_range(
    browser: Browser, tmp_path: Path, column: str, field: str | None, value: str | None, left: list[str]
):
    some_with_cells(tmp_path)
    browser.open(tmp_path / "page.html")
    assert not browser.find("[name=cell]").is_displayed()
    browser.choose("column", column)
    if field:
        browser.find(f"[name={field}]").send_keys(value)
    assert browser.visible() == left
    browser.find("[type=reset]").send_keys("\n")
    assert len(browser.visible()) == 4
    assert not any(browser.find(f"[name={name}]").is_displayed() for name in ("cell", "from", "to"))


@pytest.mark.slow
def test_an_enlarged_picture_shows_its_cells(browser: Browser, tmp_path: Path):
    some_with_cells(tmp_path)
    browser.open(tmp_path / "page.html", width=400)
    assert browser.js("document.scrollingElement.scrollWidth") <= 400
    browser.find(".sample").send_keys("\n")
    assert browser.find("dialog .cells dl").is_displayed()
    shown = browser.js("[...document.querySelectorAll('dialog .cells div')].map(row => row.textContent)")
    assert shown[:3] == ["<b>seen2024-01-05", "age7", "illtrue"]
    assert browser.js("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")


@pytest.mark.slow
def test_every_filter_is_reached_with_the_tab_key(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    browser.open(tmp_path / "page.html")
    reached = []
    for _ in range(13):
        browser.driver.switch_to.active_element.send_keys("\t")
        reached.append(browser.js("document.activeElement.name || document.activeElement.className.split(' ')[0]"))
    links = [""] * 3  # the counts of findings, which lead to them
    assert reached == [*links, "sample", "level", "level", "level", "code", "class", "text", "", "card", "compare"]


@pytest.mark.slow
def test_hostile_names_are_shown_as_they_are(browser: Browser, tmp_path: Path):
    found = findings(*((name, "odd", f"like {name}", "error", name) for name in HOSTILE))
    written(tmp_path, files(*HOSTILE), found, dict.fromkeys(HOSTILE, thumbnail(1)))
    browser.open(tmp_path / "page.html")
    assert browser.visible() == HOSTILE
    seen = browser.js("[...document.querySelectorAll('.card .seen')].map(line => line.textContent)")
    assert seen == [f"like {name}" for name in HOSTILE]
    assert browser.js("document.scripts.length") == 1
    assert browser.js("document.querySelectorAll('.card img').length") == 2 * len(HOSTILE)
    assert sorted(browser.js("[...document.querySelectorAll('.sample .path')].map(p => p.textContent)")) != []
    assert browser.js("[...document.images].every(image => image.src.startsWith('data:image/jpeg'))")
    with pytest.raises(Exception, match="no such alert"):
        _ = browser.driver.switch_to.alert.text
    browser.choose("class", '">')
    assert browser.visible() == HOSTILE[-1:]


@pytest.mark.slow
def test_a_character_that_turns_the_text_turns_no_more_than_itself(browser: Browser, tmp_path: Path):
    written(tmp_path, files("cat/\u202egnp.exe"), damaged("cat/\u202egnp.exe"))
    browser.open(tmp_path / "page.html")
    path = "document.querySelector('.card .path')"
    first, last = f"[{path}.firstChild, 0]", f"[{path}.lastChild, 6]"
    left = "(([node, at]) => {{ const r = new Range(); r.setStart(node, at); return r.getBoundingClientRect().x }})({})"
    assert browser.js(left.format(first)) < browser.js(left.format(last))


@pytest.mark.slow
def test_what_a_name_would_inject_the_browser_refuses(chromium: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    chromium.open(tmp_path / "page.html")
    chromium.js(
        "document.body.insertAdjacentHTML('beforeend', '<img src=http://127.0.0.1/ onerror=\"window.ran = 1\">')"
    )
    chromium.js("new Promise(done => setTimeout(done, 200))")
    assert chromium.js("window.ran") is None
    assert all("Content Security Policy" in entry["message"] for entry in chromium.driver.get_log("browser"))


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 480, 768, 1920])
def test_nothing_sticks_out_of_the_window(browser: Browser, tmp_path: Path, width: int):
    table = files(*HOSTILE, "w" * 200 + "/a.png", width=1_000_000, height=1_000_000, bytes=123_456_789_012)
    found = findings(*((path, "odd", path, "error", path) for path in table["path"]))
    numbers = pl.concat([found, findings(*((HOSTILE[0], "few", "", "info", ""),) * 1_000_000)])
    written(tmp_path, table, numbers, dict.fromkeys(HOSTILE[:5], thumbnail(1)))
    browser.open(tmp_path / "page.html", width=width)
    assert browser.js("[document.scrollingElement.scrollWidth <= innerWidth, innerWidth]") == [True, width]
    boxes = "[...document.querySelectorAll('dd, figcaption, .seen, h2, h3, p, .bars li, .legend')]"
    out = f"{boxes}.filter(box => box.scrollWidth > box.clientWidth)"
    assert browser.js(f"{out}.map(box => box.outerHTML.slice(0, 99))") == []


@pytest.mark.slow
def test_dark_where_the_reader_wants_it_and_paper_stays_white(browser: Browser, tmp_path: Path):
    some_of_each(tmp_path)
    colours = []
    for kind, scheme in [("screen", "light"), ("screen", "dark"), ("print", "dark")]:
        browser.open(tmp_path / "page.html", type=kind, prefers_color_scheme=scheme)
        colours.append(browser.js("getComputedStyle(document.body).backgroundColor"))
        assert browser.find("form").is_displayed() == (kind == "screen")
    assert colours == ["rgb(246, 247, 249)", "rgb(18, 21, 27)", "rgb(255, 255, 255)"]


@pytest.mark.slow
def test_without_findings_there_is_nothing_to_filter(browser: Browser, tmp_path: Path):
    written(tmp_path, files("cat/a.png"), findings())
    browser.open(tmp_path / "page.html", width=320)
    assert browser.find(".fine").is_displayed()
    assert not browser.find("form").is_displayed()
    assert not browser.find(".none").is_displayed()
