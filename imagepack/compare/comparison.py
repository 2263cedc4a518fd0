"""Everything that is to be said of two versions, as data: what the outputs and the gates are made from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from imagepack.checks.gate import KEPT
from imagepack.compare import cells, groups, lineage
from imagepack.compare.drift import drift
from imagepack.compare.matching import KINDS, match
from imagepack.compare.versions import Version
from imagepack.images.manifest import by_label, label_kind
from imagepack.reader.format import SPLITS

SCHEMA_VERSION = 1
SIDES = ("path", "label", "split", "status", "sha256", "bytes", "width", "height")
"""What a change says of an image in each version, as path_a, path_b, ..."""
TRAIN, HELD_OUT = "train", ("val", "test")


@dataclass(frozen=True)
class Comparison:
    """Of versions A and B.

    Attributes:
        summary: the JSON document that schema.json describes, without `changes`.
        changes: a row for each image that is not unchanged, with the columns that schema.json gives an item of
            `changes`; in the order of KINDS, then of the paths.
    """

    summary: dict
    changes: pl.DataFrame

    def write_json(self, path: Path) -> None:
        """Write the document, a change a line, so that it can be read by people and by line too."""
        head = json.dumps(self.summary, indent=1, ensure_ascii=False, allow_nan=False).removesuffix("\n}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.write(head + ',\n "changes": [')
            for start, change in enumerate(self.changes.iter_rows(named=True)):
                file.write(f"{',' if start else ''}\n  {json.dumps(change, ensure_ascii=False)}")
            file.write("\n ]\n}\n")


def compare(a: Version, b: Version, novelty: bool = False) -> Comparison:
    """Compare version A with version B, an image at a time.

    Args:
        novelty: whether to look for images that came, and look like one of A.
    """
    pairs = match(a.images, b.images)
    both = _Both(a.images, b.images, pairs)
    counts = dict(pairs["kind"].value_counts().iter_rows())
    classes = _classes(both)
    names = {each["a"]: each["b"] for each in classes["renamed"]}
    packed = a.pack is not None and b.pack is not None
    group = groups.chosen(a, b)
    tested = cells.with_drift(a.images, b.images, group)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "a": _describe(a),
        "b": _describe(b),
        "counts": {kind: counts.get(kind, 0) for kind in KINDS},
        "status": _status(both, {"a": _levels(a), "b": _levels(b)}),
        "findings": list(_findings(both)),
        "leakage": _leakage(both),
        "classes": classes,
        "columns": sorted(cells.changed(pairs, a.images, b.images), key=cells.most_first),
        "table_columns": cells.names(a.images, b.images),
        "splits": _splits(both, b) if packed else {"table": [], "moves": [], "unpinned": []},
        "groups": groups.compared(a.images, b.images, group),
        "pipeline": lineage.pipeline(a, b),
        "transfer": {"a_to_b": lineage.transfer(a, b), "b_to_a": lineage.transfer(b, a)},
        "metrics": lineage.metrics(a, b),
        "drift": drift(
            _without_numbers(a.images).with_columns(pl.col("label").replace(names)),
            _without_numbers(b.images),
            pairs,
            novelty,
            tested,
        ),
    }
    return Comparison(summary, both.changes())


def _without_numbers(images: pl.DataFrame) -> pl.DataFrame:
    """Put all images into one class where numbers are predicted: of classes there is no drift then."""
    return images.with_columns(label=pl.lit("")) if label_kind(images.columns) == "numbers" else images


class _Both:
    """The pairs, and what each version says of them."""

    def __init__(self, a: pl.DataFrame, b: pl.DataFrame, pairs: pl.DataFrame) -> None:
        self.images = {"a": a, "b": b}
        self.pairs = pairs

    def with_(self, *columns: str) -> pl.DataFrame:
        """The pairs, with these columns of both versions: path_a, path_b, ...; null on a side that lacks the image."""
        parts = [self.pairs]
        for side, images in self.images.items():
            values = images.select(columns)[self.pairs[f"row_{side}"]] if len(images) else None
            if values is None:
                values = pl.DataFrame(schema=images.select(columns).schema).clear(len(self.pairs))
            parts.append(values.rename(lambda name, side=side: f"{name}_{side}"))
        return pl.concat(parts, how="horizontal")

    def changes(self) -> pl.DataFrame:
        """As Comparison.changes."""
        changed = _Both(self.images["a"], self.images["b"], self.pairs.filter(pl.col("kind") != "unchanged"))
        table = changed.with_(*SIDES).sort("kind", pl.coalesce("path_a", "path_b"), "path_b")
        return table.select(
            pl.col("kind").cast(pl.String),
            *(f"{name}_{side}" for name in SIDES for side in "ab"),
            perceptual_distance=pl.col("distance").cast(pl.Int64),
            pixel_distance=pl.lit(None, pl.Float64),
            evidence="evidence",
        )


def _describe(version: Version) -> dict:
    """The part of the document that says what a version is."""
    accepted = version.images.filter(pl.col("status") == "accepted")
    files = version.images.filter(pl.col("frame") <= 1)
    return {
        "name": version.name,
        "revision": version.revision,
        "date": version.date,
        "subject": version.subject,
        "images": len(version.images),
        "accepted": len(accepted),
        "rejected": len(version.images) - len(accepted),
        "classes": by_label(accepted)["label"].n_unique(),
        "bytes": int(files["bytes"].sum()),
        "packed": version.pack is not None,
        "pack_digest": version.pack.digest if version.pack else None,
        "warnings": version.warnings,
    }


def _noted(table: pl.DataFrame, *more: str) -> list[dict]:
    """path_a, path_b, detail of each row, in the order of the paths."""
    return table.select("path_a", "path_b", *more, "detail").sort(pl.coalesce("path_b", "path_a"), "path_a").to_dicts()


def _levels(version: Version) -> dict[str, str]:
    """What dvc.lock says of `validate.levels`; a code without one is an error."""
    params = version.lock["validate"].params if "validate" in version.lock else {}
    return params.get("params.yaml", {}).get("validate", {}).get("levels", {})


def _status(both: _Both, levels: dict[str, dict[str, str]]) -> dict:
    """Of images in both versions: those that one accepted and the other rejected, and for which errors."""
    table = both.with_("path", "split", "status", "issues", "seen")

    def turned(good: str, bad: str) -> list[dict]:
        """Accepted in the version `good`, rejected in the version `bad`."""
        rows = table.filter(pl.col(f"status_{good}") == "accepted", pl.col(f"status_{bad}") == "rejected")
        found = rows.select(f"issues_{bad}", f"seen_{bad}").iter_rows()
        why = [_words(codes, seen, levels[bad]) for codes, seen in found]
        return _noted(rows.with_columns(detail=pl.Series(why, dtype=pl.String)), "split_a", "split_b")

    return {"newly_rejected": turned("a", "b"), "fixed": turned("b", "a")}


def _words(codes: list[str], seen: list[str], levels: dict[str, str]) -> str:
    """Errors, but those in spite of which the image was to be kept, and what was seen of each."""
    found = zip(codes, seen, strict=True)
    errors = [each for each in found if levels.get(each[0], "error") == "error" and not each[1].endswith(KEPT)]
    return "; ".join(f"{code} ({words})" if words else code for code, words in errors)


def _findings(both: _Both) -> Iterator[dict]:
    """Of each code: how many images have it, which have it newly, and which no longer."""
    pairs = both.with_("path").with_row_index("pair")
    found = {}
    for side, images in both.images.items():
        each = (
            images.select("issues", "seen").with_row_index(f"row_{side}").explode("issues", "seen").drop_nulls("issues")
        )
        found[side] = each.rename({"issues": "code", "seen": "detail"}).join(pairs, on=f"row_{side}", how="inner")
        found[side] = found[side].unique(["code", "pair"], keep="first", maintain_order=True)
    new = found["b"].join(found["a"], on=["code", "pair"], how="anti").partition_by("code", as_dict=True)
    resolved = found["a"].join(found["b"], on=["code", "pair"], how="anti").partition_by("code", as_dict=True)
    counts = {side: dict(table["code"].value_counts().iter_rows()) for side, table in found.items()}
    for code in sorted(counts["a"].keys() | counts["b"].keys()):
        yield {
            "code": code,
            "a": counts["a"].get(code, 0),
            "b": counts["b"].get(code, 0),
            "new": _noted(new[code,]) if (code,) in new else [],
            "resolved": _noted(resolved[code,]) if (code,) in resolved else [],
        }


def _leakage(both: _Both) -> dict:
    """Images that models are judged by, of which training gives away the answer."""
    table = both.with_("path", "split", "group")
    twins = {}
    for side in "ab":
        seen = pl.col(f"split_{side}") == TRAIN
        trained = table.filter(seen, pl.col(f"group_{side}") != "")
        trained = trained.group_by(f"group_{side}").agg(twin=pl.col(f"path_{side}").min())
        leaks = table.filter(pl.col(f"split_{side}").is_in(HELD_OUT)).join(trained, on=f"group_{side}", how="inner")
        detail = pl.format("of {}, looks like {} of train", f"split_{side}", "twin")
        twins[side] = leaks.with_columns(detail=detail)
    new = twins["b"].join(twins["a"], on=["row_a", "row_b"], how="anti")
    resolved = twins["a"].join(twins["b"], on=["row_a", "row_b"], how="anti")
    return {"new": _noted(new), "resolved": _noted(resolved), "trained_on": _noted(_trained_on(table))}


def _trained_on(table: pl.DataFrame) -> pl.DataFrame:
    """Images held out in B that were in A's train split, or look like one that was."""
    held_out = table.filter(pl.col("split_b").is_in(HELD_OUT))
    itself = pl.col("split_a") == TRAIN
    seen = table.filter(itself, pl.col("group_b") != "").group_by("group_b").agg(twin=pl.col("path_a").min())
    linked = held_out.join(seen, on="group_b", how="left")
    was = pl.format("of train in A, of {} in B", "split_b")
    alike = pl.format("of {} in B, looks like {}, of train in A", "split_b", "twin")
    return linked.with_columns(detail=pl.when(itself.fill_null(False)).then(was).otherwise(alike)).drop_nulls("detail")


