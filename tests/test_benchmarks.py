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
