"""A version of the dataset, a git revision or the workspace: its images, splits and settings, without pulling the data.

From a clone without data come over the network, once, the manifest and dataset.h5; raw images when `fetch` names them.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import polars as pl

from imagepack.compare.raw_images import LARGEST, RawImages
from imagepack.dvc.cache import md5
from imagepack.dvc.download_cache import DownloadCache, user_folder
from imagepack.dvc.lock_files import LOCK, Entry, Stage, read_lock
from imagepack.dvc.revision_files import RevisionFiles
from imagepack.dvc.revision_pipeline import PIPELINE, RevisionPipeline, Unreadable
from imagepack.errors import InputError
from imagepack.images.manifest import COLUMN, FACTS, predicted
from imagepack.images.raw_files import is_zip
from imagepack.reader import format as packs
from imagepack.reader.format import PackError

WORKSPACE = "workspace"
REQUIREMENTS = "requirements.lock"
MANIFEST_NAME = "manifest.parquet"
STAGES = ("validate", "preprocess", "pack")
"""Which decide what images a version has, and in which splits."""
UNUSED = {"mode", "kind", "frames", "signature"}
COLUMNS = {name: dtype for name, dtype in FACTS.items() if name not in UNUSED} | {
    "status": pl.String,
    "issues": pl.List(pl.String),
    "seen": pl.List(pl.String),
    "group": pl.String,
}
"""Of the manifest, those that a comparison reads."""
CACHE_BYTES = 50 * 10**9
"""As PackedImages.at: the folder is the same."""
AGAIN = "run `dvc repro`"


@dataclass(frozen=True)
class Pack:
    """What a version's pack consists of.

    Attributes:
        digest: of the pack, hexadecimal.
        shards: file name and size in bytes.
        index_bytes: size of dataset.h5.
    """

    digest: str
    shards: dict[str, int]
    index_bytes: int


@dataclass(frozen=True)
class Version:
    """A version of the dataset.

    Attributes:
        name: as asked for; "workspace".
        revision: hash of the commit; None of the workspace, as are the next two.
        date: of the commit, YYYY-MM-DD.
        subject: first line of the commit's message.
        images: COLUMNS of the manifest, those of tables and of what is predicted, in its order, and split (train, val,
            test, excluded; null where the image is rejected or there is no pack).
        pack: None without one.
        lock: what dvc.lock says of each stage.
        raw_md5: what dvc.lock says of the raw images that were validated; None if it says nothing.
        raw_files: what DVC has where some raw images are in zips: path, md5, bytes, and exact: whether these are known,
            or as many as a zip has on the average. None where the images are the files.
        packages: version by name, as requirements.lock has them.
        warnings: a sentence each, with the fix.
        metrics: by file: number by dotted name; of all files that DVC knows as metrics.
        cached: outs that DVC keeps in its cache and remote; the others are in git.
    """

    name: str
    revision: str | None
    date: str | None
    subject: str | None
    images: pl.DataFrame
    pack: Pack | None
    lock: dict[str, Stage]
    raw_md5: str | None
    packages: dict[str, str]
    warnings: list[str]
    metrics: dict[str, dict[str, float]]
    cached: frozenset[str] = frozenset()
    raw: RawImages | None = field(default=None, repr=False)
    raw_files: pl.DataFrame | None = field(default=None, repr=False)

    @property
    def pack_path(self) -> str | None:
        """The folder of the pack in the repository; None without one."""
        outs = self.lock["pack"].outs if "pack" in self.lock else ()
        return next((out.path for out in outs if out.md5.endswith(".dir")), None)

    def fetch(self, paths: Sequence[str], largest: int = LARGEST) -> Iterator[tuple[str, bytes | None, str]]:
        """The bytes of the files of raw images, in order: path, bytes, and why there are none; never an error.

        Args:
            paths: of `images`. The path of a later frame gives the file that it is in.
            largest: bytes; larger files are not fetched.
        """
        if self.raw is None:
            return ((path, None, "the raw images are not known") for path in paths)
        return self.raw.fetch(self.images, paths, largest)


def read(name: str | None, repo: Path) -> Version:
    """Read a version; nothing in the repository is changed, and no lock of DVC taken.

    Args:
        name: a commit, tag, branch or DVC experiment; None for the workspace.
        repo: the repository's folder.

    Raises:
        InputError: it cannot be read; the message says why and what to do.
    """
    if name and ":" in name:  # of a file or folder in a revision, for git
        raise InputError(f"{name!r} is no revision: name a commit, tag, branch or DVC experiment")
    try:
        return _Reader(name, repo).version()
    except PackError as error:
        raise InputError(str(error)) from None
    except FileNotFoundError as error:  # a stage that runs meanwhile removes its outs first
        raise InputError(
            f"{name or WORKSPACE} changed while it was read ({error}): run again after `dvc repro`"
        ) from None


class _Reader:
    """Reads one version."""

    def __init__(self, name: str | None, repo: Path) -> None:
        self.name, self.files = name or WORKSPACE, DownloadCache(user_folder(), CACHE_BYTES)
        self.dvc = RevisionFiles(name, repo, self.files)
        self.pipeline = RevisionPipeline(self.dvc)
        if not self.pipeline.has_dvc:
            raise InputError(f"{self.name} has no DVC: run `dvc init`, or name the folder of another repository")
        self.folder = self.pipeline.root if name is None else None
        self.fix = AGAIN if name is None else f"check {name} out, run `dvc repro` and commit what it changes"
        try:
            self.stages = self.pipeline.stages
        except Unreadable as error:
            raise InputError(f"{self.name}: DVC cannot read its {PIPELINE} or {LOCK} ({error}): {self.fix}") from None

    def version(self) -> Version:
        manifest = self._manifest()
        path = self._fetched(manifest)
        images = read_manifest(path, manifest.path, self.fix)
        warnings = [*self._inconsistent(), *(self._stale() if self.folder else ())]
        if self.folder and md5(path) != manifest.md5:
            warnings.append(f"{manifest.path} is not the one that {LOCK} names: {AGAIN}, or `dvc checkout`")
        pack, splits = self._pack(images, warnings)
        metrics, faults = self.pipeline.metrics()
        warnings += faults
        raw = self._raw()
        raw_files = self._raw_files(raw, images, warnings) if raw else None
        revision, date, subject = self.pipeline.commit()
        return Version(
            name=self.name,
            revision=revision,
            date=date,
            subject=subject,
            images=images.with_columns(split=splits),
            pack=pack,
            lock=read_lock(self.dvc.read(str(LOCK))),
            raw_md5=(raw.md5 or None) if raw else None,
            packages=self._packages(),
            warnings=warnings,
            metrics=metrics,
            cached=frozenset(out.path for stage in self.stages.values() for out in stage.outs if out.in_cache),
            raw=RawImages(self.dvc, self.files, raw.path, self.pipeline.root / raw.path) if raw else None,
            raw_files=raw_files,
        )

    def _manifest(self) -> Entry:
        """The out of the stage validate."""
        outs = self.stages.get("validate", Stage()).outs
        manifest = next((out for out in outs if PurePosixPath(out.path).name == MANIFEST_NAME), None)
        if manifest is None:
            raise InputError(f"{self.name} has no stage validate that writes {MANIFEST_NAME}: {self.other}")
        if not manifest.md5 and not (self.folder and (self.folder / manifest.path).is_file()):
            raise InputError(f"{self.name} has no {manifest.path}, since {LOCK} does not name it: {self.other}")
        return manifest

    @property
    def other(self) -> str:
        """What to do where there is no manifest."""
        return AGAIN if self.folder else f"name a revision from after the first `dvc repro`, or {self.fix}"

    def _fetched(self, out: Entry) -> Path:
        """Where the manifest is on this machine."""
        if self.folder:
            path = self.folder / out.path
            if not path.is_file():
                raise InputError(f"{out.path} is not there: {AGAIN}, or `dvc pull {out.path}`")
            return path
        if not self.dvc.has(out.path):
            raise InputError(f"{self.name} has no {out.path}: {self.other}")
        found = self.dvc.get(out.path)
        if not out.is_legacy and md5(found) != out.md5:
            raise InputError(f"{found} is damaged: remove it, and run again (or `dvc fetch`)")
        return found

    def _pack(self, images: pl.DataFrame, warnings: list[str]) -> tuple[Pack | None, pl.Series]:
        """The pack, if there is one, and the split of each image."""
        none = pl.repeat(None, len(images), dtype=pl.String, eager=True)
        if (path := self._index_file(warnings)) is None:
            return None, none
        index, digest = packs.read_index(path)
        pack = Pack(digest, dict(zip(index.shard_names, index.shard_bytes.tolist(), strict=True)), path.stat().st_size)
        if (splits := splits_of(images, index)) is None:
            warnings.append(f"the pack holds other images than the manifest, so no image has a split: {self.fix}")
        return pack, none if splits is None else splits

    def _index_file(self, warnings: list[str]) -> Path | None:
        """dataset.h5 on this machine; None where pack has not run."""
        out = next(filter(self.pipeline.is_folder, self.stages.get("pack", Stage()).outs), None)
        if out is None:
            return None
        path = f"{out.path}/{packs.INDEX_NAME}"
        if self.folder:
            if (self.folder / path).is_file():
                return self.folder / path
            warnings.append(f"{path} is not there, so no image has a split: {AGAIN}, or `dvc pull {out.path}`")
            return None
        # after the md5 of the whole pack's listing, which would have to be fetched to know that of the file
        name = f"{out.md5.removesuffix('.dir')}.{packs.INDEX_NAME}"
        if found := self.files.find(name):
            return found
        if not self.dvc.has(path):
            raise InputError(f"{self.name} has a pack without {path}: {self.fix}")
        return self.dvc.get(path, name)

    def _raw(self) -> Entry | None:
        """The dependency of validate that is a folder of images: the first that its command names."""
        validate = self.stages["validate"]
        deps = (dep for dep in validate.deps if dep not in validate.code and self.pipeline.is_folder(dep))
        return min(deps, key=lambda dep: str(validate.command).find(dep.path), default=None)

    def _raw_files(self, raw: Entry, images: pl.DataFrame, warnings: list[str]) -> pl.DataFrame | None:
        """As Version.raw_files. Where dvc.lock has as many files and bytes as the manifest, no listing is fetched."""
        files = images.filter(pl.col("frame") <= 1)
        if raw.files is None or (raw.files, raw.size) == (len(files), files["bytes"].sum()):
            return None
        try:
            listed = self._listing(raw)
        except PackError as error:
            warnings.append(f"what DVC would move counts images where it should count their zips: {error}")
            return None
        table = pl.DataFrame(list(listed.items()), {"path": pl.String, "md5": pl.String}, orient="row")
        if not any(map(is_zip, table["path"])):
            return None
        table = table.join(files.select("path", "bytes"), on="path", how="left", maintain_order="left")
        here = [self._size(md5) if is_zip(path) else None for path, md5 in table.select("path", "md5").iter_rows()]
        table = table.with_columns(bytes=pl.coalesce(pl.Series(here, dtype=pl.Int64), "bytes"))
        exact = table["bytes"].is_not_null()
        rest = max(0, raw.size - table["bytes"].sum())
        mean = math.ceil(rest / max(1, len(table) - exact.sum()))
        return table.with_columns(pl.col("bytes").fill_null(mean), exact=exact)

    def _listing(self, raw: Entry) -> dict[str, str]:
        """The md5 of each raw file by its path below the folder; kept for the next time."""
        added = self.pipeline.outs.get(raw.path)
        if not added or not added.md5:
            return {}

        def write(part: Path) -> None:
            found = self.dvc.md5s_below(raw.path)
            part.write_text(json.dumps({path.removeprefix(f"{raw.path}/"): md5 for path, md5 in found.items()}))

        kept = self.files.get(f"{added.md5.removesuffix('.dir')}.raw_files.json", write)
        return json.loads(kept.read_text())

    def _size(self, md5: str) -> int | None:
        """Bytes of a file, if it is in the local DVC cache."""
        found = self.dvc.md5_in_dvc_cache(md5)
        return found.stat().st_size if found else None

    def _inconsistent(self) -> Iterator[str]:
        """Where dvc.lock and the .dvc files do not fit together: a stage was run on what is no longer there."""
        others: dict[str, list[str]] = {}
        for name in STAGES:
            for dep in self.stages.get(name, Stage()).deps:
                made = self.pipeline.outs.get(dep.path)
                if dep.md5 and made and made.md5 and (dep.md5, dep.is_legacy) != (made.md5, made.is_legacy):
                    others.setdefault(dep.path, []).append(name)
        for path, names in others.items():
            yield f"{path} has changed since {' and '.join(names)} ran: {self.fix}"

    def _stale(self) -> Iterator[str]:
        """What has changed in the workspace since dvc.lock was written; of folders, in that of the raw images alone."""
        names = [name for name in STAGES if name in self.stages]
        for name in self.pipeline.changed_commands(names):
            yield f"{name} has another command in {PIPELINE} than in {LOCK}: {AGAIN}"
        if changed := self.pipeline.changed_files(names):
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            yield f"{', '.join(changed[:3])}{more} changed since the last `dvc repro`: {AGAIN}"
        raw = self._raw()
        if raw and self.pipeline.has_changed(raw.path):
            yield f"{raw.path} has changed since the last `dvc add`: run `dvc add {raw.path}`, then `dvc repro`"

    def _packages(self) -> dict[str, str]:
        """As pinned; where several versions of one are, for several systems, all of them."""
        found: dict[str, list[str]] = {}
        text = (self.dvc.read(REQUIREMENTS) or b"").decode("utf-8", "replace")
        for package, version in re.findall(r"^([\w.-]+)(?:\[.*\])?\s*==\s*([^\s;\\]+)", text, re.MULTILINE | re.ASCII):
            found.setdefault(package, []).append(version)
        return {package: " or ".join(dict.fromkeys(versions)) for package, versions in found.items()}


def read_manifest(path: Path, where: str, fix: str) -> pl.DataFrame:
    """COLUMNS of a manifest, and those that come from tables; messages call it `where`.

    Raises:
        InputError: it is damaged, or lacks a column or has one of another type; says which, and `fix`.
    """
    try:
        schema = pl.read_parquet_schema(path)
        faults = [f"has no {name}" for name in COLUMNS if name not in schema]
        faults += [f"{name} is {schema[name]}, not {dtype}" for name, dtype in COLUMNS.items()
                   if schema.get(name, dtype) != dtype]  # fmt: skip
        if faults:
            raise InputError(f"{where} is of another version of this template ({'; '.join(faults)}): {fix}")
        of_tables = [name for name in schema if name.startswith(COLUMN)]
        return pl.read_parquet(path, columns=[*COLUMNS, *of_tables, *predicted(schema)], glob=False)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{where} is damaged ({str(error).splitlines()[0]}): {fix}") from None


def splits_of(images: pl.DataFrame, index: packs.Index) -> pl.Series | None:
    """The split of each image, by position: a pack holds the accepted images in the manifest's order.

    Args:
        images: the manifest.
        index: of the pack.

    Returns:
        Strings, null of rejected images; None if the pack is not of this manifest.
    """
    accepted = (images["status"] == "accepted").to_numpy()
    ids = images["sha256"].filter(accepted)
    if len(ids) != len(index.ids) or not (ids.str.len_bytes() == 2 * index.ids.shape[1]).all():
        return None
    try:
        packed = bytes.fromhex(ids.str.join("")[0] or "")
    except ValueError:
        return None
    if packed != index.ids.tobytes() or index.splits.max(initial=0) >= len(packs.SPLITS):
        return None
    codes = np.full(len(images), len(packs.SPLITS), np.uint32)
    codes[accepted] = index.splits
    return pl.Series([*packs.SPLITS, None], dtype=pl.String).gather(codes)
