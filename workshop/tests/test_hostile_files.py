"""Whatever bytes a file holds: the stage ends, says what became of it, and what it accepts can be preprocessed."""

import io
import time
import warnings
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import hostile_files
import polars as pl
import pytest
from conftest import FIXES, Workspace, check_one, contents, picture, save
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from imagepack.images.jpeg import with_end
from stages.preprocess import Preprocess, preprocess
from stages.validate import Levels, Validate

SIZE = 16
TWICE = dict.fromkeys(("exact_duplicate", "pixel_duplicate", "near_duplicate"), "ignore")  # many show one picture
PARAMS = Validate(min_side=1, max_pixels=2_000_000, timeout=10, memory_mib=512, levels=Levels(**TWICE))
LEVELS = dict.fromkeys(FIXES, "error") | {"multi_frame": "info"} | PARAMS.levels.model_dump()
CRASHES = {"decoder_crash", "timeout"}
SECONDS = 60
"""More than a family takes, and less than a family in which many files take too long."""
GOOD = ("cat/a good one.png", "dog/a good one.jpg")


def part(make: Callable[[], hostile_files.Files], number: int, of: int) -> hostile_files.Files:
    """Every so manieth of the files that `make` returns."""
    files = list(make().items())
    return dict(files[number::of])


slow = pytest.mark.slow
FAMILIES = [
    pytest.param(hostile_files.good, id="good"),
    pytest.param(partial(part, hostile_files.truncated, 0, 8), id="truncated, an eighth"),
    pytest.param(partial(part, hostile_files.overwritten, 0, 16), id="overwritten, a sixteenth"),
    pytest.param(hostile_files.truncated, id="truncated", marks=slow),
    pytest.param(hostile_files.overwritten, id="overwritten", marks=slow),
    *(
        pytest.param(make, id=make.__name__.replace("_", " "), marks=slow)
        for make in (
            hostile_files.disguised,
            hostile_files.lying_sizes,
            hostile_files.odd_sizes,
            hostile_files.png_faults,
            hostile_files.metadata_bombs,
            hostile_files.jpeg_faults,
            hostile_files.exif_faults,
            hostile_files.profiles,
            hostile_files.gif_faults,
            hostile_files.bmp_faults,
            hostile_files.tiff_faults,
            hostile_files.webp_faults,
            hostile_files.every_mode,
        )
    ),
]


def lay_out(workspace: Workspace, files: hostile_files.Files) -> list[str]:
    """Write `files` and two good pictures to raw; their paths."""
    for number, path in enumerate(GOOD, 98):
        save(workspace.raw / path, picture(number))
    for name, data in files.items():
        (workspace.raw / "cat" / name).write_bytes(data)
    return [*GOOD, *(f"cat/{name}" for name in files)]


def run(workspace: Workspace) -> pl.DataFrame:
    """Run the stage, which has to end in time; its manifest."""
    begun = time.monotonic()
    manifest = workspace.validate(PARAMS)
    assert time.monotonic() - begun < SECONDS
    return manifest


def rejected(manifest: pl.DataFrame) -> pl.DataFrame:
    """Path and code of each error that the manifest has."""
    issues = manifest.select("path", code="issues").explode("code", empty_as_null=True).drop_nulls()
    return issues.filter(pl.col("code").replace_strict(LEVELS, return_dtype=pl.String) == "error").sort("path", "code")


def state(folder: Path) -> dict[str, tuple]:
    """What must stay as it is of the files under `folder`."""
    stats = {path.relative_to(folder).as_posix(): path.lstat() for path in sorted(folder.rglob("*"))}
    return {path: (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ino) for path, stat in stats.items()}


def written_elsewhere(workspace: Workspace) -> set[str]:
    """Files that are neither raw ones, nor the manifest, nor a report."""
    own = (workspace.raw, workspace.reports)
    files = {path for path in workspace.folder.rglob("*") if path.is_file() and not any(map(path.is_relative_to, own))}
    return {path.name for path in files - {workspace.manifest}}


@pytest.mark.parametrize("make", FAMILIES)
def test_every_file_is_accepted_and_usable_or_rejected_and_explained(
    make: Callable[[], hostile_files.Files], workspace: Workspace
):
    paths = lay_out(workspace, make())
    before = state(workspace.raw), contents(workspace.raw)
    manifest = run(workspace)
    assert sorted(manifest["path"]) == sorted(paths)
    assert (state(workspace.raw), contents(workspace.raw)) == before
    assert written_elsewhere(workspace) == set()

    accepted = set(manifest.filter(pl.col("status") == "accepted")["path"])
    errors = rejected(manifest)
    assert set(manifest["status"]) <= {"accepted", "rejected"}
    assert set(paths) - accepted == set(errors["path"])
    assert accepted >= set(GOOD)
    assert CRASHES.isdisjoint(errors["code"]), errors.filter(pl.col("code").is_in(CRASHES))
    if make is hostile_files.good:
        assert len(errors) == 0, (workspace.reports / "rejected.csv").read_text()

    report = pl.read_csv(workspace.reports / "rejected.csv")
    if len(errors):
        assert report.select("path", "code").sort("path", "code").rows() == errors.rows()
    assert all(row["seen"] and row["fix"] for row in report.iter_rows(named=True))

    preprocess(workspace.raw, workspace.manifest, workspace.processed, Preprocess(size=SIZE))
    assert set(contents(workspace.processed)) == {f"{path}.png" for path in accepted}
    for path in accepted:
        with Image.open(workspace.processed / f"{path}.png") as image:
            image.load()
            assert (image.size, image.mode) == ((SIZE, SIZE), "RGB")


