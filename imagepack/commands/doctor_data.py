"""Checks of `python3 run.py doctor` of the data: the remote, what is pushed, the cache, the pipeline."""

import os
import secrets
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from imagepack.commands import s3, unseen_files
from imagepack.commands.doctor_case import HINT, OK, PROBLEM, RAW, TOOL, Case, Findings, some
from imagepack.dvc import git, lock_files, objects, raw_data, repository
from imagepack.dvc.cache import md5
from imagepack.dvc.objects import Objects
from imagepack.dvc.remotes import TooSlow, in_time
from imagepack.dvc.repository import Out
from imagepack.errors import InputError
from imagepack.names import counted

VERSIONS = 20
"""Branches and tags whose data is looked for, the newest."""
NOT_LOOKED = "not looked at, since the remote cannot be used"
NOT_READ = "not looked at, since DVC's files are damaged: see locks"
FIX_PUSH, FIX_DEEP_PUSH = "python3 run.py doctor --push", "python3 run.py doctor --deep --push"


def remote(case: Case) -> Findings:
    """A default remote that answers, takes the keys, and can be read and written."""
    found = case.remote
    if not found:
        yield PROBLEM, f"none is set: {TOOL} {s3.SET_REMOTE}"
        return
    if reason := s3.fault(found):
        yield PROBLEM, reason
        return
    try:
        level, text = in_time(_write_and_read, case)
    except TooSlow as slow:
        yield PROBLEM, f"{found['url']}: {slow}: check the address and the network"
        return
    except FileNotFoundError:
        yield PROBLEM, f"{found['url']} cannot be written: check that its bucket or folder exists"
        return
    case.remote_works = True
    yield level, f"{found['url']} {text}"


def _write_and_read(case: Case) -> tuple[str, str]:
    store = case.repo.cloud.get_remote()
    path = store.fs.join(store.path, f"doctor-{secrets.token_hex(8)}")
    sent = b"python3 run.py doctor wrote this, and may be removed"
    try:
        store.fs.makedirs(store.path, exist_ok=True)
        store.fs.fs.pipe_file(path, sent)
    except PermissionError:
        store.fs.exists(path)  # raises where that is refused too
        return HINT, "can be read and not written: these keys can pull, and not push"
    try:
        if store.fs.fs.cat_file(path) != sent:
            return PROBLEM, "gives back other bytes than it was given"
    except PermissionError:
        return PROBLEM, "can be written and not read: ask for keys that may read (on S3, s3:GetObject)"
    try:
        store.fs.remove(path)
    except PermissionError:
        return OK, f"can be read and written; removing is refused, so {path} stays"
    return OK, "can be read and written"


def teammates(case: Case) -> Findings:
    """That those who clone from the git remote can reach the data."""
    found, shared = case.remote, git.lines("remote")
    is_local = found and found["url"] == s3.TEMPLATE_URL and found.get("access_key_id", s3.OUR_KEY)[: len(s3.OUR_KEY)]
    if is_local != s3.OUR_KEY:
        yield OK, "the remote is no server of this machine alone" if found else "there is no remote to share"
    elif not shared:
        yield (
            HINT,
            "the remote is the local S3 of this machine: set a bucket before you share "
            "(README.md, Your images and your bucket)",
        )
    else:
        known = _known_to_git_remotes(case)
        has_data = any(git.text("cat-file", "-e", f"{tip}:./data/raw.dvc") is not None for tip in known)
        fix = f"{TOOL} dvc remote modify s3 url s3://my-bucket/my-dataset, then dvc push"
        yield (
            PROBLEM if has_data else HINT,
            f"the remote is the local S3 of this machine, and who clones from {shared[0]} cannot pull from it: {fix}",
        )


