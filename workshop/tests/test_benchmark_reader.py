"""The benchmark of the reader runs, and refuses what would not be a comparison; what it measures is not tested."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY

from workshop.benchmarks import peers_of_reader as readers
from workshop.benchmarks.reader import Speed, judge

pytestmark = pytest.mark.usefixtures("in_template")

PEERS = os.environ.get("READER_PEERS", sys.executable)
"""The Python that has the libraries which the reader is compared with: see workshop/benchmarks/reader.py."""
IMAGES = np.random.default_rng(0).integers(0, 256, (700, 32, 32, 3), np.uint8)
LABELS = np.arange(700) % 7
LITTLE = ("--images", "300", "--runs", "1", "--seconds", "0")


def benchmark(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workshop.benchmarks.reader", *options]
    return subprocess.run(command, text=True, capture_output=True)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    np.save(tmp_path / "images.npy", IMAGES)
    np.save(tmp_path / "labels.npy", LABELS)
    return tmp_path


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_reader_is_timed_beside_its_bound():
    done = benchmark("--alone", *LITTLE)
    assert done.returncode in (0, 1), done.stderr
    for name in readers.VARIANTS:
        assert re.search(rf"^{re.escape(name)} +\d", done.stdout, flags=re.MULTILINE), name
    assert re.search(r"^at least 0.9x of the bound: \d.*x, (kept|missed)$", done.stdout, flags=re.MULTILINE)
    assert (done.returncode == 1) == ("missed" in done.stdout)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_every_peer_is_timed_and_compared():
    check = [PEERS, REPOSITORY / "workshop/benchmarks/peers_of_reader.py", "check"]
    if subprocess.run(check, capture_output=True).returncode:
        pytest.skip("needs the peers: name a Python that has them in READER_PEERS")
    done = benchmark(*LITTLE, "--peers", PEERS)
    assert done.returncode in (0, 1), done.stderr
    for name in readers.PEERS:
        assert re.search(rf"^{re.escape(name)} +\d", done.stdout, flags=re.MULTILINE), name
    assert re.search(r"^at least 3x the best peer \(.+\): \d.*x, (kept|missed)$", done.stdout, flags=re.MULTILINE)
    assert re.search(r"^peers: Python .*datasets \d.*webdataset \d", done.stdout, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_packs_of_each_encoding_are_timed():
    done = benchmark("--encodings", *LITTLE)
    assert done.returncode == 0, done.stderr
    sizes = [int(size) for size in re.findall(r"^(?:raw|png|jpeg) +(\d+)", done.stdout, flags=re.MULTILINE)]
    assert len(sizes) == 3
    assert sizes[0] > sizes[1] > sizes[2]


def test_whoever_gives_every_image_once_has_the_expected_digests(arrays: Path):
    result = readers.measure(readers.read_npy(arrays), at_least=0)
    assert result["sizes"] == [256, 256, 188]
    assert (result["whole"], result["parts"][0]) == readers.expected(arrays)
    assert len(set(result["parts"])) == 1
    assert result["orders"] == len(result["seconds"]) >= readers.EPOCHS


@pytest.mark.parametrize("fault", ["an image twice", "an image left out", "labels of others", "pixels not read"])
def test_who_gives_less_has_other_digests(arrays: Path, fault: str):
    honest = readers.read_npy(arrays)

    def epoch(number: int):
        for images, labels in honest(number):
            if fault == "an image twice":
                images[0] = images[1]
            elif fault == "an image left out":
                images, labels = images[1:], labels[1:]
            elif fault == "labels of others":
                labels = labels[::-1]
            elif number:  # in timed epochs alone
                images = np.empty_like(images)
                images[:] = 7
            yield images, labels

    result = readers.measure(epoch, at_least=0)
    whole, part = readers.expected(arrays)
    assert (result["whole"] == whole) == (fault == "pixels not read")
    assert part not in result["parts"]


def test_the_same_order_again_is_seen(arrays: Path):
    honest = readers.read_npy(arrays)
    assert readers.measure(lambda _: honest(0), at_least=0)["orders"] == 1


def test_a_promise_is_kept_or_missed():
    def verdicts(ours: float, peer: float) -> list[bool]:
        speeds = {readers.BOUND: 100, readers.OURS: ours, "LitData": peer, "HF datasets, bytes": 5}
        return list(judge({name: Speed(rate, 0, 0, 0) for name, rate in speeds.items()}).values())

    assert verdicts(ours=90, peer=20) == [True, True]
    assert verdicts(ours=89, peer=20) == [False, True]
    assert verdicts(ours=90, peer=40) == [True, False]


@pytest.mark.slow
def test_a_python_without_the_peers_is_refused_with_how_to_install_them(tmp_path: Path):
    venv.create(tmp_path, with_pip=False)
    python = tmp_path / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = benchmark("--peers", python)
    assert done.returncode == 1
    assert f"{python} lacks what the reader is compared with" in done.stderr
    assert "pip install --no-deps mosaicml-streaming==" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_peers_that_cannot_be_run_are_refused(tmp_path: Path):
    done = benchmark("--peers", tmp_path / "nothing")
    assert done.returncode == 1
    assert f"{tmp_path / 'nothing'} cannot be run (No such file or directory)" in done.stderr
