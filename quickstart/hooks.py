"""Install git hooks that work outside the environment too: `git push` then pushes the data first.

pre-push is our own (quickstart/pre_push.py says why); post-checkout and pre-commit are DVC's.
"""

import argparse
import shlex
import sys
from pathlib import Path

from quickstart.git import git, lines

MARK = "# by python3 run.py hooks"
HERE = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write the hooks and DVC's merge driver; leave alone what is not ours, saying what to add. The exit code."""
    if shared := git("config", "core.hooksPath"):
        return left_alone(
            f"git takes its hooks from {shared} (core.hooksPath), which may serve other repositories", NAMES
        )
    folder = hooks_folder()
    if folder is None:
        return left_alone("this is no git repository", ())
    folder.mkdir(parents=True, exist_ok=True)
    foreign = [name for name in NAMES if (folder / name).exists() and not is_ours(folder / name)]
    for name in NAMES:
        if name not in foreign:
            write(folder / name, script(name))
    git("config", "merge.dvc.name", "DVC merge driver")
    git("config", "merge.dvc.driver", f"{shlex.quote(dvc())} git-hook merge-driver --ancestor %O --our %A --their %B ")
    if foreign:
        return left_alone(f"{folder} has a {' and a '.join(foreign)} that is not ours", foreign)
    print("Installed: git push pushes the data first, git checkout also checks it out, git commit shows its status.")
    return 0


def hooks_folder() -> Path | None:
    """Where git looks for hooks: of a linked working tree, in the repository that it belongs to."""
    folder = git("rev-parse", "--git-path", "hooks")
    return None if folder is None else Path(folder)


def left_alone(reason: str, names) -> int:
    """Say what was not installed, and how to do it by hand; the exit code."""
    print(f"{reason}: left as it is.", file=sys.stderr)
    if names:
        print("Add to the hooks there, as last line:", file=sys.stderr)
    for name in names:
        print(f"  {name}: {command(name)}", file=sys.stderr)
    return 1


def is_ours(hook: Path) -> bool:
    """Whether we wrote it, or DVC did and nobody has added to it."""
    text = hook.read_text(encoding="utf-8", errors="replace")
    return MARK in text or (text.startswith("#!") and text.count("\n") <= 2 and f"git-hook {hook.name} $@" in text)


def write(hook: Path, text: str) -> None:
    """Git runs no hook that is not executable."""
    beside = hook.with_name(f"{hook.name}.new")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.chmod(0o755)
    beside.replace(hook)


def dvc() -> str:
    """The full path of this environment's dvc, which a git GUI has not on its PATH."""
    return Path(sys.executable).with_name("dvc").as_posix()


def command(name: str) -> str:
    """The line of a hook that does the work."""
    if name == "post-checkout":  # git has checked out by then: what DVC lacks is no failure of git's
        lacking = "python3 run.py doctor says what of the data is missing here"
        return f'{shlex.quote(dvc())} git-hook post-checkout "$@" || echo "{lacking}" >&2'
    if name == "pre-commit":
        return f'exec {shlex.quote(dvc())} git-hook pre-commit "$@"'
    # -P: the code comes from PYTHONPATH, not from whatever a module in this folder is called
    return f'PYTHONPATH="$PWD" exec {shlex.quote(Path(sys.executable).as_posix())} -P -m quickstart.pre_push "$@"'


def script(name: str) -> str:
    """A hook; git runs it at the top of the working tree."""
    if name != "pre-push":
        return f"#!/bin/sh\n{MARK}\n{command(name)}\n"
    python = shlex.quote(Path(sys.executable).as_posix())
    trees = [line[9:] for line in lines("worktree", "list", "--porcelain") if line.startswith("worktree ")]
    code = " ".join(shlex.quote(tree) for tree in dict.fromkeys([*trees[:1], HERE.as_posix()]))
    return f"""#!/bin/sh
{MARK}
python={python}
if [ ! -x "$python" ]; then
  echo "pre-push: $python is gone; nothing was pushed. Once: python3 run.py hooks; or: git push --no-verify" >&2
  exit 1
fi
# a working tree of an older version has no such module: take that of another
for code in "$PWD" {code}; do
  if [ -f "$code/quickstart/pre_push.py" ]; then
    PYTHONPATH="$code" exec "$python" -P -m quickstart.pre_push "$@"
  fi
done
echo "pre-push: no quickstart/pre_push.py in this version; nothing was pushed. dvc push, then git push --no-verify" >&2
exit 1
"""


NAMES = ("post-checkout", "pre-commit", "pre-push")


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python3 run.py hooks", description=__doc__).parse_args()
    sys.exit(main())
