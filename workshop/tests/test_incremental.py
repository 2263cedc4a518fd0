"""The law: any sequence of changes, run with a memo, ends in the same bytes as a run from nothing without one."""

import contextlib
import io
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import REPOSITORY, Project, Workspace, add_pictures, contents, picture, save, template_params
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from PIL import Image

from imagepack.checks.validation import Checker
from imagepack.commands.zips import unzip_all, zip_all
from imagepack.engine import dependencies, memo_store
from imagepack.engine.memo import Memo
from imagepack.errors import InputError
from imagepack.images import raw_files
from stages.pack import Pack, Split
from stages.preprocess import Preprocess, make_png, preprocess
from stages.validate import Levels, Validate, check_image

GIB = 2**30
STAGES = ("validate", "preprocess", "pack")
DVC_YAML = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))


def below(folder: Path, name: str) -> Path | None:
    """The file called `name` somewhere below `folder`."""
    return next(folder.rglob(name), None)


class Incremental(Workspace):
    """A workspace whose stages have a memo; `told` is what the last run of each took from it."""

    limit = GIB

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.memos: dict[str, Memo] = {}

    def memo(self, stage: str) -> Memo:
        earlier = self.folder / f"earlier {stage}"
        out = {"preprocess": self.processed, "pack": self.packed}.get(stage)
        if out and out.exists():  # DVC's cache has it, wherever that is
            shutil.rmtree(earlier, ignore_errors=True)
            out.rename(earlier)
        read = self.folder / "read by the stages"
        needed = dependencies.of_files([read] if read.exists() else [], ("polars",))
        self.memos[stage] = Memo(self.folder / ".memo" / stage, self.limit, needed, partial(below, earlier))
        return self.memos[stage]

    def taken(self) -> dict[str, tuple[int, int]]:
        """Of each stage's last run: images taken from the memo, and all."""
        return {stage: (memo.taken, memo.asked) for stage, memo in self.memos.items()}


