"""Comparisons to write about: summaries and changes as the schema has them, without the comparing."""

import copy
import json

import jsonschema
import polars as pl
from conftest import REPOSITORY

SCHEMA = json.loads((REPOSITORY / "imagepack/compare/schema.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
KINDS = list(SCHEMA["properties"]["counts"]["properties"])
TYPES = {"string": pl.String, "integer": pl.Int64, "number": pl.Float64}
COLUMNS = {
    name: TYPES[spec["type"][0]] if "type" in spec else pl.String
    for name, spec in SCHEMA["properties"]["changes"]["items"]["properties"].items()
}
WAY = {"files": 0, "bytes": 0, "estimated": False, "parts": []}
VERSION = {
    "name": "v1", "revision": "1" * 40, "date": "2026-11-01", "subject": "First", "images": 100, "accepted": 98,
    "rejected": 2, "classes": 2, "bytes": 1_000_000, "packed": True, "pack_digest": "a" * 64, "warnings": [],
}  # fmt: skip
SAME = {
    "schema_version": 1,
    "a": VERSION,
    "b": VERSION | {"name": "v2", "revision": "2" * 40, "date": "2026-11-02", "subject": "Second"},
    "counts": dict.fromkeys(KINDS, 0) | {"unchanged": 100},
    "status": {"newly_rejected": [], "fixed": []},
    "findings": [],
    "leakage": {"new": [], "resolved": [], "trained_on": []},
    "classes": {"added": [], "removed": [], "renamed": [], "table": []},
    "table_columns": [],
    "columns": [],
    "splits": {
        "table": [{"split": "train", "a": 80, "b": 80}, {"split": "test", "a": 18, "b": 18}], "moves": [],
        "unpinned": [],
    },
    "groups": {"by": None, "a": 0, "b": 0, "moved": [], "split": []},
    "pipeline": {"raw_changed": False, "packed_changed": False, "stages": [], "packages": [], "explanation": []},
    "transfer": {"a_to_b": WAY, "b_to_a": WAY},
    "metrics": [],
    "drift": {
        "alpha": 0.01, "least_effect": 0.1, "tests": 7, "drifted": False, "features": [], "distributions": [],
        "novelty": None,
    },
}  # fmt: skip
"""Two versions with the same 100 images."""


def change(kind: str, path: str = "cat/a.jpg", **columns) -> dict:
    """A change; of an accepted image of train in both versions that have it, but for the columns given."""
    row = dict.fromkeys(COLUMNS) | {"kind": kind}
    for side in [side for side, without in (("a", "added"), ("b", "removed")) if kind != without]:
        row |= {
            f"path_{side}": path, f"label_{side}": path.rpartition("/")[0], f"split_{side}": "train",
            f"status_{side}": "accepted", f"sha256_{side}": "0" * 64, f"bytes_{side}": 1000, f"width_{side}": 48,
            f"height_{side}": 40,
        }  # fmt: skip
    return row | columns


def reference(path: str, detail: str = "seen") -> dict:
    """An image that both versions have at one place."""
    return {"path_a": path, "path_b": path, "detail": detail}


def turned(path: str, detail: str = "seen", **splits) -> dict:
    """An image of which the two versions say otherwise whether it is accepted; of train where it is not said."""
    return reference(path, detail) | {"split_a": "train", "split_b": None} | splits


def drifted(feature: str = "brightness", scope: str = "all", **fields) -> dict:
    """A test of drift that found some."""
    a, b = ({"p5": middle - 20.0, "median": middle, "p95": middle + 20} for middle in (118.0, 96.0))
    return {
        "feature": feature, "scope": scope, "class": None, "n_a": 100, "n_b": 100, "effect": 0.31, "p": 1e-9,
        "p_adjusted": 1e-8, "drifted": True, "a": a, "b": b,
    } | fields  # fmt: skip


def comparison(*rows: dict, **sections) -> tuple[dict, pl.DataFrame]:
    """Summary and changes with these changes, counted, and with these sections merged into two same versions.

    It is held against the schema.
    """
    summary = _merged(SAME, sections)
    kinds = [row["kind"] for row in rows]
    if "counts" not in sections:
        summary["counts"] |= {kind: kinds.count(kind) for kind in KINDS[1:]}
    ordered = sorted(rows, key=lambda row: (KINDS.index(row["kind"]), row["path_a"] or row["path_b"]))
    VALIDATOR.validate(summary | {"changes": ordered[:100]})
    return summary, pl.DataFrame(ordered, schema=COLUMNS)


def _merged(base: dict, changes: dict) -> dict:
    merged = copy.deepcopy(base)
    for key, value in changes.items():
        merged[key] = (
            _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict) else value
        )
    return merged


def eventful() -> tuple[dict, pl.DataFrame]:
    """A comparison in which everything happened."""
    edited = [change("edited", f"cat/img{i}.jpg", split_a="test", split_b="test") for i in range(5)]
    rows = [
        *edited,
        change("reencoded", "cat/saved.png"),
        change("relabelled", "cat/b.jpg", path_b="dog/b.jpg", label_b="dog"),
        change("moved", "cat/c.jpg", path_b="2026/cat/c.jpg"),
        change("moved_edited", "cat/d.jpg", path_b="cat/d2.jpg", evidence="looks alike, and neither is elsewhere"),
        change("split_moved", "cat/e.jpg", split_b="test"),
        change("split_moved", "cat/f.jpg", split_a="test", split_b=None, status_b="rejected"),
        *[change("added", f"fox/new{i}.jpg") for i in range(40)],
        change("removed", "cow/g.jpg", split_a="test"),
    ]
    return comparison(
        *rows,
        a={"warnings": ["data/raw has changed since the last dvc repro"]},
        b={"accepted": 137, "rejected": 3, "images": 140},
        status={"newly_rejected": [turned("cat/f.jpg", "truncated")], "fixed": [turned("cat/h.jpg", "blurry")]},
        findings=[
            {"code": "blurry", "a": 3, "b": 5, "new": [reference("cat/i.jpg")] * 3, "resolved": [reference("k.jpg")]},
            {"code": "label_conflict", "a": 0, "b": 1, "new": [reference("cat/j.jpg")], "resolved": []},
        ],
        leakage={
            "new": [reference("cat/e.jpg", "looks like cat/l.jpg of train")],
            "trained_on": [reference("cat/e.jpg", "of train in A")],
            "resolved": [reference("cat/m.jpg", "looked like cat/n.jpg of train")],
        },
        classes={
            "added": ["fox", "hound"],
            "removed": ["cow", "dog"],
            "renamed": [{"a": "dog", "b": "hound", "images": 12}],
            "table": [{"class": "fox", "a": 0, "b": 40, "splits": {"train": {"a": 0, "b": 40}}}],
        },
        columns=[
            {"name": "age", "a": "integer", "b": "integer", "changed": 1, "images": [reference("cat/o.jpg", "3 -> 4")]}
        ],
        splits={
            "table": [{"split": "train", "a": 80, "b": 119}, {"split": "test", "a": 18, "b": 17}],
            "moves": [{"from": "train", "to": "test", "images": 1}],
            "unpinned": [reference("cat/p.jpg", "test -> train")],
        },
        groups={
            "by": "patient",
            "a": 30,
            "b": 31,
            "moved": [{"group": "p7", "from": "test", "to": "train", "images": 3}],
            "split": [
                {"group": "p8", "splits": {"train": 2, "test": 1}, "images": ["cat/q.jpg", "cat/r.jpg", "s.jpg"]}
            ],
        },
        pipeline={
            "raw_changed": True,
            "packed_changed": True,
            "explanation": [
                "preprocess ran otherwise: preprocess.size is 64 instead of 128.",
                "validate has new data.",
            ],
        },
        transfer={"a_to_b": {"files": 44, "bytes": 12_345_678, "estimated": True, "parts": []}},
        metrics=[{"file": "metrics.json", "metric": "accuracy", "a": 0.91234567, "b": 0.93}],
        drift={
            "drifted": True,
            "features": [drifted(), drifted("class", a=None, b=None), drifted("size", "added"), drifted("column:age")],
        },
    )
