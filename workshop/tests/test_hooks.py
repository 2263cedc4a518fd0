"""git push with the hooks of `python3 run.py hooks`: git never goes ahead of the data."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project, add_pictures, contents

from imagepack.commands import s3

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="the PATH of these tests is that of a Unix shell"),
]
GIT = shutil.which("git") or "git"
PATH = f"{Path(GIT).parent}:/usr/bin:/bin"
"""Outside the environment, as a git GUI is."""


def connect(project: Project, endpoint: str, server: s3.Server, secret: str | None = None) -> None:
    """Tell a clone's DVC where the server is, as run.py does."""
    project.write(
        ".dvc/config.local",
        f"['remote \"s3\"']\nendpointurl = {endpoint}\naccess_key_id = {server.access_key}\n"
        f"secret_access_key = {secret or server.secret_key}\n",
    )


def add(project: Project, first: int, message: str) -> str:
    """Commit one more picture; the commit."""
    add_pictures(project.folder / "data/raw", 1, "cat", first=first)
    project("dvc", "add", "--quiet", "data/raw")
    project.commit(message)
    return project("git", "rev-parse", "HEAD").strip()


@pytest.fixture(scope="module")
def first_version(new_project: Callable[[], Project]) -> Project:
    """A clone with three images, committed; not to be changed."""
    project = new_project()
    add_pictures(project.folder / "data/raw", 3, "cat")
    project("dvc", "add", "data/raw")
    project.commit("First version")
    return project


@pytest.fixture
def bucket(s3_server: s3.Server, tmp_path: Path) -> str:
    """An empty bucket of its own, so that no test finds there what another has pushed."""
    name = f"hooks-{abs(hash(tmp_path)) % 10**12}"
    s3_server.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def project(first_version: Project, s3_server: s3.Server, bucket: str, tmp_path: Path) -> Project:
    """A copy of it with the hooks, its bucket and a bare origin."""
    shutil.copytree(first_version.folder, tmp_path / "project")
    project = Project(tmp_path / "project")
    connect(project, s3_server.endpoint, s3_server)
    move_to(project, bucket)
    project("git", "init", "--quiet", "--bare", str(tmp_path / "origin.git"))
    project("git", "remote", "add", "origin", str(tmp_path / "origin.git"))
    project("python", "-m", "imagepack.commands.hooks")
    return project


def move_to(project: Project, bucket: str) -> None:
    """Commit another remote; its keys are one's own, or DVC's configuration would be taken for the local server's."""
    project("dvc", "remote", "modify", "s3", "url", f"s3://{bucket}/data")
    local = (project.folder / ".dvc/config.local").read_text(encoding="utf-8")
    project.write(".dvc/config.local", local.replace("access_key_id", "#").replace("secret_access_key", "#"))
    project.commit("Remote")


@pytest.fixture(autouse=True)
def keys(s3_server: s3.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner of a bucket has keys in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)


def push(project: Project, *what: str, ok: bool = True, **environment: str) -> str:
    """`git push origin ...` without the environment on PATH."""
    return project(GIT, "push", "origin", *what, ok=ok, PATH=PATH, **environment)


def heads(project: Project) -> list[str]:
    """What the git remote has."""
    return project("git", "ls-remote", "origin").splitlines()


def pull(project: Project, server: s3.Server, folder: Path, commit: str) -> dict[str, bytes]:
    """data/raw as a teammate gets it who has no cache."""
    project("git", "clone", "--quiet", "--no-checkout", str(project.folder.parent / "origin.git"), str(folder))
    mate = Project(folder)
    mate("git", "checkout", "--quiet", commit)
    mate("dvc", "remote", "modify", "--local", "s3", "endpointurl", server.endpoint)
    mate("dvc", "pull", "data/raw")
    return contents(folder / "data/raw")


def test_every_commit_that_is_pushed_can_be_pulled(project: Project, s3_server: s3.Server, tmp_path: Path):
    commits = [add(project, number, f"Number {number}") for number in (10, 11)]
    project("git", "rm", "--quiet", "data/raw.dvc")
    project.commit("No data")  # the tip needs none of it
    assert "pre-push:" in push(project, "main")
    for number, commit in enumerate(commits):
        pulled = pull(project, s3_server, tmp_path / f"mate{number}", commit)
        assert set(pulled) == {f"cat/img{i}.png" for i in [0, 1, 2, 10, 11][: 4 + number]}
    assert "pre-push:" not in push(project, "main")


def test_while_s3_is_down_git_takes_nothing(project: Project, s3_server: s3.Server, tmp_path: Path):
    nobody = f"http://127.0.0.1:{s3.free_ports(1)[0]}"
    connect_to = ("dvc", "remote", "modify", "--local", "s3", "endpointurl")
    project(*connect_to, nobody)
    output = push(project, "main", ok=False)
    assert f"pre-push: no S3 answers at {nobody}: check the address and the network" in output
    assert "nothing was pushed to git" in output
    assert heads(project) == []
    project(*connect_to, s3_server.endpoint)
    push(project, "main")
    assert len(pull(project, s3_server, tmp_path / "mate", "main")) == 3


