"""Faults on the real thing: kills, full disks, bad networks, damage. What ends well ends in the same bytes.

docs/faults.md lists them for users: what they see, and what to do.
"""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import polars as pl
import psutil
import pytest
from conftest import Project, add_pictures, aws_variables, contents, picture, save
from fault_proxy import FaultProxy, files, sometimes

from imagepack import PackedImages, PackError
from imagepack.commands import s3
from imagepack.dvc import download_cache

pytestmark = pytest.mark.slow
RESULTS = ("data/validated", "data/processed", "data/packed", "reports")
SMALL_SHARDS = ("shard_mib: 8\n", "shard_mib: 1\n")


def end_state(project: Project) -> dict[str, bytes]:
    """All that a run makes, and what DVC has noted of it."""
    found = {f"{name}/{path}": data for name in RESULTS for path, data in contents(project.folder / name).items()}
    return found | {"dvc.lock": (project.folder / "dvc.lock").read_bytes()}


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.fixture(scope="module")
def added(new_project: Callable[[], Project]) -> Project:
    """A dataset of 48 images that is added and has never run; not to be changed."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 24, "cat")
    add_pictures(project.folder / "data/raw", 24, "dog", first=24)
    params = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", params.replace(*SMALL_SHARDS))
    project("dvc", "add", "data/raw")
    project.commit("Images")
    return project


def copy(project: Project, folder: Path) -> Project:
    shutil.copytree(project.folder, folder, symlinks=True)
    return Project(folder)


@pytest.fixture(scope="module")
def undisturbed(added: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after one run, committed, and how many `seconds` that took; not to be changed."""
    project = copy(added, tmp_path_factory.mktemp("undisturbed") / "project")
    began = time.monotonic()
    project("dvc", "repro")
    project.seconds = time.monotonic() - began
    project.commit("First version")
    return project


@pytest.fixture
def fresh(added: Project, tmp_path: Path) -> Project:
    """A copy that has not run."""
    return copy(added, tmp_path / "fresh")


@pytest.fixture
def project(undisturbed: Project, tmp_path: Path) -> Project:
    """A copy that has run."""
    return copy(undisturbed, tmp_path / "project")


def start(project: Project, *command: str, **environment: str) -> subprocess.Popen:
    """A command in a process group of its own, whose output nobody has to read."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    file = project.folder / ".git/output.txt"
    file.unlink(missing_ok=True)  # what is left of the run before may still write into it
    with file.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=project.folder,
            env=os.environ | {"PATH": path, "STAGE_WORKERS": "2"} | environment,
            start_new_session=True,
            stdout=output,
            stderr=output,
        )


def output(project: Project) -> str:
    return (project.folder / ".git/output.txt").read_text(encoding="utf-8")


def processes(project: Project) -> list[tuple[psutil.Process, str]]:
    """Those at work in the clone, and their command lines."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(project.folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.append((process, " ".join(process.cmdline())))
        except psutil.Error:
            continue
    return found


def stage_process(command: str) -> bool:
    return re.search(r"-m imagepack\.engine \w+", command) is not None


def is_worker(process: psutil.Process) -> bool:
    """Workers are the children of multiprocessing's fork server."""
    try:
        return "multiprocessing.forkserver" in " ".join(process.parent().cmdline())
    except (psutil.Error, AttributeError):
        return False


def gone(project: Project, seconds: float = 15) -> bool:
    """Whether nothing is at work in the clone any more, after a while."""
    deadline = time.monotonic() + seconds
    while processes(project) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not processes(project)


def kill_one_of(project: Project, what: str, chance: random.Random, after: float, run: subprocess.Popen) -> bool:
    """After some seconds kill the whole run, DVC alone, a stage or its shell, or a worker; whether there was one."""
    deadline = time.monotonic() + after
    while run.poll() is None:
        if what in ("group", "dvc"):
            found = [psutil.Process(run.pid)]
        elif what == "worker":
            found = [process for process, _ in processes(project) if is_worker(process)]
        else:
            found = [process for process, command in processes(project) if stage_process(command)]
        if found and time.monotonic() > deadline:
            with suppress(psutil.NoSuchProcess):  # it has just ended
                os.killpg(run.pid, signal.SIGKILL) if what == "group" else chance.choice(found).kill()
                return True
        time.sleep(0.02)
    return False


