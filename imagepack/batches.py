"""Batches: an endless run of epochs that can stop anywhere and go on, here or on another number of machines."""

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from imagepack import order
from imagepack.augment import Augment

if TYPE_CHECKING:
    from imagepack.reader import PackedImages

AT_ONCE = 1 << 16
"""Positions whose images are looked up in one step."""
WINDOW = 64
"""Shards among which images of a pack that is not on this machine are shuffled."""


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
    ) -> None:
        for fault, words in (
            (size < 1, f"a batch needs at least 1 image, not {size}"),
            (not 0 <= rank < world_size, f"rank must be 0 to world_size - 1 = {world_size - 1}, is {rank}"),
            (min(seed, epoch) < 0, f"seed and epoch must be 0 or more, are {seed} and {epoch}"),
            (prefetch < 0, f"prefetch must be 0 or more batches, is {prefetch}"),
        ):
            if fault:
                raise ValueError(words)
        self._dataset, self._size, self._augment, self._prefetch = dataset, size, augment, prefetch
        self._shuffle, self._drop_last, self._rank, self._world = shuffle, drop_last, rank, world_size
        self._cumulated = None if weights is None else _cumulate(weights, len(dataset))
        self.seed, self.epoch, self.samples = seed, epoch, 0
        self._next = epoch, 0

    def __len__(self) -> int:
        """Batches of a whole epoch on this rank; the same on every rank."""
        together = self._size * self._world
        return len(self._dataset) // together if self._drop_last else -(-len(self._dataset) // together)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Run to the end of the epoch. Who leaves before, begins the next epoch next time.

        Yields:
            Images, uint8 (n, H, W, C), and labels, int64 (n,); arrays of the caller's own.
        """
        self.epoch, self.samples = self._next
        self._next = self.epoch + 1, 0
        for images, labels, samples in self._ahead(self.epoch, self.samples):
            self.samples = samples  # before the batch is handed out: a state saved now counts it as done
            yield images, labels
        self.epoch, self.samples = self._next

    def _ahead(self, epoch: int, samples: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
        """Batches and how far they lead, made by threads while the caller works on those before."""
        steps = self._steps(epoch, samples)
        if not self._prefetch:
            yield from (self._make(epoch, *step) for step in steps)
            return
        if self._dataset.remote:
            steps = self._fetching(steps)
        threads = min(self._prefetch, _cores())
        waiting: deque[Future] = deque()
        with ThreadPoolExecutor(threads, thread_name_prefix="imagepack") as pool:
            try:
                for step in steps:
                    waiting.append(pool.submit(self._make, epoch, *step))
                    if len(waiting) > self._prefetch:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:  # where the caller left the loop
                    future.cancel()

    def _fetching(self, steps: Iterator[tuple[np.ndarray, int]]) -> Iterator[tuple[np.ndarray, int]]:
        """The same steps, while a thread fetches the shards of those to come: as far ahead as a window has images."""
        shards = len(self._dataset.index.shard_names)
        images = len(self._dataset) * min(WINDOW, shards) // shards
        coming: deque[tuple[np.ndarray, int]] = deque()
        pool = ThreadPoolExecutor(1, thread_name_prefix="imagepack")
        try:
            for step in steps:
                pool.submit(self._dataset.fetch, step[0])  # what goes wrong is said by the batch that needs it
                coming.append(step)
                if len(coming) > images // (self._size * self._world):
                    yield coming.popleft()
            yield from coming
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _steps(self, epoch: int, samples: int) -> Iterator[tuple[np.ndarray, int]]:
        """Positions in the dataset of each batch of this rank, and the images that all ranks have had with it.

        All ranks together take `size * world_size` images at a time, a rank those at its place. What is left at the
        end is shared out evenly; if it does not come out even, some of the epoch's first images fill the gap, so that
        every rank has as many batches, of as many images, as any other.
        """
        total, together = len(self._dataset), self._size * self._world
        indices = self._indices(epoch)
        while samples < (end := total - (together - 1 if self._drop_last else 0)):
            parts, leads = [], []
            while samples < end and len(leads) * self._size < AT_ONCE:
                share = min(self._size, -(-(total - samples) // self._world))
                parts.append(np.arange(share) + (samples + self._rank * share))
                samples = min(total, samples + together)
                leads.append(samples)
            chosen = indices(np.concatenate(parts) % total)
            yield from zip(np.split(chosen, np.cumsum([len(part) for part in parts[:-1]])), leads, strict=True)

    def _indices(self, epoch: int):
        """The function from positions in this epoch's order to positions in the dataset."""
        total, key = len(self._dataset), order.key(self.seed, epoch)
        if self._cumulated is not None:
            return lambda positions: np.searchsorted(self._cumulated, order.uniform(positions, key), "right")
        if not self._shuffle:
            return lambda positions: positions
        if self._dataset.remote and (bounds := self._dataset.bounds()) is not None:
            return _Windows(bounds, key)
        return lambda positions: order.permute(positions, total, key)

    def _make(self, epoch: int, chosen: np.ndarray, samples: int) -> tuple[np.ndarray, np.ndarray, int]:
        images = self._dataset.take(chosen)
        if self._augment:
            for row, image_id in enumerate(self._dataset.ids_of(chosen)):
                images[row] = self._augment(images[row], image_id.tobytes(), epoch)
        return images, self._dataset.labels[chosen], samples

    @cached_property
    def _order(self) -> str:
        """What decides the order beside seed and epoch."""
        if self._cumulated is not None:
            return f"weighted {hashlib.sha256(self._cumulated).hexdigest()}"
        return ("shuffled in windows" if self._dataset.remote else "shuffled") if self._shuffle else "as packed"

    def state_dict(self) -> dict[str, int | str]:
        """Where this is: small, JSON, the same on every rank."""
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
        self.seed, self.epoch, self.samples = state["seed"], state["epoch"], state["samples"]
        self._next = self.epoch, self.samples


class _Windows:
    """A shuffle that keeps to WINDOW shards at a time: the shards in random order, the images of a window mixed."""

    def __init__(self, bounds: np.ndarray, key: np.uint64) -> None:
        """Args: bounds: int64, (S + 1,): shard s has the images of the dataset bounds[s] to bounds[s + 1] - 1."""
        self._shards = order.permute(np.arange(len(bounds) - 1), len(bounds) - 1, key)
        self._begins = bounds[self._shards]
        self._ends = np.cumsum(bounds[self._shards + 1] - self._begins)  # in the new order
        self._key = key

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        window = np.searchsorted(self._ends, positions, "right") // WINDOW
        result = np.empty_like(positions)
        for number in np.unique(window).tolist():
            first, last = number * WINDOW, min((number + 1) * WINDOW, len(self._ends)) - 1
            begin = int(self._ends[first - 1]) if first else 0
            mine = window == number
            count = int(self._ends[last]) - begin
            mixed = begin + order.permute(positions[mine] - begin, count, order.mix(self._key + np.uint64([number]))[0])
            shard = np.searchsorted(self._ends, mixed, "right")
            before = np.where(shard > 0, self._ends[shard - 1], 0)
            result[mine] = self._begins[shard] + mixed - before
        return result


def _cumulate(weights: np.ndarray, count: int) -> np.ndarray:
    """Float64, (N,), rising to 1.

    Raises:
        ValueError: not a finite number of 0 or more for each image, or all 0.
    """
    weights = np.asarray(weights, np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise ValueError(f"weights must be {count} numbers of 0 or more, one an image, not all 0")
    cumulated = np.cumsum(weights)
    cumulated /= cumulated[-1]
    return cumulated


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
