"""The benchmark of validate runs, and says what is missing; what it measures is not tested."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.usefixtures("in_template")

PEERS = os.environ.get("BENCHMARK_PEERS", sys.executable)
"""The Python that has cleanvision and imagededup: see workshop/benchmarks/validate.py."""


def benchmark(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workshop.benchmarks.validate", *options]
    return subprocess.run(command, text=True, capture_output=True)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_every_tool_is_timed_and_compared():
    check = [PEERS, REPOSITORY / "workshop/benchmarks/peers_of_validate.py", "check"]
    if subprocess.run(check, capture_output=True).returncode:
        pytest.skip("needs cleanvision and imagededup: name a Python that has them in BENCHMARK_PEERS")
    done = benchmark("--images", "20", "--runs", "1", "--peers", PEERS)
    assert done.returncode == 0, done.stderr
    for name in ("validate", "cleanvision", "imagededup"):
        assert re.search(rf"^{name} +\d", done.stdout, flags=re.MULTILINE), name
    assert re.search(r"cleanvision / validate: \d.* imagededup / validate: \d", done.stdout)
    assert re.search(r"^peers: Python .*cleanvision \d.*imagededup \d", done.stdout, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_memory_of_validate_is_measured_without_the_peers(tmp_path: Path):
    done = benchmark("--memory", "--images", "20", "--runs", "1", "--keep", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    few, many = (int(count) for count in re.findall(r"^(\d+) images +\d", done.stdout, flags=re.MULTILINE))
    assert many - few == 3 * 20
    assert len(list((tmp_path / "kept/data/raw").rglob("*.jpg"))) == many


@pytest.mark.slow
def test_a_python_without_the_peers_is_refused_with_how_to_install_them(tmp_path: Path):
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = benchmark("--peers", python)
    assert done.returncode == 1
    assert f"{python} lacks what validate is compared with" in done.stderr
    assert "cleanvision cannot be imported" in done.stderr
    assert "imagededup cannot be imported" in done.stderr
    assert "pip install --no-deps imagededup==" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_peers_that_cannot_be_run_are_refused(tmp_path: Path):
    done = benchmark("--peers", tmp_path / "nothing")
    assert done.returncode == 1
    assert f"{tmp_path / 'nothing'} cannot be run (No such file or directory)" in done.stderr
