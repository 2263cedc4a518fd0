"""Whether every Python and h5py that can be installed here writes the same pack, byte for byte.

    python3 run.py -- python -m workshop.benchmarks.same_bytes [PACK]

A small pack (or PACK) is read and written again by python3.11, python3.12, ... as far as they are on the PATH, each
with old and new h5py and numpy as far as pip has wheels for it, in virtual environments that are thrown away. Exits 1
if a byte differs. Needs the network, and a few minutes.
"""

import argparse
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from PIL import Image

from imagepack.errors import InputError
from imagepack.images import manifest as manifests
from stages.pack import Pack, pack
from workshop.benchmarks.pipeline import ROOT

PYTHONS = ("python3.11", "python3.12", "python3.13", "python3.14")
H5PY = ("3.11.0", "3.12.1", "")
"""The oldest that we support, the oldest with a wheel for Python 3.13, the newest."""
NUMPY = ("1.26.4", "2.1.0", "")
REWRITE = """\
import sys
from pathlib import Path
import h5py, numpy
from imagepack.reader import format as packs

hdf5 = h5py.version.hdf5_version
print(f"Python {sys.version.split()[0]}, h5py {h5py.__version__}, HDF5 {hdf5}, numpy {numpy.__version__}")
pack, out = map(Path, sys.argv[1:])
(out / packs.SHARDS_NAME).mkdir(parents=True)
index, _ = packs.read_index(pack / packs.INDEX_NAME)
for name in index.shard_names:
    with h5py.File(pack / packs.SHARDS_NAME / name) as file:
        if index.encoding == "raw":
            images = file["image"][:]
        else:
            data, starts = file["data"][:], file["start"][:]
            images = [data[a:b].tobytes() for a, b in zip(starts, starts[1:])]
        packs.write_shard(out / packs.SHARDS_NAME, images, file["id"][:])
packs.write_index(out, index)
"""
"""Runs in each environment. What it writes is a function of what it reads, so it must be the same pack."""


def known_pack(folder: Path) -> Path:
    """A pack of forty images in two batches and some ten shards, from numbers alone; where it lies."""
    rows = []
    for number in range(40):
        batch, label = ("", "é, ü")[number % 2], ("cat", "dog", "new class")[number % 3]
        path = "/".join(filter(None, (batch, label, f"img{number}.jpg")))
        image = np.full((256, 256, 3), (number, 255 - number, 7 * number % 256), "u1")
        image[number : number + 20, :, 1] = np.arange(256)
        file = folder / "processed" / f"{path}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        sha256 = hashlib.sha256(str(number).encode()).hexdigest()
        rows.append({"path": path, "batch": batch, "label": label, "sha256": sha256})
    table = pl.DataFrame(rows).with_columns(frame=1, status=pl.lit("accepted"), group=pl.lit(""))
    manifests.write(manifests.in_order(table), folder / "manifest.parquet")
    pack(folder / "processed", folder / "manifest.parquet", folder / "packed", folder / "pack.json", Pack(shard_mib=1))
    return folder / "packed"


def contents(folder: Path) -> dict[str, str]:
    """The sha256 of every file under `folder`, by relative path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def install(python: str, h5py: str, numpy: str, folder: Path) -> Path | None:
    """An environment with these versions (the newest where empty), its Python; None where pip has no wheels for it."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    installed = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = [f"{name}=={version}" if version else name for name, version in (("h5py", h5py), ("numpy", numpy))]
    command = [installed, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "pillow", "google-crc32c"]
    done = subprocess.run([*command, *wanted], capture_output=True, text=True)
    if done.returncode and "No matching distribution" not in done.stderr:
        raise InputError(f"pip failed:\n{done.stderr}")
    return None if done.returncode else installed


def runs(python: str) -> bool:
    """Whether there is a program of this name that runs (pyenv has some that do not)."""
    return bool(shutil.which(python)) and not subprocess.run([python, "-c", ""], capture_output=True).returncode


def rewrite(source: Path, environment: Path, out: Path) -> tuple[str, bool]:
    """Write `source` again; the versions that did, or why they could not, and whether the bytes are the same."""
    variables = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([environment, "-c", REWRITE, source, out], env=variables, capture_output=True, text=True)
    said = done.stdout.strip()
    if done.returncode:
        return f"{said}: {done.stderr.strip().splitlines()[-1]}", False
    return said, contents(out) == contents(source)


def main(source: Path | None, folder: Path) -> bool:
    """Compare in `folder`, which is empty, and print; whether all are the same."""
    source = source or known_pack(folder / "known")
    pythons = [python for python in PYTHONS if runs(python)]
    if not pythons:
        raise InputError(f"none of {', '.join(PYTHONS)} is on the PATH")
    print(f"{len(contents(source))} files, written again by")
    results = {}
    for number, (python, h5py, numpy) in enumerate(itertools.product(pythons, H5PY, NUMPY)):
        place = folder / str(number)
        if environment := install(python, h5py, numpy, place / "environment"):
            said, same = rewrite(source, environment, place / "out")
            if said not in results:  # the newest may be one of the others
                print(f"{said}: {'the same bytes' if same else 'NOT THE SAME BYTES'}", flush=True)
            results[said] = same
        shutil.rmtree(place)
    print(f"{sum(results.values())} of {len(results)} environments write the same bytes")
    return all(results.values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m workshop.benchmarks.same_bytes", description=__doc__.splitlines()[0]
    )
    parser.add_argument("pack", nargs="?", type=Path, metavar="PACK", help="data/packed, or another")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            same = main(arguments.pack and arguments.pack.resolve(), Path(temporary))
    except InputError as error:
        sys.exit(f"workshop.benchmarks.same_bytes: {error}")
    sys.exit(not same)
