"""The memo: what a stage has made of an image is not made again while the image, the params and the code are the same.

It stands beside the pipeline and is no part of it: DVC does not know it, it never changes a result, and it may be
deleted at any time. A stage wraps a function of bytes, which must depend on nothing but its arguments:

    png_of = memo.of(make_png)
    ...
    png = png_of(data, params)          # in a worker: from the memo, or made and kept

An entry's key is the sha256 of the bytes (or of each of several), the other arguments, and all that the function
depends on (dependencies.py). Where that sha256 is known already, the bytes need not even be read:

    png = png_of.by_id(image_id, read, params)      # `read` returns them, and is called where nothing is known
"""

import contextlib
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

from tqdm import tqdm

from stages.toolkit import dependencies, dvc_cache, memo_store, workers
from stages.toolkit.errors import InputError
from stages.toolkit.unkept import Unkept

FOLDER = Path(".memo")
"""In the repository's root, where stages run; a folder in it for each stage."""
PENDING_BYTES = 4 * 2**20
"""Results that a worker gathers before it writes them, unless its task ends before."""
CLEAR = "python3 run.py memo clear"

Item = TypeVar("Item")
Result = TypeVar("Result")
Made = TypeVar("Made")


class AnyStore(Protocol):
    """What the memo needs of a place for its entries; memo_store.Store is for one machine."""

    damaged: list[str]

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, checked; None where there is none."""

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """Keep these; whether there was room."""


@dataclass
class Tally:
    """What a worker tells the main process: how often the memo was asked, how often it knew, what was wrong."""

    asked: int = 0
    taken: int = 0
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Place:
    """Of a store: what a worker needs to open it. `name` is the stage's, for messages."""

    name: str
    folder: Path
    limit: int
    since: float


def _nothing(name: str) -> None:
    """Finds no file."""


class Memo:
    """Of one run of one stage. `Memo()` is none: everything is made anew.

    Args:
        folder: the stage's.
        limit: bytes on disk; 0 is none.
        files: what the stage's functions read, beside their arguments.
        earlier: finds a file of the stage's last result by its name. It may be another by now, and is to be checked.

    Attributes:
        asked, taken: images that a function was called with, and those of them whose result was there.
    """

    def __init__(
        self,
        folder: Path | None = None,
        limit: int = 0,
        files: Iterable[Path] = (),
        earlier: Callable[[str], Path | None] = _nothing,
    ) -> None:
        self.asked, self.taken, self._said = 0, 0, set()
        self.earlier = earlier
        self._files, self._place = tuple(files), None
        if folder and limit:
            self._place = Place(folder.name, folder.absolute(), limit, time.time())
            self._prepare()

    @classmethod
    def for_stage(cls, name: str, max_gib: float) -> "Memo":
        """The memo of the stage `name`, in the repository where it runs; none on a cluster.

        Many machines cannot share its index: SQLite's locks do not hold on network file systems.
        """
        if os.environ.get("DASK_SCHEDULER_ADDRESS"):
            return cls()
        workers.begin()
        try:
            files = dependencies.of_stage(name)
            return cls(FOLDER / name, int(max_gib * 2**30), files, dvc_cache.LastOuts.of(name).find)
        except (InputError, OSError) as error:
            memo = cls()
            memo._say(f"{name}: works without its memo: {error}")
            return memo

    def _prepare(self) -> None:
        """Open the store once before the workers do: make it, mend it, keep it below its limit."""
        place = self._place
        for attempt in range(2):
            try:
                if attempt or (place.folder / memo_store.DAMAGED).exists():
                    shutil.rmtree(place.folder)
                store = memo_store.Store(place.folder, place.limit, place.since)
                store.tidy()
                store.close()
                return
            except memo_store.FAILURES as error:
                if not attempt and memo_store.is_damage(error):
                    self._say(f"{place.name}: {place.folder} is damaged ({error}): begins anew")
                    continue
                self._say(f"{place.name}: works without its memo in {place.folder}: {error}")
                self._place = None
                return

    def of(
        self,
        function: Callable[..., Made],
        shorten: Callable[[Made], bytes] | None = None,
        restore: Callable[[bytes], Made | None] | None = None,
    ) -> "Remembered":
        """`function` with a memory: picklable, for workers.

        Args:
            function: importable by name; of bytes, or several, and of other arguments whose repr says all of them.
                Returns bytes, if there is no `shorten`.
            shorten: what to keep of a result.
            restore: the result again from that, or None if that is not possible now.
        """
        if self._place is None:
            return Remembered(function)
        return Remembered(function, dependencies.of(function, self._files), self._place, shorten, restore)

    def map_in_order(
        self,
        function: Callable[[Sequence[Item]], Result],
        tasks: Iterable[Sequence[Item]],
        total: int,
        desc: str,
        lost: Callable[[Item, str], Result] | None = None,
        **options,
    ) -> Iterator[Result]:
        """workers.map_in_order for a `function` that calls what `of` made: what that remembers is kept and counted."""
        if lost is not None:
            options["lost"] = lambda item, what: (lost(item, what), Tally())
        for result, tally in workers.map_in_order(partial(_with_tally, function), tasks, total, desc, **options):
            self.asked += tally.asked
            self.taken += tally.taken
            for line in tally.said:
                self._say(line)
            yield result

    def _say(self, line: str) -> None:
        """A line on stderr, each once."""
        if line not in self._said:
            self._said.add(line)
            tqdm.write(line, file=sys.stderr)

    def summary(self) -> str:
        """For the end of a stage's summary line; empty where nothing was taken."""
        return f"; {self.taken} of {self.asked} from the memo" if self.taken else ""


