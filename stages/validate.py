"""Validate: decode every raw file in full, find duplicates, list what is wrong with each image.

    python -m stages.validate data/raw data/validated/manifest.parquet reports

Nothing in data/raw is changed. To add a check, see CONTRIBUTING.md.
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path, PurePosixPath

import polars as pl
from pathspec import GitIgnoreSpec

from stages.params import Validate
from stages.toolkit import images, validation_reports, workers
from stages.toolkit import manifest as manifests
from stages.toolkit.errors import InputError
from stages.toolkit.stage import run_stage

FIXES = {  # every code that this stage can give an image, and what to do about it
    "no_label": "move it into a folder named after its class",
    "bad_name": "rename it: a name must be valid UTF-8 and leave room for .png behind it",
    "unreadable": "check that it is a file and may be read, or copy it again",
    "empty_file": "copy or download it again",
    "not_image": "remove it, or copy or download it again",
    "unsupported_format": "convert it to 8- or 16-bit JPEG, PNG, BMP, GIF, TIFF or WebP",
    "bomb": "shrink it, or raise validate.max_pixels",
    "truncated": "copy or download it again: its end is missing",
    "decode_error": "copy or download it again: its content is damaged",
    "jpeg_damage": "copy or download it again: part of the picture is wrong, though most viewers do not say so",
    "decoder_crash": "remove it: it killed the process that decoded it",
    "timeout": "remove it, or raise validate.timeout",
    "resource_limit": "shrink it, or raise validate.memory_mib",
    "extension_mismatch": "rename it to the extension of its format",
    "too_small": "replace it with a larger one, or lower validate.min_side",
    "exact_duplicate": "remove one of the two",
    "label_conflict": "keep it in the one class where it belongs",
}
UNKNOWN = ("", "", 0, 0, 1)
"""Format, mode, width, height and orientation of what cannot be decoded."""
LONGEST_NAME = 255 - len(".png")
"""Bytes; file systems take 255, and preprocess adds an extension."""
Finding = tuple[str, str, str]
"""Path, code, what was seen."""


def validate(raw: Path, manifest: Path, reports: Path, params: Validate) -> str:
    """Check every file under `raw`; write the manifest and the reports; return a summary line.

    Raises:
        InputError: no files; or, once the reports are written, no accepted image or a class without one.
    """
    paths, ignored = find_files(raw)
    if not paths:
        raise InputError(f"{raw} holds no files: put your images into {raw}/CLASS/ and run again")
    table, findings = check_all(raw, paths, params)
    table = manifests.in_order(table)
    levels = dict.fromkeys(FIXES, "error") | params.levels.model_dump()
    findings += same_bytes(table, {path for path, code, _ in findings if levels[code] == "error"})
    table, findings = settle(table, findings, levels)
    manifests.write(table, manifest)
    validation_reports.write(table, findings, FIXES, reports)
    validation_reports.require_every_class(table, findings, reports / "rejected.csv")
    counts = dict(table["status"].value_counts().iter_rows())
    left_out = f"; {ignored} more left out by .dvcignore" if ignored else ""
    return (
        f"{len(table)} files in {table['label'].n_unique()} classes: {counts['accepted']} accepted, "
        f"{counts.get('rejected', 0)} rejected (see {reports / 'rejected.csv'}){left_out}"
    )


def find_files(raw: Path) -> tuple[list[str], int]:
    """Every file under `raw` that DVC tracks, relative to it, with `/`, in a fixed order; and how many it ignores.

    A folder that is a link counts as a file.
    """
    rules = Path(".dvcignore")
    ignore = GitIgnoreSpec.from_lines(rules.read_text(encoding="utf-8").splitlines() if rules.exists() else [])
    found, ignored = [], 0
    for folder, folders, names in os.walk(raw, onerror=_refuse):
        folders.sort()
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for name in sorted(names + links):
            path = Path(folder, name)
            if ignore.match_file(path.as_posix()):
                ignored += 1
            else:
                found.append(path.relative_to(raw).as_posix())
    return found, ignored


def _refuse(error: OSError) -> None:
    """A folder that cannot be listed would otherwise be passed over in silence."""
    if not isinstance(error, FileNotFoundError):
        raise InputError(f"{error.filename} cannot be read ({error.strerror}): check its permissions")


def check_all(raw: Path, paths: list[str], params: Validate) -> tuple[pl.DataFrame, list[Finding]]:
    """Check each file by itself, in worker processes; the manifest's facts and the findings."""
    frames, findings = [], []
    results = workers.map_in_order(
        partial(check_files, raw, params),
        workers.groups(paths),
        len(paths),
        "validate",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
        lost=partial(lost_file, raw),
    )
    for rows, found in results:
        frames.append(pl.DataFrame(rows, schema=manifests.FACTS, orient="row"))
        findings += found
    return pl.concat(frames, rechunk=True), findings


def check_files(raw: Path, params: Validate, paths: list[str]) -> tuple[list[tuple], list[Finding]]:
    """Facts, a row a file, and findings; runs in a worker."""
    rows, findings = [], []
    for path in paths:
        row, found = check_file(raw, path, params)
        rows.append(row)
        findings += [(row[0], code, seen) for code, seen in found]
    return rows, findings


