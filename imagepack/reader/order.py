"""The order of training: a function from positions to images, computed and not stored, the same on every machine.

Numbers come from splitmix64 (Steele et al., Fast splittable pseudorandom number generators, 2014) and not from numpy's
generators, whose streams may change between versions: a checkpoint is to be resumed years later.
"""

import numpy as np

ROUNDS = 8
LEAST_BITS = 8
"""A permutation is of so many bits at least: with fewer, few of all permutations would occur."""


def mix(values: np.ndarray) -> np.ndarray:
    """Hash each uint64 to a uint64: splitmix64's finaliser."""
    values = values ^ (values >> np.uint64(30))  # a copy, which the rest changes
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def key(*parts: int) -> np.uint64:
    """Return one uint64 of several numbers, 0 to 2**64 - 1 each, such as seed and epoch."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = mix(state + np.uint64(0x9E3779B97F4A7C15) ^ mix(np.array([part], np.uint64)))
    return state[0]


def permute(positions: np.ndarray, count: int, key: np.uint64) -> np.ndarray:
    """Return where a permutation of `count` things, chosen by `key`, takes each position.

    A Feistel network on the smallest even number of bits that holds `count`; what falls beyond is sent through again
    until it does not (Black and Rogaway, Ciphers with arbitrary finite domains, 2002).

    Args:
        positions: int64, 0 to count - 1, of any length.

    Returns:
        int64, of the same length; different for different positions.
    """
    half = max(LEAST_BITS, (count - 1).bit_length() + 1) // 2
    low = (1 << half) - 1
    keys = mix(key + np.arange(1, ROUNDS + 1, dtype=np.uint64))
    # all that a round can make of half a number, where there are fewer halves than positions
    tables = [_round(np.arange(low + 1), each, low) for each in keys] if 4 * low < len(positions) else None
    result = positions.astype(np.int64)
    beyond = np.arange(len(result))
    while len(beyond):
        values = result[beyond]
        left, right = values >> half, values & low
        for number, round_key in enumerate(keys):
            made = tables[number][right] if tables else _round(right, round_key, low)
            left, right = right, left ^ made
        values = left << half | right
        result[beyond] = values
        beyond = beyond[values >= count]
    return result


def _round(right: np.ndarray, key: np.uint64, low: int) -> np.ndarray:
    return (mix(right.astype(np.uint64) ^ key) & np.uint64(low)).astype(np.int64)


def uniform(positions: np.ndarray, key: np.uint64) -> np.ndarray:
    """Return a number in [0, 1) for each position: float64, of the same length."""
    return (mix(mix(positions.astype(np.uint64)) ^ key) >> np.uint64(11)) / 2.0**53