@pytest.fixture
def incremental(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Incremental:
    monkeypatch.setenv("STAGE_WORKERS", "1")
    return Incremental(tmp_path / "incremental")


def outcome(workspace: Workspace, *params) -> dict[str, bytes]:
    """All that a run writes, and how it ends."""
    end = b"well"
    shutil.rmtree(workspace.reports, ignore_errors=True)  # as DVC does
    workspace.manifest.unlink(missing_ok=True)
    try:
        workspace.run(*params)
    except InputError as error:
        end = str(error).replace(str(workspace.raw), "raw").replace(str(workspace.folder), "").encode()
    found = {"end": end, **contents(workspace.reports)}
    if workspace.manifest.exists():
        found["manifest"] = workspace.manifest.read_bytes()
    for folder in (workspace.processed, workspace.packed) if end == b"well" else ():
        found |= {f"{folder.name}/{name}": data for name, data in contents(folder).items()}
    return found


def from_nothing(workspace: Workspace, *params) -> dict[str, bytes]:
    """What a run without memo, in an empty folder, makes of the same raw files."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Workspace(Path(folder))
        fresh.raw = workspace.raw
        return outcome(fresh, *params)


def agree(workspace: Incremental, *params) -> None:
    """The law."""
    made, expected = outcome(workspace, *params), from_nothing(workspace, *params)
    assert made.keys() == expected.keys()
    assert [name for name in made if made[name] != expected[name]] == []


class Images:
    """The files below a folder, loose or in zips, as a user comes by them."""

    def __init__(self, raw: Path) -> None:
        self.raw = raw

    def archives(self) -> list[Path]:
        return sorted(path for path in self.raw.rglob("*") if path.suffix.lower() == ".zip")

    def loose(self) -> list[str]:
        files = {path for path in self.raw.rglob("*") if path.is_file()} - set(self.archives())
        return sorted(path.relative_to(self.raw).as_posix() for path in files)

    def places(self) -> dict[str, Path | None]:
        """By path, the zip that each image is in; None of loose ones."""
        found = dict.fromkeys(self.loose())
        for archive in self.archives():
            found |= dict.fromkeys(map(self._path(archive), unzipped(archive)), archive)
        return found

    def _path(self, archive: Path) -> Callable[[str], str]:
        return lambda name: (archive.parent / name).relative_to(self.raw).as_posix()

    def read(self, path: str) -> bytes:
        archive = self.places()[path]
        return unzipped(archive)[self._name(archive, path)] if archive else (self.raw / path).read_bytes()

    def _name(self, archive: Path, path: str) -> str:
        return (self.raw / path).relative_to(archive.parent).as_posix()

    def write(self, path: str, data: bytes, archive: Path | None = None) -> None:
        """Where the image is; a new one loose, or to this zip."""
        if archive := self.places().get(path, archive):
            put(archive, unzipped(archive) | {self._name(archive, path): data})
        else:
            (self.raw / path).parent.mkdir(parents=True, exist_ok=True)
            (self.raw / path).write_bytes(data)

    def remove(self, path: str) -> None:
        if archive := self.places()[path]:
            files = unzipped(archive)
            del files[self._name(archive, path)]
            put(archive, files)
        else:
            (self.raw / path).unlink()

    def zip(self, archive: Path, method: int) -> None:
        """Move all loose files below the zip's folder into it."""
        files = unzipped(archive) if archive.exists() else {}
        for path in self.loose():
            if (self.raw / path).is_relative_to(archive.parent):
                files[self._name(archive, path)] = (self.raw / path).read_bytes()
                (self.raw / path).unlink()
        put(archive, files, method)


def unzipped(archive: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(archive) as source:
        return {name: source.read(name) for name in source.namelist()}


def put(archive: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> None:
    """Write a zip as anybody would; none if there is nothing to be in it."""
    if not files:
        archive.unlink(missing_ok=True)
        return
    with zipfile.ZipFile(archive, "w", method) as target:
        for name, data in files.items():
            target.writestr(name, data)


class Changes(RuleBasedStateMachine):
    """Any changes of images, of zips that they are in, of params and the memo itself, and runs in between."""

    files = st.integers(0, 30)
    """Which of the files that are there, modulo their number."""
    places = st.builds("{}{}/{}".format, st.sampled_from(["", "b1/", "b2/"]), st.sampled_from(["cat", "dog"]),
                       st.sampled_from(["a.png", "b.jpg", "c.gif", "d.png", "e.tif"]))  # fmt: skip

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.workspace = Incremental(Path(self.folder.name))
        self.images = Images(self.workspace.raw)
        self.validated, self.preprocessed, self.packed = {}, {}, {}
        self.changed = True
        for number, folder in enumerate(["cat", "dog", "b1/cat", "b1/dog"] * 3):
            save(self.workspace.raw / folder / f"{number}.png", picture(1000 + number))
        self.run(1)

    def file(self, number: int) -> str:
        """The path of one of the images; if there is none, of a new one."""
        if not self.images.places():
            save(self.workspace.raw / "cat/new.png", picture(number))
        found = sorted(self.images.places())
        return found[number % len(found)]

    @rule(place=places, number=st.integers(0, 50), zipped=st.booleans())
    def add_or_edit(self, place: str, number: int, zipped: bool) -> None:
        several = [picture(number + 1)] if place.endswith((".gif", ".tif")) and number % 2 else []
        options = {"save_all": True, "append_images": several} if several else {}
        made = io.BytesIO()
        picture(number).save(made, {"jpg": "JPEG", "tif": "TIFF"}.get(place[-3:], place[-3:]), **options)
        above = (self.workspace.raw / place).parents
        archives = [archive for archive in self.images.archives() if zipped and archive.parent in above]
        self.images.write(place, made.getvalue(), archives[number % len(archives)] if archives else None)
        self.changed = True

    @rule(number=files)
    def delete(self, number: int) -> None:
        self.images.remove(self.file(number))
        self.changed = True

    @rule(number=files, place=places)
    def rename_or_relabel(self, number: int, place: str) -> None:
        path = self.file(number)
        data = self.images.read(path)
        self.images.remove(path)
        self.images.write(place, data)
        self.changed = True

    @rule(number=files, place=places)
    def copy(self, number: int, place: str) -> None:
        self.images.write(place, self.images.read(self.file(number)))
        self.changed = True

    @rule(number=files, share=st.floats(0, 1), cut=st.booleans())
    def corrupt(self, number: int, share: float, cut: bool) -> None:
        path = self.file(number)
        data = self.images.read(path)
        at = int(share * len(data))
        self.images.write(path, data[:at] if cut else data[:at] + b"\xaa" * 20 + data[at + 20 :])
        self.changed = True

    @rule(number=files, up=st.integers(0, 2), name=st.sampled_from(["x.zip", "Y.ZIP"]), deflated=st.booleans())
    def zip_a_folder(self, number: int, up: int, name: str, deflated: bool) -> None:
        """That of an image, or one above."""
        above = [folder for folder in (self.workspace.raw / self.file(number)).parents
                 if folder.is_relative_to(self.workspace.raw) and folder.is_dir()]  # fmt: skip
        archive = above[up % len(above)] / name
        self.images.zip(archive, zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED)
        self.changed = True

    @rule(back=st.booleans())
    def zip_all_as_the_command_does(self, back: bool) -> None:
        (unzip_all if back else zip_all)(self.workspace.raw)
        self.changed = True

    @rule(number=files, share=st.floats(0, 1, exclude_max=True))
    def damage_a_zip(self, number: int, share: float) -> None:
        """And mend it again: of a folder with one that cannot be used nothing is read."""
        if archives := self.images.archives():
            archive = archives[number % len(archives)]
            data = archive.read_bytes()
            at = int(share * len(data))
            archive.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            self.changed = True
            self.run(1)
            archive.write_bytes(data)
            self.changed = True

    @rule(
        params=st.fixed_dictionaries(
            {},
            optional={
                "multi_frame": st.sampled_from(["first", "split", "error"]),
                "min_side": st.sampled_from([16, 44]),
                "blurry": st.sampled_from([0.0, 1e6]),
                "max_frames": st.sampled_from([1, 1000]),
                "levels": st.builds(
                    Levels,
                    jpeg_damage=st.sampled_from(["error", "info"]),
                    blurry=st.sampled_from(["info", "ignore"]),
                    exact_duplicate=st.sampled_from(["error", "warning"]),
                    label_conflict=st.sampled_from(["error", "ignore"]),
                ),
            },
        )
    )
    def set_validate(self, params: dict) -> None:
        self.validated, self.changed = params, True
        self.run(1)

    @rule(
        size=st.sampled_from([8, 16]),
        mode=st.sampled_from(["RGB", "L"]),
        fit=st.sampled_from(["crop", "pad", "stretch"]),
        layout=st.sampled_from(["folder", "zip"]),
    )
    def set_preprocess(self, **params) -> None:
        self.preprocessed, self.changed = params, True
        self.run(1)

    @rule(encoding=st.sampled_from(["raw", "png", "jpeg"]), quality=st.sampled_from([50, 90]), train=st.floats(0, 1))
    def set_pack(self, encoding: str, quality: int, train: float) -> None:
        split = Split(train=train, val=1 - train, test=0.0)
        self.packed, self.changed = {"encoding": encoding, "jpeg_quality": quality, "split": split}, True
        self.run(1)

    @rule(seed=st.integers(0, 2**32))
    def spoil_the_memo(self, seed: int) -> None:
        spoil(self.workspace.folder / ".memo", random.Random(seed))
        self.changed = True
        self.run(2)

    @rule(seed=st.integers(0, 2**32))
    def lose_a_part_of_the_memo(self, seed: int) -> None:
        if parts := memo_files(self.workspace.folder / ".memo"):
            random.Random(seed).choice(parts).unlink()
        self.changed = True

    @rule(after=st.floats(0.3, 2))
    def kill_a_run(self, after: float) -> None:
        kill(start(self.workspace), after)
        self.changed = True

    @rule(workers=st.integers(1, 3))
    def run(self, workers: int) -> None:
        if self.changed:
            os.environ["STAGE_WORKERS"] = str(workers)
            params = Validate(**self.validated), Preprocess(**{"size": 16} | self.preprocessed), Pack(**self.packed)
            agree(self.workspace, *params)
            self.changed = False

    def teardown(self) -> None:
        self.run(1)
        self.folder.cleanup()


def memo_files(memo: Path) -> list[Path]:
    return sorted(path for path in memo.rglob("*") if path.is_file())


def spoil(memo: Path, rng: random.Random) -> None:
    """Overwrite some bytes of some files of the memo."""
    for path in memo_files(memo):
        data = bytearray(path.read_bytes())
        for _ in range(rng.choice([0, 0, 1, 30]) if data else 0):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(data)


def start(workspace: Incremental, **environment: str) -> subprocess.Popen:
    """All stages with their memo, in a process group of their own."""
    code = """if __name__ == "__main__":
        import os, sys
        from pathlib import Path
        from test_incremental import Incremental
        workspace = Incremental(Path(sys.argv[1]))
        if out := os.environ.get("OUT"):  # each of two runs at once has outs of its own
            workspace.reports, workspace.manifest = workspace.folder / out, workspace.folder / out / "manifest.parquet"
            workspace.processed, workspace.packed = workspace.reports / "processed", workspace.reports / "packed"
        workspace.run()"""
    script = workspace.folder / f"run{environment.get('OUT', '')}.py"
    workspace.folder.mkdir(parents=True, exist_ok=True)
    script.write_text(code)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])} | environment
    return subprocess.Popen(
        [sys.executable, script, workspace.folder],
        env=env,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill(process: subprocess.Popen, after: float) -> None:
    """kill -9 of a run and its workers, after so many seconds."""
    with process:
        time.sleep(after)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.read()


@pytest.mark.slow
def test_any_sequence_of_changes_ends_in_the_same_bytes_as_a_run_from_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STAGE_WORKERS", "1")
    checks = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
    run_state_machine_as_test(
        Changes,
        settings=settings(max_examples=10, stateful_step_count=12, deadline=None, suppress_health_check=checks),
    )


also = partial(pytest.param, marks=pytest.mark.slow)
"""Of the params of one test a few are enough for the fast part."""


def test_what_has_not_changed_is_taken_from_the_memo(incremental: Incremental):
    add_pictures(incremental.raw, 40)
    add_pictures(incremental.raw, 40, "dog", first=100)
    agree(incremental)
    assert incremental.taken() == {stage: (0, 80) for stage in STAGES}
    agree(incremental)
    assert incremental.taken() == {stage: (80, 80) for stage in STAGES}
    save(incremental.raw / "cat/img7.png", picture(7000))
    (incremental.raw / "cat/img8.png").rename(incremental.raw / "dog/moved.png")
    agree(incremental)
    assert incremental.taken() == {"validate": (79, 80), "preprocess": (79, 80), "pack": (0, 80)}  # it is one shard


def test_shards_that_have_not_changed_are_taken_from_the_last_pack(incremental: Incremental):
    for batch in ("a", "b", "c"):
        add_pictures(incremental.raw, 10, f"{batch}/cat", first=ord(batch) * 10)
    agree(incremental)
    save(incremental.raw / "b/cat/new.png", picture(1))
    agree(incremental)
    assert incremental.taken()["pack"] == (20, 31)
    for shard in (incremental.packed / "shards").iterdir():  # what was found is another file under the same name
        shard.write_bytes(b"changed")
    agree(incremental)
    assert incremental.taken()["pack"] == (0, 31)


@pytest.mark.slow
def test_zips_that_have_not_changed_are_taken_from_the_last_run(incremental: Incremental):
    zipped = Preprocess(layout="zip")
    for batch in ("a", "b", "c"):
        add_pictures(incremental.raw, 10, f"{batch}/cat", first=ord(batch) * 10)
    agree(incremental, None, zipped)
    save(incremental.raw / "b/cat/new.png", picture(1))
    agree(incremental, None, zipped)
    assert incremental.taken()["preprocess"] == (30, 31)
    for file in incremental.processed.iterdir():  # what was found is another file under the same name
        file.write_bytes(b"changed")
    agree(incremental, None, zipped)
    assert incremental.taken()["preprocess"] == (31, 31)  # image by image


@pytest.mark.parametrize(
    ("validated", "taken"),
    [
        also({"min_side": 41}, True),
        ({"multi_frame": "split"}, False),
        also({"blurry": 1e6, "levels": Levels(blurry="error")}, True),
        also({"max_side": 10}, True),
        also({"max_frames": 1}, False),
        also({"max_pixels": 100}, False),
        also({"levels": Levels(jpeg_damage="warning")}, False),
        also({"timeout": 61}, False),
        also({"memory_mib": 2049}, False),
    ],
    ids=lambda value: str(value)[:30],
)
def test_params_of_validate_that_say_how_to_decode_are_part_of_the_key(
    incremental: Incremental, validated: dict, taken: bool
):
    add_pictures(incremental.raw, 3)
    save(incremental.raw / "cat/a.gif", picture(20), save_all=True, append_images=[picture(21)])
    jpeg = save(incremental.raw / "cat/b.jpg", picture(22, 300, 200))
    data = jpeg.read_bytes()
    jpeg.write_bytes(data[:3000] + b"\xff\xd9" + data[3002:])
    agree(incremental)
    agree(incremental, Validate(**validated))
    assert incremental.taken()["validate"] == ((5, 5) if taken else (0, 5))
    agree(incremental)
    assert incremental.taken()["validate"] == (5, 5)


@pytest.mark.parametrize(
    "preprocessed",
    [{"size": 8}, also({"mode": "L"}), also({"fit": "pad"}), also({"fit": "pad", "background": [0, 0, 0]})],
)
def test_every_param_of_preprocess_is_part_of_the_key(incremental: Incremental, preprocessed: dict):
    add_pictures(incremental.raw, 3)
    agree(incremental)
    agree(incremental, None, Preprocess(**{"size": 16} | preprocessed))
    assert incremental.taken()["preprocess"] == (0, 3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packed", "taken"),
    [
        ({"encoding": "png"}, 0),
        ({"encoding": "jpeg"}, 0),
        ({"jpeg_quality": 50}, 20),
        ({"split": Split(train=0, val=0, test=1)}, 20),
        ({"split": Split(train=0.5, val=0.5, test=0)}, 0),
    ],
)
def test_params_of_pack_that_decide_a_shard_are_part_of_the_key(incremental: Incremental, packed: dict, taken: int):
    """Which images are counted for the mean is: those of train, or all where there are none."""
    add_pictures(incremental.raw, 20)
    agree(incremental, None, None, Pack(split=Split(train=0, val=1, test=0)))
    agree(incremental, None, None, Pack(**{"split": Split(train=0, val=1, test=0)} | packed))
    assert incremental.taken()["pack"] == (taken, 20)


@pytest.mark.slow
def test_damage_of_the_memo_is_found_and_named_and_the_image_made_again(incremental: Incremental, capfd):
    add_pictures(incremental.raw, 10)
    agree(incremental)
    (segment,) = (incremental.folder / ".memo/preprocess/segments").iterdir()
    data = segment.read_bytes()
    segment.write_bytes(data[:700] + bytes([data[700] ^ 1]) + data[701:])
    capfd.readouterr()
    agree(incremental)
    assert incremental.taken()["preprocess"] == (9, 10)
    (line,) = (line for line in capfd.readouterr().err.splitlines() if "memo" in line)
    assert re.fullmatch(rf"preprocess: the memo was damaged in {segment} at byte \d+: made anew", line)
    agree(incremental)
    assert incremental.taken()["preprocess"] == (10, 10)  # the good one is there


@pytest.mark.slow
@pytest.mark.parametrize("spoilt", [b"", b"no database" * 1000, None])
def test_a_damaged_index_is_made_anew(incremental: Incremental, capfd, spoilt: bytes | None):
    """None: only its inner pages are damaged, which shows when they are read."""
    add_pictures(incremental.raw, 40)
    incremental.run()
    index = incremental.folder / ".memo/preprocess/index.sqlite"
    index.write_bytes(index.read_bytes()[:100] + b"\x55" * 30000 if spoilt is None else spoilt)
    agree(incremental)
    for _ in range(3):
        agree(incremental)
    assert incremental.taken()["preprocess"] == (40, 40)
    assert capfd.readouterr().err.count("memo") <= 2 * 2


@pytest.mark.slow
def test_two_runs_at_once_share_a_memo(incremental: Incremental):
    add_pictures(incremental.raw, 60)
    other = Incremental(incremental.folder)
    runs = [start(incremental, STAGE_WORKERS="2", OUT=name) for name in ("one", "two")]
    for run in runs:
        _, errors = run.communicate(timeout=120)
        assert run.returncode == 0, errors
        assert errors == ""
    assert contents(incremental.folder / "one/packed") == contents(incremental.folder / "two/packed")
    agree(other)
    assert other.taken()["validate"] == other.taken()["preprocess"] == (60, 60)


@pytest.mark.slow
def test_a_killed_run_resumes_from_what_it_had_finished(incremental: Incremental):
    for number in range(200):
        save(incremental.raw / f"cat/{number}.png", picture(number, 700, 700))
    run = start(incremental, STAGE_WORKERS="1")
    deadline = time.monotonic() + 60
    while entries_of(incremental.folder / ".memo/validate") < 64 and time.monotonic() < deadline:
        time.sleep(0.02)
    kill(run, 0)
    finished = entries_of(incremental.folder / ".memo/validate")
    assert 64 <= finished < 200
    agree(incremental)
    taken, asked = incremental.taken()["validate"]
    assert asked == 200
    assert finished - 12 < taken < finished  # an entry an image, and one for each group of them


def entries_of(folder: Path) -> int:
    """How many values were written."""
    segments = (folder / "segments").glob("*.bin")
    return sum(1 for path in segments for block in memo_store.blocks(path) for _ in block.entries())


@pytest.mark.slow
def test_the_oldest_makes_room(incremental: Incremental):
    """Each run has other images; the limit has room for about three runs of preprocess."""
    incremental.limit = 3 * 2**20
    sizes = []
    for number in range(8):
        shutil.rmtree(incremental.raw, ignore_errors=True)
        for image in range(20):
            save(incremental.raw / f"cat/{image}.bmp", noise(number * 20 + image))
        incremental.run(None, Preprocess(size=128))
        sizes.append(size_of(incremental.folder / ".memo/preprocess"))
        assert sizes[-1] <= incremental.limit
    assert sizes[-1] > incremental.limit / 2
    incremental.run(None, Preprocess(size=128))
    assert incremental.taken()["preprocess"] == (20, 20)  # the last is still there


@pytest.mark.slow
def test_a_run_that_is_larger_than_the_memo_keeps_what_fits_and_says_so(incremental: Incremental, capfd):
    incremental.limit = 3 * 2**20
    for image in range(96):
        save(incremental.raw / f"cat/{image}.bmp", noise(image))
    agree(incremental, None, Preprocess(size=128))
    line = "preprocess: no more fits into its memo: raise memo.max_gib in params.yaml, or free some space"
    assert capfd.readouterr().err.count(line) == 1
    agree(incremental, None, Preprocess(size=128))
    assert 0 < incremental.taken()["preprocess"][0] < 96
    assert size_of(incremental.folder / ".memo/preprocess") <= incremental.limit


def noise(number: int) -> Image.Image:
    """Which no encoder makes small."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (128, 128, 3), np.uint8))


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_smaller_limit_is_kept_from_the_next_run_on(incremental: Incremental):
    for image in range(40):
        save(incremental.raw / f"cat/{image}.bmp", noise(image))
    incremental.run(None, Preprocess(size=128))
    folder = incremental.folder / ".memo/preprocess"
    assert size_of(folder) > 2**20
    Memo(folder, 2**20)
    assert size_of(folder) <= 2**20


def test_a_memo_that_cannot_be_written_is_done_without(incremental: Incremental, capfd):
    add_pictures(incremental.raw, 40)
    incremental.folder.joinpath(".memo").write_text("a file in its place")
    agree(incremental)
    assert incremental.taken() == {stage: (0, 0) for stage in STAGES}
    lines = [line for line in capfd.readouterr().err.splitlines() if "memo" in line]
    assert [line.split(": ")[:2] for line in lines] == [
        [stage, f"works without its memo in {incremental.folder / '.memo' / stage}"] for stage in STAGES
    ]


def test_nor_on_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")
    (tmp_path / "preprocess").write_text("a file in its place")
    assert Memo(tmp_path / "preprocess", GIB).of(make_png).store is None
    assert f"preprocess: works without its memo in {tmp_path / 'preprocess'}: " in capfd.readouterr().err


def test_the_memo_leaves_the_last_space_to_the_pipeline(incremental: Incremental, small_disk, capfd):
    disk = small_disk(1024)
    incremental.folder.mkdir()
    incremental.folder.joinpath(".memo").symlink_to(disk)
    add_pictures(incremental.raw, 40)
    agree(incremental)
    assert capfd.readouterr().err.count("no more fits into its memo") == len(STAGES)
    assert not list(disk.rglob("*.bin"))


def test_a_disk_that_fills_up_while_the_memo_is_written_costs_the_memo_alone(small_disk, monkeypatch):
    monkeypatch.setattr(memo_store, "SPARE_BYTES", 0)
    shared = Shared(small_disk(1024) / "memo")
    (worker,) = shared.begin(1)
    kept = failed = 0
    for number in range(30):
        try:
            assert shared.put(worker, (key(number), os.urandom(60_000)))
            kept += 1
        except memo_store.FAILURES:
            failed += 1
    assert kept >= 5
    assert failed >= 5
    names = {entry[0] for path in segments_of(shared) for block in memo_store.blocks(path) for entry in block.entries()}
    assert names == {key(number) for number in range(kept)}
    worker.close()


def segments_of(shared: "Shared") -> list[Path]:
    return list((shared.folder / "segments").iterdir())


class Shared:
    """A memo's folder as a stage's main process has it, and its workers."""

    def __init__(self, folder: Path, limit: int = GIB) -> None:
        self.folder, self.limit = folder, limit
        self.workers: list[memo_store.WorkerStore] = []
        self.blocks: list[memo_store.Block] = []

    def begin(self, workers: int) -> list[memo_store.WorkerStore]:
        """A run's workers."""
        self.store, self.blocks = memo_store.Store(self.folder, self.limit), []
        self.store.tidy()
        return [self.worker() for _ in range(workers)]

    def worker(self) -> memo_store.WorkerStore:
        self.workers.append(memo_store.WorkerStore(self.folder, self.limit))
        return self.workers[-1]

    def put(self, worker: memo_store.WorkerStore, *items: tuple[bytes, bytes]) -> bool:
        """Whether there was room."""
        if block := worker.put(items):
            self.blocks.append(block)
        return block is not None

    def end(self) -> bool:
        """Whether all has fit. Workers end later, if they only seem dead."""
        self.store.enter(self.blocks)
        return self.store.make_room(end=True)

    def found(self, *numbers: int) -> list[bytes | None]:
        """What another run finds."""
        (worker,) = self.begin(1)
        return [worker.get(key(number)) for number in numbers]

    def files(self) -> list[str]:
        """What is there beside the index and the values."""
        return sorted(name for name in contents(self.folder) if name != "index.sqlite" and not name.endswith(".bin"))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Shared]:
    shared = Shared(tmp_path / "memo")
    yield shared
    for worker in shared.workers:
        worker.close()