def _known_to_git_remotes(case: Case) -> dict[str, str]:
    """The newest commits that branches and tags of the git remotes are set to and that are here: hash and names."""
    names: dict[str, list[str]] = {}
    for remote_name, refs in case.git_remotes.items():
        for tip, ref in refs:
            short = (
                ref.removeprefix("refs/heads/").removeprefix("refs/tags/").removeprefix(f"refs/remotes/{remote_name}/")
            )
            commit = git.text("rev-parse", "--verify", "--quiet", f"{tip}^{{commit}}")
            if commit and not short.endswith("^{}"):
                names.setdefault(commit, []).append(f"{remote_name} {short}")
    if not names:
        return {}
    newest = git.lines("rev-list", "--no-walk", *names)
    return {commit: some(names[commit]) for commit in newest[:VERSIONS]}


def pushed_versions(case: Case) -> Findings:
    """That all objects of HEAD and of what the git remotes have are on the DVC remote."""
    if bucket := lock_files.changed_beside_bucket(lock_files.here(lock_files.RAW_DVC)):
        yield (
            PROBLEM,
            f"{RAW} has other files than {bucket}, where DVC leaves them, and DVC pushes none of these: put them "
            f"there and {TOOL} dvc update {lock_files.RAW_DVC}, or go over to a {RAW} of your own (docs/import.md)",
        )
    if not case.remote_works:
        yield HINT, NOT_LOOKED
        return
    versions = _known_to_git_remotes(case)
    ahead = set(versions)  # of the data, if that is not there
    head = git.text("rev-parse", "--verify", "--quiet", "HEAD")
    if head and head not in versions:
        if versions and not git.lines("rev-list", "--max-count=1", head, "--not", *versions):
            ahead.add(head)
        versions = {head: "HEAD"} | versions
    tracked = _tracked(case, versions)
    wanted = objects.objects(case.repo, {out for outs in tracked.values() for out in outs})
    lacking = objects.not_on_remotes(case.repo, wanted)
    if case.push:
        lacking = {name: objects.upload(case.repo, name, infos) if infos else {} for name, infos in lacking.items()}
    total = sum(map(len, wanted.values()))
    yield from _damaged_there(case, wanted) if case.deep else []
    if not any(lacking.values()):
        yield OK, f"all {total} files of {counted(len(versions), 'version')} are on the remote"
    for commit, outs in tracked.items():
        missing = _missing_of(case, outs, lacking)
        if not missing:
            continue
        nowhere = len(objects.not_in_cache(case.repo, missing))
        text = f"the remote lacks {counted(len(missing), 'file')} of data of {versions[commit]} ({commit[:9]})"
        if nowhere:
            yield PROBLEM, f"{text}, {nowhere} of them not in the cache here either: who made them runs {FIX_PUSH}"
        else:
            yield (PROBLEM if commit in ahead else HINT), f"{text}: {FIX_PUSH}"


def _damaged_there(case: Case, wanted: dict[str | None, Objects]) -> Findings:
    """Objects of the remote that are not what they are called; with `push`, put there again from the cache."""
    damaged = {name: objects.damaged_on_remote(case.repo, name, infos) for name, infos in wanted.items()}
    if case.push and (before := sum(map(len, damaged.values()))):
        damaged = {name: objects.replace(case.repo, name, infos) for name, infos in damaged.items()}
        yield OK, f"{counted(before - sum(map(len, damaged.values())), 'file')} put there again"
    if number := sum(map(len, damaged.values())):
        names = [info.value for infos in damaged.values() for info in infos]
        fix = f"{FIX_DEEP_PUSH}, where the cache has {'it' if number == 1 else 'them'} whole"
        yield PROBLEM, f"the remote has {counted(number, 'damaged file')} ({some(names)}): {fix}"


def _tracked(case: Case, versions: dict[str, str]) -> dict[str, list[Out]]:
    """What each version tracks; versions with the same DVC files are read once."""
    read: dict[str, list[Out]] = {}
    found = {}
    for commit in versions:
        files = [
            line
            for line in git.lines("ls-tree", "-r", "--full-tree", commit)
            if line.endswith((".dvc", "dvc.lock", "dvc.yaml"))
        ]
        key = "\n".join(files)
        if key not in read:
            read[key] = repository.outs(case.repo, [commit])[0]
        found[commit] = read[key]
    return found


