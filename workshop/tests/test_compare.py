"""A comparison finds what was done to the images: every kind of change, in random mixtures, and nothing else."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import REPOSITORY, Workspace, picture, save
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageEnhance

from imagepack.compare.matching import match

SCHEMA = json.loads((REPOSITORY / "imagepack/compare/schema.json").read_text(encoding="utf-8"))
slow = pytest.mark.slow


@dataclass(frozen=True)
class Picture:
    """What a file holds: which picture, how much edited, how encoded."""

    number: int
    edit: int = 0
    encoding: int = 0


@dataclass
class History:
    """Two versions of a dataset and what was done in between.

    Attributes:
        a, b: by path, below data/raw.
        done: kind, path_a, path_b of every change.
        splits: of those images of B whose split was moved, by path.
    """

    a: dict[str, Picture]
    b: dict[str, Picture]
    done: set[tuple[str, str | None, str | None]] = field(default_factory=set)
    splits: dict[str, str] = field(default_factory=dict)


def reencoded(history: History, path: str, new: int) -> None:
    history.b[path] = replace(history.b[path], encoding=1)
    history.done.add(("reencoded", path, path))


def edited(history: History, path: str, new: int) -> None:
    history.b[path] = replace(history.b[path], edit=1)
    history.done.add(("edited", path, path))


def replaced(history: History, path: str, new: int) -> None:
    """Another picture under the same name."""
    history.b[path] = Picture(new)
    history.done.add(("edited", path, path))


def relabelled(history: History, path: str, new: int) -> None:
    to = path.replace("cat/", "owl/") if "cat/" in path else path.replace("dog/", "owl/")
    history.b[to] = history.b.pop(path)
    history.done.add(("relabelled", path, to))


def renamed(history: History, path: str, new: int) -> None:
    to = path.replace("img", "IMG_")
    history.b[to] = history.b.pop(path)
    history.done.add(("moved", path, to))


def moved(history: History, path: str, new: int) -> None:
    """Into another batch, and saved anew on the way."""
    history.b[f"batch/{path}"] = replace(history.b.pop(path), encoding=1)
    history.done.add(("moved", path, f"batch/{path}"))


def moved_edited(history: History, path: str, new: int) -> None:
    history.b[f"fixed/{path}"] = replace(history.b.pop(path), edit=1)
    history.done.add(("moved_edited", path, f"fixed/{path}"))


def split_moved(history: History, path: str, new: int) -> None:
    history.splits[path] = "val"
    history.done.add(("split_moved", path, path))


def added(history: History, path: str, new: int) -> None:
    """Beside an image that stays as it is."""
    history.b[f"new/cat/img{new}.png"] = Picture(new)
    history.done.add(("added", None, f"new/cat/img{new}.png"))


def copied(history: History, path: str, new: int) -> None:
    history.b[f"copies/{path}"] = history.b[path]
    history.done.add(("added", None, f"copies/{path}"))


def removed(history: History, path: str, new: int) -> None:
    del history.b[path]
    history.done.add(("removed", path, None))


def swapped(history: History, path: str, new: int) -> None:
    """Its place is taken by an image that was elsewhere."""
    spare, aside = f"spare/{path}", path.replace("img", "old")
    history.a[spare] = history.b[path] = Picture(new)
    history.b[aside] = history.a[path]
    history.done |= {("moved", spare, path), ("moved", path, aside)}


CHANGES = [
    reencoded, edited, replaced, relabelled, renamed, moved, moved_edited, split_moved, added, copied, removed, swapped
]  # fmt: skip


def history_of(changes: list[Callable], untouched: int) -> History:
    """Each change done to an image of its own, among others that nothing is done to."""
    count = len(changes) + untouched
    before = {f"{'cat' if n % 2 else 'dog'}/img{n}.png": Picture(n) for n in range(count)}
    history = History(dict(before), dict(before))
    for n, (path, change) in enumerate(zip(list(before), changes, strict=False)):
        change(history, path, count + n)
    return history


HISTORIES = st.builds(history_of, st.lists(st.sampled_from(CHANGES), max_size=30), st.integers(0, 5))


def table(pictures: dict[str, Picture], splits: dict[str, str] | None = None) -> pl.DataFrame:
    """What the manifest would say, in an order that says nothing."""
    rows = []
    for path, content in pictures.items():
        bits = np.random.default_rng(content.number).integers(0, 2, 256)
        bits[: 5 * content.edit] ^= 1
        known = f"{content.number}-{content.edit}"
        rows.append(
            {
                "path": path,
                "label": path.split("/")[-2],
                "split": (splits or {}).get(path, "train"),
                "sha256": f"{known}-{content.encoding}",
                "pixel_hash": known,
                "perceptual_hash": np.packbits(bits).tobytes().hex(),
            }
        )
    random.Random(len(rows)).shuffle(rows)
    columns = ("path", "label", "split", "sha256", "pixel_hash", "perceptual_hash")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String))


def found(a: pl.DataFrame, b: pl.DataFrame) -> list[tuple[str, str | None, str | None]]:
    """Kind and paths of everything, unchanged images too."""
    pairs = match(a, b)
    paths_a, paths_b = (
        [None if row is None else side["path"][row] for row in pairs[name]]
        for side, name in ((a, "row_a"), (b, "row_b"))
    )
    return list(zip(pairs["kind"], paths_a, paths_b, strict=True))


def mirrored(changes: list[tuple[str, str | None, str | None]]) -> list[tuple[str, str | None, str | None]]:
    other = {"added": "removed", "removed": "added"}
    return [(other.get(kind, kind), b, a) for kind, a, b in changes]


@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_every_change_is_found_and_no_other(history: History):
    changes = found(table(history.a), table(history.b, history.splits))
    assert {change for change in changes if change[0] != "unchanged"} == history.done
    assert sorted(a for _, a, _ in changes if a) == sorted(history.a)
    assert sorted(b for _, _, b in changes if b) == sorted(history.b)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(HISTORIES)
def test_swapped_arguments_give_the_mirrored_answer(history: History):
    a, b = table(history.a), table(history.b, history.splits)
    assert sorted(mirrored(found(a, b)), key=str) == sorted(found(b, a), key=str)


PATHS = st.builds(
    "{}/{}".format, st.sampled_from(["cat", "dog", "x/cat"]), st.sampled_from(["1.png", "2.png", "1.jpg"])
)
TANGLES = st.dictionaries(PATHS, st.builds(Picture, *[st.integers(0, n) for n in (2, 3, 1)]))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(TANGLES, TANGLES)
def test_copies_and_ties_are_paired_the_same_way_from_both_sides(one: dict, other: dict):
    a, b = table(one), table(other)
    changes = found(a, b)
    assert sorted(mirrored(changes), key=str) == sorted(found(b, a), key=str)
    assert sorted(changes, key=str) == sorted(found(a.reverse(), b.reverse()), key=str)
    assert sorted(path for _, path, _ in changes if path) == sorted(one)
    assert sorted(path for _, _, path in changes if path) == sorted(other)


def real_table(folder: Path, pictures: dict[str, Picture], splits: dict[str, str] | None = None) -> pl.DataFrame:
    """The manifest that validate writes of real files."""
    workspace = Workspace(folder)
    for path, content in pictures.items():
        image = picture(content.number)
        image = ImageEnhance.Brightness(image).enhance(1.05) if content.edit else image
        save(workspace.raw / path, image, compress_level=1 if content.encoding else 9)
    if not pictures:
        return table({})
    names = pl.DataFrame({"path": list(pictures)}).with_columns(
        split=pl.col("path").replace_strict(splits or {}, default="train", return_dtype=pl.String)
    )
    return workspace.validate().join(names, on="path")


@slow
@settings(max_examples=8, deadline=None)
@given(history=HISTORIES)
def test_every_change_to_real_files_is_found(history: History, tmp_path_factory: pytest.TempPathFactory):
    a = real_table(tmp_path_factory.mktemp("a"), history.a)
    b = real_table(tmp_path_factory.mktemp("b"), history.b, history.splits)
    assert {change for change in found(a, b) if change[0] != "unchanged"} == history.done
