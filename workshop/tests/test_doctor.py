"""`python3 run.py doctor`: each thing that goes wrong in practice is made to go wrong, and is found with its fix."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import REPOSITORY, Project, add_pictures, aws_variables
from test_run import run_py

from imagepack.commands import s3
from imagepack.commands.doctor import CHECKS

pytestmark = pytest.mark.slow
BUCKET = "doctor"


@pytest.fixture(scope="module")
def healthy(new_project: Callable[[], Project], s3_server: s3.Server) -> Project:
    """A dataset that is run, pushed and committed, with hooks and an origin; not to be changed."""
    project = new_project()
    s3_server.client().create_bucket(Bucket=BUCKET)
    add_pictures(project.folder / "data/raw", 12, "cat")
    add_pictures(project.folder / "data/raw", 12, "dog", first=12)
    project("dvc", "remote", "modify", "s3", "url", f"s3://{BUCKET}/data")
    project("dvc", "add", "data/raw")
    project("dvc", "repro")
    project.commit("First version")
    project("git", "init", "--quiet", "--bare", str(project.folder / ".git/origin.git"))
    project("git", "remote", "add", "origin", ".git/origin.git")
    project("python", "-m", "imagepack.commands.hooks")
    project("git", "push", "--quiet", "origin", "main", **aws_variables(s3_server))
    return project


@pytest.fixture
def project(healthy: Project, s3_server: s3.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of it, and the environment of its owner."""
    for name, value in aws_variables(s3_server).items():
        monkeypatch.setenv(name, value)
    shutil.copytree(healthy.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


def doctor(project: Project, *options: str, ok: bool = True, **environment: str) -> dict[str, str]:
    """What it says, by check; levels and further lines are kept. Every check has its say, and no keys are said."""
    output = project("python", "-m", "imagepack.commands.doctor", *options, ok=ok, **environment)
    assert "Traceback" not in output
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        assert os.environ[name] not in output
    found: dict[str, str] = {}
    for line in output.split("\n\n")[0].splitlines():
        level, said = line[:8].strip(), line[9:]
        name = said.split(":")[0]
        if level in ("ok", "hint", "problem") and name in CHECKS:
            found[name] = f"{found.get(name, '')}{level} {said.removeprefix(f'{name}: ')}\n"
        elif not line[:9].strip():
            found[list(found)[-1]] += f"{said}\n"
    assert list(found) == list(CHECKS), output
    return found


def test_all_is_well_with_a_dataset_that_is_pushed_and_committed(project: Project):
    for options in ((), ("--deep",)):
        found = doctor(project, *options)
        assert all(text.startswith("ok ") for text in found.values()), found
        assert "can be read and written" in found["remote"]
        assert "of 1 version are on the remote" in found["pushed"]
    assert project("git", "status", "--porcelain") == ""


def test_a_rule_that_hides_data_from_dvc_is_named(project: Project):
    """With the first `dvc checkout` deletes data/raw; with the second data/raw.dvc lacks images that packs have."""
    rules = (project.folder / ".gitignore").read_text(encoding="utf-8")
    project.write(".gitignore", f"{rules}data/\n")
    line = rules.count("\n") + 1
    hidden = f"data/raw.dvc is hidden by line {line} of .gitignore (data/), so that dvc checkout deletes data/raw"
    assert f"problem {hidden}" in doctor(project, ok=False)["hidden"]
    assert hidden in project("python", "-m", "imagepack.commands.run", ok=False)
    project.write(".gitignore", rules)
    project.write("data/.dvcignore", "img1.*\n")
    hidden = "DVC leaves out data/raw/cat/img1.png: have the rule (python3 run.py -- dvc check-ignore --details"
    assert f"problem {hidden}" in doctor(project, ok=False)["hidden"]
    assert hidden in project("python", "-m", "imagepack.commands.run", ok=False)
    (project.folder / "data/.dvcignore").unlink()
    own = (project.folder / ".dvcignore").read_text(encoding="utf-8")
    project.write(".dvcignore", f"{own}img1.*\n")
    assert "hint files of data/raw that .dvcignore keeps out of the dataset: 1" in doctor(project)["hidden"]
    project.write(".dvcignore", f"{own}*.png\n")
    hidden = "DVC leaves out data/processed/cat/1.jpg.png, which the stages write, by .dvcignore:"
    assert f"problem {hidden}" in doctor(project, ok=False)["hidden"]
    assert hidden in project("python", "-m", "imagepack.commands.dvc", "repro", ok=False)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_a_pipe_for_which_dvc_would_wait_is_named(project: Project):
    os.mkfifo(project.folder / "data/raw/cat/pipe.png")
    found = doctor(project, ok=False)
    assert "problem DVC cannot store what is in data/raw: data/raw/cat/pipe.png: is a pipe" in found["file system"]
    assert "not looked at" in found["pipeline"]


def test_the_launcher_has_it():
    assert "python3 run.py doctor" in run_py(REPOSITORY, "--help")


def test_git_that_is_missing_or_does_not_know_who_commits(project: Project):
    home = {"HOME": str(project.folder), "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": str(project.folder)}
    for key in ("name", "email"):
        project("git", "config", "--unset", f"user.{key}")
    assert "git does not know your name and email" in doctor(project, ok=False, **home)["git"]
    shutil.rmtree(project.folder / ".git")
    found = doctor(project, ok=False, GIT_CEILING_DIRECTORIES=str(project.folder.parent), **home)
    assert found["git"].startswith("problem this is no git repository: git init")
    assert found["remote"] == found["cache"] == "hint not looked at, since this is no git repository\n"


def test_params_that_are_wrong_or_gone(project: Project):
    text = (project.folder / "params.yaml").read_text(encoding="utf-8")
    project.write("params.yaml", text.replace("  size: 128", "  size: 64"))
    found = doctor(project)
    assert "hint stale: " in found["pipeline"]
    assert "preprocess" in found["pipeline"]
    assert "hint not committed: params.yaml" in found["commits"]
    project.write("params.yaml", text.replace("  size: 128", "  sise: 128"))
    assert "did you mean size?" in doctor(project, ok=False)["params"]
    (project.folder / "params.yaml").unlink()
    assert doctor(project, ok=False)["params"].startswith("problem")


def test_a_server_that_stops(project: Project, tmp_path: Path):
    server = s3.start("image-dataset", tmp_path / "s3", port=s3.free_ports(1)[0])
    try:
        project("dvc", "remote", "modify", "s3", "url", s3.TEMPLATE_URL)
        project.write(
            ".dvc/config.local",
            f"['remote \"s3\"']\nendpointurl = {server.endpoint}\naccess_key_id = {server.access_key}\n"
            f"secret_access_key = {server.secret_key}\n",
        )
        found = doctor(project, ok=False)
        assert "can be read and written" in found["remote"]
        assert "who clones from origin cannot pull from it" in found["teammates"]
        assert "problem " in found["pushed"]
        assert re.search(
            r"problem the remote lacks \d+ files of data of .*: python3 run.py doctor --push", found["pushed"]
        )
        assert doctor(project, "--push", ok=False)["pushed"].startswith("ok all ")
        project("git", "remote", "remove", "origin")
        assert doctor(project)["teammates"].startswith("hint the remote is the local S3 of this machine: set a bucket")
    finally:
        s3.stop(tmp_path / "s3")
    found = doctor(project, ok=False)
    assert f"problem no S3 answers at {server.endpoint}: start it with python3 run.py s3 start" in found["remote"]
    assert found["pushed"].startswith("hint not looked at")
    assert found["cache"].startswith("ok")


def test_keys_and_buckets_that_are_wrong(project: Project, tmp_path: Path):
    assert "refuses these keys for the bucket" in doctor(project, ok=False, AWS_SECRET_ACCESS_KEY="no")["remote"]
    none = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}
    assert (
        "there are no keys"
        in doctor(project, ok=False, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", **none)["remote"]
    )
    project("dvc", "remote", "modify", "s3", "url", "s3://no-such-bucket/data")
    assert "there is no bucket no-such-bucket" in doctor(project, ok=False)["remote"]
    project.write(
        ".dvc/config.local",
        f"['remote \"s3\"']\naccess_key_id = {s3.OUR_KEY}1\nsecret_access_key = b\n",
    )
    assert "still has the local S3's address and keys" in doctor(project, ok=False)["remote"]
    project.write(".dvc/config.local", "")
    project("dvc", "remote", "remove", "s3")
    assert "none is set" in doctor(project, ok=False)["remote"]


def test_a_server_that_never_answers_is_not_waited_for(project: Project):
    code = (
        "import socket, time\ns = socket.create_server(('127.0.0.1', 0))\n"
        "print(s.getsockname()[1], flush=True)\ntime.sleep(99)"
    )
    deaf = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert deaf.stdout
    try:
        port = deaf.stdout.readline().strip()
        found = doctor(project, ok=False, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
        assert f"problem no S3 answers at http://127.0.0.1:{port}" in found["remote"]
        project("git", "remote", "set-url", "origin", f"git://127.0.0.1:{port}/x.git")
        found = doctor(project)["pushed"]  # goes by what git last saw there
        assert found.startswith("ok all ")
    finally:
        deaf.kill()
        deaf.communicate()


def test_keys_that_may_read_alone(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    both = {"name": "owner", "credentials": [{"accessKey": "owner", "secretKey": "pass1"}], "actions": ["Admin"]}
    one = {"name": "mate", "credentials": [{"accessKey": "mate", "secretKey": "pass2"}], "actions": ["Read", "List"]}
    (tmp_path / "s3.json").write_text(json.dumps({"identities": [both, one]}))
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/weed").write_text(f'#!/bin/sh\nexec {weed} "$@" -s3.config={tmp_path / "s3.json"}\n')
    (tmp_path / "bin/weed").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    server = s3.start(BUCKET, tmp_path / "s3", port=s3.free_ports(1)[0])
    try:
        at = {"AWS_ENDPOINT_URL": server.endpoint}
        owner = {**at, "AWS_ACCESS_KEY_ID": "owner", "AWS_SECRET_ACCESS_KEY": "pass1"}
        assert "ok all " in doctor(project, "--push", **owner)["pushed"]
        mate = {**at, "AWS_ACCESS_KEY_ID": "mate", "AWS_SECRET_ACCESS_KEY": "pass2"}
        found = doctor(project, **mate)
        assert "hint s3://doctor/data can be read and not written: these keys can pull, and not push" in found["remote"]
        assert found["pushed"].startswith("ok all ")
    finally:
        s3.stop(tmp_path / "s3")


def test_keys_in_git(project: Project):
    project("dvc", "remote", "modify", "s3", "secret_access_key", "hunter2")
    output = project("python", "-m", "imagepack.commands.doctor", ok=False)
    assert (
        "problem  secrets: .dvc/config, which git tracks, has secret_access_key: move it to .dvc/config.local" in output
    )
    assert "hunter2" not in output
    project.commit("Oh")
    project("dvc", "remote", "modify", "--unset", "s3", "secret_access_key")
    project.commit("Gone")
    assert "hint .dvc/config once had keys (commit " in doctor(project)["secrets"]
    project("dvc", "remote", "modify", "s3", "endpointurl", "http://me:hunter2@127.0.0.1:1")
    output = project("python", "-m", "imagepack.commands.doctor", ok=False, AWS_ENDPOINT_URL="")
    assert "has an address with a password" in output
    assert "hunter2" not in output
    project.write(".dvc/config.local", "['remote \"s3\"']\n    secret_access_key = hunter2\n")
    (project.folder / ".dvc/config.local").chmod(0o644)
    assert "hint others on this machine can read the keys in .dvc/config.local" in doctor(project, ok=False)["secrets"]
    project("git", "add", "--force", ".dvc/config.local")
    assert "git tracks .dvc/config.local" in project("python", "-m", "imagepack.commands.doctor", ok=False)


def test_an_object_that_has_left_the_bucket(project: Project, s3_server: s3.Server):
    client = s3_server.client()
    keys = [found["Key"] for found in client.list_objects_v2(Bucket=BUCKET, Prefix="data/files")["Contents"]]
    client.delete_object(Bucket=BUCKET, Key=next(key for key in keys if not key.endswith(".dir")))
    found = doctor(project, ok=False)["pushed"]
    assert re.fullmatch(
        r"problem the remote lacks 1 file of data of origin main \(.{9}\): python3 run.py doctor --push\n", found
    )
    assert project("dvc", "push") == "Everything is up to date.\n"  # as docs/faults.md says
    assert doctor(project, ok=False)["pushed"] == found
    assert doctor(project, "--push")["pushed"].startswith("ok all ")
    assert doctor(project)["pushed"].startswith("ok all ")


def test_a_version_that_is_not_pushed_or_whose_git_is_ahead(project: Project):
    add_pictures(project.folder / "data/raw", 1, "cat", first=100)
    assert (
        "hint data/raw has changed since it was added: python3 run.py -- dvc add data/raw"
        in doctor(project)["pipeline"]
    )
    project("dvc", "add", "data/raw")
    assert "data/raw.dvc" in doctor(project)["commits"]
    project.commit("More")
    found = doctor(project)["pushed"]
    assert found.startswith("hint the remote lacks 2 files of data of HEAD (")
    project("git", "tag", "v2")
    project("git", "push", "--quiet", "--no-verify", "origin", "v2")
    found = doctor(project, ok=False)["pushed"]
    assert found.startswith("problem the remote lacks 2 files of data of origin v2 (")
    shutil.rmtree(project.folder / ".dvc/cache")
    found = doctor(project, ok=False)
    assert (
        "2 of them not in the cache here either: who made them runs" in found["pushed"]
        or "not in the cache" in found["pushed"]
    )
    assert "problem neither the cache nor the remote has 1 file of data (data/raw: 1)" in found["cache"]


def test_a_cache_with_less_or_other_than_it_should_have(project: Project):
    cache = project.folder / ".dvc/cache/files/md5"
    first, second = [path for path in sorted(cache.rglob("*")) if path.is_file() and path.suffix != ".dir"][:2]
    second.chmod(0o644)
    second.write_bytes(second.read_bytes()[::-1] + b"x")
    second.chmod(0o444)  # as a failing disk leaves it; what may be written to, DVC looks at itself
    assert doctor(project)["cache"].startswith("ok")
    found = doctor(project, "--deep", ok=False)
    spoilt = second.relative_to(project.folder)
    assert f"problem the cache has 1 damaged file: rm -f {spoilt}, then python3 run.py -- dvc fetch" in found["cache"]
    assert "has changed since it was added" not in found["pipeline"]
    first.unlink()
    second.unlink()
    assert "hint the cache lacks 2 of " in doctor(project)["cache"]
    listed = next(cache.rglob("*.dir"))
    listed.chmod(0o644)
    listed.write_text("nonsense")
    listed.chmod(0o444)
    assert "problem the cache has 1 damaged file" in doctor(project, ok=False)["cache"]


def test_links_into_a_cache_that_can_be_written_to(project: Project):
    project("dvc", "config", "cache.type", "hardlink")
    found = doctor(project, ok=os.geteuid() != 0)["links"]  # root may write to anything
    assert "hardlinks" in found
    assert "dvc config cache.type reflink,copy && python3 run.py -- dvc checkout --relink" in found


def test_a_disk_that_is_full(project: Project, small_disk):
    disk = small_disk(1024)
    project("dvc", "cache", "dir", "--local", str(disk / "cache"))
    (disk / "filler").write_bytes(bytes(1000 * 1024))
    found = doctor(project, ok=False)["room"]
    place = re.escape(str(disk / "cache"))
    assert re.search(f"problem 0 MiB free for {place}, one more run may write [1-9] MiB: make room", found)


def test_a_temporary_folder_that_is_full(project: Project, small_disk):
    disk = small_disk(1024)
    found = doctor(project, ok=False, TMPDIR=str(disk))["room"]
    assert f"problem 1 MiB free for {disk}, one more run may write 100 MiB: make room" in found


def test_locks_of_processes_that_were_killed(project: Project):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    raw, packed = (str(project.folder / f"data/{name}") for name in ("raw", "packed"))
    held = {"write": {packed: {"pid": gone.pid, "cmd": "dvc repro"}}, "read": {raw: [{"pid": gone.pid, "cmd": "dvc"}]}}
    project.write(".dvc/tmp/rwlock", json.dumps(held))
    assert doctor(project)["locks"].startswith("ok")
    project.write(".dvc/tmp/rwlock", json.dumps(held))
    project("dvc", "add", "data/raw")
    project("dvc", "repro", "--force", "--single-item", "pack")  # since nothing of it keeps DVC from its work
    project.write(".dvc/tmp/rwlock", json.dumps(held).replace(str(gone.pid), str(os.getpid())))
    project("dvc", "add", "data/raw", ok=False)
    assert f"hint DVC is at work (process {os.getpid()})" in doctor(project)["locks"]
    project.write(".dvc/tmp/rwlock", "{")
    assert "problem .dvc/tmp/rwlock is damaged" in doctor(project, ok=False)["locks"]
    (project.folder / ".dvc/tmp/rwlock").unlink()
    project.write(".git/index.lock", "")
    os.utime(project.folder / ".git/index.lock", (0, 0))
    assert "is left of a git that was killed" in doctor(project, ok=False)["locks"]


def test_hooks_that_are_not_there_or_do_not_work(project: Project):
    hook = project.folder / ".git/hooks/pre-push"
    newer = project.folder / "imagepack/dvc/git.py"
    newer.write_text(newer.read_text(encoding="utf-8") + "# newer\n", encoding="utf-8")
    assert "hint the hooks run other code than is here" in doctor(project)["hooks"]
    text = hook.read_text()
    hook.write_text(text.replace(Path(sys.executable).as_posix(), "/nowhere/python"))
    assert "problem git push is refused, since /nowhere/python" in doctor(project, ok=False)["hooks"]
    hook.write_text("#!/bin/sh\nexec dvc git-hook pre-push $@\n")
    assert "hint the pre-push hook pushes the data of the working tree alone" in doctor(project)["hooks"]
    hook.write_text("#!/bin/sh\necho mine\n")
    assert "hint there is another pre-push hook" in doctor(project)["hooks"]
    hook.unlink()
    assert "hint git push does not push the data: python3 run.py hooks" in doctor(project)["hooks"]
    project("git", "config", "core.hooksPath", "elsewhere")
    assert "hint git takes its hooks from elsewhere, and none pushes the data" in doctor(project)["hooks"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such names")
def test_names_that_not_every_disk_can_hold(project: Project):
    add_pictures(project.folder / "data/raw", 1, "Cat")
    assert "hint names in data/raw differ in case or accents alone" in doctor(project)["file system"]
    shutil.rmtree(project.folder / "data/raw/Cat")
    (project.folder / "data/raw/cat" / os.fsdecode(b"caf\xe9.png")).touch()
    (project.folder / "data/raw/cat" / os.fsdecode(b"CAF\xe9.png")).touch()
    found = doctor(project, ok=False)
    assert "problem DVC cannot store what is in data/raw" in found["file system"]
    assert r"cat/CAF\xe9.png, cat/caf\xe9.png" in found["file system"]
    assert [name for name, text in found.items() if "problem" in text] == ["file system"]


def test_zips_that_lie_in_data_raw(project: Project):
    raw = project.folder / "data/raw"
    project("python", "-m", "imagepack.commands.zips")
    found = doctor(project)
    assert found["zips"] == "ok 24 files in zips that can be used\n"
    assert found["file system"].startswith("ok ")
    for name, members in (("new.zip", ("bird/A.png", "bird/a.png")), ("NEW.zip", ("bird/b.png",))):
        with zipfile.ZipFile(raw / name, "w") as archive:
            for member in members:
                archive.writestr(member, b"")
    assert doctor(project)["file system"].endswith("which macOS and Windows hold for one: NEW.zip, new.zip\n")
    for name in ("cut.zip", "empty.zip"):
        (raw / name).write_bytes(b"PK")
    found = doctor(project, ok=False)["zips"].splitlines()
    assert found[0] == "problem data/raw has zips that cannot be used:"
    assert [line.split(": ")[0] for line in found[1:]] == ["  data/raw/cut.zip", "  data/raw/empty.zip"]
    assert all(line.endswith(": copy or download it again") for line in found[1:])


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("dvc.lock", lambda text: ""),
        ("dvc.lock", lambda text: text[: text.index("md5: ") + 3]),
        ("dvc.lock", lambda text: "schema: '2.0'\nstages:\n"),
        ("dvc.lock", lambda text: "\0" * len(text)),  # after a power failure
        ("data/raw.dvc", lambda text: ""),
    ],
)
def test_files_that_dvc_was_killed_while_it_wrote(project: Project, name: str, spoil: Callable[[str], str]):
    whole = (project.folder / name).read_text(encoding="utf-8")
    project.write(name, spoil(whole))
    found = doctor(project, ok=False)
    fix = f"git checkout HEAD -- {name}"
    said = f"{name} is damaged, as DVC leaves it when killed while it writes: {fix}, then python3 run.py"
    assert found["locks"] == f"problem {said}\n"
    assert not any("problem" in text or "not committed" in text for key, text in found.items() if key != "locks")
    assert project("python", "-m", "imagepack.commands.run", ok=False) == f"\n{said}\n"
    project(*fix.split())
    assert all(text.startswith("ok ") for text in doctor(project).values())


@pytest.mark.parametrize("name", ["dvc.lock", "data/raw.dvc"])
def test_a_merge_conflict_is_named(project: Project, name: str):
    whole = (project.folder / name).read_text(encoding="utf-8")
    project.write(name, f"<<<<<<< HEAD\n{whole}=======\n{whole}>>>>>>> theirs\n")
    said = f"git took {name} for merged with a merge conflict in it: "
    assert doctor(project, ok=False)["locks"].startswith(f"problem {said}")
    assert said in project("python", "-m", "imagepack.commands.run", ok=False)


def test_where_the_images_are_not_those_that_git_names(project: Project):
    version = project("git", "rev-parse", "HEAD").strip()
    add_pictures(project.folder / "data/raw", 1, "cat", first=100)
    project("python", "-m", "imagepack.commands.run")
    project.commit("More")
    (project.folder / "data/raw/cat/img100.png").unlink()  # that makes it an earlier version too, by hand
    assert "hint data/raw has changed since it was added" in doctor(project)["pipeline"]
    add_pictures(project.folder / "data/raw", 1, "cat", first=100)
    project("git", "-c", "core.hooksPath=/dev/null", "checkout", "--quiet", version)
    assert "hint data/raw is an earlier version, unchanged" in doctor(project)["pipeline"]
    shutil.copy(project.folder / "data/raw.dvc", project.folder / ".dvc/tmp/run-py-is-pulling")
    found = doctor(project)
    assert "hint data/raw is half pulled: python3 run.py goes on" in found["pipeline"]
    assert "data/raw is half pulled" in found["locks"]
    shutil.rmtree(project.folder / "data/raw")
    assert "hint data/raw is gone: python3 run.py -- dvc pull data/raw.dvc" in doctor(project)["pipeline"]


@pytest.mark.parametrize("name", ["dvc.lock", "data/raw.dvc"])
@pytest.mark.parametrize("committed", [False, True])
def test_such_a_file_that_git_does_not_have_whole_is_made_again(project: Project, name: str, committed: bool):
    whole = (project.folder / name).read_text(encoding="utf-8")
    project.write(name, "")
    project("git", *(("add",) if committed else ("rm", "--cached")), name)
    project("git", "commit", "--quiet", "--no-verify", "--message", "Without")
    assert f"writes: rm {name}, then python3 run.py" in doctor(project, ok=False)["locks"]
    (project.folder / name).unlink()
    project("python", "-m", "imagepack.commands.run")
    assert (project.folder / name).read_text(encoding="utf-8") == whole


def test_a_pipeline_that_has_not_run_or_whose_data_is_gone(project: Project):
    shutil.rmtree(project.folder / "data/raw")
    assert "hint data/raw is gone: python3 run.py -- dvc pull data/raw.dvc" in doctor(project)["pipeline"]
    (project.folder / "dvc.lock").unlink()
    assert "hint it has not run yet: python3 run.py" in doctor(project)["pipeline"]
