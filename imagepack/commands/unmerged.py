"""What git could not merge: folders of images are merged image by image, what the pipeline writes is made anew.

What is left is named, all at once, each with the command that decides it. It does not matter what has come to the
conflict: `python3 run.py merge`, a `git merge`, pull, rebase or stash pop.
"""

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from imagepack.commands import s3
from imagepack.dvc import git, list_merge, lock_files, raw_data, repository, table_merge
from imagepack.dvc.list_merge import Conflict, DvcFile, Listing, ListMissing, Merge, NotMergeable
from imagepack.names import visible

CHOICES = Path(".dvc/tmp/run-py-merge-choices.json")
"""The sides that the user has chosen, by .dvc file: `of`, the three versions that they are of, and a side by path."""
BASE, OURS, THEIRS = 1, 2, 3
SHOWN = 20


@dataclass(frozen=True)
class Folder:
    """A folder that both sides changed.

    Attributes:
        name: of its .dvc file.
        path: of the folder.
        of: which three versions are merged.
        undecided: all conflicts, also those for which a side has been chosen.
    """

    name: str
    path: str
    of: str
    merge: Merge
    files: tuple[DvcFile | None, DvcFile, DvcFile]
    undecided: list[Conflict]


def settle() -> list[str]:
    """Merge what can be merged without the user; return what is left, each with the fix, or nothing."""
    left = git.unmerged()
    for path in _made_anew(left):
        _take_ours(path, left.pop(path))
    if not left:
        raw_data.end_merge()
        return []
    faults, usual = [], [path for path in left if not path.endswith(".dvc")]
    if ".dvc/config" in usual:  # DVC cannot be asked
        return [_usual(usual)]
    with closing(repository.open_repo(Path.cwd())) as repo:
        for path, stages in left.items():
            if path in usual:
                continue
            try:
                folder = open_folder(repo, path, stages)
                if folder.merge.conflicts:
                    faults.append(describe(folder))
                else:
                    _write(repo, folder)
            except NotMergeable as reason:
                faults.append(f"{visible(path)} is not merged by image, since {reason}: {_sides(path)}")
            except ListMissing as reason:
                faults.append(f"{visible(path)}: {reason}")
            except Exception as error:  # noqa: BLE001  (of whatever library reaches the remote, which has a list)
                faults.append(f"{visible(path)}: {s3.explain() or error}")
    if usual:
        faults.append(_usual(usual))
    if not faults:
        raw_data.end_merge()
    return faults


def _usual(paths: list[str]) -> str:
    """What to do with files that are git's alone."""
    listed = "\n".join(f"  {visible(path)}" for path in paths)
    return f"git found a conflict in\n{listed}\nEdit, then git add, each of them, then {go_on()}"


def folders(repo: repository.Repo) -> Iterator[Folder]:
    """Yield the folders that git could not merge and that can be merged file by file."""
    for path, stages in git.unmerged().items():
        if path.endswith(".dvc"):
            try:
                yield open_folder(repo, path, stages)
            except NotMergeable:
                continue


def open_folder(repo: repository.Repo, path: str, stages: Mapping[int, str]) -> Folder:
    """Merge a folder as far as that goes.

    Args:
        repo: DVC's.
        path: of the .dvc file, from this folder.
        stages: of git.unmerged.

    Raises:
        NotMergeable: the .dvc file cannot be merged file by file.
        ListMissing: what a version has is not known here.
    """
    if path.startswith("../"):
        raise NotMergeable("it is outside of this folder")
    if not {OURS, THEIRS} <= stages.keys():
        raise NotMergeable("one side removed it")
    texts = {stage: git.run("cat-file", "blob", blob) for stage, blob in stages.items()}
    ours, theirs = DvcFile(texts[OURS], "our side"), DvcFile(texts[THEIRS], "their side")
    try:
        base = DvcFile(texts[BASE], "the version before both") if BASE in texts else None
        before = base.listing(repo) if base else {}
    except NotMergeable:  # of several last common versions git, without our merge driver, makes one with conflicts
        base, before = None, _common(repo, path)
    of = " ".join(blob for _, blob in sorted(stages.items()))
    listings, chosen = (before, ours.listing(repo), theirs.listing(repo)), choices(path, of)
    merge = plain = Merge(*listings)
    table_merge.settle(repo, plain, theirs.remote)
    if chosen:
        merge = Merge(*listings, chosen)
        table_merge.settle(repo, merge, theirs.remote)
        merge.cells |= plain.cells
    place = (Path(path).parent / str(ours.out["path"])).as_posix()
    return Folder(path, place, of, merge, (base, ours, theirs), plain.conflicts)


def _common(repo: repository.Repo, path: str) -> Listing:
    """What all last common versions of both sides have."""
    listings = []
    for commit in git.lines("merge-base", "--all", "HEAD", git.other_side() or "HEAD"):
        if text := git.text("show", f"{commit}:./{path}"):
            listings.append(DvcFile(text, commit[:9]).listing(repo))
    first, *others = listings or [{}]
    return {path: md5 for path, md5 in first.items() if all(other.get(path) == md5 for other in others)}


