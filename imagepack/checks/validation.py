"""What validate does with the files: each by itself in worker processes, then all against each other."""

import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from imagepack.checks import duplicates, examination, gate, table_checks, validation_page
from imagepack.checks.appearance import SIGNATURE_BYTES, Appearance
from imagepack.checks.codes import Checks
from imagepack.checks.examination import Examination, Limits, Seen, examine
from imagepack.checks.image_checks import CheckedImage
from imagepack.checks.labels import Predicted
from imagepack.engine import workers
from imagepack.engine.memo import Memo, Memoised, NotMemoised
from imagepack.engine.params import Section
from imagepack.images import manifest as manifests
from imagepack.images import pins, raw_files, raw_names, thumbnail
from imagepack.images.content import Content
from imagepack.images.faults import Fault
from imagepack.images.raw_files import Opened, RawFile
from imagepack.images.tables import Table

Finding = tuple[str, str, str, str]
"""Path, code, what was seen, and the path of another image that it is about, or an empty text."""
CheckImage = Callable[[CheckedImage, Section], Iterable[Seen]]
"""`check_image` of stages/validate.py."""


@dataclass(frozen=True)
class Checker:
    """Checks files, in workers.

    Attributes:
        raw: data/raw.
        params: section `validate`.
        check_image: yields what is wrong with an image that decodes.
        examine: examination.examine, remembered.
        encode: `encode`, remembered.
    """

    raw: Path
    params: Section
    check_image: CheckImage
    examine: Memoised
    encode: Memoised

    @classmethod
    def of(cls, raw: Path, params: Section, check_image: CheckImage, memo: Memo) -> "Checker":
        """Return one whose work `memo` keeps; what decoding finds out does not depend on the stage's own file."""
        return cls(raw, params, check_image, memo.of(examine, with_stage_file=False), memo.of(encode))

    def __call__(self, files: list[RawFile]) -> tuple[list[tuple], list[Finding]]:
        """Return facts, a row a file (or a frame, where files are split), and findings."""
        rows, findings = [], []
        for some in raw_files.small_groups(self.raw, files):
            more_rows, more_findings = self._check_some(some)
            rows += more_rows
            findings += more_findings
        return rows, findings

    def lost(self, file: RawFile, code: str) -> tuple[list[tuple], list[Finding]]:
        """Return the same of a file that killed or outlasted its worker: it is not decoded again."""
        seen = {"decoder_crash": "its decoder crashed", "timeout": "took longer than validate.timeout"}[code]
        opened = self._open(file)
        row = _row(opened, Content(), 0, 0, None)
        return [row], [(row[0], *finding, "") for finding in [*opened.found, (code, seen)]]

    def _open(self, file: RawFile) -> Opened:
        split = self.params.multi_frame == "split"
        return raw_files.open_one(self.raw, file, self.params.memory_mib * 2**20, split)

    def _check_some(self, files: list[RawFile]) -> tuple[list[tuple], list[Finding]]:
        """Check files that the memo knows together, since each by itself would have to be looked up and judged again.

        A function of its own, so that the bytes of these files are gone before others are read.
        """
        opened = [self._open(file) for file in files]
        content = repr([self.params, [(file.place, file.found, file.digest) for file in opened]]).encode()
        rows, findings = json.loads(self.encode.by_id(content, partial(self.check_opened, opened), images=len(opened)))
        return [(*facts, bytes.fromhex(signature)) for *facts, signature in rows], list(map(tuple, findings))

    def check_opened(self, opened: list[Opened]) -> "Checked":
        """Decode these files, each once."""
        checked = Checked([], [], False)
        for file in opened:
            self._check_file(file, checked)
        return checked

    def _check_file(self, file: Opened, checked: "Checked") -> None:
        """Decode one file; add its facts and findings, where params split files also those of later frames."""
        seen = Examination()
        if file.data is not None:
            limits = limits_of(self.params)
            seen = examination.read(self.examine.by_id(bytes.fromhex(file.digest), lambda: file.data, limits))
        found = self._check_frame(file, 1, seen.content, seen.look, checked)
        row = _row(file, seen.content, min(seen.frames, 1), seen.frames, seen.look)
        checked.add(row, file.found + seen.damage + found + seen.ending)
        of_all = seen.ending[len(seen.ending) - seen.all_frames :]
        for number, (content, look) in enumerate(seen.later, 2):
            row = _row(file, content, number, seen.frames, look)
            checked.add(row, self._check_frame(file, number, content, look, checked) + of_all)
        checked.transient |= seen.transient or not file.digest

    def _check_frame(
        self, file: Opened, frame: int, content: Content, look: Appearance | None, checked: "Checked"
    ) -> list[Seen]:
        """Return what `check_image` yields, nothing of a frame that does not decode; that it fails is a finding too."""
        if look is None:
            return []
        found = []
        try:
            image = CheckedImage.of(file.place[0], frame, file.data, content, look)
            found += self.check_image(image, self.params)
        except Fault as fault:
            found.append((fault.code, fault.seen))
        except Exception as error:  # noqa: BLE001  (no file may end the run, however odd its pixels are)
            found.append(("decode_error", f"{type(error).__name__}: {error}"[:200]))
            checked.transient = True
        return found