def key(number: int) -> bytes:
    return bytes([number]) * 32


def test_what_workers_write_is_found_by_the_next_run(shared: Shared):
    (before,) = shared.begin(1)
    shared.put(before, (key(0), b"before"))
    shared.end()
    one, two = shared.begin(2)
    assert [one.get(key(0)), one.get(key(1))] == [b"before", None]
    assert shared.put(one, (key(1), b"first"), (key(2), b""))
    assert shared.put(two, (key(1), b"second"), (key(3), b"third"))
    assert shared.put(one, (key(4), b"fourth"))
    assert one.get(key(4)) is None
    shared.end()
    assert shared.files() == []
    first, *others = shared.found(1, 2, 3, 4, 0)
    assert first in (b"first", b"second")
    assert others == [b"", b"third", b"fourth", b"before"]
    assert shared.workers[-1].damaged == []


def test_what_workers_wrote_whose_main_process_was_killed_is_entered_by_the_next_run(shared: Shared):
    one, two = shared.begin(2)
    shared.put(one, (key(1), b"one"))
    shared.put(two, (key(2), b"two"), (key(3), b"three"))
    shared.put(two, (key(4), b"torn"))
    torn = shared.folder / "segments" / f"{shared.blocks[-1].segment:016x}.bin"
    torn.write_bytes(torn.read_bytes()[:-1])
    (shared.folder / "segments/0123456789abcdef.bin").write_bytes(b"nothing was written")
    assert memo_store.count(shared.folder) == 0
    assert shared.found(1, 2, 3, 4) == [b"one", b"two", b"three", None]
    assert memo_store.count(shared.folder) == 3
    shared.put(one, (key(5), b"five"))  # a machine that only seemed dead
    assert shared.found(1, 5) == [b"one", b"five"]