def test_without_keys_or_bucket_git_takes_nothing(project: Project):
    assert "refuses these keys for the bucket" in push(project, "main", ok=False, AWS_SECRET_ACCESS_KEY="wrong")
    project("dvc", "remote", "modify", "s3", "url", "s3://no-such-bucket/data")
    project.commit("Elsewhere")
    assert "there is no bucket no-such-bucket" in push(project, "main", ok=False)
    project.write(".dvc/config.local", "")
    project("dvc", "remote", "remove", "s3")
    project.commit("Nowhere")
    assert "no DVC remote is set: dvc remote add --default" in push(project, "main", ok=False)
    assert heads(project) == []


def test_another_branch_and_a_tag_are_pushed_with_their_data(project: Project, s3_server: s3.Server, tmp_path: Path):
    project("git", "checkout", "--quiet", "-b", "other")
    add(project, 20, "Other")
    project("git", "tag", "--annotate", "v1", "--message", "One")
    add(project, 21, "After the tag")
    project("git", "checkout", "--quiet", "main")
    push(project, "v1")
    assert len(pull(project, s3_server, tmp_path / "tag", "v1")) == 4
    push(project, "other")
    assert len(pull(project, s3_server, tmp_path / "other", "other")) == 5


def test_a_branch_goes_to_the_remote_that_it_names(project: Project, s3_server: s3.Server, bucket: str, tmp_path: Path):
    project("git", "checkout", "--quiet", "-b", "moved")
    s3_server.client().create_bucket(Bucket=f"{bucket}-2")
    project("dvc", "remote", "modify", "s3", "url", f"s3://{bucket}-2/data")
    project.commit("Moved")
    project("git", "checkout", "--quiet", "main")
    push(project, "moved")
    assert len(pull(project, s3_server, tmp_path / "mate", "moved")) == 3


def test_data_that_is_nowhere_is_named(project: Project):
    commit = add(project, 30, "Lost")
    shutil.rmtree(project.folder / ".dvc/cache")
    output = push(project, "main", ok=False)
    assert "files of data are neither in DVC's cache here nor on the remote" in output
    assert f"data/raw of {commit[:9]}: " in output
    assert heads(project) == []
    project(GIT, "push", "--no-verify", "--quiet", "origin", "main", PATH=PATH)
    assert heads(project)


def test_data_of_an_earlier_commit_that_is_nowhere_is_named_and_left_out(
    project: Project, s3_server: s3.Server, tmp_path: Path
):
    """As in a clone whose history has data of somebody else's: nobody who pushes it could mend that."""
    earlier = add(project, 30, "Lost")
    shutil.rmtree(project.folder / ".dvc/cache")
    (project.folder / "data/raw/cat/img30.png").unlink()
    add(project, 31, "Here")
    output = push(project, "main")
    assert "files of data are neither in DVC's cache here nor on the remote, of earlier commits:" in output
    assert f"data/raw of {earlier[:9]}: " in output
    assert len(pull(project, s3_server, tmp_path / "mate", "main")) == 4


def test_an_object_that_has_left_the_bucket_is_pushed_again(
    project: Project, s3_server: s3.Server, bucket: str, tmp_path: Path
):
    push(project, "main")
    client = s3_server.client()
    listed = [found["Key"] for found in client.list_objects_v2(Bucket=bucket)["Contents"]]
    client.delete_object(Bucket=bucket, Key=next(key for key in listed if not key.endswith(".dir")))
    assert "Everything is up to date" in project("dvc", "push")  # why this is not left to DVC
    project("git", "commit", "--quiet", "--allow-empty", "--message", "Words")
    assert "pre-push: 1 file of data pushed" in push(project, "main")
    assert len(pull(project, s3_server, tmp_path / "mate", "main")) == 3


def test_deletions_and_what_is_there_already_are_left_to_git(project: Project):
    push(project, "main", "main:gone", "main:refs/tags/old")
    project("dvc", "remote", "modify", "--local", "s3", "endpointurl", "http://127.0.0.1:9")
    push(project, "--delete", "gone", "old")
    assert [line.split("\t")[1] for line in heads(project)] == ["refs/heads/main"]
    assert "up-to-date" in push(project, "main")


