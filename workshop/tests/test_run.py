"""`python3 run.py` as a newcomer, a teammate and the owner of a bucket meet it."""

import ast
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, add_pictures, aws_variables, contents
from fault_proxy import FaultProxy

from imagepack import PackedImages
from imagepack.commands import s3
from run import select_tests

BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
"""The Python that a user has, outside any virtual environment."""
NO_BYTECODE = {"PIP_COMPILE": "0"}
"""Else pip compiles 8,000 modules, of which few are imported."""
FAST = ("-m", "not slow and not extra")


def run_py(folder: Path, *arguments: str, ok: bool = True, cwd: Path | None = None, **environment: str) -> str:
    """`python3 run.py ...` with the user's own Python; what it printed."""
    hidden = ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_CURRENT_TEST")
    env = {name: value for name, value in os.environ.items() if name not in hidden} | NO_BYTECODE | environment
    done = subprocess.run(
        [BASE_PYTHON, folder / "run.py", *arguments],
        cwd=cwd or folder,
        env=env,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert (done.returncode == 0) == ok, done.stdout
    assert "Traceback" not in done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def newcomer(new_project: Callable[[], Project]) -> Iterator[tuple[Path, str]]:
    """A fresh clone after its first `python3 run.py`, and what that printed."""
    folder = new_project().folder
    output = run_py(folder)
    yield folder, output
    run_py(folder, "s3", "stop")


@pytest.mark.slow
def test_the_first_run_ends_with_packs_pushed_and_says_what_came_out(newcomer: tuple[Path, str]):
    folder, output = newcomer
    assert len(PackedImages(folder / "data/packed")) == 209
    assert "files pushed" in output
    assert "209 images in 8 classes" in output
    assert "8 of 217 files rejected:" in output
    assert "birds/emperor-penguin.jpg: label_conflict (same bytes as mammals/emperor-penguin.jpg)" in output
    assert "\nNext\n  git add reports && git commit" in output
    assert contents(folder / "data/raw") == contents(folder / "data/sample/images")
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.split("ends with\n\n```\n")[1].split("```")[0] in output


@pytest.mark.slow
def test_after_the_first_run_git_has_just_what_one_would_commit(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    status = subprocess.check_output(["git", "status", "--porcelain", "-uall"], cwd=folder, text=True)
    assert {line[3:] for line in status.splitlines()} == {
        "data/raw.dvc",
        "dvc.lock",
        "reports/pack.json",
        "reports/plots/classes.csv",
        "reports/plots/sizes.csv",
        "reports/validation.json",
    }
    secret = json.loads((folder / ".local-s3/server.json").read_text())["secret_key"]
    assert secret in (folder / ".dvc/config.local").read_text()
    private = (".dvc/config.local", ".local-s3/server.json", ".local-s3")
    assert os.name == "nt" or all((folder / name).stat().st_mode & 0o077 == 0 for name in private)
    grep = ["git", "grep", "--untracked", "--exclude-standard", "--quiet", secret]
    assert subprocess.run(grep, cwd=folder).returncode == 1  # in no file that git would take


@pytest.mark.slow
def test_the_second_run_does_no_work(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    before = subprocess.check_output(["git", "status", "--porcelain", "-uall"], cwd=folder)
    output = run_py(folder)
    assert "Running stage" not in output
    assert "The local S3 has all of it." in output
    assert "209 images" in output
    assert subprocess.check_output(["git", "status", "--porcelain", "-uall"], cwd=folder) == before


@pytest.mark.slow
def test_commands_run_inside_the_environment_from_any_folder(newcomer: tuple[Path, str], tmp_path: Path):
    folder, _ = newcomer
    assert "up to date" in run_py(folder, "--", "dvc", "status", cwd=tmp_path)
    where = "import imagepack, os, sys; print(os.getcwd(), sys.prefix, imagepack.__file__)"
    printed = run_py(folder, "--", "python", "-c", where, cwd=folder / "data").split()
    assert printed == [str(folder / "data"), str(folder / ".venv"), str(folder / "imagepack/__init__.py")]
    assert "no command nonsense" in run_py(folder, "--", "nonsense", ok=False)


@pytest.mark.slow
def test_a_push_or_repro_after_which_something_is_missing_fails_whatever_dvc_says(newcomer: tuple[Path, str]):
    """DVC warns of a file that its cache lacks, pushes the rest and ends with 0."""
    folder, _ = newcomer
    md5 = hashlib.md5(next(folder.glob("data/packed/shards/*.h5")).read_bytes()).hexdigest()
    cached = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    remote = ("--", "dvc", "remote", "modify", "--local", "s3", "url")
    run_py(folder, *remote, "s3://image-dataset/elsewhere")
    cached.rename(folder / "aside")
    said = run_py(folder, "--", "dvc", "push", ok=False)
    assert (
        "The remote lacks 2 files of data/packed, though DVC says that it has pushed all; of 1 the cache here" in said
    )
    assert run_py(folder, "--", "dvc", "repro", "validate", ok=False).endswith("run.py -- dvc commit --force\n")
    run_py(folder, "--", "dvc", "commit", "--force")
    assert "2 files pushed" in run_py(folder, "--", "dvc", "push")
    (folder / "aside").unlink()
    run_py(folder, *remote, "--unset")


@pytest.mark.slow
def test_a_push_to_a_server_that_never_answers_ends_at_once(newcomer: tuple[Path, str]):
    """DVC would ask it again for minutes."""
    folder, _ = newcomer
    server = s3.running(folder / ".local-s3")
    with FaultProxy(server.endpoint, lambda method, path: "hang") as proxy:
        run_py(folder, "--", "dvc", "remote", "modify", "--local", "s3", "endpointurl", proxy.endpoint)
        assert f"no S3 answers at {proxy.endpoint}" in run_py(folder, "--", "dvc", "push", ok=False)
        assert proxy.met["hang"] <= 2
    assert "Everything is up to date." in run_py(folder, "s3", "start") + run_py(folder, "--", "dvc", "push")


@pytest.mark.slow
def test_the_exit_code_of_a_command_is_handed_on(newcomer: tuple[Path, str]):
    code = [BASE_PYTHON, newcomer[0] / "run.py", "--", "python", "-c", "raise SystemExit(7)"]
    assert subprocess.run(code).returncode == 7


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no process groups")
def test_ctrl_c_leaves_the_command_time_to_end_by_itself(newcomer: tuple[Path, str]):
    """DVC does not write dvc.lock at once: killed, it may leave half of it."""
    code = """
import time
try:
    print("begun", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(2)
    print("ended", flush=True)
"""
    command = [BASE_PYTHON, newcomer[0] / "run.py", "--", "python", "-c", code]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, start_new_session=True, text=True, **pipes) as process:
        assert process.stdout.readline() == "begun\n"
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=30)[0] == "ended\n"
        assert process.returncode == 130


@pytest.mark.slow
def test_a_failed_push_is_explained(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    assert "The local S3 runs at" in run_py(folder, "s3", "status")
    run_py(folder, "s3", "stop")
    assert "does not run: python3 run.py s3 start" in run_py(folder, "s3", "status", ok=False)
    assert "start it with python3 run.py s3 start" in run_py(folder, "--", "dvc", "push", ok=False)
    run_py(folder, "s3", "start")
    assert "It ran already, not on port 1: first" in run_py(folder, "s3", "start", "--port", "1", ok=False)
    assert "Everything is up to date." in run_py(folder, "--", "dvc", "push")


KILLED_PUSH = """
import os, signal
from dvc.cli import main
from dvc_data.index import DataIndex

written, write = [], DataIndex.__setitem__

def write_and_die(index, key, entry):
    write(index, key, entry)
    if key[0] == "push":
        written.append(key)
    if len(written) == 200:
        os.kill(os.getpid(), signal.SIGKILL)

DataIndex.__setitem__ = write_and_die
main(["push"])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="has no SIGKILL")
def test_a_push_that_was_killed_while_dvc_made_its_list_is_made_good_by_the_next(newcomer: tuple[Path, str]):
    folder, output = newcomer
    remote = ["--", "dvc", "remote", "modify", "--local", "s3", "url"]
    run_py(folder, *remote, "s3://image-dataset/again")
    run_py(folder, "--", "python", "-c", KILLED_PUSH, ok=False)
    assert re.search(r"\d+ files pushed", output)[0] in run_py(folder, "--", "dvc", "push")
    run_py(folder, *remote, "--unset")


@pytest.mark.slow
def test_the_tests_pass_where_the_pipeline_has_run(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    output = run_py(folder, "test", "tests", "workshop/tests/test_quarantine.py", "-k", "splits or with_dvc")
    assert "the pipeline has not run" not in output
    assert " passed" in output


@pytest.mark.slow
def test_a_half_made_environment_is_completed(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    (folder / ".venv/requirements.txt").unlink()
    for package in (folder / ".venv").rglob("site-packages/tqdm*"):
        shutil.rmtree(package)
    output = run_py(folder, "--", "python", "-c", "import tqdm")
    assert output.startswith("run.py: .venv is unfinished or older than requirements.lock: installing what is missing")
    assert run_py(folder, "--", "python", "-c", "import tqdm") == ""


def test_help_names_every_command():
    text = run_py(REPOSITORY, "--help")
    for command in (
        "run.py test",
        "s3 start|stop|status",
        "run.py quarantine",
        "run.py strip",
        "run.py hooks",
        "-- COMMAND",
        "--help",
    ):
        assert command in text
    assert "no such command: frobnicate" in run_py(REPOSITORY, "frobnicate", ok=False)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ([], [*FAST]),
        (["-x", "-n", "1"], [*FAST, "-x", "-n", "1"]),
        (["--all"], []),
        (["--all", "-x"], ["-x"]),
        (["-m", "slow"], ["-m", "slow"]),
        (["-kname", "-x"], ["-kname", "-x"]),
        (["tests"], ["tests"]),
        (["-x", "tests/test_fit.py::test_a"], ["-x", "tests/test_fit.py::test_a"]),
    ],
)
def test_the_fast_tests_are_run_unless_the_options_say_which(options: list[str], given: list[str]):
    assert select_tests(options) == given


def test_an_old_python_is_told_so(new_project: Callable[[], Project]):
    ast.parse((REPOSITORY / "run.py").read_text(encoding="utf-8"), feature_version=(3, 7))
    code = "import runpy, sys; sys.version_info = (3, 10, 2); runpy.run_path('run.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=new_project().folder, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("run.py needs Python 3.11 or newer, this is 3.10: install one")


def test_a_missing_venv_module_is_told_so(new_project: Callable[[], Project], tmp_path: Path):
    (tmp_path / "venv.py").write_text("raise ImportError('No module named venv')")
    output = run_py(new_project().folder, ok=False, PYTHONPATH=str(tmp_path))
    assert "Python's venv module is missing or broken" in output
    assert "apt install python3-venv" in output


def test_missing_git_is_told_so(tmp_path: Path):
    assert "git is missing: install it" in run_py(REPOSITORY, ok=False, PATH=str(tmp_path))


@pytest.mark.slow
def test_a_folder_that_is_no_git_repository_is_told_so(new_project: Callable[[], Project]):
    project = new_project()
    shutil.rmtree(project.folder / ".git")
    output = project(
        "python", "-m", "imagepack.commands.run", ok=False, GIT_CEILING_DIRECTORIES=str(project.folder.parent)
    )
    assert "run `git init` here first" in output


@pytest.mark.slow
def test_faults_of_params_are_told_before_anything_is_done(new_project: Callable[[], Project]):
    project = new_project()
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128", "  sise: 128").replace("fit: crop", "fit: cut"))
    output = project("python", "-m", "imagepack.commands.run", ok=False)
    assert "preprocess.sise: no such key (did you mean size?)" in output
    assert "preprocess.fit: must be 'crop', 'pad' or 'stretch', is 'cut'" in output
    assert not (project.folder / "data/raw").exists()


@pytest.mark.slow
def test_a_link_as_data_raw_is_told_so(new_project: Callable[[], Project], tmp_path: Path):
    project = new_project()
    add_pictures(tmp_path / "elsewhere", 3)
    (project.folder / "data/raw").symlink_to(tmp_path / "elsewhere")
    project("dvc", "remote", "modify", "s3", "url", "s3://own/images")
    assert "data/raw is a link, which DVC does not track" in project("python", "-m", "imagepack.commands.run", ok=False)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_what_dvc_would_stop_at_is_named(new_project: Callable[[], Project]):
    project = new_project()
    folder = project.folder / "data/raw/cat"
    folder.mkdir(parents=True)
    (folder / os.fsdecode(b"caf\xe9.png")).touch()
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "old").symlink_to(project.folder / "data/sample")
    os.mkfifo(folder / "pipe.png")
    project.write("data/raw/cat/.dvcignore", "*.bmp\n")
    (project.folder / "data/raw/dog/.dvc").mkdir(parents=True)
    assert "data/raw/cat/pipe.png: is a pipe" in project(
        "python", "-m", "imagepack.commands.dvc", "add", "data/raw", ok=False
    )
    assert "not started" not in project("python", "-m", "imagepack.commands.dvc", "checkout", ok=None)
    output = project("python", "-m", "imagepack.commands.run", ok=False)
    assert "DVC cannot store what is in data/raw:\n" in output
    assert "  data/raw/cat/caf\\xe9.png: its name is not valid UTF-8" in output
    assert "  data/raw/cat/gone.png: a link that leads nowhere: remove it, or put the image there" in output
    assert "  data/raw/cat/old: a link to a folder, which DVC leaves out: put the folder itself here" in output
    assert "  data/raw/cat/pipe.png: is a pipe, a socket or a device, for which DVC would wait" in output
    assert "  data/raw/cat/.dvcignore: DVC takes no such file" in output
    assert "  data/raw/dog/.dvc: DVC leaves out the whole folder in which it lies" in output
    project("python", "-m", "imagepack.commands.s3", "stop")


@pytest.fixture(scope="module")
def own(new_project: Callable[[], Project], s3_server: s3.Server) -> tuple[Project, str]:
    """A project with images and a bucket of its user's own, run, pushed and committed; what the run printed."""
    project = new_project()
    s3_server.client().create_bucket(Bucket="own")
    add_pictures(project.folder / "data/raw", 10, "cat")
    add_pictures(project.folder / "data/raw", 10, "dog", first=10)
    project("dvc", "remote", "modify", "s3", "url", "s3://own/images")
    output = project("python", "-m", "imagepack.commands.run", **aws_variables(s3_server))
    project("dvc", "push", **aws_variables(s3_server))
    project.commit("Mine")
    return project, output


@pytest.mark.slow
def test_ones_own_images_are_tracked_and_not_pushed_to_ones_own_bucket_unasked(own: tuple[Project, str]):
    project, output = own
    assert "$ dvc add data/raw" in output
    assert "$ dvc push" not in output
    assert "   # the data goes to s3://own/images" in output
    assert "20 images in 2 classes" in output
    assert not (project.folder / ".local-s3").exists()


@pytest.mark.slow
def test_a_teammate_gets_the_data_and_nothing_is_run_again(
    own: tuple[Project, str], s3_server: s3.Server, tmp_path: Path
):
    project, _ = own
    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "mate"))
    mate = Project(tmp_path / "mate")
    output = mate("python", "-m", "imagepack.commands.run", **aws_variables(s3_server))
    assert "its images are not: fetching them" in output
    assert "Running stage" not in output
    assert "git commit" not in output
    assert contents(mate.folder / "data/packed") == contents(project.folder / "data/packed")
    assert mate("git", "status", "--porcelain") == ""

    (mate.folder / "data/raw/cat/img3.png").unlink()  # as if the pull had been killed on its way
    shutil.copy(mate.folder / "data/raw.dvc", mate.folder / ".dvc/tmp/run-py-is-pulling")
    mate("python", "-m", "imagepack.commands.run", **aws_variables(s3_server))
    assert contents(mate.folder / "data/raw") == contents(project.folder / "data/raw")
    assert mate("git", "status", "--porcelain") == ""


