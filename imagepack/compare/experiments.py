"""Every DVC experiment beside what is checked out: which used the same data, and what came of it."""

import json
import math
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagepack.compare.words import columns, first_few, plural, shorten, value
from imagepack.dvc import git, repository
from imagepack.dvc.git import GitError
from imagepack.errors import InputError
from imagepack.names import visible

REPORTS = ("reports/pack.json", "reports/validation.json")
"""Of this pipeline; what they say has columns of its own, and is no result of a model."""
PARAMS = "params.yaml"
ALWAYS = 2
"""Columns of the table that it always has: data and run."""
NAMED = 20
"""Columns that a note below the table names."""
NO_DATA = "?"
"""Letter of the runs whose pack is not known."""
HOW = "make one: dvc exp run -n NAME -S preprocess.size=64"


def table(repo: Path, sort_by: str | None = None, ascending: bool = False) -> dict:
    """All experiments, HEAD, and the workspace where it differs from HEAD; nothing is fetched but metrics kept in DVC.

    Runs with the same pack stand together. Without `sort_by`: HEAD's data first, and in a group by name; with it the
    best run of a group first, and groups by their best run; runs without that metric last.

    Args:
        repo: a folder of a git repository with DVC.
        sort_by: a metric: `accuracy`, or with its file where several have it, `metrics.json:accuracy`; with dots for
            what is inside, `test.accuracy`.
        ascending: whether less is better.

    Returns:
        {"schema_version": 1, "sort_by": "file:metric" or None, "warnings": [sentences],
         "data": [{"data": "A", "digest": str or None, "runs": int}, ...],
         "params": [names that differ between runs], "metrics": ["file:metric", ...],
         "runs": [{"name", "revision" (None: workspace), "data": "A", "files", "accepted", "rejected" (int or None),
         "split": {"train": int, ...} or None, "params": {name: value}, "metrics": {"file:metric": value}}, ...]},
        runs in order, all of what is in "params" and "metrics" has its place in each run, None where a run lacks it.

    Raises:
        InputError: no repository, no experiment, no such metric, one that is in several files.
    """
    runs = _runs(repo)
    params = _names(runs, "params", differing=True)
    metrics = _names(runs, "metrics")
    key = _metric(sort_by, metrics) if sort_by else None
    groups = _grouped(runs, key, ascending)
    data = [{"data": letter, "digest": group[0]["digest"], "runs": len(group)} for letter, group in groups]
    return {
        "schema_version": 1,
        "sort_by": key,
        "warnings": [
            f"{run['name']}: cannot be read: {', '.join(run['unreadable'])}" for run in runs if run["unreadable"]
        ],
        "data": data,
        "params": params,
        "metrics": metrics,
        "runs": [_entry(run, letter, params, metrics) for letter, group in groups for run in group],
    }


def text(found: dict, width: int = 100) -> str:
    """A table for a terminal, a line a run, of what `table` returns: what differs between runs, params first.

    What is the same in all runs is said once, below the table, as are columns that do not fit.

    Args:
        found: of `table`.
        width: columns, 40 or more.
    """
    table = [[visible(cell) for cell in column] for column in _columns(found)]
    same = [column for column in table[ALWAYS:] if len({*column[1:]}) == 1 < len(found["runs"])]
    table = [column for column in table if column not in same]
    wide = [min(max(map(columns, column)), 30) for column in table]
    fits = next((i for i in range(len(wide), ALWAYS, -1) if sum(wide[:i]) + 2 * (i - 1) <= width), ALWAYS)
    lines = ["  ".join(map(_pad, line, wide)).rstrip() for line in zip(*table[:fits], strict=True)]
    notes = [("The same in all runs", [f"{name} {cell}" for name, cell, *_ in same])]
    notes += [("Too narrow for", [column[0] for column in table[fits:]])]
    for title, names in notes:
        lines += ["", *textwrap.wrap(f"{title}: {first_few(names, NAMED)}", width)] if names else []
    lines += ["", *(_about(group) for group in found["data"]), *map(visible, found["warnings"])]
    return "".join(f"{shorten(line, width)}\n" for line in lines)


