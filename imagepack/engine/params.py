"""params.yaml, typed and checked: each section is a class, its fields the keys that the section may have.

A stage's sections are the classes that its function's arguments are annotated with, called as the section is:
`Preprocess` is `preprocess`.
"""

import difflib
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML

from imagepack.errors import InputError


class Section(BaseModel):
    """Strict: "8" is no number, and a key that no field declares is an error."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class MemoParams(Section):
    """Section `memo`. No stage of dvc.yaml lists it, since it changes no result."""

    max_gib: float = Field(10.0, ge=0, le=1_000_000)


class BucketParams(Section):
    """Section `bucket`, of which `python3 run.py gc` reads what storage costs. No stage of dvc.yaml lists it."""

    price: float = Field(0.023, ge=0, le=1000)


def section_like(dataclass: type) -> type[Section]:
    """Return a section with the fields of `dataclass` whose metadata has a range, `ge` and `le`."""
    ranged = {f.name: (f.type, Field(f.default, **f.metadata)) for f in fields(dataclass) if f.metadata}
    return create_model(dataclass.__name__, __base__=Section, __doc__=dataclass.__doc__, **ranged)


@cache
def stages() -> dict[str, Callable[..., str]]:
    """Return the function of each stage by name: `preprocess` of stages/preprocess.py, and so on."""
    names = sorted(module.name for module in pkgutil.iter_modules(import_module("stages").__path__))
    modules = {name: import_module(f"stages.{name}") for name in names}
    return {name: getattr(module, name) for name, module in modules.items() if callable(getattr(module, name, None))}


@cache
def model() -> type[Section]:
    """Return the class of the whole of params.yaml: a field for each section of a stage, `memo` and `bucket`."""
    sections = {}
    for function in stages().values():
        for argument in inspect.signature(function).parameters.values():
            if isinstance(argument.annotation, type) and issubclass(argument.annotation, Section):
                sections[argument.annotation.__name__.lower()] = argument.annotation
    sections |= {"memo": MemoParams, "bucket": BucketParams}
    return create_model(
        "Params",
        __base__=Section,
        # some names, such as validate, are a method of every model
        **{f"{name}_": (kind, Field(kind(), alias=name)) for name, kind in sections.items()},
    )


def load(path: Path) -> dict[str, Section]:
    """Return the sections of `path`, by name; a missing section or key takes its default.

    Sections of your own, which no stage takes (`train:`, for a training script), are left alone, unless they are called
    nearly as one that a stage takes.

    Raises:
        InputError: with every fault at once, a line each.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a text file in UTF-8, in the folder where you run this: {error}") from None
    try:
        as_dvc = YAML(typ="safe", pure=True).load(text)  # first, as it says better what is wrong
        as_python = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except Exception as error:  # noqa: BLE001  (two YAML libraries, two families of errors)
        raise InputError(f"{path} is not YAML: {error}") from None
    if not isinstance(as_python, dict):
        raise InputError(f"{path} is not valid: it must hold sections such as `preprocess:`")
    as_python = {name: value for name, value in as_python.items() if not _is_own(name)}
    faults = list(_differences("", as_python, {name: value for name, value in as_dvc.items() if not _is_own(name)}))
    try:
        params = model().model_validate(as_python)
    except ValidationError as error:
        doubled = {fault.split(":")[0] for fault in faults}
        faults += [line for e in error.errors() if (line := _line(e)).split(":")[0] not in doubled]
    if faults:
        places = {str(section): place for place, section in enumerate(as_python)}
        faults.sort(key=lambda fault: places.get(re.match(r"[^.:]*", fault)[0], -1))
        raise InputError("\n  ".join([f"{path} is not valid:", *faults]))
    return {name.removesuffix("_"): section for name, section in params}


def _is_own(section: object) -> bool:
    """Whether no stage takes a section, and none is meant: `model` is no misspelt `memo`, nor `evaluate` `validate`."""
    known = [field.alias for field in model().model_fields.values()]
    return not difflib.get_close_matches(str(section), known, cutoff=0.8)


def defaults() -> dict[str, Any]:
    """Return params.yaml as it would be if every key had its default."""
    return model()().model_dump(by_alias=True)


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
            first = next(iter(_owner(error["loc"]).model_fields), None)
            wanted = f"must hold keys such as `{first}:`" if first else "has no keys: write {}"
            return f"{where}: {wanted}, is {error['input']!r}"
        case "too_short" | "too_long":
            wanted = error["ctx"].get("min_length", error["ctx"].get("max_length"))
            return f"{where}: must have {wanted} values, is {error['input']!r}"
        case "value_error":  # raised by a validator of a section
            return f"{where}: {error['msg'].removeprefix('Value error, ')}"
        case _:
            wanted = error["msg"].removeprefix("Input should be ").replace("a valid integer", "an integer")
            wanted = wanted.replace("a valid", "a")
            return f"{where}: must be {wanted}, is {error['input']!r}"


def _owner(location: tuple) -> type[BaseModel] | None:
    """The section class at `location`, or None inside a list."""
    owner: Any = model()
    for part in location:
        named = {f.alias or name: f for name, f in getattr(owner, "model_fields", {}).items()}
        if part not in named:
            return None
        owner = named[part].annotation
    return owner if isinstance(owner, type) and issubclass(owner, BaseModel) else None
