"""Processed images, as files or in zips: written by preprocess, read by pack."""

import hashlib
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl
from PIL import Image

from imagepack.engine.memo import Memo, Memoised
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.images import png, raw_files, raw_names, zips
from imagepack.images.cuts import PNG_SHARE, cut
from imagepack.images.faults import Fault
from imagepack.images.raw_files import TYPICAL_GROUP, RawFile
from imagepack.packing.restored import find_again

VALIDATE_AGAIN = "run dvc repro --force validate, then dvc repro"
"""Helps also where DVC takes validate for up to date, as after a change just when it ended."""
PREPROCESS_AGAIN = "run dvc repro --force --single-item preprocess, then dvc repro"
"""Helps also where DVC takes preprocess for up to date."""
COLUMNS = ("path", "frame", "bytes", "sha256", "batch")
"""What `write` needs of the manifest."""

Processed = Path | zips.Member
"""A processed image: a file, or a member of a zip."""


@dataclass(frozen=True, slots=True)
class Frame:
    """An accepted image.

    Attributes:
        path: in the manifest.
        number: of the frame in its file, from 1.
        id: the image's, 32 bytes.
        bytes: size of the file.
        file: where it is.
    """

    path: str
    number: int
    id: bytes
    bytes: int
    file: RawFile


def require_same_files(raw: Path, manifest: Path) -> dict[str, zips.Member]:
    """Refuse a manifest that was made of other files than are there, however sure DVC is that it is up to date.

    Returns:
        Those that are in zips, by path.

    Raises:
        InputError: which files one has and the other has not.
    """
    files, _ = raw_files.find(raw)
    new, gone = manifests.compare_files(manifest, (raw_names.as_text(str(file)) for file in files))
    faults = [f"{raw / path}: is not in {manifest}" for path in new] + [f"{raw / path}: is gone" for path in gone]
    if faults:
        raise InputError(raw_files.listing(f"{raw} has changed since it was validated: {VALIDATE_AGAIN}", faults))
    return {file.path: file for file in files if isinstance(file, zips.Member)}


def write_files(
    raw: Path, zipped: dict[str, zips.Member], accepted: pl.DataFrame, out: Path, png_of: Memoised, memo: Memo, *args
) -> None:
    """Write the PNG of each accepted image to its place under `out`, its path with .png behind it.

    Args:
        raw: data/raw.
        zipped: files of it that are in zips, by path.
        accepted: COLUMNS of the manifest.
        out: an empty folder.
        png_of: from an image file's bytes, `args` and the number of a frame to the PNG.
        memo: of the stage.

    Raises:
        InputError: a file is not the one that validate accepted; of one that is in the memo its size tells.
    """
    for folder in accepted["path"].str.replace(r"[^/]*$", "").unique():
        (out / folder).mkdir(parents=True, exist_ok=True)
    starts = [*range(0, len(accepted), TYPICAL_GROUP), len(accepted)]
    _write(partial(write_images, raw, out, png_of, args), starts, zipped, accepted, memo)


def write_zips(
    raw: Path,
    zipped: dict[str, zips.Member],
    accepted: pl.DataFrame,
    out: Path,
    png_of: Memoised,
    memo: Memo,
    *args,
    pixel_bytes: int,
) -> None:
    """As `write_files`, into zips, each named after its content.

    Args:
        pixel_bytes: of a processed image.
    """
    starts = cut(manifests.hashes(accepted["sha256"]), accepted["batch"], images_per_zip(pixel_bytes))
    zip_of = memo.of(make_zip, shorten, partial(restore, memo.earlier))
    _write(partial(_write_zip, raw, out, png_of, zip_of, args), starts, zipped, accepted, memo)


def images_per_zip(pixel_bytes: int) -> int:
    """Return about how many images fill zips.TYPICAL_BYTES; by their size alone, so no other image changes a zip."""
    return max(1, int(zips.TYPICAL_BYTES / (pixel_bytes * PNG_SHARE)))


def write_images(raw: Path, out: Path, png_of: Memoised, args: tuple, frames: list[Frame]) -> None:
    """Write some images, in a worker."""
    _require_sizes(raw, frames)
    for path, content in _pngs(raw, png_of, args, frames):
        (out / path).write_bytes(content)


def _write_zip(raw: Path, out: Path, png_of: Memoised, zip_of: Memoised, args: tuple, frames: list[Frame]) -> None:
    _require_sizes(raw, frames)
    inside = repr([(frame.path, frame.number, frame.id) for frame in frames]).encode()
    made = zip_of.by_id(inside, partial(_pngs, raw, png_of, args, frames), *args, images=len(frames))
    (out / made.name).write_bytes(made.content)


def _write(
    work: Callable[[list[Frame]], None],
    starts: list[int],
    zipped: dict[str, zips.Member],
    accepted: pl.DataFrame,
    memo: Memo,
) -> None:
    tasks = (_frames(zipped, accepted[a:b]) for a, b in itertools.pairwise(starts))
    for _ in memo.map_in_order(work, tasks, len(accepted), "preprocess"):
        pass