@pytest.mark.slow
def test_after_a_git_pull_the_images_that_git_names_are_fetched_and_nobodys_are_lost(
    own: tuple[Project, str], s3_server: s3.Server, tmp_path: Path
):
    project, _ = own
    keys = aws_variables(s3_server)
    for name in ("alice", "bob"):
        project("git", "clone", "--quiet", str(project.folder), str(tmp_path / name))
    alice, bob = Project(tmp_path / "alice"), Project(tmp_path / "bob")
    for mate in (alice, bob):
        mate("python", "-m", "imagepack.commands.run", **keys)
    first = alice("git", "rev-parse", "HEAD").strip()
    (alice.folder / "data/raw/cat/img3.png").unlink()
    alice("python", "-m", "imagepack.commands.run", **keys)
    alice("dvc", "push", **keys)
    alice.commit("Without number 3")

    bob("git", "pull", "--quiet", str(alice.folder))
    assert "its images are not: fetching them" in bob("python", "-m", "imagepack.commands.run", **keys)
    assert contents(bob.folder / "data/raw") == contents(alice.folder / "data/raw")
    assert bob("git", "status", "--porcelain") == ""

    bob("git", "checkout", "--quiet", first)  # without our hooks, DVC does not hear of it
    output = bob("python", "-m", "imagepack.commands.run", ok=False, **keys)
    assert "data/raw is an earlier version, unchanged, and data/raw.dvc names another" in output
    assert "to get those: python3 run.py -- dvc pull" in output
    bob("dvc", "pull", **keys)
    assert (bob.folder / "data/raw/cat/img3.png").exists()

    add_pictures(bob.folder / "data/raw", 1, first=90)  # a change of one's own, and then what git brings
    shutil.rmtree(bob.folder / ".dvc/cache")
    output = bob("python", "-m", "imagepack.commands.run", ok=False, **keys)
    assert "data/raw.dvc names images that were never here (a git pull?), and data/raw has others." in output
    bob("dvc", "add", "data/raw")
    assert "its images are not" not in bob("python", "-m", "imagepack.commands.run", **keys)
    assert (bob.folder / "data/raw/cat/img90.png").exists()