@dataclass
class Checked:
    """What becomes of some files.

    Attributes:
        rows: facts, in the order of manifests.FACTS.
        findings: about them.
        transient: whether a rerun may differ (memory was short); then the memo does not keep it.
    """

    rows: list[tuple]
    findings: list[Finding]
    transient: bool

    def add(self, row: tuple, found: list[Seen]) -> None:
        """Add an image."""
        self.rows.append(row)
        self.findings += [(row[0], code, seen, "") for code, seen in found]


def encode(checked: Checked) -> bytes:
    """Write it for the memo."""
    data = json.dumps([checked.rows, checked.findings], default=bytes.hex).encode()
    return NotMemoised(data) if checked.transient else data


def limits_of(params: Section) -> Limits:
    """Return those params that decide how a file is decoded: after a change of others none is decoded again."""
    return Limits(
        max_pixels=params.max_pixels,
        max_frames=params.max_frames,
        split=params.multi_frame == "split",
        strict=params.levels.jpeg_damage == "error",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
    )


def _row(file: Opened, content: Content, frame: int, frames: int, look: Appearance | None) -> tuple:
    """Return the facts in the order of manifests.FACTS, the signature last; `look` is None of what does not decode."""
    path, *place = file.place
    digest = manifests.frame_id(file.digest, frame) if frame > 1 else file.digest
    stored = (content.format, content.mode, content.kind, content.width, content.height, content.orientation)
    numbers = (look.brightness, look.contrast, look.saturation, look.entropy, look.sharpness) if look else [None] * 5
    hashes = (content.pixel_hash, look.perceptual_hash if look else "")
    signature = look.signature if look else bytes(SIGNATURE_BYTES)
    return (
        f"{path}#{frame}" if frame > 1 else path,
        *place,
        digest,
        file.size,
        *stored,
        frame,
        frames,
        *hashes,
        *numbers,
        signature,
    )


