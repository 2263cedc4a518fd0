"""What lies behind a difference: params, code, packages and commands; the bytes it moves; the metrics it led to."""

import math
from collections.abc import Iterator

import polars as pl

from imagepack.compare.versions import REQUIREMENTS, Version
from imagepack.dvc.lock_files import Entry, Stage
from imagepack.images.manifest import COLUMN
from imagepack.reader.format import INDEX_NAME

STAGE_ORDER = ("validate", "preprocess", "pack", "preview")


def pipeline(a: Version, b: Version) -> dict:
    """What the two runs of the pipeline had different, from their dvc.lock."""
    raw_changed = None if a.raw_md5 is None or b.raw_md5 is None else a.raw_md5 != b.raw_md5
    refiled = bool(raw_changed) and _same_images(a, b)
    packed_changed = None if a.pack is None or b.pack is None else a.pack.digest != b.pack.digest
    stages = list(_stages(a.lock, b.lock))
    names = sorted(a.packages.keys() | b.packages.keys())
    packages = [
        {"package": name, "a": a.packages.get(name), "b": b.packages.get(name)}
        for name in names
        if a.packages.get(name) != b.packages.get(name)
    ]
    return {
        "raw_changed": raw_changed,
        "packed_changed": packed_changed,
        "stages": stages,
        "packages": packages,
        "explanation": [
            *(["No raw image differs, only the files that they are in: zips or others."] if refiled else []),
            *_explain(False if refiled else raw_changed, packed_changed, stages, packages),
        ],
    }


def _same_images(a: Version, b: Version) -> bool:
    """Whether the raw images have the same paths, bytes, labels and cells, whatever files they are in."""
    sides = []
    for version in (a, b):
        said = [name for name in version.images.columns if name.startswith(COLUMN)]
        files = version.images.filter(pl.col("frame") <= 1)
        sides.append(files.select("path", "sha256", "label", *sorted(said)).sort("path"))
    return sides[0].equals(sides[1])


def _stages(a: dict[str, Stage], b: dict[str, Stage]) -> Iterator[dict]:
    """Each stage that differs: its params, code, command, data."""
    names = sorted(a.keys() | b.keys(), key=lambda name: (name not in STAGE_ORDER, *_position(name), name))
    for name in names:
        one, other = a.get(name, Stage()), b.get(name, Stage())
        params = _params(one), _params(other)
        files = {
            path: (_files(one).get(path), _files(other).get(path))
            for path in sorted(_files(one).keys() | _files(other))
        }
        code = _code(one).keys() | _code(other)
        different = [path for path, (was, now) in files.items() if was != now and path != REQUIREMENTS]
        found = {
            "stage": name,
            "params": [
                {"param": key, "a": params[0].get(key), "b": params[1].get(key)}
                for key in sorted(params[0].keys() | params[1].keys())
                if params[0].get(key) != params[1].get(key)
            ],
            "code": [path for path in different if path in code],
            "command": one.command != other.command,
            "data": [path for path in different if path not in code],
        }
        if any(value for key, value in found.items() if key != "stage"):
            yield found


def _position(name: str) -> tuple[int, ...]:
    return (STAGE_ORDER.index(name),) if name in STAGE_ORDER else ()


def _files(stage: Stage) -> dict[str, str]:
    """The hash of each dependency and output."""
    return {entry.path: entry.md5 for entry in stage.deps + stage.outs}


def _params(stage: Stage) -> dict:
    """By dotted name, flat."""
    flat = {}
    for file in stage.params.values():
        flat |= dict(_flatten(file))
    return flat


def _flatten(tree: dict, above: str = "") -> Iterator[tuple[str, object]]:
    for key, value in tree.items():
        name = f"{above}{key}"
        if isinstance(value, dict):
            yield from _flatten(value, f"{name}.")
        else:
            yield name, _plain(value)


def _plain(value: object) -> object:
    """As JSON has it: not a number and infinite are none of its numbers."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _explain(raw: bool | None, packed: bool | None, stages: list[dict], packages: list[dict]) -> Iterator[str]:
    """Why the packs differ, in sentences."""
    reasons = []
    for stage in stages:
        reasons += [f"{each['param']} is {each['b']!r} instead of {each['a']!r}" for each in stage["params"]]
        reasons += [f"{path} differs" for path in stage["code"]]
        reasons += [f"the command of {stage['stage']} differs"] * stage["command"]
    reasons += [f"{each['package']} {each['b']} instead of {each['a']}" for each in packages]
    reasons = list(dict.fromkeys(reasons))
    because = f": {'; '.join(reasons)}" if reasons else ""
    if packed and raw is False:
        yield f"The packs differ though no raw image does{because or ': nothing is recorded that explains it'}."
    elif packed and reasons:
        yield f"The packs differ by more than the raw images{because}."
    elif packed is False and raw:
        yield "The raw images differ, the packs do not: what changed was rejected, or is not in them."
    elif packed is False and reasons:
        yield f"The packs are the same, though{because[1:]}."
    elif reasons:
        yield f"The pipeline differs{because}."


def transfer(here: Version, there: Version) -> dict:
    """What a machine that has `here` is sent to have `there` too, in files and bytes.

    Raw files and packs are counted by what they hold. Of the processed images only their number and sum is known:
    where the same pipeline made them, those of images that `here` lacks are taken for as large as the average. DVC's
    lists of folders count too.
    """
    parts = [_raw(here, there), _processed(here, there), _packed(here, there), _reports(here, there)]
    parts = [part for part in parts if part["files"]]
    return {
        "files": sum(part["files"] for part in parts),
        "bytes": sum(part["bytes"] for part in parts),
        "estimated": any(part["estimated"] for part in parts),
        "parts": parts,
    }


def _part(name: str, files: int, size: int, estimated: bool = False) -> dict:
    return {"part": name, "files": files, "bytes": size, "estimated": estimated}


LISTING_ENTRY = len('{"md5": "", "relpath": ""}, ') + 32
"""Bytes of an entry in DVC's list of a folder, which is a file of its own in the remote, but for the path."""


