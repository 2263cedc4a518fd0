"""How many damaged images validate finds, how many Pillow does, and how many sound ones are called damaged.

    python3 run.py -- python -m workshop.benchmarks.damage [--images N] [FOLDER ...]

Of every kind of file N photographs are saved, with various options; or those of the folders are taken. Each is checked
as it is, and in copies: some with 4 KiB of zeros somewhere in the pixels, some with one byte changed. Found is what
validate gives an error, and what Pillow cannot decode.
"""

import argparse
import io
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from imagepack.engine import workers
from imagepack.errors import InputError
from imagepack.images import containers, decode, strict
from stages.validate import Validate
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import positive

HOLE = 4096
"""Bytes."""
COPIES = 3
"""Of each file, with a hole, and as many with a changed byte."""
MARGIN = 1024
"""Bytes at both ends of a file that stay as they are: headers and palettes."""
TURNED = 5
"""Degrees: how later frames differ from the first."""
KINDS: dict[str, tuple[str, tuple[dict, ...]]] = {
    "JPEG": ("JPEG", ({"quality": 75}, {"quality": 88}, {"quality": 95, "subsampling": 0}, {"restart_marker_rows": 1})),
    "JPEG, progressive": ("JPEG", ({"progressive": True}, {"progressive": True, "quality": 92})),
    "MPO, second picture": ("MPO", ({"save_all": True}, {"save_all": True, "quality": 88})),
    "PNG": ("PNG", ({}, {"compress_level": 1})),
    "WebP, lossy": ("WEBP", ({}, {"quality": 30}, {"quality": 95, "method": 0}, {"method": 6})),
    "WebP, lossless": ("WEBP", ({"lossless": True}, {"lossless": True, "quality": 0, "method": 0})),
    "WebP, animated": ("WEBP", ({"save_all": True}, {"save_all": True, "lossless": True})),
    "GIF": ("GIF", ({}, {"interlace": 0}, {"transparency": 3})),
    "GIF, animated": ("GIF", ({"save_all": True}, {"save_all": True, "disposal": 2})),
    "BMP": ("BMP", ({},)),
    "TIFF": ("TIFF", ({}, {"big_tiff": True})),
    "TIFF, deflate": ("TIFF", ({"compression": "tiff_adobe_deflate"},)),
    "TIFF, LZW": ("TIFF", ({"compression": "tiff_lzw"}, {"compression": "tiff_lzw", "tiffinfo": {317: 2}})),
    "TIFF, PackBits": ("TIFF", ({"compression": "packbits"}, {"compression": "packbits", "strip_size": 1500})),
    "TIFF, JPEG": ("TIFF", ({"compression": "jpeg"}, {"compression": "jpeg", "quality": 90})),
}
"""By name: Pillow's format, and the options, taken in turn."""


def made(kind: str, number: int) -> bytes:
    """Photograph `number` as a file of this kind."""
    form, options = KINDS[kind]
    options = dict(options[number % len(options)])
    original = photographs.original(list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)])
    image = photographs.photograph(original, np.random.default_rng(number))
    if options.get("save_all"):
        options["append_images"] = [image.rotate(TURNED)]
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def kind_of(data: bytes) -> str:
    """A name in KINDS, for a file of a folder; empty for what is no image that validate reads."""
    try:
        image = decode.open_image(data)
    except decode.Fault:
        return ""
    match image.format:
        case "JPEG":
            return "JPEG, progressive" if "progressive" in image.info else "JPEG"
        case "MPO":
            return "MPO, second picture"
        case "WEBP" if image.n_frames > 1:
            return "WebP, animated"
        case "WEBP":
            return "WebP, lossless" if b"VP8L" in data[:64] else "WebP, lossy"
        case "GIF":
            return "GIF, animated" if image.n_frames > 1 else "GIF"
        case "TIFF":
            names = {1: "TIFF", 5: "TIFF, LZW", 7: "TIFF, JPEG", 32773: "TIFF, PackBits"}
            return names.get(image.tag_v2.get(259, 1), "TIFF, deflate")
        case form:
            return form


def region(data: bytes, kind: str) -> tuple[int, int]:
    """Where damage is put: the longest scan of a JPEG, the last of a phone's, of other files all but the ends."""
    if not kind.startswith(("JPEG", "MPO")):
        return MARGIN, len(data) - MARGIN
    starts = [end for number, _, end in containers.jpeg_segments(data) if number == containers.JPEG_SCAN]
    ends = [containers.JPEG_MARKER.search(data, start) for start in starts]
    scans = [(start, end.start() if end else len(data)) for start, end in zip(starts, ends, strict=True)]
    if kind.startswith("MPO"):
        return scans[-1]
    return max(scans, key=lambda scan: scan[1] - scan[0], default=(0, 0))