def test_two_runs_at_once_that_do_not_know_of_each_other_lose_nothing(shared: Shared):
    other = Shared(shared.folder)
    (here,), (there,) = shared.begin(1), other.begin(1)
    shared.put(here, (key(1), b"here"))
    other.put(there, (key(2), b"there"))
    shared.end()
    shared.found(2)  # a third one enters what it finds
    other.put(there, (key(3), b"later"))
    other.end()
    assert shared.found(1, 2, 3) == [b"here", b"there", b"later"]
    assert there.get(key(1)) is None
    there.close()


def test_a_worker_finds_what_is_damaged_or_gone(shared: Shared):
    (worker,) = shared.begin(1)
    shared.put(worker, (key(1), b"one"), (key(2), b"two"))
    shared.end()
    (segment,) = segments_of(shared)
    segment.write_bytes(segment.read_bytes().replace(b"onetwo", b"onetwX"))
    assert shared.found(1, 2) == [b"one", None]
    assert shared.workers[-1].damaged == [f"{segment} at byte {memo_store.HEADER.size + 3}"]
    worker = shared.worker()
    segment.unlink()
    assert worker.get(key(1)) is None
    assert worker.damaged == []
    assert shared.found(1) == [None]
    assert memo_store.count(shared.folder) == 0
    (shared.folder / "index.sqlite").unlink()
    with pytest.raises(FileNotFoundError, match="does not see"):
        shared.worker()


