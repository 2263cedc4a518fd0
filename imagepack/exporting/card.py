"""The card of a version: Markdown with the Hub's header, from what the pipeline knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
import yaml

from imagepack.checks.codes import CHECKS
from imagepack.compare.markdown import code
from imagepack.compare.versions import Version
from imagepack.exporting.citation import Citation, license_url
from imagepack.exporting.selection import columns_of, exported_names
from imagepack.images.manifest import COLUMN
from imagepack.names import visible
from imagepack.reader.format import SPLITS
from imagepack.reader.packed_images import PackedImages

CLASSES = 200
"""Listed at most."""
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
LARGEST = "10M<n<100M"
"""How the Hub calls numbers of images."""


@dataclass(frozen=True)
class Facts:
    """What a card is made from.

    Attributes:
        version: of the dataset.
        packed: its pack.
        citation: what its owner says.
        commit, date: that has it; empty where none is named.
        tags: that name this version.
        changes: what happened since the tag before, as a text; empty without one.
        sheets: addresses of contact sheets, by the name of the class.
    """

    version: Version
    packed: PackedImages
    citation: Citation
    commit: str = ""
    date: str = ""
    tags: Sequence[str] = ()
    changes: str = ""
    sheets: dict[str, str] = field(default_factory=dict)

    @property
    def of_classes(self) -> bool:
        labels = self.packed.labels
        return labels.ndim == 1 and labels.dtype.kind in "iu"


def text(facts: Facts, usage: str, exported: bool = False) -> str:
    """Return the card.

    Args:
        facts: what is known.
        usage: how to read it, Markdown.
        exported: whether it is of an export, which has other names for some columns.
    """
    begin = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True, width=1000)
    citation = facts.citation
    parts = [
        f"---\n{begin}---",
        f"# {_plain(citation.title)}",
        _plain(citation.abstract),
        _which(facts),
        "## What is in it",
        _images(facts),
        _classes(facts),
        _columns(facts.version, exported),
        "## How to read it",
        usage,
        "## What was checked",
        _checks(facts.version),
        _findings(facts.version.images),
        *(("## Since the version before", f"```\n{facts.changes.rstrip()}\n```") if facts.changes else ()),
        *(("## Samples", *_sheets(facts.sheets)) if facts.sheets else ()),
        "## Licence and citation",
        *_rights(facts),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(facts: Facts) -> dict:
    count = int((facts.packed.splits < SPLITS.index("excluded")).sum())
    task = {"task_categories": ["image-classification"]} if facts.packed.labels.dtype.kind != "f" else {}
    size = next((name for limit, name in SIZES if count < limit), LARGEST)
    found = {"pretty_name": facts.citation.title} | facts.citation.hub_license() | task
    return found | {"size_categories": [size]} | ({"tags": facts.citation.keywords} if facts.citation.keywords else {})


def _plain(text: str) -> str:
    """Return text that Markdown takes as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>#|~&!" else sign for sign in visible(text))


def _which(facts: Facts) -> str:
    lines = [f"Version {', '.join(map(code, facts.tags))}" if facts.tags else ""]
    lines += [
        f"commit {code(facts.commit)} of {facts.date}" if facts.commit else "",
        f"pack {code(facts.packed.digest)}",
    ]
    return "  \n".join(filter(None, lines))


def _images(facts: Facts) -> str:
    height, width, channels = facts.packed.shape
    colours = "RGB" if channels == 3 else "grey"
    raw = facts.version.images.filter(pl.col("status") == "accepted")
    counts = np.bincount(facts.packed.splits, minlength=len(SPLITS)).tolist()
    formats = raw["format"].value_counts(sort=True).rows()
    rows = [(name, f"{count:,}") for name, count in zip(SPLITS, counts, strict=True) if count or name != "excluded"]
    sides = [raw[side].min() for side in ("width", "height")], [raw[side].max() for side in ("width", "height")]
    sizes = " to ".join(dict.fromkeys(f"{width} x {height}" for width, height in sides))
    return (
        _table(("split", "images"), rows)
        + f"\n\nEach image has {width} x {height} pixels, {colours}, 8 bits a channel. They were made from "
        f"{', '.join(f'{count:,} {name}' for name, count in formats)} files of {sizes} pixels."
    )


def _classes(facts: Facts) -> str:
    names, labels = facts.packed.classes, facts.packed.labels
    if labels.dtype.kind == "f":
        return f"Numbers are to be predicted, in this order: {', '.join(map(code, names[:CLASSES]))}."
    splits = np.unique(facts.packed.splits)
    rows = []
    for number, name in enumerate(names[:CLASSES]):
        mine = labels[:, number] if labels.ndim == 2 else labels == number
        counts = np.bincount(facts.packed.splits[mine], minlength=len(SPLITS))
        rows.append((code(name), *(f"{count:,}" for count in counts[splits]), f"{counts.sum():,}"))
    if len(names) > CLASSES:
        rows.append((f"... and {len(names) - CLASSES} more", *[""] * (len(splits) + 1)))
    several = "\n\nAn image may have several of them." if labels.ndim == 2 else ""
    return _table(("class", *(SPLITS[split] for split in splits), "all"), rows) + several


def _columns(version: Version, exported: bool) -> str:
    images = version.images.filter(status="accepted")
    names = columns_of(images)
    if not names:
        return ""
    rows = [
        (code(new), str(images.schema[COLUMN + name]).lower(), f"{images[COLUMN + name].null_count():,}")
        for name, new in zip(names, exported_names(names) if exported else names, strict=True)
    ]
    return "Of each image is also known:\n\n" + _table(("column", "type", "empty"), rows)


def _checks(version: Version) -> str:
    params = version.lock["validate"].params.get("params.yaml", {}).get("validate") or {}
    levels = {name: check.level for name, check in CHECKS.items()} | (params.get("levels") or {})
    ran = sum(level != "ignore" for level in levels.values())
    images = version.images
    accepted, excluded = images.filter(status="accepted"), images.filter(split="excluded")
    return (
        f"Every file was decoded in full, and {ran} checks looked at it. Of {len(images):,} images {len(accepted):,} "
        f"were accepted and {len(images) - len(accepted):,} rejected. In no split, since they look like one of test or "
        f"val: {len(excluded):,}."
    )


def _findings(images: pl.DataFrame) -> str:
    found = images.explode("issues").drop_nulls("issues").filter(pl.col("issues") != "")
    counts = found.group_by("issues").agg(
        pl.len(), (pl.col("status") == "rejected").sum().alias("rejected")
    ).sort("len", "issues", descending=[True, False])  # fmt: skip
    rows = [
        (code(name), f"{count:,}", f"{rejected:,}", CHECKS[name].meaning.replace("|", "\\|") if name in CHECKS else "")
        for name, count, rejected in counts.iter_rows()
    ]
    return _table(("finding", "images", "of them rejected", "the file or class ..."), rows) if rows else ""


def _sheets(sheets: dict[str, str]) -> Iterator[str]:
    for name, address in sheets.items():
        yield f"{code(name)}\n\n![{_plain(name)}]({address})"


def _rights(facts: Facts) -> Iterator[str]:
    citation = facts.citation
    names = [f"[{_plain(name)}]({license_url(name)})" for name in citation.licenses]
    yield f"Licence: {', '.join(names)}" if names else "Licence: not said."
    yield f"Authors: {_plain(', '.join(citation.authors))}" if citation.authors else ""
    if citation.authors:
        yield f"Cite as: {_plain(citation.reference(facts.date[:4]))}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