def mend_half_written(project: Project) -> None:
    """What docs/faults.md says to do where DVC was killed while it wrote its lock, dvc.lock or its run cache."""
    lock = project.folder / ".dvc/tmp/rwlock"
    try:
        json.loads(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except json.JSONDecodeError:
        lock.unlink()
    code = "from imagepack.dvc import cache, lock_files; print(*lock_files.faults(), *cache.unfinished_runs())"
    for fix in re.findall(r": (rm \S+|rmdir \S+|git checkout HEAD -- \S+), then", project("python", "-c", code)):
        project(*fix.split())


@pytest.mark.parametrize(("what", "seed"), [("group", 1), ("dvc", 2), ("stage", 3), ("worker", 4)])
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_left_alone(
    fresh: Project, added: Project, undisturbed: Project, what: str, seed: int
):
    """Nothing that is left behind keeps the next run from going on, but a file that DVC was killed while it wrote."""
    chance, kills = random.Random(seed), 0
    for _ in range(16):
        run = start(fresh, "dvc", "repro")
        kills += kill_one_of(fresh, what, chance, chance.uniform(0.1, 0.8) * undisturbed.seconds, run)
        assert run.wait(60) is not None  # it neither hangs
        if run.returncode == 0 and kills:
            break
        if run.returncode == 0:  # it took less time than the one that was left alone
            shutil.rmtree(fresh.folder)
            fresh = copy(added, fresh.folder)
            continue
        assert "in run_stage" not in output(fresh)  # no traceback but those of Python's fork server when killed
        mend_half_written(fresh)
    fresh("dvc", "repro")
    assert kills
    assert differing(end_state(fresh), end_state(undisturbed)) == []
    assert gone(fresh)  # nor goes on in the background


def test_workers_end_with_the_stage_that_was_killed(fresh: Project):
    """They would go on writing beside the next run."""
    large = save(fresh.folder / "data/raw/cat/large.png", picture(1000, 1200, 1200))
    for number in range(40):
        shutil.copy(large, large.with_name(f"large{number}.png"))
    run = start(fresh, "dvc", "repro")
    while not (workers := [process for process, _ in processes(fresh) if is_worker(process)]):
        assert run.poll() is None
    next(process for process, command in processes(fresh) if stage_process(command)).kill()
    _, alive = psutil.wait_procs(workers, 5)
    assert alive == []
    assert run.wait(30)


IMPORTS = ("imagepack/engine/__main__.py", "    from imagepack.engine.stage import run_stage\n")
WORKS = ("stages/validate.py", "    files, names, ignored = ")
"""What a stage does at two moments: it is killed in between."""


@pytest.mark.parametrize(
    ("victim", "shell", "moment"),
    [("dvc", "bash", IMPORTS), ("dvc", "dash", IMPORTS), ("shell", "dash", IMPORTS), ("dvc", "dash", WORKS)],
)
def test_a_stage_ends_with_the_dvc_or_the_shell_that_started_it(
    fresh: Project, victim: str, shell: str, moment: tuple[str, str]
):
    """Bash becomes the stage, dash stays and waits for it."""
    file, line = moment
    code = (fresh.folder / file).read_text(encoding="utf-8")
    wait = '    print("now", flush=True)\n    __import__("time").sleep(2)\n'
    assert code.count(line) == 1
    fresh.write(file, code.replace(line, wait + line))
    run = start(fresh, "dvc", "repro", SHELL=shutil.which(shell))
    while "now\n" not in output(fresh):
        assert run.poll() is None
    if victim == "dvc":
        run.kill()
    else:
        next(process for process, command in processes(fresh) if stage_process(command)).kill()
    assert run.wait(30)
    assert gone(fresh)
    assert "validate: 48 files" not in output(fresh)


def test_a_stage_run_twice_at_once_by_hand_waits_for_the_other(project: Project, undisturbed: Project):
    """Both have one memo; without waiting one would remove what the other writes."""
    command = ["-m", "imagepack.engine", "preprocess", "data/raw", "data/validated/manifest.parquet", "data/processed"]
    shutil.rmtree(project.folder / ".memo")
    run = start(project, "python", *command)
    locks = project.folder / ".dvc/tmp"
    while str(run.pid) not in [lock.read_text() for lock in locks.glob("preprocess-*.lock")]:
        assert run.poll() is None
    os.kill(run.pid, signal.SIGSTOP)  # so that it is not done before the other starts
    with ThreadPoolExecutor() as pool:
        second = pool.submit(project, "python", *command)
        time.sleep(3)
        assert not second.done()
        os.kill(run.pid, signal.SIGCONT)
        printed = second.result()
    assert f"preprocess: process {run.pid} is at work on data/processed: waits until it ends" in printed
    assert "48 of 48 from the memo" in printed
    assert run.wait(1) == 0
    assert contents(project.folder / "data/processed") == contents(undisturbed.folder / "data/processed")


def test_a_second_repro_at_once_says_who_is_at_work(fresh: Project, undisturbed: Project):
    run = start(fresh, "dvc", "repro")
    while not any(stage_process(command) for _, command in processes(fresh)):
        assert run.poll() is None
    second = fresh("dvc", "repro", ok=False)
    assert "Unable to acquire lock" in second or "is busy, it is being blocked by" in second
    assert run.wait(60) == 0
    fresh("dvc", "repro")
    assert differing(end_state(fresh), end_state(undisturbed)) == []


@pytest.mark.parametrize(
    ("stage", "size", "out"),
    [
        ("validate", 4, "data/validated/manifest.parquet"),
        ("preprocess", 256, "data/processed"),
        ("pack", 1500, "data/packed"),
        ("preview", 64, "reports/preview"),
    ],
)
def test_a_full_disk_is_named_and_after_making_room_all_is_well(
    project: Project, undisturbed: Project, small_disk, stage: str, size: int, out: str
):
    """Run by hand, since DVC removes an out that is a link."""
    pipeline = (project.folder / "dvc.yaml").read_text(encoding="utf-8")
    command = re.search(rf"python -m imagepack\.engine {stage} .*", pipeline)[0]
    place = small_disk(size) / "out"
    printed = project(*command.replace(out, str(place)).split(), ok=False)
    assert printed.splitlines()[-1] == f"{stage}: the disk of {place} is full: free some space and run again"
    assert "Traceback" not in printed
    options = ["mount", "-o", "remount,size=20m", str(place.parent)]
    subprocess.run(options, check=True)
    project(*command.replace(out, str(place)).split())
    made = contents(place) if place.is_dir() else place.read_bytes()
    there = undisturbed.folder / out
    assert made == (contents(there) if there.is_dir() else there.read_bytes())


def test_a_full_disk_of_the_memo_costs_the_memo_alone(fresh: Project, undisturbed: Project, small_disk):
    (fresh.folder / ".memo").symlink_to(small_disk(16))
    printed = fresh("dvc", "repro")
    assert "memo" in printed
    assert "Traceback" not in printed
    assert differing(end_state(fresh), end_state(undisturbed)) == []


def test_a_full_disk_of_dvcs_cache_leaves_nothing_bad_there(fresh: Project, undisturbed: Project, small_disk):
    cache = small_disk(700)
    fresh("dvc", "config", "--local", "cache.dir", str(cache))
    assert "No space left on device" in fresh("dvc", "repro", ok=False)
    assert bad_objects(cache) == []
    subprocess.run(["mount", "-o", "remount,size=40m", str(cache)], check=True)
    shutil.copytree(fresh.folder / ".dvc/cache/files", cache / "files", dirs_exist_ok=True)
    fresh("dvc", "repro")
    assert differing(end_state(fresh), end_state(undisturbed)) == []


def test_what_a_full_disk_kept_out_of_dvcs_cache_is_counted(added: Project, fresh: Project, small_disk):
    """DVC ends with 0, and has written data/raw.dvc."""
    disk = small_disk(60)
    fresh("dvc", "config", "--local", "cache.dir", str(disk))
    commit = ("python", "-m", "imagepack.commands.dvc", "commit", "--force", "data/raw.dvc")
    said = fresh(*commit, ok=False)
    assert "failed to transfer" in said
    lacking = r"DVC's cache lacks \d+ files? of data/raw, .*: make room .*, then python3 run\.py -- dvc commit --force$"
    assert re.search(lacking, said, re.MULTILINE)
    subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
    assert "DVC's cache lacks" not in fresh(*commit)
    assert contents(disk / "files").keys() >= contents(added.folder / ".dvc/cache/files").keys()


def bad_objects(cache: Path) -> list[Path]:
    """Files of a cache whose MD5 is not their name."""
    found = []
    for path in (cache / "files/md5").glob("??/*"):
        name = path.parent.name + path.name.removesuffix(".dir")
        if len(name) == 32 and hashlib.md5(path.read_bytes()).hexdigest() != name:
            found.append(path)
    return found


class Bucket:
    """A remote of one test's, behind a proxy that does as it is told."""

    def __init__(self, server: s3.Server, name: str, proxy: FaultProxy) -> None:
        self.server, self.name, self.proxy = server, name, proxy
        server.client().create_bucket(Bucket=name)

    def connect(self, project: Project) -> None:
        project("dvc", "remote", "modify", "s3", "url", f"s3://{self.name}")
        project.write(
            ".dvc/config.local",
            f"['remote \"s3\"']\nendpointurl = {self.proxy.endpoint}\naccess_key_id = {self.server.access_key}\n"
            f"secret_access_key = {self.server.secret_key}\n",
        )

    def clone(self, project: Project, folder: Path) -> Project:
        project("git", "clone", "--quiet", str(project.folder), str(folder))
        other = Project(folder)
        self.connect(other)
        return other

    def is_whole(self, project: Project, folder: Path) -> bool:
        """Whether a new clone that pulls from it gets what `project` has."""
        self.proxy.plan = lambda method, path: None
        other = self.clone(project, folder)
        other("dvc", "pull")
        assert contents(other.folder / "data/raw") == contents(project.folder / "data/raw")
        return differing(end_state(other), end_state(project)) == []


@pytest.fixture
def bucket(s3_server: s3.Server, tmp_path: Path) -> Iterator[Bucket]:
    with FaultProxy(s3_server.endpoint) as proxy:
        yield Bucket(s3_server, f"faults-{hashlib.md5(str(tmp_path).encode()).hexdigest()[:12]}", proxy)


def persist(project: Project, *command: str, times: int = 12) -> str:
    """Run a command until it succeeds: what it said of failures; none of them may be a traceback."""
    said = ""
    for _ in range(times):
        run = start(project, *command)
        code = run.wait(120)
        said += output(project)
        assert "Traceback" not in said
        if code == 0:
            return said
    raise AssertionError(said)


def test_a_push_that_is_killed_again_and_again_ends_with_everything_there(
    project: Project, bucket: Bucket, tmp_path: Path
):
    """DVC alone may take for pushed what was not (repository.forget_data_index); the doctor asks for each file."""
    bucket.connect(project)
    chance = random.Random(1)
    for _ in range(6):
        run = start(project, "dvc", "push")
        time.sleep(chance.uniform(0.8, 2.2))
        run.kill()
        run.wait()
    project("dvc", "push")
    project.write(".dvc/config.local", f"['remote \"s3\"']\nendpointurl = {bucket.proxy.endpoint}\n")
    said = project("python", "-m", "imagepack.commands.doctor", "--push", **aws_variables(bucket.server))
    assert re.search(r"^ok +pushed: all \d+ files of 1 version are on the remote$", said, re.MULTILINE)
    assert bucket.is_whole(project, tmp_path / "other")


@pytest.mark.parametrize("seed", [1])
def test_over_a_bad_network_push_pull_and_the_reader_end_right(
    project: Project, bucket: Bucket, tmp_path: Path, seed: int
):
    """Late, refused, dropped and cut answers, and cut requests: a tenth of them."""
    bucket.connect(project)
    bucket.proxy.plan = sometimes(seed, 0.1)
    persist(project, "dvc", "push")
    assert sum(count for fault, count in bucket.proxy.met.items() if fault) > 5
    assert bucket.is_whole(project, tmp_path / "other")
    bucket.proxy.plan = sometimes(seed + 10, 0.1)
    pulled = bucket.clone(project, tmp_path / "pulled")
    persist(pulled, "dvc", "pull")
    assert differing(end_state(pulled), end_state(project)) == []
    assert bad_objects(pulled.folder / ".dvc/cache") == []
    bare = bucket.clone(project, tmp_path / "bare")
    bucket.proxy.plan = sometimes(seed + 20, 0.1)
    read = PackedImages.at("HEAD", repo=bare.folder, cache=tmp_path / "cache")
    here = PackedImages(project.folder / "data/packed")
    assert (read.take(range(len(read))) == here.take(range(len(here)))).all()


def test_files_that_arrive_cut_never_count_as_good(project: Project, bucket: Bucket, tmp_path: Path):
    """Cut, with a Content-Length to match: only their hashes tell."""
    bucket.connect(project)
    project("dvc", "push")
    other = bucket.clone(project, tmp_path / "other")
    bucket.proxy.plan = files("lie")
    assert "failed to" in other("dvc", "pull", ok=False)
    assert bad_objects(other.folder / ".dvc/cache") == []
    with pytest.raises(PackError, match=r"is damaged|does not answer"):
        PackedImages.at("HEAD", repo=other.folder, cache=tmp_path / "cache").take(range(48))
    bucket.proxy.plan = lambda method, path: None
    other("dvc", "pull")
    assert differing(end_state(other), end_state(project)) == []


@pytest.mark.parametrize("action", ["push", "pull"])
def test_a_server_that_is_killed_and_started_again(project: Project, tmp_path: Path, action: str):
    folder, port = tmp_path / "s3", s3.free_ports(1)[0]
    server = s3.start("faults", folder, port=port)
    try:
        with FaultProxy(server.endpoint) as proxy:
            project("dvc", "remote", "modify", "s3", "url", "s3://faults")
            settings = f"['remote \"s3\"']\nendpointurl = {proxy.endpoint}\naccess_key_id = {server.access_key}\n"
            project.write(".dvc/config.local", f"{settings}secret_access_key = {server.secret_key}\n")
            at_work = project
            if action == "pull":
                project("dvc", "push")
                project.commit("Bucket")
                project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
                at_work = Project(tmp_path / "clone")
                shutil.copy(project.folder / ".dvc/config.local", at_work.folder / ".dvc/config.local")
            proxy.plan = lambda method, path: "delay" if "/files/md5/" in path else None  # so that it takes some time
            run = start(at_work, "dvc", action)
            time.sleep(1.5)
            assert run.poll() is None
            psutil.Process(server.pid).kill()
            time.sleep(1)
            s3.start("faults", folder, port=port)
            proxy.plan = lambda method, path: None
            run.wait(120)
            assert "Traceback" not in output(at_work)
            persist(at_work, "dvc", action)
            if action == "push":
                project.commit("Bucket")
                project("git", "clone", "--quiet", str(project.folder), str(tmp_path / "clone"))
                at_work = Project(tmp_path / "clone")
                shutil.copy(project.folder / ".dvc/config.local", at_work.folder / ".dvc/config.local")
                at_work("dvc", "pull")
            assert differing(end_state(at_work), end_state(project)) == []
    finally:
        s3.stop(folder)


def flip(path: Path, at: int = -2000) -> None:
    """Change one byte, as a failing disk does."""
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def objects_of(project: Project, pattern: str) -> list[tuple[Path, Path]]:
    """Files of the clone, and where each lies in DVC's cache."""
    found = []
    for path in sorted(project.folder.glob(pattern)):
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        found.append((path, project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]))
    return found


