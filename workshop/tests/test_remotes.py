"""Remotes other than S3: real DVC against emulators of Google Cloud Storage and Azure Blob Storage.

DVC's packages for them are in an environment of their own, which .ci/run makes; REMOTES_PYTHON names its Python.
"""

import base64
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, add_pictures, contents
from test_docs import blocks

from imagepack import PackedImages
from imagepack.commands import s3
from imagepack.dvc.remotes import KEYS

REMOTES_PYTHON = os.environ.get("REMOTES_PYTHON")
pytestmark = pytest.mark.slow
FOLDERS = ("data/raw", "data/validated", "data/processed", "data/packed")
SHOW = "import imagepack, sys; packed = imagepack.PackedImages.at('HEAD'); print(len(packed), packed[3][0].sum())"


@dataclass
class Store:
    """A remote: its URL, and the environment that its user has."""

    url: str
    environment: dict[str, str] = field(default_factory=dict)

    def elsewhere(self, url: str | None = None, **environment: str) -> "Store":
        """The same with another URL or environment."""
        return Store(url or self.url, self.environment | environment)


class Clone(Project):
    """A clone whose remote is a store, used with the Python that has what it takes."""

    def __init__(self, folder: Path, store: Store) -> None:
        super().__init__(folder)
        self.environment = {"NO_PROXY": "127.0.0.1"} | store.environment
        if REMOTES_PYTHON:
            self.environment["PATH"] = f"{Path(REMOTES_PYTHON).parent}{os.pathsep}{os.environ['PATH']}"

    def __call__(self, *command: str, ok: bool | None = True, **environment: str) -> str:
        """As of Project."""
        return super().__call__(*command, ok=ok, **(self.environment | environment))


def answers(port: int) -> bool:
    """Whether something takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def running(command: list, port: int, **environment: str) -> Iterator[None]:
    """A server, from when it takes connections."""
    process = subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not answers(port):
            assert process.poll() is None and time.monotonic() < deadline, f"{command[0]} does not come up"
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A bucket of an emulator of Google Cloud Storage."""
    port = s3.free_ports(1)[0]
    command = [Path(REMOTES_PYTHON).parent / "gcp-storage-emulator", "-d", tmp_path_factory.mktemp("google"), "start"]
    options = ["--quiet", "--host", "127.0.0.1", "--port", str(port), "--default-bucket", "mine"]
    with running([*command, *options], port):
        yield Store("gs://mine/data", google_variables(port))