def _listing(paths: pl.Series, ending: str = "") -> int:
    """Bytes of DVC's list of a folder with these files."""
    return len(paths) * (LISTING_ENTRY + len(ending)) + int(paths.str.len_bytes().sum())


def _out(version: Version, stage: str) -> Entry:
    """What dvc.lock says of a stage's first output."""
    return next(iter(version.lock.get(stage, Stage()).outs), Entry(""))


def _raw(here: Version, there: Version) -> dict:
    files = _raw_files(there)
    new = files.filter(pl.col("hash") != "").join(_raw_files(here), on="hash", how="anti").unique("hash")
    listed = there.raw_md5 is not None and there.raw_md5 != here.raw_md5
    size = int(new["bytes"].sum()) + listed * _listing(files["path"])
    return _part("raw images", len(new) + listed, size, estimated=not new["exact"].all())


def _raw_files(version: Version) -> pl.DataFrame:
    """What DVC has of the raw images, zips where they are in some: path, hash (of zips another), bytes, exact."""
    images = version.images.filter(pl.col("frame") <= 1).select("path", "bytes", hash="sha256", exact=True)
    if version.raw_files is None:
        return images
    loose = images.join(version.raw_files, on="path", how="semi")
    zips = version.raw_files.join(loose, on="path", how="anti").select("path", "bytes", "exact", hash="md5")
    return pl.concat([loose, zips], how="diagonal")


def _processed(here: Version, there: Version) -> dict:
    was, now = (version.lock.get("preprocess", Stage()) for version in (here, there))
    out = _out(there, "preprocess")
    files, size = out.files, out.size
    if out.md5 == _out(here, "preprocess").md5 or not files:
        return _part("processed images", 0, 0)
    accepted = [version.images.filter(pl.col("status") == "accepted") for version in (there, here)]
    listing = _listing(accepted[0]["path"], ".png")
    if (_params(was), _code(was)) != (_params(now), _code(now)):  # some may come out the same
        return _part("processed images", files + 1, size + listing, estimated=True)
    key = ["sha256", "frame"]
    there_, here_ = (images.select(key).unique() for images in accepted)
    new = len(there_.join(here_, on=key, how="anti"))
    return _part("processed images", new + 1, math.ceil(size / files * new) + listing, estimated=True)


def _code(stage: Stage) -> dict[str, str]:
    """What the stage was made with: the hash of each folder or file of code, and of the lock."""
    return {dep.path: dep.md5 for dep in stage.code}


def _packed(here: Version, there: Version) -> dict:
    if there.pack is None:  # it is not here to be looked at
        out = _out(there, "pack")
        if not out.files or out.md5 == _out(here, "pack").md5:
            return _part("packs", 0, 0)
        return _part("packs", out.files + 1, out.size, estimated=True)
    if here.pack and here.pack.digest == there.pack.digest:
        return _part("packs", 0, 0)
    has = here.pack.shards if here.pack else {}
    new = [size for name, size in there.pack.shards.items() if name not in has]
    listing = _listing(pl.Series([f"shards/{name}" for name in there.pack.shards] + [INDEX_NAME]))
    return _part("packs", len(new) + 2, sum(new) + there.pack.index_bytes + listing)


def _reports(here: Version, there: Version) -> dict:
    """What validate and preview write beside. Of a folder it is not known which of its files are new."""

    def outs(version: Version) -> dict[str, Entry]:
        return {out.path: out for name in ("validate", "preview") for out in version.lock.get(name, Stage()).outs}

    was, now = outs(here), outs(there)
    new = [out for path, out in now.items() if path in there.cached and out.md5 != was.get(path, Entry("")).md5]
    folders = [out for out in new if out.files is not None]
    files = len(new) + sum(out.files for out in folders)
    return _part("manifest and reports", files, sum(out.size for out in new), estimated=bool(folders))


def metrics(a: Version, b: Version) -> list[dict]:
    """Every number of every metrics file, side by side; null where a version lacks it."""
    found = []
    for file in sorted(a.metrics.keys() | b.metrics.keys()):
        was, now = a.metrics.get(file, {}), b.metrics.get(file, {})
        found += [
            {"file": file, "metric": name, "a": _plain(was.get(name)), "b": _plain(now.get(name))}
            for name in sorted(was.keys() | now)
        ]
    return found