def _write(repo: repository.Repo, folder: Folder) -> None:
    text = list_merge.write(repo, folder.merge, *folder.files)
    Path(folder.name).write_text(text, encoding="utf-8", newline="\n")
    if Path(folder.name) == lock_files.RAW_DVC:
        raw_data.begin_pull()
    git.run("add", "--", folder.name)


def summary(merge: Merge, outcome: Listing) -> str:
    """Return what a merge with this outcome brought to our side."""
    text = f"Images here: {list_merge.changes(merge.ours, outcome)}"
    for before, ours, theirs in merge.moved_twice():
        text += visible(f"\n  {before} was moved to {ours} by ours and to {theirs} by theirs: it is in both now")
    return text


def describe(folder: Folder) -> str:
    """Return the conflicts of a folder, and how to decide them."""
    found = folder.merge.conflicts
    rows = [line for conflict in found[:SHOWN] for line in lines_of(folder, conflict)]
    if len(found) > SHOWN:
        rows.append(f"  ... and {len(found) - SHOWN} more: python3 run.py resolve lists them")
    first = visible(shlex.quote(f"{folder.path}/{found[0].path}"))
    count = f"{len(found)} file{'s' * (len(found) != 1)} of {folder.path}"
    head = f"{count} {'were' if len(found) != 1 else 'was'} changed by both sides, each in another way:"
    ways = {
        "python3 run.py resolve": "lists them, and shows where to look at both versions",
        f"python3 run.py resolve {first} --ours": "or --theirs; of one file, or of several",
        f"python3 run.py resolve {folder.path} --theirs": "of all that have no side yet",
    }
    width = max(map(len, ways))
    lines = [f"  {command:{width}}  # {what}" for command, what in ways.items()]
    return "\n".join([head, *rows, *names_of_sides(), f"Take a side of each, then {go_on()}:", *lines])


def lines_of(folder: Folder, conflict: Conflict) -> list[str]:
    """Return what each side did to a file, a line; and the first cells of a table that are in conflict."""
    cells = folder.merge.cells.get(conflict.path, [])
    more = [f"... and {len(cells) - SHOWN} more"] * (len(cells) > SHOWN)
    head = f"  {folder.path}/{conflict.path}: {what(conflict)}"
    return [visible(head + ":" * bool(cells)), *(f"    {line}" for line in cells[:SHOWN] + more)]


def what(conflict: Conflict) -> str:
    """Return what each side did to a file."""
    _, base, ours, theirs = conflict
    if ours and theirs:
        return "edited by both" if base else "added by both"
    if base:
        return "edited by ours, removed by theirs" if ours else "removed by ours, edited by theirs"
    return f"a file of {'ours' if ours else 'theirs'}, a folder of {'theirs' if ours else 'ours'}"


def names_of_sides() -> list[str]:
    """Return what ours and theirs are, a line each."""
    commits = {"ours": "HEAD", "theirs": git.other_side()}
    lines = {side: git.text("log", "-1", "--format=%h %an, %s", name) for side, name in commits.items() if name}
    return [visible(f"{side}: {line}") for side, line in lines.items()]


def choices(name: str, of: str) -> dict[str, str]:
    """Return the sides that were chosen for the files of a folder; none where they are of another merge."""
    try:
        kept = json.loads(CHOICES.read_text(encoding="utf-8"))[name]
        return dict(kept["choices"]) if kept["of"] == of else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def choose(folder: Folder, paths: list[str], side: str) -> None:
    """Remember a side for some conflicts of a folder."""
    try:
        kept = json.loads(CHOICES.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    chosen = choices(folder.name, folder.of) | dict.fromkeys(paths, side)
    CHOICES.parent.mkdir(parents=True, exist_ok=True)
    beside = CHOICES.with_name(f"{CHOICES.name}.new")
    beside.write_text(json.dumps(kept | {folder.name: {"of": folder.of, "choices": chosen}}), encoding="utf-8")
    beside.replace(CHOICES)


def made_by_pipeline() -> list[str]:
    """Return dvc.lock and the files and folders that stages write and git keeps, which a run makes anew."""
    text = git.text("show", "HEAD:./dvc.yaml")  # the one that is here may have a conflict
    stages = {**lock_files.read_pipeline(text or ""), **lock_files.read_pipeline()}
    return [str(lock_files.LOCK), *(path for stage in stages.values() for path in lock_files.outs_in_git(stage))]


def _made_anew(paths: Iterable[str]) -> list[str]:
    """Those of some files that the pipeline writes."""
    made = made_by_pipeline() if paths else []
    return [path for path in paths if any(path == name or path.startswith(f"{name}/") for name in made)]


def _take_ours(path: str, stages: Mapping[int, str]) -> None:
    if OURS in stages:
        git.run("checkout", "--ours", "--", path)
        git.run("add", "--", path)
    else:
        git.run("rm", "--force", "--quiet", "--", path)


def go_on() -> str:
    """Return the command that goes on after conflicts."""
    return f"python3 run.py{' merge --continue' if git.other_side() == 'MERGE_HEAD' else ''}"


def _sides(path: str) -> str:
    return f"git checkout --ours -- {path} (or --theirs, or git rm), git add {path}, then {go_on()}"
