"""PackedImages: a pack as a sequence of (image, label), and as batches for training."""

import functools
import hashlib
import operator
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from imagepack.names import counted
from imagepack.reader import card, order
from imagepack.reader import format as packs
from imagepack.reader.augment import Augment
from imagepack.reader.batches import WINDOW, Batches
from imagepack.reader.columns import Columns
from imagepack.reader.shards import Shards

LABELS = {"class": np.int64, "multilabel": bool, "numbers": np.float32}
"""Data types of labels in memory, by kind."""


class Folder:
    """A pack in a folder of this machine."""

    remote, fetch = False, None

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_index(self, require_shards: bool = True) -> tuple[packs.Index, str]:
        """Return dataset.h5, and the pack's digest.

        Raises:
            PackError: it cannot be read; a shard is missing or of another size, if they are required.
        """
        index, digest = packs.read_index(self.path / packs.INDEX_NAME)
        for name, size in zip(index.shard_names, index.shard_bytes.tolist(), strict=True) if require_shards else ():
            packs.check_size(self.shard(name, size), size)
        return index, digest

    def shard(self, name: str, size: int) -> Path:
        """Return where a shard is."""
        return self.path / packs.SHARDS_NAME / name

    def read_column(self, index: packs.Index, name: str) -> packs.Column:
        """Return a column of dataset.h5."""
        return packs.read_column(self.path / packs.INDEX_NAME, index, name)

    def provenance(self, digest: str) -> dict:
        """Return revision and params, if git knows that this pack is that of the commit which is checked out."""
        from imagepack.dvc import provenance

        return provenance.of_folder(self.path, digest)

    def __repr__(self) -> str:
        return repr(str(self.path))


