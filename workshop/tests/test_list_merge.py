"""Folders merged file by file: what comes of any two changes of any folder."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import Project
from dvc.repo import Repo
from dvc.utils.serialize import dumps_yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imagepack.dvc import list_merge
from imagepack.dvc.list_merge import DvcFile, ListMissing, Merge, NotMergeable

PATHS = ["cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png"]
CONTENTS = ["", "a", "bb", "cccc"]
FOLDERS = st.dictionaries(st.sampled_from(PATHS), st.sampled_from(CONTENTS))
CLASHING = st.dictionaries(st.sampled_from([*PATHS, "cat"]), st.sampled_from(CONTENTS)).filter(
    lambda files: not ("cat" in files and any(path.startswith("cat/") for path in files))
)
SIDES = st.sampled_from(["ours", "theirs"])


@settings(deadline=None)
@given(FOLDERS, FOLDERS, FOLDERS)
def test_what_one_side_changed_is_taken_and_what_both_changed_alike(base: dict, ours: dict, theirs: dict):
    merge = Merge(base, ours, theirs)
    changed = {path for path in PATHS if ours.get(path) != base.get(path) and theirs.get(path) != base.get(path)}
    assert [conflict.path for conflict in merge.conflicts] == sorted(
        path for path in changed if ours.get(path) != theirs.get(path)
    )
    for path in {*PATHS} - changed:
        side = theirs if ours.get(path) == base.get(path) else ours
        assert merge.files.get(path) == side.get(path)
    for path in changed:  # nothing of ours is lost before the user has decided
        assert merge.files.get(path) == ours.get(path)


@settings(deadline=None)
@given(FOLDERS, FOLDERS, FOLDERS)
def test_it_does_not_matter_who_merges_whom(base: dict, ours: dict, theirs: dict):
    one, other = Merge(base, ours, theirs), Merge(base, theirs, ours)
    assert [conflict.path for conflict in one.conflicts] == [conflict.path for conflict in other.conflicts]
    if not one.conflicts:
        assert one.files == other.files
        assert Merge(one.files, one.files, theirs).files == theirs  # and a second merge of the same changes nothing
        assert Merge(theirs, one.files, theirs).files == one.files


@settings(deadline=None)
@given(CLASHING, CLASHING, CLASHING, SIDES)
@example(
    {"cat/1.png": ""}, {"dog/1.png": "", "cat": ""}, {"cat/1.png": "a"}, "theirs"
)  # a choice makes a folder of a file
def test_choices_decide_every_conflict_and_leave_a_folder(base: dict, ours: dict, theirs: dict, side: str):
    """Also where a path is a file on one side and a folder on the other."""
    found = Merge(base, ours, theirs).conflicts
    merge = Merge(base, ours, theirs, {conflict.path: side for conflict in found})
    assert merge.conflicts == []
    assert not any(path.startswith(f"{other}/") for path in merge.files for other in merge.files)
    chosen = ours if side == "ours" else theirs
    for conflict in found:
        assert merge.files.get(conflict.path) == chosen.get(conflict.path)


def test_an_image_that_both_moved_is_in_both_places_and_said_to_be():
    merge = Merge({"cat/1.png": "x", "cat/2.png": "y"}, {"dog/1.png": "x"}, {"fox/1.png": "x", "fox/2.png": "y"})
    assert merge.files == {"dog/1.png": "x", "fox/1.png": "x", "fox/2.png": "y"}
    assert merge.moved_twice() == [("cat/1.png", "dog/1.png", "fox/1.png")]


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repo]:
    """A real cache of DVC's."""
    with Repo.init(str(tmp_path_factory.mktemp("repo")), no_scm=True) as repo:
        yield repo


def put(repo: Repo, content: bytes, suffix: str = "") -> str:
    """Put a file into the cache; its name there."""
    name = hashlib.md5(content).hexdigest() + suffix
    place = Path(repo.cache.local.oid_to_path(name))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(content)
    return name


def add(repo: Repo, files: dict[str, str]) -> DvcFile:
    """What `dvc add` does with such a folder."""
    listed = [{"md5": put(repo, files[path].encode()), "relpath": path} for path in sorted(files)]
    md5 = put(repo, json.dumps(listed, sort_keys=True).encode(), ".dir")
    size = sum(map(len, files.values()))
    text = f"outs:\n- md5: {md5}\n  size: {size}\n  nfiles: {len(files)}\n  hash: md5\n  path: raw\n"
    return DvcFile(text, "a version")


@settings(deadline=None, max_examples=30)
@given(FOLDERS, FOLDERS, FOLDERS, SIDES, st.booleans())
def test_the_file_is_what_dvc_add_would_write(repo: Repo, base: dict, ours: dict, theirs: dict, side: str, both: bool):
    versions = [add(repo, files) for files in (base if both else {}, ours, theirs)]
    listings = [version.listing(repo) for version in versions]
    found = Merge(*listings)
    merge = Merge(*listings, {conflict.path: side for conflict in found.conflicts})
    text = list_merge.write(repo, merge, versions[0] if both else None, *versions[1:])
    contents = {put(repo, content.encode()): content for content in CONTENTS}
    expected = add(repo, {path: contents[md5] for path, md5 in merge.files.items()})
    assert DvcFile(text, "merged").document == expected.document
    assert DvcFile(text, "merged").listing(repo) == merge.files


def test_without_a_size_that_is_not_known_it_says_none(repo: Repo):
    both_removed = [add(repo, {"cat/1.png": "gone", "cat/2.png": "a"}), *[add(repo, {"cat/2.png": "a"})] * 2]
    Path(repo.cache.local.oid_to_path(put(repo, b"gone"))).unlink()
    text = list_merge.write(repo, Merge(*[version.listing(repo) for version in both_removed]), *both_removed)
    assert "size" not in text
    assert "nfiles: 1" in text


