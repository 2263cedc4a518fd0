"""What DVC's cache and its remote have: objects, files of data and lists of folders, and their bytes."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dvc_data.hashfile.db import HashFileDB, get_index
from dvc_data.hashfile.gc import gc
from dvc_data.hashfile.hash_info import HashInfo

from imagepack.dvc.repository import DvcException, Repo
from imagepack.errors import InputError

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")


class Store:
    """The cache here, or a remote: which objects it has, and their bytes.

    Attributes:
        where: its folder or URL, for messages.
    """

    def __init__(self, odb: HashFileDB, where: str) -> None:
        self.odb, self.where = odb, where
        self.is_local = odb.fs.protocol == "local"

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Bytes by object."""
        return dict(self._local_files() if self.is_local else self._remote_files())

    def _local_files(self) -> Iterator[tuple[str, int]]:
        for path in Path(self.odb.path).glob("??/*"):
            if OBJECT.fullmatch(name := path.parent.name + path.name):
                yield name, path.stat().st_size

    def _remote_files(self) -> Iterator[tuple[str, int]]:
        files = self.odb.fs.fs
        files.invalidate_cache()
        try:
            found = files.find(self.odb.path, detail=True)
        except FileNotFoundError:  # nothing has been pushed yet
            return
        for path, info in found.items():
            if OBJECT.fullmatch(name := "".join(path.split("/")[-2:])):
                yield name, info["size"]

    def read_list(self, name: str) -> list[str] | None:
        """Return the objects that a folder's list names; None where it is not here, or damaged."""
        if name not in self.sizes:
            return None
        with self.odb.fs.open(self.odb.oid_to_path(name), "rb") as file:
            content = file.read()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != name.removesuffix(".dir"):
            return None
        return [entry["md5"] for entry in json.loads(content)]

    def remove(self, doomed: Iterable[str], kept: Iterable[str]) -> None:
        """Let DVC's collector remove what is in `doomed` and not in `kept`, and forget what DVC knew of a remote."""
        gc(_Listed(self.odb, list(doomed)), [HashInfo("md5", name) for name in kept])
        with closing(get_index(self.odb)) as index:  # of the cache there is none
            index.clear()


class _Listed:
    """A store of DVC's in which its collector sees what was counted alone, and nothing that has come since."""

    def __init__(self, odb: HashFileDB, names: list[str]) -> None:
        self._odb, self._names = odb, names

    def __getattr__(self, name: str):
        return getattr(self._odb, name)

    def all(self, jobs: int | None = None) -> list[str]:
        return self._names


@dataclass
class Share:
    """Some objects of a store, with their bytes."""

    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def files(self) -> int:
        return len(self.sizes)

    @property
    def size(self) -> int:
        return sum(self.sizes.values())


def cache_of(repo: Repo) -> Store:
    """Return DVC's cache on this machine."""
    return Store(repo.cache.local, str(Path(repo.cache.local.path).parents[1]))


def remote_of(repo: Repo, name: str | None) -> Store:
    """Return a remote, None for the default one.

    Raises:
        InputError: there is none, or it is one whose objects are not called by their content.
    """
    try:
        odb = repo.cloud.get_remote_odb(name, "gc")
        return Store(odb, odb.fs.unstrip_protocol(odb.path).removesuffix("/files/md5"))
    except DvcException as error:
        raise InputError(str(error)) from None
