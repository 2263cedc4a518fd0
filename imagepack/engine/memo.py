"""The memo: what a stage has made of an image is not made again while the image, the params and the code are the same.

It stands beside the pipeline and is no part of it: DVC does not know it, it never changes a result, and it may be
deleted at any time. A stage wraps a function, mostly of bytes, which must depend on nothing but its arguments:

    png_of = memo.of(make_png)
    ...
    png = png_of(data, params)          # in a worker: from the memo, or made and kept

An entry's key is the sha256 of the bytes (or of each of several), the other arguments, and what the stage depends on
(dependencies.py). Runs on a Dask cluster and on this machine share the entries. Where that sha256 is known already, the
bytes need not even be read:

    png = png_of.by_id(image_id, read, params)      # `read` returns them, and is called where nothing is known
"""

import contextlib
import hashlib
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from imagepack.dvc.cache import LastOuts
from imagepack.engine import dependencies, memo_store, progress, workers
from imagepack.engine.dependencies import NOTHING, Dependencies
from imagepack.engine.memo_store import Block
from imagepack.errors import InputError

FOLDER = Path(".memo")
"""In the repository's root, where stages run; a folder in it for each stage."""
PENDING_BYTES = 4 * 2**20
"""Results that a worker gathers before it writes them, unless its task ends before."""
LOOK = 5.0
"""Seconds between two looks at the size of the memo."""
EDITED = "code was edited while it ran"
NO_ROOM = "no more fits into its memo: raise memo.max_gib in params.yaml, or free some space"

Item = TypeVar("Item")
Result = TypeVar("Result")
Made = TypeVar("Made")


class NotMemoised(bytes):
    """A result that holds for this run alone, such as one for want of memory: the memo does not keep it."""


@dataclass(frozen=True)
class StoreSpec:
    """What a worker needs to open the memo of a stage.

    Attributes:
        stage: its name, for messages.
        folder: a text, since a cluster demands of a Path that all machines see it, and this can be done without.
        limit: as of memo_store.Store.
        needed: what the stage depends on.
        on_cluster: workers are those of a Dask cluster.
    """

    stage: str
    folder: str
    limit: int
    needed: Dependencies
    on_cluster: bool


@dataclass
class WorkerReport:
    """What a worker tells the main process after a task.

    Attributes:
        asked, taken: images that were looked up, and those of them that were found.
        messages: what went wrong.
        blocks: what it has written, for memo_store.Store.enter.
    """

    asked: int = 0
    taken: int = 0
    messages: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)


def _nothing(name: str) -> None:
    """Find no file."""


