"""`python3 run.py gc`: what it keeps, what it frees, and when it refuses to."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from bucket_dataset import DATES, OLD, Dataset, connect, images
from conftest import Project, aws_variables

from imagepack.commands import gc, s3
from imagepack.dvc import git, kept_versions

pytestmark = pytest.mark.slow
LIST = len('{"md5": "0123456789abcdef0123456789abcdef", "relpath": "cat/1.png"}, ')
"""Bytes of a list of a folder, for each image."""


def size_of(files: dict[str, str]) -> int:
    return sum(map(len, files.values()))


def row(said: str, begins: str) -> str:
    """The line that begins so."""
    return next((line for line in said.splitlines() if line.startswith(begins)), "")


@pytest.fixture(autouse=True)
def keys(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs DVC here has the keys of the bucket."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def dataset(new_project: Callable[[], Project], s3_server: s3.Server, tmp_path: Path) -> Dataset:
    """A clone without images, with an empty bucket and a git remote."""
    return connect(new_project(), s3_server, tmp_path / "origin.git")


def test_a_version_that_nothing_names_goes_and_the_others_stay(dataset: Dataset):
    dataset.commit(images(1, 2, 3), "First", old=True)
    dataset.project("git", "tag", "v1")
    dataset.commit(images(2, 3, 4), "Second, of no name", old=True)
    dataset.commit(images(3, 5), "Third", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main", "v1")
    before = dataset.here()
    assert before == dataset.there()
    said = dataset.gc()
    assert dataset.here() == dataset.there() == before
    assert "Not kept: 1 version" in said
    only_first, only_third = (size_of(images(1, 2)), size_of(images(5)))
    assert row(said, "v1").split()[1:3] == ["2024-05-01", "4"]
    assert row(said, "v1").endswith(f"{only_first + LIST * 3} B               0.00")
    assert row(said, "working tree, main, origin/main").endswith(f"{only_third + LIST * 2} B               0.00")
    freed = size_of(images(4)) + LIST * 3
    assert f"{freed} B in 2 files" in row(said, "s3://")
    assert said.endswith("To free it: python3 run.py gc --yes --cloud (without --cloud: only here)\n")
    said = dataset.gc("--yes")
    assert dataset.there() == before
    assert sum(before.values()) - sum(dataset.here().values()) == freed
    assert f"Freed {freed} B in 2 files in .dvc/cache.\n" in said
    assert f"Freed {freed} B in 2 files in s3://{dataset.bucket}/data.\n" in dataset.gc("--yes", "--cloud")
    assert dataset.there() == dataset.here()
    assert "Nothing is to go." in dataset.gc()


def test_what_others_have_pushed_to_git_has_to_be_here_first(dataset: Dataset, tmp_path: Path):
    shared = dataset.commit(images(1, 2), "First", old=True)
    dataset.commit(images(3), "Second", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main")
    mate = dataset.clone(tmp_path / "mate")
    mate.project("git", "checkout", "--quiet", "-b", "theirs", shared)
    mate.commit(images(1, 4), "Theirs", old=True)
    mate.project("git", "push", "--quiet", "origin", "theirs")
    mate.project("git", "update-ref", f"refs/exps/{shared[:2]}/{shared[2:]}/small", "HEAD")
    before = dataset.there()
    assert "branch theirs of origin), which may need it: git fetch --all --tags" in dataset.gc()
    assert "nothing was removed:" in dataset.gc("--yes", "--cloud", ok=False)
    assert dataset.there() == before
    dataset.project("git", "fetch", "--quiet", "--all", "--tags")
    assert "2 files" in row(dataset.gc("--yes", "--cloud"), "Freed")  # 2, and the list of 1 and 2
    assert dataset.there().keys() >= mate.here().keys()
    mate.project("git", "commit", "--quiet", "--allow-empty", "--message", "Experiment")
    mate.project("git", "update-ref", f"refs/exps/{shared[:2]}/{shared[2:]}/small", "HEAD")
    mate.project("git", "push", "--quiet", "origin", "refs/exps/*:refs/exps/*")
    said = dataset.gc("--yes", "--cloud", ok=False)
    assert "(experiment small of origin), which may need it: git fetch origin 'refs/exps/*:refs/exps/*'" in said
    dataset.project("git", "fetch", "--quiet", "origin", "refs/exps/*:refs/exps/*")
    assert "experiment small" in dataset.gc("--yes", "--cloud")
    shutil.rmtree(dataset.origin)
    said = dataset.gc("--yes", "--cloud", ok=False)
    assert "the git remote origin cannot be asked for its branches" in said


def test_what_no_version_names_stays_with_all_that_its_lists_name(dataset: Dataset, tmp_path: Path):
    """A mate has pushed data and not yet the commit; another dataset has the same bucket."""
    dataset.commit(images(1, 2), "First", old=True)
    dataset.commit(images(3), "Second", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main")
    mate = dataset.clone(tmp_path / "mate")
    mate.commit(images(1, 4), "Not pushed to git", old=True)
    said = dataset.gc()
    unnamed = f"{LIST * 2 + size_of(images(1, 4))} B in 3 files"
    assert row(said, "s3://").endswith(unnamed)
    dataset.gc("--yes", "--cloud")
    assert dataset.there().keys() >= mate.here().keys()
    assert len(dataset.there()) == 5  # 3 and its list, 1 and 4 and theirs
    assert row(dataset.gc("--unnamed"), "s3://").split("in 3 files")[0].endswith(unnamed.removesuffix("in 3 files"))
    dataset.gc("--unnamed", "--yes", "--cloud")
    assert len(dataset.there()) == 2


def test_commits_that_are_not_pushed_stashes_and_work_in_progress_stay(dataset: Dataset):
    dataset.commit(images(1), "Pushed", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main")
    dataset.commit(images(2), "Not pushed", old=True)
    dataset.commit(images(3), "On top", old=True)
    (dataset.project.folder / "data/raw/cat/4.png").write_text("4")
    dataset.project("dvc", "add", "--quiet", "data/raw")
    dataset.project("git", "stash", "--quiet")
    dataset.project("dvc", "checkout", "--force", "data/raw.dvc")
    (dataset.project.folder / "data/raw/cat/5.png").write_text("5")
    dataset.project("dvc", "add", "--quiet", "data/raw")
    before = dataset.here()
    said = dataset.gc("--workspace", "--yes")
    assert len(before.keys() - dataset.here().keys()) == 2  # 1 and its list
    assert "not pushed" in row(said, "HEAD") + row(said, "main") + row(said, "not pushed")
    assert row(said, "working tree")
    assert row(said, "stash")


def test_options_say_what_to_keep_as_those_of_dvc_gc(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    project = dataset.project
    for number in range(1, 6):
        when = f"{OLD[:-1]}{number}" if number < 4 else ""
        project("git", "commit", "--quiet", "--allow-empty", "--message", str(number), **dict.fromkeys(DATES, when))
    commits = project("git", "rev-list", "--reverse", "--max-count=5", "HEAD").split()
    project("git", "tag", "--annotate", "--message", "First", "v1", commits[0])
    project("git", "push", "--quiet", "origin", "main")
    monkeypatch.chdir(project.folder)

    def kept(*options: str) -> list[int]:
        rules = gc.rules_of(gc.parser().parse_args(options))
        found = {version.commit for version in kept_versions.select(rules, kept_versions.all_versions())}
        return [number for number, commit in enumerate(commits, 1) if commit in found]

    assert kept() == [1, 4, 5]
    assert kept("-w") == [5]
    assert kept("-T") == [1, 5]
    assert kept("-a", "-n", "2") == [4, 5]
    assert kept("-n", "3") == [1, 3, 4, 5]
    assert kept("-A") == [1, 2, 3, 4, 5]
    assert kept("--rev", commits[2], "--rev", "v1") == [1, 3, 5]
    assert kept("--date", "2024-01-01") == [1, 2, 3, 4, 5]
    assert kept("--days", "1") == [4, 5]
    with pytest.raises(git.GitError, match="bad revision 'nonsense'"):
        kept("--rev", "nonsense")


def test_nothing_goes_where_it_cannot_be_told_what_a_kept_version_needs(dataset: Dataset):
    lost = dataset.commit(images(1), "Lost", old=True)
    dataset.project("git", "tag", "lost")
    dataset.commit(images(2), "Dropped", old=True)
    dataset.commit(images(3), "Kept", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main", "lost")
    md5 = dataset.project("git", "show", f"{lost}:data/raw.dvc").split("md5: ")[1].split()[0]
    (dataset.project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).unlink()
    assert "Nothing was removed" in dataset.gc()  # the bucket has it
    dataset.server.client().delete_object(Bucket=dataset.bucket, Key=f"data/files/md5/{md5[:2]}/{md5[2:]}")
    before = dataset.there()
    assert f"Skipped: it cannot be told what {lost[:9]} of 2024-05-01 needs" in dataset.gc("--date", "2024-01-01")
    assert f"cannot be told what lost ({lost[:9]}) needs" in dataset.gc("--yes", "--cloud", ok=False)
    assert dataset.there() == before
    said = dataset.gc("--yes", "--cloud", "--skip-failed")
    assert "Skipped: it cannot be told what lost" in said
    assert len(before.keys() - dataset.there().keys()) == 2
    dataset.project.write("dvc.lock", "stages: [")
    dataset.project("git", "add", "dvc.lock")
    dataset.project("git", "commit", "--quiet", "--message", "Damaged")
    dataset.project("git", "tag", "damaged")
    dataset.project("git", "reset", "--quiet", "--hard", "HEAD~1")  # which names the same images
    assert "needs: dvc.lock is damaged" in dataset.gc("--yes", ok=False)
    dataset.project("git", "tag", "--delete", "damaged")
    dataset.project.write("data/raw.dvc", "outs: [")
    assert "cannot be told what is in use here" in dataset.gc(ok=False)


def test_a_folder_that_dvc_does_not_keep_in_its_cache_is_not_missed(dataset: Dataset):
    dataset.project.write(
        "dvc.yaml", "stages:\n  a:\n    cmd: mkdir out && touch out/x\n    outs: [out: {cache: false}]\n"
    )
    dataset.project("dvc", "repro", "--quiet")
    dataset.project("git", "add", "--force", "dvc.lock", "dvc.yaml", "out")
    dataset.commit(images(1), "With such a stage", old=True)
    assert ".dir" in dataset.project("git", "show", "HEAD:dvc.lock")
    assert "Nothing is to go" in dataset.gc()


def test_a_bucket_that_does_not_answer_is_left_alone(dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    dataset.commit(images(1), "First", old=True)
    dataset.commit(images(2), "Second", old=True)
    dataset.project("git", "push", "--quiet", "origin", "main")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = dataset.gc()
    assert "The bucket was not looked at: no S3 answers at http://127.0.0.1:1" in said
    assert "no S3 answers" in dataset.gc("--yes", "--cloud", ok=False)
    assert len(dataset.here()) == 4
    dataset.gc("--yes", "-w")
    assert len(dataset.here()) == 2
