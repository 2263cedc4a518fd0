"""The dataset as a folder of a larger git repository, with code and other datasets beside it."""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project, add_pictures, copy_project

from imagepack import PackedImages
from imagepack.reader.format import PackError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="git's hooks are run here with the PATH of a Unix shell"),
]
RUN, MERGE, DOCTOR, COMPARE, HOOKS = (
    ("python", "-m", f"imagepack.commands.{name}") for name in ("run", "merge", "doctor", "compare", "hooks")
)


@pytest.fixture(scope="module")
def made(new_project: Callable[[], Project], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """The repository, with a dataset in work/vision: code alone, then v1, then v2. Not to be changed."""
    top = tmp_path_factory.mktemp("larger") / "larger"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGEPACK_CACHE", str(top.parent / "cache"))
        shutil.copytree(new_project().folder, top / "work/vision", ignore=shutil.ignore_patterns(".git", "sample"))
        whole, dataset = Project(top), Project(top / "work/vision")
        whole("git", "init", "--quiet", "--initial-branch=main")
        whole("git", "config", "user.name", "Test")
        whole("git", "config", "user.email", "test@example.com")
        whole.write("code.py", "print('other code')\n")
        whole("git", "add", "code.py")
        whole("git", "commit", "--quiet", "--message", "Code")
        dataset("dvc", "remote", "add", "--default", "--force", "s3", str(top.parent / "remote"))
        for number, label in enumerate(("cat", "dog")):
            add_pictures(dataset.folder / "data/raw", 6, label, first=10 * number)
        dataset(*RUN)
        version(dataset, "v1")
        add_pictures(dataset.folder / "data/raw", 1, "cat", first=50)
        dataset(*RUN)
        version(dataset, "v2")
        yield dataset


def version(dataset: Project, name: str) -> None:
    dataset.commit(name)
    dataset("git", "tag", name)


@pytest.fixture
def dataset(made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The dataset in a copy of the repository."""
    monkeypatch.setenv("IMAGEPACK_CACHE", str(tmp_path / "cache"))
    copy_project(Project(made.folder.parents[1]), tmp_path / "larger")
    return Project(tmp_path / "larger/work/vision")


def test_versions_are_compared_and_packs_of_any_revision_opened(made: Project):
    assert "1 added: cat/img50.png" in made(*COMPARE, "v1", "v2")
    assert "1 added: cat/img50.png" in made(*COMPARE, "v1")
    commit = made("git", "rev-parse", "v1").strip()
    top = made.folder.parents[1]
    for repo, path in ((made.folder, "data/packed"), (top, "work/vision/data/packed")):
        packed = PackedImages.at("v1", repo, path)
        assert (len(packed), packed.version["revision"]) == (12, commit)
        assert packed[0][0].shape == (128, 128, 3)
    here = PackedImages(made.folder / "data/packed").version
    assert here["revision"] == made("git", "rev-parse", "v2").strip()
    assert here["params"]["preprocess"]["size"] == 128
    assert "tag v2" in made("python", "-m", "imagepack", "whence", here["digest"])
    with pytest.raises(PackError, match="has no DVC at its top: name the folder"):
        PackedImages.at("v1", top)
    with pytest.raises(PackError, match="has no pack in data/packed"):
        PackedImages.at("v1~1", made.folder)


def test_a_pack_that_another_project_imports_knows_its_revision(made: Project, tmp_path: Path):
    other, top = Project(tmp_path / "other"), str(made.folder.parents[1])
    other.folder.mkdir()
    for command in ("git init --quiet", "git config user.name Test", "git config user.email t@example.com", "dvc init"):
        other(*command.split())
    (other.folder / "models").mkdir()
    other("dvc", "import", "--rev", "v1", "--out", "models/images", top, "work/vision/data/packed")
    other.commit("Imported")
    source = {"repo": top, "revision": made("git", "rev-parse", "v1").strip(), "params": None}
    packed = PackedImages(other.folder / "models/images")
    assert packed.version == source | {"digest": packed.digest}
    assert PackedImages.at("HEAD", other.folder, "models/images").version == packed.version
    shutil.copytree(made.folder / "data/packed", other.folder / "models/images", dirs_exist_ok=True)  # that of v2
    changed = PackedImages(other.folder / "models/images")
    assert changed.version == {"digest": changed.digest, "revision": None, "params": None}


def test_doctor_finds_nothing_and_the_hooks_push_the_data(dataset: Project, tmp_path: Path):
    top = Project(dataset.folder.parents[1])
    top("git", "init", "--quiet", "--bare", "--initial-branch=main", str(tmp_path / "origin.git"))
    top("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    dataset(*HOOKS)
    dataset.write("params.yaml", (dataset.folder / "params.yaml").read_text(encoding="utf-8") + "# mine\n")
    top.write("code.py", "print('changed')\n")
    pushed, commits = (line for line in dataset(*DOCTOR).splitlines() if line.startswith(("hint", "problem")))
    assert pushed.startswith("hint     pushed: the remote lacks ")
    assert commits == "hint     commits: not committed: params.yaml: git add them and git commit"
    outside = f"{Path(shutil.which('git') or 'git').parent}:/usr/bin:/bin"
    printed = top("git", "push", "origin", "main", "v1", "v2", PATH=outside)
    assert "of data pushed" in printed
    assert "0 hints" in dataset("git", "stash") + dataset(*DOCTOR)

    other = Project(top.folder / "other")  # a second dataset, with a remote of its own
    other.folder.mkdir()
    other("dvc", "init", "--quiet", "--subdir")
    other("dvc", "remote", "add", "--default", "here", str(tmp_path / "other-remote"))
    other.write("labels.txt", "cat")
    other("dvc", "add", "--quiet", "labels.txt")
    other.commit("Another dataset")
    assert "pre-push: 1 file of data pushed" in top("git", "push", "origin", "main", PATH=outside)
    assert [path.read_text() for path in (tmp_path / "other-remote").rglob("*") if path.is_file()] == ["cat"]

    top("git", "clone", "--quiet", str(tmp_path / "origin.git"), str(tmp_path / "mate"))
    mate = Project(tmp_path / "mate/work/vision")
    mate(*RUN)
    assert mate("git", "status", "--porcelain") == ""
    assert PackedImages(mate.folder / "data/packed").digest == PackedImages(dataset.folder / "data/packed").digest
    mate(*HOOKS)
    top = Project(tmp_path / "mate")
    top("git", "checkout", "--quiet", "v1", PATH=outside)
    assert not (mate.folder / "data/raw/cat/img50.png").exists()
    top("git", "checkout", "--quiet", "main", PATH=outside)
    assert (mate.folder / "data/raw/cat/img50.png").exists()


def test_branches_merge_by_image(dataset: Project):
    add_pictures(dataset.folder / "data/raw", 1, "cat", first=60)
    dataset("dvc", "add", "--quiet", "data/raw")
    dataset.commit("Ours")
    dataset("git", "checkout", "--quiet", "-b", "theirs", "v2")
    dataset("dvc", "checkout", "--quiet")
    add_pictures(dataset.folder / "data/raw", 1, "dog", first=70)
    dataset("dvc", "add", "--quiet", "data/raw")
    Project(dataset.folder.parents[1]).write("code.py", "print('theirs')\n")
    dataset("git", "add", "--all", ":/")
    dataset("git", "commit", "--quiet", "--message", "Theirs")
    dataset("git", "checkout", "--quiet", "main")
    dataset("dvc", "checkout", "--quiet")
    assert "Images here: 1 added, 0 edited, 0 moved, 0 removed" in dataset(*MERGE, "theirs")
    assert {path.name for path in (dataset.folder / "data/raw").rglob("img[67]*")} == {"img60.png", "img70.png"}
    assert dataset("git", "status", "--porcelain") == ""


def test_experiments_are_versions(made: Project, tmp_path: Path):
    dataset = copy_project(Project(made.folder.parents[1]), tmp_path / "larger")
    dataset = Project(dataset.folder / "work/vision")
    dataset("dvc", "exp", "run", "--quiet", "--name", "small", "--set-param", "preprocess.size=64")
    assert PackedImages.at("small", dataset.folder).shape == (64, 64, 3)
    assert "small" in dataset(*COMPARE, "--experiments")
    assert "13 unchanged" in dataset(*COMPARE, "HEAD", "small")