class Memo:
    """The memo of one run of one stage. `Memo()` is none: everything is made anew.

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
        self.asked, self.taken, self._said, self._was_empty = 0, 0, set(), False
        self.earlier = earlier
        self._spec, self._store = None, None
        if folder and limit:
            on_cluster = bool(os.environ.get("DASK_SCHEDULER_ADDRESS"))
            self._spec = StoreSpec(folder.name, str(folder.absolute()), limit, needed, on_cluster)
            self._open()

    @classmethod
    def for_stage(cls, name: str, max_gib: float, libraries: tuple[str, ...] = ()) -> "Memo":
        """Return the memo of the stage `name`, in the repository where it runs.

        Args:
            libraries: on which its results depend.
        """
        if not dependencies.PIPELINE.exists():  # a stage that is run by itself, in any folder
            return cls()
        try:
            needed = dependencies.of_stage(name, libraries)
            return cls(FOLDER / name, int(max_gib * 2**30), needed, LastOuts.of(name).find)
        except (InputError, OSError) as error:
            memo = cls()
            memo._say(f"{name}: works without its memo: {error}")
            return memo

    def _open(self) -> None:
        """Open the store before the workers do: make it, mend it, keep it below its limit."""
        spec, folder = self._spec, Path(self._spec.folder)
        for attempt in range(2):
            try:
                if attempt or (folder / memo_store.DAMAGED).exists():
                    shutil.rmtree(folder)
                self._store = memo_store.Store(folder, spec.limit)
                self._store.tidy()
                self._was_empty = memo_store.is_empty(folder)
                return
            except memo_store.FAILURES as error:
                if attempt or not memo_store.is_damage(error):
                    self._say(f"{spec.stage}: works without its memo in {folder}: {error}")
                    self._spec = self._store = None
                    return
                self._say(f"{spec.stage}: {folder} is damaged ({error}): begins anew")

    def of(
        self,
        function: Callable[..., Made],
        shorten: Callable[[Made], bytes] | None = None,
        restore: Callable[[bytes], Made | None] | None = None,
        with_stage_file: bool = True,
    ) -> "Memoised":
        """Return `function` with a memory: picklable, for workers.

        Args:
            function: importable by name; of bytes, or several, or of what `Memoised.by_id` reads; and of other
                arguments whose repr says all of them. Returns bytes, if there is no `shorten`.
            shorten: what to keep of a result.
            restore: the result again from that, or None if that is not possible now.
            with_stage_file: whether results may depend on what the user edits in the stage's own file.
        """
        if self._spec is None:
            return Memoised(function)
        if not self._spec.needed.unchanged():
            self._say(f"{self._spec.stage}: goes on without its memo in {self._spec.folder}: {EDITED}")
            return Memoised(function)
        needed = self._spec.needed
        code = needed.digest + (needed.own if with_stage_file else b"")
        return Memoised(function, self._spec, code, shorten, restore)

    def map_in_order(
        self,
        function: Callable[[Sequence[Item]], Result],
        tasks: Iterable[Sequence[Item]],
        total: int,
        desc: str,
        lost: Callable[[Item, str], Result] | None = None,
        **options,
    ) -> Iterator[Result]:
        """As workers.map_in_order, for a `function` that calls what `of` returned: its results are kept and counted."""
        if lost is not None:
            options["lost"] = lambda item, what: (lost(item, what), WorkerReport())
        reporting = partial(_with_report, function, self._spec)
        results = workers.map_in_order(reporting, tasks, total, desc, **options)
        blocks, looked = [], time.monotonic()
        try:
            with contextlib.closing(results):
                for result, report in results:
                    self.asked += report.asked
                    self.taken += report.taken
                    for line in report.messages:
                        self._say(line)
                    blocks += report.blocks
                    if time.monotonic() - looked > LOOK:
                        self._keep_up()
                        looked = time.monotonic()
                    yield result
        finally:  # whether all is done, or the stage is stopped, or the cluster is lost
            _close_handle(self._spec)
            self._keep_up(blocks, end=True)

    def _keep_up(self, blocks: Sequence[Block] = (), end: bool = False) -> None:
        """Enter what was written; keep to the limit. What cannot be entered now, the next run enters."""
        if self._store is None:
            return
        try:
            if blocks:
                self._store.enter(blocks)
            fits = self._store.make_room(end)
        except memo_store.FAILURES as error:
            _mark_damage(self._spec, error)
            self._say(f"{self._spec.stage}: its memo in {self._spec.folder} could not be kept up: {error}")
        else:
            if not fits:
                self._say(f"{self._spec.stage}: {NO_ROOM}")

    def _say(self, line: str) -> None:
        """Print a line on stderr, each once."""
        if line not in self._said:
            self._said.add(line)
            progress.say(line)

    def summary(self) -> str:
        """Return the end of a stage's summary line; empty where nothing was taken.

        A run that began without a memo took at most what it had just made, of a file that is there twice.
        """
        return f"; {self.taken} of {self.asked} from the memo" if self.taken and not self._was_empty else ""


@dataclass(frozen=True)
class Memoised:
    """A function whose results are looked up first. Picklable; each process opens the store for itself."""

    function: Callable[..., Made]
    store: StoreSpec | None = None
    code: bytes = b""
    shorten: Callable[[Made], bytes] | None = None
    restore: Callable[[bytes], Made | None] | None = None

    def __call__(self, data: bytes | Sequence[bytes], *arguments) -> Made:
        """Return function(data, *arguments)."""
        if self.store is None:
            return self.function(data, *arguments)
        files = [data] if isinstance(data, bytes) else data
        content = b"".join(hashlib.sha256(file).digest() for file in files)
        return self.by_id(content, lambda: data, *arguments, images=len(files))

    def by_id(self, content: bytes, read: Callable[[], object], *arguments, images: int = 1) -> Made:
        """Return function(read(), *arguments).

        Args:
            content: tells what `read` returns from anything else that it could return: mostly a sha256.
            read: is called where the result is not known.
            images: how many it is of.
        """
        if self.store is None:
            return self.function(read(), *arguments)
        handle = _handle(self.store)
        call = f"{self.function.__qualname__} {arguments!r}".encode()
        key = hashlib.sha256(self.code + content + call).digest()
        made = kept = handle.get(key)
        if kept is not None and self.restore:
            made = self.restore(kept)
        if made is not None:
            handle.report.asked += images
            handle.report.taken += images
            return made
        asked = handle.report.asked
        made = self.function(read(), *arguments)
        if asked == handle.report.asked:  # otherwise `function` has asked for each image
            handle.report.asked += images
        if not isinstance(made, NotMemoised):
            handle.put(key, self.shorten(made) if self.shorten else made)
        return made


class StoreHandle:
    """A worker's access to the store: gathers what is to be written, and goes on without where the store fails."""

    def __init__(self, spec: StoreSpec) -> None:
        self._spec, self._store = spec, None
        self._pending: list[tuple[bytes, bytes]] = []
        self._pending_bytes, self._full = 0, False
        self.report = WorkerReport()
        if spec.on_cluster and not spec.needed.same_here():  # the cluster asks for the same of the most important alone
            self._give_up(f"code, libraries or Python on {platform.node()} are not those of the stage")
        elif not spec.on_cluster and not spec.needed.unchanged():  # what was loaded may not be what the digest is of
            self._give_up(EDITED)
        else:
            self._store = self._try(memo_store.WorkerStore, Path(spec.folder), spec.limit)

    def get(self, key: bytes) -> bytes | None:
        """Return what is kept under `key`."""
        value = self._try(self._store.get, key) if self._store else None
        while self._store and self._store.damaged:
            self._tell(f"the memo was damaged in {self._store.damaged.pop(0)}: made anew")
        return value

    def put(self, key: bytes, value: bytes) -> None:
        """Keep `value`, once there is enough to be written."""
        self._pending.append((key, value))
        self._pending_bytes += len(value)
        if self._pending_bytes >= PENDING_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        items, self._pending, self._pending_bytes = self._pending, [], 0
        if not items or self._store is None or self._full:
            return
        block = self._try(self._store.put, items)
        if block is not None:
            self.report.blocks.append(block)
        elif self._store:
            self._full = True
            self._tell(NO_ROOM)

    def take_report(self) -> WorkerReport:
        """Return what there is to tell since the last time."""
        told, self.report = self.report, WorkerReport()
        return told

    def close(self) -> None:
        """Close the store's files."""
        if self._store:
            self._store.close()

    def _try(self, function: Callable, *arguments) -> Any:
        """Return function(*arguments), or None where it fails; then the store is not used any more."""
        try:
            return function(*arguments)
        except memo_store.FAILURES as error:
            _mark_damage(self._spec, error)
            self._give_up(str(error) or type(error).__name__)
            return None

    def _give_up(self, why: str) -> None:
        self._store = None
        self._tell(f"goes on without its memo in {self._spec.folder}: {why}")

    def _tell(self, what: str) -> None:
        self.report.messages.append(f"{self._spec.stage}: {what}")


