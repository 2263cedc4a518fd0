"""What the tests share: image files, the stages on a folder, a copy of the repository with real DVC, a real S3."""

import compileall
import gc
import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import psutil
import pytest
import ruamel.yaml
from browser import Browser
from command_server import CommandServer
from filelock import FileLock
from PIL import Image

from imagepack import PackedImages
from imagepack.checks.codes import CHECKS
from imagepack.checks.validation import Checker
from imagepack.commands import s3
from imagepack.engine.memo import NO_MEMO, Memo
from imagepack.engine.params import defaults
from imagepack.engine.processes import start_server
from imagepack.images.raw_files import RawFile
from stages.pack import Pack, pack
from stages.preprocess import Preprocess, preprocess
from stages.validate import Validate, check_image, validate

REPOSITORY = Path(__file__).parents[2]
CONFIG = """\
[core]
    remote = s3
    analytics = false
    autostage = true
    check_update = false
[cache]
    type = "reflink,copy"
[plots]
    html_template = plots/page.html
['remote "s3"']
    url = s3://image-dataset
    verify = true
"""
"""The template's .dvc/config: here may be a bucket of one's own."""
OWN = subprocess.run(["git", "ls-files", "--error-unmatch", "data/raw.dvc"], cwd=REPOSITORY, capture_output=True)
template_only = pytest.mark.skipif(OWN.returncode == 0, reason="this repository has images, so settings, of its own")

EXTRAS = {
    "browser": lambda: installed("selenium") and shutil.which("chromium") and shutil.which("chromedriver"),
    "scikit-image": lambda: installed("skimage"),
    "dvclive": lambda: installed("dvclive"),
    "distributed": lambda: installed("distributed"),
    "frameworks": lambda: os.environ.get("TRAINING_PYTHON"),
    "remotes": lambda: os.environ.get("REMOTES_PYTHON"),
    "trackers": lambda: os.environ.get("TRACKERS_PYTHON"),
}
"""What some tests need beside the environment of `python3 run.py`, and whether it is here; .ci/run installs all."""


def installed(module: str) -> bool:
    """Whether it can be imported; it is not."""
    return importlib.util.find_spec(module) is not None


MINUTES = ("cluster", "faults", "export", "run", "incremental", "benchmarks", "hooks", "doctor", "versions")
"""Files of tests that take longest."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return how many cores there are, and one more where slow tests run: many wait for a server or other processes."""
    cores = len(psutil.Process().cpu_affinity()) if sys.platform == "linux" else os.cpu_count() or 1
    return cores + ("not slow" not in config.option.markexpr)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, so that none is left at the end; who takes the browser needs it."""
    items.sort(key=lambda item: item.path.stem.removeprefix("test_") not in MINUTES)
    for item in items:
        if "chromium" in getattr(item, "fixturenames", ()):  # `browser` takes it
            item.add_marker(pytest.mark.extra("browser"))


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over what is there now, which stays."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose extra is not here; fail it where all are to be, REQUIRE_EXTRAS."""
    for name in {mark.args[0] for mark in item.iter_markers("extra")}:
        if not EXTRAS[name]():
            (pytest.fail if os.environ.get("REQUIRE_EXTRAS") else pytest.skip)(f"needs {name}: see .ci/run")


@pytest.fixture(scope="session", autouse=True)
def worker_server() -> None:
    """What stages fork their workers from, before a test starts such a server that has imported nothing."""
    start_server()


def picture(number: int, width: int = 48, height: int = 40, mode: str = "RGB") -> Image.Image:
    """A smooth picture that differs from every other number's."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def save(path: Path, image: Image.Image, **options) -> Path:
    """Write `image` to `path`, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def add_pictures(raw: Path, count: int, label: str = "cat", first: int = 0, suffix: str = ".png") -> None:
    """Write pictures number first, first + 1, ... into raw/label."""
    for number in range(first, first + count):
        save(raw / label / f"img{number}{suffix}", picture(number))


FIXES = {code: check.fix for code, check in CHECKS.items()}


def checker(raw: Path, params: Validate, memo: Memo = NO_MEMO) -> Checker:
    """What validate's workers check files with."""
    return Checker.of(raw, params, check_image, memo)


def check_one(raw: Path, file: RawFile, params: Validate) -> tuple[tuple, list[tuple[str, str]]]:
    """What validate finds out about a file: its row of the manifest, and its findings (code, what was seen)."""
    (row,), findings = checker(raw, params)([file])
    return row, [(code, seen) for _, code, seen, _ in findings]