@pytest.mark.slow
def test_a_pull_that_was_stopped_goes_on(newcomer: tuple[Path, str]):
    folder, _ = newcomer
    images = contents(folder / "data/raw")
    shutil.rmtree(folder / "data/raw")
    command = [BASE_PYTHON, folder / "run.py", "--", "dvc", "pull"]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        while not (folder / "data/raw").exists():
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    run_py(folder)
    assert contents(folder / "data/raw") == images


@pytest.mark.slow
def test_a_teammate_without_a_shared_bucket_is_told_what_is_missing(new_project: Callable[[], Project], tmp_path: Path):
    project = new_project()
    add_pictures(project.folder / "data/raw", 10, "cat")
    project("dvc", "add", "data/raw")
    project.commit("Never pushed anywhere")
    project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "mate"))
    mate = Project(tmp_path / "mate")
    try:
        output = mate("python", "-m", "imagepack.commands.run", ok=False)
        assert "is the local S3 of the machine where this was made: set a bucket you share there" in output
    finally:
        mate("python", "-m", "imagepack.commands.s3", "stop")


@pytest.mark.slow
def test_the_local_s3s_keys_are_dropped_once_the_bucket_is_ones_own(
    own: tuple[Project, str], s3_server: s3.Server, tmp_path: Path
):
    shutil.copytree(own[0].folder, tmp_path / "project")
    project = Project(tmp_path / "project")
    local = (
        "['remote \"s3\"']\nendpointurl = http://127.0.0.1:8333\n"
        f"access_key_id = {s3.OUR_KEY}1\nsecret_access_key = b\n"
    )
    project.write(".dvc/config.local", local)
    assert "took the local S3's address and keys out" in project("python", "-m", "imagepack.commands.s3", "explain")
    assert "key" not in (project.folder / ".dvc/config.local").read_text()
    project.write(".dvc/config.local", local)
    project("python", "-m", "imagepack.commands.run", **aws_variables(s3_server))
    assert "key" not in (project.folder / ".dvc/config.local").read_text()
    assert "The remote is your own (s3://own/images)" in project(
        "python", "-m", "imagepack.commands.s3", "start", ok=False
    )
    mine = local.replace(s3.OUR_KEY, "mine")  # keys of one's own, for a server on this machine
    project.write(".dvc/config.local", mine)
    project("python", "-m", "imagepack.commands.run", **aws_variables(s3_server))
    assert "access_key_id = mine1" in (project.folder / ".dvc/config.local").read_text()
