"""Images into data/raw, each whole or not at all: what is there is compared, the rest written beside and renamed."""

import filecmp
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from imagepack.dvc import cache
from imagepack.errors import InputError
from imagepack.images import raw_files
from imagepack.images.raw_names import leads_out
from imagepack.importing.sources import Image, Source
from imagepack.names import visible

UNFINISHED = ".importing-"
"""How the names of unfinished files begin; .dvcignore has it too."""


def bar(items: Iterable, total: int, desc: str) -> tqdm:
    """Return them with a progress bar on a terminal."""
    return tqdm(items, desc=desc, unit="img", total=total, delay=1, disable=None)  # None: on a terminal only


def missing(source: Source, placed: dict[str, Image], folder: Path) -> dict[str, Image]:
    """Return the images that `folder` does not have yet.

    Raises:
        InputError: another file is in the place of some, all of them named.
    """
    here = {path: image for path, image in placed.items() if os.path.lexists(folder / path)}
    paths, faults = {id(image): path for path, image in here.items()}, []
    for image, same in bar(compared(source, here, folder), len(here), "compare"):
        place = folder / paths[id(image)]
        if not same:
            faults.append(f"{visible(image.origin)}: {visible(str(place))} is there already, and is another")
    for path in placed.keys() - here.keys():
        if leads_out(folder, folder / path):
            faults.append(f"{visible(str(folder / path))}: would lead out of {folder} by a link: remove the link")
    if faults:
        fix = "nothing was copied; name a batch folder of its own (--batch NAME), or remove one of the two"
        raise InputError(raw_files.listing(f"{folder} has other files in the place of some: {fix}", sorted(faults)))
    return {path: image for path, image in placed.items() if path not in here}


def compared(source: Source, here: dict[str, Image], folder: Path) -> Iterator[tuple[Image, bool]]:
    """Yield images and whether the file in their place is theirs."""
    if source.md5s:
        yield from ((image, has_md5(folder / path, source.md5s[image.key])) for path, image in here.items())
        return
    paths = {id(image): path for path, image in here.items()}
    for image, content in source.contents(here.values()):
        yield image, is_same(folder / paths[id(image)], content)


def has_md5(place: Path, md5: str) -> bool:
    """Return whether a file has this md5."""
    return place.is_file() and cache.md5(place) == md5


def is_same(place: Path, content: bytes | Path) -> bool:
    """Return whether a file has this content."""
    if not place.is_file():
        return False
    if isinstance(content, Path):
        return filecmp.cmp(place, content, shallow=False)
    return place.stat().st_size == len(content) and place.read_bytes() == content


def copy(source: Source, wanted: dict[str, Image], folder: Path, link: bool) -> None:
    """Write the images to their places below `folder`; of files hard links, where `link` says so."""
    paths = {id(image): path for path, image in wanted.items()}
    for image, content in bar(source.contents(wanted.values()), len(wanted), "import"):
        write(folder / paths[id(image)], content, link)


def write(place: Path, content: bytes | Path, link: bool = False) -> None:
    """Write a file, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = place.with_name(f"{UNFINISHED}{secrets.token_hex(8)}")
    try:
        if isinstance(content, bytes):
            beside.write_bytes(content)
        elif link:
            hard_link(content.resolve(), beside)
        else:
            shutil.copyfile(content, beside)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def hard_link(source: Path, place: Path) -> None:
    """Make a hard link, which is the same file under a second name.

    Raises:
        InputError: the disk has none, or another disk has the file.
    """
    try:
        os.link(source, place)
    except OSError as error:
        raise InputError(f"{visible(str(source))} cannot be linked ({error.strerror}): import without --link") from None


def require_safe_links() -> None:
    """Refuse hard links where DVC would make files of the source read-only, its cache having the same files.

    Raises:
        InputError: DVC's cache is set up so.
    """
    from imagepack.dvc import config  # it takes a second to load DVC

    if config.shares_files():
        raise InputError(
            "--link is refused: DVC's cache.type has hardlink or symlink, so dvc add would make the files of SOURCE "
            "read-only, and parts of its cache: import without --link"
        )
