"""Files of a stage's last result, as they lie in DVC's cache on this machine.

What is found there is a hint, for the memo: whoever uses it checks its content. Where DVC keeps things in another way
than it did in version 3, nothing is found.
"""

import configparser
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

LARGE = (".h5", ".zip")
"""Files that hold many images: those that a result of one image a file may have are not wanted, and may be millions."""


@dataclass(frozen=True)
class LastOuts:
    """The files of many images that a stage has made. Picklable, however many there are.

    Attributes:
        cache: DVC's folder, where files are called after their md5. A text, as of memo.StoreSpec.
        listings: in it, those of the stage's folders.
    """

    cache: str
    listings: tuple[str, ...]

    @classmethod
    def of(cls, stage: str) -> "LastOuts":
        """By the dvc.lock of the repository in which the stage runs."""
        try:
            outs = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"][stage]["outs"]
            return cls(str(_cache_folder()), tuple(out["md5"] for out in outs if out["md5"].endswith(".dir")))
        except (OSError, ValueError, LookupError, TypeError, yaml.YAMLError, configparser.Error):
            return cls("", ())

    def find(self, name: str) -> Path | None:
        """The file called `name`, whatever its folder, where it lies now."""
        return _files(self).get(name)


def _cache_folder() -> Path:
    """cache.dir of DVC's configuration, the local one before the repository's; its user's and system's are left out."""
    folder = Path(".dvc", "cache")
    for name in ("config", "config.local"):
        config = configparser.ConfigParser(interpolation=None)
        config.read(Path(".dvc", name), encoding="utf-8")
        if chosen := config.get("cache", "dir", fallback=None):
            folder = Path(".dvc", chosen)
    return folder.absolute() / "files" / "md5"


@cache
def _files(outs: LastOuts) -> dict[str, Path]:
    found = {}
    for listing in outs.listings:
        try:
            entries = json.loads(Path(outs.cache, listing[:2], listing[2:]).read_bytes())
            for path, md5 in ((entry["relpath"], entry["md5"]) for entry in entries):
                if path.endswith(LARGE):
                    found[Path(path).name] = Path(outs.cache, md5[:2], md5[2:])
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found