@pytest.mark.slow
def test_two_runs_on_hostile_files_give_the_same_bytes(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    makers = (hostile_files.png_faults, hostile_files.tiff_faults, hostile_files.gif_faults, hostile_files.jpeg_faults)
    lay_out(workspace, {name: data for make in makers for name, data in make().items()})
    run(workspace)
    first = contents(workspace.reports), workspace.manifest.read_bytes()
    monkeypatch.setenv("STAGE_WORKERS", "2")
    run(workspace)
    assert (contents(workspace.reports), workspace.manifest.read_bytes()) == first


def codes_of(folder: Path, name: str, data: bytes, params: Validate = PARAMS) -> set[str]:
    """The codes for which a file, checked in this process, is rejected."""
    (folder / "cat").mkdir(exist_ok=True)
    (folder / "cat" / name).write_bytes(data)
    _, found = check_one(folder, f"cat/{name}", params)
    return {code for code, *_ in found if LEVELS[code] == "error"}


def test_every_mode_is_accepted_or_said_to_be_unsupported(tmp_path: Path):
    found = {name: codes_of(tmp_path, name, data) for name, data in hostile_files.every_mode().items()}
    odd = {name: codes for name, codes in found.items() if not all(code.startswith("unsupported_") for code in codes)}
    assert odd == {}


def first_picture(data: bytes) -> tuple[tuple[int, int], bytes]:
    """Size and pixels of what a file shows first."""
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(with_end(data))) as image:
        return image.size, image.convert("RGBA").tobytes()


@slow
def test_a_cut_file_is_rejected_unless_its_first_picture_is_whole(tmp_path: Path):
    """What is missing may be a trailer, a check sum, or pages and frames behind the first."""
    whole = {name: first_picture(data) for name, data in hostile_files.good().items()}
    for name, data in hostile_files.truncated().items():
        if not codes_of(tmp_path, name, data):
            origin = name.rsplit("_", 3)[0] + Path(name).suffix
            assert first_picture(data) == whole[origin], name


MISSING_ROWS = {
    "few_rows.png": hostile_files.png_faults,
    "40x41.png": hostile_files.lying_sizes,
    "40x4096.png": hostile_files.lying_sizes,
    "40x41.tif": hostile_files.lying_sizes,
    "40x4096.tif": hostile_files.lying_sizes,
    "40x4096_cmyk.jpg": hostile_files.lying_sizes,
    "4096x32_cmyk.jpg": hostile_files.lying_sizes,
}


@pytest.mark.parametrize("name", MISSING_ROWS)
def test_a_file_that_holds_fewer_rows_than_it_says_is_rejected(name: str, tmp_path: Path):
    assert codes_of(tmp_path, name, MISSING_ROWS[name]()[name])


@cache
def originals() -> hostile_files.Files:
    """What is mutated."""
    return hostile_files.good() | {
        "runs_of_4.bmp": hostile_files.bmp(bits=4, method=2, pixels=b"\x28\1\0\0" * 32 + b"\0\1")
    }


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, bytes]:
    """The name of a good file, and its bytes after one to six small disasters."""
    name = draw(st.sampled_from(sorted(originals())))
    data = bytearray(originals()[name])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 500)))
        match draw(st.sampled_from(("splice", "flip", "zero", "ones", "double", "truncate", "insert", "remove"))):
            case "splice":
                other = originals()[draw(st.sampled_from(sorted(originals())))]
                data[at : at + length] = other[at : at + draw(st.integers(0, 500))]
            case "flip":
                data[at : at + 1] = bytes(byte ^ 1 << draw(st.integers(0, 7)) for byte in data[at : at + 1])
            case "zero":
                data[at : at + length] = bytes(len(data[at : at + length]))
            case "ones":
                data[at : at + length] = b"\xff" * len(data[at : at + length])
            case "double":
                data[at:at] = data[at : at + length]
            case "truncate":
                del data[at:]
            case "insert":
                data[at:at] = draw(st.binary(max_size=16))
            case "remove":
                del data[at : at + length]
    return name, bytes(data)


@pytest.mark.slow
@settings(
    max_examples=3000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(mutated())
def test_no_mutation_of_a_good_file_makes_the_check_raise(tmp_path: Path, file: tuple[str, bytes]):
    name, data = file
    codes = codes_of(tmp_path, name, data)
    assert codes <= set(FIXES) - CRASHES