@cache
def _handle(spec: StoreSpec) -> StoreHandle:
    """Return this process's, one for a store. A worker process is for one run, here (processes.py) and on a cluster."""
    return StoreHandle(spec)


def _close_handle(spec: StoreSpec | None) -> None:
    """Close this process's store, if it was the worker: its next run opens another."""
    if _handle.cache_info().currsize:
        _handle(spec).close()
        _handle.cache_clear()


def _mark_damage(spec: StoreSpec, error: Exception) -> None:
    """Make the next run begin anew if `error` says that the index is damaged."""
    if memo_store.is_damage(error):
        with contextlib.suppress(OSError):
            Path(spec.folder, memo_store.DAMAGED).touch()


def _with_report(
    function: Callable[[Sequence[Item]], Result], spec: StoreSpec | None, task: Sequence[Item]
) -> tuple[Result, WorkerReport]:
    """Return what `function` returns, once what it made is on disk, and what there is to tell. Runs in a worker."""
    result = function(task)
    if spec is None:
        return result, WorkerReport()
    handle = _handle(spec)
    handle.flush()
    return result, handle.take_report()


NO_MEMO = Memo()
"""Makes everything anew."""


def sizes(folder: Path = FOLDER) -> Iterator[tuple[str, int, int]]:
    """Yield name, entries and bytes of each stage's memo."""
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        yield path.name, memo_store.count(path), memo_store.total_size(path)