@pytest.mark.parametrize("pattern", ["data/processed/cat/*.png", "data/validated/*.parquet", "data/packed/shards/*.h5"])
def test_a_damaged_object_of_the_cache_is_named_by_the_doctor_and_made_again(
    project: Project, undisturbed: Project, pattern: str
):
    """Without a remote that has it: its file in the working tree, or else the stage, gives it back."""
    file, cached = objects_of(project, pattern)[0]
    flip(cached, 100)
    said = project("python", "-m", "imagepack.commands.doctor", "--deep", ok=False)
    name = cached.relative_to(project.folder).as_posix()
    assert f"the cache has 1 damaged file: rm -f {name}, then python3 run.py -- dvc fetch" in said
    cached.unlink(missing_ok=True)  # `dvc status`, which the doctor asks, may have removed it
    project("dvc", "commit", "--force")
    assert bad_objects(project.folder / ".dvc/cache") == []
    assert cached.exists()
    file.unlink()
    project("dvc", "checkout")
    assert differing(end_state(project), end_state(undisturbed)) == []


def test_a_damaged_object_of_the_cache_is_fetched_again_from_the_remote(
    project: Project, undisturbed: Project, bucket: Bucket
):
    bucket.connect(project)
    project("dvc", "push")
    file, cached = objects_of(project, "data/packed/shards/*.h5")[0]
    flip(cached)
    cached.unlink()
    file.unlink()
    project("dvc", "pull")
    assert bad_objects(project.folder / ".dvc/cache") == []
    assert differing(end_state(project), end_state(undisturbed)) == []


