"""Any version of a pack from a clone without data: read from a real S3 through DVC; and which data a model has seen."""

import json
import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Project, add_pictures, aws_variables, contents
from fault_proxy import FaultProxy

from imagepack import PackedImages, PackError
from imagepack.__main__ import main
from imagepack.commands import s3
from imagepack.dvc.download_cache import GRACE, DownloadCache
from imagepack.dvc.provenance import whence

slow = pytest.mark.slow
forks = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # beside threads, from Python 3.12 on


def connect(project: Project, server: s3.Server, **others: str) -> Project:
    """Tell a clone's DVC where the server is."""
    options = {"endpointurl": server.endpoint, "access_key_id": server.access_key,
               "secret_access_key": server.secret_key} | others  # fmt: skip
    lines = "\n".join(f"{key} = {value}" for key, value in options.items())
    project.write(".dvc/config.local", f"['remote \"s3\"']\n{lines}\n")
    return project


@pytest.fixture(scope="module")
def project(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """A dataset of two versions, tagged v1 and v2, and an experiment called small; all pushed. Not to be changed."""
    project = connect(new_project(), s3_server)
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    text = text.replace("  size: 128\n", "  size: 256\n").replace("  shard_mib: 8\n", "  shard_mib: 1\n")
    project.write("params.yaml", text)
    for version, label, first in (("v1", "cat", 0), ("v2", "dog", 20)):
        add_pictures(project.folder / "data/raw", 20, label, first)
        project("dvc", "add", "data/raw")
        project("dvc", "repro", "pack")
        project.commit(f"Version {version}")
        project("git", "tag", "--annotate", "--message", version, version)
    project("dvc", "exp", "run", "--name", "small", "--set-param", "preprocess.size=64", "pack")
    project("dvc", "push")  # what the experiment has left in the workspace
    project("git", "reset", "--quiet", "--hard")
    project("dvc", "checkout", "data/packed")
    project("dvc", "push", "--all-tags")
    return project


@pytest.fixture
def clone(project: Project, s3_server: s3.Server, tmp_path: Path) -> Project:
    """A fresh clone, without data and with an empty DVC cache."""
    return new_clone(project, s3_server, tmp_path / "clone")


def new_clone(project: Project, server: s3.Server, folder: Path, **options: str) -> Project:
    project("git", "clone", "--quiet", str(project.folder), str(folder))
    return connect(Project(folder), server, **options)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `at` keeps what it fetches."""
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def files_of(packed: PackedImages) -> list[Path]:
    """The shards that are open."""
    return [shard.path for shard in packed._shards._files.values()]


def pixels(packed: PackedImages) -> np.ndarray:
    return packed.take(np.arange(len(packed)))


@slow
def test_a_clone_without_data_reads_every_version(project: Project, clone: Project, cache: Path):
    first, second = (PackedImages.at(version, repo=clone.folder) for version in ("v1", "v2"))
    assert [len(first), len(second)] == [20, 40]
    assert not list(cache.glob(f"{'?' * 64}.h5"))  # labels are read at once, shards when they are needed
    there = PackedImages(project.folder / "data/packed")
    assert second.digest == there.digest != first.digest
    assert np.array_equal(pixels(second), pixels(there))
    cats = there.of_classes("cat")
    assert np.array_equal(np.sort(first.ids, axis=0), np.sort(cats.ids, axis=0))
    for i, path in enumerate(map(first.path, range(20))):
        twin = next(j for j in range(20) if cats.path(j) == path)
        assert np.array_equal(first[i][0], cats[twin][0])
    assert first.remote and second.remote
    assert clone("git", "status", "--porcelain") == ""
    assert not (clone.folder / "data/packed").exists()
    assert not (clone.folder / ".dvc/cache").exists()


@slow
def test_what_is_in_the_local_dvc_cache_is_read_where_it_lies(project: Project, cache: Path):
    packed = PackedImages.at("v1", repo=project.folder / "data")
    pixels(packed)
    assert not packed.remote
    assert all(path.is_relative_to(project.folder / ".dvc/cache") for path in files_of(packed))
    assert {path.suffix for path in cache.iterdir()} == {".sound"}  # which notes that a shard was checked


@slow
def test_only_what_the_local_dvc_cache_lacks_is_fetched(project: Project, clone: Project, cache: Path):
    shutil.copytree(project.folder / ".dvc/cache", clone.folder / ".dvc/cache")
    packed = PackedImages.at("v2", repo=clone.folder)
    pixels(packed)
    files_of(packed)[0].unlink()
    again = PackedImages.at("v2", repo=clone.folder)
    assert again.remote
    assert np.array_equal(pixels(again), pixels(PackedImages(project.folder / "data/packed")))
    assert [path.name for path in cache.glob("*.h5")] == [path.name for path in files_of(again)[:1]]


@slow
def test_a_second_reader_finds_what_a_first_has_fetched(clone: Project, cache: Path):
    pixels(PackedImages.at("v1", repo=clone.folder))
    before = {path: path.stat().st_ino for path in cache.iterdir()}
    pixels(PackedImages.at("v1", repo=clone.folder))
    assert {path: path.stat().st_ino for path in cache.iterdir()} == before
    assert len(before) > 3


@slow
def test_the_cache_stays_below_its_limit(clone: Project, cache: Path):
    pixels(PackedImages.at("v1", repo=clone.folder))
    for path in cache.iterdir():
        os.utime(path, (time.time() - 2 * GRACE,) * 2)
    limit = 3 * 2**20
    assert sum(path.stat().st_size for path in cache.iterdir()) > limit
    packed = PackedImages.at("v2", repo=clone.folder, cache_bytes=limit)
    packed[len(packed) - 1]
    assert sum(path.stat().st_size for path in cache.iterdir()) <= limit
    assert files_of(packed)[0].exists()


@slow
def test_an_experiment_is_a_version_too(project: Project, cache: Path):
    packed = PackedImages.at("small", repo=project.folder)
    assert packed.shape == (64, 64, 3)
    assert packed.version["params"]["preprocess"]["size"] == 64
    names = [name for commit in whence(packed.digest, project.folder) for name in commit.names]
    assert names == ["experiment small"]


@slow
def test_another_repository_is_read_by_its_url(
    project: Project, s3_server: s3.Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    project("git", "clone", "--quiet", "--bare", str(project.folder), str(tmp_path / "bare.git"))
    there = PackedImages(project.folder / "data/packed")
    for repo in (tmp_path / "bare.git", (tmp_path / "bare.git").as_uri()):
        packed = PackedImages.at("v2", repo=repo)
        assert np.array_equal(pixels(packed), pixels(there))
        assert packed.version["revision"] == project("git", "rev-parse", "v2^{commit}").strip()


@slow
def test_keys_go_to_no_address_that_another_repository_names(
    clone: Project, s3_server: s3.Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    local = (clone.folder / ".dvc/config.local").read_text(encoding="utf-8")
    assert len(pixels(PackedImages.at("v2", repo=clone.folder))) == 40  # the clone's own settings are the user's
    clone.write(".dvc/config.local", "")
    clone("dvc", "remote", "modify", "s3", "endpointurl", s3_server.endpoint)
    clone("git", "config", "user.name", "Stranger")
    clone("git", "config", "user.email", "s@example.com")
    clone.commit("Where keys are to go")
    shutil.rmtree(cache)
    shown = rf"endpointurl of remote s3: {s3_server.endpoint}\): if you trust that address, pass trust_remote=True"
    clone("git", "clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    for repo in (clone.folder, clone.folder / "data", clone.folder.as_uri(), tmp_path / "bare.git"):
        with pytest.raises(PackError, match=shown):
            PackedImages.at("HEAD", repo=repo)
    assert not list(cache.rglob("*"))  # nothing was fetched
    assert len(pixels(PackedImages.at("HEAD", repo=clone.folder.as_uri(), trust_remote=True))) == 40
    clone.write(".dvc/config.local", local)
    PackedImages.at("HEAD", repo=clone.folder)
    clone("git", "add", "--force", ".dvc/config.local")
    clone.commit("As if it were the user's")
    with pytest.raises(PackError, match=shown):
        PackedImages.at("HEAD", repo=clone.folder)
    monkeypatch.chdir(clone.folder / "data")
    PackedImages.at("HEAD", repo="..")


def first_pixels(packed: PackedImages) -> tuple[int, np.ndarray]:
    """Runs in another process."""
    return os.getpid(), packed.take(range(10))


@slow
@forks
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_other_processes_fetch_for_themselves(project: Project, clone: Project, cache: Path, method: str):
    packed = PackedImages.at("v2", repo=clone.folder).subset(np.arange(40)[::-1])  # all of them, in another order
    packed[0]  # so that this process is connected when it forks
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.map(first_pixels, [packed] * 4, chunksize=1)
    expected = PackedImages(project.folder / "data/packed").take(range(39, 29, -1))
    for process, images in answers:
        assert process != os.getpid()
        assert np.array_equal(images, expected)


@slow
def test_a_shuffle_over_windows_has_every_image_once_and_says_so(
    clone: Project, cache: Path, caplog: pytest.LogCaptureFixture
):
    packed = PackedImages.at("v2", repo=clone.folder)
    with caplog.at_level(logging.WARNING, "imagepack"):
        list(packed.batches(16))
        assert not caplog.records
        batches = packed.batches(16, shuffle=True)
        orders = [np.concatenate([images for images, _ in batches]) for _ in range(2)]
        packed.split("train").batches(16, shuffle=True)
    assert len(caplog.records) == 1
    assert "mixes the images of up to 64 at a time, not of all" in caplog.text
    assert not np.array_equal(*orders)
    for images in orders:
        assert sorted(map(bytes, images)) == sorted(map(bytes, pixels(packed)))


@slow
def test_all_machines_can_have_the_same_order(project: Project, clone: Project, cache: Path):
    orders = []
    for repo in (clone.folder, project.folder):
        packed = PackedImages.at("v2", repo=repo, remote=True)
        orders.append(np.concatenate([labels for _, labels in packed.batches(7, shuffle=True)]))
    assert np.array_equal(*orders)


@slow
def test_a_server_that_stops_is_said_so_and_training_goes_on_when_it_is_back(
    project: Project, clone: Project, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    server = s3.start("image-dataset", tmp_path / "s3", port=s3.free_ports(1)[0])
    try:
        shutil.copytree(project.folder, tmp_path / "project")
        connect(Project(tmp_path / "project"), server)("dvc", "push", "--all-tags")
        packed = PackedImages.at("v1", repo=connect(clone, server).folder)
        packed[0]
        s3.stop(tmp_path / "s3")
        packed[0]
        with pytest.raises(PackError, match=r"s3://image-dataset does not answer .*: check the network") as error:
            packed[len(packed) - 1]
        assert "\n" not in str(error.value)
        s3.start("image-dataset", tmp_path / "s3", port=server.port)
        cats = PackedImages(project.folder / "data/packed").of_classes("cat")
        assert sorted(map(bytes, pixels(packed))) == sorted(map(bytes, pixels(cats)))
    finally:
        s3.stop(tmp_path / "s3")


@slow
def test_what_arrives_damaged_is_refused(
    project: Project, clone: Project, cache: Path, s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch
):
    local = PackedImages.at("v1", repo=project.folder)
    pixels(local)
    path = files_of(local)[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    key = f"files/md5/{path.parent.name}/{path.name}"
    client = s3_server.client()
    client.put_object(Bucket="image-dataset", Key=key, Body=bytes(content))
    try:
        with pytest.raises(PackError, match=r"is damaged \(sha256 is \w+\.\.\. instead of .*\): remove it there"):
            pixels(PackedImages.at("v1", repo=clone.folder))
        assert not list(cache.glob("*.part"))
    finally:
        client.put_object(Bucket="image-dataset", Key=key, Body=path.read_bytes())
    pixels(PackedImages.at("v1", repo=clone.folder))


def refused(words: str, *arguments, **options):
    """Opening this version raises an error of one line with these words."""
    with pytest.raises(PackError, match=words) as error:
        PackedImages.at(*arguments, **options)
    assert "\n" not in str(error.value)


@slow
def test_what_is_not_there_is_said_so(project: Project, clone: Project, cache: Path, tmp_path: Path):
    refused("clone has no revision 'v3': name a commit, tag, branch or DVC experiment", "v3", repo=clone.folder)
    refused("has no pack in data/packed: name a revision from after the first dvc repro", "v1~1", repo=clone.folder)
    refused("has no pack in data/pack: .* or another folder with path=", "v1", repo=clone.folder, path="data/pack")
    refused("nothing is no git repository with DVC at its top", "v1", repo=tmp_path / "nothing")
    subprocess.run(["git", "init", "--quiet", tmp_path / "plain"], check=True)
    refused("plain has no revision 'v1'", "v1", repo=tmp_path / "plain")


@slow
def test_what_was_not_pushed_is_said_so(project: Project, s3_server: s3.Server, cache: Path, tmp_path: Path):
    elsewhere = new_clone(project, s3_server, tmp_path / "a", url="s3://image-dataset/elsewhere")
    refused("is not on s3://image-dataset/elsewhere: run dvc push where", "v1", repo=elsewhere.folder)
    no_bucket = new_clone(project, s3_server, tmp_path / "b", url="s3://no-such-bucket/data")
    refused("there is no bucket no-such-bucket: check the remote's URL", "v1", repo=no_bucket.folder)


@slow
def test_an_imported_pack_is_read_from_the_cache_or_said_to_be_elsewhere(project: Project, cache: Path, tmp_path: Path):
    importer = Project(tmp_path / "importer")
    importer.folder.mkdir()
    for command in ("git init --quiet", "git config user.name Test", "git config user.email t@example.com", "dvc init"):
        importer(*command.split())
    importer("dvc", "import", str(project.folder), "data/packed", "--rev", "v1")
    importer.commit("Imported")
    assert len(pixels(PackedImages.at("HEAD", repo=importer.folder, path="packed"))) == 20
    importer("git", "clone", "--quiet", ".", str(tmp_path / "other"))
    refused("comes from elsewhere by dvc import: open it where", "HEAD", repo=tmp_path / "other", path="packed")


@slow
def test_wrong_and_missing_keys_are_said_so(
    project: Project, s3_server: s3.Server, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    wrong = new_clone(project, s3_server, tmp_path / "a", secret_access_key="wrong")
    refused("s3://image-dataset refuses these keys: set AWS_ACCESS_KEY_ID", "v1", repo=wrong.folder)
    with FaultProxy(s3_server.endpoint, lambda method, path: "skew") as proxy:
        late = new_clone(project, s3_server, tmp_path / "late", endpointurl=proxy.endpoint)
        refused("refuses requests whose time is not its own: set this machine's clock", "v1", repo=late.folder)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    missing = new_clone(project, s3_server, tmp_path / "b")
    missing.write(".dvc/config.local", f"['remote \"s3\"']\nendpointurl = {s3_server.endpoint}\n")
    refused("there are no keys for s3://image-dataset: set AWS_ACCESS_KEY_ID", "v1", repo=missing.folder)


def test_without_dvc_it_is_said_what_to_install():
    code = "import sys; sys.modules['dvc'] = None; import imagepack; imagepack.PackedImages.at('HEAD')"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, text=True, capture_output=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("to read a revision takes DVC: pip install 'dvc[s3]'")


@slow
def test_a_pack_knows_the_revision_and_params_that_made_it(project: Project, cache: Path):
    folder, at = PackedImages(project.folder / "data/packed"), PackedImages.at("v2", repo=project.folder)
    assert folder.version == at.version == json.loads(json.dumps(at.version))
    assert at.version["digest"] == at.digest
    assert at.version["revision"] == project("git", "rev-parse", "v2^{commit}").strip()
    assert list(at.version["params"]) == ["validate", "preprocess", "pack"]
    assert at.version["params"]["pack"]["shard_mib"] == 1
    assert folder.split("train").version == folder.version


@slow
def test_a_pack_that_git_does_not_know_has_a_digest_alone(
    project: Project, clone: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(project.folder / "data/packed", tmp_path / "packed")
    shutil.copytree(project.folder / "data/packed", clone.folder / "data/packed")
    clone("git", "checkout", "--quiet", "v1")
    alone = {"digest": PackedImages(tmp_path / "packed").digest, "revision": None, "params": None}
    assert PackedImages(tmp_path / "packed").version == alone
    assert PackedImages(clone.folder / "data/packed").version == alone
    monkeypatch.setenv("PATH", "")
    assert PackedImages(project.folder / "data/packed").version == alone


@slow
def test_whence_names_the_revisions_of_a_pack(project: Project, capsys: pytest.CaptureFixture):
    digest = PackedImages(project.folder / "data/packed").digest
    assert main(["whence", digest[:8].upper(), "--repo", str(project.folder / "data/raw")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"pack {digest}: 1 revision"
    commit, date = project("git", "log", "-1", "--format=%H %cs", "v2").split()
    assert lines[1:] == [f"  {commit[:12]}  {date}  Version v2  (branch main, tag v2)"]


def history(folder: Path, commits: int, packs: int) -> Path:
    """A repository of so many commits and other files, whose pack changes `packs` times."""
    stream = []
    for i in range(commits):
        report = json.dumps({"digest": f"{i * packs // commits:064x}"[::-1]})
        for line in (f"commit refs/heads/main\nmark :{i + 1}\ncommitter T <t@example.com> {1_700_000_000 + i} +0000",
                     f"data <<E\nCommit {i}\nE", *([f"from :{i}"] if i else []),
                     f"M 644 inline code/{i % 500}.py\ndata <<E\n{i}\nE",
                     f"M 644 inline reports/pack.json\ndata <<E\n{report}\nE\n"):  # fmt: skip
            stream.append(line)
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    subprocess.run(["git", "-C", folder, "fast-import", "--quiet"], input="\n".join(stream).encode(), check=True)
    subprocess.run(["git", "-C", folder, "symbolic-ref", "HEAD", "refs/heads/main"], check=True)
    return folder


@pytest.mark.slow
def test_whence_looks_through_a_long_history_at_once(tmp_path: Path):
    repo = history(tmp_path / "repo", commits=5000, packs=500)
    digest = f"{123:064x}"[::-1]
    begin = time.monotonic()
    found = whence(digest, repo)
    assert time.monotonic() - begin < 5
    assert [commit.subject for commit in found] == [f"Commit {i}" for i in range(1239, 1229, -1)]
    assert {commit.digest for commit in found} == {digest}


def test_whence_says_that_no_revision_has_it(tmp_path: Path, capsys: pytest.CaptureFixture):
    repo = history(tmp_path / "repo", commits=3, packs=3)
    assert main(["whence", "0123456789", "--repo", str(repo)]) == 1
    assert f"no revision in {repo} has the pack 0123456789" in capsys.readouterr().err
    assert main(["whence", "0123456789", "--repo", str(tmp_path)]) == 1
    assert "not a git repository" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["whence", "0123"])
    assert "'0123' is no digest: 8 to 64 hexadecimal digits" in capsys.readouterr().err


def write(made: list, path: Path) -> None:
    """Make a file of the cache, slowly, and say so."""
    made.append(path)
    time.sleep(0.2)
    path.write_bytes(b"content")


def test_many_threads_make_a_file_once(tmp_path: Path):
    cache, made = DownloadCache(tmp_path / "new", 100), []
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda _: cache.get("a", partial(write, made)), range(8)))
    assert len(made) == 1
    assert contents(tmp_path / "new") == {"a": b"content"}
    assert paths == {tmp_path / "new/a"}


def make_and_note(folder: Path, notes: Path) -> None:
    """Runs in another process."""

    def make(path: Path) -> None:
        (notes / str(os.getpid())).touch()
        write([], path)

    DownloadCache(folder, 100).get("a", make)


@pytest.mark.slow
def test_many_processes_make_a_file_once(tmp_path: Path):
    (tmp_path / "notes").mkdir()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=make_and_note, args=(tmp_path / "new", tmp_path / "notes")) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(list((tmp_path / "notes").iterdir())) == 1


def test_a_file_that_cannot_be_made_leaves_nothing_and_is_tried_again(tmp_path: Path):
    cache = DownloadCache(tmp_path, 100)

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise PackError("no")

    with pytest.raises(PackError):
        cache.get("a", fail)
    assert contents(tmp_path) == {}
    assert cache.get("a", partial(write, [])).read_bytes() == b"content"


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path):
    cache = DownloadCache(tmp_path, 30)
    for age, name in enumerate("edcba", 1):
        (tmp_path / name).write_bytes(b"content")
        os.utime(tmp_path / name, (time.time() - 100 * age,) * 2)
    assert cache.find("a")
    cache.get("f", partial(write, []))
    assert sorted(contents(tmp_path)) == ["a", "d", "e", "f"]


def test_what_was_just_used_stays_even_where_there_is_no_room(tmp_path: Path):
    cache = DownloadCache(tmp_path, 1)
    for name in "ab":
        cache.get(name, partial(write, []))
    assert sorted(contents(tmp_path)) == ["a", "b"]


def test_a_cache_folder_that_cannot_be_made_is_said_so(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(PackError, match=r"file/cache cannot be written into .*: name another one with cache="):
        DownloadCache(tmp_path / "file/cache", 100).get("a", partial(write, []))


@forks
def test_a_fork_while_a_file_is_made_locks_nobody_out(tmp_path: Path):
    cache, started, go_on = DownloadCache(tmp_path, 100), threading.Event(), threading.Event()

    def make(path: Path) -> None:
        started.set()
        go_on.wait()
        path.write_bytes(b"content")

    thread = threading.Thread(target=cache.get, args=("a", make))
    thread.start()
    started.wait()
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(5,))
    child.start()
    go_on.set()
    thread.join()
    begin = time.monotonic()
    (tmp_path / "a").unlink()
    cache.get("a", partial(write, []))
    assert time.monotonic() - begin < 3
    child.kill()
    child.join()
