"""Pairs of images that look alike, found in time that grows with their number and not with its square.

Promised are copies that were saved again, resized or made slightly lighter or darker; not crops, turns or mirrors.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from imagepack.checks.appearance import FREQUENCIES
from imagepack.engine import workers

FURTHEST = FREQUENCIES - 1
"""Bits of 256 in which two hashes may differ at most. Of 16 parts at least one is then equal (multi-index hashing,
Norouzi et al., Fast exact search in Hamming space with multi-index hashing, 2014). Re-saved photographs differ
in 11 at most."""
BUCKET = 100
"""Images with the same part of the hash, one after the other in the order of the whole hash, that each is compared
with. More than that share a part where most images are alike; those nearest in this order are found all the same."""
FEWEST_BITS = 8
"""A hash with fewer bits set is of an image in which there is nothing to recognise."""
TEXTURE_FURTHEST = 0.2
"""Root mean square difference of two signatures' grey pixels, each with mean 0 and standard deviation 1."""
LEAST_DEVIATION = 20
"""Grey levels; flatter textures are divided by this, since what is left of them is noise."""
COLOUR_FURTHEST = 12
"""Root mean square difference of the colour pixels, Cb and Cr of 0 to 255."""
PAIRS_A_STEP = 1 << 10
"""Pairs that are compared in one step, so that memory stays flat."""


def find(
    hashes: np.ndarray,
    signatures: np.ndarray | None,
    sides: np.ndarray | None = None,
    rows: np.ndarray | None = None,
    furthest: int = FURTHEST,
) -> np.ndarray:
    """Return all pairs of near duplicates.

    Args:
        hashes: uint8, (N, 32), perceptual hashes of N images (appearance.measure).
        signatures: uint8, (N, SIGNATURE_BYTES), of the same; None: pairs are not confirmed by the pixels.
        sides: bool, (N,): only pairs of which one image has True and the other False; None: all.
        rows: int, (N,): where in `signatures` each image's is; None: in the same order.
        furthest: bits in which the hashes of a pair may differ, 0 to FURTHEST.

    Returns:
        int64, (P, 2), in order; the smaller index first.
    """
    count = len(hashes)
    telling = np.flatnonzero(np.bitwise_count(hashes).sum(1) >= FEWEST_BITS)
    hashes = np.ascontiguousarray(hashes[telling])
    order = np.argsort(hashes.view("V32").ravel(), kind="stable") if len(hashes) else telling
    telling, hashes = telling[order], hashes[order].view("u8")
    rows = np.arange(count) if rows is None else rows
    sides = None if sides is None else sides[telling]
    with ThreadPoolExecutor(workers.count()) as pool:  # numpy lets go of Python's lock
        compare = partial(_within_buckets, count, hashes, signatures, rows, sides, telling, furthest)
        found = pool.map(compare, _parts(hashes))
        codes = np.unique(np.concatenate([np.empty(0, np.int64), *found]))
    return np.column_stack(np.divmod(codes, count or 1))


def _parts(hashes: np.ndarray) -> Iterator[np.ndarray]:
    """Yield 16 bits of every hash, uint16, (N,); each part has one of every row and column of frequencies."""
    row, column = np.divmod(np.arange(FREQUENCIES**2), FREQUENCIES)
    for part in range(FREQUENCIES):
        places = np.flatnonzero((row + column) % FREQUENCIES == part)
        octets = hashes.view("u1")
        bits = ((octets[:, place // 8] >> (7 - place % 8)) & 1 for place in places)
        keys = np.zeros(len(hashes), "u2")
        for number, bit in enumerate(bits):
            keys |= bit.astype("u2") << np.uint16(number)
        yield keys


def _within_buckets(
    count: int,
    hashes: np.ndarray,
    signatures: np.ndarray | None,
    rows: np.ndarray,
    sides: np.ndarray | None,
    images: np.ndarray,
    furthest: int,
    keys: np.ndarray,
) -> np.ndarray:
    """Return the confirmed pairs among those with equal keys, as numbers: first * N + second.

    Args:
        count: N.
        hashes: uint64, (M, 4), sorted.
        signatures: uint8, (any, SIGNATURE_BYTES), or None.
        rows: int, (N,), where in them each image's is.
        sides: bool, (M,), or None.
        images: int64, (M,), which of the N each hash is of.
        furthest: bits.
        keys: uint16, (M,).
    """
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    sides = None if sides is None else sides[order]
    quarter = hashes[order, 0]  # of the hash: it tells most pairs apart at a fourth of the work
    left = np.arange(len(keys))
    found = []
    for step in range(1, BUCKET + 1):
        left = left[: np.searchsorted(left, len(keys) - step)]
        left = left[keys[left] == keys[left + step]]
        if not len(left):
            break
        wanted = left if sides is None else left[sides[left] != sides[left + step]]
        for start in range(0, len(wanted), PAIRS_A_STEP):
            a = wanted[start : start + PAIRS_A_STEP]
            a = a[np.bitwise_count(quarter[a] ^ quarter[a + step]) <= furthest]
            a, b = order[a], order[a + step]
            near = np.bitwise_count(hashes[a] ^ hashes[b]).sum(1) <= furthest
            pair = np.sort(np.column_stack((images[a[near]], images[b[near]])), axis=1)
            if signatures is not None:
                pair = pair[_confirmed(*signatures[rows[pair.T]])]
            found.append(pair[:, 0] * count + pair[:, 1])
    return np.unique(np.concatenate([np.empty(0, np.int64), *found]))


def _confirmed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return whether the pixels are alike: bool, (P,), of two uint8 (P, SIGNATURE_BYTES)."""
    texture = FREQUENCIES**2

    def standard(signature: np.ndarray) -> np.ndarray:
        grey = signature[:, :texture].astype("f8")
        grey -= grey.mean(1, keepdims=True)
        return grey / np.maximum(grey.std(1, keepdims=True), LEAST_DEVIATION)

    def distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return ((a - b) ** 2).mean(1) ** 0.5

    colour = distance(one[:, texture:].astype("f8"), other[:, texture:].astype("f8"))
    return (distance(standard(one), standard(other)) <= TEXTURE_FURTHEST) & (colour <= COLOUR_FURTHEST)


def groups(count: int, pairs: np.ndarray) -> np.ndarray:
    """Put what is linked, directly or through others, into one group (union-find).

    Args:
        count: images, N.
        pairs: int64, (P, 2).

    Returns:
        int64, (N,): for each image the smallest index of its group; its own if it is alone.
    """
    root = list(range(count))
    for pair in pairs.tolist():
        a, b = (_root(root, image) for image in pair)
        root[max(a, b)] = min(a, b)
    return np.array([_root(root, image) for image in range(count)], np.int64)


def _root(root: list[int], image: int) -> int:
    while root[image] != image:
        root[image] = image = root[root[image]]
    return image