def check_file(raw: Path, path: str, params: Validate) -> tuple[tuple, list[tuple[str, str]]]:
    """Read, hash and decode one file, each once; its facts and its findings (code, what was seen)."""
    place, found = _place(raw, path)
    digest, size, content = "", 0, UNKNOWN
    try:
        data = _read(raw / path)
        digest, size = hashlib.sha256(data).hexdigest(), len(data)
        content = _decode(data, params)
        found += _judge(PurePosixPath(path), *content, params)
    except images.Fault as fault:
        found.append((fault.code, fault.seen))
    except MemoryError:
        found.append(("resource_limit", "needs more memory to read than a worker may have"))
    return (*place, digest, size, *content), found


def lost_file(raw: Path, path: str, code: str) -> tuple[list[tuple], list[Finding]]:
    """What `check_files` would return of a file that killed or outlasted its worker: it is not decoded again."""
    place, found = _place(raw, path)
    data = (raw / path).read_bytes()
    seen = {"decoder_crash": "its decoder crashed", "timeout": "took longer than validate.timeout"}[code]
    row = (*place, hashlib.sha256(data).hexdigest(), len(data), *UNKNOWN)
    return [row], [(place[0], *finding) for finding in [*found, (code, seen)]]


def _place(raw: Path, path: str) -> tuple[tuple[str, str, str], list[tuple[str, str]]]:
    """Path, label and batch, and what is wrong with them."""
    readable = os.fsencode(path).decode("utf-8", "backslashreplace")
    *batch, label = PurePosixPath(readable).parts[:-1] or ("",)
    found = []
    if readable != path:
        found.append(("bad_name", "a name that is not valid UTF-8"))
    if (length := len(os.fsencode(PurePosixPath(path).name))) > LONGEST_NAME:
        found.append(("bad_name", f"a name of {length} bytes, more than {LONGEST_NAME}"))
    if not label:
        found.append(("no_label", f"stands directly in {raw}"))
    return (readable, label, "/".join(batch)), found


def _read(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():  # to read a pipe or a device would never end
            raise images.Fault("unreadable", "is not a file")
        data = path.read_bytes()
    except OSError as error:
        raise images.Fault("unreadable", error.strerror or str(error)) from None
    if not data:
        raise images.Fault("empty_file", "0 bytes")
    return data


def _decode(data: bytes, params: Validate) -> tuple[str, str, int, int, int]:
    """Format, mode, width, height and EXIF orientation, of an image that decodes in full."""
    image = images.open_image(data, params.max_pixels)
    images.decode_strictly(image, data)
    return images.format_of(image), image.mode, *image.size, images.orientation(image)


def _judge(
    path: PurePosixPath, form: str, mode: str, width: int, height: int, orientation: int, params: Validate
) -> Iterator[tuple[str, str]]:
    """Findings about an image that decodes: this is the place for checks of your own."""
    if path.suffix.lower() not in images.EXTENSIONS[form]:
        yield "extension_mismatch", f"is {form}"
    if min(width, height) < params.min_side:
        yield "too_small", f"{width} x {height} pixels"


def same_bytes(table: pl.DataFrame, rejected: set[str]) -> list[Finding]:
    """Duplicates: under several labels all of them; under one label all but the first.

    Args:
        table: the facts, in the manifest's order.
        rejected: paths of files that have an error already; one of these is not what is kept, if there is another.
    """
    twins = table.filter(pl.col("sha256").is_duplicated() & (pl.col("format") != "") & (pl.col("label") != ""))
    groups = defaultdict(list)
    for digest, path, label in twins.select("sha256", "path", "label").iter_rows():
        groups[digest].append((path, label))
    findings = []
    for group in groups.values():
        (first, its_label), *rest = sorted(group, key=lambda twin: twin[0] in rejected)
        other = next((path for path, label in rest if label != its_label), None)
        if other:
            findings.append((first, "label_conflict", f"same bytes as {other}"))
        code = "label_conflict" if other else "exact_duplicate"
        findings += [(path, code, f"same bytes as {first}") for path, _ in rest]
    return findings


def settle(table: pl.DataFrame, findings: list[Finding], levels: dict[str, str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give each finding its level, leave out the ignored ones, and reject the images that have an error."""
    found = pl.DataFrame(findings, schema={"path": pl.String, "code": pl.String, "seen": pl.String}, orient="row")
    found = found.with_columns(level=pl.col("code").replace_strict(levels, return_dtype=pl.String))
    found = found.filter(pl.col("level") != "ignore")
    status = pl.when((pl.col("level") == "error").any()).then(pl.lit("rejected")).otherwise(pl.lit("accepted"))
    by_image = found.group_by("path", maintain_order=True).agg(status=status, issues="code", seen="seen")
    table = table.join(by_image, on="path", how="left", maintain_order="left")
    return table.with_columns(pl.col("status").fill_null("accepted"), pl.col("issues", "seen").fill_null([])), found


if __name__ == "__main__":
    run_stage(validate)
