"""params.yaml, typed and checked: a class a section, its fields the keys that section may have."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError
from ruamel.yaml import YAML

from imagepack.errors import InputError

Level = Literal["error", "warning", "info", "ignore"]
ClassLevel = Literal["warning", "info", "ignore"]
Fraction = Annotated[float, Field(ge=0, le=1)]
Colour = Annotated[int, Field(ge=0, le=255)]


class Section(BaseModel):
    """Strict: "8" is no number, and a key that no field declares is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Levels(Section):
    """What becomes of an image, or a class, with this finding."""

    non_portable_name: Level = "info"
    name_collision: Level = "warning"
    outside_link: Level = "warning"
    jpeg_damage: Level = "error"
    damaged_header: Level = "warning"
    later_frame_error: Level = "error"
    extension_mismatch: Level = "warning"
    trailing_bytes: Level = "warning"
    missing_end_marker: Level = "warning"
    private_metadata: Level = "warning"
    extra_bands: Level = "warning"
    unused_range: Level = "error"
    reduced_depth: Level = "info"
    too_small: Level = "error"
    too_large: Level = "warning"
    aspect: Level = "warning"
    uniform: Level = "warning"
    dark: Level = "warning"
    bright: Level = "warning"
    low_information: Level = "info"
    blurry: Level = "info"
    mode_mix: Level = "info"
    exif_orientation: Level = "info"
    exact_duplicate: Level = "error"
    pixel_duplicate: Level = "error"
    near_duplicate: Level = "warning"
    label_conflict: Level = "error"
    similar_labels: Level = "warning"
    class_too_small: ClassLevel = "warning"
    class_imbalance: ClassLevel = "warning"


class Validate(Section):
    """Section `validate`. imagepack/checks/appearance.py says what the numbers from `uniform` to `blurry` measure.

    Where their defaults come from: 500 views of photographs (workshop/benchmarks/photographs.py) have none of these
    findings, with room to spare: contrast from 11.5, 99 % of the pixels up to 123 at least, 1 % up to 108 at most,
    entropy from 4.4, sharpness from 163. After a Gaussian blur of 3 pixels of 500, 91 % have a sharpness below 50.
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
    fail_on: list[str] = []
    levels: Levels = Levels()


class Preprocess(Section):
    """Section `preprocess`."""

    size: int = Field(128, ge=8, le=8192)
    fit: Literal["crop", "pad", "stretch"] = "crop"
    mode: Literal["RGB", "L"] = "RGB"
    background: Annotated[list[Colour], Field(min_length=3, max_length=3)] = [255, 255, 255]
    layout: Literal["folder", "zip"] = "folder"


class Split(Section):
    """Which images train, which validate, which test."""

    by: Literal["hash", "folder"] = "hash"
    leakage: Literal["exclude", "allow"] = "exclude"
    train: Fraction = 0.8
    val: Fraction = 0.1
    test: Fraction = 0.1

    @model_validator(mode="after")
    def _add_up_to_one(self) -> "Split":
        total = self.train + self.val + self.test
        if abs(total - 1) > 1e-9:
            raise PydanticCustomError("sum", "train, val and test must add up to 1, not {total}", {"total": total})
        return self


class Pack(Section):
    """Section `pack`."""

    shard_mib: int = Field(8, ge=1, le=256)
    encoding: Literal["raw", "png", "jpeg"] = "raw"
    jpeg_quality: int = Field(90, ge=1, le=95)
    split: Split = Split()


class Preview(Section):
    """Section `preview`."""

    classes: int = Field(10, ge=1, le=1000)
    images: int = Field(4, ge=1, le=50)
    variants: int = Field(6, ge=1, le=20)


class Augment(Section):
    """Section `augment`: the fields of imagepack.Augment, which applies them."""

    seed: int = Field(0, ge=0, le=2**63 - 1)
    hflip: Fraction = 0.5
    vflip: Fraction = 0.0
    rotate: float = Field(10.0, ge=0, le=180)
    crop: float = Field(0.7, ge=0.01, le=1)
    aspect: float = Field(1.1, ge=1, le=4)
    brightness: Fraction = 0.2
    contrast: Fraction = 0.2
    saturation: Fraction = 0.2
    hue: float = Field(5.0, ge=0, le=180)
    blur: Fraction = 0.1
    blur_radius: float = Field(1.0, ge=0, le=20)
    erase: Fraction = 0.0


class Memo(Section):
    """Section `memo`, which no stage of dvc.yaml lists: it changes no result."""

    max_gib: float = Field(10.0, ge=0, le=1_000_000)


class Params(Section):
    """The whole of params.yaml."""

    validate_: Validate = Field(Validate(), alias="validate")
    preprocess: Preprocess = Preprocess()
    pack: Pack = Pack()
    preview: Preview = Preview()
    augment: Augment = Augment()
    memo: Memo = Memo()


def load(path: Path) -> Params:
    """Read and check `path`; a missing section or key takes its default.

    Raises:
        InputError: with every fault at once, a line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file in UTF-8, in the folder where you run this: {error}") from None
    try:
        as_python, as_dvc = yaml.safe_load(text), YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # noqa: BLE001  (two YAML libraries, two families of errors)
        raise InputError(f"{path} is not YAML: {error}") from None
    if not isinstance(as_python, dict):
        raise InputError(f"{path} is not valid: it must hold sections such as `preprocess:`")
    faults = list(_differences("", as_python, as_dvc))
    try:
        params = Params.model_validate(as_python)
    except ValidationError as error:
        doubled = {fault.split(":")[0] for fault in faults}
        faults += [line for e in error.errors() if (line := _line(e)).split(":")[0] not in doubled]
    if faults:
        raise InputError("\n  ".join([f"{path} is not valid:", *faults]))
    return params


