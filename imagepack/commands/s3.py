"""The local S3 server of the first run: SeaweedFS, on this machine's loopback address only, for this user only.

    python -m imagepack.commands.s3 start|stop|status|explain

Its data, keys and log lie in .local-s3 (not in git). DVC is told about it in .dvc/config.local (not in git either).
"""

import argparse
import json
import os
import re
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlparse

import botocore.session
import psutil
from botocore.config import Config as ClientConfig
from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, HTTPClientError, NoCredentialsError

from imagepack.dvc import config, remotes
from imagepack.dvc.config import default_remote

FOLDER = Path(".local-s3")
TEMPLATE_URL = "s3://image-dataset"
"""The remote of .dvc/config as the template ships it; another one is the user's own."""
PORT = 8333
REMOTE = "s3"
LOCAL_CONFIG = Path(".dvc/config.local")
SET_REMOTE = "dvc remote add --default --force s3 s3://my-bucket/my-dataset (docs/remotes.md has other stores)"
ANSWERS = "The remote answers and takes these keys."
SET_CLOCK = "set it (Linux: timedatectl set-ntp true; macOS: sntp -sS time.apple.com; Windows: w32tm /resync)"
OUR_KEY = "local-s3-"
"""How access keys of the local server begin, so that no others are ever taken for them."""


CLOSED = "-disableHttp"
"""Neither filer nor master answers HTTP, for which they ask no keys; S3 reaches them by gRPC, which no web page can."""
VOLUMES = "-volume.max=1000"
"""Each bucket takes a volume. By itself the server makes as many as would fit if each were full: few on a full disk."""


class S3Error(Exception):
    """The server cannot be started; the message says why and what to do."""


@dataclass(frozen=True)
class Server:
    """A SeaweedFS server: where it listens and its keys."""

    pid: int
    port: int
    access_key: str
    secret_key: str

    @property
    def endpoint(self) -> str:
        """URL."""
        return f"http://127.0.0.1:{self.port}"

    def client(self):
        """A botocore S3 client that does not wait long."""
        return _client(self.endpoint, self.access_key, self.secret_key)


def _client(endpoint: str | None, access_key: str | None, secret_key: str | None, patience: int = 1, **session):
    """It waits `patience` times as long as one that does not wait long."""
    quick = ClientConfig(connect_timeout=2 * patience, read_timeout=5 * patience, retries={"total_max_attempts": 1})
    return botocore.session.Session(**session).create_client(
        "s3",
        region_name=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=quick,
    )


def running(folder: Path = FOLDER) -> Server | None:
    """The server whose data lies in `folder`, if it runs."""
    try:
        server = Server(**json.loads((folder / "server.json").read_text(encoding="utf-8")))
        command = psutil.Process(server.pid).cmdline()
    except (FileNotFoundError, ValueError, TypeError, psutil.Error):
        return None
    return server if f"-dir={folder.resolve() / 'data'}" in command else None  # a pid may have a new owner


def start(bucket: str, folder: Path = FOLDER, port: int | None = None) -> Server:
    """Start the server unless it runs, and make `bucket`; return when it answers.

    Args:
        bucket: name.
        folder: for data, keys and log; made if missing.
        port: of the S3 endpoint; None for 8333, or another where that is taken.

    Raises:
        S3Error: the port is taken, or the server does not come up.
    """
    if (server := running(folder)) and CLOSED in psutil.Process(server.pid).cmdline():
        _make_bucket(server, bucket)
        return server
    if server:  # started by an older version, with its filer and master open
        stop(folder)
        port = port or server.port
    with _private():
        (folder / "data").mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if port is not None and not _is_free(port):
        raise S3Error(f"port {port} is taken: choose another, python3 run.py s3 start --port {port + 1}")
    chosen = port or (PORT if _is_free(PORT) else free_ports(1)[0])
    access_key, secret_key = _keys(folder)
    with _private():
        process = _launch(bucket, folder, chosen, access_key, secret_key)
        server = Server(process.pid, chosen, access_key, secret_key)
        (folder / "server.json").write_text(json.dumps(asdict(server), indent=2), encoding="utf-8")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            _make_bucket(server, bucket)
            process.returncode = 0  # it is to outlive this process: nobody waits for it
            return server
        except (BotoCoreError, ClientError):
            time.sleep(0.2)
    process.kill()
    process.wait()
    raise S3Error(f"the local S3 did not start: see {folder / 'log.txt'}")


