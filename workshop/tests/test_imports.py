"""What may import what: the house's storeys, no circle, and modules that do nothing but define."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "imagepack.reader": ("imagepack.engine", "imagepack.images", "imagepack.checks", "imagepack.packing"),
    "imagepack.images": ("imagepack.engine", "imagepack.checks", "imagepack.packing"),
    "imagepack.engine": ("imagepack.images", "imagepack.checks", "imagepack.packing"),
    "imagepack.checks": (),
    "imagepack.packing": (),
}
"""What a package of the machinery may not import, beside what is on top of all of them."""
ON_TOP = ("imagepack.compare", "imagepack.commands", "imagepack.exporting", "stages")
OF_READER = {"numpy", "h5py", "PIL", "imagepack.names", *sys.stdlib_module_names}
"""What a training machine has; imagepack.dvc, for another revision's pack, is imported where it is needed."""
NOTHING_CHANGED = """
import importlib, os, pkgutil, warnings
from PIL import Image, ImageFile
def state():
    known = [*Image.OPEN, *Image.EXTENSION, *Image.MIME, *Image.SAVE]
    codecs = Image.core.get_blocks_max(), Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    return known, codecs, list(warnings.filters), dict(os.environ)
import numpy, h5py, polars, pathspec  # these may
before = state()
import imagepack.images, imagepack.reader
for package in (imagepack.images, imagepack.reader):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
        assert state() == before, module.name
"""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of imagepack and stages, by name."""
    files = [file for folder in ("imagepack", "stages") for file in sorted((ROOT / folder).rglob("*.py"))]
    names = {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}
    return {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in names.items()}


def imports(name: str, *, inside_functions: bool = True) -> set[str]:
    """What a module imports, as full names; what is for types alone left out."""
    return {target for node in statements(modules()[name], inside_functions) for target in targets(node)}


def statements(node: ast.AST, inside_functions: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        is_for_types = isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if not is_for_types and (inside_functions or not is_function):
            yield from statements(child, inside_functions)


def targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    for alias in node.names:
        whole = f"{node.module}.{alias.name}"
        yield whole if whole in modules() else node.module


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: {other for other in imports(name) if other in modules()} for name in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_stands_only_on_those_below_it(package: str):
    above = (*FORBIDDEN[package], *ON_TOP)
    inside = [name for name in modules() if is_in(name, package)]
    found = [f"{name} imports {other}" for name in inside for other in imports(name) if is_in_any(other, above)]
    assert found == []


def is_in_any(name: str, packages: tuple[str, ...]) -> bool:
    return any(is_in(name, package) for package in packages)


def test_the_reader_needs_numpy_h5py_and_pillow_alone():
    inside = [name for name in modules() if is_in(name, "imagepack.reader")]
    allowed = OF_READER | set(inside)
    wanted = {(name, other) for name in inside for other in imports(name, inside_functions=False)}
    assert [(name, other) for name, other in wanted if not {other, other.partition(".")[0]} & allowed] == []


def test_to_import_them_changes_no_codec_no_filter_of_warnings_and_no_variable():
    done = subprocess.run([sys.executable, "-c", NOTHING_CHANGED], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