def _missing_of(case: Case, outs: list[Out], lacking: dict[str | None, Objects]) -> Objects:
    """Those of `lacking` that a version needs."""
    if not any(lacking.values()):
        return {}
    return {
        info: out
        for name, infos in objects.objects(case.repo, outs).items()
        for info, out in infos.items()
        if info in lacking.get(name, {})
    }


def cache(case: Case) -> Findings:
    """That what this working tree says it has is in DVC's cache; with `deep`, that the cache is undamaged."""
    if case.damaged_files:
        yield HINT, NOT_READ
        return
    tracked, unreadable = repository.outs(case.repo, [])
    for line in unreadable:
        yield PROBLEM, f"DVC cannot read {line}"
    damaged = [os.path.relpath(path) for path in objects.damaged_lists(case.repo, tracked)]
    if case.deep:
        damaged = sorted({*damaged, *_damaged(Path(case.repo.cache.local.path))})
    if damaged:
        fix = f"rm -f {some(damaged)}, then {TOOL} dvc fetch"
        yield PROBLEM, f"the cache has {counted(len(damaged), 'damaged file')}: {fix}"
    spoiled = _spoiled(case, tracked) if case.deep else []
    if spoiled:
        fix = f"rm -f {some(spoiled)}, then {TOOL} dvc checkout"
        yield PROBLEM, f"{counted(len(spoiled), 'file')} changed by no program, as by a failing disk: {fix}"
    wanted = objects.objects(case.repo, tracked, ask_remote=False)
    count = sum(map(len, wanted.values()))
    missing = {name: objects.not_in_cache(case.repo, infos) for name, infos in wanted.items()}
    number = sum(map(len, missing.values()))
    lost = objects.of_all_remotes(objects.not_on_remotes(case.repo, missing)) if case.remote_works else {}
    if lost:
        where = some([f"{path}: {n}" for path, n in Counter(out.path for out in lost.values()).most_common()])
        fix = f"where the folders still hold them, {TOOL} dvc commit --force; else {TOOL} dvc repro"
        yield PROBLEM, f"neither the cache nor the remote has {counted(len(lost), 'file')} of data ({where}): {fix}"
    if number - len(lost):
        yield HINT, f"the cache lacks {number - len(lost)} of {counted(count, 'file')} of data: {TOOL} dvc pull"
    if not number and not damaged and not unreadable and not spoiled:
        yield OK, f"all {count} files of data are there{', unchanged' if case.deep else ' (--deep reads them)'}"


def _damaged(folder: Path) -> list[str]:
    """Files of a cache whose MD5 is not their name."""
    files = [path for path in folder.glob("??/*") if path.is_file() and not path.name.endswith(".unpacked")]
    found = []
    for path in tqdm(files, desc="doctor", unit="file", delay=1, disable=None):
        digest = md5(path)
        name = path.name.removesuffix(".dir")
        if len(path.parent.name + name) == 32 and digest != path.parent.name + name:
            found.append(os.path.relpath(path))
    return found


def _spoiled(case: Case, tracked: list[Out]) -> list[str]:
    """Files of the working tree whose MD5 is not what it was, though time and size are: DVC does not see them."""
    places = [Path(out.path) for out in tracked]
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*")))]
    found = []
    for path in tqdm([path for path in files if path.is_file()], desc="doctor", unit="file", delay=1, disable=None):
        known = repository.known_md5(case.repo, path)
        if known and md5(path) != known:
            found.append(str(path))
    return found


