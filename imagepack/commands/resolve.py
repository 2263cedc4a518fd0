"""Take a side of files of data/raw that both sides of a merge changed.

    python3 run.py resolve                   list them, and put both versions of each where they can be looked at
    python3 run.py resolve PATH ... --ours   take our side (or --theirs) of files, or of all in a folder without one yet

Nothing changes before `python3 run.py merge --continue`: until then the other side can be taken as well.
"""

import argparse
import shutil
import sys
from contextlib import closing
from pathlib import Path

from imagepack.commands import s3, unmerged
from imagepack.commands.unmerged import Folder
from imagepack.dvc import objects, repository
from imagepack.dvc.list_merge import SIDES, Conflict, ListMissing
from imagepack.errors import InputError
from imagepack.names import visible, visible_lines

BOTH = Path(".dvc/tmp/merge")
"""Where both versions of each file are put."""


def main() -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 run.py resolve", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", metavar="PATH", help="files or folders, such as data/raw/cat/1.jpg")
    sides = parser.add_mutually_exclusive_group()
    for side, what in zip(SIDES, ("this branch", "the branch that is merged"), strict=True):
        sides.add_argument(f"--{side}", action="store_const", const=side, dest="side", help=f"take those of {what}")
    options = parser.parse_args()
    if bool(options.paths) != bool(options.side):
        parser.error("name files and a side (--ours or --theirs), or neither")
    try:
        with closing(repository.open_repo(Path.cwd())) as repo:
            folders = list(unmerged.folders(repo))
            if not any(folder.undecided for folder in folders):
                raise InputError("no image is in conflict")
            if options.side:
                return take(folders, [Path(path).as_posix() for path in options.paths], options.side)
            return show(repo, folders)
    except (InputError, ListMissing) as error:
        print(visible_lines(f"resolve: {error}"), file=sys.stderr)
    except Exception as error:  # noqa: BLE001  (of whatever library reaches the remote)
        print(visible_lines(f"resolve: {s3.explain() or error}"), file=sys.stderr)
    return 1


def take(folders: list[Folder], paths: list[str], side: str) -> int:
    """Choose a side for the conflicts at or below `paths`; return the exit code.

    Raises:
        InputError: a path names none of them.
    """
    found = {f"{folder.path}/{conflict.path}": folder for folder in folders for conflict in folder.undecided}
    wrong = [path for path in paths if not any(_is_in(name, path) for name in found)]
    if wrong:
        listed = "".join(f"\n  {name}" for name in found)
        raise InputError(f"{', '.join(wrong)}: nothing there is in conflict. In conflict are:{listed}")
    for folder in folders:
        names = [name for name in found if found[name] is folder]
        below = [name for name in names if any(_is_in(name, path) for path in paths)]
        # of a folder those that have no side yet
        chosen = [name for name in below if name in paths or not _is_chosen(folder, name)]
        unmerged.choose(folder, [name.removeprefix(f"{folder.path}/") for name in chosen], side)
        print(*(visible(f"{name}: {side}") for name in chosen), sep="\n")
    left = [name for name, folder in found.items() if not _is_chosen(folder, name)]
    print(f"\n{len(left)} left: python3 run.py resolve lists them" if left else f"\nNext: {unmerged.go_on()}")
    return 0


def _is_in(name: str, path: str) -> bool:
    return name == path or name.startswith(f"{path}/")


def _is_chosen(folder: Folder, name: str) -> bool:
    return name.removeprefix(f"{folder.path}/") in unmerged.choices(folder.name, folder.of)


def show(repo: repository.Repo, folders: list[Folder]) -> int:
    """List the conflicts, each with its choice, and put both versions into a folder; return the exit code."""
    shutil.rmtree(BOTH, ignore_errors=True)
    for folder in folders:
        chosen = unmerged.choices(folder.name, folder.of)
        for conflict in folder.undecided:
            side = f" -> {chosen[conflict.path]}" if conflict.path in chosen else ""
            head, *cells = unmerged.lines_of(folder, conflict)
            print(f"{head.strip()}{visible(side)}", *cells, sep="\n")
            put_versions(repo, folder, conflict)
    print(*unmerged.names_of_sides(), f"Both versions of each: {BOTH}/ours and {BOTH}/theirs", sep="\n")
    print("To take a side: python3 run.py resolve PATH ... --ours (or --theirs)")
    return 0


def put_versions(repo: repository.Repo, folder: Folder, conflict: Conflict) -> None:
    """Copy both versions of a file to where they can be looked at."""
    for side, md5 in zip(SIDES, (conflict.ours, conflict.theirs), strict=True):
        if md5 is None or objects.download(repo, folder.files[2].remote, [md5]):
            continue
        place = BOTH / side / folder.path / conflict.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(repo.cache.local.oid_to_path(md5), place)


if __name__ == "__main__":
    sys.exit(main())
