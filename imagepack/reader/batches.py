"""Batches: epochs without an end, which can stop anywhere and go on, here or on another number of machines."""

import hashlib
import operator
import os
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imagepack.reader import order
from imagepack.reader.augment import Augment

if TYPE_CHECKING:
    from imagepack.reader.packed_images import PackedImages

FETCHED_AT_ONCE = 8
"""Shards."""
POSITIONS_A_STEP = 1 << 16
"""Positions of an epoch whose images are looked up in one step."""
FIRST_WINDOW, WINDOW = 4, 64
"""Shards among which images of a pack that is not on this machine are shuffled: at an epoch's start, and at most."""


class Batches:
    """The images of a dataset, a batch at a time; what `PackedImages.batches` returns.

    Each `for images, labels in batches` runs through one epoch, or through what is left of it after
    `load_state_dict`; the next one through the next epoch.

    Attributes:
        epoch: the one that is running, or begins next.
        samples: images of this epoch that all ranks together have had.
    """

    def __init__(
        self,
        dataset: "PackedImages",
        size: int,
        *,
        shuffle: bool,
        seed: int,
        epoch: int,
        augment: Augment | None,
        drop_last: bool,
        rank: int,
        world_size: int,
        weights: np.ndarray | None,
        prefetch: int,
        with_positions: bool = False,
    ) -> None:
        names = ("size", "seed", "epoch", "rank", "world_size", "prefetch")
        values = (size, seed, epoch, rank, world_size, prefetch)
        size, seed, epoch, rank, world_size, prefetch = map(_whole, names, values)
        for fault, words in (
            (size < 1, f"a batch needs at least 1 image, not {size}"),
            (not 0 <= rank < world_size, f"rank must be 0 to world_size - 1 = {world_size - 1}, is {rank}"),
            (not 0 <= seed < 2**63, f"seed must be 0 to 2**63 - 1, is {seed}"),
            (not 0 <= epoch < 2**63, f"epoch must be 0 to 2**63 - 1, is {epoch}"),
            (prefetch < 0, f"prefetch must be 0 or more batches, is {prefetch}"),
        ):
            if fault:
                raise ValueError(words)
        self._dataset, self._size, self._augment, self._prefetch = dataset, size, augment, prefetch
        self._shuffle, self._drop_last, self._rank, self._world = shuffle, drop_last, rank, world_size
        self._cumulated = None if weights is None else _cumulate(weights, len(dataset))
        self.seed, self.epoch, self.samples = seed, epoch, 0
        self._next = epoch, 0
        self._with_positions = with_positions
        self._buffers = _Buffers((size, *dataset.shape), prefetch + 4)
        self._running: object = None

    def __len__(self) -> int:
        """Return the batches of a whole epoch on this rank; the same on every rank."""
        together = self._size * self._world
        return len(self._dataset) // together if self._drop_last else -(-len(self._dataset) // together)

    def __iter__(self) -> Iterator[tuple[np.ndarray, ...]]:
        """Run to the end of the epoch. A loop that is left before begins the next epoch next time.

        Yields:
            Images, uint8 (n, H, W, C), and labels, int64 (n,), or the dataset's `targets`; arrays of the caller's own.
            With `with_positions` also int64 (n,): where these images stand in the dataset.
        """
        self.epoch, self.samples = self._next
        self._next = self.epoch + 1, 0
        self._running = this = object()  # the state is that of the iteration which began last
        for images, labels, positions, samples in self._ahead(self.epoch, self.samples):
            if self._running is this:
                self.samples = samples  # before the batch is handed out: a state saved now counts it as done
            yield (images, labels, positions) if self._with_positions else (images, labels)
        if self._running is this:
            self.epoch, self.samples = self._next

    def _ahead(self, epoch: int, samples: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
        """Yield batches and how far they lead, made by threads while the caller works on those before."""
        steps = self._steps(epoch, samples)
        if not self._prefetch:
            yield from (self._make(epoch, *step) for step in steps)
            return
        if self._dataset.remote:
            steps = self._fetching(steps)
        threads = min(self._prefetch, _cores())
        waiting: deque[Future] = deque()
        process = os.getpid()
        with ThreadPoolExecutor(threads, thread_name_prefix="imagepack") as pool:
            try:
                for step in steps:
                    if os.getpid() != process:
                        raise RuntimeError("this iteration is of the process that forked: begin one of your own")
                    waiting.append(pool.submit(self._make, epoch, *step))
                    if len(waiting) > self._prefetch:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:  # where the caller left the loop
                    future.cancel()

    def _fetching(self, steps: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the same steps while threads fetch the shards of those to come, as far ahead as a window may reach.

        Those of the first batch come first. Then shard after shard in the order of their use, so that no window's last
        one keeps the next window waiting.
        """

        def fetch(position: int, before: Sequence[Future]) -> None:
            wait(before)
            self._dataset.fetch([position])  # what goes wrong is said by the batch that needs it

        shards = len(self._dataset.index.shard_names)
        ahead = len(self._dataset) * min(WINDOW, shards) // shards // (self._size * self._world)
        coming: deque[tuple[np.ndarray, int]] = deque()
        asked: dict[int, int] = {}
        first: list[Future] = []
        pool = ThreadPoolExecutor(FETCHED_AT_ONCE, thread_name_prefix="imagepack")
        try:
            for number, step in enumerate(steps):
                for shard, position in self._dataset.shards_of(step[0]).items():
                    if number - asked.get(shard, -ahead - 1) > ahead:  # in a small cache it may have gone meanwhile
                        asked[shard] = number
                        future = pool.submit(fetch, position, first if number else ())
                        first += [] if number else [future]
                coming.append(step)
                if len(coming) > ahead:
                    yield coming.popleft()
            yield from coming
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _steps(self, epoch: int, samples: int) -> Iterator[tuple[np.ndarray, int]]:
        """Yield the positions of each batch of this rank, and how many images all ranks have had with it.

        All ranks together take `size * world_size` images at a time, a rank those at its place. What is left at the
        end is shared out evenly; if it does not come out even, some of the epoch's first images fill the gap, so that
        every rank has as many batches, of as many images, as any other.
        """
        total, together = len(self._dataset), self._size * self._world
        indices = self._indices(epoch)
        while samples < (end := self._end()):
            parts, leads = [], []
            while samples < end and len(leads) * self._size < POSITIONS_A_STEP:
                share = min(self._size, -(-(total - samples) // self._world))
                parts.append(np.arange(share) + (samples + self._rank * share))
                samples = min(total, samples + together)
                leads.append(samples)
            chosen = indices(np.concatenate(parts) % total)
            yield from zip(np.split(chosen, np.cumsum([len(part) for part in parts[:-1]])), leads, strict=True)

    def _end(self) -> int:
        """Return how many images all ranks together have had when an epoch is over."""
        return len(self._dataset) - (self._size * self._world - 1 if self._drop_last else 0)

    def _indices(self, epoch: int):
        """Return the function from positions in this epoch's order to positions in the dataset."""
        total, key = len(self._dataset), order.key(self.seed, epoch)
        if self._cumulated is not None:
            return lambda positions: np.searchsorted(self._cumulated, order.uniform(positions, key), "right")
        if not self._shuffle:
            return lambda positions: positions
        if self._dataset.remote and (bounds := self._dataset.bounds()) is not None:
            return _Windows(bounds, key)
        return lambda positions: order.permute(positions, total, key)

    def _make(self, epoch: int, chosen: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        images = self._dataset.take(chosen, out=self._buffers.get(len(chosen)))
        if self._augment:
            for row, image_id in enumerate(self._dataset.ids_of(chosen)):
                images[row] = self._augment(images[row], image_id.tobytes(), epoch)
        return images, self._dataset.targets_of(chosen), chosen.astype(np.int64), samples

    @cached_property
    def _order(self) -> str:
        """Return what decides the order beside seed and epoch."""
        if self._cumulated is not None:
            return f"weighted {hashlib.sha256(self._cumulated).hexdigest()}"
        windows = self._dataset.remote and self._dataset.bounds() is not None
        shuffled = f"shuffled in windows of {FIRST_WINDOW} to {WINDOW} shards" if windows else "shuffled"
        return shuffled if self._shuffle else "as packed"

    def state_dict(self) -> dict[str, int | str]:
        """Return where this is: small, JSON, the same on every rank."""
        return {
            "dataset": self._dataset.selection_digest,
            "order": self._order,
            "seed": self.seed,
            "epoch": self.epoch,
            "samples": self.samples,
        }

    def load_state_dict(self, state: dict[str, int | str]) -> None:
        """Go on where `state` was saved, also with another batch size, rank or world size.

        Raises:
            ValueError: the state is of other images or another order.
        """
        mine = self.state_dict()
        if not isinstance(state, dict) or state.keys() != mine.keys():
            raise ValueError(f"no state of batches: it must have {', '.join(mine)}")
        if state["dataset"] != mine["dataset"]:
            raise ValueError(
                f"this state is of other images (dataset {str(state['dataset'])[:12]}..., these are "
                f"{mine['dataset'][:12]}...): open the version of the pack and the split that it was saved with"
            )
        if state["order"] != mine["order"]:
            raise ValueError(f"this state is of batches {state['order']}, these are {mine['order']}")
        seed, epoch, samples = (_whole(name, state[name]) for name in ("seed", "epoch", "samples"))
        if not (0 <= seed < 2**63 and 0 <= epoch < 2**63 and 0 <= samples <= len(self._dataset)):
            raise ValueError(f"no state of batches: seed {seed}, epoch {epoch}, samples {samples}")
        if samples >= self._end():  # of the last batch of an epoch: the next one begins
            epoch, samples = epoch + 1, 0
        self.seed, self.epoch, self.samples = seed, epoch, samples
        self._next, self._running = (epoch, samples), None


class _Buffers:
    """Memory for batches, used again once nobody holds it: new memory costs as much as the copy into it."""

    def __init__(self, shape: tuple[int, ...], most: int) -> None:
        """Keep at most `most` arrays, the latest, to be used again; `shape` is that of a full batch, uint8."""
        self._shape, self._most, self._lock = shape, most, threading.Lock()
        self._all = [np.empty(0, np.uint8)]
        (self._unused,) = self._references()  # references to an array that is only in the list
        self._all.clear()
        self._counted = getattr(sys, "_is_gil_enabled", lambda: True)()  # without Python's lock, counts tell less

    def _references(self) -> list[int]:
        return [sys.getrefcount(buffer) for buffer in self._all]

    def get(self, count: int) -> np.ndarray:
        """Return an array of `count` images that is nobody else's; whoever has it, or a view of it, keeps it."""
        with self._lock:
            counts = self._references() if self._counted else []
            for buffer, has in zip(self._all, counts, strict=False):
                if has == self._unused:
                    return buffer[:count]
            new = np.empty(self._shape, np.uint8)
            self._all = [*self._all[-self._most + 1 :], new]  # without the oldest, which somebody keeps
            return new[:count]

    def __reduce__(self) -> tuple:
        return type(self), (self._shape, self._most)


class _Windows:
    """A shuffle that keeps to a window of shards at a time: the shards in random order, the images of a window mixed.

    A window has twice as many shards as the one before, so that the first batch need not wait for many, up to WINDOW;
    and at most half of those that are left, so that little is left to do once the last shard has come.
    """

    def __init__(self, bounds: np.ndarray, key: np.uint64) -> None:
        """Shuffle by `bounds`, int64, (S + 1,): shard s has the dataset's images bounds[s] to bounds[s + 1] - 1."""
        self._shards = order.permute(np.arange(len(bounds) - 1), len(bounds) - 1, key)
        self._begins = bounds[self._shards]
        self._ends = np.cumsum(bounds[self._shards + 1] - self._begins)  # in the new order
        self._window_ends = self._ends[np.cumsum(window_sizes(len(self._shards)), dtype=np.int64) - 1]
        self._key = key

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        window = np.searchsorted(self._window_ends, positions, "right")
        result = np.empty_like(positions)
        for number in np.unique(window).tolist():
            begin, end = int(self._window_ends[number - 1]) if number else 0, int(self._window_ends[number])
            mine = window == number
            key = order.mix(self._key + np.uint64([number]))[0]
            mixed = begin + order.permute(positions[mine] - begin, end - begin, key)
            shard = np.searchsorted(self._ends, mixed, "right")
            before = np.where(shard > 0, self._ends[shard - 1], 0)
            result[mine] = self._begins[shard] + mixed - before
        return result


def window_sizes(shards: int) -> list[int]:
    """Return how many shards each window has."""
    sizes, size, left = [], FIRST_WINDOW, shards
    while left:
        sizes.append(min(left, max(FIRST_WINDOW, min(size, (left + 1) // 2))))
        left, size = left - sizes[-1], min(2 * size, WINDOW)
    return sizes


def _cumulate(weights: np.ndarray, count: int) -> np.ndarray:
    """Return the cumulated shares of weights: float64, (N,), rising to 1.

    Raises:
        ValueError: not a finite number of 0 or more for each image, or all 0.
    """
    weights = np.asarray(weights, np.float64)
    with np.errstate(over="ignore"):
        finite = np.isfinite(weights.sum())
    if not finite or weights.shape != (count,) or (weights < 0).any() or not weights.any():
        raise ValueError(f"weights must be {count} numbers of 0 or more, one an image, not all 0")
    cumulated = np.cumsum(weights)
    cumulated /= cumulated[-1]
    return cumulated


def _whole(name: str, value: object) -> int:
    """Return `value`, if it is a whole number.

    Raises:
        ValueError: it is none.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"{name} must be a whole number, is {value!r}") from None


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
