"""What the work of a stage depends on beside its inputs and params: code, files, libraries, Python, the processor.

dvc.yaml says which files and folders of code these are, the stage's file which libraries.
"""

import hashlib
import json
import platform
import sys
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from imagepack.dvc import lock_files
from imagepack.dvc.ignored import ignored_by_dvc
from imagepack.dvc.lock_files import PIPELINE
from imagepack.errors import InputError

LOCK = "requirements.lock"


@dataclass(frozen=True)
class Dependencies:
    """The state of what a stage's work depends on.

    Attributes:
        digest: sha256 of all of it but the stage's own file.
        own: sha256 of the stage's own file; empty without one.
        own_file: its path; empty without one.
        files: path, time of change (ns) and size of each file.
        libraries: names of packages, as pip has them.
    """

    digest: bytes
    own: bytes
    own_file: str
    files: tuple[tuple[str, int, int], ...]
    libraries: tuple[str, ...]

    def unchanged(self) -> bool:
        """Return whether no file was written to since."""
        return all(_stamp(Path(path)) == (path, changed, size) for path, changed, size in self.files)

    def same_here(self) -> bool:
        """Return whether this process, on whatever machine, would come to the same digests."""
        own = Path(self.own_file) if self.own_file else None
        try:
            here = of_files([Path(path) for path, *_ in self.files], self.libraries, own)
        except OSError:  # files that are missing or being edited
            return False
        return (here.digest, here.own) == (self.digest, self.own)


NOTHING = Dependencies(b"", b"", "", (), ())
"""Of work that depends on its arguments alone."""


def of_stage(stage: str, libraries: tuple[str, ...] = ()) -> Dependencies:
    """Read the deps of `stage` in dvc.yaml, but for its inputs (they are on its command line) and the lock, which only
    says which libraries were wanted.

    Raises:
        InputError: dvc.yaml has no such stage, or a dep is not there.
    """
    entry = lock_files.read_pipeline().get(stage)
    if not entry:
        raise InputError(f"{PIPELINE} has no stage {stage}")
    inputs = {LOCK, *entry["cmd"].split()}
    deps = [Path(dep) for dep in entry.get("deps", []) if isinstance(dep, str) and dep not in inputs]
    if missing := next((path for path in deps if not path.exists()), None):
        raise InputError(f"{PIPELINE} says that {stage} depends on {missing}, which is not there")
    ignored = ignored_by_dvc()
    files = [file for dep in deps for file in ([dep] if dep.is_file() else sorted(dep.rglob("*"))) if file.is_file()]
    return of_files([file for file in files if not ignored(file.as_posix())], libraries, Path("stages", f"{stage}.py"))


def of_files(files: list[Path], libraries: tuple[str, ...] = (), own: Path | None = None) -> Dependencies:
    """Read `files`, of which `own` is the stage's."""
    content, own_digest, stamps = _machine(), b"", []
    for path in files:
        stamps.append(_stamp(path))  # before it is read: who writes in between changes it
        digest = hashlib.sha256(path.read_bytes()).digest()
        if path == own:
            own_digest = digest
        else:
            content.update(f"{path.as_posix()} ".encode() + digest)
    for name in libraries:
        content.update(_library(name).encode())
    return Dependencies(content.digest(), own_digest, str(own or ""), tuple(stamps), tuple(libraries))


def _machine() -> "hashlib._Hash":
    return hashlib.sha256(f"{sys.version} {platform.system()} {platform.machine()}".encode())


def _stamp(path: Path) -> tuple[str, int, int]:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, -1
    return str(path), status.st_mtime_ns, status.st_size


@cache
def _library(name: str) -> str:
    """Name, version and hashes of the files that pip installed; the sources of one that is installed from a folder."""
    try:
        installed = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return f"{name} missing"
    lines = sorted(line for line in (installed.read_text("RECORD") or "").splitlines() if ".dist-info/" not in line)
    content = hashlib.sha256("\n".join(lines).encode())
    folder = json.loads(installed.read_text("direct_url.json") or "{}")
    if "dir_info" in folder:
        for path in sorted(Path(folder["url"].removeprefix("file://")).rglob("*.py")):
            content.update(path.read_bytes())
    return f"{name} {installed.version} {content.hexdigest()}"