def test_comments_and_what_one_side_changed_beside_the_files_stay(repo: Repo):
    base, ours, theirs = (add(repo, {"cat/1.png": content}) for content in ("a", "bb", "a"))
    base.out["desc"], ours.out["desc"], theirs.out["desc"] = "Cats", "Cats", "All cats"
    merge = Merge(*[version.listing(repo) for version in (base, ours, theirs)])
    merged = DvcFile(list_merge.write(repo, merge, base, ours, theirs), "merged")
    assert merged.out["desc"] == "All cats"
    assert merged.listing(repo) == ours.listing(repo)
    ours.out["desc"] = "Our cats"
    with pytest.raises(NotMergeable, match="both sides changed more of it"):
        list_merge.write(repo, merge, base, ours, theirs)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<<<<<<< ours\n", "it is not of one folder in ours"),
        ("outs:\n- md5: 0\n  path: a\n- md5: 1\n  path: b\n", "it is not of one folder in ours"),
        ("outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  hash: md5\n  path: a\n", "it is not of a folder in ours"),
        ("outs:\n- md5: 0.dir\n  path: a\n", "it is not of a folder in ours"),  # DVC 2
        ("", "it is not of one folder in ours"),
    ],
)
def test_other_dvc_files_are_left_to_git(text: str, reason: str):
    with pytest.raises(NotMergeable, match=reason):
        DvcFile(text, "ours")


def test_a_list_that_is_nowhere_is_named(repo: Repo, tmp_path: Path):
    file = add(repo, {"cat/9.png": "a"})
    Path(repo.cache.local.oid_to_path(file.info.value)).unlink()
    with repo.config.edit() as config:
        config["core"]["remote"], config["remote"]["there"] = "there", {"url": str(tmp_path)}
    with pytest.raises(ListMissing, match="the images of a version is neither in DVC's cache here nor on the remote"):
        file.listing(repo)


def commit(project: Project, files: dict[str, str], message: str) -> None:
    """Commit a folder of such a content."""
    with Repo(str(project.folder)) as repo:
        text = dumps_yaml(add(repo, files).document)
    project.write("data/raw.dvc", text)
    project("git", "add", "--force", "data/raw.dvc")
    project("git", "commit", "--quiet", "--message", message)


def folder_of(project: Project) -> dict[str, str]:
    with Repo(str(project.folder)) as repo:
        file = DvcFile((project.folder / "data/raw.dvc").read_bytes(), "here")
        return {path: Path(repo.cache.local.oid_to_path(md5)).read_text() for path, md5 in file.listing(repo).items()}


ALL = {"cat/2.png": "a", "cat/ann.png": "a", "cat/ben.png": "a"}


def merge_each_other(project: Project) -> None:
    """Ann and Ben each edit cat/1.png, merge the other's branch, and keep their own; Ben adds one more."""
    commit(project, {"cat/1.png": "first", "cat/2.png": "a"}, "First")
    for name in ("ann", "ben"):
        project("git", "checkout", "--quiet", "-b", name, "main")
        commit(project, {"cat/1.png": f"{name}'s", "cat/2.png": "a", f"cat/{name}.png": "a"}, name)
        project("git", "branch", f"{name}-1")
    for name, other in (("ann", "ben"), ("ben", "ann")):
        project("git", "checkout", "--quiet", name)
        project("git", "merge", "--no-commit", f"{other}-1", ok=False)
        commit(project, ALL | {"cat/1.png": f"{name}'s"}, f"{name} has merged {other}")
    commit(project, ALL | {"cat/1.png": "ben's", "dog/1.png": "b"}, "More of Ben's")
    project("git", "checkout", "--quiet", "ann")


@pytest.mark.slow
def test_what_two_merges_decided_in_two_ways_is_a_conflict_again(new_project: Callable[[], Project]):
    """Git then makes the version before both of two, by the driver too; what those disagree on decides for neither."""
    project = new_project()
    project("python", "-m", "imagepack.commands.hooks")
    shutil.rmtree(project.folder / ".git/hooks")  # the driver stays
    merge_each_other(project)
    printed = project("git", "merge", "--no-edit", "ben", ok=False)
    assert "data/raw.dvc is not merged by image: both sides changed cat/1.png" in printed
    assert "<<<<<<< ours" in (project.folder / "data/raw.dvc").read_text()
    project("git", "merge", "--abort")
    commit(project, ALL | {"cat/1.png": "ben's", "fox/1.png": "c"}, "Ann comes round")
    project("git", "merge", "--no-edit", "ben")
    assert folder_of(project) == ALL | {"cat/1.png": "ben's", "dog/1.png": "b", "fox/1.png": "c"}


@pytest.mark.slow
def test_without_the_driver_too(new_project: Callable[[], Project]):
    """The version before both, which git made, then has conflicts in itself."""
    project, settle = new_project(), "from imagepack.commands import unmerged; print(*unmerged.settle())"
    merge_each_other(project)
    project("git", "merge", "--no-edit", "ben", ok=False)
    assert "data/raw/cat/1.png: added by both" in project("python", "-c", settle)
    project("git", "merge", "--abort")
    commit(project, ALL | {"cat/1.png": "ben's", "fox/1.png": "c"}, "Ann comes round")
    project("git", "merge", "--no-edit", "ben", ok=False)
    assert project("python", "-c", settle).strip() == ""
    assert folder_of(project) == ALL | {"cat/1.png": "ben's", "dog/1.png": "b", "fox/1.png": "c"}
    assert "size" not in (project.folder / "data/raw.dvc").read_text()  # it is not known of a version that never was
