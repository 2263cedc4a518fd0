"""The benchmarks run; what they measure is not tested."""

import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from workshop.benchmarks import growth, measure, zips

pytestmark = pytest.mark.usefixtures("in_template")


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_pipeline_benchmark_prints_every_stage_and_the_ratio():
    command = [sys.executable, "-m", "workshop.benchmarks.pipeline", "--images", "8", "--runs", "1"]
    output = subprocess.check_output(command, text=True)
    for name in ("plain script", "validate", "preprocess", "pack", "preview", "DVC itself", "dvc repro"):
        assert re.search(rf"^{name} +\d", output, flags=re.MULTILINE), name
    assert re.search(r"dvc repro / plain script: \d", output)


@pytest.mark.slow
def test_the_png_benchmark_prints_its_ratios():
    command = [sys.executable, "-m", "workshop.benchmarks.png", "--folder", "data/sample/images"]
    output = subprocess.check_output(command, text=True)
    assert re.search(r"^Up, RLE / Pillow, level 1: \d", output, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_push_benchmark_counts_what_arrives_and_the_promises_are_kept():
    command = [sys.executable, "-m", "workshop.benchmarks.push", "--rows", "1000", "--shard-mib", "1", "--alone"]
    output = subprocess.check_output(command, text=True)
    lines = {line[:24].rstrip(): line[24:].split() for line in output.splitlines()}
    assert float(lines["1000 images"][0]) > 1000 * 128 * 128 * 3 / 1e6
    assert int(lines["1 % more, own batch"][3]) == 1
    assert len(lines["split changed"]) == 2  # megabytes and seconds: no shard
    assert len(re.findall("^kept: ", output, flags=re.MULTILINE)) == 5


@pytest.mark.slow
def test_the_comparison_benchmark_counts_what_it_changed():
    command = [sys.executable, "-m", "workshop.benchmarks.compare", "--rows", "2100", "--files", "200", "--runs", "1"]
    output = subprocess.check_output(command, text=True)
    for kind in ("edited", "moved_edited", "reencoded", "added", "removed"):
        assert f"'{kind}': 3" in output
    assert re.search(r"200 files, dvc diff / compare: \d", output)
    assert "dvc diff names 2 modified files, compare 2 edited images" in output


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_incremental_benchmark_prints_its_ratios_and_draws_the_growth(tmp_path):
    command = [sys.executable, "-m", "workshop.benchmarks.incremental", "--images", "12", "--layout", "zip"]
    command += ["--growth", "4", "--plot", tmp_path / "growth.svg"]
    output = subprocess.check_output(command, text=True)
    for ratio in (
        "dvc repro, cold / every image decoded",
        "dvc repro, cold / plain script",
        "1 % changed / dvc repro, cold",
        "nothing changed / empty pipeline",
        "ms an image, dearest / cheapest",
        "KB more an image",
    ):
        assert re.search(rf"^zip: {re.escape(ratio)}: \d", output, flags=re.MULTILINE), ratio
    assert "1 images were changed" in output
    ElementTree.parse(tmp_path / "growth.svg")


@pytest.mark.slow
def test_the_daily_benchmark_prints_its_ratios():
    output = subprocess.check_output([sys.executable, "-m", "workshop.benchmarks.daily", "--runs", "1"], text=True)
    for name in ("python3 run.py, again", "dvc repro, one image more", "compare"):
        assert re.search(rf"^{name} / empty pipeline: \d", output, flags=re.MULTILINE), name


@pytest.mark.slow
def test_the_table_benchmark_prints_its_promises():
    command = [sys.executable, "-m", "workshop.benchmarks.table", "--rows", "2000", "--columns", "10"]
    output = subprocess.check_output(command, text=True)
    assert re.search(r"^read, checked, joined / polars.read_csv: \d", output, flags=re.MULTILINE)
    assert len(re.findall(": kept$", output, flags=re.MULTILINE)) == 2


def test_growth_says_what_of_the_promises_is_kept(tmp_path):
    points = [growth.Point(n, measure.Taken(n / 1000 * (1 + n / 1e5), 100 + n / 1e4, "dvc")) for n in (5000, 80_000)]
    lines = list(growth.table("zip", points))
    assert lines[1].split() == ["5000", "5.25", "1.050", "100", "dvc"]
    assert lines[3:] == [
        "zip: ms an image, dearest / cheapest: 1.71, at most 1.15: missed",
        "zip: MB of the largest process: 113, at most 600: kept",
        "zip: KB more an image: 0.105, at most 1: kept",
    ]
    growth.draw({"folder": points[:1], "zip": points}, tmp_path / "growth.svg")
    texts = [element.text for element in ElementTree.parse(tmp_path / "growth.svg").iter() if element.text]
    assert {"5,000", "80,000", "ms an image", "folder", "zip"} <= set(texts)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_counts_are_per_image():
    """That each image is read and made once in preprocess is all that is fixed: the rest is to change."""
    command = [sys.executable, "-m", "workshop.benchmarks.counts", "--images", "8", "--layout", "folder"]
    output = subprocess.check_output(command, text=True)
    stage = output.partition("\npreprocess\n")[2].partition("\npack\n")[0]
    assert re.search(r"^  encoded as PNG +1\.000 ", stage, flags=re.MULTILINE)
    assert re.search(r"^  files made +1\.0\d+$", stage, flags=re.MULTILINE)
    assert re.search(r"^DVC\n  all ", output, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.extra("scikit-image")
def test_the_zips_benchmark_prints_every_step():
    command = [sys.executable, "-m", "workshop.benchmarks.zips", "--images", "8", "--way", "zips"]
    output = subprocess.check_output(command, text=True)
    for step in ("zip", "dvc add", "dvc repro", "dvc push"):
        assert len(re.findall(rf"^.*: {step} +[0-9.]+$", output, flags=re.MULTILINE)) == 3, output
    assert "zips: 1 in data/raw, 1 in data/processed, of 8 images" in output


def test_the_zips_benchmark_compares_two_ways():
    taken = {"files": {"all: dvc add": 3.0}, "zips": {"all: zip": 0.5, "all: dvc add": 1.5}}
    rows = [line.split() for line in zips.table(taken)]
    assert rows == [
        ["seconds", "files", "zips", "ratio"],
        ["all:", "zip", "0.5"],
        ["all:", "dvc", "add", "3.0", "1.5", "2.0"],
    ]