class Workspace:
    """The stages without DVC, on folders of a temporary directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.raw, self.acknowledged = folder / "raw", folder / "acknowledged.csv"
        self.manifest, self.reports = folder / "manifest.parquet", folder / "reports"
        self.processed, self.packed = folder / "processed", folder / "packed"

    def memo(self, stage: str) -> Memo:
        """What stages are given; here none, so that no test depends on what another left behind."""
        return NO_MEMO

    def validate(self, params: Validate | None = None) -> pl.DataFrame:
        """Validate; the manifest."""
        memo = self.memo("validate")
        validate(self.raw, self.acknowledged, self.manifest, self.reports, params or Validate(), memo)
        return pl.read_parquet(self.manifest)

    def run(
        self, validated: Validate | None = None, preprocessed: Preprocess | None = None, packed: Pack | None = None
    ) -> PackedImages:
        """Validate, preprocess and pack; the pack."""
        self.validate(validated)
        memo = self.memo("preprocess")
        preprocess(self.raw, self.manifest, self.processed, preprocessed or Preprocess(size=16), memo)
        report = self.reports / "pack.json"
        pack(self.processed, self.manifest, self.packed, report, packed or Pack(), self.memo("pack"))
        return PackedImages(self.packed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a file system of so many KiB; that needs rights that containers and root have."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def make(size: int) -> Path:
        options = ["-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(folder)]
        if sys.platform != "linux" or subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("may not mount a file system here")
        return folder

    yield make
    if folder.is_mount():  # lazily: a process that is just being killed may have a file open
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """An empty workspace; its stages use one worker process, since starting more takes longer than the work."""
    monkeypatch.setenv("STAGE_WORKERS", "1")
    return Workspace(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under `folder`: its relative path and bytes."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


COMMAND_SERVER = CommandServer()


def run_command(command: Sequence[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Run a command in `folder`; return its exit code and what it printed."""
    if done := COMMAND_SERVER.run(command, folder, environment):
        return done
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, **pipes)
    return done.returncode, done.stdout


class Project:
    """A git clone of this repository as it stands, in which `dvc` and `git` are the real ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *command: str, ok: bool | None = True, **environment: str) -> str:
        """Run a command in the clone; what it printed. With ok=False it has to fail, with None it may."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        env = os.environ | {"PATH": path, "STAGE_WORKERS": "2"} | environment
        code, printed = run_command(command, self.folder, env)
        assert ok is None or (code == 0) == ok, f"{' '.join(command)} exited {code}:\n{printed}"
        return printed

    def write(self, name: str, text: str) -> None:
        """Write a file of the clone."""
        (self.folder / name).write_text(text, encoding="utf-8")

    def commit(self, message: str) -> None:
        """Commit everything."""
        self("git", "add", "--all")
        self("git", "commit", "--quiet", "--message", message)


def template_params() -> str:
    """params.yaml with the template's values, the defaults: here may be others, for the images that are here."""
    text = (REPOSITORY / "params.yaml").read_text(encoding="utf-8")
    yaml = ruamel.yaml.YAML()  # it keeps comments
    values, written = yaml.load(text), io.StringIO()
    if values == defaults():
        return text

    def reset(found: dict, defaults: dict) -> None:
        for key, default in defaults.items():
            if isinstance(default, dict):
                reset(found.setdefault(key, {}), default)
            elif found.get(key) != default:
                found[key] = default

    reset(values, defaults())
    yaml.dump(values, written)
    return written.getvalue()


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """The folder of a name, which the first that asks for it makes, for all processes that run tests."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], None]) -> Path:
        with FileLock(shared / f"{name}.lock"):
            if not (shared / name).exists():
                make(shared / f"{name}.unfinished")
                (shared / f"{name}.unfinished").rename(shared / name)
        return shared / name

    return get


def make_template(folder: Path) -> None:
    """Copy the files that git tracks or would track to `folder`, and commit them there.

    What the pipeline has made of the images in this one is left out, and its settings are the template's again.
    """
    made = (":!*.dvc", ":!dvc.lock", ":!reports/*.json", ":!reports/plots")
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", ".", *made]
    names = subprocess.check_output(listed, cwd=REPOSITORY, text=True).split("\0")
    for name in filter(None, names):
        if (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, folder / name)
    project = Project(folder)
    project("git", "init", "--quiet", "--initial-branch=main")
    project.write("params.yaml", template_params())
    project.write(".dvc/config", CONFIG)
    project("git", "config", "user.name", "Test")
    project("git", "config", "user.email", "test@example.com")
    project.commit("Template")
    compileall.compile_dir(folder / "imagepack", quiet=1)  # once, and not in every copy
    compileall.compile_dir(folder / "stages", quiet=1)


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory, made_once: Callable) -> Callable[[], Project]:
    """Make clones: a repository of its own with the template's files and settings, committed."""

    def make() -> Project:
        template = made_once("template", make_template)
        return copy_project(Project(template), tmp_path_factory.mktemp("project") / "project")

    return make


def copy_project(project: Project, folder: Path) -> Project:
    """A copy of a clone in a new folder."""
    shutil.copytree(project.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="session")
def template(new_project: Callable[[], Project]) -> Project:
    """A clone that nothing is done to."""
    return new_project()


@pytest.fixture
def in_template(template: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test runs in `template`."""
    monkeypatch.chdir(template.folder)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory):
    """A real S3 server on free ports, with the template's bucket."""
    folder = tmp_path_factory.mktemp("s3")
    yield s3.start("image-dataset", folder, port=s3.free_ports(1)[0])
    s3.stop(folder)


def aws_variables(server: s3.Server) -> dict[str, str]:
    """How the owner of a bucket tells DVC about it."""
    return {
        "AWS_ENDPOINT_URL": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests: to start it takes longer than they do."""
    browser = Browser(tmp_path_factory.mktemp("browser"))
    yield browser
    browser.driver.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """The browser; afterwards it must have nothing to complain about, and must have asked nobody."""
    chromium.driver.get("about:blank")
    chromium.requests(), chromium.driver.get_log("browser")  # what came before
    yield chromium
    assert chromium.driver.get_log("browser") == []
    assert set(chromium.requests()) <= {"file", "data"}
