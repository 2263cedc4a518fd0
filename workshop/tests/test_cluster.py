"""The stages on a real Dask cluster: the same bytes as without, and every failure ends in words."""

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import psutil
import pytest
from conftest import REPOSITORY, Workspace, add_pictures, contents, picture, save
from test_incremental import Incremental, agree, entries_of, from_nothing, outcome, start
from test_validate import slow_bmp
from test_workers import HANGS, KILLS, SWALLOWS, square
from test_workers import run as run_square

from imagepack.engine import workers
from imagepack.engine.cluster import bundles, client, marks
from imagepack.errors import InputError
from stages.validate import Validate
from workshop.benchmarks.cluster import LocalCluster, running

TESTS = Path(__file__).parent
IMPORTED = (REPOSITORY, TESTS)
SHORT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "3s", "DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "4s"}
NAP = 0.05
"""Seconds an image takes in some tests."""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="looks at processes as Linux has them")
needs_distributed = [pytest.mark.slow, pytest.mark.extra("distributed")]


def nap(task: Sequence[int]) -> list[int]:
    time.sleep(NAP * len(task))
    return [number**2 for number in task]


def times(task: Sequence[int]) -> tuple[float, float]:
    begun = time.time()
    time.sleep(NAP)
    return begun, time.time()


def place(task: Sequence[int]) -> str:
    time.sleep(NAP * len(task))
    return os.environ.get("PLACE", "")


def kills_dask(task: Sequence[int]) -> None:
    """What no decoder should be able to do."""
    for process in psutil.Process().parents():
        if "multiprocessing.spawn" in " ".join(process.cmdline()):
            process.kill()
    time.sleep(1000)


def images(function, numbers: Sequence[int], size: int = 4, **options) -> Iterator:
    return workers.map_in_order(function, workers.groups(numbers, size), len(numbers), "test", **options)


def keepers(local: LocalCluster) -> list[psutil.Process]:
    """Processes that any worker of `local` has beside it."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        if "import work" in " ".join(process.info["cmdline"] or ()) and process.is_running():
            found.append(process)
    return [process for process in found if process.info["environ"].get("CLUSTER") == str(local.folder)]


def no_keepers_within(local: LocalCluster, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while keepers(local):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def dask_processes(worker: psutil.Popen) -> list[psutil.Process]:
    """A nanny and its worker, without what the worker has started."""
    below = [each for each in worker.children() if "multiprocessing.spawn" in " ".join(each.cmdline())]
    return [worker, *below]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.delenv("STAGE_WORKERS", raising=False)
    return monkeypatch


def options(folder: Path) -> dict:
    return {"path": IMPORTED, "CLUSTER": str(folder)}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Two workers for the tests that leave them alive."""
    folder = tmp_path_factory.mktemp("shared")
    with running(folder, **options(folder)) as local:
        yield local