def test_the_oldest_makes_room_and_where_there_is_none_workers_stop(shared: Shared):
    shared.limit = 2**20
    for run in range(3):
        (worker,) = shared.begin(1)
        if run == 2:
            assert worker.get(key(0)) is not None  # so that the other is the oldest
        time.sleep(0.02)
        assert shared.put(worker, (key(run), os.urandom(400_000)))
        assert shared.end()
    (worker,) = shared.begin(1)
    assert [worker.get(key(number)) is not None for number in (0, 1, 2)] == [True, False, True]
    assert shared.put(worker, (key(3), os.urandom(400_000)))
    assert not shared.store.make_room()
    assert not shared.put(worker, (key(4), b"no more"))
    assert shared.files() == ["full"]
    assert not shared.end()
    assert size_of(shared.folder) <= 2**20
    (worker,) = shared.begin(1)
    assert shared.put(worker, (key(4), b"more"))
    shared.end()
    assert size_of(shared.folder) <= 2**20
    assert shared.found(0, 2, 3, 4)[-1] == b"more"


def test_a_memo_of_another_version_is_removed(shared: Shared):
    shared.begin(0)
    with contextlib.closing(sqlite3.connect(shared.folder / "index.sqlite")) as index:
        index.execute("PRAGMA user_version = 1")
    (shared.folder / "segments/0123456789abcdef.bin").write_bytes(b"something else")
    assert shared.found(1) == [None]
    assert segments_of(shared) == []


