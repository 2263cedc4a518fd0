"""Validate: decode every raw file in full, find duplicates, list what is wrong with each image.

    python -m imagepack.engine validate data/raw data/acknowledged.csv data/validated/manifest.parquet reports

Edit `check_image` for checks of your own. Nothing in data/raw is changed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from imagepack.checks import gate, validation, validation_reports
from imagepack.checks.codes import CHECKS, Check, levels_section
from imagepack.checks.image_checks import CheckedImage, standard_checks
from imagepack.checks.labels import Predicted, require_columns, require_names, require_usable
from imagepack.engine.inputs import Input
from imagepack.engine.memo import NO_MEMO, Memo
from imagepack.engine.params import Section
from imagepack.images import manifest as manifests
from imagepack.images import raw_files, tables

LIBRARIES = ("pillow", "numpy", "simplejpeg", "xxhash", "pillow-heif", "pillow-jxl-plugin")
"""Packages that decide what is written: after another version of one is installed, the memo starts afresh."""

OWN_CHECKS: dict[str, Check] = {}
"""Codes of your own: level, meaning, fix. {"no_red": Check("error", "has no red in it", "photograph it again")}"""


class Levels(levels_section(CHECKS | OWN_CHECKS)):
    """Section `validate.levels`: what a finding with each code does: error, warning, info or ignore."""


class Validate(Section):
    """Section `validate` of params.yaml. imagepack/checks/appearance.py says what `uniform` to `blurry` measure.

    Their defaults: 500 views of photographs (workshop/benchmarks/photographs.py) have none of these findings, with room
    to spare: contrast from 11.5, 99 % of the pixels up to 123 at least, 1 % up to 108 at most, entropy from 4.4,
    sharpness from 163. After a Gaussian blur of 3 pixels of 500, 91 % have a sharpness below 50.
    """

    min_side: int = Field(16, ge=1, le=65536)
    max_side: int = Field(16384, ge=1, le=1_000_000)
    max_aspect: float = Field(8.0, ge=1, le=100_000)
    uniform: float = Field(2.0, ge=0, le=128)
    dark: int = Field(50, ge=0, le=255)
    bright: int = Field(220, ge=0, le=255)
    low_information: float = Field(0.5, ge=0, le=8)
    blurry: float = Field(50.0, ge=0, le=1_000_000)
    near_distance: int = Field(15, ge=0, le=15)
    multi_frame: Literal["first", "error", "split"] = "first"
    max_frames: int = Field(1000, ge=1, le=1_000_000)
    min_class_images: int = Field(10, ge=0, le=1_000_000_000)
    max_class_ratio: float = Field(10.0, ge=1, le=1_000_000_000)
    max_pixels: int = Field(100_000_000, ge=1, le=1_000_000_000)
    timeout: int = Field(60, ge=1, le=86400)
    memory_mib: int = Field(2048, ge=256, le=1_048_576)
    fail_on: list[str] = Field([])
    levels: Levels = Levels()


class Labels(Section):
    """Section `labels` of params.yaml: what is predicted, and the tables beside the images (docs/tables.md)."""

    kind: Literal["class", "multilabel", "numbers"] = "class"
    column: str | list[str] = ""
    types: dict[str, Literal["integer", "number", "boolean", "date", "text"]] = Field({})

    @field_validator("column", mode="before")
    @classmethod
    def _is_name_or_names(cls, column: object) -> object:
        return require_names(column)

    @model_validator(mode="after")
    def _fits_kind(self) -> "Labels":
        require_columns(self.kind, self.column)
        return self


BY_FOLDER = Labels()


def check_image(image: CheckedImage, params: Validate) -> Iterator[tuple[str, str]]:
    """Yield the code of each check that `image` fails, and what was seen. Edit here.

    Args:
        image: has path, format, mode, width, height, brightness, contrast, saturation, entropy, sharpness, and more;
            image.pixels() returns uint8 (H, W, 3).
        params: section `validate`; add a field to `Validate` above to add a knob.
    """
    yield from standard_checks(image, params)
    # if image.pixels()[..., 0].max() < 30:  # "no_red" must stand in OWN_CHECKS
    #     yield "no_red", "no pixel has 30 of 255 or more"


def validate(
    raw: Input,
    acknowledged: Input,
    manifest: Path,
    reports: Path,
    params: Validate,
    memo: Memo = NO_MEMO,
    labels: Labels = BY_FOLDER,
) -> str:
    """Check every file under `raw`; write the manifest and the reports; return a summary line.

    Raises:
        InputError: no files; a table that cannot be used; a code in `params.fail_on` or a line of `acknowledged` that
            is none; or, once the reports are written, no accepted image, a class without one, or a finding on which
            `params.fail_on` says to stop and which `acknowledged` does not list.
    """
    checks = CHECKS | OWN_CHECKS
    levels = {code: check.level for code, check in checks.items()} | params.levels.model_dump()
    levels["multi_frame"] = "error" if params.multi_frame == "error" else "info"
    gate.require_codes(params.fail_on, levels)
    said = gate.read(acknowledged, checks)
    files, names, ignored = raw_files.find_some(raw)
    beside = tables.read(raw, names, map(str, files), labels.types)
    predicted = Predicted.of(labels.kind, labels.column)
    require_usable(beside, predicted)
    manifest.parent.mkdir(parents=True, exist_ok=True)
    checker = validation.Checker.of(raw, params, check_image, memo)
    table, findings = validation.check_all(checker, files, beside, predicted, levels, said.kept, memo, manifest.parent)
    findings = validation.with_classes(table, findings, levels, params)
    manifests.write(table, manifest)
    validation_reports.write(table, findings, checks, reports)
    validation.write_page(reports / "validation.html", raw, files, table, findings, checks, params)
    validation_reports.require_every_class(table, findings, reports / "rejected.csv", checks, params)
    gate.stop_on(params.fail_on, table, findings, said, acknowledged)
    notes = validation_reports.notes(table, findings, ignored, said, acknowledged)
    return f"{validation_reports.summary(table, reports)}{notes}{memo.summary()}"
