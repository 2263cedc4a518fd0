"""Install git hooks that work outside the environment too: `git push` then pushes the data first.

pre-push is our own (pre_push.py says why); post-checkout and pre-commit are DVC's. They run a copy of this code that is
made now and kept in .git, and nothing of the branch that is checked out, which may be anybody's.
"""

import argparse
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from imagepack.dvc import git

MARK = "# by python3 run.py hooks"
HERE = Path(__file__).resolve().parents[2]
PACKAGES = ("imagepack",)
"""What the pre-push hook imports, apart from what is installed."""
COPY = "image-dataset-hook"
"""The folder of that copy, in git's."""
LAUNCHER = """# Written by python3 run.py hooks: runs a module of this copy or of the environment, and of nowhere else.
import runpy, sys
from pathlib import Path
sys.path[:0] = [str(Path(__file__).resolve().parent)]
sys.path += {installed}
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def main() -> int:
    """Write the hooks and the merge drivers; leave alone what is not ours, saying what to add. The exit code."""
    if folder := git.text("rev-parse", "--git-common-dir"):
        copy_code(Path(folder) / COPY)
        set_merge_drivers()
    if shared := git.text("config", "core.hooksPath"):
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
    if foreign:
        return left_alone(f"{folder} has a {' and a '.join(foreign)} that is not ours", foreign)
    print(
        "Installed: git push pushes the data first, git checkout also checks it out, git merge merges "
        "images one by one, git commit shows its status."
    )
    return 0


def set_merge_drivers() -> None:
    """Tell git's configuration what the names of merge drivers in .gitattributes stand for."""
    driver = f"{launcher()} imagepack.commands.merge_driver %O %A %B %P"
    settings = {
        "merge.dvc.name": "a folder that DVC tracks, file by file",
        "merge.dvc.driver": driver,
        "merge.dvc.recursive": "dvc-base",
        "merge.dvc-base.name": "the same, between versions that both sides come from",
        "merge.dvc-base.driver": f"{driver} --base",
        "merge.generated.name": "what the pipeline makes: ours stays, and the next run makes it anew",
        "merge.generated.driver": "true",
    }
    for name, value in settings.items():
        git.text("config", name, value)


def sources() -> list[Path]:
    """The files that hooks have a copy of."""
    return [source for package in PACKAGES for source in (HERE / package).rglob("*.py")]


def is_current(folder: Path) -> bool:
    """Whether the copy in `folder` is what is here now."""
    copies = ((source, folder / source.relative_to(HERE)) for source in sources())
    return all(copy.exists() and copy.read_bytes() == source.read_bytes() for source, copy in copies)


def copy_code(folder: Path) -> None:
    """Write the code that hooks run, as it is here and now."""
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    for source in sources():
        target = beside / source.relative_to(HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    installed = list(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))
    (beside / "run.py").write_text(LAUNCHER.format(installed=installed), encoding="utf-8")
    if folder.exists():
        shutil.rmtree(folder)
    beside.replace(folder)


def hooks_folder() -> Path | None:
    """Where git looks for hooks: of a linked working tree, in the repository that it belongs to."""
    folder = git.text("rev-parse", "--git-path", "hooks")
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


def launcher() -> str:
    """How a shell runs a module of the copy."""
    # -I and -S: no module comes from this folder, PYTHONPATH or a .pth file, which leads to what is checked out
    return f'{shlex.quote(Path(sys.executable).as_posix())} -I -S "$(git rev-parse --git-common-dir)/{COPY}/run.py"'


def command(name: str) -> str:
    """The line of a hook that does the work."""
    python, below = launcher(), (git.text("rev-parse", "--show-prefix") or "").rstrip("/")
    # DVC sees the repository of the folder that it runs in
    enter = f"cd {shlex.quote(below)} 2>/dev/null || exit 0; " if below and name != "pre-push" else ""
    if name == "post-checkout":  # git has checked out by then: what DVC lacks is no failure of git's
        lacking = "python3 run.py doctor says what of the data is missing here"
        return f'{enter}{python} dvc git-hook post-checkout "$@" || echo "{lacking}" >&2'
    if name == "pre-commit":
        return f'{enter}exec {python} dvc git-hook pre-commit "$@"'
    return f'exec {python} imagepack.commands.pre_push "$@"'


def script(name: str) -> str:
    """A hook; git runs it at the top of the working tree."""
    if name != "pre-push":
        return f"#!/bin/sh\n{MARK}\n{command(name)}\n"
    return f"""#!/bin/sh
{MARK}
python={shlex.quote(Path(sys.executable).as_posix())}
if [ ! -x "$python" ]; then
  echo "pre-push: $python is gone; nothing was pushed. Once: python3 run.py hooks; or: git push --no-verify" >&2
  exit 1
fi
{command(name)}
"""


NAMES = ("post-checkout", "pre-commit", "pre-push")


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python3 run.py hooks", description=__doc__).parse_args()
    sys.exit(main())
