#!/usr/bin/env python3
"""Set up and run the dataset pipeline. Needs Python 3.11 or newer and git, nothing else.

python3 run.py                           set up, bring in data, run the pipeline, push
python3 run.py test [PYTEST OPTIONS]     run your tests and the template's fast ones, in two minutes; test --all: all
python3 run.py import SOURCE             bring in images of another shape: splits, CSV, Parquet, tars; --help says more
python3 run.py compare [A [B]]           what happened to the images between two versions; --help says more
python3 run.py report [VERSION]          the page of a version: its classes and splits, sizes, samples, findings
python3 run.py export FORMAT DEST        a version as imagefolder, parquet, webdataset, hdf5 or csv; --help says more
python3 run.py card [VERSION]            a card of a version, for people and the Hub, and Croissant for programs
python3 run.py s3 start|stop|status      the local S3 server of the first run
python3 run.py quarantine [CODE ...]     move the files that validate rejected out of data/raw; --back undoes it
python3 run.py strip [PATH ...]          remove GPS position, owner, serial numbers, ... from images; or --dry-run
python3 run.py pin [VERSION]             let each image keep the split that it has now, also when it is edited
python3 run.py zip [FOLDER] [--back]     put the files of a folder, data/raw, into zips, which DVC moves faster; or back
python3 run.py memo [clear]              the finished work that stages keep in .memo: how much; or remove it
python3 run.py gc [--yes [--cloud]]      what earlier versions hold and cost, here and in the bucket; or free it
python3 run.py merge [BRANCH]            merge a branch, or what git pull would: images by image; --help says more
python3 run.py resolve [PATH ...]        take a side (--ours, --theirs) of images that both sides of a merge changed
python3 run.py hooks                     install git hooks: git push then pushes the data first
python3 run.py doctor [--deep] [--push]  what is wrong with this clone, its data and its remote, and the fix
python3 run.py schema                    write params.schema.json, after adding a knob: editors then know it
python3 run.py new DIR [--sample]        make a dataset's repository from this clone of the template
python3 run.py update [--from ADDRESS]   bring this repository a later version of the template; --help says more
python3 run.py -- COMMAND ...            run a command inside the environment: -- dvc pull
python3 run.py --help                    this text

Everything is installed into .venv beside this file, from requirements.lock. To work in that environment
without this launcher: source .venv/bin/activate (Windows: .venv\\Scripts\\activate).
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  (who has an older one is to read this; so no newer syntax in this file)
    found = ".".join(map(str, sys.version_info[:2]))
    sys.exit(f"run.py needs Python 3.11 or newer, this is {found}: install one and run it with that, python3.12 run.py")

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = BIN / ("python.exe" if os.name == "nt" else "python")
LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
"""What the pipeline runs on, a dep of every stage; and what tests, new and update need beside, which is none."""
AT_ROOT = (
    *("s3", "quarantine", "strip", "pin", "zip", "memo", "gc"),
    *("merge", "resolve", "hooks", "doctor", "schema", "update"),
)
WHERE_ONE_IS = ("compare", "report", "export", "card")
ANYWHERE = ("new", "import")
"""Commands by the folder that they run in: the root of the repository, where one is inside it, or where one is."""
WITH_DEV_LOCK = ("test", "new", "update")
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""
LOCAL_CONFIG = ROOT / ".dvc/config.local"


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    if arguments in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    name, rest = "".join(arguments[:1]), arguments[1:]
    module = {"": "run", "zip": "zips", "import": "import_images"}.get(name, name)
    command = ["-m", "imagepack.commands", module, *rest]
    if not arguments or name in AT_ROOT:
        command.insert(0, PYTHON)
    elif name == "test":
        command = [PYTHON, "-m", "pytest", *select_tests(rest)]
    elif name in WHERE_ONE_IS:  # "python": where one is, for the names of its files
        command.insert(0, "python")
    elif name in ANYWHERE:
        command[:0] = [PYTHON, "-P"]
    elif arguments[:2] == ["--", "dvc"]:
        # -P: "python" runs where one is, where a folder may be called as one of its modules
        command = ["python", "-P", "-m", "imagepack.commands", "dvc", *arguments[2:]]
    elif name == "--" and rest:
        command = rest
    else:
        print(f"run.py: no such command: {' '.join(arguments)}\n\n{__doc__}", file=sys.stderr)
        return 2
    if not shutil.which("git"):
        sys.exit("git is missing: install it (https://git-scm.com/downloads) and run again")
    with_dev_lock = name in WITH_DEV_LOCK or command[0] in ("ruff", "pytest")
    set_up([LOCK, DEV_LOCK] if with_dev_lock else [LOCK])
    keep_private(made="--local" in arguments and arguments[:2] == ["--", "dvc"])
    code = run(command, anywhere=name in ANYWHERE)
    if name == "test":
        print(
            "Next: python3 run.py" if code == 0 else "Some tests failed; rerun one with: python3 run.py test -k NAME -x"
        )
    return code


def set_up(locks: list[Path]) -> None:
    """Make .venv as the lock files say; nothing where that has been done."""
    # written last: without them .venv is half made
    stamps = {VENV / f"{lock.stem}.txt": f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {ROOT}\n" for lock in locks}
    made = (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted for stamp, wanted in stamps.items())
    if PYTHON.exists() and all(made):
        return
    conflicts = [lock.name for lock in locks if "\n<<<<<<< " in lock.read_text(encoding="utf-8")]
    if conflicts:
        take = " ".join(["git checkout --theirs --", *conflicts, "&& git add", *conflicts])
        sys.exit(f"run.py: a merge left {' and '.join(conflicts)} in conflict: {take} (or --ours), and run again")
    if VENV.exists():
        print(f"run.py: .venv is unfinished or older than {locks[-1].name}: installing what is missing")
    else:
        print(f"run.py: making .venv, once, by {'uv: seconds' if shutil.which('uv') else 'pip: a minute or two'}")
    for stamp in stamps:
        stamp.unlink(missing_ok=True)
    if subprocess.run([PYTHON, "-m", "pip", "--version"], capture_output=True).returncode if PYTHON.exists() else True:
        python = getattr(sys, "_base_executable", sys.executable)  # not the one inside .venv
        made = subprocess.run([python, "-m", "venv", "--clear", VENV], capture_output=True, text=True)
        if made.returncode:
            detail = (made.stderr + made.stdout).strip().splitlines()[-1:]
            sys.exit(
                f"run.py: Python's venv module is missing or broken {detail}: install it "
                "(Debian and Ubuntu: apt install python3-venv) and run again"
            )
    # pip would compile 8,000 modules, a third of its time, and Python itself compiles those that it imports; unless it
    # may write no bytecode, as in many containers, where each start would take several times as long
    never = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    installers = [
        [PYTHON, "-m", "pip", "--disable-pip-version-check", "-qq", "install", *([] if never else ["--no-compile"])]
    ]
    if shutil.which("uv"):  # several times as fast; it does not know pip's configuration, so that pip may have to help
        compiling = ["--compile-bytecode"] if never else []
        installers.insert(0, ["uv", "pip", "install", "--quiet", *compiling, "--python", PYTHON])
    wanted = ["--require-hashes", *(f"-r{lock}" for lock in locks)]
    if not any(subprocess.run([*installer, *wanted]).returncode == 0 for installer in installers):
        sys.exit(f"run.py: pip could not install {locks[-1].name} (see above): check the network and run again")
    where = subprocess.check_output([PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    # so that training scripts and notebooks can import imagepack from any folder
    Path(where.strip(), "image_dataset.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    for stamp, wanted in stamps.items():
        stamp.write_text(wanted, encoding="utf-8")


def keep_private(made: bool) -> None:
    """Let nobody else on this machine read DVC's file for keys, also if it is about to be made; DVC keeps its mode."""
    if made and LOCAL_CONFIG.parent.is_dir():
        LOCAL_CONFIG.touch(0o600)
    if LOCAL_CONFIG.exists():
        LOCAL_CONFIG.chmod(0o600)