class Copy:
    """A copy of the code, whose stages are run as dvc.yaml says, in which code can be edited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_the_code(cls, folder: Path) -> "Copy":
        for name in ("stages", "imagepack"):
            shutil.copytree(REPOSITORY / name, folder / name)
        for name in ("dvc.yaml", "requirements.lock"):
            shutil.copy(REPOSITORY / name, folder)
        (folder / "params.yaml").write_text(template_params(), encoding="utf-8")
        add_pictures(folder / "data/raw", 12)
        add_pictures(folder / "data/raw", 12, "dog", first=50)
        return cls(folder)

    def run(self, *stages: str) -> str:
        """What the stages print."""
        env = os.environ | {"PYTHONPATH": ""}
        printed = []
        for stage in stages or STAGES:
            command = DVC_YAML["stages"][stage]["cmd"].split()
            done = subprocess.run(
                [sys.executable, *command[1:]], cwd=self.folder, env=env, text=True, capture_output=True
            )
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout + done.stderr)
        return "".join(printed)

    def outs(self) -> dict[str, bytes]:
        found = contents(self.folder / "data") | contents(self.folder / "reports")
        return {name: data for name, data in found.items() if not name.startswith("raw/")}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace some code, once."""
        text = (self.folder / name).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (self.folder / name).write_text(text.replace(old, new), encoding="utf-8")

    def agrees(self) -> str:
        """The law; what the stages printed."""
        printed, made = self.run(), self.outs()
        (self.folder / ".memo").rename(self.folder / ".memo away")
        self.run()
        assert self.outs() == made
        shutil.rmtree(self.folder / ".memo")
        (self.folder / ".memo away").rename(self.folder / ".memo")
        return printed


