"""Pictures of changed images: before, after, and where the two differ. Only the raw files of these are fetched."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import polars as pl
from PIL import Image

from imagepack.compare.versions import Version
from imagepack.engine import workers
from imagepack.images import thumbnail
from imagepack.images.faults import Fault

LONGEST = 256
"""Pixels of a picture's longer side."""
COMPARED = ("edited", "moved_edited", "reencoded")
"""Kinds of which the difference is drawn."""
MAX_PIXELS, TIMEOUT, MEMORY_MIB = 100_000_000, 60, 2048
"""Bounds of a file's pixels, and of the seconds and memory that its decoder may take: the defaults of validate."""
LOST = {"decoder_crash": "its decoder crashed", "timeout": f"took longer than {TIMEOUT} s to decode"}
COLUMNS = {"before": "path_a", "after": "path_b"}


@dataclass(frozen=True)
class Pictures:
    """What a change looks like.

    Attributes:
        before, after: JPEGs of at most LONGEST pixels a side; None where there is nothing, or nothing to be had.
        difference: JPEG, black where the two agree; None unless edited or saved again.
        note: why one is missing.
        distance: root mean square difference of the two as they are seen, 0 to 255, at the size of the smaller of the
            two pictures; None unless both decode.
    """

    before: bytes | None
    after: bytes | None
    difference: bytes | None
    note: str = ""
    distance: float | None = None


@dataclass(frozen=True)
class _File:
    """A file to be drawn: of which change, on which sides, content, number of the frame, and whether it is compared."""

    row: int
    sides: tuple[str, ...]
    content: bytes
    frame: int
    exact: bool


@dataclass(frozen=True)
class _Drawn:
    """The picture of a file: JPEG, and where it is to be compared its pixels, uint8, (H, W, 3)."""

    row: int
    sides: tuple[str, ...]
    jpeg: bytes | None
    pixels: np.ndarray | None
    note: str = ""


def draw(a: Version, b: Version, changes: pl.DataFrame, rows: Sequence[int]) -> dict[int, Pictures]:
    """Pictures of some changes.

    Args:
        a, b: the versions.
        changes: as imagepack/compare/schema.json describes them.
        rows: of `changes`.

    Returns:
        By row. What cannot be fetched or decoded is missing with a note.
    """
    if not (rows := list(dict.fromkeys(rows))):
        return {}
    wanted = changes[rows].with_columns(row=pl.Series(rows, dtype=pl.Int64)).to_dicts()
    notes: dict[int, list[str]] = {row: [] for row in rows}
    drawn = workers.map_in_order(
        _draw,
        _files(a, b, wanted, notes),
        sum(len(_sides(change)) for change in wanted),
        "pictures",
        timeout=TIMEOUT,
        memory_mib=MEMORY_MIB,
        lost=lambda file, what: [_Drawn(file.row, file.sides, None, None, LOST[what])],
    )
    by_row = groupby(chain.from_iterable(drawn), key=lambda one: one.row)
    pictures = {row: _together(list(files), notes[row]) for row, files in by_row}
    return {row: pictures.get(row) or _together([], notes[row]) for row in rows}


def _sides(change: dict) -> list[tuple[str, ...]]:
    """Which sides each file of a change is: both, where they have the same bytes."""
    if change["sha256_a"] and change["sha256_a"] == change["sha256_b"]:
        return [("after", "before")]
    return [(side,) for side, path in COLUMNS.items() if change[path] is not None]


def _files(a: Version, b: Version, wanted: list[dict], notes: dict[int, list[str]]) -> Iterator[list[_File]]:
    """The files of each change, fetched while earlier ones are drawn; why there is none goes to `notes`."""
    versions = {"before": a, "after": b}
    paths: dict[str, list[str]] = {"before": [], "after": []}
    for change in wanted:
        for side, *_ in _sides(change):
            paths[side].append(change[COLUMNS[side]])
    fetched = {side: version.fetch(paths[side]) for side, version in versions.items()}
    frames = {side: _frames(version, paths[side]) for side, version in versions.items()}
    for change in wanted:
        files = []
        for sides in _sides(change):
            path, content, note = next(fetched[sides[0]])
            if content is None and len(sides) == 2:  # the other version may have it
                _, content, _ = next(iter(a.fetch([change["path_a"]])))
            if content is None:
                notes[change["row"]].append(f"{' and '.join(sorted(sides, reverse=True))}: {note}")
            else:
                exact = change["kind"] in COMPARED
                files.append(_File(change["row"], sides, content, frames[sides[0]].get(path, 1), exact))
        yield files


def _frames(version: Version, paths: list[str]) -> dict[str, int]:
    """The number, from 1, of each frame in its file."""
    asked = version.images.lazy().filter(pl.col("path").is_in(paths)).select("path", "frame").collect()
    return {path: max(1, frame) for path, frame in asked.iter_rows()}


def _draw(files: Sequence[_File]) -> list[_Drawn]:
    """Decode and shrink; runs in a worker."""
    thumbnail.accept_truncated()
    return [_drawn(file) for file in files]


def _drawn(file: _File) -> _Drawn:
    try:
        seen = thumbnail.shrink(file.content, file.frame, LONGEST, MAX_PIXELS, file.exact)
        pixels = np.asarray(seen.convert("RGB")) if file.exact else None
        return _Drawn(file.row, file.sides, thumbnail.encode(seen), pixels)
    except Fault as fault:
        note = fault.seen
    except MemoryError:
        note = "needs more memory to decode than a worker may have"
    except Exception as error:  # noqa: BLE001  (no file may end the run, however odd it is)
        note = f"{type(error).__name__}: {error}"[:200]
    return _Drawn(file.row, file.sides, None, None, note)


def _together(files: list[_Drawn], notes: list[str]) -> Pictures:
    """Of one change: its files and why others are not here."""
    sides = {side: file for file in files for side in file.sides}
    jpegs = {side: file.jpeg for side, file in sides.items()}
    notes = [*notes, *(f"{' and '.join(sorted(file.sides, reverse=True))}: {file.note}" for file in files if file.note)]
    before, after = (getattr(sides.get(side), "pixels", None) for side in COLUMNS)
    difference = distance = None
    if before is not None and after is not None:
        difference, distance = heat(before, after)
    elif len(files) == 1 and len(files[0].sides) == 2 and files[0].jpeg:
        distance = 0.0
    return Pictures(jpegs.get("before"), jpegs.get("after"), difference, "; ".join(notes), distance)


def heat(before: np.ndarray, after: np.ndarray) -> tuple[bytes, float]:
    """Where two pictures differ, as a JPEG, and the root mean square of it, 0 to 255.

    Brightness goes with the root of the difference, from black by red and yellow to white: one grey level shows.

    Args:
        before, after: uint8, (H, W, 3) of two sizes; the larger is shrunk to the other's.
    """
    size = min((before, after), key=lambda pixels: pixels.shape[0] * pixels.shape[1]).shape[1::-1]
    resized = [Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC) for pixels in (before, after)]
    apart = np.abs(np.subtract(*(np.asarray(image, np.float32) for image in resized)))
    colours = 3 * np.sqrt(apart.max(2, keepdims=True) / 255) - np.arange(3, dtype=np.float32)
    shown = Image.fromarray((colours.clip(0, 1) * 255).astype(np.uint8))
    return thumbnail.encode(shown), float(np.sqrt(np.mean(np.square(apart, dtype=np.float64))))