def select_tests(options: list[str]) -> list[str]:
    """Return the options of pytest: unless --all, -m, -k or a path says which, the fast tests alone.

    Of a dataset that is committed these are its own, since the template's ask the template's stages.
    """
    if "--all" in options:
        return [option for option in options if option != "--all"]
    if any(option[:2] in ("-m", "-k") or (ROOT / option.partition("::")[0]).exists() for option in options):
        return options
    committed = subprocess.run(["git", "cat-file", "-e", "HEAD:./data/raw.dvc"], cwd=ROOT, capture_output=True)
    if committed.returncode == 0:
        if (ROOT / "workshop").exists():
            print("run.py: this repository has images of its own: runs tests/; --all adds the template's own tests")
        options = ["tests", *options]
    return ["-m", "not slow and not extra", *options]


def run(command: list, anywhere: bool = False) -> int:
    """Run `command` inside the environment, in this folder of the repository (or any) or at its root."""
    environment = os.environ | {
        "VIRTUAL_ENV": str(VENV),
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        # a name that the terminal's encoding lacks is shown by escapes, and ends nothing
        "PYTHONIOENCODING": os.environ.get("PYTHONIOENCODING", "").partition(":")[0] + ":backslashreplace",
        "NO_PROXY": ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"])),  # the local S3
    }
    environment.pop("PYTHONHOME", None)
    if command[1:3] == ["-m", "pytest"]:  # which starts hundreds of processes: without bytecode they take twice as long
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
    program = shutil.which(command[0], path=environment["PATH"])
    if not program:
        sys.exit(f"run.py: no command {command[0]} in .venv or on PATH")
    here = Path.cwd()
    inside = anywhere or (command[0] != PYTHON and here.is_relative_to(ROOT))
    process = subprocess.Popen([program, *command[1:]], cwd=here if inside else ROOT, env=environment)
    interrupted = False
    while True:
        try:
            code = process.wait()
            return INTERRUPTED if interrupted else code
        except KeyboardInterrupt:  # the terminal tells the command too; DVC, if killed, may leave half a dvc.lock
            interrupted = True


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
