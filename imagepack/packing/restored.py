"""Files named after their content, found again: the memo keeps a name, DVC's cache mostly has the file."""

from collections.abc import Callable
from pathlib import Path


def find_again(find: Callable[[str], Path | None], name: str, name_of: Callable[[bytes], str]) -> bytes | None:
    """Return the content of the file called `name`; None where there is none, or one of another content.

    Args:
        find: where a file of that name may be.
        name_of: the name that belongs to a content.
    """
    try:
        path = find(name)
        content = path.read_bytes() if path else b""
    except OSError:
        return None
    return content if name_of(content) == name else None
