"""What is put beside exported images: a card with the Hub's header, and Croissant where the images stand in Parquet."""

import hashlib
from pathlib import Path

from imagepack.exporting import card, croissant, known, parquet
from imagepack.exporting.card import Facts
from imagepack.exporting.selection import Selection

NAME = "Image dataset"
"""Of one whose owner has not said a name; not the folder's, which is another on another machine."""
USAGE = {
    "imagefolder": """from datasets import load_dataset

dataset = load_dataset("PATH OF THIS FOLDER")  # image, label, id, path and columns of tables
""",
    "webdataset": """import webdataset

samples = webdataset.WebDataset("{first}", shardshuffle=False).decode("pil").to_tuple("{extension}", "{label}")
""",
    "parquet": """from datasets import load_dataset

dataset = load_dataset("PATH OF THIS FOLDER")  # image, label, id, path and columns of tables
""",
}


def write(kind: str, selection: Selection, folder: Path, repo: Path) -> None:
    """Write README.md, and croissant.json beside Parquet.

    The header does not say which files are which split: names say that. If it did, datasets 5.2 would not see that an
    export has been replaced, and load the earlier one from its cache.

    Args:
        kind: of the export: a key of USAGE.
        selection: what was written.
        folder: where.
        repo: the repository.
    """
    version = selection.version
    rows = selection.images["row"].to_numpy()
    facts = Facts(
        version,
        selection.packed.subset(rows),
        known.cited(repo, version, NAME),
        version.revision or "",
        version.date or "",
    )
    usage = f"```python\n{_usage(kind, selection, folder)}```"
    text = card.text(facts, usage, exported=True)
    (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    if kind == "parquet":
        (folder / "croissant.json").write_text(_croissant(selection, facts, folder), encoding="utf-8", newline="\n")


def _usage(kind: str, selection: Selection, folder: Path) -> str:
    first = min((path.name for path in folder.glob("*.tar")), default="")
    label = "cls" if selection.of_classes else "json"
    return USAGE[kind].format(first=first, extension=selection.extensions()[0].removeprefix("."), label=label)


def _croissant(selection: Selection, facts: Facts, folder: Path) -> str:
    """Describe the Parquet files, and a record for each image."""
    paths = sorted(folder.glob("data/*.parquet"))
    files = []
    for path in paths:
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        files.append(croissant.file(path.relative_to(folder).as_posix(), digest, path.stat().st_size))
    parts = {
        "@type": "cr:FileSet",
        "@id": "parquet-files",
        "name": "parquet-files",
        "encodingFormat": croissant.FORMATS["parquet"],
        "includes": "data/*.parquet",
    }
    records = [croissant.classes(selection.classes), _records(selection)]
    return croissant.document(facts, [*files, parts], records)


def _records(selection: Selection) -> dict:
    source = {"fileSet": {"@id": "parquet-files"}}
    split = {"fileProperty": "fullpath"}, {"regex": r"data[/\\](train|validation|test)-"}
    fields = [
        {"@type": "cr:Field", "@id": "images/image", "name": "image", "dataType": "sc:ImageObject",
         "source": source | {"extract": {"column": "image"}, "transform": {"jsonPath": "bytes"}}},
        {"@type": "cr:Field", "@id": "images/split", "name": "split", "dataType": "sc:Text",
         "source": source | {"extract": split[0], "transform": split[1]}},
    ]  # fmt: skip
    for name, feature in parquet.features(selection).items():
        if name != "image":
            fields.append(_field(name, feature, selection, source))
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}


def _field(name: str, feature: dict, selection: Selection, source: dict) -> dict:
    dtype = selection.facts.schema[name]
    more = {"repeated": True} if feature["_type"] == "List" else {}
    if "names" in feature.get("feature", feature):  # the position of a class
        return croissant.field("images", name, "Int64", source, **more)
    return croissant.field("images", name, getattr(dtype, "inner", dtype), source, **more)
