"""How well near duplicates are found, and how long that takes.

    python3 run.py -- python -m workshop.benchmarks.near_duplicates [--pairs N] [--hashes N] [--fashion-mnist FILE]

Copies: photographs saved at JPEG quality 40 to 95, resized 0.5 to 2 times, 10 % lighter or darker at most, each with
its original; what is found beside these pairs is a false alarm. Look-alikes: the 10,000 test images of Fashion-MNIST,
all of different objects; FILE is t10k-images-idx3-ubyte.gz (Debian: dataset-fashion-mnist puts it into
/usr/share/datasets/fashion-mnist). Hashes: random ones with planted pairs, whose bits are as uneven as photographs'.
"""

import argparse
import gzip
import io
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from imagepack.checks import appearance, near_duplicates
from imagepack.checks.appearance import SIGNATURE_BYTES
from imagepack.engine import workers
from imagepack.errors import InputError
from workshop.benchmarks import measure, photographs
from workshop.benchmarks.pipeline import positive

COPIES = 7
"""Of each photograph."""
Look = tuple[bytes, bytes]
"""Perceptual hash and signature."""


def look(image: Image.Image) -> Look:
    """What tells whether two images are near duplicates."""
    seen = appearance.measure(image)
    return bytes.fromhex(seen.perceptual_hash), seen.signature


def copy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """`image` resized, slightly lighter or darker, and saved again."""
    scale = 2 ** rng.uniform(-1, 1)
    filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
    size = [max(1, round(side * scale)) for side in image.size]
    changed = image.resize(size, filters[rng.integers(len(filters))])
    file = io.BytesIO()
    ImageEnhance.Brightness(changed).enhance(rng.uniform(0.9, 1.1)).save(
        file, "JPEG", quality=int(rng.integers(40, 96))
    )
    return Image.open(file)


def look_at_copies(numbers: Iterable[int]) -> list[list[Look]]:
    """Of each photograph, and then of its copies; runs in a worker."""
    looks = []
    for number in numbers:
        label = list(photographs.PHOTOGRAPHS)[number % len(photographs.PHOTOGRAPHS)]
        rng = np.random.default_rng(number)
        image = photographs.photograph(photographs.original(label), rng)
        looks.append([look(image), *(look(copy(image, rng)) for _ in range(COPIES))])
    return looks


def find_copies(pairs: int) -> tuple[int, int, int]:
    """Pairs of an original and its copy, how many of them were found, and how many pairs of different photographs."""
    count = -(-pairs // COPIES)
    results = workers.map_in_order(look_at_copies, workers.groups(range(count), 4), count, "copies")
    looks = [each for result in results for family in result for each in family]
    family, place = np.divmod(find(looks), COPIES + 1)
    same = family[:, 0] == family[:, 1]
    return count * COPIES, int((same & (place == 0).any(1)).sum()), int((~same).sum())


def find(looks: list[Look]) -> np.ndarray:
    """int64, (P, 2)."""
    hashes, signatures = (
        np.frombuffer(b"".join(part), "u1").reshape(len(looks), -1) for part in zip(*looks, strict=True)
    )
    return near_duplicates.find(hashes, signatures)


def find_look_alikes(file: Path) -> tuple[int, int]:
    """Images of a file in the format of MNIST, and pairs found among them."""
    try:
        content = gzip.decompress(file.read_bytes())
    except OSError as error:
        raise InputError(f"{file}: {error}; install Debian's dataset-fashion-mnist, or name the file") from None
    images = np.frombuffer(content, "u1", offset=16).reshape(-1, 28, 28)
    return len(images), len(find([look(Image.fromarray(image)) for image in images]))


def random_hashes(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes, signatures, and the pairs planted among them: one image in fifty, up to 15 bits apart."""
    likely = rng.beta(2, 2.6, 255)  # 43 % of a photograph's bits are set, some nearly always
    hashes = np.empty((count, 32), "u1")
    for start in range(0, count, 50_000):
        part = hashes[start : start + 50_000]
        part[:] = np.packbits(np.pad(rng.random((len(part), 255)) < likely, ((0, 0), (1, 0))), axis=1)
    signatures = rng.integers(0, 256, (count, SIGNATURE_BYTES), dtype="u1")
    planted = np.sort(rng.permutation(count)[: count // 50 * 2].reshape(-1, 2), axis=1)
    hashes[planted[:, 1]] = hashes[planted[:, 0]]
    signatures[planted[:, 1]] = signatures[planted[:, 0]]
    for image in planted[:, 1]:
        for bit in 1 + rng.choice(255, rng.integers(0, near_duplicates.FURTHEST + 1), replace=False):
            hashes[image, bit // 8] ^= 128 >> bit % 8
    return hashes, signatures, planted


def group_hashes(count: int) -> tuple[float, float, int, int]:
    """Seconds, peak MiB of the process, planted pairs, and how many of them ended in one group."""
    hashes, signatures, planted = random_hashes(count, np.random.default_rng(0))
    begun = time.perf_counter()
    group = near_duplicates.groups(count, near_duplicates.find(hashes, signatures))
    seconds = time.perf_counter() - begun
    return seconds, measure.own_peak_mib(), len(planted), int((group[planted[:, 0]] == group[planted[:, 1]]).sum())


def main(pairs: int, hashes: int, fashion_mnist: Path) -> None:
    """Measure and print."""
    seconds, peak, planted, grouped = group_hashes(hashes)
    print(f"{hashes} hashes grouped in {seconds:.1f} s, {peak:.0f} MiB; {grouped} of {planted} planted pairs")
    made, found, false = find_copies(pairs)
    print(f"copies: {found} of {made} found ({found / made:.2%}); pairs of different photographs: {false}")
    if fashion_mnist.exists():
        images, alike = find_look_alikes(fashion_mnist)
        print(f"Fashion-MNIST: {alike} pairs among {images} images of different objects")
    else:
        print(f"Fashion-MNIST: {fashion_mnist} is not there")
    print(measure.machine(("pillow", "numpy", "scikit-image")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m workshop.benchmarks.near_duplicates", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--pairs", type=positive, default=2000, metavar="N", help="originals with copies (2000)")
    parser.add_argument("--hashes", type=positive, default=1_000_000, metavar="N", help="hashes to group (1000000)")
    default = Path("/usr/share/datasets/fashion-mnist/t10k-images-idx3-ubyte.gz")
    parser.add_argument("--fashion-mnist", type=Path, default=default, metavar="FILE")
    arguments = parser.parse_args()
    try:
        main(arguments.pairs, arguments.hashes, arguments.fashion_mnist)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.near_duplicates: {error}")
