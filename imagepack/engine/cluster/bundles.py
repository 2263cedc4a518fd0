"""How much work one task of Dask is: so long that the scheduler can serve all workers, so short that none waits."""

from collections.abc import Iterator, Sequence

OVERHEAD = 0.002
"""Seconds that a task costs the scheduler, generously: workshop/benchmarks/cluster.py measures it."""
SCHEDULER_SHARE = 0.1
"""How busy the scheduler may become."""
SHORTEST, LONGEST = 1.0, 60.0
"""Seconds that a task should take, at least and at most."""
FLIGHT = 2
"""Tasks in flight for each thread of the cluster: one at work, one at hand."""


class Bundles:
    """Cuts tasks into bundles, each of which is one task of Dask.

    Args:
        tasks: all.
        total: images in them.
    """

    def __init__(self, tasks: Iterator[Sequence], total: int) -> None:
        self._tasks, self._left = tasks, total
        self._images, self._seconds = 0, 0.0

    def learn(self, images: int, seconds: float) -> None:
        """Note that a bundle of `images` took so long."""
        self._images, self._seconds = self._images / 2 + images, self._seconds / 2 + seconds  # the latest count most

    def next(self, threads: int) -> list[Sequence]:
        """Return the next tasks, for a cluster of `threads`; none at the end.

        So many that the scheduler is not too busy, but at the end fewer: nobody should wait for a last long one.
        """
        wanted = 1.0
        if self._seconds:
            seconds = min(max(threads * OVERHEAD / SCHEDULER_SHARE, SHORTEST), LONGEST)
            wanted = min(seconds * self._images / self._seconds, self._left / (2 * FLIGHT * max(1, threads)))
            wanted = max(wanted, 1.0)
        bundle, images = [], 0
        while images < wanted and (task := next(self._tasks, None)) is not None:
            bundle.append(task)
            images += len(task)
        self._left -= images
        return bundle
