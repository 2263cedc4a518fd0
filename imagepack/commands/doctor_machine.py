"""Checks of `python3 run.py doctor` of this machine and this clone: git, disks, locks, hooks, keys."""

import json
import os
import re
import shutil
import socket
import sys
import tempfile
import time
import unicodedata
from collections import Counter
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil

from imagepack.commands import hooks, unseen_files
from imagepack.commands.doctor_case import HINT, OK, PROBLEM, RAW, TOOL, Case, Findings, some
from imagepack.dvc import cache, git, lock_files, raw_data
from imagepack.engine import params
from imagepack.errors import InputError
from imagepack.images import raw_files
from imagepack.names import counted

TMP = Path(".dvc/tmp")
MIB = 2**20
TEMPORARY = 100 * MIB
"""Free bytes below which programs fail in ways that name no disk."""
SECRET = re.compile(
    r"^\s*(access_key_id|secret_access_key|session_token|sse_customer_key|account_key|sas_token|connection_string"
    r"|client_secret|gdrive_client_secret|password|passphrase|oss_key_id|oss_key_secret|token|custom_auth_header)\s*=",
    re.MULTILINE,
)
CREDENTIALS = re.compile(r"://[^/\s:@]*:[^/\s@]+@")
"""A name and password inside an address."""


def git_repository(case: Case) -> Findings:
    """A repository with a commit, and a name and address for the next."""
    if git.text("rev-parse", "--git-dir") is None:
        yield PROBLEM, "this is no git repository: git init, then git add . && git commit"
        return
    if git.text("rev-parse", "--verify", "--quiet", "HEAD") is None:
        yield HINT, "nothing is committed yet: git add . && git commit"
    named = {"name": "GIT_AUTHOR_NAME", "email": "GIT_AUTHOR_EMAIL"}
    missing = [key for key, name in named.items() if not (os.environ.get(name) or git.text("config", f"user.{key}"))]
    if missing:
        fix = " && ".join(f'git config --global user.{key} "..."' for key in missing)
        yield PROBLEM, f"git does not know your {' and '.join(missing)}, and commits nothing: {fix}"
    else:
        yield OK, "a repository, and it knows who commits"


def parameters(case: Case) -> Findings:
    """params.yaml, in full."""
    try:
        params.load(Path("params.yaml"))
    except FileNotFoundError:
        yield PROBLEM, "params.yaml is gone: git checkout params.yaml"
    else:
        yield OK, "params.yaml is valid"


def file_system(case: Case) -> Findings:
    """Names that DVC, this disk or a teammate's cannot hold apart."""
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8"):
        yield PROBLEM, f"file names are read as {sys.getfilesystemencoding()}: set PYTHONUTF8=1 and a UTF-8 locale"
    folds_case, takes_unicode = _what_the_disk_does()
    if not takes_unicode:
        yield PROBLEM, "this disk takes no names outside ASCII: mount it with UTF-8 names"
    if case.untrackable:
        yield PROBLEM, f"DVC cannot store what is in {RAW}: {some(case.untrackable)}"
    try:
        files, _ = raw_files.tracked(RAW)
    except InputError as error:
        if not case.untrackable:  # which names it too
            yield PROBLEM, str(error)
        return
    names = _with_folders(files)  # what is in zips has its names there, and not on a disk
    count = Counter(unicodedata.normalize("NFC", name).casefold() for name in names)
    alike = [raw_files.as_text(name) for name in names if count[unicodedata.normalize("NFC", name).casefold()] > 1]
    if alike:
        yield (
            HINT,
            f"names in {RAW} differ in case or accents alone, which macOS and Windows hold for one: {some(alike)}",
        )
    elif folds_case:
        yield OK, "names in UTF-8; this disk does not tell upper case from lower, and no names need that"
    else:
        yield OK, "names in UTF-8, upper and lower case told apart"


def _with_folders(names: list[str]) -> list[str]:
    """Names of files and of every folder on their way, in a fixed order."""
    found = dict.fromkeys(names)
    for name in names:
        found.update(dict.fromkeys(parent.as_posix() for parent in Path(name).parents if parent.parts))
    return sorted(found)


def hidden_files(case: Case) -> Findings:
    """That no rule keeps DVC's files from git or DVC, and that DVC lists the images that the stages read."""
    faults = unseen_files.dvc_files()
    if not case.untrackable:  # else the difference is that
        faults += unseen_files.images()
    faults += unseen_files.outputs()
    yield from ((PROBLEM, fault) for fault in faults)
    if not faults:
        yield OK, "no rule hides what DVC is to see"
    if not case.untrackable and (count := unseen_files.left_out()):
        yield HINT, f"files of data/raw that .dvcignore keeps out of the dataset: {count}"