@pytest.fixture
def own(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """Two workers to be harmed."""
    with running(tmp_path / "cluster", **options(tmp_path / "cluster")) as local:
        environment.setenv("DASK_SCHEDULER_ADDRESS", local.address)
        yield local


@pytest.fixture
def lone(tmp_path: Path, environment: pytest.MonkeyPatch) -> Iterator[LocalCluster]:
    """One worker, where it does not matter how many there are."""
    with running(tmp_path / "cluster", count=1, **options(tmp_path / "cluster")) as local:
        environment.setenv("DASK_SCHEDULER_ADDRESS", local.address)
        yield local


def stage(folder: Path, address: str, path: Sequence[Path] = (REPOSITORY,), **variables: str) -> psutil.Popen:
    """Start validate in `folder`, on the cluster."""
    (folder / "params.yaml").write_text("{}\n")
    (folder / "dvc.yaml").write_text("stages: {validate: {cmd: validate}}\n")  # or it has no memo
    env = {name: value for name, value in os.environ.items() if name != "STAGE_WORKERS"}
    env |= {"PYTHONPATH": os.pathsep.join(map(str, path)), "DASK_SCHEDULER_ADDRESS": address} | SHORT | variables
    command = ["-m", "imagepack.engine", "validate", "raw", "acknowledged.csv", "manifest.parquet", "reports"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return psutil.Popen([sys.executable, "-W", "error", *command], cwd=folder, env=env, **output)


def wait_for_entries(memo: Path, count: int) -> int:
    """Wait until workers of a cluster have written so many; how many there are."""
    until = time.monotonic() + 60
    while (written := entries_of(memo)) < count:
        assert time.monotonic() < until
        time.sleep(0.02)
    return written


def hide_packages(folder: Path) -> None:
    """Put empty packages there, in the place of those that the environment may have."""
    for package in ("stages", "imagepack"):
        (folder / package).mkdir(parents=True)
        (folder / package / "__init__.py").touch()


def refusal(process: psutil.Popen, within: float = 30) -> str:
    """What a stage said that ended with exit code 1."""
    printed = process.communicate(timeout=within)[0]
    assert process.returncode == 1, printed
    assert "Traceback" not in printed
    return printed


# Without a cluster.


@pytest.mark.parametrize("threads", [0, 1, 7, 1000])
@pytest.mark.parametrize("speed", [1e-9, 0.01, 50])
def test_bundles_hold_every_task_once_and_in_order(threads: int, speed: float):
    tasks = list(workers.groups(range(3210)))
    cut = bundles.Bundles(iter(tasks), 3210)
    found = []
    while bundle := cut.next(threads):
        found += bundle
        count = sum(map(len, bundle))
        cut.learn(count, count * speed)
    assert found == tasks


def test_tasks_grow_with_the_cluster_until_the_scheduler_can_serve_it():
    def seconds(threads: int) -> float:
        cut = bundles.Bundles(iter(workers.groups(range(10_000_000))), 10_000_000)
        cut.learn(32, 0.032)
        return sum(map(len, cut.next(threads))) * 0.001

    assert seconds(2) == pytest.approx(bundles.SHORTEST, rel=0.1)
    assert seconds(1000) >= 0.99 * min(1000 * bundles.OVERHEAD / bundles.SCHEDULER_SHARE, 10_000 / 4000)


def test_a_missing_library_is_named_with_the_command_that_installs_it(tmp_path: Path):
    add_pictures(tmp_path / "raw", 2)
    (tmp_path / "distributed.py").write_text("raise ModuleNotFoundError('not here', name='distributed')\n")
    said = refusal(stage(tmp_path, "tcp://127.0.0.1:1", path=(tmp_path, REPOSITORY)))
    assert "DASK_SCHEDULER_ADDRESS is set, and distributed is missing: python3 run.py -- pip install" in said


# With one.


class TestOnACluster:
    pytestmark = needs_distributed

    def test_the_stages_write_the_same_bytes_as_without(
        self, shared: LocalCluster, tmp_path: Path, environment: pytest.MonkeyPatch
    ):
        """The sample has damaged files on purpose; one more takes longer than it may."""
        here, there = Workspace(tmp_path / "here"), Workspace(tmp_path / "there")
        shutil.copytree(REPOSITORY / "data/sample/images", here.raw)
        (next(here.raw.iterdir()) / "slow.bmp").write_bytes(slow_bmp(4000))
        params = Validate(timeout=2)
        for workspace in (here, there):
            workspace.raw = here.raw
            if workspace is there:
                environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
            workspace.run(params)
        assert "timeout" in (here.reports / "rejected.csv").read_text()
        made = contents(here.folder / "processed") | contents(here.packed)
        assert len(made) > 200
        assert contents(there.folder / "processed") | contents(there.packed) == made
        assert there.manifest.read_bytes() == here.manifest.read_bytes()
        assert contents(there.reports) == contents(here.reports)
        assert not list(tmp_path.rglob(".cluster-*"))
        assert keepers(shared) == []

    def test_stages_started_by_their_commands_in_any_folder_work(self, shared: LocalCluster, tmp_path: Path):
        add_pictures(tmp_path / "raw", 20)
        add_pictures(tmp_path / "raw", 20, "dog", first=20)
        for memo in ("", "; 40 of 40 from the memo"):
            process = stage(tmp_path, shared.address)
            assert process.communicate(timeout=60)[0] == (
                f"validate: 40 files in 2 classes: 40 accepted, 0 rejected (see reports/validation.html){memo}\n"
            )
        found = sorted(path.name for path in tmp_path.iterdir())
        assert found == [".memo", "dvc.yaml", "manifest.parquet", "params.yaml", "raw", "reports"]

    @pytest.mark.parametrize("first", ["here", "there"])
    def test_runs_here_and_on_the_cluster_have_one_memo(
        self, shared: LocalCluster, tmp_path: Path, environment: pytest.MonkeyPatch, first: str
    ):
        incremental = Incremental(tmp_path / "work")
        for name in ("birds", "fruit"):
            shutil.copytree(REPOSITORY / "data/sample/images" / name, incremental.raw / name)
        damaged = next(path for path in sorted(incremental.raw.rglob("*.jpg")))
        damaged.write_bytes(damaged.read_bytes()[:-2000])  # which validate decodes each time
        made = from_nothing(incremental)  # here

        def run(where: str) -> dict[str, tuple[int, int]]:
            environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address if where == "there" else "")
            assert outcome(incremental) == made
            return incremental.taken()

        second = "there" if first == "here" else "here"
        _, images = run(first)["preprocess"]
        assert incremental.taken()["preprocess"] == (0, images)
        taken = run(first)
        assert taken["preprocess"] == taken["pack"] == (images, images)
        assert run(second) == run(first) == taken
        save(incremental.raw / "new/new.png", picture(1))
        environment.setenv("DASK_SCHEDULER_ADDRESS", "")
        made = from_nothing(incremental)
        assert run(second)["preprocess"] == (images, images + 1)
        assert run(first)["preprocess"] == (images + 1, images + 1)
        memo = incremental.folder / ".memo"
        assert {path.name for path in memo.rglob("*") if path.is_file() and path.suffix != ".bin"} == {"index.sqlite"}

    def test_a_worker_with_other_libraries_keeps_nothing_that_they_may_change(
        self, tmp_path: Path, environment: pytest.MonkeyPatch
    ):
        """Not one for which a cluster is refused."""
        library = tmp_path / "library/polars-0.1.dist-info"
        library.mkdir(parents=True)
        (library / "METADATA").write_text("Name: polars\nVersion: 0.1\n")
        incremental = Incremental(tmp_path / "work")
        add_pictures(incremental.raw, 10)
        with running(tmp_path / "cluster", count=1, path=(library.parent, *IMPORTED)) as local:
            environment.setenv("DASK_SCHEDULER_ADDRESS", local.address)
            _, errors = start(incremental).communicate(timeout=60)
        for stage in ("validate", "preprocess", "pack"):
            folder = incremental.folder / ".memo" / stage
            assert f"{stage}: goes on without its memo in {folder}: code, libraries or Python on " in errors
        assert (
            entries_of(incremental.folder / ".memo/preprocess")
            == entries_of(incremental.folder / ".memo/validate")
            == 0
        )

    @linux_only
    def test_a_worker_that_is_killed_costs_the_memo_nothing(
        self, own: LocalCluster, tmp_path: Path, environment: pytest.MonkeyPatch
    ):
        incremental = Incremental(tmp_path / "work")
        for number in range(120):
            save(incremental.raw / f"cat/{number}.png", picture(number, 500, 500))
        process = start(incremental)
        wait_for_entries(incremental.folder / ".memo/preprocess", 32)
        for each in dask_processes(own.workers[0])[::-1]:
            each.kill()
        _, errors = process.communicate(timeout=120)
        assert (process.returncode, errors) == (0, "")
        environment.delenv("DASK_SCHEDULER_ADDRESS")
        agree(incremental)
        assert set(incremental.taken().values()) == {(120, 120)}

    def test_images_that_kill_or_hang_a_decoder_cost_themselves_and_no_dask_worker(
        self, shared: LocalCluster, environment: pytest.MonkeyPatch
    ):
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
        before = [process.pid for worker in shared.workers for process in dask_processes(worker)]
        results = run_square(range(80), timeout=2, lost=lambda number, what: [f"{number} {what}"])
        expected = [number**2 for number in range(80)]
        expected[KILLS], expected[HANGS] = "40 decoder_crash", "70 timeout"
        assert [number for group in results for number in group] == expected
        assert [process.pid for worker in shared.workers for process in dask_processes(worker)] == before

    def test_errors_reach_the_caller(self, shared: LocalCluster, environment: pytest.MonkeyPatch):
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
        with pytest.raises(InputError, match="a worker process died after 32 of 60 images"):
            run_square(range(60))
        with pytest.raises(TypeError) as raised:
            run_square(["text"] * 10)
        assert any("test_workers.py" in note for note in raised.value.__notes__)

    @linux_only
    def test_memory_is_limited(self, shared: LocalCluster, environment: pytest.MonkeyPatch):
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
        with pytest.raises(MemoryError):
            run_square([SWALLOWS], memory_mib=1024)
        assert run_square([SWALLOWS], memory_mib=4096) == [[SWALLOWS**2]]

    def test_stage_workers_limits_how_much_is_at_work_at_a_time(
        self, shared: LocalCluster, environment: pytest.MonkeyPatch
    ):
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)

        def overlap() -> bool:
            spans = sorted(images(times, range(40), size=1))
            return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))

        assert overlap()
        environment.setenv("STAGE_WORKERS", "1")
        assert not overlap()

    def test_two_runs_at_a_time_do_not_disturb_each_other(self, shared: LocalCluster, environment: pytest.MonkeyPatch):
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
        first, second = images(nap, range(40)), images(square, range(20, 30))
        mixed = next(first), next(second), *list(second), *list(first)
        assert mixed[0] == [0, 1, 4, 9]
        assert len([number for group in mixed for number in group]) == 50

    @linux_only
    def test_a_worker_that_is_killed_costs_time_alone(self, own: LocalCluster):
        """As if its machine had gone; what it had started ends too."""
        results = images(nap, range(160))
        found = [next(results)]
        for process in dask_processes(own.workers[0])[::-1]:
            process.kill()
        assert [number for group in [*found, *results] for number in group] == [number**2 for number in range(160)]
        assert no_keepers_within(own, 5)

    @linux_only
    def test_a_worker_that_joins_is_used_though_it_was_started_in_the_repository_alone(self, own: LocalCluster):
        results = images(place, range(400), size=2)
        found = [next(results)]
        own.start_worker(path=(TESTS,), cwd=REPOSITORY, PLACE="late", CLUSTER=str(own.folder))
        found += results
        assert len(found) == 200
        assert {"", "late"} == set(found)

    @linux_only
    def test_a_keeper_that_is_killed_costs_time_alone(self, own: LocalCluster):
        results = images(nap, range(160))
        found = [next(results)]
        for process in keepers(own):
            process.kill()
        assert [number for group in [*found, *results] for number in group] == [number**2 for number in range(160)]

    @linux_only
    def test_a_task_that_kills_dask_workers_ends_in_words(self, own: LocalCluster):
        with pytest.raises(InputError, match="images behind the first 0 of 1 have killed several Dask workers"):
            list(images(kills_dask, range(1)))
        own.require(2)
        assert run_square(range(10)) == [[number**2 for number in range(10)]]

    @linux_only
    def test_without_its_scheduler_a_stage_ends_soon_and_can_be_repeated(self, own: LocalCluster, tmp_path: Path):
        """And goes on where it was."""
        project = tmp_path / "project"
        add_pictures(project / "raw", 400)
        (project / "raw/cat/slow.bmp").write_bytes(slow_bmp(4000))
        process = stage(project, own.address)
        finished = wait_for_entries(project / ".memo/validate", 64)
        own.scheduler.kill()
        results = r"when the results of \d+ of 401 images were here"
        said = rf"the Dask scheduler at {own.address} was lost {results}: start it again, and the workers if they ended"
        assert re.search(said, refusal(process))
        with running(tmp_path / "second", **options(tmp_path / "second")) as second:
            printed = stage(project, second.address).communicate(timeout=60)[0]
        assert "401 files in 1 class" in printed
        taken = int(re.search(r"; (\d+) of 401 from the memo", printed)[1])
        assert finished - finished // 12 <= taken <= 400  # an entry an image, and one for each group of some 24
        assert no_keepers_within(own, 60)
        found = contents(project / "reports"), (project / "manifest.parquet").read_bytes()
        shutil.rmtree(project / ".memo")
        assert "memo" not in stage(project, "").communicate(timeout=60)[0]
        assert (contents(project / "reports"), (project / "manifest.parquet").read_bytes()) == found

    @linux_only
    def test_a_scheduler_that_says_nothing_is_not_waited_for(self, own: LocalCluster):
        for number, result in enumerate(images(nap, range(40))):
            assert len(result) == 4
            if number == 0:
                break
        import dask

        with dask.config.set({"distributed.comm.timeouts.connect": "8s"}):
            results = images(nap, range(4000))
            next(results)
            own.scheduler.suspend()
            begun = time.monotonic()
            try:  # results that are being fetched when it falls silent are waited for first, for 16 s
                with pytest.raises(InputError, match="did not answer within 8 s: see that it and its workers run"):
                    list(results)
            finally:
                own.scheduler.resume()
            assert time.monotonic() - begun < 60

    @linux_only
    def test_ctrl_c_takes_the_work_back(self, lone: LocalCluster, tmp_path: Path):
        import distributed

        add_pictures(tmp_path / "raw", 100)
        (tmp_path / "raw/cat/slow.bmp").write_bytes(slow_bmp(8000))
        process = stage(tmp_path, lone.address)
        while not keepers(lone):
            time.sleep(0.05)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        assert refusal(process).endswith("validate: stopped\n")
        assert no_keepers_within(lone, 5)
        with distributed.Client(lone.address, set_as_default=False) as client:
            assert not any(client.processing().values())

    @linux_only
    def test_a_stage_that_is_killed_leaves_nothing_to_do(self, lone: LocalCluster):
        script = (
            "from workshop.benchmarks.cluster import nothing\n"
            "from imagepack.engine import workers; import test_cluster\n"
            "for _ in test_cluster.images(test_cluster.nap, range(100000)): print('one', flush=True)"
        )
        env = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, IMPORTED))}
        process = subprocess.Popen([sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, cwd=lone.folder)
        process.stdout.readline()
        process.kill()
        process.communicate()
        import distributed

        with distributed.Client(lone.address, set_as_default=False) as client:
            until = time.monotonic() + 30
            while any(client.processing().values()):
                assert time.monotonic() < until
                time.sleep(0.2)

    def test_an_address_where_nobody_answers_is_said_so(self, tmp_path: Path):
        add_pictures(tmp_path / "raw", 2)
        said = refusal(stage(tmp_path, "tcp://127.0.0.1:1"))
        assert "DASK_SCHEDULER_ADDRESS is tcp://127.0.0.1:1, where no Dask scheduler answers" in said
        assert "unset the variable to work on this machine" in said
        assert "where no Dask scheduler answers" in refusal(stage(tmp_path, "nonsense://there"))

    def test_a_cluster_without_workers_is_said_so(self, tmp_path: Path):
        add_pictures(tmp_path / "raw", 2)
        with running(tmp_path / "cluster", count=0) as local:
            assert f"the Dask cluster at {local.address} has had no workers for 4 s" in refusal(
                stage(tmp_path, local.address)
            )

    def test_a_stage_says_that_it_waits_for_a_worker_and_ends_well_when_one_comes(self, tmp_path: Path):
        project, patience = tmp_path / "project", {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "60s"}
        add_pictures(project / "raw", 2)
        with running(tmp_path / "cluster", count=0) as local:
            process = stage(project, local.address, **patience)
            line = f"validate: the cluster at {local.address} has no workers: waiting for one (docs/scaling.md says how"
            assert process.stdout.readline().startswith(line)
            time.sleep(3 * client.LOOK)
            local.start_worker(path=IMPORTED)
            printed = process.communicate(timeout=60)[0]
        assert process.returncode == 0
        assert re.fullmatch("validate: 2 files in 1 class: 2 accepted, .*\n", printed)

    @linux_only
    def test_a_run_sweeps_the_marks_that_killed_runs_have_left_and_no_other_file(self, tmp_path: Path):
        project = tmp_path / "project"
        add_pictures(project / "raw", 2)
        with running(tmp_path / "cluster", count=0) as local:
            killed = []
            for _ in range(2):
                process, before = stage(project, local.address), set(project.glob(".cluster-*"))
                while not (new := set(project.glob(".cluster-*")) - before):
                    time.sleep(0.05)
                process.terminate()
                process.communicate()
                killed += new
            old, young = killed
            others = [".cluster-0123456789AB", ".cluster-0123456789abc", ".cluster-notes", "x.cluster-0123456789ab"]
            for name in others:
                (project / name).touch()
            (project / ".cluster-000000000000").mkdir()
            (project / ".cluster-111111111111").symlink_to("raw")
            (project / ".cluster-222222222222").write_text("larger than what a run writes" * 2)
            others += [f".cluster-{digit * 12}" for digit in "012"]
            week_ago = young.stat().st_mtime - marks.FORGOTTEN
            for name in others:
                os.utime(project / name, (0, 0), follow_symlinks=False)
            os.utime(old, (week_ago, week_ago))
            os.utime(young, (week_ago + 600,) * 2)
            local.start_worker(path=IMPORTED)
            local.require(1)
            assert "2 accepted" in stage(project, local.address).communicate(timeout=60)[0]
        left = {path.name for path in project.glob("*.cluster-*")}
        assert left == {young.name, *others}

    def test_a_run_at_work_keeps_its_mark_however_long_it_takes(
        self, shared: LocalCluster, tmp_path: Path, environment: pytest.MonkeyPatch
    ):
        """Or has it again, where it was stopped so long that another run swept it."""
        environment.setenv("DASK_SCHEDULER_ADDRESS", shared.address)
        environment.chdir(tmp_path)
        results = images(nap, range(400))
        next(results)
        (mark,) = tmp_path.glob(".cluster-*")
        run = mark.read_text()
        os.utime(mark, (0, 0))
        time.sleep(client.LOOK)
        seen = list(itertools.islice(results, 50))
        assert time.time() - mark.stat().st_mtime < 60
        mark.unlink()
        time.sleep(client.LOOK)
        seen += itertools.islice(results, 40)
        assert mark.read_text() == run
        assert len(seen + list(results)) == 99
        assert not mark.exists()

    @linux_only
    def test_workers_that_do_not_see_the_files_are_named(self, shared: LocalCluster, tmp_path: Path):
        """Another file system is mounted in their place, for one worker alone."""
        if subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "true"]).returncode:
            pytest.skip("needs the right to mount in a namespace of its own")
        project, other = tmp_path / "project", tmp_path / "other"
        add_pictures(project / "raw", 2)
        add_pictures(other / "raw", 2)
        with running(tmp_path / "cluster", count=1, path=IMPORTED) as local:
            for name, mount in {"blind": "mount -t tmpfs none", "astray": f"mount --bind {other}"}.items():
                target = tmp_path if name == "blind" else project
                script = f'{mount} {target} && mkdir -p {local.folder} && cd / && exec "$@"'
                wrapper = tmp_path / f"{name}.sh"
                wrapper.write_text(
                    f"#!/bin/sh\nexec unshare --user --map-root-user --mount sh -c '{script}' sh \"$@\"\n"
                )
                wrapper.chmod(0o755)
                local.start_worker(path=IMPORTED, before=(str(wrapper),))
            local.require(3)
            said = refusal(stage(project, local.address))
        assert "cannot be used as it is:\n" in said
        assert f": does not see the folder {project}: it has to be on a file system that all machines share" in said
        assert f": sees another folder {project} than the stage: it has to be on a shared file system" in said
        assert said.count("tcp://") == 3  # the scheduler and two of three workers

    def test_workers_without_the_repository_or_with_another_are_named(self, tmp_path: Path):
        project, without, edited, library = (tmp_path / name for name in ("project", "none", "edited", "library"))
        add_pictures(project / "raw", 2)
        hide_packages(without)
        for package in ("stages", "imagepack"):
            shutil.copytree(REPOSITORY / package, edited / package)
        with (edited / "stages/preprocess.py").open("a") as file:
            file.write("# edited\n")
        (library / "xxhash-0.1.dist-info").mkdir(parents=True)
        (library / "xxhash-0.1.dist-info/METADATA").write_text("Name: xxhash\nVersion: 0.1\n")
        with running(tmp_path / "cluster", count=1, path=IMPORTED) as local:
            for path in ((without,), (edited,), (library, REPOSITORY)):
                local.start_worker(path=path)
            local.require(4)
            said = refusal(stage(project, local.address))
        assert ": cannot import the repository (" in said
        assert "start workers with PYTHONPATH set to its folder" in said
        assert ": differs from the machine of the stage: the code is " in said
        assert ": differs from the machine of the stage: xxhash is 0.1, not " in said
        assert said.count("tcp://") == 4

    def test_a_worker_that_joins_and_is_unfit_is_named(self, lone: LocalCluster, tmp_path: Path):
        hide_packages(tmp_path / "none")
        results = images(nap, range(2000), size=2)
        next(results)
        lone.start_worker(path=(tmp_path / "none",))
        with pytest.raises(InputError, match=r"as it is:\n  tcp://.*: cannot import the repository"):
            list(results)

    def test_code_that_was_edited_since_the_workers_started_is_used(self, tmp_path: Path):
        """But for the few lines that the Dask workers themselves have loaded."""
        copy = tmp_path / "copy"
        for package in ("stages", "imagepack"):
            shutil.copytree(REPOSITORY / package, copy / package)
        project = tmp_path / "project"
        add_pictures(project / "raw", 2)
        with running(tmp_path / "cluster", count=1, path=(copy,)) as local:
            assert "2 accepted" in stage(project, local.address, path=(copy,)).communicate(timeout=60)[0]
            shutil.rmtree(project / ".memo")  # dvc.yaml there lists no code
            edited = copy / "imagepack/checks/image_checks.py"
            edited.write_text(edited.read_text().replace("if longer > params.max_side:", "if longer > 1:"))
            stage(project, local.address, path=(copy,)).communicate(timeout=60)  # finds every image too large
            seen = pl.read_parquet(project / "manifest.parquet")["seen"].to_list()
            assert all("48 x 40 pixels" in each for each in seen)
            with (copy / "imagepack/engine/cluster/worker.py").open("a") as file:
                file.write("# edited\n")
            said = refusal(stage(project, local.address, path=(copy,)))
            assert "has loaded another imagepack/engine/cluster/worker.py: update the repository and restart" in said