@contextmanager
def _private() -> Iterator[None]:
    """Files and folders that are made meanwhile, keys among them, are this user's alone from the first moment on."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _keys(folder: Path) -> tuple[str, str]:
    """The access key and secret key of the last start, or new ones."""
    try:
        last = json.loads((folder / "server.json").read_text(encoding="utf-8"))
        return last["access_key"], last["secret_key"]
    except (FileNotFoundError, ValueError, KeyError):
        return OUR_KEY + secrets.token_hex(8), secrets.token_hex(20)


def _launch(bucket: str, folder: Path, port: int, access_key: str, secret_key: str) -> subprocess.Popen:
    """Start the process, cut loose from this one."""
    from imagepack.commands.certificate import self_signed  # late: no other command needs cryptography

    parts = [f"{part}.port{kind}" for part in ("master", "volume", "filer", "admin") for kind in ("", ".grpc")]
    names = ["s3.port.grpc", *parts]
    ports = [f"-{name}={free}" for name, free in zip(names, free_ports(len(names)), strict=True)]
    here = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder.resolve() / 'data'}", f"-bucket={bucket}"]
    off = ["-webdav=false", "-admin.ui=false", "-master.telemetry=false", "-s3.autoCreateBucket=false"]
    off += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    certificate, key = map(str, self_signed(folder))
    secret = {"WEED_GRPC_CA": certificate}  # by gRPC whoever may connect may read and delete all
    for part in ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT"):
        secret |= {f"WEED_GRPC_{part}_CERT": certificate, f"WEED_GRPC_{part}_KEY": key}
    for part in ("", "FILER_"):  # what S3 signs, and the volume server and the filer take no other
        secret |= {f"WEED_JWT_{part}SIGNING_{kind}KEY": secrets.token_hex(20) for kind in ("", "READ_")}
    detached = (
        {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.DETACHED_PROCESS}
        if os.name == "nt"
        else {"start_new_session": True}
    )
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            ["weed", "mini", CLOSED, VOLUMES, f"-s3.port={port}", *ports, *here, *off],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=os.environ | secret | {"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
            **detached,
        )


def _make_bucket(server: Server, bucket: str) -> None:
    client = server.client()
    if bucket not in [found["Name"] for found in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=bucket)


def stop(folder: Path = FOLDER) -> bool:
    """Stop the server; False if it was not running."""
    server = running(folder)
    if not server:
        return False
    process = psutil.Process(server.pid)
    process.terminate()
    try:
        process.wait(20)
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(20)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if os.name != "nt":  # there the option means something else
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Different ports, free a moment ago."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def remote_url() -> str:
    """Where the default remote points; empty if there is none."""
    return default_remote().get("url", "")


def is_own(remote: dict | None = None) -> bool:
    """Whether a remote, None for the default one, is the user's own, of whatever store, not the local server."""
    remote = default_remote() if remote is None else remote
    return remote.get("url") != TEMPLATE_URL or not remote.get("access_key_id", OUR_KEY).startswith(OUR_KEY)


def tell_dvc(server: Server) -> None:
    """Write endpoint and keys of the local server to .dvc/config.local."""
    make_private(LOCAL_CONFIG)
    with _private(), config.edit_local() as local:
        local.setdefault("remote", {}).setdefault(REMOTE, {}).update(
            endpointurl=server.endpoint, access_key_id=server.access_key, secret_access_key=server.secret_key
        )


def make_private(path: Path) -> None:
    """Let nobody else on this machine read a file that is to hold keys; made if missing. DVC keeps its mode."""
    path.touch(0o600)
    path.chmod(0o600)


def forget() -> bool:
    """Take the local server's endpoint and keys, and no others, out of .dvc/config.local; whether they were there."""
    with config.edit_local() as local:
        remote = local.get("remote", {}).get(REMOTE, {})
        if not remote.get("access_key_id", "").startswith(OUR_KEY):
            return False
        for name in ("endpointurl", "access_key_id", "secret_access_key"):
            remote.pop(name, None)
        if not remote:
            del local["remote"][REMOTE]  # DVC refuses a section without a URL once .dvc/config has none either
    return True


def explain() -> str:
    """Why the remote cannot be used and what to do, in a sentence; empty if it can."""
    if is_own() and forget():
        return "The remote is your own now: took the local S3's address and keys out of .dvc/config.local. Try again."
    return fault(default_remote())


def explanation() -> str:
    """As `explain`; that it can, where there is nothing to explain."""
    asked = urlparse(remote_url()).scheme in remotes.KEYS
    return explain() or (ANSWERS if asked else "python3 run.py doctor writes to this remote and reads it back.")


