"""Whether the pipeline writes the same bytes on arm64 (Graviton, Apple's chips) as here.

    python3 run.py -- python -m workshop.benchmarks.arm64 [IMAGES]

The four stages on the sample, or on a folder of images, by this Python; then by Debian's Python for arm64 with the
wheels of requirements.lock for arm64, whose every instruction QEMU translates (some 30 times as slow: the sample takes
5 to 10 minutes). Exits 1 if a byte of what stages write differs.

Needs Debian or Ubuntu, with root's rights to get packages:
apt install qemu-user-static && dpkg --add-architecture arm64 && apt update
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from imagepack.errors import InputError
from workshop.benchmarks.pipeline import ROOT, copy_repository, outs_of
from workshop.benchmarks.same_bytes import contents

QEMU = "qemu-aarch64-static"
PYTHON = "3.11"
DEBIAN = (
    *(f"{name}:arm64" for name in ("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g", "libbz2-1.0", "liblzma5")),
    *(f"{name}:arm64" for name in ("libexpat1", "libffi8", "libssl3", "libsqlite3-0", "libuuid1", "libcrypt1")),
    *(f"{name}{PYTHON}{part}:arm64" for name, part in (("python", "-minimal"), ("libpython", "-minimal"))),
    f"libpython{PYTHON}-stdlib:arm64",
)
WHEELS = (
    *("annotated-types", "google-crc32c", "h5py", "jinja2", "markupsafe", "numpy", "pathspec", "pillow", "polars"),
    *("polars-runtime-32", "psutil", "pydantic", "pydantic-core", "pyyaml", "ruamel-yaml", "simplejpeg", "tqdm"),
    *("typing-extensions", "typing-inspection", "xxhash", "zlib-ng"),
)
"""What stages import; the rest of the lock belongs to DVC."""
PLATFORMS = ("manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in (17, 24, 26, 27, 28, 31, 34)))


def debian(folder: Path) -> None:
    """Unpack Debian's Python for arm64 below `folder`.

    Raises:
        InputError: apt cannot get it.
    """
    packages = folder.with_name("packages")
    packages.mkdir()
    done = subprocess.run(["apt-get", "download", *DEBIAN], cwd=packages, text=True, capture_output=True)
    if done.returncode:
        raise InputError(f"apt-get cannot download packages for arm64, see --help:\n{done.stderr.strip()}")
    for package in packages.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True)


def wheels(folder: Path) -> None:
    """Install what stages import, of the versions and with the hashes of requirements.lock, for arm64."""
    blocks = re.split(r"\n(?=[a-z0-9])", (ROOT / "requirements.lock").read_text(encoding="utf-8"))
    wanted = [block for block in blocks if block.partition("==")[0] in WHEELS]
    lock = folder.with_name("arm64.lock")
    lock.write_text("\n".join(wanted) + "\n", encoding="utf-8")
    kind = ["--only-binary=:all:", "--implementation=cp", f"--python-version={PYTHON}"]
    kind += [f"--platform={name}" for name in PLATFORMS]
    kind += [f"--abi={name}" for name in (f"cp{PYTHON.replace('.', '')}", "abi3", "none")]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "--target", folder]
    subprocess.run([*pip, *kind, "-r", lock], check=True, stderr=subprocess.DEVNULL)


def python_of(folder: Path) -> Path:
    """Make an arm64 Python in `folder`; return the program that starts it, which its processes start too."""
    debian(folder / "debian")
    wheels(folder / "wheels")
    program = folder / "python"
    root = folder / "debian"
    program.write_text(f'#!/bin/sh\nexec {QEMU} -L {root} {root}/usr/bin/python{PYTHON} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    # without it, a worker would be started as the translated program, which the kernel cannot run
    start = f"import sys; sys.executable = sys._base_executable = {str(program)!r}\n"
    (folder / "wheels/sitecustomize.py").write_text(start, encoding="utf-8")
    return program


def run(project: Path, images: Path, program: Path, libraries: Path | None) -> dict[str, str]:
    """Run the stages on `images` in `project`, new, by `program`; return the sha256 of each file that they write."""
    copy_repository(project)
    shutil.copytree(images, project / "data/raw", dirs_exist_ok=True)
    paths = os.pathsep.join(map(str, filter(None, [libraries, project])))
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    stages = yaml.safe_load((project / "dvc.yaml").read_text(encoding="utf-8"))["stages"].values()
    for stage in stages:
        command = [program, *shlex.split(stage["cmd"])[1:]]
        subprocess.run(command, cwd=project, env=environment, check=True, stderr=subprocess.DEVNULL)
    outs = [f"{out}/" for stage in stages for out in outs_of(stage)]
    return {name: digest for name, digest in contents(project).items() if f"{name}/".startswith(tuple(outs))}


def main(images: Path, folder: Path) -> bool:
    """Compare in `folder`, which is empty, and print; return whether all bytes are the same."""
    if not shutil.which(QEMU):
        raise InputError(f"there is no {QEMU}, see --help")
    program = python_of(folder)
    says = "import platform; print(platform.machine(), platform.python_version())"
    for each in (Path(sys.executable), program):
        print(subprocess.check_output([each, "-c", says], text=True).strip(), flush=True)
    here = run(folder / "here", images, Path(sys.executable), None)
    there = run(folder / "there", images, program, folder / "wheels")
    different = sorted(name for name in here | there if here.get(name) != there.get(name))
    print(f"{len(here)} files, {len(different)} of which differ", *different[:20], sep="\n  ")
    return not different


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m workshop.benchmarks.arm64",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="?", type=Path, default=ROOT / "data/sample/images", metavar="IMAGES")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            same = main(arguments.images.resolve(), Path(temporary))
    except InputError as error:
        sys.exit(f"workshop.benchmarks.arm64: {error}")
    sys.exit(not same)