def _frames(zipped: dict[str, zips.Member], accepted: pl.DataFrame) -> list[Frame]:
    frames = []
    for path, number, size, digest in accepted.select("path", "frame", "bytes", "sha256").iter_rows():
        file = manifests.file_of(path, number)
        frames.append(Frame(path, number, bytes.fromhex(digest), size, zipped.get(file) or file))
    return frames


def _require_sizes(raw: Path, frames: list[Frame]) -> None:
    """Refuse files that are gone or have another size than validate saw: these are not to be unpacked."""
    for frame in frames:
        if raw_files.size_of(raw, frame.file) != frame.bytes:
            raise InputError(f"{raw / str(frame.file)} has changed since it was validated (its size): {VALIDATE_AGAIN}")


def _pngs(raw: Path, png_of: Memoised, args: tuple, frames: list[Frame]) -> Iterator[tuple[str, bytes]]:
    """Yield path below `out` and content. The memo goes by the image's id, so a file that it knows is not read."""
    for frame in frames:
        try:
            content = png_of.by_id(frame.id, partial(_read_validated, raw, frame), *args, frame.number)
        except Fault as error:
            changed = f"{raw / str(frame.file)} has changed since it was validated ({error}): {VALIDATE_AGAIN}"
            raise InputError(changed) from None
        yield f"{frame.path}.png", content


def _read_validated(raw: Path, frame: Frame) -> bytes:
    """Read an image's file.

    Raises:
        Fault: it has other bytes than validate saw.
    """
    data = raw_files.read(raw, frame.file)
    if manifests.frame_id(hashlib.sha256(data).hexdigest(), frame.number) != frame.id.hex():
        raise Fault("decode_error", "other bytes")
    return data


@dataclass(frozen=True)
class Zip:
    """A zip of processed images.

    Attributes:
        name: of the file, after the hash of its content.
        content: the file.
    """

    name: str
    content: bytes | memoryview


def make_zip(pngs: Iterable[tuple[str, bytes]], *args) -> Zip:
    """Make a zip of paths and files, which tell all that it depends on of `args`."""
    file = io.BytesIO()
    zips.write(file, pngs)
    content = file.getbuffer()
    return Zip(_name_of(content), content)


def shorten(made: Zip) -> bytes:
    """Return what the memo keeps of a zip: its name."""
    return made.name.encode()


def restore(find: Callable[[str], Path | None], kept: bytes) -> Zip | None:
    """Return the zip again, or None where it is not found."""
    name = kept.decode()
    content = find_again(find, name, _name_of)
    return None if content is None else Zip(name, content)


def _name_of(content: bytes | memoryview) -> str:
    return zips.name_of(hashlib.sha256(content).hexdigest())


class ProcessedImages:
    """The processed images in the manifest's order: `images[a:b]` lists some of them.

    Args:
        folder: what preprocess has written.
        paths: of the accepted images in the manifest, N.

    Raises:
        InputError: a zip is not whole.
    """

    def __init__(self, folder: Path, paths: pl.Series) -> None:
        self._folder, self._paths, self._zipped = folder, paths, members(folder)

    def __getitem__(self, rows: slice) -> list[Processed]:
        return [self._zipped.get(f"{path}.png") or self._folder / f"{path}.png" for path in self._paths[rows]]


def members(processed: Path) -> dict[str, zips.Member]:
    """Return what is in the zips of the processed images, by path; empty where preprocess has made none.

    What lies there decides, and not preprocess.layout, on which a pack does not depend.

    Raises:
        InputError: a zip is not whole.
    """
    found = {}
    for file in sorted(processed.glob(f"*{zips.ENDING}")):
        try:
            inside, faults = zips.list_members(file)
        except (zips.Damaged, OSError) as error:
            faults = [str(error)]
        if faults:
            raise InputError(f"{file} is damaged ({faults[0]}): {PREPROCESS_AGAIN}")
        found |= {member.path: member for member in inside}
    return found


def read(file: Processed) -> bytes:
    """Read a processed image's file.

    Raises:
        InputError: it is missing, or damaged in its zip.
    """
    try:
        return file.read_bytes() if isinstance(file, Path) else zips.read(file)
    except (OSError, zips.Unreadable) as error:
        raise InputError(f"{file} is missing or damaged ({error}): {PREPROCESS_AGAIN}") from None


def mode_and_size(file: Processed) -> tuple[str, int, int]:
    """Return mode, width and height of a processed image."""
    try:
        image = decode_png(read(file))
    except OSError as error:
        raise InputError(f"{file} is missing or damaged ({error}): {PREPROCESS_AGAIN}") from None
    return image.mode, *image.size


def decode_png(data: bytes) -> Image.Image:
    """Decode a processed image.

    Raises:
        OSError: it is damaged.
    """
    if (pixels := png.decode(data)) is not None:
        return Image.fromarray(pixels)
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except SyntaxError as error:
        raise OSError(str(error)) from None
    return image
