"""How fast processed images are written as PNG and read again, and how large they are, beside Pillow's own PNGs.

    python3 run.py -- python -m workshop.benchmarks.png [--images N] [--folder FOLDER]

Of N photographs at preprocess's size, or of the images in FOLDER; in one process, whose own time counts.
"""

import argparse
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from imagepack.errors import InputError
from imagepack.images import png
from imagepack.images.faults import Fault
from imagepack.packing.processed import decode_png
from stages.preprocess import Preprocess, fit, read
from workshop.benchmarks import measure, photographs

ROUNDS = 3


def pillow(image: Image.Image, **options: int) -> bytes:
    """The PNG that Pillow makes."""
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


PEERS: dict[str, Callable[[Image.Image], bytes]] = {
    "Pillow, level 6": pillow,
    "Pillow, level 1": lambda image: pillow(image, compress_level=1),
    "Pillow, level 1, RLE": lambda image: pillow(image, compress_level=1, compress_type=3),
    "Up, RLE": png.encode,
}


def processed(count: int, folder: Path | None) -> list[Image.Image]:
    """Images as preprocess makes them."""
    params, made = Preprocess(), []
    if folder is None:
        for number in range(count):
            original = photographs.original(list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)])
            made.append(fit(photographs.photograph(original, np.random.default_rng(number)), params))
        return made
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            made.append(fit(read(path.read_bytes(), params), params))
        except Fault:
            continue  # no image
    if not made:
        raise InputError(f"{folder} holds no images")
    return made


def least_ms(work: Callable[[], object], images: int) -> float:
    """Milliseconds of this process for an image, the least of ROUNDS."""
    taken = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return min(taken) / images * 1000


def main(count: int, folder: Path | None) -> None:
    """Measure and print."""
    images = processed(count, folder)
    print(f"{f'{len(images)} images':22}{'encode ms':>10}{'decode ms':>10}{'bytes':>10}")
    rows = {}
    for name, encode in PEERS.items():
        files = [encode(image) for image in images]
        shown = all(decode_png(file).tobytes() == image.tobytes() for file, image in zip(files, images, strict=True))
        if not shown:
            raise InputError(f"{name} does not give the pixels back")
        rows[name] = (
            least_ms(lambda encode=encode: [encode(image) for image in images], len(images)),
            least_ms(lambda files=files: [decode_png(file) for file in files], len(images)),
            sum(map(len, files)) / len(files),
        )
        print(f"{name:22}{rows[name][0]:10.2f}{rows[name][1]:10.2f}{rows[name][2]:10.0f}")
    ours, peer = rows["Up, RLE"], rows["Pillow, level 1"]
    print("Up, RLE / Pillow, level 1:", ", ".join(f"{a / b:.2f}" for a, b in zip(ours, peer, strict=True)))
    print(measure.machine(("pillow", "numpy", "zlib-ng")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.png", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=300, metavar="N", help="photographs (300)")
    parser.add_argument("--folder", type=Path, metavar="FOLDER", help="take the images in FOLDER instead")
    arguments = parser.parse_args()
    try:
        main(arguments.images, arguments.folder)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.png: {error}")
