"""WebDataset: tar files in which the image, .cls and .json of a sample stand behind each other, under the same name."""

import datetime
import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

from imagepack.exporting.selection import Selection

SHARD_BYTES = 128 * 2**20


def write(selection: Selection, folder: Path, step: Callable[[], None], shard_bytes: int = SHARD_BYTES) -> None:
    """Write train-000000.tar, ..., val-000000.tar, ...; a sample's name is its number in the split.

    Args:
        selection: what to write.
        folder: an empty one.
        step: called after each image.
        shard_bytes: a tar file is ended once it has so many, of images.
    """
    for split in selection.splits:
        part = selection.of_split(split)
        samples = enumerate(
            zip(part.files(), part.extensions(), _labels(part), part.facts.iter_rows(named=True), strict=True)
        )
        for shard in itertools.count():
            if (first := next(samples, None)) is None:
                break
            _write_shard(folder / f"{split}-{shard:06}.tar", itertools.chain([first], samples), step, shard_bytes)


def _write_shard(path: Path, samples: Iterator[tuple], step: Callable[[], None], shard_bytes: int) -> None:
    """Write so many of the samples that they have `shard_bytes`."""
    written = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, (content, extension, label, facts) in samples:
            if label is not None:
                _add(archive, f"{number:09}.cls", str(label).encode())
            _add(archive, f"{number:09}.json", to_json(facts))
            _add(archive, f"{number:09}{extension}", content)
            step()
            written += len(content)
            if written >= shard_bytes:
                return


def _labels(part: Selection) -> Iterator[int | None]:
    return iter(part.labels.tolist()) if part.of_classes else iter([None] * len(part))


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file of nobody's and no time; TarInfo's own defaults."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def to_json(facts: dict) -> bytes:
    """Return what is known of an image; dates as texts, NaN and infinity as null, which JSON does not have."""

    def plain(value: object) -> object:
        if isinstance(value, datetime.date):
            return value.isoformat()
        return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value

    text = json.dumps({name: plain(value) for name, value in facts.items()}, ensure_ascii=False, allow_nan=False)
    return text.encode()