def zips(case: Case) -> Findings:
    """That all zips in data/raw can be used; InputError says why not."""
    if case.untrackable:
        yield HINT, f"not looked at, since DVC cannot store what is in {RAW}"
        return
    members = sum(not isinstance(file, str) for file in raw_files.find(RAW)[0])
    yield OK, f"{counted(members, 'file')} in zips that can be used" if members else f"there are none in {RAW}"


def _what_the_disk_does() -> tuple[bool, bool]:
    """Whether it takes upper and lower case for the same, and whether it takes names outside ASCII."""
    place = Path("data") if Path("data").is_dir() else Path()
    with TemporaryDirectory(prefix=".doctor-", dir=place) as folder:
        Path(folder, "case").touch()
        try:
            Path(folder, "\u00e9\u4e2d").touch()
        except (OSError, UnicodeError):
            return Path(folder, "CASE").exists(), False
        return Path(folder, "CASE").exists(), True


def room(case: Case) -> Findings:
    """Free bytes of each disk against what is written there."""
    sizes = _sizes()
    made = sum(size for name, size in sizes.items() if name != "data/raw")
    # by copy each file is in the folder and in the cache; by any link it is on the disk once
    wanted = {Path(): made, _cache(case): sum(sizes.values()), Path(tempfile.gettempdir()): TEMPORARY}
    disks: dict[int, list[Path]] = {}
    for place in wanted:
        disks.setdefault(_existing(place).stat().st_dev, []).append(place)
    short = False
    for places in disks.values():
        free = shutil.disk_usage(_existing(places[0])).free
        need = sum(wanted[place] for place in places)
        if free < need:
            short = True
            names = " and ".join(str(place.resolve()) for place in places)
            fix = "make room; python3 run.py gc says what earlier versions take"
            yield PROBLEM, f"{free // MIB} MiB free for {names}, one more run may write {-(-need // MIB)} MiB: {fix}"
    if not short:
        yield OK, f"{shutil.disk_usage('.').free // MIB} MiB free, the data is {sum(sizes.values()) / MIB:.1f} MiB"


def _existing(place: Path) -> Path:
    """It or the nearest folder above it."""
    place = place.resolve()
    while not place.exists():
        place = place.parent
    return place


def _cache(case: Case) -> Path:
    return Path(case.config["cache"].get("dir") or ".dvc/cache")


def _sizes() -> dict[str, int]:
    """Bytes of data/raw and of what the pipeline last made of it, by path."""
    raw = {str(RAW): out.size for out in lock_files.read_outs(lock_files.here(lock_files.RAW_DVC))}
    stages = lock_files.read_lock(lock_files.here()).values()
    return raw | {out.path: out.size for stage in stages for out in stage.outs}


def locks(case: Case) -> Findings:
    """What killed processes left behind."""
    faults = case.damaged_files + cache.unfinished_runs()
    yield from ((PROBLEM, fault) for fault in faults)
    left = bool(faults)
    try:
        held = json.loads((TMP / "rwlock").read_text(encoding="utf-8"))
        holders = [*held.get("write", {}).values(), *chain.from_iterable(held.get("read", {}).values())]
        alive = sorted({holder["pid"] for holder in holders if psutil.pid_exists(holder["pid"])})
        if alive:  # those that were killed block nobody: DVC passes over their entries
            left = True
            yield HINT, f"DVC is at work (process {alive[0]}), others wait or fail; if it is no DVC, rm {TMP}/rwlock"
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError, AttributeError):
        left = True
        yield PROBLEM, ".dvc/tmp/rwlock is damaged, and DVC runs nothing: rm .dvc/tmp/rwlock"
    if case.config["core"].get("hardlink_lock") and (pid := _dead_owner(TMP / "lock")):
        left = True
        yield PROBLEM, f".dvc/tmp/lock is of process {pid}, which was killed, and DVC runs nothing: rm .dvc/tmp/lock"
    index = Path(git.text("rev-parse", "--git-path", "index.lock") or ".git/index.lock")
    if index.exists() and time.time() - index.stat().st_mtime > 60:
        left = True
        yield PROBLEM, f"{index} is left of a git that was killed, and git commits nothing: rm {index}"
    if git.other_side() == "MERGE_HEAD":
        left = True
        yield HINT, "a merge is not committed yet: python3 run.py merge --continue, or --abort"
    if raw_data.is_half_pulled():
        left = True
        yield HINT, "data/raw is half pulled: python3 run.py goes on"
    if not left:
        yield OK, "none left by killed processes"


def _dead_owner(lock: Path) -> int | None:
    """The process that made a lock of flufl.lock (`FILE|HOST|PID|NUMBER`) on this machine and is no more."""
    try:
        *_, host, pid, _ = lock.read_text(encoding="utf-8").split("|")
        return int(pid) if host == socket.getfqdn() and not psutil.pid_exists(int(pid)) else None
    except (OSError, ValueError):
        return None