def google_variables(port: int) -> dict[str, str]:
    """How gcsfs is told of an emulator; and not to ask it by gRPC for the kind of bucket, which it has not."""
    return {
        "STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        "GOOGLE_APPLICATION_CREDENTIALS": "",
    }


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A container of an emulator of Azure Blob Storage."""
    port, key = s3.free_ports(1)[0], base64.b64encode(secrets.token_bytes(64)).decode()
    command = [Path(REMOTES_PYTHON).parents[1] / "node_modules/.bin/azurite-blob", "--silent", "--disableTelemetry"]
    options = ["--skipApiVersionCheck", "--blobPort", str(port), "--location", tmp_path_factory.mktemp("azure")]
    variables = azure_variables(port, key)
    make = "import sys; from azure.storage.blob import BlobServiceClient as Client; "
    make += "Client.from_connection_string(sys.argv[1]).create_container('mine')"
    with running([*command, *options], port, AZURITE_ACCOUNTS=f"someone:{key}"):
        subprocess.run([REMOTES_PYTHON, "-c", make, *variables.values()], check=True)
        yield Store("azure://mine/data", variables)


def azure_variables(port: int, key: str) -> dict[str, str]:
    """How a user of Azure has an address and a key."""
    parts = {
        "DefaultEndpointsProtocol": "http",
        "AccountName": "someone",
        "AccountKey": key,
        "BlobEndpoint": f"http://127.0.0.1:{port}/someone",
    }
    return {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}


@pytest.fixture(params=["google", "azure"])
def store(request: pytest.FixtureRequest) -> Store:
    """Each of them."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def first_version(new_project: Callable[[], Project]) -> Project:
    """A clone with a dataset, committed; not to be changed."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 12, "cat")
    add_pictures(project.folder / "data/raw", 12, "dog", first=12)
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    project.commit("First version")
    return project


def cloned(first_version: Project, store: Store, folder: Path, with_data: bool = False) -> Clone:
    """A clone whose default remote is the store, as docs/remotes.md says to set it."""
    if with_data:
        shutil.copytree(first_version.folder, folder)
    else:
        first_version("git", "clone", "--quiet", str(first_version.folder), str(folder))
    clone = Clone(folder, store)
    clone("git", "config", "user.name", "Test")
    clone("git", "config", "user.email", "test@example.com")
    clone("dvc", "remote", "add", "--default", "mine", store.url)
    clone("git", "commit", "--quiet", "--all", "--message", "Remote")
    return clone


def explain(clone: Project) -> str:
    return clone("python", "-m", "imagepack.commands.s3", "explain").strip()


@pytest.mark.extra("remotes")
def test_what_is_pushed_is_read_everywhere(first_version: Project, store: Store, tmp_path: Path):
    clone = cloned(first_version, store, tmp_path / "made", with_data=True)
    before = [contents(clone.folder / name) for name in FOLDERS]
    assert "pushed" in clone("dvc", "push")
    assert explain(clone) == s3.ANSWERS

    shutil.rmtree(clone.folder / ".dvc/cache")
    for name in FOLDERS:
        shutil.rmtree(clone.folder / name)
    clone("dvc", "pull")
    assert [contents(clone.folder / name) for name in FOLDERS] == before

    said = clone("python", "-m", "imagepack.commands.doctor", ok=None)
    assert re.search(rf"^ok +remote: {store.url} can be read and written$", said, re.MULTILINE), said
    assert re.search(r"^ok +pushed: all \d+ files of 1 version are on the remote$", said, re.MULTILINE), said
    assert re.search(r"^ok +pipeline: ", said, re.MULTILINE), said

    other = cloned(first_version, store, tmp_path / "other")  # has no data yet
    packed = PackedImages(clone.folder / "data/packed")
    shown = other("python", "-c", SHOW, IMAGEPACK_CACHE=str(tmp_path / "cache"))
    assert shown.split() == [str(len(packed)), str(packed[3][0].sum())]
    other("git", "commit", "--quiet", "--allow-empty", "--message", "Nothing")
    other("python", "-m", "imagepack.commands.compare", "HEAD~1", "HEAD", "--json", "compare.json")
    assert json.loads((other.folder / "compare.json").read_text(encoding="utf-8"))["counts"]["unchanged"] == 24
    printed = other("python", "-m", "imagepack.commands.run")  # python3 run.py
    assert "fetching them" in printed and "-- dvc push" not in printed and "8333" not in printed
    assert [contents(other.folder / name) for name in FOLDERS] == before


@pytest.mark.extra("remotes")
def test_a_server_that_is_down_is_said_so(first_version: Project, store: Store, tmp_path: Path):
    port = s3.free_ports(1)[0]
    down = store.elsewhere(
        **google_variables(port) if store.url.startswith("gs") else azure_variables(port, "a" * 86 + "==")
    )
    clone = cloned(first_version, down, tmp_path / "clone")
    said = explain(clone)
    assert said.startswith(f"{down.url}: no answer in 8 seconds: check the address and the network, and the keys (")
    assert len(said.splitlines()) == 1


@pytest.mark.extra("remotes")
def test_a_bucket_that_does_not_exist_is_said_so(first_version: Project, store: Store, tmp_path: Path):
    nowhere = store.elsewhere(store.url.replace("mine", "yours"))
    clone = cloned(first_version, nowhere, tmp_path / "clone")
    assert explain(clone) == "there is no bucket yours: make it, or check the remote's URL"
    assert "problem  remote: there is no bucket yours" in clone("python", "-m", "imagepack.commands.doctor", ok=False)


def refused(clone: Project, words: str) -> None:
    """Both run.py and imagepack say this of the remote, each in a line."""
    assert explain(clone) == words
    cache = str(clone.folder / ".imagepack")
    assert clone("python", "-c", SHOW, ok=False, IMAGEPACK_CACHE=cache).splitlines()[-1].endswith(words)


@pytest.mark.extra("remotes")
def test_wrong_and_missing_keys_of_azure_are_said_so(first_version: Project, azure: Store, tmp_path: Path):
    right = azure.environment["AZURE_STORAGE_CONNECTION_STRING"]
    wrong = re.sub("AccountKey=[^;]*", f"AccountKey={'a' * 86}==", right)
    keys = KEYS["azure"]
    for name, value, words in (
        ("wrong", wrong, f"azure://mine/data refuses these keys: {keys}"),
        ("garbled", "garbled", f"azure://mine/data refuses these keys: {keys}"),
        ("none", "", f"there are no keys for azure://mine/data: {keys}"),
    ):
        store = azure.elsewhere(AZURE_STORAGE_CONNECTION_STRING=value, AZURE_CONFIG_DIR=str(tmp_path / "none"))
        refused(cloned(first_version, store, tmp_path / name), words)


class Refusing(BaseHTTPRequestHandler):
    """What Google answers to those who have no rights."""

    def do_GET(self) -> None:
        message = "Anonymous caller does not have storage.objects.list access to the Google Cloud Storage bucket."
        body = json.dumps({"error": {"code": self.server.status, "message": message}}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        """Nothing."""


@pytest.mark.extra("remotes")
@pytest.mark.parametrize("status", [401, 403])
def test_wrong_and_missing_keys_of_google_are_said_so(first_version: Project, tmp_path: Path, status: int):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    server.status = status
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        store = Store("gs://mine/data", google_variables(server.server_port))
        clone = cloned(first_version, store, tmp_path / "clone")
        fix = (
            "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file"
        )
        refused(clone, f"gs://mine/data refuses these keys: {fix}")
        clone("dvc", "remote", "modify", "--local", "mine", "credentialpath", str(tmp_path / "key.json"))
        assert explain(clone).startswith(f"there is no key file {tmp_path / 'key.json'}, which credentialpath")
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("scheme", ["gs", "azure"])
def test_a_package_that_is_not_installed_is_said_so(first_version: Project, scheme: str, tmp_path: Path):
    project = Project(cloned(first_version, Store(f"{scheme}://mine/data"), tmp_path / "clone").folder)
    blocked = tmp_path / "blocked"  # whoever has it installed has it not here
    blocked.mkdir()
    (blocked / f"dvc_{scheme}.py").write_text("raise ModuleNotFoundError('not here')\n", encoding="utf-8")
    environment = {"PYTHONPATH": str(blocked)}
    words = f"{scheme}://mine/data takes a package that is not installed: python3 run.py -- pip install dvc-{scheme}"
    assert words in project("python", "-m", "imagepack.commands.run", ok=False, **environment)
    assert f"remote: {words}" in project("python", "-m", "imagepack.commands.doctor", ok=False, **environment)
    said = project("python", "-c", SHOW, ok=False, IMAGEPACK_CACHE=str(tmp_path / "cache"), **environment)
    assert said.splitlines()[-1].endswith(
        f"to read from {scheme}://mine/data takes more of DVC: pip install 'dvc[{scheme}]'"
    )


def test_who_has_tried_the_local_s3_first_is_rid_of_its_keys(new_project: Callable[[], Project]):
    project = new_project()
    project.write(
        ".dvc/config.local",
        f"['remote \"s3\"']\nendpointurl = http://127.0.0.1:1\naccess_key_id = {s3.OUR_KEY}1\nsecret_access_key = b\n",
    )
    project("dvc", "remote", "add", "--default", "mine", "gs://mine/data")
    assert "took the local S3's address and keys out" in explain(project)
    project("dvc", "remote", "remove", "s3")
    assert project("dvc", "remote", "list").split() == ["mine", "gs://mine/data", "(default)"]
    project("dvc", "remote", "remove", "mine")
    assert "no DVC remote is set: dvc remote add --default" in explain(project)


def test_the_documented_commands_are_taken_by_dvc(new_project: Callable[[], Project]):
    text = (REPOSITORY / "docs/remotes.md").read_text(encoding="utf-8")
    lines = [line for block in blocks(text, "console") for line in block.splitlines()]
    commands = [line.split(" -- dvc ")[1].split() for line in lines if " -- dvc remote " in line]
    assert len(commands) > 5
    project = new_project()
    for command in commands:
        project("dvc", *command)
        project("dvc", "remote", "list")
