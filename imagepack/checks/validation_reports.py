"""What validate tells people: metrics, rejected files, plots, and whether to go on."""

import json
from pathlib import Path

import polars as pl

from imagepack.checks.codes import Checks
from imagepack.checks.gate import Acknowledged
from imagepack.checks.overview import ranges
from imagepack.checks.table_checks import unclaimed
from imagepack.engine.params import Section
from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from imagepack.names import counted, visible

FORMULA = r"[=+\-@＝＋－＠\t\r\n']"
"""How a cell begins that a spreadsheet may run (OWASP, CSV injection); and the apostrophe that is put before it."""
LARGE_GROUP = 100
"""Images; a group as large is mostly a film or a series, of which one would choose a few."""
FEW = 5
"""Lines of data/acknowledged.csv that the summary names."""


def write(table: pl.DataFrame, findings: pl.DataFrame, checks: Checks, reports: Path) -> None:
    """Write validation.json (metrics), rejected.csv, and what the plots show; docs/output.md has the columns.

    Args:
        table: the manifest.
        findings: path, code, seen and level, a row each.
        checks: by code.
        reports: the folder.
    """
    plots = reports / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    accepted = manifests.accepted(table)
    metrics = {
        "files": len(table),
        "accepted": len(accepted),
        "rejected": len(table) - len(accepted),
        **_predicted(accepted),
        "issues": dict(findings["code"].value_counts().sort("code").iter_rows()),
        "near_duplicates": near_duplicates(table),
    }
    (reports / "validation.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8", newline="\n")
    fix = pl.col("code").replace_strict({code: check.fix for code, check in checks.items()}, return_dtype=pl.String)
    rejected = findings.filter(pl.col("level") == "error").select("path", "code", "seen", fix=fix)
    without_formulas(rejected.sort("path", "code")).write_csv(reports / "rejected.csv")
    without_formulas(classes_or_ranges(accepted)).write_csv(plots / "classes.csv")
    sides = pl.col("width", "height").round_sig_figs(2).cast(pl.Int32)  # so that the table stays small
    sizes = accepted.group_by(sides).len("images").sort("images", "width", "height", descending=True)
    sizes.head(1000).write_csv(plots / "sizes.csv")


def _predicted(accepted: pl.DataFrame) -> dict:
    """Return how many classes or labels there are, or what numbers."""
    kind = manifests.label_kind(accepted.columns)
    if kind == "numbers":
        return {"numbers": _of_numbers(accepted)}
    return {"classes" if kind == "class" else "labels": manifests.by_label(accepted)["label"].n_unique()}


def _of_numbers(accepted: pl.DataFrame) -> dict[str, dict]:
    """Return least, mean and greatest of each number to be predicted, by its column."""
    found = {}
    for name in manifests.predicted(accepted.columns):
        if len(accepted):
            cells = accepted[name].cast(pl.Float64)
            told = {"min": cells.min(), "mean": cells.mean(), "max": cells.max()}
            found[name.removeprefix(manifests.NUMBER)] = {key: float(f"{value:.6g}") for key, value in told.items()}
    return found


def classes_or_ranges(accepted: pl.DataFrame) -> pl.DataFrame:
    """Return label and images: how many have each class or label; of numbers, how many lie in each range."""
    if manifests.label_kind(accepted.columns) != "numbers":
        return manifests.images_by_label(accepted)
    rows = []
    for name in manifests.predicted(accepted.columns):
        edges, counts = ranges(accepted[name])
        for number, count in enumerate(counts):  # its number, since DVC's plots sort by text
            low, high = edges[number : number + 2]
            rows.append((f"{name.removeprefix(manifests.NUMBER)} {number + 1:02}: {low:g} to {high:g}", count))
    return pl.DataFrame(rows, schema={"label": pl.String, "images": pl.UInt32}, orient="row")


