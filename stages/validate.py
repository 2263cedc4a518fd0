"""Validate: decode every raw file in full, find duplicates, list what is wrong with each image.

    python -m stages.validate data/raw data/acknowledged.csv data/validated/manifest.parquet reports

Nothing in data/raw is changed. To add a check, see CONTRIBUTING.md.
"""

import json
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import polars as pl

from imagepack.checks import duplicates, examination, gate, validation_page, validation_reports
from imagepack.checks.appearance import SIGNATURE_BYTES, Appearance
from imagepack.checks.examination import Examination, Limits, Seen, examine
from imagepack.engine import workers
from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo, Memoised, NotMemoised
from imagepack.engine.params import Level, Levels, Validate
from imagepack.engine.stage import run_stage
from imagepack.errors import InputError
from imagepack.images import decode, raw_files
from imagepack.images import manifest as manifests
from imagepack.images.decode import Content
from imagepack.images.raw_files import RawFile

LIBRARIES = ("pillow", "numpy", "simplejpeg", "xxhash", "pillow-heif", "pillow-jxl-plugin")
"""Packages on which the results depend: the memo forgets them when another version is installed."""
FIXES = {  # every code that this stage can give, and what to do about it
    "no_label": "move it into a folder named after its class",
    "bad_name": "rename it: a name must be valid UTF-8 and leave room for .png behind it",
    "non_portable_name": "rename it before someone works on Windows",
    "name_collision": "rename one: Windows and macOS keep only one of the two",
    "outside_link": "put the image itself here: DVC stores what the link leads to today",
    "unreadable": "check that it is a file and may be read, or copy it again; in a zip: unpack it, or zip it anew "
    "without a password, by deflate",
    "empty_file": "copy or download it again",
    "junk": "remove it: the system or a program left it there",
    "not_image": "remove it, or copy or download it again; unpack a zip",
    "unsupported_format": "convert it to 8- or 16-bit JPEG, PNG, BMP, GIF, TIFF, WebP or AVIF, or install the "
    "extra that reads it (docs/output.md, More formats)",
    "unsupported_variant": "save it as an ordinary 8- or 16-bit file of its format",
    "bomb": "shrink it, or raise validate.max_pixels",
    "truncated": "copy or download it again: its end is missing",
    "decode_error": "copy or download it again: its content is damaged",
    "jpeg_damage": "copy or download it again: part of the picture is wrong, though most viewers do not say so",
    "damaged_header": "save it again: the picture is whole, its colour profile or what stands around it is not",
    "later_frame_error": "copy or download it again, or save its first frame alone",
    "decoder_crash": "remove it: it killed the process that decoded it",
    "timeout": "remove it, or raise validate.timeout",
    "resource_limit": "shrink it, or raise validate.memory_mib",
    "extension_mismatch": "rename it to the extension of its format",
    "trailing_bytes": "save it again, unless you know what stands behind the image",
    "missing_end_marker": "save it again: its pixels are all there, its end marker is not",
    "private_metadata": "remove it: python3 run.py strip; or leave it, if all who get the data may know it",
    "extra_bands": "save its colours alone, or with a tag that says what the others are (ExtraSamples)",
    "unused_range": "multiply its values, so that white is 65535; if it is as dark as that, lower "
    "validate.levels.unused_range",
    "reduced_depth": "nothing, if 8 bits are enough: preprocess scales to them",
    "multi_frame": "see that validate.multi_frame is what you want: first, error or split",
    "too_small": "replace it with a larger one, or lower validate.min_side",
    "too_large": "shrink it, or raise validate.max_side",
    "aspect": "crop it, or raise validate.max_aspect",
    "uniform": "remove it: it shows one tone",
    "dark": "remove it if nothing can be seen, or lower validate.dark",
    "bright": "remove it if nothing can be seen, or raise validate.bright",
    "low_information": "look at it: it has hardly more than one tone",
    "blurry": "look at it: it may be out of focus",
    "mode_mix": "see that preprocess treats it as you want: most others are stored otherwise",
    "exif_orientation": "nothing: preprocess turns it upright; look whether its tag is right",
    "exact_duplicate": "remove one of the two",
    "pixel_duplicate": "remove one of the two",
    "near_duplicate": "remove one of the two, or leave both: they never stand in different splits",
    "label_conflict": "keep it in the one class where it belongs",
    "similar_labels": "see that both labels are right; if images that differ look alike here, lower "
    "validate.near_distance",
    "class_too_small": "add images, or lower validate.min_class_images",
    "class_imbalance": "add images, weight the classes in training, or raise validate.max_class_ratio",
}
KEEPABLE = {code for code, key in Levels.model_fields.items() if key.annotation is Level} - {"jpeg_damage"} | {
    "multi_frame"
}
"""Codes in spite of which data/acknowledged.csv may keep an image: those with a level, so its pixels can be used. Only
the level of jpeg_damage lets damaged JPEGs in, since it decides how they are decoded."""
LEAST_WHITE = 1 << 14
"""Of 16 bits: a camera or scanner of 10, 12 or 14 bits whose values were not scaled has none as large."""
LARGE_GROUP = 100
"""Images; a group as large is mostly a film or a series, of which one would choose a few."""
FEW = 5
"""Lines of data/acknowledged.csv that the summary names."""
Finding = tuple[str, str, str, str]
"""Path, code, what was seen, and the path of another image that it is about, or an empty text."""