@pytest.fixture(scope="module")
def has_run(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy after its first run; not to be changed."""
    copy = Copy.of_the_code(tmp_path_factory.mktemp("has_run"))
    copy.run()
    return copy


FIT = "    size = (params.size, params.size)\n    match params.fit:"
TURNED = "    image = image.transpose(Image.Transpose.ROTATE_90)\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "old", "new", "taken"),
    [
        ("stages/preprocess.py", FIT, TURNED + FIT, ["validate"]),
        ("imagepack/checks/appearance.py", "MEASURED_SIDE = 256", "MEASURED_SIDE = 20", ["preprocess"]),
        (
            "stages/validate.py",
            "yield from standard_checks",
            "yield from [] and standard_checks",
            ["validate", "preprocess"],
        ),
        ("imagepack/images/thumbnail.py", "SIDE = 128", "SIDE = 128  # pixels", []),
        ("params.yaml", "max_gib: 10.0", "max_gib: 1.0", ["validate", "preprocess"]),
    ],
    ids=["fit", "a measure", "a check", "a module of two stages", "the memo's size"],
)
def test_after_an_edit_of_code_what_depends_on_it_is_made_again(
    has_run: Copy, tmp_path: Path, file: str, old: str, new: str, taken: list[str]
):
    copy = Copy(shutil.copytree(has_run.folder, tmp_path / "copy"))
    copy.edit(file, old, new)
    assert re.findall(r"^(\w+): .*24 of 24 from the memo$", copy.agrees(), re.MULTILINE) == taken


@pytest.mark.slow
def test_a_file_that_dvc_yaml_lists_as_a_dep_is_part_of_the_key(tmp_path: Path):
    """Here a table of tones that the user's `fit` reads."""
    copy = Copy.of_the_code(tmp_path)
    copy.edit("stages/preprocess.py", FIT, "    image = image.point(eval(open('tones.txt').read()))\n" + FIT)
    copy.edit("dvc.yaml", "      - stages/preprocess.py\n", "      - stages/preprocess.py\n      - tones.txt\n")
    (tmp_path / "tones.txt").write_text("lambda value: value / 2")
    copy.run()
    assert "24 of 24" in copy.run("preprocess")
    (tmp_path / "tones.txt").write_text("lambda value: value / 3")
    assert "preprocess" not in re.findall(r"^(\w+): .* from the memo$", copy.agrees(), re.MULTILINE)
    (tmp_path / "tones.txt").rename(tmp_path / "elsewhere.txt")
    with pytest.raises(AssertionError, match=r"depends on tones\.txt, which is not there"):
        copy.run("preprocess")


@pytest.mark.slow
def test_with_dvc_too_incremental_runs_end_in_the_same_bytes(new_project: Callable[[], Project]):
    """DVC removes outs before a stage runs, gives pack its cache, and has a run cache beside the memo."""
    project = new_project()
    raw = project.folder / "data/raw"
    for batch in ("a", "b"):
        add_pictures(raw, 20, f"{batch}/cat", first=ord(batch) * 100)
        add_pictures(raw, 20, f"{batch}/dog", first=ord(batch) * 100 + 50)
    project("dvc", "add", "data/raw")
    project("dvc", "repro")

    def outs() -> dict[str, bytes]:
        found = contents(project.folder / "data") | contents(project.folder / "reports")
        return {name: data for name, data in found.items() if not name.startswith(("raw", "sample"))}

    def set_size(size: int) -> str:
        text = re.sub(r"size: \d+", f"size: {size}", (project.folder / "params.yaml").read_text(encoding="utf-8"))
        project.write("params.yaml", text)
        return project("dvc", "repro")

    def law() -> None:
        made = outs()
        shutil.rmtree(project.folder / ".memo")
        project("dvc", "repro", "--force")
        assert outs() == made

    first = outs()
    save(raw / "b/cat/new.png", picture(1))
    (raw / "b/dog/img9852.png").unlink()
    printed = project("dvc", "repro")
    taken = re.findall(r"(\w+): .*?; (\d+) of (\d+) from the memo", printed)
    assert taken == [("validate", "79", "80"), ("preprocess", "79", "80"), ("pack", "40", "80")]
    law()
    assert set_size(64).count("from the memo") == 0  # validate does not run
    law()
    assert "from the memo" not in set_size(128)  # the run cache has it
    (raw / "b/cat/new.png").unlink()
    add_pictures(raw, 1, "b/dog", first=9852)
    assert "from the memo" not in project("dvc", "repro")
    assert outs() == first


def test_a_check_that_failed_is_done_again(incremental: Incremental):
    """It may have been for want of memory, or a file that was not there for a moment."""
    add_pictures(incremental.raw, 3)
    memo = incremental.memo("validate")
    files, failing = ["cat/img0.png", "cat/img1.png"], lambda *_: 1 / 0
    for check, codes in ((failing, ["decode_error", "decode_error"]), (check_image, [])):
        _, findings = Checker.of(incremental.raw, Validate(blurry=0), check, memo)(files)
        assert [code for _, code, *_ in findings] == codes


def test_a_change_of_size_is_noticed_of_images_that_the_memo_knows(incremental: Incremental):
    add_pictures(incremental.raw, 3)
    incremental.run()
    for change in (lambda path: path.write_bytes(path.read_bytes() + b"x"), lambda path: path.unlink()):
        change(incremental.raw / "cat/img1.png")
        for layout in ("folder", "zip"):
            params = Preprocess(size=16, layout=layout)
            with pytest.raises(InputError, match=r"(?s)has changed since it was validated.*--force validate"):
                preprocess(incremental.raw, incremental.manifest, incremental.processed, params, incremental.memo("x"))


@pytest.mark.slow
def test_code_that_is_edited_while_a_stage_begins_keeps_nothing(new_project: Callable[[], Project]):
    """Its workers may have the old code, and the memo would take what they make for that of the new."""
    project = new_project()
    project.write(
        "begin.py",
        """
from pathlib import Path
from stages.preprocess import make_png
from imagepack.engine.memo import Memo
if __name__ == "__main__":
    memo = Memo.for_stage("preprocess", 1)
    print(memo.of(make_png).store is not None)
    path = Path("imagepack/images/decode.py")
    path.write_text(path.read_text() + "# edited")
    print(memo.of(make_png).store is None)
""",
    )
    printed = project("python", "begin.py")
    assert printed.count("True") == 2
    assert printed.count("goes on without its memo") == printed.count("code was edited while it ran") == 1


@pytest.mark.slow
def test_the_command_shows_what_there_is_and_removes_it(tmp_path: Path):
    def memo(*arguments: str, code: int = 0) -> str:
        env = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-m", "imagepack.commands.memo", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    (tmp_path / "params.yaml").write_text("memo: {max_gib: 0.5}")
    assert memo().splitlines()[1:] == ["limit of each: 0.5 GiB (memo.max_gib in params.yaml)"]
    incremental = Incremental(tmp_path)
    add_pictures(incremental.raw, 30)
    incremental.run()
    first, *stages, _ = memo().splitlines()
    assert first.split() == ["stage", "entries", "MiB"]
    groups = len(list(raw_files.groups(raw_files.find(incremental.raw)[0])))
    entries = [["pack", "1"], ["preprocess", "30"], ["validate", str(30 + groups)]]
    assert [line.split()[:2] for line in stages] == entries
    assert "no such command: cler" in memo("cler", code=2)
    spoil_all(tmp_path / ".memo")
    assert "remove it with python3 run.py memo clear" in memo(code=1)
    assert re.fullmatch(r"Removed \.memo: [\d.]+ MiB\.\n", memo("clear"))
    assert not (tmp_path / ".memo").exists()
    (tmp_path / "params.yaml").write_text("memo: {max_gib: 0}")
    assert "off" in memo()


def spoil_all(memo: Path) -> None:
    for path in memo_files(memo):
        path.write_bytes(b"spoilt" * 1000)


def test_a_file_that_is_written_to_while_a_stage_runs_is_noticed(tmp_path: Path):
    """The worker may have loaded it before or after, so its results are not kept."""
    table = tmp_path / "table.txt"
    table.write_text("1")
    before = dependencies.of_files([table])
    assert before.unchanged()
    assert before.same_here()
    table.write_text("2")
    assert not before.unchanged()
    assert not before.same_here()
    assert dependencies.of_files([table]).digest != before.digest


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_depends_on_is_what_dvc_yaml_lists_without_its_inputs(stage: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(REPOSITORY)
    found = {Path(path) for path, *_ in dependencies.of_stage(stage).files}
    assert Path("stages", f"{stage}.py") in found
    assert Path("imagepack/images/decode.py") in found
    assert not any(path.is_relative_to("data") or path.suffix == ".pyc" for path in found)
    assert dependencies.of_stage(stage).same_here()
    with pytest.raises(InputError, match="no stage other"):
        dependencies.of_stage("other")


def test_a_library_counts_with_its_version_and_whether_it_is_there():
    one, other, none = (dependencies.of_files([], names).digest for names in (("pillow",), ("numpy",), ("absent",)))
    assert len({one, other, none, dependencies.of_files([]).digest}) == 4
