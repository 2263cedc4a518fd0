"""Git's merge driver for .dvc files: a folder is merged file by file, as `git merge` goes.

    python -m imagepack.commands.merge_driver BASE OURS THEIRS PATH [--base]   (see gitattributes(5))

Where it cannot merge, the file has git's usual marks of a conflict, and `python3 run.py` says what to do.
"""

import argparse
import logging
import os
import sys
from contextlib import closing
from pathlib import Path

from imagepack.dvc import git, list_merge, raw_data, repository, table_merge
from imagepack.dvc.list_merge import DvcFile, Merge
from imagepack.dvc.lock_files import RAW_DVC
from imagepack.names import visible


def main() -> int:
    """Write the merged .dvc file over OURS; the exit code, 1 where git is to show a conflict."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, what in (("base", "%%O"), ("ours", "%%A"), ("theirs", "%%B")):
        parser.add_argument(name, type=Path, help=f"git's {what}")
    parser.add_argument("path", help="git's %%P")
    parser.add_argument("--base", action="store_true", dest="is_base", help="the outcome is the base of another merge")
    options = parser.parse_args()
    logging.getLogger("dvc").setLevel(logging.CRITICAL)
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))  # the local S3
    try:
        reason = merge(options)
    except Exception as error:  # noqa: BLE001  (whatever it is, git shows the conflict, and nothing is lost)
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
    if not reason:
        return 0
    print(visible(f"{options.path} is not merged by image: {reason}. To merge it: python3 run.py"), file=sys.stderr)
    # as git does without a driver; the marks keep a hasty `git add` from taking one side in silence
    git.merge_file(options.ours, options.base, options.theirs)
    return 1


def merge(options: argparse.Namespace) -> str:
    """Merge; return why that is left to the user, empty if it is done."""
    path = Path(options.path).absolute()
    root = next(folder for folder in path.parents if (folder / ".dvc").is_dir())
    with closing(repository.open_repo(root)) as repo:
        before = options.base.read_bytes()
        base = DvcFile(before, "base") if before.strip() else None  # empty: both sides added the folder
        ours, theirs = DvcFile(options.ours.read_bytes(), "our side"), DvcFile(options.theirs.read_bytes(), "theirs")
        found = Merge(base.listing(repo) if base else {}, ours.listing(repo), theirs.listing(repo))
        if options.is_base:  # what the bases disagree on is then decided by neither
            for conflict in found.conflicts:
                found.files.pop(conflict.path, None)
        elif found.conflicts:
            table_merge.settle(repo, found, theirs.remote)
        if found.conflicts and not options.is_base:
            return f"both sides changed {found.conflicts[0].path} and {len(found.conflicts) - 1} more files"
        options.ours.write_text(list_merge.write(repo, found, base, ours, theirs), encoding="utf-8", newline="\n")
    if path == root / RAW_DVC and not options.is_base:
        os.chdir(root)
        raw_data.begin_pull(options.ours.read_bytes())
        print(f"{visible(options.path)}, images: {list_merge.changes(found.ours, found.files)}. Next: python3 run.py")
    return ""


if __name__ == "__main__":
    sys.exit(main())
