"""What rules hide: files of DVC from git and DVC, and images of data/raw, or what stages write, from DVC alone.

    python -m imagepack.dvc.hidden add|commit|repro|checkout   (as run.py does before DVC; exit code 1 and the fix)

DVC passes over a data/raw.dvc that git is to ignore, whether git has it or not; `dvc checkout` then deletes data/raw,
which no file names any more, and says nothing.
"""

import sys
from pathlib import Path

from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter

from imagepack.dvc.git import lines
from imagepack.images import raw_files
from imagepack.names import visible_lines

RAW = Path("data/raw")
DVC_FILES = {
    "data/raw.dvc": "dvc checkout deletes data/raw",
    "dvc.yaml": "DVC sees no pipeline",
    "dvc.lock": "git does not take it along",
}
"""And what comes of it where a rule hides one."""
WRITTEN = (
    *(
        "data/validated/manifest.parquet",
        "data/processed/cat/1.jpg.png",
        "data/processed/1.zip",
        "data/packed/dataset.h5",
    ),
    *("data/packed/shards/1.h5", "reports/preview/cat.png", "reports/validation.html", "reports/rejected.csv"),
)
"""Such as the stages write."""
SHOWN = 3


def dvc_files() -> list[str]:
    """Files of DVC that a rule of .gitignore or .dvcignore hides, each with the rule and the fix."""
    here = [name for name in DVC_FILES if Path(name).exists()]
    kept = lines("ls-files", "--", "dvc.lock")  # once git has it, no rule matters; to DVC's look at the others it does
    rules = {}
    for line in lines("check-ignore", "--no-index", "--verbose", *(name for name in here if name not in kept)):
        rule, _, name = line.partition("\t")
        if not rule.split(":", 2)[2].startswith("!"):
            rules[name] = rule
    ignore = _dvcignore()
    for name in here:
        if (found := ignore.check_ignore(name)).match:
            rules.setdefault(name, found.pattern_infos[-1].file_info)
    faults = []
    for name, rule in rules.items():
        file, number, pattern = rule.split(":", 2) if rule.count(":") > 1 else (rule, "", "")
        where = f"line {number} of {file} ({pattern})" if number else file
        faults.append(f"{name} is hidden by {where}, so that {DVC_FILES[name]}: remove that line")
    return faults


def images() -> list[str]:
    """Differences between the files that DVC lists in data/raw and those that the stages read: a line each."""
    if not RAW.is_dir():
        return []
    raw = RAW.absolute()
    ours = set(raw_files.tracked(RAW)[0])
    theirs = {Path(path).relative_to(raw).as_posix() for path in _dvcignore().find(localfs, str(raw))}
    faults = []
    for names, what in ((ours - theirs, "leaves out"), (theirs - ours, "stores what the stages leave out:")):
        if names:
            paths = [raw_files.as_text(f"{RAW}/{name}") for name in sorted(names)]
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            rule = f"python3 run.py -- dvc check-ignore --details {paths[0]}"
            faults.append(f"DVC {what} {', '.join(paths[:SHOWN])}{more}: have the rule ({rule}) in ./.dvcignore alone")
    return faults


def outputs() -> list[str]:
    """What the stages write and .dvcignore hides, so that DVC stores an empty folder: a line each, with the rule."""
    ignore = _dvcignore()
    found = {name: ignore.check_ignore(name) for name in (*WRITTEN, *_folders(Path("data/processed")))}
    return [
        f"DVC leaves out {name}, which the stages write, by {result.pattern_infos[-1].file_info}: name the folders of "
        "data/raw in that rule, or remove it"
        for name, result in found.items()
        if result.match
    ]


def _folders(folder: Path) -> list[str]:
    """The folders in it."""
    return [path.as_posix() for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def left_out() -> int:
    """How many files of data/raw the rules of .dvcignore leave out of the dataset."""
    return raw_files.tracked(RAW)[1] if RAW.is_dir() else 0


def main() -> int:
    """The command line; the exit code."""
    faults = dvc_files()
    if sys.argv[1:] != ["checkout"]:  # it stores files
        faults += (raw_files.untrackable(RAW) if RAW.is_dir() and not RAW.is_symlink() else []) + outputs()
    if faults:
        print(visible_lines("\n".join(["run.py: DVC was not started:", *faults])), file=sys.stderr)
    return int(bool(faults))


def _dvcignore() -> DvcIgnoreFilter:
    return DvcIgnoreFilter(localfs, str(Path.cwd()))


if __name__ == "__main__":
    sys.exit(main())
