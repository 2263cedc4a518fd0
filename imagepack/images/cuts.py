"""Where a long row of images is cut into files, so that a small change of the images changes few of the files."""

import numpy as np
import polars as pl

PNG_SHARE = 0.6
"""Bytes of a photograph's PNG, as a share of those of its pixels."""


def cut(ids: np.ndarray, batches: pl.Series, rows: int) -> list[int]:
    """Return where files of about `rows` images begin, and N at the end: by content, so that a change stays local.

    An image ends a file where its hash is the least of the 2w + 1 around it, which happens once in 2w + 1 images
    on average (local-minimum chunking, Bjorner et al. 2010); w comes from `rows`, never from the number of images.
    A file of 4 * rows is cut in any case, and none reaches over the end of a batch.
    """
    w = (rows - 1) // 2
    batch_ends = np.flatnonzero((batches != batches.shift(-1)).fill_null(True).to_numpy()) + 1
    starts = [0]
    for begin, end in zip([0, *batch_ends], batch_ends, strict=False):
        hashes = pl.Series(uint64(ids[begin:end], 8))
        least = hashes == hashes.rolling_min(2 * w + 1, center=True)
        if w:  # of equal ones (duplicates that params let in) the first
            least &= hashes < hashes.shift(1).rolling_min(w)
        for stop in [*(begin + 1 + np.flatnonzero(least.fill_null(False).to_numpy())), end]:
            starts += range(starts[-1] + 4 * rows, stop, 4 * rows)
            if stop > starts[-1]:
                starts.append(int(stop))
    return starts


def uint64(ids: np.ndarray, offset: int) -> np.ndarray:
    """Return eight bytes of each id as a uint64: parts of a sha256, so as good as independent hashes."""
    return np.ascontiguousarray(ids[:, offset : offset + 8]).view(">u8")[:, 0].astype("u8")