def _columns(found: dict) -> list[list[str]]:
    """Each column, its name and a cell a run; what was sorted by and the params that differ come first."""
    runs, metrics = found["runs"], _ordered(found)
    measured = [[_short(name, metrics), *(value(run["metrics"][name]) for run in runs)] for name in metrics]
    first = 1 if found["sort_by"] else 0
    splits = [[value((run["split"] or {}).get(name)) for name in ("train", "val", "test")] for run in runs]
    return [
        ["data", *(run["data"] for run in runs)],
        ["run", *(run["name"] for run in runs)],
        *measured[:first],
        *([name, *(value(run["params"][name]) for run in runs)] for name in found["params"]),
        *measured[first:],
        ["images", *(value(run["accepted"]) for run in runs)],
        ["rejected", *(value(run["rejected"]) for run in runs)],
        ["train/val/test", *map("/".join, splits)],
    ]


def _about(group: dict) -> str:
    if group["digest"] is None:
        return f"{NO_DATA}: {plural(group['runs'], 'run')} without a pack"
    return f"data {group['data']}: {plural(group['runs'], 'run')}, pack {group['digest'][:12]}"


def _ordered(found: dict) -> list[str]:
    """The metrics, the one sorted by first."""
    return sorted(found["metrics"], key=lambda name: name != found["sort_by"])


def _short(name: str, names: list[str]) -> str:
    """A metric without its file where no other file has it."""
    metric = name.split(":", 1)[1]
    return metric if sum(other.split(":", 1)[1] == metric for other in names) == 1 else name


def _pad(cell: str, width: int) -> str:
    cell = shorten(cell, width)
    return cell + " " * (width - columns(cell))


def _entry(run: dict, letter: str, params: list[str], metrics: list[str]) -> dict:
    return {
        "name": run["name"],
        "revision": run["revision"],
        "data": letter,
        **{key: run[key] for key in ("files", "accepted", "rejected", "split")},
        "params": {name: run["params"].get(name) for name in params},
        "metrics": {name: run["metrics"].get(name) for name in metrics},
    }


def _grouped(runs: list[dict], key: str | None, ascending: bool) -> list[tuple[str, list[dict]]]:
    """Letter and runs of each group of the same data, both in order."""
    runs = sorted(runs, key=lambda run: _rank(run, key, ascending))
    groups: dict[str | None, list[dict]] = {}
    for run in runs:
        groups.setdefault(run["digest"], []).append(run)
    unknown = groups.pop(None, None)
    lettered = [(_letter(i), group) for i, group in enumerate(groups.values())]
    return lettered + ([(NO_DATA, unknown)] if unknown else [])


def _rank(run: dict, key: str | None, ascending: bool) -> tuple:
    """What is no number last; then HEAD and the workspace before experiments, those by name."""
    first = (run["place"], run["name"], run["revision"] or "")
    number = run["metrics"].get(key) if key else None
    if isinstance(number, bool) or not isinstance(number, int | float):
        return (1, 0, *first)
    return (0, number if ascending else -number, *first)


