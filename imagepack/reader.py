"""PackedImages: a pack as a sequence of (image, label), and as batches for training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from imagepack import format as packs
from imagepack.augment import Augment


class PackedImages:
    """The images of a pack, or of one of its splits. Index it, take its length, or iterate over batches.

    Attributes:
        classes: class names; a label is a position in this list.
        shape: (H, W, C) of every image.
        labels: int64, (N,).
        ids: uint8, (N, 32): sha256 of each image's source file.
        digest: hexadecimal, equal for two packs if and only if their data is.
    """

    def __init__(self, folder: str | Path) -> None:
        """Open the pack in `folder` (data/packed).

        Raises:
            PackError: no pack, another version of the format, a shard that is missing or of the wrong size.
        """
        self.folder = Path(folder).resolve()
        self._index, self.digest = packs.read_index(self.folder)
        for name, size in zip(self._index.shard_names, self._index.shard_bytes, strict=True):
            packs.check_size(self._shard_path(name), int(size))
        self.classes = self._index.classes
        self.shape = self._index.shape
        self._select(np.arange(len(self._index.labels)))

    def _select(self, rows: np.ndarray) -> None:
        """Be the images at these rows of the pack."""
        self._rows = rows
        self.labels = self._index.labels[rows].astype(np.int64)
        self.ids = self._index.ids[rows]
        self._shards: dict[int, np.ndarray] = {}

    def split(self, name: str) -> Self:
        """The images of the split `name`: train, val, test, or excluded (from all three, as twins of others)."""
        if name not in packs.SPLITS:
            raise ValueError(f"no split {name!r}: there are {', '.join(packs.SPLITS)}")
        part = object.__new__(type(self))
        part.__dict__ |= self.__dict__
        part._select(self._rows[self._index.splits[self._rows] == packs.SPLITS.index(name)])
        return part

    def path(self, i: int) -> str:
        """Where image `i` came from, below data/raw."""
        return self._index.paths[self._rows[i]]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Image `i`, a fresh uint8 (H, W, C), and its label."""
        images, labels = self._gather(np.array([range(len(self))[i]]))
        return images[0], int(labels[0])

    def batches(
        self,
        size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        augment: Augment | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Iterate once over all images.

        Args:
            size: images a batch; the last may have fewer.
            shuffle: in an order that depends on (seed, epoch) alone; else in the pack's order.
            seed: of the shuffle.
            epoch: of the shuffle and of the augmentation.
            augment: applied to each image; None for the pixels as packed.
            drop_last: leave out a last batch of fewer images.

        Yields:
            Images, uint8 (n, H, W, C), and labels, int64 (n,); fresh arrays.
        """
        if size < 1:
            raise ValueError(f"a batch needs at least 1 image, not {size}")
        order = np.arange(len(self))
        if shuffle:
            order = np.random.default_rng((seed, epoch)).permutation(order)
        for start in range(0, len(order) - (size - 1 if drop_last else 0), size):
            chosen = order[start : start + size]
            images, labels = self._gather(chosen)
            if augment:
                for row, i in enumerate(chosen):
                    images[row] = augment(images[row], self.ids[i].tobytes(), epoch)
            yield images, labels

    def _gather(self, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Copy the chosen images out of their shards."""
        images = np.empty((len(chosen), *self.shape), np.uint8)
        rows = self._rows[chosen]
        shards = np.searchsorted(self._index.shard_starts, rows, "right") - 1
        for i, (shard, row) in enumerate(
            zip(shards.tolist(), (rows - self._index.shard_starts[shards]).tolist(), strict=True)
        ):
            images[i] = self._pixels(shard)[row]
        return images, self.labels[chosen]

    def _pixels(self, shard: int) -> np.ndarray:
        """A shard's pixels, checked and mapped into memory on first use."""
        if shard not in self._shards:
            path = self._shard_path(self._index.shard_names[shard])
            self._shards[shard] = packs.open_shard(path, self._index, shard)
        return self._shards[shard]

    def _shard_path(self, name: str) -> Path:
        return self.folder / packs.SHARDS_NAME / name

    def __getstate__(self) -> dict:
        """Without the mapped shards: another process maps its own."""
        return self.__dict__ | {"_shards": {}}

    def __repr__(self) -> str:
        return f"PackedImages({str(self.folder)!r}): {len(self)} images {self.shape}, {len(self.classes)} classes"