def test_an_object_that_is_damaged_in_the_bucket_is_put_there_again(project: Project, bucket: Bucket, tmp_path: Path):
    """DVC takes it for good, since it is there: push says that all is up to date, pull fails."""
    bucket.connect(project)
    project("dvc", "push")
    project.commit("Bucket")
    file, _ = objects_of(project, "data/packed/shards/*.h5")[0]
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    key = f"files/md5/{md5[:2]}/{md5[2:]}"
    other = bytes(file.stat().st_size)  # as long, so that its MD5 alone tells
    bucket.server.client().put_object(Bucket=bucket.name, Key=key, Body=other)
    project.write(".dvc/config.local", f"['remote \"s3\"']\nendpointurl = {bucket.proxy.endpoint}\n")
    doctor, keys = ("python", "-m", "imagepack.commands.doctor", "--deep"), aws_variables(bucket.server)
    said = project(*doctor, ok=False, **keys)
    assert f"the remote has 1 damaged file ({md5}): python3 run.py doctor --deep --push, where the cache has it" in said
    assert "pushed: 1 file put there again" in project(*doctor, "--push", **keys)
    assert "damaged" not in project(*doctor, **keys)
    assert bucket.is_whole(project, tmp_path / "other")


def test_a_shard_damaged_by_the_disk_is_named_and_got_again_from_the_cache(project: Project, undisturbed: Project):
    """Its time is as it was, so that DVC, asked to check it out by force, leaves it as it is."""
    project("dvc", "status")  # DVC notes the times of this copy
    shard = sorted(project.folder.glob("data/packed/shards/*.h5"))[0]
    before = shard.stat()
    flip(shard)
    os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = project("python", "-m", "imagepack", "verify", "data/packed", ok=False)
    assert shard.name in said
    assert "remove it, then get it again with `dvc checkout`" in said
    name = shard.relative_to(project.folder).as_posix()
    said = project("python", "-m", "imagepack.commands.doctor", "--deep", ok=False)
    assert f"1 file changed by no program, as by a failing disk: rm -f {name}, then python3 run.py -- dvc check" in said
    shard.unlink()
    project("dvc", "checkout", "data/packed")
    assert "all of them sound" in project("python", "-m", "imagepack", "verify", "data/packed")
    assert differing(end_state(project), end_state(undisturbed)) == []