def test_experiments_are_pushed(project: Project, s3_server: s3.Server, tmp_path: Path):
    push(project, "main")
    project.write("dvc.yaml", "stages:\n  one:\n    cmd: echo ${x} > one.txt\n    params: [x]\n    outs: [one.txt]\n")
    project.write("params.yaml", "x: 1\n")
    project.commit("A stage")
    project("dvc", "exp", "run", "--quiet", "--name", "small", "--set-param", "x=2")
    assert "Pushed" in project("dvc", "exp", "push", "origin", "small")
    ref = next(line for line in heads(project) if line.endswith("small"))
    assert ref
    project("dvc", "exp", "run", "--quiet", "--name", "large", "--set-param", "x=3")
    name = project("git", "for-each-ref", "--format=%(refname)", "refs/exps/**/large").split()[0]
    assert "of data pushed" in push(project, name)
    mate = tmp_path / "mate"
    project("git", "clone", "--quiet", str(tmp_path / "origin.git"), str(mate))
    Project(mate)("git", "fetch", "--quiet", "origin", name)
    Project(mate)("git", "checkout", "--quiet", "FETCH_HEAD")
    Project(mate)("dvc", "remote", "modify", "--local", "s3", "endpointurl", s3_server.endpoint)
    Project(mate)("dvc", "pull", "one.txt")
    assert (mate / "one.txt").read_text() == "3\n"


def test_a_linked_working_tree_pushes_what_another_has(project: Project, s3_server: s3.Server, tmp_path: Path):
    project("git", "checkout", "--quiet", "-b", "other")
    add(project, 40, "Other")
    tree = tmp_path / "tree"
    subprocess.run([GIT, "worktree", "add", "--quiet", str(tree), "main"], cwd=project.folder, capture_output=True)
    linked = Project(tree)
    push(linked, "other")
    assert len(pull(project, s3_server, tmp_path / "mate", "other")) == 4
    linked("python", "-m", "imagepack.commands.hooks")
    (tree / "imagepack/commands/pre_push.py").unlink()  # as in a working tree of an older version
    push(linked, "main")


def test_a_running_dvc_does_not_keep_git_from_pushing(project: Project):
    code = "import time; from dvc.repo import Repo\nwith Repo().lock: print('locked', flush=True); time.sleep(100)"
    holder = subprocess.Popen([sys.executable, "-c", code], cwd=project.folder, stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline()
    try:
        push(project, "main")
    finally:
        holder.kill()
        holder.communicate()


def test_hooks_run_no_code_of_the_branch_that_is_checked_out(project: Project, s3_server: s3.Server, tmp_path: Path):
    """A branch may be anybody's: theirs comes to run by `git fetch`, checkout and push alone."""
    ran = tmp_path / "ran"
    project("git", "checkout", "--quiet", "-b", "theirs")
    code = f"open({str(ran)!r}, 'a').write(__name__)\n"
    for name in ("imagepack/commands/pre_push", "imagepack/commands/__init__", "imagepack/__init__"):
        project.write(f"{name}.py", code)
    for name in ("dvc", "sitecustomize", "runpy", "run"):
        project.write(f"{name}.py", code)
    head = add(project, 600, "Theirs")
    project(GIT, "checkout", "--quiet", "main", PATH=PATH)
    project(GIT, "checkout", "--quiet", "theirs", PATH=PATH, PYTHONPATH=str(project.folder))
    assert "of data pushed" in push(project, "theirs", PYTHONPATH=str(project.folder))
    assert head in "".join(heads(project))
    assert not ran.exists()


def test_hooks_of_others_are_left_alone(project: Project, tmp_path: Path):
    hooks = project.folder / ".git/hooks"
    assert "Installed" in project("python", "-m", "imagepack.commands.hooks")  # once more
    mine = "#!/bin/sh\necho mine\n"
    (hooks / "pre-push").write_text(mine)
    (hooks / "post-checkout").write_text("#!/bin/sh\nexec dvc git-hook post-checkout $@\n")  # `dvc install` wrote it
    output = project("python", "-m", "imagepack.commands.hooks", ok=False)
    assert "has a pre-push that is not ours: left as it is" in output
    assert (hooks / "pre-push").read_text() == mine
    assert "by python3 run.py hooks" in (hooks / "post-checkout").read_text()
    line = next(line for line in output.splitlines() if line.startswith("  pre-push: ")).removeprefix("  pre-push: ")
    (hooks / "pre-push").write_text(f"{mine}{line}\n")
    assert "mine" in push(project, "main", ok=False, AWS_SECRET_ACCESS_KEY="wrong")
    assert heads(project) == []

    (tmp_path / "shared").mkdir()
    project("git", "config", "core.hooksPath", str(tmp_path / "shared"))
    assert "core.hooksPath" in project("python", "-m", "imagepack.commands.hooks", ok=False)
    assert list((tmp_path / "shared").iterdir()) == []


def test_a_hook_whose_environment_is_gone_refuses(project: Project):
    hook = project.folder / ".git/hooks/pre-push"
    hook.write_text(hook.read_text().replace(Path(sys.executable).as_posix(), "/nowhere/python"))
    assert "/nowhere/python is gone; nothing was pushed" in push(project, "main", ok=False)
    assert heads(project) == []