def pipeline(case: Case) -> Findings:
    """That what is there was made of what is there: `dvc status`, which hashes what has changed since and no more."""
    if case.damaged_files or case.untrackable:
        yield HINT, NOT_READ if case.damaged_files else f"not looked at, since DVC cannot store what is in {RAW}"
        return
    try:
        changed = case.repo.status()
    except repository.LockError:
        yield HINT, "not looked at, since another DVC is at work"
        return
    if not lock_files.LOCK.exists():
        yield HINT, "it has not run yet: python3 run.py"
        return
    added = {name: reasons for name, reasons in changed.items() if name.endswith(".dvc")}
    for name, reasons in added.items():
        out = name.removesuffix(".dvc")
        if not Path(out).exists():
            yield HINT, f"{out} is gone: {TOOL} dvc pull {name}"
        elif out == raw_data.RAW and raw_data.is_half_pulled():
            yield HINT, f"{out} is half pulled: python3 run.py goes on"
        elif out == raw_data.RAW and raw_data.is_behind():
            yield HINT, f"git has brought another version of {out}: python3 run.py gets its images"
        elif out == raw_data.RAW and (doubt := raw_data.doubt()):
            yield HINT, doubt
        elif "not in cache" in str(reasons):
            yield HINT, f"{out} is not in DVC's cache: see there"
        else:
            yield HINT, f"{out} has changed since it was added: {TOOL} dvc add {out}, then python3 run.py"
    stale = [f"{name} ({_reason(reasons)})" for name, reasons in changed.items() if name not in added]
    if stale:
        yield HINT, f"stale: {some(stale, 4)}: python3 run.py"
    if "validate" not in changed and (fault := unseen_files.unvalidated()):
        yield PROBLEM, f"{fault}, then python3 run.py"
    elif not changed:
        yield OK, "what is there was made with these images, params and code"


def splits(case: Case) -> Findings:
    """That no image of test came into train or val since the commit whose pack was another."""
    if case.damaged_files:
        yield HINT, NOT_READ
        return
    from imagepack.compare import versions, words  # imported here, since scipy would slow the other checks
    from imagepack.compare.comparison import unpinned

    if not (commit := _earlier_pack()):
        yield OK, "no commit has another pack"
        return
    try:
        one, other = in_time(lambda: [versions.read(name, Path.cwd()) for name in (commit, None)])
    except (InputError, TooSlow) as reason:
        yield HINT, f"not looked at: {reason}"
        return
    tags = git.lines("tag", "--points-at", commit) or [commit[:9]]
    said = words.unpinned(len(unpinned(one, other)), tags[0])
    yield (HINT, said) if said else (OK, f"no unpinned image of test came into train or val since {tags[0]}")


def _earlier_pack() -> str:
    """Return the last commit whose dvc.lock names another pack than the one here; empty if there is none."""
    commits_ = git.lines("log", f"--max-count={VERSIONS}", "--format=%H", "--", str(lock_files.LOCK))
    written = git.read_files(commits_, str(lock_files.LOCK), Path.cwd()) if commits_ else []
    here = _pack_of(lock_files.here(lock_files.LOCK))
    earlier = (commit for commit, lock in zip(commits_, written, strict=True) if _pack_of(lock) not in ("", here))
    return next(earlier, "")


def _pack_of(lock: str | bytes | None) -> str:
    return next((out.md5 for out in lock_files.read_lock(lock).get("pack", lock_files.Stage()).outs), "")


def _reason(reasons: list) -> str:
    """Of DVC's reasons, the names of what has changed."""
    names = []
    for reason in reasons:
        if isinstance(reason, str):
            names.append(reason)
            continue
        for kind, found in reason.items():
            names += [f"{name} {state}" if isinstance(state, str) else name for name, state in found.items()] or [kind]
    return some(names)


def commits(case: Case) -> Findings:
    """That git has what names the data."""
    if case.damaged_files:
        yield HINT, NOT_READ
        return
    changed = git.lines("status", "--porcelain", "--", *git.DVC_FILES, "params.yaml", ".dvc/config", "reports")
    if changed:
        names = [line[3:].removeprefix(git.text("rev-parse", "--show-prefix") or "") for line in changed]
        yield HINT, f"not committed: {some(names)}: git add them and git commit"
    else:
        yield OK, "dvc.lock, .dvc files, params.yaml and reports are committed"
