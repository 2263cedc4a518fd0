"""What the result of a function depends on beside its arguments: code, files, libraries, Python, the processor."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from stages.toolkit.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
"""Of the repository: modules below it count as its own."""
LOCK = "requirements.lock"
Stamp = tuple[str, int, int]
"""A file's path, time of change (ns) and size."""


@dataclass(frozen=True)
class Dependencies:
    """Of a function.

    Attributes:
        digest: sha256 of all of them.
        stamps: of each file that was read, so that a process can tell whether the code that it runs is that code.
        files: what the function reads.
    """

    digest: bytes
    stamps: tuple[Stamp, ...]
    files: tuple[Path, ...]

    def unchanged(self) -> bool:
        """Whether no file of them was written to since."""
        return all(_stamp(Path(path)) == (path, changed, size) for path, changed, size in self.stamps)

    def same_here(self, function: Callable) -> bool:
        """Whether they are those of `function` in this process, on whatever machine that is."""
        try:
            return of(function, self.files).digest == self.digest
        except Exception:  # noqa: BLE001  (files that are missing or being edited, or no memory: it cannot be told)
            return False


def of(function: Callable, files: Sequence[Path] = ()) -> Dependencies:
    """The module of `function` and all that it imports, directly or through others: of this repository the source, of
    libraries the installed files; and `files`, which it reads.
    """
    sources, libraries = _closure(Path(function.__code__.co_filename).resolve())
    content = hashlib.sha256(f"{function.__qualname__} {sys.version} {platform.system()} {platform.machine()}".encode())
    stamps = []
    for path in [*sorted(sources), *files]:
        stamps.append(_stamp(path))  # before it is read: who writes in between changes it
        content.update(f"{_name(path)} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    for line in sorted(set().union(*map(_library, libraries))):
        content.update(line.encode())
    return Dependencies(content.digest(), tuple(stamps), tuple(files))


def of_stage(stage: str) -> list[Path]:
    """The files on which dvc.yaml says that `stage` depends, without those that a memo knows in another way.

    These are its inputs, which are on its command line, modules (imports tell), and the lock (the installed libraries
    tell, which may be others).

    Raises:
        InputError: one of them is not there.
    """
    pipeline = Path("dvc.yaml")
    if not pipeline.exists():
        return []
    entry = yaml.safe_load(pipeline.read_text(encoding="utf-8")).get("stages", {}).get(stage, {})
    known = {LOCK, *str(entry.get("cmd")).split()}
    listed = [dep for dep in entry.get("deps", []) if isinstance(dep, str)]
    others = [Path(dep) for dep in listed if dep not in known and not dep.endswith(".py")]
    if missing := next((path for path in others if not path.exists()), None):
        raise InputError(f"{pipeline} says that {stage} depends on {missing}, which is not there")
    return [file for path in others for file in ([path] if path.is_file() else sorted(_files_below(path)))]


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def stamps(modules: Iterable[str]) -> dict[str, Stamp]:
    """Of the files of these modules, by path, as they are now."""
    files = (getattr(sys.modules[name], "__file__", None) for name in modules)
    return {stamp[0]: stamp for stamp in (_stamp(Path(file).resolve()) for file in files if file)}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return str(path), 0, -1
    return str(path), status.st_mtime_ns, status.st_size


def _name(path: Path) -> str:
    """The same for two copies of the repository."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


@cache
def _closure(file: Path) -> tuple[set[Path], set[str]]:
    """`file` and the repository's modules that it needs; and the names of the libraries that these import."""
    sources, libraries, waiting = set(), set(), [file]
    while waiting:
        source = waiting.pop()
        if source in sources:
            continue
        sources.add(source)
        for name in _imports(source):
            own = _own(name)
            waiting += own
            if not own and name.partition(".")[0] not in sys.stdlib_module_names:
                libraries.add(name.partition(".")[0])
    return sources, libraries - {path.name for path in ROOT.iterdir()}


def _imports(source: Path) -> Iterator[str]:
    """Full names of the modules that `source` imports, anywhere in it."""
    for node in _statements(ast.parse(source.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = source.relative_to(ROOT).parts[: -node.level] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            for name in (f"{module}.{alias.name}" for alias in node.names):
                yield name if _own(name) else module


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """All in it, but not their expressions, as ast.walk has them: most of the tree, and no import is in one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
            yield child
            yield from _statements(child)


def _own(name: str) -> list[Path]:
    """The file of the repository's module `name`; none where it is no such module."""
    path = ROOT.joinpath(*name.split("."))
    return [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()]


@cache
def _library(name: str) -> frozenset[str]:
    """What tells one state of the library that is imported as `name` from another, and those that it requires."""
    waiting, found = [installed.name for installed in _providers().get(name, [])], {}
    while waiting:
        package = waiting.pop()
        if package not in found:
            found[package], required = _installed(package)
            waiting += required
    return frozenset(found.values()) or frozenset(_loose(name))


@cache
def _installed(package: str) -> tuple[str, list[str]]:
    """Name, version and content of what pip installed, and the names of what it requires; empty if it is not there."""
    try:
        installed = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:  # required on other systems
        return "", []
    lines = _record(installed).splitlines()
    content = hashlib.sha256("\n".join(sorted(line for line in lines if ".dist-info/" not in line)).encode())
    if "dir_info" in json.loads(installed.read_text("direct_url.json") or "{}"):  # a folder of the user's
        tops = [top for top, several in _providers().items() if package in [installed.name for installed in several]]
        content.update("\n".join(line for top in tops for line in _loose(top)).encode())
    required = [re.match(r"[\w.-]+", need)[0] for need in installed.requires or [] if "extra ==" not in need]
    return f"{package} {installed.version} {content.hexdigest()}", required


@cache
def _providers() -> dict[str, list[importlib.metadata.Distribution]]:
    """What is imported: the packages that hold it. importlib.metadata has this too, many times as slow."""
    found = defaultdict(list)
    for installed in importlib.metadata.distributions():
        for name in set(re.findall(r"^([^/,.\n]+)[/.]", _record(installed), re.MULTILINE)):
            found[name].append(installed)
    return found


def _record(installed: importlib.metadata.Distribution) -> str:
    """The list of a library's files, with their hashes."""
    return installed.read_text("RECORD") or ""


def _loose(name: str) -> Iterator[str]:
    """Path and content of a module that was not installed, but lies on Python's path."""
    spec = importlib.util.find_spec(name)
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or []]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in (".py", ".so", ".pyd")]
    if spec and not folders and spec.origin:
        files = [Path(spec.origin)]
    return (f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(files))
