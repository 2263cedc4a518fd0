"""Croissant: a dataset's metadata as JSON-LD, for mlcroissant and search engines; mlcommons.org/croissant/1.0."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from imagepack.exporting.card import Facts
from imagepack.exporting.citation import license_url

CONFORMS_TO = "http://mlcommons.org/croissant/1.0"
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{name: f"cr:{name}" for name in (
        "citeAs", "column", "equivalentProperty", "extract", "field", "fileProperty", "fileObject", "fileSet", "format",
        "includes", "isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references",
        "regex", "repeated", "replace", "samplingRate", "separator", "source", "subField", "transform",
    )},
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "sc": "https://schema.org/",
}  # fmt: skip
"""The specification's."""
TYPES = {"Int64": "sc:Integer", "Int32": "sc:Integer", "Float64": "sc:Float", "Float32": "sc:Float",
         "Boolean": "sc:Boolean", "Date": "sc:Date"}  # fmt: skip
"""By polars' types; all others are texts."""
FORMATS = {"parquet": "application/x-parquet", "h5": "application/x-hdf5"}


@dataclass(frozen=True)
class File:
    """A file of the dataset.

    Attributes:
        path: relative to the document, or in the repository.
        sha256: hexadecimal.
        bytes: its size.
    """

    path: str
    sha256: str
    bytes: int


def document(facts: Facts, distribution: list[dict], record_sets: list[dict]) -> str:
    """Return the document.

    Args:
        facts: what the card says.
        distribution: files, as `file` and `folder` describe them.
        record_sets: what is in them.
    """
    citation = facts.citation
    found = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": citation.title,
        "description": citation.abstract or f"Images of {len(facts.packed.classes)} classes.",
        "conformsTo": CONFORMS_TO,
        "license": [license_url(name) for name in citation.licenses],
        "url": citation.url or (f"https://doi.org/{citation.doi}" if citation.doi else ""),
        "creator": [{"@type": "sc:Person", "name": name} for name in citation.authors],
        "keywords": citation.keywords,
        "citeAs": citation.reference(facts.date[:4]) if citation.authors else "",
        "datePublished": citation.released or facts.date,
        "version": next((tag.removeprefix("v") for tag in facts.tags if re.fullmatch(r"v?\d+(\.\d+)*", tag)), "")
        or citation.version,
        "distribution": distribution,
        "recordSet": [*record_sets],
    }
    return json.dumps({k: v for k, v in found.items() if v not in ("", [])}, indent=1, ensure_ascii=False) + "\n"


def file(path: str, sha256: str, size: int) -> dict:
    """Return what describes a file."""
    return {
        "@type": "cr:FileObject",
        "@id": path,
        "name": path.rpartition("/")[2],
        "contentUrl": path,
        "contentSize": f"{size} B",
        "encodingFormat": FORMATS[path.rpartition(".")[2]],
        "sha256": sha256,
    }


def classes(names: Sequence[str]) -> dict:
    """Return the record set of the classes: number and name."""
    fields = [("label", "sc:Integer"), ("name", "sc:Text")]
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/label"},
        "field": [
            {"@type": "cr:Field", "@id": f"classes/{name}", "name": name, "dataType": kind} for name, kind in fields
        ],
        "data": [{"classes/label": number, "classes/name": name} for number, name in enumerate(names)],
    }


def field(records: str, name: str, dtype: object, source: dict, **more: object) -> dict:
    """Return a field of a record set, which stands in a column of a file or of several.

    Args:
        records: name of the record set.
        name: of the field, and of the column.
        dtype: polars'.
        source: {"fileObject": {"@id": ...}} or {"fileSet": {"@id": ...}}.
        more: what else is to be said of it.
    """
    kind = TYPES.get(str(dtype), "sc:Text")
    found = {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name, "dataType": kind}
    return found | {"source": source | {"extract": {"column": name}}} | more
