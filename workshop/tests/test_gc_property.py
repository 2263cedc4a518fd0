"""Whatever the history: after gc the bucket alone has every kept version whole, and what was counted is gone."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from bucket_dataset import Dataset, connect, images
from conftest import Project, aws_variables
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from imagepack.commands import s3

pytestmark = pytest.mark.slow
VERSIONS = [images(1, 2, 3), images(2, 3, 4), images(4, 5), images(1, 6), images(6, 7, 8), images(2, 8)]
FOREIGN = [images(3, 90), images(5, 91), images(92)]
"""Of another dataset, or of a mate who has not pushed to git: partly the same images."""
NUMBERS = st.sets(st.integers(0, len(VERSIONS) - 1), max_size=2)
OPTIONS = {"": "abte", "-w": "", "-a": "ab", "-T": "t", "-a -T": "abt", "--all-experiments": "e", "-n 2": "n"}
"""And what each keeps: branches here (a) and of git remotes (b), tags, experiments; n: default, two of each branch."""


@dataclass(frozen=True)
class Case:
    """What leads to which version, and what is asked for."""

    main: int
    tags: set[int]
    branches: set[int]
    elsewhere: set[int]  # branches of the git remote
    experiments: set[int]
    foreign: set[int]
    options: str
    unnamed: bool

    def kept(self) -> set[int]:
        """The versions that are to be kept. All are old, and one line of commits."""
        wanted = OPTIONS[self.options].replace("n", "abte")
        pushed = max(self.elsewhere, default=-1)
        tips = ({self.main} | self.branches if "a" in wanted else set()) | (self.elsewhere if "b" in wanted else set())
        if self.options == "-n 2":
            tips |= {tip - 1 for tip in tips if tip}
        work = {self.main} | {n for n in range(pushed + 1, max({self.main} | self.branches) + 1)}
        named = (self.tags if "t" in wanted else set()) | (self.experiments if "e" in wanted else set())
        return tips | work | named


CASES = st.builds(
    Case,
    main=st.integers(0, len(VERSIONS) - 1),
    tags=NUMBERS,
    branches=NUMBERS,
    elsewhere=NUMBERS,
    experiments=NUMBERS,
    foreign=st.sets(st.integers(0, len(FOREIGN) - 1)),
    options=st.sampled_from([*OPTIONS]),
    unnamed=st.booleans(),
)


def objects(files: dict[str, str]) -> dict[str, bytes]:
    """What DVC stores of a folder with these files: each, and their list."""
    md5s = {name: hashlib.md5(text.encode()).hexdigest() for name, text in files.items()}
    listed = json.dumps([{"md5": md5s[name], "relpath": name} for name in sorted(files)]).encode()
    return {md5s[name]: text.encode() for name, text in files.items()} | {
        f"{hashlib.md5(listed).hexdigest()}.dir": listed
    }


def names(versions: list[dict[str, str]], numbers: set[int]) -> set[str]:
    return {name for number in numbers for name in objects(versions[number])}


@pytest.fixture(scope="module")
def history(
    new_project: Callable[[], Project], s3_server: s3.Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Dataset, list[str]]]:
    """All versions, one line of old commits, pushed to the bucket and not to git; and the commits."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in aws_variables(s3_server).items():
            patch.setenv(name, value)
        dataset = connect(new_project(), s3_server, tmp_path_factory.mktemp("history") / "origin.git")
        commits = [dataset.commit(files, old=True) for files in VERSIONS]
        assert set(dataset.there()) == names(VERSIONS, set(range(len(VERSIONS))))
        yield dataset, commits


def stage(history: tuple[Dataset, list[str]], case: Case, folder: Path) -> Dataset:
    """A copy of the history with the names of a case, and a bucket of its own."""
    original, commits = history
    shutil.copytree(original.project.folder, folder / "project", symlinks=True)
    dataset = Dataset(Project(folder / "project"), original.server, original.bucket)
    git = dataset.project
    git("git", "init", "--quiet", "--bare", "--initial-branch=main", str(folder / "origin.git"))
    git("git", "remote", "set-url", "origin", str(folder / "origin.git"))
    refs = [f"refs/tags/t{n} {commits[n]}" for n in case.tags] + [
        f"refs/heads/b{n} {commits[n]}" for n in case.branches
    ]
    refs += [f"refs/exps/{'ab' * 1}/{'cd' * 19}/e{n} {commits[n]}" for n in case.experiments]
    for ref in refs:
        git("git", "update-ref", *ref.split())
    if pushed := [f"{commits[n]}:refs/heads/r{n}" for n in case.elsewhere]:
        git("git", "push", "--quiet", "origin", *pushed)
    git("git", "reset", "--quiet", "--hard", commits[case.main])
    fill(dataset, case)
    return dataset


def fill(dataset: Dataset, case: Case) -> None:
    """Put back into the bucket what an earlier case has removed, and what is another's."""
    client = dataset.server.client()
    for name in dataset.there():
        client.delete_object(Bucket=dataset.bucket, Key=f"data/files/md5/{name[:2]}/{name[2:]}")
    for files in VERSIONS + [FOREIGN[number] for number in case.foreign]:
        for name, content in objects(files).items():
            client.put_object(Bucket=dataset.bucket, Key=f"data/files/md5/{name[:2]}/{name[2:]}", Body=content)


@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])
@given(CASES)
def test_kept_versions_are_whole_and_what_was_counted_is_gone(
    history: tuple[Dataset, list[str]], tmp_path_factory: pytest.TempPathFactory, case: Case
):
    folder = tmp_path_factory.mktemp("case")
    dataset = stage(history, case, folder)
    here, there = dataset.here(), dataset.there()
    options = [*case.options.split(), *(["--unnamed"] if case.unnamed else [])]
    said = dataset.gc(*options, "--yes", "--cloud")

    needed = names(VERSIONS, case.kept()) | (set() if case.unnamed else names(FOREIGN, case.foreign))
    assert set(dataset.there()) == set(there) & needed
    assert set(dataset.here()) == set(here) & needed
    for before, after, where in ((here, dataset.here(), ".dvc/cache"), (there, dataset.there(), "s3://")):
        gone = before.keys() - after.keys()
        if gone:
            counted = re.search(rf"Freed ([\d,]+) B in (\d+) files? in {where}", said)
            assert counted, said
            assert (int(counted[1].replace(",", "")), int(counted[2])) == (sum(before[n] for n in gone), len(gone))

    mate = Project(folder / "mate")
    dataset.project("git", "clone", "--quiet", "--no-tags", str(dataset.project.folder), str(mate.folder))
    for number in case.kept():
        mate("git", "fetch", "--quiet", "origin", f"{history[1][number]}:refs/tags/kept{number}")
    mate("dvc", "fetch", "--quiet", "--all-tags")
    for number in case.kept():
        mate("git", "checkout", "--quiet", f"kept{number}")
        mate("dvc", "checkout", "--quiet", "--force", "data/raw.dvc")
        raw = mate.folder / "data/raw"
        found = {path.relative_to(raw).as_posix(): path.read_text() for path in raw.rglob("*.png")}
        assert found == VERSIONS[number]
    shutil.rmtree(folder)
