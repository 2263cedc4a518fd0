"""Pushing to and pulling from a real S3 server, and what is said when it cannot be reached."""

import dataclasses
import itertools
import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from botocore.exceptions import ClientError
from conftest import Project, add_pictures, aws_variables, contents
from fault_proxy import FaultProxy

from imagepack.commands import s3

pytestmark = pytest.mark.slow


def connect(project: Project, server: s3.Server, secret: str | None = None) -> None:
    """Tell a clone's DVC where the server is, as run.py does."""
    project.write(
        ".dvc/config.local",
        f"['remote \"s3\"']\nendpointurl = {server.endpoint}\naccess_key_id = {server.access_key}\n"
        f"secret_access_key = {secret or server.secret_key}\n",
    )


@pytest.fixture(scope="module")
def first_version(new_project: Callable[[], Project]) -> Project:
    """A clone with a dataset, committed; not to be changed."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 20, "cat")
    add_pictures(project.folder / "data/raw", 20, "dog", first=20)
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    project.commit("First version")
    return project


@pytest.fixture
def project(first_version: Project, s3_server: s3.Server, tmp_path: Path) -> Project:
    """A copy of it, connected to the server."""
    shutil.copytree(first_version.folder, tmp_path / "project")
    project = Project(tmp_path / "project")
    connect(project, s3_server)
    return project


def clone(project: Project, folder: Path, server: s3.Server) -> Project:
    project("git", "clone", "--quiet", str(project.folder), str(folder))
    other = Project(folder)
    connect(other, server)
    return other


def test_what_is_pushed_is_pulled_identical_elsewhere(project: Project, s3_server: s3.Server, tmp_path: Path):
    names = ("data/raw", "data/validated", "data/processed", "data/packed", "reports")
    before = [contents(project.folder / name) for name in names]
    assert "pushed" in project("dvc", "push")
    other = clone(project, tmp_path / "other", s3_server)
    other("dvc", "pull")
    assert [contents(other.folder / name) for name in names] == before
    assert "up to date" in other("dvc", "status")

    shutil.rmtree(project.folder / ".dvc/cache")
    for name in names[:4]:
        shutil.rmtree(project.folder / name)
    project("dvc", "pull")
    assert [contents(project.folder / name) for name in names] == before


def test_git_push_pushes_the_data_once_the_hooks_are_installed(project: Project, s3_server: s3.Server, tmp_path: Path):
    add_pictures(project.folder / "data/raw", 1, "cat", first=500)
    project("dvc", "repro")
    project.commit("One more")
    project("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    project("python", "-m", "imagepack.commands.hooks")
    path = "/usr/bin:/bin"  # outside the environment, as a user's shell is
    git = shutil.which("git")
    project(git, "push", "--quiet", "origin", "main", PATH=f"{Path(git).parent}:{path}")
    other = clone(project, tmp_path / "other", s3_server)
    other("dvc", "pull")
    assert (other.folder / "data/raw/cat/img500.png").exists()


def test_the_server_keeps_its_data_over_a_restart_and_a_kill(tmp_path: Path):
    first = s3.start("bucket", tmp_path)
    first.client().put_object(Bucket="bucket", Key="a/b", Body=b"data")
    process = psutil.Process(first.pid)
    process.kill()
    process.wait(10)
    assert s3.running(tmp_path) is None
    if os.name != "nt":
        assert [path.stat().st_mode & 0o077 for path in (tmp_path, tmp_path / "server.json")] == [0, 0]
    second = s3.start("bucket", tmp_path, port=s3.free_ports(1)[0])
    try:
        assert second.secret_key == first.secret_key
        assert second.client().get_object(Bucket="bucket", Key="a/b")["Body"].read() == b"data"
        assert s3.start("bucket", tmp_path) == second
    finally:
        assert s3.stop(tmp_path)
    assert not s3.stop(tmp_path)


def test_a_nearly_full_disk_takes_as_many_buckets_as_an_empty_one(small_disk: Callable[[int], Path]):
    folder = small_disk(200 * 1024) / "s3"
    server = s3.start("bucket", folder, port=s3.free_ports(1)[0])
    try:
        client = server.client()
        for name in (f"bucket-{number}" for number in range(8)):
            client.create_bucket(Bucket=name)
            client.put_object(Bucket=name, Key="a", Body=b"data")
            assert client.get_object(Bucket=name, Key="a")["Body"].read() == b"data"
    finally:
        s3.stop(folder)


def test_the_server_listens_on_the_loopback_address_only(s3_server: s3.Server):
    addresses = {c.laddr.ip for c in psutil.Process(s3_server.pid).net_connections("tcp") if c.status == "LISTEN"}
    assert addresses == {"127.0.0.1"}


def answer(method: str, url: str) -> tuple[int, bytes]:
    """Status and body of what a web page may ask; status 0 where no HTTP is spoken."""
    request = urllib.request.Request(url, b"x" if method != "GET" else None, method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError:
        return 0, b""


def test_no_port_of_the_server_shows_or_takes_data_without_keys(s3_server: s3.Server):
    s3_server.client().put_object(Bucket="image-dataset", Key="aside/mine.txt", Body=b"of mine")
    ports = {c.laddr.port for c in psutil.Process(s3_server.pid).net_connections("tcp") if c.status == "LISTEN"}
    assert len(ports) > 5
    folders = ("", "buckets/image-dataset/aside", "image-dataset/aside")
    shown = [f"{folder}/{file}".strip("/") for folder in folders for file in ("", "mine.txt")]
    taken = ["buckets/image-dataset/new.txt", "image-dataset/new.txt", "dir/assign"]
    taken += [f"{volume},ff1234567890" for volume in range(1, 9)]  # what a volume server calls a file
    for port in ports:
        for path in shown:
            status, body = answer("GET", f"http://127.0.0.1:{port}/{path}")
            assert b"mine" not in body or status >= 400, (port, path, body)
        for method, path in itertools.product(("PUT", "POST", "DELETE"), taken):
            status, body = answer(method, f"http://127.0.0.1:{port}/{path}")
            assert not 200 <= status < 400, (port, method, path, body)


@pytest.mark.skipif(os.name == "nt", reason="there are no modes")
def test_the_keys_of_the_server_are_for_nobody_else(project: Project):
    local = project.folder / ".dvc/config.local"
    local.unlink()
    tell = "from imagepack.commands import s3; s3.tell_dvc(s3.Server(0, 1, s3.OUR_KEY, 'secret'))"
    project("python", "-c", tell)
    assert local.stat().st_mode & 0o777 == 0o600
    local.chmod(0o644)  # as an older version made it
    project("python", "-c", tell)
    project("dvc", "remote", "modify", "--local", "s3", "region", "eu-west-1")
    assert local.stat().st_mode & 0o777 == 0o600


def test_the_server_refuses_requests_without_its_keys(s3_server: s3.Server):
    stranger = s3.Server(s3_server.pid, s3_server.port, s3_server.access_key, "wrong")
    with pytest.raises(ClientError, match=r"403|SignatureDoesNotMatch|AccessDenied"):
        stranger.client().list_objects_v2(Bucket="image-dataset")


def test_a_taken_port_is_said_so(s3_server: s3.Server, tmp_path: Path):
    with pytest.raises(s3.S3Error, match=f"port {s3_server.port} is taken: choose another"):
        s3.start("bucket", tmp_path, port=s3_server.port)


def explain(project: Project, **environment: str) -> str:
    return project("python", "-m", "imagepack.commands.s3", "explain", **environment)


def test_a_server_that_is_down_is_explained(project: Project):
    down = s3.Server(0, s3.free_ports(1)[0], f"{s3.OUR_KEY}1", "secret")
    connect(project, down)
    assert "Traceback" not in project("dvc", "push", ok=False)
    assert f"no S3 answers at {down.endpoint}: start it with python3 run.py s3 start" in explain(project)


def test_wrong_keys_are_explained(project: Project, s3_server: s3.Server):
    connect(project, s3_server, secret="wrong")
    project("dvc", "push", ok=False)
    assert "refuses these keys for the bucket image-dataset: python3 run.py s3 start" in explain(project)


def test_a_clock_that_is_wrong_is_called_that(project: Project, s3_server: s3.Server):
    """A server a quarter of an hour or more away from it answers 403, as it does to wrong keys."""
    with FaultProxy(s3_server.endpoint, lambda method, path: "skew") as proxy:
        connect(project, dataclasses.replace(s3_server, port=int(proxy.endpoint.rpartition(":")[2])))
        said = explain(project)
    assert (
        f"{proxy.endpoint} refuses requests whose time is not its own: this machine's clock is 60 minutes slow" in said
    )


def test_missing_keys_are_explained(project: Project, s3_server: s3.Server, tmp_path: Path):
    project.write(".dvc/config.local", "")
    project("dvc", "remote", "modify", "s3", "url", "s3://image-dataset/mine")
    nothing = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert "there are no keys for s3://image-dataset/mine" in explain(
        project, AWS_ENDPOINT_URL=s3_server.endpoint, **nothing
    )


def test_a_bucket_that_does_not_exist_is_explained(project: Project, s3_server: s3.Server):
    project.write(".dvc/config.local", "")
    project("dvc", "remote", "modify", "s3", "url", "s3://no-such-bucket/data")
    project("dvc", "push", ok=False, **aws_variables(s3_server))
    assert "there is no bucket no-such-bucket" in explain(project, **aws_variables(s3_server))


def test_the_usual_aws_variables_are_enough_for_a_bucket_of_ones_own(project: Project, s3_server: s3.Server):
    project.write(".dvc/config.local", "")
    s3_server.client().create_bucket(Bucket="mine")
    project("dvc", "remote", "modify", "s3", "url", "s3://mine/images")
    assert "pushed" in project("dvc", "push", **aws_variables(s3_server))
    assert "answers and takes these keys" in explain(project, **aws_variables(s3_server))
    assert project("git", "diff", "--name-only").split() == [".dvc/config"]


def test_its_own_shell_gets_nowhere_without_the_certificate(s3_server: s3.Server):
    """The parts of the server talk by gRPC, in which whoever may connect may read and delete all."""
    s3_server.client().put_object(Bucket="image-dataset", Key="private/dog.txt", Body=b"")
    options = dict(part.split("=", 1) for part in psutil.Process(s3_server.pid).cmdline() if "=" in part)
    parts = [
        f"-{part}=127.0.0.1:{options[f'-{part}.port']}.{options[f'-{part}.port.grpc']}" for part in ("master", "filer")
    ]
    shell = subprocess.Popen(
        ["weed", "shell", *parts], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with pytest.raises(subprocess.TimeoutExpired):
        shell.communicate("fs.ls /buckets/image-dataset/private\nexit\n", timeout=4)
    shell.kill()
    assert "dog" not in shell.communicate()[0]


@pytest.mark.skipif(os.name == "nt", reason="Windows has other rights")
def test_what_holds_keys_is_its_owners_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    Path(".dvc/config.local").touch(mode=0o644)  # as `dvc remote modify --local` leaves it
    server = s3.start("mine", port=s3.free_ports(1)[0])
    s3.tell_dvc(server)
    s3.stop()
    assert server.secret_key in Path(".dvc/config.local").read_text()
    private = [Path(".dvc/config.local"), s3.FOLDER, *s3.FOLDER.iterdir()]
    assert {path.name: path.stat().st_mode & 0o077 for path in private if path.stat().st_mode & 0o077} == {}