def check_all(
    checker: Checker,
    files: list[RawFile],
    beside: Table,
    predicted: Predicted,
    levels: Mapping[str, str],
    kept: Callable[[pl.DataFrame], Mapping[tuple[str, str], int]],
    memo: Memo,
    scratch: Path,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Check each file by itself, then against the others; return the manifest and the findings about files.

    Args:
        files: below data/raw.
        beside: what tables say of them.
        predicted: columns of these tables.
        levels: of each code.
        kept: from the facts, path and code of errors that reject nothing.
        scratch: a folder for signatures: as large as all other facts together, and of use for few images.
    """
    with tempfile.TemporaryFile(dir=scratch) as signatures:
        table, found = _check_each(checker, files, memo, signatures)
        table, more = table_checks.join(manifests.in_order(table), beside, predicted)
        table = table_checks.with_pins(table, pins.read(checker.raw))
        if predicted.columns:  # which folder an image stands in does not matter
            found = [finding for finding in found if finding[1] != "no_label"]
        found += more + raw_names.name_collisions(table) + mode_mix(table)
        spared = kept(table)
        rejected = {path for path, code, *_ in found if levels[code] == "error" and (path, code) not in spared}
        on_disk = np.memmap(signatures, "u1", "r").reshape(-1, SIGNATURE_BYTES)  # only those compared are read
        twins, edges = duplicates.find(table, on_disk, rejected, checker.params.near_distance)
        table, findings = settle(table.drop("signature"), found + twins, levels, spared)
        return table.with_columns(group=duplicates.groups(table, edges)), findings


def _check_each(checker: Checker, files: list[RawFile], memo: Memo, signatures) -> tuple[pl.DataFrame, list[Finding]]:
    """Check each file by itself; return the facts and the findings. Signatures go to a file: (N, SIGNATURE_BYTES)."""
    findings = []
    results = memo.map_in_order(
        checker,
        raw_files.groups(files),
        len(files),
        "validate",
        timeout=checker.params.timeout,
        memory_mib=checker.params.memory_mib,
        lost=checker.lost,
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


def mode_mix(table: pl.DataFrame) -> list[Finding]:
    """Find images that are stored in another way than most."""
    decoded = table.select("path", "kind").filter(pl.col("kind") != "")
    kinds = decoded["kind"].value_counts().sort("count", "kind", descending=[True, False])
    if len(kinds) < 2:
        return []
    most = kinds["kind"][0]
    others = decoded.filter(pl.col("kind") != most)
    return [(path, "mode_mix", f"{kind}; most are {most}", "") for path, kind in others.iter_rows()]


def settle(
    table: pl.DataFrame, findings: list[Finding], levels: Mapping[str, str], kept: Collection[tuple[str, str]]
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


def with_classes(
    table: pl.DataFrame, findings: pl.DataFrame, levels: Mapping[str, str], params: Section
) -> pl.DataFrame:
    """Add findings about classes, by their accepted images; the path of such a finding is the class's name."""
    accepted = manifests.accepted(table)
    sizes = manifests.images_by_label(accepted)
    largest = sizes.sort("images", "label", descending=[True, False]).head(1)
    found = []
    for label, count in sizes.iter_rows():
        if count < params.min_class_images:
            found.append((label, "class_too_small", f"{count} accepted images", ""))
        if count * params.max_class_ratio < largest["images"][0]:
            found.append(
                (label, "class_imbalance", f"{count} images; {largest['label'][0]} has {largest['images'][0]}", "")
            )
    found += table_checks.similar_classes(manifests.by_label(accepted)["label"])
    more = pl.DataFrame(found, schema=findings.drop("level").schema, orient="row")
    more = more.with_columns(level=pl.col("code").replace_strict(levels, return_dtype=pl.String))
    return pl.concat([findings, more.filter(pl.col("level") != "ignore")])


def write_page(
    path: Path,
    raw: Path,
    files: list[RawFile],
    table: pl.DataFrame,
    findings: pl.DataFrame,
    checks: Checks,
    params: Section,
) -> None:
    """Write validation.html, with pictures of what was found and of what was accepted."""
    fixes = {code: check.fix for code, check in checks.items()}
    pictures = thumbnails(raw, files, table, validation_page.pictured(table, findings), params)
    validation_page.write(path, table, findings, fixes, pictures)


def thumbnails(
    raw: Path, files: list[RawFile], table: pl.DataFrame, sides: Mapping[str, tuple[int, ...]], params: Section
) -> dict[tuple[str, int], bytes]:
    """Return JPEGs by path and side, `sides` of each path, of those images that decode, also in part."""
    readable = table.filter(pl.col("path").is_in(list(sides)), pl.col("sha256") != "")
    known = dict(readable.select("path", "frame").iter_rows())
    frames = [
        (path, max(1, known[path]), manifests.file_of(path, max(1, known[path]))) for path in sides if path in known
    ]
    wanted = {file for *_, file in frames}
    places = {str(file): file for file in files if str(file) in wanted}
    frames = [(path, number, places[file], sides[path]) for path, number, file in frames if file in places]
    if not frames:
        return {}
    results = workers.map_in_order(
        partial(thumbnail.thumbnails, partial(raw_files.read, raw), params.max_pixels),
        workers.groups(frames, 8),
        len(frames),
        "thumbnails",
        timeout=params.timeout,
        memory_mib=params.memory_mib,
        lost=lambda frame, what: {},
    )
    return {key: small for group in results for key, small in group.items()}
