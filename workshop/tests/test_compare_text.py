"""What compare says on a terminal and in a pull request: enough, not too much, and harmless whatever the names."""

import time
import unicodedata

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from summaries import COLUMNS, SAME, change, comparison, drifted, eventful, reference, turned
from summaries import KINDS as ALL_KINDS

from imagepack.compare import markdown, terminal
from imagepack.compare.verdict import judge, sentence
from imagepack.compare.words import KINDS, columns, shorten, size
from imagepack.names import visible

HOSTILE = [
    "a|b.jpg", "`rm`.jpg", "``` .jpg", "<img src=x onerror=alert(1)>.jpg", "</details>.jpg", "@octocat.jpg", "#123.jpg",
    "octo/repo#1", "[x](https://example.com).jpg", "https://example.com/a.jpg", "www.example.com", "a@example.com",
    "line\nbreak\r\n# Title.jpg", "\x1b[2J\x1b]0;title\x07.jpg", "\u202egpj.exe", "&#64;me &lt;b&gt;", "\\`\\|.jpg",
    "a\\", "\\", "- [ ] task", "1. one", "$x$", ":smile:", "![](x)", "~~a~~", "", " ", "\ud800", "<!-- ", "日本語.jpg",
]  # fmt: skip
names = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=250), st.text("`|<>@#[]()!\\\n*_ ~:/.w1-", max_size=60))


@st.composite
def comparisons(draw) -> tuple[dict, pl.DataFrame]:
    """Any comparison with hostile names everywhere."""
    kinds = draw(st.lists(st.sampled_from(list(KINDS)), max_size=12))
    ours = "".maketrans({chr(code): "?" for code in range(0xD800, 0xE000)})  # a DataFrame has none
    rows = []
    for kind in kinds:
        row, name = change(kind), draw(names).translate(ours)
        sides = [side for side in "ab" if row[f"path_{side}"] is not None]
        splits = {f"split_{side}": draw(st.sampled_from(["train", "test", None])) for side in sides}
        rows.append(row | splits | {f"{key}_{side}": name + side for key in ("path", "label") for side in sides})
    references = st.lists(st.builds(reference, names, names), max_size=4)
    rejected = st.lists(st.builds(turned, names.map(lambda name: name.translate(ours)), names), max_size=4)
    return comparison(
        *rows,
        a={"name": draw(names), "subject": draw(names), "warnings": draw(st.lists(names, max_size=4))},
        b={"name": draw(names), "packed": draw(st.booleans()), "rejected": draw(st.integers(0, 5))},
        status={"newly_rejected": draw(rejected), "fixed": draw(rejected)},
        leakage={key: draw(references) for key in ("new", "resolved", "trained_on")},
        findings=[{"code": draw(names), "a": 0, "b": 3, "new": draw(references), "resolved": []}],
        classes={
            "added": draw(st.lists(names, max_size=4)),
            "removed": draw(st.lists(names, max_size=4)),
            "renamed": [{"a": draw(names), "b": draw(names), "images": 2}],
            "table": [{"class": draw(names), "a": 1, "b": 2, "splits": {}}],
        },
        splits={
            "table": [{"split": draw(names), "a": 1, "b": 2}],
            "moves": [{"from": draw(names), "to": draw(names), "images": 1}],
        },
        pipeline={"explanation": draw(st.lists(names, max_size=4))},
        metrics=[{"file": draw(names), "metric": draw(names), "a": draw(names), "b": 0.5}],
        drift={"drifted": True, "features": [drifted(draw(names), "class", **{"class": draw(names)})]},
    )


