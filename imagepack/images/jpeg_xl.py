"""What the header of a JPEG XL says (ISO 18181-1, 3 and 6), since the library that reads its pixels does not tell."""

from dataclasses import dataclass

from imagepack.images import boxes

BARE = b"\xff\x0a"
IN_BOXES = b"\0\0\0\x0cJXL \r\n\x87\n"
RATIOS = ((0, 1), (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
"""Width by height; the first: the width is given."""
Choices = tuple[tuple[int, int], ...]
"""Ways to write a number: least value, and bits of what is added to it."""
SIDE = ((1, 9), (1, 13), (1, 18), (1, 30))
PREVIEW, PREVIEW_EIGHTHS = ((1, 6), (65, 8), (321, 10), (1345, 12)), ((16, 0), (32, 0), (1, 5), (33, 9))
BITS, FLOAT_BITS = ((8, 0), (10, 0), (12, 0), (1, 6)), ((32, 0), (16, 0), (24, 0), (1, 6))


@dataclass(frozen=True)
class Header:
    """What the header says.

    Attributes:
        width, height: pixels, before it is turned.
        animated: whether there are several frames.
        bits: of a channel.
    """

    width: int
    height: int
    animated: bool = False
    bits: int = 8


class _Bits:
    """Numbers from bytes, the lowest bit first."""

    def __init__(self, data: bytes) -> None:
        self.left = int.from_bytes(data, "little")

    def number(self, bits: int) -> int:
        value = self.left & (1 << bits) - 1
        self.left >>= bits
        return value

    def one_of(self, choices: Choices) -> int:
        least, bits = choices[self.number(2)]
        return least + self.number(bits)

    def sides(self, ordinary: Choices, eighths: Choices) -> tuple[int, int]:
        """Read width and height."""
        choices, unit = (eighths, 8) if self.number(1) else (ordinary, 1)

        def side() -> int:
            return unit * (choices[0][0] + self.number(choices[0][1]) if len(choices) == 1 else self.one_of(choices))

        height = side()
        over, by = RATIOS[self.number(3)]
        return (height * over // by if over else side()), height


def begins(data: bytes) -> bool:
    """Return whether `data` is a JPEG XL by its first bytes."""
    return data.startswith((BARE, IN_BOXES))


def header(data: bytes) -> Header:
    """Read the header of a file that `begins` as a JPEG XL; what is missing counts as zeros."""
    bits = _Bits(_codestream(data)[2:40])
    width, height = bits.sides(SIDE, ((1, 5),))
    if bits.number(1):  # all else is as usual
        return Header(width, height)
    animated = False
    if bits.number(1):
        bits.number(3)  # how it is turned, which libjxl does
        if bits.number(1):
            bits.sides(SIDE, ((1, 5),))
        if bits.number(1):
            bits.sides(PREVIEW, PREVIEW_EIGHTHS)
        animated = bool(bits.number(1))
    if animated:  # its times come next
        return Header(width, height, animated)
    return Header(width, height, bits=bits.one_of(FLOAT_BITS if bits.number(1) else BITS))


def _codestream(data: bytes) -> bytes:
    """Return the beginning of the compressed picture."""
    if data.startswith(BARE):
        return data[:64]
    parts = {b"jxlc": 0, b"jxlp": 4}
    return next((data[at + parts[kind] :][:64] for kind, at, _ in boxes.boxes(data) if kind in parts), b"")