def with_hole(data: bytes, place: tuple[int, int], rng: np.random.Generator) -> bytes:
    """A copy with HOLE bytes of zeros."""
    at = int(rng.integers(place[0], place[1] - HOLE))
    return data[:at] + bytes(HOLE) + data[at + HOLE :]


def with_another_byte(data: bytes, place: tuple[int, int], rng: np.random.Generator) -> bytes:
    """A copy in which one byte differs."""
    at = int(rng.integers(*place))
    return data[:at] + bytes([data[at] ^ int(rng.integers(1, 256))]) + data[at + 1 :]


def fault(data: bytes) -> str:
    """The code that validate gives a file's pixels, or an empty text."""
    try:
        image = decode.open_image(data)
        strict.decode_strictly(image, data)
        for _ in strict.later_frames(image, data, Validate().max_frames, Validate().max_pixels):
            pass
    except decode.Fault as found:
        return found.code
    return ""


def pillow_notices(data: bytes) -> bool:
    """Whether Pillow cannot decode it."""
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data)) as image:
            for number in range(getattr(image, "n_frames", 1)):
                image.seek(number)
                image.load()
    except Exception:  # noqa: BLE001  (whatever Pillow raises)
        return True
    return False


def count(files: Sequence[tuple[str, int | Path]]) -> list[tuple[str, Counter, str]]:
    """Of each file its kind, counts, and what is wrong with it as it is; runs in a worker."""
    results = []
    for kind, which in files:
        data = which.read_bytes() if isinstance(which, Path) else made(kind, which)
        if kind := kind or kind_of(data):
            results.append((kind, *count_one(data, kind, which)))
    return results


def count_one(data: bytes, kind: str, which: int | Path) -> tuple[Counter, str]:
    """Counts of one file, and what is wrong with it as it is."""
    counts = Counter(files=1)
    begun = time.process_time()
    code = fault(data)
    checked = time.process_time()
    pillow_notices(data)
    counts.update(ours_us=round(1e6 * (checked - begun)), pillow_us=round(1e6 * (time.process_time() - checked)))
    if code:
        return counts + Counter(rejected=1), f"{kind}, {which}: {code}"
    place = region(data, kind)
    if place[1] - place[0] < 2 * HOLE:
        return counts, ""
    rng = np.random.default_rng(len(data))
    for name, change in (("hole", with_hole), ("byte", with_another_byte)):
        for _ in range(COPIES):
            copy = change(data, place, rng)
            if copy != data:
                found = {f"{name}_ours": bool(fault(copy)), f"{name}_pillow": pillow_notices(copy)}
                counts.update({name: 1, **found})
    return counts, ""


def table(total: dict[str, Counter]) -> Iterator[str]:
    """What was counted, a line a kind."""
    yield f"{'':22}{'sound files':>20}{'4 KiB of zeros':>20}{'a changed byte':>20}{'ms a file':>20}"
    yield f"{'':22}{'':>10}{'rejected':>10}" + 2 * f"{'found':>10}{'Pillow':>10}" + f"{'checked':>10}{'Pillow':>10}"
    for kind in [kind for kind in KINDS if kind in total]:
        counts = total[kind]
        shares = [
            f"{counts[f'{name}_{who}'] / counts[name]:.0%}" if counts[name] else "-"
            for name in ("hole", "byte")
            for who in ("ours", "pillow")
        ]
        times = [f"{counts[name] / counts['files'] / 1000:.1f}" for name in ("ours_us", "pillow_us")]
        cells = [counts["files"], counts["rejected"], *shares, *times]
        yield f"{kind:22}" + "".join(f"{cell:>10}" for cell in cells)


def main(folders: Sequence[Path], number: int) -> tuple[dict[str, Counter], list[str]]:
    """Measure and print; counts by kind, and which sound files were rejected."""
    if folders:
        paths = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
        files = [("", path) for path in paths]
    else:
        files = [(kind, index) for index in range(number) for kind in KINDS]
    total, rejected = {}, []
    for results in workers.map_in_order(count, workers.groups(files), len(files), "images"):
        for kind, counts, wrong in results:
            total.setdefault(kind, Counter()).update(counts)
            rejected += [wrong] if wrong else []
    if not total:
        raise InputError("no image in these folders")
    print(*table(total), sep="\n")
    print(f"\nsound files that are rejected: {len(rejected)}", *rejected, sep="\n  ")
    print(measure.machine(("pillow", "simplejpeg")))
    return total, rejected


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.damage", description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="sound images, at any depth")
    parser.add_argument("--images", type=positive, default=30, metavar="N", help="of each kind without FOLDER (30)")
    arguments = parser.parse_args()
    try:
        main(arguments.folders, arguments.images)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.damage: {error}")