def _letter(i: int) -> str:
    """A ... Z, AA ..."""
    return (_letter(i // 26 - 1) if i >= 26 else "") + chr(ord("A") + i % 26)


def _metric(wanted: str, names: list[str]) -> str:
    """The one metric that is meant."""
    found = [name for name in names if wanted in (name, name.split(":", 1)[1])]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"metric {visible(wanted)!r} is in several files: say {' or '.join(map(visible, found))}")
    known = ", ".join(map(visible, names)) or "none"
    raise InputError(f"no metric {visible(wanted)!r} in any run; there are: {known}")


def _names(runs: list[dict], key: str, differing: bool = False) -> list[str]:
    """Names of params or metrics that any run has, in order; on demand only those with several values."""
    names = sorted({name for run in runs for name in run[key]})
    if not differing:
        return names
    return [name for name in names if len({json.dumps(run[key].get(name), sort_keys=True) for run in runs}) > 1]


def _runs(repo: Path) -> list[dict]:
    """Every run, with all its params and metrics."""
    head, experiments = _experiments(repo)
    named = [("HEAD", head, 0), *((name, commit, 2) for commit, name in experiments)]
    revisions = list(dict.fromkeys(commit for _, commit, _ in named))
    shown, reports = repository.experiment_results(repo, revisions), _reports(repo, revisions)
    runs = [_run(name, commit, place, reports[commit], shown[commit]) for name, commit, place in named]
    here = {report: _read(repo / report) for report in REPORTS}
    workspace = _run("workspace", None, 1, here, shown["workspace"])
    same = all(workspace[key] == runs[0][key] for key in workspace.keys() - {"name", "revision", "place"})
    return runs if same else [*runs, workspace]


def _run(name: str, revision: str | None, place: int, reports: dict, shown: Any) -> dict:
    pack, validation = (reports[report] for report in REPORTS)
    digest = pack.get("digest")
    params, metrics = ({}, {}) if shown.data is None else (shown.data.params, shown.data.metrics)
    return {
        "name": name,
        "revision": revision,
        "place": place,
        "digest": digest if isinstance(digest, str) else None,
        "split": pack.get("split"),
        **{key: validation.get(key) for key in ("files", "accepted", "rejected")},
        "params": {param if file == PARAMS else f"{file}:{param}": entry for file, param, entry in _flat_files(params)},
        "metrics": {f"{file}:{metric}": entry for file, metric, entry in _flat_files(metrics) if file not in REPORTS},
        "unreadable": [shown.error.msg] if shown.error else sorted(_unreadable(params | metrics)),
    }


def _flat_files(shown: dict) -> Iterator[tuple[str, str, Any]]:
    """File, dotted name and value of each entry; files that could not be read have none."""
    for file, result in shown.items():
        for name, entry in _flat(result.get("data")) if "data" in result else ():
            yield Path(file).as_posix(), name, entry


def _unreadable(shown: dict) -> Iterator[str]:
    """Files that DVC could not read; but not the reports of a pipeline that has not run."""
    for file, result in shown.items():
        if "error" in result and (name := Path(file).as_posix()) not in REPORTS:
            yield name


def _flat(entry: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(entry, dict):
        # JSON has no word for NaN and infinity
        yield prefix or "value", str(entry) if isinstance(entry, float) and not math.isfinite(entry) else entry
        return
    for key, inside in entry.items():
        yield from _flat(inside, f"{prefix}.{key}" if prefix else str(key))


def _experiments(repo: Path) -> tuple[str, list[tuple[str, str]]]:
    """The commit that is checked out; commit and name of every experiment, of any baseline.

    Raises:
        InputError: no repository, or no experiment.
    """
    try:
        head = git.run("rev-parse", "--verify", "HEAD^{commit}", folder=repo).decode().strip()
        references = git.references(repo)
    except (OSError, GitError):
        raise InputError(f"{repo} is no git repository with a commit: run this at the top of one") from None
    found = [(reference.commit, reference.name) for reference in references if reference.kind == "experiment"]
    if not found:
        raise InputError(f"there are no DVC experiments in {repo}: {HOW}")
    return head, found


def _reports(repo: Path, revisions: list[str]) -> dict[str, dict[str, dict]]:
    """By revision: its reports, as git has them; empty where it has none."""
    found: dict[str, dict[str, dict]] = {revision: {} for revision in revisions}
    for report in REPORTS:
        for revision, content in zip(revisions, git.read_files(revisions, report, repo), strict=True):
            found[revision][report] = _json(content or b"")
    return found


def _read(path: Path) -> dict:
    return _json(path.read_bytes()) if path.is_file() else {}


def _json(content: bytes) -> dict:
    try:
        found = json.loads(content)
    except ValueError:  # of a time when there was none, or not by this pipeline
        return {}
    return found if isinstance(found, dict) else {}