def _differences(key: str, python: Any, dvc: Any):
    """DVC reads YAML 1.2, PyYAML 1.1: 1e-3 is a number to one and text to the other, `no` false and text."""
    if isinstance(python, dict) and isinstance(dvc, dict):
        for name in (name for name in python if name in dvc):
            yield from _differences(f"{key}.{name}" if key else str(name), python[name], dvc[name])
        for name in sorted(python.keys() ^ dvc.keys(), key=str):
            yield f"{key or 'top level'}: the key {name!r} means something else to DVC; quote it"
    elif isinstance(python, list) and isinstance(dvc, list) and len(python) == len(dvc):
        for i, pair in enumerate(zip(python, dvc, strict=True)):
            yield from _differences(f"{key}.{i}", *pair)
    elif type(python) is not type(dvc) or (python != dvc and python == python):  # not a number is not even itself
        yield (
            f"{key}: is {python!r} to Python and {dvc!r} to DVC; "
            "quote it if it is text, write 0.001 for 1e-3, true or false for yes and no"
        )


def _line(error: ErrorDetails) -> str:
    """One fault in words, beginning with its key."""
    where = ".".join(str(part) for part in error["loc"])
    owner = _owner(error["loc"][:-1])
    match error["type"]:
        case "extra_forbidden" | "invalid_key":
            known = [f.alias or name for name, f in owner.model_fields.items()]
            near = difflib.get_close_matches(str(error["loc"][-1]), known, n=1)
            return f"{where}: no such key ({f'did you mean {near[0]}?' if near else 'known: ' + ', '.join(known)})"
        case "greater_than_equal" | "less_than_equal" if owner:
            at_least, at_most = owner.model_fields[error["loc"][-1]].metadata
            return f"{where}: must be between {at_least.ge} and {at_most.le}, is {error['input']!r}"
        case "literal_error":
            return f"{where}: must be {error['ctx']['expected']}, is {error['input']!r}"
        case "model_type":
            first = next(iter(_owner(error["loc"]).model_fields))
            return f"{where}: must hold keys such as `{first}:`, is {error['input']!r}"
        case "too_short" | "too_long":
            wanted = error["ctx"].get("min_length", error["ctx"].get("max_length"))
            return f"{where}: must have {wanted} values, is {error['input']!r}"
        case "sum":
            return f"{where}: {error['msg']}"
        case _:
            wanted = error["msg"].removeprefix("Input should be ").replace("a valid integer", "an integer")
            wanted = wanted.replace("a valid", "a")
            return f"{where}: must be {wanted}, is {error['input']!r}"


def _owner(location: tuple) -> type[BaseModel] | None:
    """The section class at `location`, or None inside a list."""
    model: Any = Params
    for part in location:
        named = {f.alias or name: f for name, f in getattr(model, "model_fields", {}).items()}
        if part not in named:
            return None
        model = named[part].annotation
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None