def validate(
    raw: Input, acknowledged: Input, manifest: Path, reports: Path, params: Validate, memo: Memo = NO_MEMO
) -> str:
    """Check every file under `raw`; write the manifest and the reports; return a summary line.

    Raises:
        InputError: no files; a code in `params.fail_on` or a line of `acknowledged` that is none; or, once the reports
            are written, no accepted image, a class without one, or a finding on which `params.fail_on` says to stop and
            which `acknowledged` does not list.
    """
    levels = dict.fromkeys(FIXES, "error") | {"multi_frame": "info"} | params.levels.model_dump()
    levels["multi_frame"] = "error" if params.multi_frame == "error" else "info"
    gate.require_codes(params.fail_on, levels)
    said = gate.read(acknowledged, FIXES, KEEPABLE)
    files, ignored = raw_files.find(raw)
    if not files:
        raise InputError(f"{raw} holds no files: put your images into {raw}/CLASS/ and run again")
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=manifest.parent) as signatures:
        table, findings = check_and_compare(raw, files, params, levels, said, memo, signatures)
    findings = with_classes(table, findings, levels, params)
    manifests.write(table, manifest)
    validation_reports.write(table, findings, FIXES, reports)
    small = thumbnails(raw, files, table, validation_page.pictured(findings), params, decode.THUMBNAIL)
    large = thumbnails(raw, files, table, validation_page.compared(findings), params, validation_page.LARGE)
    validation_page.write(reports / "validation.html", table, findings, FIXES, small, large)
    validation_reports.require_every_class(table, findings, reports / "rejected.csv", FIXES, params)
    gate.stop_on(params.fail_on, table, findings, said, acknowledged)
    counts = dict(table["status"].value_counts().iter_rows())
    classes = table["label"].filter(table["status"] == "accepted").n_unique()
    what = "images" if (table["frame"] > 1).any() else "files"
    left_out = f"; {ignored} more left out by .dvcignore" if ignored else ""
    if (largest := validation_reports.near_duplicates(table)["largest"]) > LARGE_GROUP:
        left_out += f"; {largest} images that look alike form one group, of which one split alone can have any"
    if useless := said.useless(said.kept(table), findings):
        more = f" and {len(useless) - FEW} more" if len(useless) > FEW else ""
        left_out += f"; nothing to keep any more: remove {', '.join(useless[:FEW])}{more} from {acknowledged}"
    return (
        f"{len(table)} {what} in {classes} classes: {counts['accepted']} accepted, "
        f"{counts.get('rejected', 0)} rejected (see {reports / 'validation.html'}){left_out}{memo.summary()}"
    )


