"""What is wrong with a file that cannot be used, and what the errors of decoders mean."""

import re

VARIANT_WORDS = (
    *("unsupported", "not supported", "unknown", "not available", "cannot handle", "not implemented"),
    *("text chunk", "max_text_chunk"),
)
"""In what Pillow says of a file that is whole, as far as can be told, and of a kind that it does not read."""


class Fault(Exception):
    """A file that cannot be used: the code of a check (docs/output.md lists them), and what was seen."""

    def __init__(self, code: str, seen: str) -> None:
        super().__init__(code, seen)
        self.code, self.seen = code, seen


def of_error(error: Exception) -> Fault:
    """Return what an exception of a decoder means."""
    words = one_line(error)
    if words.startswith("Generic Error. Please build `libjxl`"):
        return Fault("decode_error", "libjxl does not decode it: it is damaged, or its end is missing")
    if isinstance(error, NotImplementedError) or any(word in words.lower() for word in VARIANT_WORDS):
        return Fault("unsupported_variant", words)
    short = isinstance(error, EOFError) or "truncated" in words.lower() or "unexpected end of file" in words.lower()
    return Fault("truncated" if short else "decode_error", words)


def one_line(error: Exception) -> str:
    """Return what an error says, on one line; some of Pillow's have no text."""
    words = re.sub(r" \(\d+ bytes not processed\)", "", str(error))  # of a buffer of Pillow's
    return " ".join(words.split())[:200] or type(error).__name__
