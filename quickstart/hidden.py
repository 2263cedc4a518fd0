"""What rules hide: files of DVC from git and DVC, and images of data/raw from DVC alone.

DVC passes over a data/raw.dvc that git is to ignore, whether git has it or not; `dvc checkout` then deletes data/raw,
which no file names any more, and says nothing.
"""

from pathlib import Path

from dvc.fs import localfs
from dvc.ignore import DvcIgnoreFilter

from quickstart.git import lines
from stages.toolkit import raw_files

RAW = Path("data/raw")
DVC_FILES = {
    "data/raw.dvc": "dvc checkout deletes data/raw",
    "dvc.yaml": "DVC sees no pipeline",
    "dvc.lock": "git does not take it along",
}
"""And what comes of it where a rule hides one."""
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
            paths = [raw_files.shown(f"{RAW}/{name}") for name in sorted(names)]
            more = f" and {len(paths) - SHOWN} more" if len(paths) > SHOWN else ""
            rule = f"python3 run.py -- dvc check-ignore --details {paths[0]}"
            faults.append(f"DVC {what} {', '.join(paths[:SHOWN])}{more}: have the rule ({rule}) in ./.dvcignore alone")
    return faults


def _dvcignore() -> DvcIgnoreFilter:
    return DvcIgnoreFilter(localfs, str(Path.cwd()))
