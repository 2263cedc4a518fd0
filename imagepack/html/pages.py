"""Write an HTML page from the templates in this folder: one file, which opens without a network.

A page NAME is made of NAME.html, NAME.css and NAME.js, which page.html, page.css and page.js complete; what templates
share is in parts.html. Templates escape all text that they are given, so file names cannot become markup. A page
shows everything without its script, which only filters and enlarges: some viewers of build artifacts run none.

Jinja2 takes 0.1 s to import, so this module is imported only where a page is written.
"""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from imagepack.names import NO_CLASS

FOLDER = Path(__file__).parent
INVISIBLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Control characters and those that turn or hide what follows. Not the joiners: emoji and scripts need them."""
PNG = b"\x89PNG"


def write(path: Path, name: str, data: dict, **filters: Callable) -> None:
    """Write the page `name`; the same arguments give the same bytes.

    Args:
        path: the HTML file; its folder is made.
        name: of the page.
        data: what its template shows, as plain text, numbers and picture files.
        filters: what the template may call to word a value, beside the filters of this module.
    """
    style, script = _joined("page.css", f"{name}.css"), _joined("page.js", f"{name}.js")
    page = _environment(filters).get_template(f"{name}.html").render(data, style=style, script=script)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{page}\n", encoding="utf-8", newline="\n")


def part(template: str, macro: str, *values: object) -> str:
    """Return what a macro of a template makes of these values."""
    return str(getattr(_environment({}).get_template(template).module, macro)(*values))


def _environment(filters: dict[str, Callable]) -> Environment:
    """Read templates, and escape what they are given."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt variable is an error
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["NO_CLASS"] = NO_CLASS
    own = (commas, data_uri, headed, mark_invisible, sha256)
    environment.filters |= {function.__name__: function for function in own} | filters
    return environment


def _joined(*names: str) -> Markup:
    """Files of ours, which are not escaped."""
    return Markup("".join((FOLDER / name).read_text(encoding="utf-8") for name in names))


def commas(number: int) -> str:
    """Return `12,345`."""
    return f"{number:,}"


def data_uri(picture: bytes) -> Markup:
    """Return a PNG or JPEG file as the address of an image."""
    kind = "png" if picture.startswith(PNG) else "jpeg"
    return Markup(f"data:image/{kind};base64,{base64.b64encode(picture).decode()}")


def headed(cells: Markup, heads: Sequence[str]) -> Markup:
    """Return the cells of a row, each but the first with its column's head, which a narrow window shows before it."""
    others = iter(heads[1:])
    return Markup(re.sub("<td", lambda cell: f'<td data-head="{escape(next(others))}"', cells))


def mark_invisible(text: str) -> Markup:
    """Return any text as an element's content; the page's style shows the number of an invisible character before it.

    Such a character gets an element of its own, which confines what it does to the direction of writing.
    """
    marked = INVISIBLE.sub(lambda found: f'<bdi data-is="U+{ord(found[0]):04X}">{found[0]}</bdi>', escape(text))
    return Markup(marked.replace("\r", "&#13;"))  # a bare one would be read as a line feed


def sha256(text: str) -> str:
    """Return the digest of a style or script as a content security policy names it."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
