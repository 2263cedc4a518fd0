"""Damage the files of a pack in many ways and read it each time; prints how often it was read and was refused.

    python damage_packs.py FOLDER TIMES

A process of its own, since what it looks for is a crash. Pixels that come out otherwise than they were are an error,
unless the damage was to them: then verify="always" has to find it.
"""

import random
import sys
from pathlib import Path

from imagepack import PackedImages, PackError


def damaged(data: bytes, chance: random.Random, head: int) -> bytes:
    """One to three changes, mostly within the first `head` bytes, where HDF5 keeps what it knows of the file."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(min(head, len(changed)) if chance.random() < 0.9 else len(changed))
        length = chance.choice((1, 1, 1, 2, 4, 8, 64))
        match chance.choice(("flip", "zeros", "ones", "random", "copy", "truncate", "remove")):
            case "flip":
                changed[at] ^= 1 << chance.randrange(8)
            case "zeros":
                changed[at : at + length] = bytes(length)
            case "ones":
                changed[at : at + length] = b"\xff" * length
            case "random":
                changed[at : at + length] = chance.randbytes(length)
            case "copy":
                source = chance.randrange(len(changed))
                changed[at : at + length] = changed[source : source + length]
            case "truncate" if chance.random() < 0.1:
                del changed[at:]
            case "remove" if chance.random() < 0.1:
                del changed[at : at + length]
        if not changed:
            break
    return bytes(changed)


def main(folder: Path, times: int) -> tuple[int, int]:
    """How often the pack was read, and how often it was refused."""
    whole = PackedImages(folder)
    pixels = whole.take(range(len(whole))).tobytes()
    paths = sorted(folder.rglob("*.h5"))
    read = refused = 0
    for number in range(times):
        chance = random.Random(number)
        path = chance.choice(paths)
        good = path.read_bytes()
        path.write_bytes(damaged(good, chance, 6000))
        print(number, path.name, file=sys.stderr, flush=True)  # which it was that crashed
        try:
            packed = PackedImages(folder, verify="always")
            assert packed.take(range(len(packed))).tobytes() == pixels, "read as something else"
            read += 1
        except PackError:
            refused += 1
        path.write_bytes(good)
    return read, refused


if __name__ == "__main__":
    print(*main(Path(sys.argv[1]), int(sys.argv[2])))
