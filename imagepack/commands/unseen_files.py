"""Files that git, DVC or the stages do not see, though they should: what rules hide, and images not yet validated.

DVC passes over a data/raw.dvc that git is to ignore, whether git has it or not; `dvc checkout` then deletes data/raw,
which no file names any more, and says nothing.
"""

from pathlib import Path

from imagepack.dvc import git, ignored
from imagepack.images import manifest, raw_files, raw_names

RAW, MANIFEST = Path("data/raw"), Path("data/validated/manifest.parquet")
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
    # once git has dvc.lock, no rule matters; to DVC's look at the others it does
    kept = git.lines("ls-files", "--", "dvc.lock")
    rules = {}
    for line in git.lines("check-ignore", "--no-index", "--verbose", *(name for name in here if name not in kept)):
        rule, _, name = line.partition("\t")
        if not rule.split(":", 2)[2].startswith("!"):
            rules[name] = rule
    for name, rule in ignored.hiding_rules(here).items():
        rules.setdefault(name, rule)
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
    ours, theirs = set(raw_files.tracked(RAW)[0]), ignored.listed_by_dvc(RAW)
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
    processed = Path("data/processed")
    folders = sorted(path.as_posix() for path in processed.iterdir() if path.is_dir()) if processed.is_dir() else []
    return [
        f"DVC leaves out {name}, which the stages write, by {rule}: name the folders of data/raw in that rule, "
        "or remove it"
        for name, rule in ignored.hiding_rules([*WRITTEN, *folders]).items()
    ]


def untrackable() -> list[str]:
    """What DVC cannot store in data/raw, each with the fix; empty where that is a link or not there."""
    return raw_files.untrackable(RAW) if RAW.is_dir() and not RAW.is_symlink() else []


def left_out() -> int:
    """How many files of data/raw the rules of .dvcignore leave out of the dataset."""
    return raw_files.tracked(RAW)[1] if RAW.is_dir() else 0


def unvalidated() -> str:
    """Where the manifest is of other files than are in data/raw: that, and the fix; empty where they agree.

    To be asked where DVC holds validate for up to date: then `dvc repro` changes nothing.
    """
    if not MANIFEST.exists() or not RAW.is_dir():
        return ""
    files, _ = raw_files.find(RAW)
    new, gone = manifest.compare_files(MANIFEST, (raw_names.as_text(str(file)) for file in files))
    for paths, what in ((new, f"of {RAW} is not in {MANIFEST}"), (gone, f"of {MANIFEST} is not in {RAW}")):
        if paths:
            some = f"{len(paths)} file{'s' * (len(paths) != 1)} {what} ({', '.join(paths[:3])})"
            return f"{some}: python3 run.py -- dvc repro --force validate"
    return ""