class PackedImages:
    """The images of a pack, or some of them: index it, take its length, or iterate over batches.

    It may be pickled, forked and shared between threads at any time: each process opens the files for itself, when it
    first reads. So it is a map dataset for PyTorch's DataLoader and a random access source for Grain as it is.

    Attributes:
        label_kind: class: an image has one class; multilabel: several labels; numbers.
        classes: names of the classes, of the labels, or of the numbers.
        shape: (H, W, C) of every image.
        labels: of kind class int64, (N,), positions in `classes`; multilabel bool, (N, C); numbers float32, (N, C).
        targets: what images come with, if `with_target` says nothing else: labels, several of them as float32.
        columns: of tables beside the images, by name; docs/tables.md.
        ids: uint8, (N, 32): sha256 of each image's source file.
        splits: uint8, (N,): positions in imagepack.reader.format.SPLITS.
        index: dataset.h5 of the whole pack, as it is.
        digest: of the whole pack; hexadecimal, equal for two packs if and only if their data is.
        mean, std: float32, (C,): of the train split's pixels, scaled to 0 to 1.
        remote: whether shards are fetched when they are needed; then a shuffle keeps to some of them at a time.
    """

    def __init__(self, folder: str | Path, verify: str = "never") -> None:
        """Open the pack in `folder` (data/packed).

        Args:
            verify: when to compare an image's bytes with its checksum: "never", "first-read" (once) or
                "always". It needs google-crc32c.

        Raises:
            PackError: no pack, another version of the format, a shard that is missing or of the wrong size.
        """
        self._open(Folder(Path(folder).resolve()), verify)

    @classmethod
    def at(
        cls,
        revision: str,
        repo: str | Path = ".",
        path: str = "data/packed",
        *,
        verify: str = "never",
        cache: str | Path | None = None,
        cache_bytes: int = 50 * 10**9,
        remote: bool | None = None,
        trust_remote: bool = False,
    ) -> Self:
        """Open the pack of a git revision, without a checkout or `dvc pull`: labels now, shards when they are needed.

        A shard is read where it lies in the local DVC cache, or fetched once from the DVC remote into a cache.
        It takes DVC (pip install 'dvc[s3]').

        Args:
            revision: a commit, tag, branch or DVC experiment.
            repo: the git repository: a folder, or a URL.
            path: of the pack in the repository.
            verify: as for a folder; what is fetched is compared with its checksum on arrival in any case.
            cache: folder for what is fetched; None for $IMAGEPACK_CACHE or the user's folder for caches.
            cache_bytes: how large it may become; what was not used for longest goes. Give it room for two windows
                of 64 shards.
            remote: whether to shuffle in windows of shards; None if some shard is not in the local DVC cache. Where
                several machines train together, set it, so that all have the same order.
            trust_remote: whether your keys may go to the address that another repository's own .dvc/config names.

        Raises:
            PackError: no such repository, revision or pack, or no way to it; the message says what to do.
        """
        from imagepack.dvc import revision_pack  # only who reads another version needs it
        from imagepack.dvc.download_cache import DownloadCache, user_folder

        files = DownloadCache(Path(cache) if cache else user_folder(), cache_bytes)
        packed = cls.__new__(cls)
        packed._open(revision_pack.RevisionPack(revision, repo, path, files, remote, trust_remote), verify)
        return packed

    def _open(self, source, verify: str) -> None:
        """Take all images of the pack in `source`: a Folder, or what has the same methods."""
        self._source, self._verify, self._target = source, verify, ()
        self.index, self.digest = source.read_index()
        self._shards = Shards(self.index, source.shard, verify, source.fetch)
        self._rows = np.arange(len(self.index.labels), dtype=np.uint32 if len(self.index.labels) < 2**32 else np.int64)
        self.classes, self.shape, self.remote = self.index.classes, self.index.shape, source.remote
        self.label_kind = self.index.kind
        self.mean, self.std = (values.astype(np.float32) for values in (self.index.mean, self.index.std))

    def __getstate__(self) -> dict:
        """Return where the pack is, and which of its images: another process reads the rest by itself."""
        rows = None if np.array_equal(self._rows, np.arange(len(self.index.labels))) else self._rows
        state = {"source": self._source, "verify": self._verify, "digest": self.digest, "rows": rows}
        return state | {"target": self._target}

    def __setstate__(self, state: dict) -> None:
        self._open(state["source"], state["verify"])
        if self.digest != state["digest"]:
            raise packs.PackError(f"the pack in {self._source} has changed since this dataset was made: open it again")
        if state["rows"] is not None:
            self._rows = state["rows"]
        self._target = state["target"]

    @cached_property
    def version(self) -> dict:
        """Which data this is, for a checkpoint: JSON, {"digest": of the pack, "revision": git commit, "params": dict}.

        Revision and params are None where git does not know the pack; params also without PyYAML. Of a pack that came
        by `dvc import`, "repo" is the repository that it came from, and the revision is of that one.
        """
        return {"digest": self.digest} | self._source.provenance(self.digest)

    @cached_property
    def labels(self) -> np.ndarray:
        return self.index.labels[self._rows].astype(LABELS[self.label_kind])

    @property
    def columns(self) -> Columns:
        return Columns(self.index.columns, functools.partial(self._source.read_column, self.index), self._rows)

    @cached_property
    def targets(self) -> np.ndarray:
        return self.columns.targets(self._target) if self._target else self.targets_of(slice(None))

    def targets_of(self, indices: np.ndarray | slice) -> np.ndarray:
        """Return what some images come with: (n,) or (n, K); several labels as float32, which loss functions want."""
        if self._target:
            return self.targets[indices]
        labels = self.labels[indices]
        return labels.astype(np.float32) if self.label_kind == "multilabel" else labels

    def with_target(self, *columns: str) -> Self:
        """Return the same images with columns as what is to be predicted.

        Indexing and batches then return float32: a value of one column of numbers, or true or false as 1 and 0; (K,)
        values of several; and of one column of texts, which may have several labels in a cell (`cat;dog`), (K,) values
        of 0 or 1, in the order of `columns.labels_in`.

        Raises:
            ValueError: other columns, or empty cells.
            KeyError: no such column.
        """
        if not columns:
            raise ValueError("with_target takes the names of columns")
        part = self.subset(np.ones(len(self), bool))
        part._target = columns
        part.targets  # noqa: B018  (what is wrong with them is said now)
        return part

    def where(self, **conditions: object) -> Self:
        """Return the images whose columns meet all conditions: where(site="A", age=lambda age: age > 40).

        Args:
            conditions: a value; several, of which one is enough, as a list, tuple or set; or a function of the column,
                (N,), that returns bool, (N,).
        """
        return self.subset(self.columns.where(conditions))

    @property
    def splits(self) -> np.ndarray:
        return self.index.splits[self._rows]

    @property
    def ids(self) -> np.ndarray:
        return self.index.ids[self._rows]

    def ids_of(self, indices: np.ndarray) -> np.ndarray:
        """Return the ids of some images: uint8, (n, 32)."""
        return self.index.ids[self._rows[indices]]

    def path(self, i: int) -> str:
        """Return where image `i` came from, below data/raw."""
        return self.index.paths[self._rows[i]]

    def label_words(self, i: int) -> list[str]:
        """Return the class of image `i`, its labels, or its numbers with their names, to be shown."""
        label = self.labels[i]
        if self.label_kind == "class":
            return [self.classes[label]]
        if self.label_kind == "multilabel":
            return [name for name, has in zip(self.classes, label, strict=True) if has]
        return [f"{name} {value:.4g}" for name, value in zip(self.classes, label, strict=True)]

    def split(self, name: str) -> Self:
        """Return the images of the split `name`: train, val, test, or excluded (from all three, as twins of others)."""
        if name not in packs.SPLITS:
            raise ValueError(f"no split {name!r}: there are {', '.join(packs.SPLITS)}")
        return self.subset(self.splits == packs.SPLITS.index(name))

    def of_classes(self, *names: str) -> Self:
        """Return the images that have one of these classes or labels; their labels stay as they are."""
        if unknown := [name for name in names if name not in self.classes]:
            raise ValueError(f"no class {', '.join(map(repr, unknown))}: there are {', '.join(self.classes)}")
        return self.subset(np.any([self.has(self.classes.index(name)) for name in names], axis=0))

    def has(self, label: int) -> np.ndarray:
        """Return bool, (N,): which images have the class or label at this position in `classes`.

        Raises:
            ValueError: labels are numbers.
        """
        if self.label_kind == "numbers":
            raise ValueError("what is predicted are numbers, and not classes: choose images by where")
        return self.labels[:, label] if self.label_kind == "multilabel" else self.labels == label

    def fraction(self, share: float, seed: int = 0) -> Self:
        """Return a random share of the images, 0 to 1: each is in it or not by its id, whatever others there are.

        So a larger share has all images of a smaller one with the same seed, and new images change nothing for others.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share is 0 to 1, not {share}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, is {seed}")
        first = np.ascontiguousarray(self.ids[:, 16:24]).view(">u8")[:, 0]  # the split is chosen by bytes 0 to 7
        return self.subset(order.uniform(first, order.key(seed)) < share)

    def subset(self, which: np.ndarray | Sequence[int]) -> Self:
        """Return some of the images: a bool for each, or their positions, in the order they are to have."""
        part = object.__new__(type(self))  # not a copy, which would open the pack once more
        own = ("labels", "targets", "selection_digest")
        part.__dict__ |= {name: value for name, value in self.__dict__.items() if name not in own}
        part._rows = self._rows[self._positions(which)]
        return part

    def _positions(self, indices: np.ndarray | Sequence[int]) -> np.ndarray:
        """Return int64, (n,), 0 to N - 1, from positions (negative ones count from the end) or a bool for each image.

        Raises:
            IndexError: out of range, or a mask of another length.
            TypeError: neither whole numbers nor bools.
        """
        indices = np.asarray(indices)
        if indices.dtype == bool:
            if indices.shape != (len(self),):
                raise IndexError(f"a mask must have {len(self)} values, one an image, not {indices.shape}")
            return np.flatnonzero(indices)
        if indices.ndim != 1 or (len(indices) and indices.dtype.kind not in "iu"):
            raise TypeError(f"positions must be a row of whole numbers, not {indices.dtype} {indices.shape}")
        if len(indices) and not -len(self) <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"indices {indices.min()} to {indices.max()} of a dataset of {len(self)} images")
        indices = indices.astype(np.int64)
        return np.where(indices < 0, indices + len(self), indices)

    @cached_property
    def selection_digest(self) -> str:
        """Return a digest, hexadecimal, of the pack and of which of its images these are, in which order."""
        chosen = hashlib.sha256(self.digest.encode())
        chosen.update(self._rows.astype("<i8"))
        return chosen.hexdigest()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        """Return image `i`, a fresh uint8 (H, W, C), and its label, or what `with_target` has chosen."""
        try:
            position = operator.index(i)
        except TypeError:
            raise TypeError(f"an index is a whole number, not {i!r}: take and subset have several") from None
        return self.__getitems__([position])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[np.ndarray, int]]:
        """Return several at once, which DataLoader asks for: the same as one by one, and faster."""
        positions = self._positions(indices)
        targets = self.targets_of(positions)
        # classes as Python's own, as default collate functions want them; of a Python float they would make float64
        return list(zip(self.take(positions), targets.tolist() if targets.dtype.kind == "i" else targets, strict=True))

    def take(self, indices: np.ndarray | Sequence[int], out: np.ndarray | None = None) -> np.ndarray:
        """Copy images out of the shards, once.

        Args:
            indices: (n,), positions in this dataset, in any order; or a bool for each image.
            out: uint8, (n, H, W, C), contiguous, to be filled and returned; fresh if None.

        Raises:
            IndexError: out of range.
            ValueError: `out` is of another shape or type.
            PackError: a shard is missing or damaged.
        """
        rows = self._rows[self._positions(indices)]
        shape = (len(rows), *self.shape)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or not (out.flags.c_contiguous and out.flags.writeable):
            raise ValueError(f"out must be writeable, contiguous uint8 {shape}, is {out.dtype} {out.shape}")
        self._shards.read(rows, out)
        return out

    def files(self, indices: np.ndarray | Sequence[int]) -> list[bytes]:
        """Return images as the files that the shards hold, of a pack whose encoding is png or jpeg.

        Raises:
            ValueError: the encoding is raw.
            PackError: a shard is missing or damaged.
        """
        if self.index.encoding == "raw":
            raise ValueError("a raw pack holds pixels and no files: take has them")
        return self._shards.read_files(self._rows[self._positions(indices)])

    def shards_of(self, indices: np.ndarray) -> dict[int, int]:
        """Return the numbers of the shards of some images, in the order of their first use, and an image of each."""
        shards = np.searchsorted(self.index.shard_starts, self._rows[indices], "right") - 1
        found, first = np.unique(shards, return_index=True)
        return {int(found[i]): int(indices[first[i]]) for i in np.argsort(first)}

    def fetch(self, indices: np.ndarray | Sequence[int]) -> None:
        """Bring the shards of some images to this machine, if the pack is that of a revision and they are not here."""
        self._shards.fetch(self._rows[self._positions(indices)])

    def batches(
        self,
        size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch: int = 0,
        augment: Augment | None = None,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        weights: np.ndarray | None = None,
        prefetch: int = 2,
        with_positions: bool = False,
    ) -> Batches:
        """Return batches for training; each iteration over them is an epoch.

        Args:
            size: images a batch; the last may have fewer.
            shuffle: in an order that depends on (seed, epoch) alone, and not on rank, world size or batch size; else in
                the pack's order.
            seed: of the shuffle, from 0.
            epoch: that the first iteration is; of the shuffle and of the augmentation.
            augment: applied to each image; None for the pixels as packed.
            drop_last: leave out a last batch of fewer images.
            rank, world_size: this process and how many there are; together they have each image once, and each rank as
                many batches as any other. The last of them is filled up with the first images, if need be.
            weights: float, (N,): draw N images an epoch, with replacement, each with a probability in proportion.
            prefetch: batches made ahead, by up to as many threads as there are cores (where images are only copied, one
                is left to the caller); 0 for none, and no threads.
            with_positions: give with each batch where its images stand in this dataset, int64 (n,), for `path`, `ids`,
                `columns` and tables of your own.
        """
        if shuffle and weights is None and self.remote and self.bounds() is not None:
            from imagepack.dvc import revision_pack

            revision_pack.warn_of_windows(repr(self._source), WINDOW)
        return Batches(
            self,
            size,
            shuffle=shuffle,
            seed=seed,
            epoch=epoch,
            augment=augment,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            weights=weights,
            prefetch=prefetch,
            with_positions=with_positions,
        )

    def class_weights(self) -> np.ndarray:
        """Return float64, (N,), for `batches(weights=...)`: each class is drawn as often as any other.

        Raises:
            ValueError: images have several labels, for which there is `pos_weight`, or numbers.
        """
        if self.label_kind != "class":
            other = ": pos_weight() weights several labels" * (self.label_kind == "multilabel")
            raise ValueError(
                f"class_weights are of one class an image, and labels are of kind {self.label_kind}{other}"
            )
        return 1 / np.bincount(self.labels, minlength=len(self.classes))[self.labels]

    def pos_weight(self) -> np.ndarray:
        """Return float32, (C,), for PyTorch's BCEWithLogitsLoss: of each label, images without by images with it.

        A label that none or all of these images have gets 1.

        Raises:
            ValueError: an image has one class, for which there is `class_weights`, or numbers.
        """
        if self.label_kind != "multilabel":
            other = ": class_weights() weights classes" * (self.label_kind == "class")
            raise ValueError(f"pos_weight is of several labels, and labels are of kind {self.label_kind}{other}")
        having = self.labels.sum(0)
        without = len(self) - having
        return np.where((having > 0) & (without > 0), without / np.maximum(having, 1), 1).astype(np.float32)

    def bounds(self) -> np.ndarray | None:
        """Return int64, (S + 1,): where each shard's images begin; None if these are not in the pack's order."""
        in_order = (self._rows[1:] > self._rows[:-1]).all()
        return np.searchsorted(self._rows, self.index.shard_starts) if in_order else None

    def _repr_html_(self) -> str:
        """Return what notebooks show."""
        return card.html(self)

    def __repr__(self) -> str:
        what = {"class": "class", "multilabel": "label", "numbers": "number"}[self.label_kind]
        images, classes = counted(len(self), "image"), counted(len(self.classes), what)
        return f"PackedImages({self._source!r}): {images} {self.shape}, {classes}"