def fault(remote: dict) -> str:
    """As `explain`, of what DVC's configuration has of a remote, of S3 or another store; changes nothing.

    Args:
        remote: `url`, `endpointurl`, `access_key_id`, ...
    """
    if not remote.get("url"):
        return f"no DVC remote is set: {SET_REMOTE}"
    if not remote["url"].startswith("s3://"):
        return remotes.try_out(remote)
    endpoint, shown, own = _endpoint(remote), _shown_endpoint(remote), is_own(remote)
    bucket = urlparse(remote["url"]).netloc
    set_keys = (
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or `dvc remote modify --local s3 access_key_id ...` "
        "and `... secret_access_key ...`"
    )
    if own and remote.get("access_key_id", "").startswith(OUR_KEY):
        return ".dvc/config.local still has the local S3's address and keys: python3 run.py s3 explain takes them out"
    if not endpoint and not own:
        return "the local S3 has never been started here: python3 run.py s3 start"
    try:
        _look(remote)
    except NoCredentialsError:
        return f"there are no keys for {remote['url']}: {set_keys}"
    except ClientError as error:
        if error.response["Error"]["Code"] == remotes.SKEWED:
            return f"{shown} refuses requests whose time is not its own: {_clock(error)}"
        match error.response["ResponseMetadata"]["HTTPStatusCode"]:
            case 403 | 401:
                fix = set_keys if own else "python3 run.py s3 start sets them right"
                return f"{shown} refuses these keys for the bucket {bucket}: {fix}"
            case 404:
                return f"there is no bucket {bucket} at {shown}: make it, or `dvc remote modify s3 url s3://...`"
        return f"{shown} answers: {error}"
    except (HTTPClientError, EndpointConnectionError):
        return _no_answer(remote)
    except BotoCoreError as error:
        return str(error)
    return ""


def _endpoint(remote: dict) -> str | None:
    return remote.get("endpointurl") or os.environ.get("AWS_ENDPOINT_URL")


def _shown_endpoint(remote: dict) -> str:
    return re.sub(r"//[^/@]*@", "//", _endpoint(remote) or "AWS")  # some put a name and password there


def _no_answer(remote: dict) -> str:
    start_it = "check the address and the network" if is_own(remote) else "start it with python3 run.py s3 start"
    return f"no S3 answers at {_shown_endpoint(remote)}: {start_it}"


def _look(remote: dict, patience: int = 1) -> None:
    """List one object."""
    keys = remote.get("access_key_id"), remote.get("secret_access_key")
    client = _client(_endpoint(remote), *keys, patience=patience, profile=remote.get("profile"))
    client.list_objects_v2(Bucket=urlparse(remote["url"]).netloc, MaxKeys=1)


def _clock(error: ClientError) -> str:
    """How wrong this machine's clock is, by the time of a server's answer, and the fix."""
    try:
        theirs = parsedate_to_datetime(error.response["ResponseMetadata"]["HTTPHeaders"]["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return f"this machine's clock is wrong: {SET_CLOCK}"
    minutes = round((time.time() - theirs) / 60)
    return f"this machine's clock is {abs(minutes)} minutes {'fast' if minutes > 0 else 'slow'}: {SET_CLOCK}"


def silent(remote: dict) -> str:
    """That a remote of S3 does not answer within 10 seconds, and what to do; empty if it does, whatever it answers.

    DVC would ask again and again: 1 min 40 s of a server that takes the connection and is silent, measured.
    """
    try:
        if remote.get("url", "").startswith("s3://"):
            _look(remote, patience=2)
    except (HTTPClientError, EndpointConnectionError):
        return _no_answer(remote)
    except (BotoCoreError, ClientError, ValueError):
        return ""  # DVC will say so, and `explain` after it
    return ""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python3 run.py s3", description="The local S3 server.")
    parser.add_argument("action", choices=["start", "stop", "status", "explain"])
    parser.add_argument("--port", type=int, help="of the S3 endpoint (start)")
    options = parser.parse_args()
    match options.action:
        case "start":
            if is_own():
                print(f"The remote is your own ({remote_url()}): the local S3 is not needed.")
                return 1
            try:
                server = start(urlparse(TEMPLATE_URL).netloc, port=options.port)
            except S3Error as error:
                print(error, file=sys.stderr)
                return 1
            tell_dvc(server)
            if options.port not in (None, server.port):
                print(f"It ran already, not on port {options.port}: first python3 run.py s3 stop", file=sys.stderr)
                return 1
            print(f"The local S3 runs at {server.endpoint}. Next: python3 run.py -- dvc push")
        case "stop":
            print("The local S3 has stopped; its data stays." if stop() else "The local S3 was not running.")
        case "status":
            server = running()
            print(
                f"The local S3 runs at {server.endpoint} (process {server.pid})."
                if server
                else "The local S3 does not run: python3 run.py s3 start"
            )
            return 0 if server else 1
        case "explain":
            print(explanation())
    return 0


if __name__ == "__main__":
    sys.exit(main())
