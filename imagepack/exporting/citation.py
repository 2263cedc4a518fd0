"""What CITATION.cff says of the dataset: title, licence, authors; the one place where its owner writes that.

Citation File Format 1.2: https://github.com/citation-file-format/citation-file-format
"""

from dataclasses import dataclass, field

import yaml

from imagepack.errors import InputError

FILE = "CITATION.cff"
HUB_LICENSES = """
    afl-3.0 agpl-3.0 apache-2.0 artistic-2.0 bsd bsd-2-clause bsd-3-clause bsl-1.0 cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0
    cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0
    cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0 cdla-sharing-1.0
    ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 gfdl gpl gpl-2.0 gpl-3.0 isc lgpl lgpl-2.1 lgpl-3.0 mit mpl-2.0 ms-pl ncsa odbl
    odc-by ofl-1.1 osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
"""Which the Hub has a name for, mostly SPDX's in small letters; huggingface.co/docs/hub/repositories-licenses."""
HUB_NAMES = {"odc-by-1.0": "odc-by", "odbl-1.0": "odbl", "pddl-1.0": "pddl"}


@dataclass(frozen=True)
class Citation:
    """What the owner of a dataset says of it; empty where nothing.

    Attributes:
        title: its name.
        abstract: what it is, in a few sentences.
        authors: names.
        licenses: SPDX's names.
        doi, url, version, released: as the file has them.
    """

    title: str = ""
    abstract: str = ""
    authors: list[str] = field(default_factory=list)
    licenses: list[str] = field(default_factory=list)
    keywords: list[str] = field(default_factory=list)
    doi: str = ""
    url: str = ""
    version: str = ""
    released: str = ""

    def hub_license(self) -> dict[str, str]:
        """Return the fields of the Hub's header that say the licence; none where there is no licence."""
        if not self.licenses:
            return {}
        names = [HUB_NAMES.get(name.lower(), name.lower()) for name in self.licenses]
        if all(name in HUB_LICENSES.split() for name in names):
            return {"license": names[0] if len(names) == 1 else names}
        return {"license": "other", "license_name": "-".join(names), "license_link": license_url(self.licenses[0])}

    def reference(self, year: str) -> str:
        """Return a line to cite it by, in the order of most styles."""
        parts = ["; ".join(self.authors), f"({self.released[:4] or year})" if self.authors else "", f"{self.title}."]
        parts += [f"Version {self.version}." if self.version else "", f"https://doi.org/{self.doi}" if self.doi else ""]
        return " ".join(filter(None, [*parts, self.url if not self.doi else ""]))


def license_url(name: str) -> str:
    """Return where SPDX has the licence's text."""
    return f"https://spdx.org/licenses/{name}.html"


def parse(content: bytes | None, name: str) -> Citation:
    """Return what a CITATION.cff says of a dataset; of a file that speaks of software, nothing but the `name`.

    Args:
        content: of the file; None without one.
        name: of the dataset, where the file has none.

    Raises:
        InputError: it cannot be read.
    """
    try:
        found = yaml.safe_load(content or b"") or {}
    except yaml.YAMLError as error:
        raise InputError(f"{FILE} is no YAML ({' '.join(str(error).split())}): mend it") from None
    if not isinstance(found, dict):
        raise InputError(f"{FILE} holds no keys with values: write it as citation-file-format.github.io says")
    if found.get("type") != "dataset":
        return Citation(title=name)
    return Citation(
        title=_text(found, "title") or name,
        abstract=_text(found, "abstract"),
        authors=[author for each in _list(found, "authors") if (author := _author(each))],
        licenses=[str(each) for each in _list(found, "license")],
        keywords=[str(each) for each in _list(found, "keywords")],
        doi=_text(found, "doi"),
        url=_text(found, "url") or _text(found, "repository"),
        version=_text(found, "version"),
        released=_text(found, "date-released"),
    )


def _text(found: dict, key: str) -> str:
    value = found.get(key)
    return " ".join(str(value).split()) if value is not None else ""


def _list(found: dict, key: str) -> list:
    value = found.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


def _author(author: object) -> str:
    """Return the name of a person or an organisation."""
    if not isinstance(author, dict):
        return str(author)
    person = [author.get(key) for key in ("given-names", "name-particle", "family-names", "name-suffix")]
    return " ".join(str(part) for part in person if part) or str(author.get("name") or author.get("alias") or "")