def without_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Put an apostrophe before each text that begins as FORMULA says: spreadsheets then show it, and do not run it."""
    return table.with_columns(pl.col(pl.String).str.replace(f"^({FORMULA})", "'$1"))


def read_rejected(path: Path) -> pl.DataFrame:
    """Return the columns path, code, seen and fix of rejected.csv, without the apostrophes for spreadsheets.

    Raises:
        polars.exceptions.PolarsError: it is no such table.
    """
    columns = dict.fromkeys(("path", "code", "seen", "fix"), pl.String)
    table = pl.read_csv(path, schema=columns)
    return table.with_columns(pl.col(pl.String).fill_null("").str.replace(f"^'({FORMULA})", "$1"))


def near_duplicates(table: pl.DataFrame) -> dict[str, int]:
    """How many groups of accepted images that look alike there are, with how many images, and in the largest."""
    sizes = table["group"].filter(table["group"] != "").value_counts()["count"]
    return {"groups": len(sizes), "images": int(sizes.sum()), "largest": int(sizes.max() or 0)}


def summary(table: pl.DataFrame, reports: Path) -> str:
    """Return how many files were accepted and rejected, in words."""
    counts = dict(table["status"].value_counts().iter_rows())
    what = "image" if (table["frame"] > 1).any() else "file"
    return (
        f"{counted(len(table), what)} {_in_classes(table)}: {counts['accepted']} accepted, "
        f"{counts.get('rejected', 0)} rejected (see {reports / 'validation.html'})"
    )


def _in_classes(table: pl.DataFrame) -> str:
    """Return `in 8 classes`, `with 8 labels`, or the numbers that are predicted."""
    accepted = manifests.accepted(table)
    classes = manifests.by_label(accepted)["label"].n_unique()
    match manifests.label_kind(table.columns):
        case "class":
            return f"in {counted(classes, 'class')}"
        case "multilabel":
            return f"with {counted(classes, 'label')}"
    found = list(_of_numbers(accepted).items())
    told = [f"{visible(name)} {each['min']:g} to {each['max']:g}" for name, each in found[:FEW]]
    return f"with {', '.join(told)}" + (f" and {len(found) - FEW} more numbers" if len(found) > FEW else "")


def notes(table: pl.DataFrame, findings: pl.DataFrame, ignored: int, said: Acknowledged, acknowledged: Path) -> str:
    """Return what else there is to say of a run, for the end of its summary; mostly empty.

    Args:
        ignored: how many files .dvcignore leaves out.
        said: what the file `acknowledged` says.
    """
    found = [f"{ignored} more left out by .dvcignore"] if ignored else []
    if (largest := near_duplicates(table)["largest"]) > LARGE_GROUP:
        found.append(f"{largest} images that look alike form one group, of which one split alone can have any")
    if note := unclaimed(table):
        found.append(note)
    labels = table["label"].filter(table["status"] == "accepted").unique()
    if len(labels) == 1 and manifests.label_kind(table.columns) == "class":
        found.append(
            f"one class, {visible(labels[0])}: labels.column in params.yaml may name a table's column of labels"
        )
    if useless := said.useless(said.kept(table), findings):
        more = f" and {len(useless) - FEW} more" if len(useless) > FEW else ""
        found.append(f"nothing to keep any more: remove {', '.join(useless[:FEW])}{more} from {acknowledged}")
    return "".join(f"; {note}" for note in found)


def knobs(table: pl.DataFrame, findings: pl.DataFrame, checks: Checks, params: Section) -> list[str]:
    """Of each code with a knob for which at least half of the files of `table` are rejected: how many, and what to do.

    Args:
        table: rows of the manifest, of files that are rejected, all of them.
        findings: path, code and level, a row each.
        checks: by code.
        params: the values.
    """
    errors = findings.filter(pl.col("level") == "error").join(table.select("path"), on="path", how="semi")
    counts = errors.group_by("code").agg(pl.col("path").n_unique()).sort("code")
    return [
        f"{count} of {len(table)} are {code}, and "
        f"validate.{checks[code].knob} is {getattr(params, checks[code].knob)} in params.yaml: {checks[code].fix}"
        for code, count in counts.iter_rows()
        if 2 * count >= len(table) and checks[code].knob
    ]


def require_every_class(
    table: pl.DataFrame, findings: pl.DataFrame, rejected: Path, checks: Checks, params: Section
) -> None:
    """Refuse a dataset that has lost a class, or everything; where one knob of params.yaml did it, name that."""
    kept = pl.col("status") == "accepted"
    labels = manifests.by_label(table.filter(pl.col("label") != ""))
    lost = labels.group_by("label").agg(kept.any(), pl.len()).filter(~pl.col("status"))
    if not table.select(kept.any()).item():
        codes = (
            findings.filter(pl.col("level") == "error")["code"].value_counts().sort("count", "code", descending=True)
        )
        most = ", ".join(f"{code} ({n})" for code, n in codes.iter_rows())
        why = "".join(f"\n  {knob}" for knob in knobs(table, findings, checks, params))
        raise InputError(
            f"none of {counted(len(table), 'file')} is an image that can be used: {most}. {rejected} names each{why}"
        )
    if len(lost):
        lines = []
        for label, n in lost.sort("label").select("label", "len").iter_rows():
            lines.append(f"  {visible(label)}: {'its only file is' if n == 1 else f'all {n} files'} rejected")
            own = labels.filter(pl.col("label") == label)
            lines += [f"    {knob}" for knob in knobs(own, findings, checks, params)]
        raise InputError(
            "\n".join(["these classes have no image left:", *lines])
            + f"\n{rejected} says why: mend the files, or remove the folder of a class you do not want"
            + ", or the label from the table" * (manifests.label_kind(table.columns) == "multilabel")
        )