def _classes(both: _Both) -> dict:
    """Which classes came, went or changed their name, and how many accepted images each has."""
    tables = []
    for side, images in both.images.items():
        accepted = images.filter(pl.col("status") == "accepted")
        counted = by_label(accepted).group_by("label", "split").len(side)
        tables.append(counted)
    table = tables[0].join(tables[1], on=["label", "split"], how="full", coalesce=True, nulls_equal=True)
    table = table.with_columns(pl.col("a", "b").fill_null(0))
    totals = table.group_by("label").agg(pl.col("a", "b").sum()).sort("label")
    removed = totals.filter(pl.col("b") == 0)["label"]
    added = totals.filter(pl.col("a") == 0)["label"]
    renamed = list(_renamed(both, removed, added, totals))
    by_class = {label: {} for label in totals["label"]}
    order = pl.col("split").replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.UInt8)
    for label, split, a, b in table.drop_nulls("split").sort("label", order).iter_rows():
        by_class[label][split] = {"a": a, "b": b}
    return {
        "added": sorted(set(added) - {each["b"] for each in renamed}),
        "removed": sorted(set(removed) - {each["a"] for each in renamed}),
        "renamed": renamed,
        "table": [{"class": label, "a": a, "b": b, "splits": by_class[label]} for label, a, b in totals.iter_rows()],
    }