def check_and_compare(
    raw: Path,
    files: list[RawFile],
    params: Validate,
    levels: dict[str, str],
    said: gate.Acknowledged,
    memo: Memo,
    signatures: BinaryIO,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Check each file by itself, then against the others; the manifest and the findings about files.

    A function of its own, so that what they were made from is gone while they are written.
    """
    table, found = check_all(raw, files, params, memo, signatures)
    table = manifests.in_order(table)
    found += raw_files.name_collisions(table) + mode_mix(table)
    kept = said.kept(table)
    rejected = {path for path, code, *_ in found if levels[code] == "error" and (path, code) not in kept}
    on_disk = np.memmap(signatures, "u1", "r").reshape(-1, SIGNATURE_BYTES)  # those alone are read that are compared
    twins, edges = duplicates.find(table, on_disk, rejected, params.near_distance)
    table, findings = settle(table.drop("signature"), found + twins, levels, kept)
    return table.with_columns(group=duplicates.groups(table, edges)), findings


def check_all(
    raw: Path, files: list[RawFile], params: Validate, memo: Memo, signatures: BinaryIO
) -> tuple[pl.DataFrame, list[Finding]]:
    """Check each file by itself, in worker processes; the manifest's facts and the findings.

    Signatures, as large as all other facts together and of use for few images, go into a file: (N, SIGNATURE_BYTES).
    """
    findings = []
    results = memo.map_in_order(
        partial(check_files, raw, params, memo.of(encode), memo.of(examine)),
        raw_files.groups(files),
        len(files),
        "validate",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
        lost=partial(lost_file, raw, params),
    )

    def numbered() -> Iterator[tuple]:
        for rows, found in results:
            findings.extend(found)
            for *facts, signature in rows:
                yield *facts, signatures.tell() // SIGNATURE_BYTES
                signatures.write(signature)

    table = manifests.of_rows(numbered())
    signatures.flush()
    return table, findings


@dataclass(frozen=True)
class Checked:
    """What becomes of some files.

    Attributes:
        rows: facts, in the order of manifests.FACTS.
        findings: about them.
        for_now: whether it could come out in another way on another day.
    """

    rows: list[tuple]
    findings: list[Finding]
    for_now: bool


def check_files(
    raw: Path, params: Validate, encoded: Memoised, examine: Memoised, files: list[RawFile]
) -> tuple[list[tuple], list[Finding]]:
    """Facts, a row a file (or a frame, where files are split), and findings; runs in a worker.

    The memo knows them of the files together, since each by itself would have to be looked up and judged again.
    """
    rows, findings = [], []
    for some in raw_files.small_groups(raw, files):
        checked = _check_some(raw, params, encoded, examine, some)
        rows += checked[0]
        findings += checked[1]
    return rows, findings


def _check_some(
    raw: Path, params: Validate, encoded: Memoised, examine: Memoised, files: list[RawFile]
) -> tuple[list[tuple], list[Finding]]:
    """As `check_files`; a function of its own, so that the bytes of these files are gone before others are read."""
    opened = [raw_files.open_one(raw, file, *_reading(params)) for file in files]
    content = repr([params, [(file.place, file.found, file.digest) for file in opened]]).encode()
    check = partial(check_opened, opened, params, examine)
    rows, findings = json.loads(encoded.by_id(content, check, images=len(opened)))
    return [(*facts, bytes.fromhex(signature)) for *facts, signature in rows], list(map(tuple, findings))


def encode(checked: Checked) -> bytes:
    """For the memo."""
    data = json.dumps([checked.rows, checked.findings], default=bytes.hex).encode()
    return NotMemoised(data) if checked.for_now else data


def check_opened(opened: list[raw_files.Opened], params: Validate, examine: Memoised) -> Checked:
    """Decode these files, each once."""
    rows, findings, for_now = [], [], False
    for file in opened:
        checked, unsure = check_file(file, params, examine)
        for row, found in checked:
            rows.append(row)
            findings += [(row[0], code, seen, "") for code, seen in found]
        for_now |= unsure
    return Checked(rows, findings, for_now)


def check_file(
    file: raw_files.Opened, params: Validate, examine: Memoised
) -> tuple[list[tuple[tuple, list[Seen]]], bool]:
    """Decode one file: its facts and its findings (code, what was seen), where params split files also of later frames.

    Returns:
        These, and whether they could come out in another way on another day.
    """
    path, digest, seen = file.place[0], file.digest, Examination()
    if file.data is not None:
        seen = examination.read(examine.by_id(bytes.fromhex(digest), lambda: file.data, _limits(params)))
    judged, unsure = _judged(path, seen.content, seen.look, params)
    found = file.found + seen.damage + judged + seen.ending
    row = _row(file.place, digest, file.size, seen.content, min(seen.frames, 1), seen.frames, seen.look)
    checked = [(row, found)]
    for number, (content, look) in enumerate(seen.later, 2):
        place = (f"{path}#{number}", *file.place[1:])
        row = _row(place, manifests.frame_id(digest, number), file.size, content, number, seen.frames, look)
        of_all = seen.ending[len(seen.ending) - seen.all_frames :]
        judged, failed = _judged(path, content, look, params)
        checked.append((row, judged + of_all))
        unsure |= failed
    return checked, unsure or seen.for_now or not digest


def _reading(params: Validate) -> tuple[int, bool]:
    """The most bytes of a file, and whether its frames become images."""
    return params.memory_mib * 2**20, params.multi_frame == "split"


def _limits(params: Validate) -> Limits:
    """Those params on which it depends how a file is decoded; after a change of others none is decoded again."""
    return Limits(
        max_pixels=params.max_pixels,
        max_frames=params.max_frames,
        split=params.multi_frame == "split",
        strict=params.levels.jpeg_damage == "error",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
    )


def _judged(path: str, content: Content, look: Appearance | None, params: Validate) -> tuple[list[Seen], bool]:
    """Findings about a frame; none of one that does not decode. A check that fails is a finding too, for this run."""
    found, failed = [], False
    try:
        if look:
            found += _judge(PurePosixPath(path), content, look, params)
    except decode.Fault as fault:
        found.append((fault.code, fault.seen))
    except Exception as error:  # noqa: BLE001  (no file may end the run, however odd its pixels are)
        found.append(("decode_error", f"{type(error).__name__}: {error}"[:200]))
        failed = True
    return found, failed


def lost_file(raw: Path, params: Validate, file: RawFile, code: str) -> tuple[list[tuple], list[Finding]]:
    """What `check_files` would return of a file that killed or outlasted its worker: it is not decoded again."""
    seen = {"decoder_crash": "its decoder crashed", "timeout": "took longer than validate.timeout"}[code]
    opened = raw_files.open_one(raw, file, *_reading(params))
    row = _row(opened.place, opened.digest, opened.size, Content(), 0, 0, None)
    return [row], [(row[0], *finding, "") for finding in [*opened.found, (code, seen)]]


def _row(
    place: tuple[str, str, str],
    digest: str,
    size: int,
    content: Content,
    frame: int,
    frames: int,
    look: Appearance | None,
) -> tuple:
    """The facts, in the order of manifests.FACTS, the signature itself last; `look` is None of what does not decode."""
    stored = (content.format, content.mode, content.kind, content.width, content.height, content.orientation)
    numbers = (look.brightness, look.contrast, look.saturation, look.entropy, look.sharpness) if look else [None] * 5
    hashes = (content.pixel_hash, look.perceptual_hash if look else "")
    signature = look.signature if look else bytes(SIGNATURE_BYTES)
    return (*place, digest, size, *stored, frame, frames, *hashes, *numbers, signature)


def _judge(path: PurePosixPath, content: Content, look: Appearance, params: Validate) -> Iterator[tuple[str, str]]:
    """Findings about an image that decodes: this is the place for checks of your own."""
    shorter, longer = sorted((content.width, content.height))
    if path.suffix.lower() not in decode.EXTENSIONS[content.format]:
        yield "extension_mismatch", f"is {content.format}"
    if content.unexplained:
        yield "extra_bands", f"{content.unexplained} of {content.bands} bands: what they are, the file does not say"
    if content.most < LEAST_WHITE:
        yield "unused_range", f"no value is above {content.most} of 65535"
    elif content.bits > 8:
        yield "reduced_depth", f"{content.bits} bits a channel"
    if shorter < params.min_side:
        yield "too_small", f"{content.width} x {content.height} pixels"
    if longer > params.max_side:
        yield "too_large", f"{content.width} x {content.height} pixels"
    if longer > params.max_aspect * shorter:
        yield "aspect", f"{content.width} x {content.height} pixels, sides of 1 : {longer / shorter:.1f}"
    if shorter < params.min_side:
        pass  # too few pixels to say what can be seen in them
    elif look.contrast < params.uniform:
        yield "uniform", f"standard deviation of {look.contrast:.1f} grey levels"
    elif look.brightest < params.dark:
        yield "dark", f"99 % of the pixels are no brighter than {look.brightest} of 255"
    elif look.darkest > params.bright:
        yield "bright", f"99 % of the pixels are at least {look.darkest} of 255"
    elif look.entropy < params.low_information:
        yield "low_information", f"entropy of {look.entropy:.2f} bits"
    elif look.sharpness < params.blurry:
        yield "blurry", f"sharpness of {look.sharpness:.0f}"
    if content.orientation != 1:
        yield "exif_orientation", f"orientation {content.orientation}"


def mode_mix(table: pl.DataFrame) -> list[Finding]:
    """Images that are stored in another way than most."""
    decoded = table.select("path", "kind").filter(pl.col("kind") != "")
    kinds = decoded["kind"].value_counts().sort("count", "kind", descending=[True, False])
    if len(kinds) < 2:
        return []
    most = kinds["kind"][0]
    others = decoded.filter(pl.col("kind") != most)
    return [(path, "mode_mix", f"{kind}; most are {most}", "") for path, kind in others.iter_rows()]


def settle(
    table: pl.DataFrame, findings: list[Finding], levels: dict[str, str], kept: Collection[tuple[str, str]]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give each finding its level, leave out the ignored ones, and reject the images that have an error.

    Args:
        table: the facts.
        findings: about them.
        levels: of each code.
        kept: path and code of errors that reject nothing: they become warnings that say so.
    """
    schema = dict.fromkeys(("path", "code", "seen", "other"), pl.String)
    found = pl.DataFrame(findings, schema=schema, orient="row")
    found = found.with_columns(level=pl.col("code").replace_strict(levels, return_dtype=pl.String))
    found = found.filter(pl.col("level") != "ignore")
    pairs = pl.DataFrame(list(kept), schema=dict.fromkeys(("path", "code"), pl.String), orient="row")
    found = found.join(pairs.with_columns(kept=True), on=["path", "code"], how="left", maintain_order="left")
    spared = pl.col("kept").fill_null(False) & (pl.col("level") == "error")
    found = found.with_columns(
        seen=pl.when(spared).then(pl.col("seen") + gate.KEPT).otherwise("seen"),
        level=pl.when(spared).then(pl.lit("warning")).otherwise("level"),
    ).drop("kept")
    status = pl.when((pl.col("level") == "error").any()).then(pl.lit("rejected")).otherwise(pl.lit("accepted"))
    by_image = found.group_by("path", maintain_order=True).agg(status=status, issues="code", seen="seen")
    table = table.join(by_image, on="path", how="left", maintain_order="left")
    return table.with_columns(pl.col("status").fill_null("accepted"), pl.col("issues", "seen").fill_null([])), found


def with_classes(table: pl.DataFrame, findings: pl.DataFrame, levels: dict[str, str], params: Validate) -> pl.DataFrame:
    """Add findings about classes, by their accepted images; the path of such a finding is the class's name."""
    sizes = table["label"].filter(table["status"] == "accepted").value_counts(name="images").sort("label")
    largest = sizes.sort("images", "label", descending=[True, False]).head(1)
    found = []
    for label, count in sizes.iter_rows():
        if count < params.min_class_images:
            found.append((label, "class_too_small", f"{count} accepted images", ""))
        if count * params.max_class_ratio < largest["images"][0]:
            found.append(
                (label, "class_imbalance", f"{count} images; {largest['label'][0]} has {largest['images'][0]}", "")
            )
    more = pl.DataFrame(found, schema=findings.drop("level").schema, orient="row")
    more = more.with_columns(level=pl.col("code").replace_strict(levels, return_dtype=pl.String))
    return pl.concat([findings, more.filter(pl.col("level") != "ignore")])


def thumbnails(
    raw: Path, files: list[RawFile], table: pl.DataFrame, paths: list[str], params: Validate, side: int
) -> dict[str, bytes]:
    """JPEGs, of `side` pixels a side at most, of those images that decode, also in part."""
    readable = table.filter(pl.col("path").is_in(paths), pl.col("sha256") != "")
    known = dict(readable.select("path", "frame").iter_rows())
    frames = [(path, max(1, known[path])) for path in paths if path in known]
    wanted = {decode.file_of(*frame) for frame in frames}
    places = {str(file): file for file in files if str(file) in wanted}
    frames = [(*frame, places[decode.file_of(*frame)]) for frame in frames if decode.file_of(*frame) in places]
    if not frames:
        return {}
    results = workers.map_in_order(
        partial(decode.thumbnails, partial(raw_files.read, raw), params.max_pixels, side),
        workers.groups(frames, 8),
        len(frames),
        "thumbnails",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
        lost=lambda frame, what: {},
    )
    return {path: small for group in results for path, small in group.items()}


if __name__ == "__main__":
    run_stage(validate)
