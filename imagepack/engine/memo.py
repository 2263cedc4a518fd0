"""The memo: what a stage has made of an image is not made again while the image, the params and the code are the same.

It stands beside the pipeline and is no part of it: DVC does not know it, it never changes a result, and it may be
deleted at any time. A stage wraps a function, mostly of bytes, which must depend on nothing but its arguments:

    png_of = memo.of(make_png)
    ...
    png = png_of(data, params)          # in a worker: from the memo, or made and kept

An entry's key is the sha256 of the bytes (or of each of several), the other arguments, and what the stage depends on
(dependencies.py). Runs on a Dask cluster (cluster.py) and on this machine share the entries. Where that
sha256 is known already, the bytes need not even be read:

    png = png_of.by_id(image_id, read, params)      # `read` returns them, and is called where nothing is known
"""

import contextlib
import hashlib
import os
import platform
import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Protocol, TypeVar

from imagepack.dvc.cache import LastOuts
from imagepack.engine import dependencies, memo_segments, memo_store, workers
from imagepack.engine.dependencies import NOTHING, Dependencies
from imagepack.engine.unkept import Unkept
from imagepack.errors import InputError

FOLDER = Path(".memo")
"""In the repository's root, where stages run; a folder in it for each stage."""
PENDING_BYTES = 4 * 2**20
"""Results that a worker gathers before it writes them, unless its task ends before."""
COLLECT, SHARE = 5.0, 0.05
"""Seconds between two looks at what workers of a cluster have written; and the share of the time for them, at most."""
CLEAR = "python3 run.py memo clear"
EDITED = "code was edited while it ran"

Item = TypeVar("Item")
Result = TypeVar("Result")
Made = TypeVar("Made")


class AnyStore(Protocol):
    """What a worker needs of a place for entries: memo_store.Store, or on a cluster memo_segments.FarStore."""

    damaged: list[str]
    news: set[str]

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The value of each key, checked; None where there is none."""

    def put(self, items: Sequence[tuple[bytes, bytes]]) -> bool:
        """Keep these; whether there was room."""


@dataclass
class Tally:
    """What a worker tells the main process: how often the memo was asked, how often it knew, what was wrong; and the
    segments that memo_store.Store.collect is to be told of.
    """

    asked: int = 0
    taken: int = 0
    said: list[str] = field(default_factory=list)
    news: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Place:
    """Of a store: what a worker needs to open it.

    Attributes:
        name: the stage's, for messages.
        folder: a text, since cluster.py demands of a Path that all machines see it, and this can be done without.
        limit, since: as of memo_store.Store.
        copy: on a cluster, the name of the one of the index that this run lends to its workers; else empty.
    """

    name: str
    folder: str
    limit: int
    since: float
    copy: str

    def open(self) -> AnyStore:
        """The store, for a worker.

        Raises:
            memo_store.FAILURES: it cannot be used.
        """
        if self.copy:
            return memo_segments.FarStore(Path(self.folder), self.limit, self.copy)
        return memo_store.Store(Path(self.folder), self.limit, self.since)


def _nothing(name: str) -> None:
    """Finds no file."""


class Memo:
    """Of one run of one stage. `Memo()` is none: everything is made anew.

    Args:
        folder: the stage's.
        limit: bytes on disk; 0 is none.
        needed: what the stage depends on.
        earlier: finds a file of the stage's last result by its name. It may be another by now, and is to be checked.

    Attributes:
        asked, taken: images that a function was called with, and those of them whose result was there.
    """

    def __init__(
        self,
        folder: Path | None = None,
        limit: int = 0,
        needed: Dependencies = NOTHING,
        earlier: Callable[[str], Path | None] = _nothing,
    ) -> None:
        self.asked, self.taken, self._said = 0, 0, set()
        self.earlier = earlier
        self._needed, self._place, self._index = needed, None, None
        if folder and limit:
            on_cluster = os.environ.get("DASK_SCHEDULER_ADDRESS")
            copy = f"{memo_store.LENT}{secrets.token_hex(8)}.sqlite" if on_cluster else ""
            self._place = Place(folder.name, str(folder.absolute()), limit, time.time(), copy)
            self._prepare()

    @classmethod
    def for_stage(cls, name: str, max_gib: float, libraries: tuple[str, ...] = ()) -> "Memo":
        """Return the memo of the stage `name`, in the repository where it runs.

        Args:
            libraries: on which its results depend.
        """
        workers.begin()
        if not dependencies.PIPELINE.exists():  # a stage that is run by itself, in any folder
            return cls()
        try:
            needed = dependencies.of_stage(name, libraries)
            return cls(FOLDER / name, int(max_gib * 2**30), needed, LastOuts.of(name).find)
        except (InputError, OSError) as error:
            memo = cls()
            memo._say(f"{name}: works without its memo: {error}")
            return memo

    def _prepare(self, lend: bool = False) -> None:
        """Open the store once before the workers do: make it, mend it, keep it below its limit.

        Args:
            lend: leave it open in this process, with a copy of its index for the workers of a cluster.
        """
        place, folder = self._place, Path(self._place.folder)
        for attempt in range(2):
            store = None
            try:
                if attempt or (folder / memo_store.DAMAGED).exists():
                    shutil.rmtree(folder)
                store = memo_store.Store(folder, place.limit, place.since, alone=bool(place.copy))
                store.tidy()
                if lend:
                    store.lend(place.copy)
                    self._index, store = store, None
                return
            except memo_store.FAILURES as error:
                if not attempt and memo_store.is_damage(error):
                    self._say(f"{place.name}: {place.folder} is damaged ({error}): begins anew")
                    continue
                self._say(f"{place.name}: works without its memo in {place.folder}: {error}")
                self._place = None
                return
            finally:
                if store is not None:  # an empty one counts as False
                    with contextlib.suppress(*memo_store.FAILURES):
                        store.close()

    def of(
        self,
        function: Callable[..., Made],
        shorten: Callable[[Made], bytes] | None = None,
        restore: Callable[[bytes], Made | None] | None = None,
    ) -> "Remembered":
        """`function` with a memory: picklable, for workers.

        Args:
            function: importable by name; of bytes, or several, or of what `Remembered.by_id` reads; and of other
                arguments whose repr says all of them. Returns bytes, if there is no `shorten`.
            shorten: what to keep of a result.
            restore: the result again from that, or None if that is not possible now.
        """
        if self._place is None:
            return Remembered(function)
        if not self._needed.unchanged():
            self._say(f"{self._place.name}: goes on without its memo in {self._place.folder}: {EDITED}")
            return Remembered(function)
        return Remembered(function, self._needed, self._place, shorten, restore)

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
        results = workers.map_in_order(partial(_with_tally, function), tasks, total, desc, **options)
        with self._collecting() as tell, contextlib.closing(results):
            for result, tally in results:
                self.asked += tally.asked
                self.taken += tally.taken
                for line in tally.said:
                    self._say(line)
                tell(tally.news)
                yield result

    @contextlib.contextmanager
    def _collecting(self) -> Iterator[Callable[[set[str]], None]]:
        """What to tell the news of each Tally. On a cluster this process enters into the index what workers write."""
        if self._place and self._place.copy:
            self._prepare(lend=True)
        if self._index is None:
            yield lambda names: None
            return
        news: set[str] = set()
        due = time.monotonic() + COLLECT

        def tell(names: set[str]) -> None:
            nonlocal due
            news.update(names)
            if (begun := time.monotonic()) >= due:
                self._collect(news)
                due = time.monotonic() + max(COLLECT, (time.monotonic() - begun) / SHARE)

        try:
            yield tell
        finally:  # whether all is done or the cluster is lost
            self._collect(news, end=True)
            with contextlib.suppress(*memo_store.FAILURES):
                self._index.close()
            self._index = None

    def _collect(self, news: set[str], end: bool = False) -> None:
        """Enter what there is; what cannot be now, the next run enters."""
        try:
            self._index.collect(news, end)
            news.clear()
        except memo_store.FAILURES as error:
            _mark(self._place, error)
            self._say(f"{self._place.name}: its memo in {self._place.folder} could not be kept up: {error}")

    def _say(self, line: str) -> None:
        """A line on stderr, each once."""
        if line not in self._said:
            self._said.add(line)
            workers.say(line)

    def summary(self) -> str:
        """For the end of a stage's summary line; empty where nothing was taken."""
        return f"; {self.taken} of {self.asked} from the memo" if self.taken else ""