def _renamed(both: _Both, removed: pl.Series, added: pl.Series, totals: pl.DataFrame) -> Iterator[dict]:
    """Classes of A that B has under another name: more than half of the images of each are those of the other."""
    if removed.is_empty() or added.is_empty():
        return
    went = both.with_("label", "status").filter(
        pl.col("label_a").is_in(removed.implode()), pl.col("label_b").is_in(added.implode()),
        pl.col("status_a") == "accepted", pl.col("status_b") == "accepted",
    )  # fmt: skip
    sizes = {label: max(a, b) for label, a, b in totals.iter_rows()}
    for a, b, images in went.group_by("label_a", "label_b").len().sort("label_a", "label_b").iter_rows():
        if 2 * images > max(sizes[a], sizes[b]):
            yield {"a": a, "b": b, "images": images}


def _splits(both: _Both, b: Version) -> dict:
    """How many accepted images each split has, and those that are in both versions and changed theirs."""
    counts = {
        side: dict(images["split"].drop_nulls().value_counts().iter_rows()) for side, images in both.images.items()
    }
    moved = both.with_("split").filter(pl.col("split_a") != pl.col("split_b"))
    moves = dict(((a, b), n) for a, b, n in moved.group_by("split_a", "split_b").len().iter_rows())
    return {
        "table": [{"split": split, "a": counts["a"].get(split, 0), "b": counts["b"].get(split, 0)} for split in SPLITS],
        "moves": [{"from": a, "to": b, "images": moves[a, b]} for a in SPLITS for b in SPLITS if (a, b) in moves],
        "unpinned": _noted(_unpinned(both, b)),
    }


def unpinned(a: Version, b: Version) -> list[dict]:
    """Return the images of A's test in B's train or val which neither a table, a pin nor a folder put there."""
    return _noted(_unpinned(_Both(a.images, b.images, match(a.images, b.images)), b))


def _unpinned(both: _Both, b: Version) -> pl.DataFrame:
    """As `unpinned`, with more columns."""
    table = both.with_("path", "split")
    if groups.setting(b).get("by") == "folder":
        return table.clear().with_columns(detail=pl.lit(""))
    given = b.images[cells.SPLIT] if cells.SPLIT in b.images.columns else pl.Series([None] * len(b.images))
    table = table.with_columns(given=given.cast(pl.String)[table["row_b"]] if len(given) else pl.lit(None, pl.String))
    went = table.filter(pl.col("split_a") == "test", pl.col("split_b").is_in([TRAIN, "val"]), pl.col("given").is_null())
    return went.with_columns(detail=pl.format("test -> {}", "split_b"))