def links(case: Case) -> Findings:
    """How files come from DVC's cache into the folders, and what this disk can do."""
    kinds = case.config["cache"].get("type") or ["reflink", "copy"]
    kinds = [kind.strip() for kind in (kinds.split(",") if isinstance(kinds, str) else kinds)]
    # tried from the cache's disk to that of data/; a shared cache one may perhaps only read
    can = cache.possible_links(_existing(_cache(case)), Path("data") if Path("data").is_dir() else Path())
    kind = next((kind for kind in kinds if can.get(kind)), None)
    if kind is None:
        fix = f"{TOOL} dvc config cache.type reflink,copy"
        yield PROBLEM, f"this disk can do none of {', '.join(kinds)} (cache.type) from the cache: {fix}"
    elif kind in ("hardlink", "symlink"):
        writable = [path for path in cache.some_files(_cache(case)) if os.access(path, os.W_OK)]
        fix = f"{TOOL} dvc config cache.type reflink,copy && {TOOL} dvc checkout --relink"
        if writable:
            yield (
                PROBLEM,
                f"{kind}s into a cache that you may write to (as root one always may): a program that writes "
                f"in place spoils every version that has the file: {fix}",
            )
        else:
            yield HINT, f"{kind}s: a program that writes in place fails, or makes itself root: {fix}"
    elif kind == "reflink":
        yield OK, "reflinks: cache and folders share their bytes until one is written to"
    else:
        yield OK, "copies, since this disk has no reflinks: data takes its room twice, in the folder and in the cache"


def git_hooks(case: Case) -> Findings:
    """That git push takes the data along."""
    if shared := git.text("config", "core.hooksPath"):
        hook = Path(git.text("rev-parse", "--git-path", "hooks/pre-push") or "")
        if not (hook.exists() and "imagepack.commands.pre_push" in hook.read_text(encoding="utf-8", errors="replace")):
            yield (
                HINT,
                f"git takes its hooks from {shared}, and none pushes the data: python3 run.py hooks says what to add",
            )
            return
    folder = hooks.hooks_folder()
    hook = (folder or Path()) / "pre-push"
    if folder is None or not hook.exists():
        yield HINT, "git push does not push the data: python3 run.py hooks"
        return
    text = hook.read_text(encoding="utf-8", errors="replace")
    if "imagepack.commands.pre_push" not in text:
        if hooks.is_ours(hook):
            yield HINT, "the pre-push hook pushes the data of the working tree alone: python3 run.py hooks"
        else:
            yield (
                HINT,
                "there is another pre-push hook, and it does not push the data: python3 run.py hooks says what to add",
            )
    elif not os.access(hook, os.X_OK):
        yield PROBLEM, f"git leaves out {hook}, which is not executable: chmod +x {hook}"
    elif (python := re.search(r"^python=(\S+)", text, re.MULTILINE)) and not Path(python[1].strip("'")).exists():
        yield PROBLEM, f"git push is refused, since {python[1]} of its hook is gone: python3 run.py hooks"
    elif not hooks.is_current(Path(git.text("rev-parse", "--git-common-dir") or "") / hooks.COPY):
        yield HINT, "the hooks run other code than is here, that of when they were installed: python3 run.py hooks"
    else:
        yield OK, "git push pushes the data first"


def secrets(case: Case) -> Findings:
    """No keys in what git has, or had. Says where, never what."""
    found = False
    tracked = git.lines("ls-files", ":(top,glob)**/.dvc/*config*")
    for name in tracked:
        text = Path(name).read_text(encoding="utf-8", errors="replace") if Path(name).exists() else ""
        names = sorted({match[1] for match in SECRET.finditer(text)})
        names += ["an address with a password"] if CREDENTIALS.search(text) else []
        if name.endswith("config.local"):
            found = True
            yield PROBLEM, f"git tracks {name}, which is for keys: git rm --cached {name}, and make new keys"
        elif names:
            found = True
            fix = (
                f"move it to .dvc/config.local ({TOOL} dvc remote modify --local ...), and make new keys if git had it"
            )
            yield PROBLEM, f"{name}, which git tracks, has {', '.join(names)}: {fix}"
    pattern = r"(access_key|secret_|client_secret|session_token|account_key|sas_token|connection_string|password|://[^/]*:[^/]*@)"
    if not found and (commits := git.lines("log", "--all", "-5", "--format=%h", f"-G{pattern}", "--", ".dvc/config")):
        found = True
        yield HINT, f".dvc/config once had keys (commit {some(commits)}), and git remembers: make new keys"
    local = Path(".dvc/config.local")
    if os.name != "nt" and local.exists() and local.stat().st_mode & 0o077 and SECRET.search(local.read_text("utf-8")):
        yield HINT, f"others on this machine can read the keys in {local}: chmod 600 {local}"
    if not found:
        yield OK, "no keys in what git tracks"
