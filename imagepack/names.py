"""Names and messages as text that a terminal only shows: file names may hold whatever bytes their makers liked."""

import unicodedata

JOINERS = "\u200c\u200d"
"""Invisible, but emoji and scripts need them, and they turn and hide nothing."""
HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
"""Unicode's categories of what a terminal obeys, or what shows as nothing or turns its neighbours."""
NO_CLASS = "(no class)"
"""What stands for the class of an image that has none."""


def visible(text: str) -> str:
    """Return a name on one line, with escapes such as \\x1b for what a terminal obeys or does not show.

    Args:
        text: with bytes that are not UTF-8 as `os.fsdecode` returns them; they become escapes too.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def visible_lines(text: str) -> str:
    """Return a message of several lines, each of them `visible`."""
    return "\n".join(map(visible, text.split("\n")))


def counted(number: int, noun: str) -> str:
    """Return `1 file`, `2 files`, `1 class`, `2 classes`."""
    plural = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{plural * (number != 1)}"


def _visible(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in HIDDEN and character not in JOINERS:
        return character.encode("unicode_escape").decode("ascii")
    return character