@dataclass(frozen=True)
class Remembered:
    """A function whose results are looked up first. Picklable; each process opens the store for itself."""

    function: Callable[..., Made]
    needed: Dependencies = NOTHING
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
        own = b"" if self.function.__module__.startswith("imagepack.") else self.needed.own
        call = f"{self.function.__qualname__} {arguments!r}".encode()
        key = hashlib.sha256(self.needed.digest + own + content + call).digest()
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

    def __init__(self, place: Place, needed: Dependencies) -> None:
        self._place, self._store = place, None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes, self._full = 0, False
        self.tally = Tally()
        if place.copy and not needed.same_here():  # cluster.py asks for the same of the most important alone
            self._give_up(f"code, libraries or Python on {platform.node()} are not those of the stage")
            return
        if not place.copy and not needed.unchanged():  # it may have loaded what was written after the digest was taken
            self._give_up(EDITED)
            return
        try:
            self._store: AnyStore | None = place.open()
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

    def take_tally(self) -> Tally:
        """What there is to tell since the last time."""
        told, self.tally = self.tally, Tally()
        if self._store is not None:
            told.news, self._store.news = self._store.news, set()
        return told

    def _fail(self, error: Exception) -> None:
        _mark(self._place, error)
        self._give_up(str(error) or type(error).__name__)

    def _give_up(self, why: str) -> None:
        self._store = None
        self.tally.said.append(f"{self._place.name}: goes on without its memo in {self._place.folder}: {why}")


_desks: list[_Desk] = []


@cache
def _desk(place: Place, needed: Dependencies) -> _Desk:
    """This process's, one for a place. A process is for one run, here (workers.py) and on a cluster."""
    _desks.append(_Desk(place, needed))
    return _desks[-1]


def _asked() -> int:
    """Images, since the task began."""
    return sum(desk.tally.asked for desk in _desks)


def _mark(place: Place, error: Exception) -> None:
    """Make the next run begin anew if `error` says that the index is damaged."""
    if memo_store.is_damage(error):
        with contextlib.suppress(OSError):
            Path(place.folder, memo_store.DAMAGED).touch()


def _with_tally(function: Callable[[Sequence[Item]], Result], task: Sequence[Item]) -> tuple[Result, Tally]:
    """Runs in a worker: what `function` returns, once what it made is on disk; and what there is to tell."""
    result = function(task)
    told = Tally()
    for desk in _desks:
        desk.flush()
        its = desk.take_tally()
        told = Tally(told.asked + its.asked, told.taken + its.taken, told.said + its.said, told.news | its.news)
    return result, told


NO_MEMO = Memo()
"""Makes everything anew."""


def sizes(folder: Path = FOLDER) -> Iterator[tuple[str, int, int]]:
    """Name, entries and bytes of each stage's memo."""
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        store = memo_store.Store(path, 0, 0, patience=2)
        yield path.name, len(store), store.size()
        store.close()