def test_a_shard_that_is_damaged_in_dvcs_cache_is_refused_by_the_reader_of_versions(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What was found sound is not read again, until it is another file."""
    monkeypatch.setattr(download_cache, "_sound", {})
    here = PackedImages(project.folder / "data/packed").take(range(48))
    (_, cached), *_ = objects_of(project, "data/packed/shards/*.h5")

    def read():
        return PackedImages.at("HEAD", repo=project.folder, cache=tmp_path / "cache").take(range(48))

    assert (read() == here).all()
    notes = {path: path.stat().st_ino for path in (tmp_path / "cache").glob("*.sound")}
    download_cache._sound.clear()  # as in another process
    assert (read() == here).all()
    assert notes == {path: path.stat().st_ino for path in (tmp_path / "cache").glob("*.sound")} != {}
    flip(cached)
    with pytest.raises(PackError, match=f"{cached} is damaged .*: remove it, then `dvc fetch`"):
        read()


def test_a_damaged_memo_is_named_and_made_anew(project: Project, undisturbed: Project):
    segment = next((project.folder / ".memo/preprocess/segments").iterdir())
    flip(segment, 700)
    said = project("dvc", "repro", "--force", "--single-item", "preprocess")
    assert f"preprocess: the memo was damaged in {segment} at byte" in said
    assert "47 of 48 from the memo" in said
    assert differing(end_state(project), end_state(undisturbed)) == []


def test_a_damaged_lock_of_dvcs_is_said_with_the_fix(project: Project):
    project("dvc", "repro")
    project.write(".dvc/tmp/rwlock", "")  # DVC was killed while it wrote it
    assert "Unable to read RWLock-file" in project("dvc", "repro", "--force", ok=False)
    said = project("python", "-m", "imagepack.commands.doctor", ok=False)
    assert ".dvc/tmp/rwlock is damaged, and DVC runs nothing: rm .dvc/tmp/rwlock" in said
    (project.folder / ".dvc/tmp/rwlock").unlink()
    project("dvc", "repro")


def test_an_unfinished_entry_of_dvcs_run_cache_is_said_with_the_fix(project: Project, undisturbed: Project):
    for entry in (project.folder / ".dvc/cache/runs").glob("??/*/*"):
        entry.unlink()  # DVC was killed before it wrote it
    (project.folder / "dvc.lock").unlink()
    assert "join() argument" in project("dvc", "repro", ok=False)
    said = project("python", "-m", "imagepack.commands.doctor", ok=False)
    # a set: the last line names the first once more
    fixes = set(re.findall(r"\.dvc/cache/runs/\S+ is empty, as DVC leaves it when killed: (rmdir \S+), then", said))
    assert len(fixes) == 4
    for fix in fixes:
        project(*fix.split())
    project("dvc", "repro")
    assert differing(end_state(project), end_state(undisturbed)) == []


def test_images_that_change_or_vanish_between_add_and_repro_are_what_dvc_records(fresh: Project):
    """`dvc repro` adds data/raw again first: raw.dvc and the manifest agree."""
    raw = fresh.folder / "data/raw"
    (raw / "cat/img3.png").unlink()
    save(raw / "cat/img4.png", picture(4000))
    fresh("dvc", "repro")
    assert "up to date" in fresh("dvc", "status")
    shutil.rmtree(raw)
    fresh("dvc", "checkout", "data/raw.dvc")
    assert not (raw / "cat/img3.png").exists()
    assert contents(raw)["cat/img4.png"] == contents(fresh.folder / "data/raw")["cat/img4.png"]


def wait_for(project: Project, stage: str, run: subprocess.Popen) -> None:
    while not any(f"imagepack.engine {stage}" in command for _, command in processes(project)):
        assert run.poll() is None, output(project)


@pytest.mark.parametrize("stage", ["validate", "preprocess"])
@pytest.mark.parametrize("change", ["edit", "vanish"])
def test_images_that_change_or_vanish_while_a_stage_runs_give_no_wrong_result(
    fresh: Project, undisturbed: Project, stage: str, change: str
):
    """Whatever that run made of them, the next one ends as a run from nothing on what is there now."""
    path = fresh.folder / "data/raw/dog/img47.png"
    run = start(fresh, "dvc", "repro", STAGE_WORKERS="1")
    wait_for(fresh, stage, run)
    before = path.read_bytes()
    path.unlink()
    if change == "edit":
        save(path, picture(4700))
    run.wait(60)
    said = output(fresh)
    assert "Traceback" not in said
    if run.returncode == 0:  # what DVC has recorded is not taken for up to date
        assert path.name in fresh("dvc", "data", "status", "--granular") or "changed" in fresh("dvc", "status")
    fresh("dvc", "repro", "preprocess")
    made = end_state(fresh)
    shutil.rmtree(fresh.folder / ".memo")
    fresh("dvc", "repro", "--force", "--no-run-cache", "preprocess")
    assert differing(end_state(fresh), made) == []
    path.write_bytes(before)
    fresh("dvc", "repro")
    assert differing(end_state(fresh), end_state(undisturbed)) == []


def test_what_changes_while_validate_runs_is_named_and_not_recorded(fresh: Project):
    """DVC hashes data/raw when the stage has ended, and would take what came in meanwhile for validated."""
    code = (fresh.folder / "stages/validate.py").read_text(encoding="utf-8")
    moment = "    manifest.parent.mkdir("
    wait = '    print("now", flush=True)\n    __import__("time").sleep(2)\n'
    fresh.write("stages/validate.py", code.replace(moment, wait + moment, 1))
    run = start(fresh, "dvc", "repro")
    while "now\n" not in output(fresh):
        assert run.poll() is None, output(fresh)
    raw = fresh.folder / "data/raw"
    save(raw / "cat/new.png", picture(4800))
    (raw / "cat/.DS_Store").write_bytes(b"which .dvcignore names")
    (raw / "cat/img3.png").unlink()
    with (raw / "dog/img30.png").open("ab") as file:
        file.write(b"x")
    assert run.wait(60)
    assert "validate: this changed while the stage ran" in output(fresh)
    assert re.findall(r"^  data/raw/.*", output(fresh), re.MULTILINE) == [
        "  data/raw/cat/img3.png: is gone",
        "  data/raw/cat/new.png: is new",
        "  data/raw/dog/img30.png: has changed",
    ]
    assert not (fresh.folder / "dvc.lock").exists()
    fresh("dvc", "repro")
    paths = set(pl.read_parquet(fresh.folder / "data/validated/manifest.parquet")["path"])
    assert {"cat/img3.png", "cat/new.png"} & paths == {"cat/new.png"}
    assert "up to date" in fresh("dvc", "status")


def test_a_manifest_of_other_files_that_dvc_holds_for_up_to_date_is_found_and_made_anew(project: Project):
    """As after a change in the moment between a stage's end and DVC's hash."""
    save(project.folder / "data/raw/cat/new.png", picture(4800))
    project("dvc", "add", "data/raw")
    project("dvc", "commit", "--force")
    assert "up to date" in project("dvc", "repro")
    advice = "dvc repro --force validate"
    found = "data/raw/cat/new.png: is not in data/validated/manifest.parquet"
    assert (
        f"1 file of data/raw is not in data/validated/manifest.parquet (cat/new.png): python3 run.py -- {advice}"
        in (project("python", "-m", "imagepack.commands.doctor", ok=False))
    )
    said = project("dvc", "repro", "--force", "--single-item", "preprocess", ok=False)
    assert f"run {advice}, then dvc repro\n  {found}" in said
    project(*advice.split())
    project("dvc", "repro")
    assert (project.folder / "data/processed/cat/new.png.png").exists()


def test_read_only_images_are_read(fresh: Project, undisturbed: Project):
    for path in fresh.folder.glob("data/raw/*/*.png"):
        path.chmod(0o444)
    fresh("dvc", "repro")
    assert differing(end_state(fresh), end_state(undisturbed)) == []