@dataclass(frozen=True)
class Remembered:
    """A function whose results are looked up first. Picklable; each process opens the store for itself."""

    function: Callable[..., Made]
    needed: dependencies.Dependencies | None = None
    place: Place | None = None
    shorten: Callable[[Made], bytes] | None = None
    restore: Callable[[bytes], Made | None] | None = None

    def __call__(self, data: bytes | Sequence[bytes], *arguments) -> Made:
        """function(data, *arguments)."""
        if self.place is None:
            return self.function(data, *arguments)
        files = [data] if isinstance(data, bytes) else data
        content = b"".join(hashlib.sha256(file).digest() for file in files)
        return self.by_id(content, lambda: data, *arguments, images=len(files))

    def by_id(self, content: bytes, read: Callable[[], object], *arguments, images: int = 1) -> Made:
        """function(read(), *arguments).

        Args:
            content: tells what `read` returns from anything else that it could return: mostly a sha256.
            read: is called where the result is not known.
            images: how many it is of.
        """
        if self.place is None:
            return self.function(read(), *arguments)
        desk = _desk(self.place, self.needed)
        key = hashlib.sha256(self.needed.digest + content + repr(arguments).encode()).digest()
        made = kept = desk.get(key)
        if kept is not None and self.restore:
            made = self.restore(kept)
        if made is not None:
            desk.tally.asked += images
            desk.tally.taken += images
            return made
        asked = _asked()
        made = self.function(read(), *arguments)
        if asked == _asked():  # otherwise what is remembered of each image was asked for
            desk.tally.asked += images
        if not isinstance(made, Unkept):
            desk.put(key, self.shorten(made) if self.shorten else made)
        return made


class _Desk:
    """A process's access to one store: collects what is to be written, and goes on without where the store fails."""

    def __init__(self, place: Place, needed: dependencies.Dependencies) -> None:
        self._place, self._store = place, None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes, self._full = 0, False
        self.tally = Tally()
        if not needed.unchanged():  # this process may have loaded what was written after the digest was taken
            self._give_up("code was edited while it ran")
            return
        try:
            self._store: AnyStore | None = memo_store.Store(place.folder, place.limit, place.since)
        except memo_store.FAILURES as error:
            self._fail(error)

    def get(self, key: bytes) -> bytes | None:
        if self._store is None:
            return None
        try:
            (value,) = self._store.get([key])
        except memo_store.FAILURES as error:
            self._fail(error)
            return None
        for where in self._store.damaged:
            self.tally.said.append(f"{self._place.name}: the memo was damaged in {where}: made anew")
        self._store.damaged.clear()
        return value

    def put(self, key: bytes, value: bytes) -> None:
        if self._store is None or self._full:
            return
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        if self._pending_bytes >= PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was collected."""
        items, self._pending, self._pending_bytes = self._pending, [], 0
        if not items or self._store is None or self._full:
            return
        try:
            self._full = not self._store.put(items)
        except memo_store.FAILURES as error:
            self._full = True
            self._fail(error)
        else:
            if self._full:
                more = "raise memo.max_gib in params.yaml, or free some space"
                self.tally.said.append(f"{self._place.name}: no more fits into its memo: {more}")

    def _fail(self, error: Exception) -> None:
        if memo_store.is_damage(error):
            with contextlib.suppress(OSError):
                (self._place.folder / memo_store.DAMAGED).touch()
        self._give_up(str(error) or type(error).__name__)

    def _give_up(self, why: str) -> None:
        self._store = None
        self.tally.said.append(f"{self._place.name}: goes on without its memo in {self._place.folder}: {why}")


_desks: list[_Desk] = []


@cache
def _desk(place: Place, needed: dependencies.Dependencies) -> _Desk:
    """This process's, one for a place and function."""
    _desks.append(_Desk(place, needed))
    return _desks[-1]


def _asked() -> int:
    """Images, since the task began."""
    return sum(desk.tally.asked for desk in _desks)


def _with_tally(function: Callable[[Sequence[Item]], Result], task: Sequence[Item]) -> tuple[Result, Tally]:
    """Runs in a worker: what `function` returns, once what it made is on disk; and what there is to tell."""
    result = function(task)
    told = Tally()
    for desk in _desks:
        desk.flush()
        told = Tally(told.asked + desk.tally.asked, told.taken + desk.tally.taken, told.said + desk.tally.said)
        desk.tally = Tally()
    return result, told


NO_MEMO = Memo()
"""Makes everything anew."""


def sizes(folder: Path = FOLDER) -> Iterator[tuple[str, int, int]]:
    """Name, entries and bytes of each stage's memo."""
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        store = memo_store.Store(path, 0, 0)
        yield path.name, len(store), store.size()
        store.close()
