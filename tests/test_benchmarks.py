"""The benchmarks run; what they measure is not tested."""

import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY


@pytest.mark.slow
def test_the_pipeline_benchmark_prints_every_stage_and_the_ratio():
    pytest.importorskip("skimage", reason="needs scikit-image")
    command = [sys.executable, "-m", "benchmarks.pipeline", "--images", "40", "--runs", "1"]
    output = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    for name in ("plain script", "validate", "preprocess", "pack", "preview", "DVC itself", "dvc repro"):
        assert re.search(rf"^{name} +\d", output, flags=re.MULTILINE), name
    assert re.search(r"dvc repro / plain script: \d", output)


@pytest.mark.slow
def test_the_push_benchmark_counts_what_arrives_and_the_promises_are_kept():
    pytest.importorskip("skimage", reason="needs scikit-image")
    command = [sys.executable, "-m", "benchmarks.push", "--rows", "1000", "--shard-mib", "1", "--alone"]
    output = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    lines = {line[:24].rstrip(): line[24:].split() for line in output.splitlines()}
    assert float(lines["1000 images"][0]) > 1000 * 128 * 128 * 3 / 1e6
    assert int(lines["1 % more, own batch"][3]) == 1
    assert len(lines["split changed"]) == 2  # megabytes and seconds: no shard
    assert len(re.findall("^kept: ", output, flags=re.MULTILINE)) == 5


@pytest.mark.slow
def test_the_zips_benchmark_prints_every_step_of_both_ways():
    pytest.importorskip("skimage", reason="needs scikit-image")
    command = [sys.executable, "-m", "benchmarks.zips", "--images", "40"]
    output = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    for step in ("dvc add", "dvc repro", "dvc push"):
        assert len(re.findall(rf"^.*{step} +[0-9.]+ +[0-9.]+ +[0-9.]+$", output, flags=re.MULTILINE)) == 3
    assert "files: 40 in data/raw, 40 in data/processed, of 40 images" in output
    assert "zips: 1 in data/raw, 1 in data/processed, of 40 images" in output