def many(count: int) -> tuple[dict, pl.DataFrame]:
    """That many changes of images of test, classes, findings and metrics, under long names."""
    name = "x" * 240
    frame = pl.DataFrame([change("removed", split_a="test")], schema=COLUMNS)
    frame = pl.concat([frame] * count).with_columns(
        path_a=pl.format("{}{}.jpg", pl.lit(name), pl.int_range(pl.len())),
        kind=pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.lit("edited")).otherwise(pl.lit("removed")),
    )
    few = count // 10
    images = [reference(f"{name}{i}", name) for i in range(few)]
    summary, _ = comparison(
        counts={"edited": count - count // 2, "removed": count // 2},
        classes={
            "removed": [f"{name}{i}" for i in range(few)],
            "table": [{"class": f"{name}{i}", "a": 1, "b": 0, "splits": {}} for i in range(few)],
        },
        leakage={"new": images, "trained_on": images},
        status={"newly_rejected": [turned(image["path_a"], name) for image in images]},
        findings=[{"code": "blurry", "a": 0, "b": few, "new": images[:1000], "resolved": images}],
        metrics=[{"file": name, "metric": f"{name}{i}", "a": 1, "b": 2.5} for i in range(few)],
        pipeline={"explanation": [name] * few},
        drift={"drifted": True, "features": [drifted(scope="class", **{"class": name})] * min(few, 1000)},
        a={"warnings": [name] * few},
    )
    return summary, frame


def lines_of(text: str) -> list[str]:
    assert text.endswith("\n")
    return text.removesuffix("\n").split("\n")


def test_every_kind_has_words():
    assert ["unchanged", *KINDS] == ALL_KINDS


def test_two_versions_with_the_same_images_say_that_nothing_happened():
    assert lines_of(terminal.text(*comparison()))[0] == (
        "v1 -> v2: nothing changed: the same 100 images, labels and splits."
    )


@pytest.mark.parametrize(
    ("rows", "sections", "expected"),
    [
        ([change("added")], {}, "1 of 101 images differs; test as before, no new leakage, no drift."),
        (
            [change("edited", split_a="test", split_b="test")],
            {},
            "1 of 101 images differs, and it matters: 1 image of test",
        ),
        ([change("added")], {"b": {"packed": False}}, "splits are unknown, a version has no pack, no drift."),
        ([change("added")], {"drift": {"tests": 0}}, "no new leakage, drift not tested."),
        ([], {"pipeline": {"packed_changed": True}}, "the same 100 images, but other packs; test as before"),
        ([], {"status": {"fixed": [turned("a.jpg")]}}, "the same 100 images; test as before"),
        ([], {"b": {"packed": False}, "a": {"packed": False}}, "nothing changed: the same 100 images."),
    ],
)
def test_the_verdict_says_whether_it_matters(rows, sections, expected):
    assert expected in sentence(judge(*comparison(*rows, **sections)))


def test_everything_that_happened_is_there_in_few_lines():
    lines = lines_of(terminal.text(*eventful()))
    text = "\n".join(lines)
    assert len(lines) <= 40
    for words in (
        "v1 -> v2: 52 of 152 images differ, and it matters:", "8 images of test changed; 1 class gone",
        "data/raw has changed since", "98 -> 137 accepted, 2 -> 3 rejected", "       100 unchanged\n",
        "5 edited: cat/img0.jpg (test), cat/img1.jpg (test), cat/img2.jpg (test), ... and 2 more",
        "1 relabelled: cat/b.jpg -> dog/b.jpg",
        "cat/e.jpg (train -> test)", "cat/f.jpg (now rejected)", "moved: train -> test 1", "renamed: dog -> hound",
        "blurry 3 -> 5 (3 new, 1 resolved)", "1 now: cat/f.jpg (truncated)", "1 new: cat/e.jpg (looks like",
        "brightness: median 118 -> 96, effect 0.31, p < 0.0001", "preprocess.size is 64 instead of 128.",
        "about 12 MiB in 44 files", "accuracy 0.9123 -> 0.93",
    ):  # fmt: skip
        assert words in text, words


def test_the_end_is_there_however_much_happened_and_however_narrow():
    summary, changes = many(1000)
    summary["transfer"]["a_to_b"] = {"files": 1, "bytes": 1, "estimated": False, "parts": []}
    for compared in ((summary, changes), eventful()):
        assert [line for line in lines_of(terminal.text(*compared, 40))[-3:] if line.startswith("Metrics")]


def test_what_is_zero_is_not_there():
    text = terminal.text(*comparison(change("added")))
    assert "1 added: cat/a.jpg\n" in text
    for words in ("removed", "edited", "Classes", "Findings", "Leakage", "Metrics", "To push"):
        assert words not in text


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(comparisons(), st.integers(40, 200))
def test_the_terminal_only_shows_names(compared, width):
    lines = lines_of(terminal.text(*compared, width))
    assert len(lines) <= 40
    for line in lines:
        assert columns(line) <= width
        assert {unicodedata.category(c) for c in line}.isdisjoint({"Cc", "Cs", "Zl", "Zp"})
        assert not set(line) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\ufeff")


def test_hidden_characters_are_shown_as_escapes():
    assert visible("\x1b[2J\n\u202egpj") == "\\x1b[2J\\n\\u202egpj"
    assert visible("日本語 é 👩\u200d🔬") == "日本語 é 👩\u200d🔬"


def test_long_names_keep_both_ends():
    assert shorten("abcdefghij", 10) == "abcdefghij"
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("日本語日本語", 5) == "日…語"
    assert [size(n) for n in (0, 1, 1023, 1024, 12_345_678)] == ["0 bytes", "1 byte", "1023 bytes", "1.0 KiB", "12 MiB"]


ALLOWED = {
    "heading_open", "heading_close", "paragraph_open", "paragraph_close", "bullet_list_open", "bullet_list_close",
    "list_item_open", "list_item_close", "inline", "text", "code_inline", "strong_open", "strong_close", "em_open",
    "em_close", "softbreak", "html_block", "table_open", "table_close", "thead_open", "thead_close", "tbody_open",
    "tbody_close", "tr_open", "tr_close", "th_open", "th_close", "td_open", "td_close",
}  # fmt: skip
PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def require_inert(text: str) -> None:
    """As Markdown it is what we write: headings, lists, tables, <details>; everything else is code or plain words."""
    tokens = PARSER.parse(text)
    html = "".join(token.content for token in tokens if token.type == "html_block")
    assert html.count("<details") == html.count("</details>") == html.count("<summary>") == html.count("</summary>")
    for token in tokens:
        assert token.type in ALLOWED, token
        assert token.type != "heading_open" or (token.tag == "h3" and token.map == [0, 1])
        if token.type == "html_block":
            assert "details>" in token.content or "<details" in token.content
            assert token.content.count("<") <= 4 and "`" not in token.content, token.content
        for part in token.children or []:
            assert part.type in ALLOWED, part
            if part.type == "text":
                assert not set(part.content) & set("@#`[]|~$\\"), part.content
                assert "//" not in part.content and "www." not in part.content


def require_whole_tables(text: str) -> None:
    for block in text.split("\n\n"):
        if block.startswith("| "):
            assert len({line.count("|") for line in block.strip().splitlines()}) == 1, block


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(comparisons(), st.integers(0, 8000))
def test_a_comment_is_short_enough_and_no_name_does_anything(compared, limit):
    whole = markdown.text(*compared)
    for text, most in ((whole, markdown.LIMIT), (markdown.text(*compared, limit), limit)):
        assert len(text) < max(most, 1)
        if most > 200:
            require_inert(text)
            require_whole_tables(text)
    assert all(unicodedata.category(c) != "Cc" or c == "\n" for c in whole)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_hostile_name_is_inert_everywhere(name):
    for text in (markdown.code(name), markdown.prose(name), f"| {markdown.code(name)} | 1 |"):
        assert "\n" not in text
        parts = [part for token in PARSER.parse(f"- x {text}") for part in token.children or []]
        assert {part.type for part in parts} <= {"text", "code_inline"}, parts
        assert not any(set(part.content) & set("@#`<[") for part in parts if part.type == "text")


def test_plain_sentences_stay_sentences():
    sentence = "preprocess ran otherwise: preprocess.size is 64 instead of 128 (see dvc.lock)."
    assert markdown.prose(sentence) == (
        "preprocess ran otherwise: `preprocess.size` is 64 instead of 128 (see `dvc.lock)`."
    )


def test_a_comment_begins_with_what_matters():
    text = markdown.text(*eventful())
    order = ["it matters", "Warnings:", "look like one of train", "were in test", "rejected now", "1 class gone</",
             "Drift:", "Findings", "Pipeline:", "accuracy", "To push", "40 added"]  # fmt: skip
    assert sorted(order, key=text.index) == order
    assert "- in another split: `cat/e.jpg` (`train -> test`)\n" in text
    require_inert(text)


@pytest.mark.slow
def test_a_hundred_thousand_changes_fit_and_take_no_time():
    compared = many(100_000)
    start = time.perf_counter()
    text = markdown.text(*compared)
    lines = lines_of(terminal.text(*compared))
    assert time.perf_counter() - start < 5
    assert len(text) < markdown.LIMIT
    assert "... and 99950 more" in text
    assert text.endswith(markdown.CUT)
    require_inert(text)
    assert len(lines) <= 40
    assert max(map(columns, lines)) <= 100


def test_a_short_comparison_is_not_cut():
    text = markdown.text(*comparison(change("added")))
    assert "Cut here" not in text
    assert SAME["a"]["name"] in text
