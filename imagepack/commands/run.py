"""The first run and every later one: bring in data, run the pipeline, push, say what to do next."""

import json
import shutil
import sys
from pathlib import Path
from urllib.parse import urlparse

from imagepack.checks import validation_reports
from imagepack.commands import advice, report, s3, schema, unmerged, unseen_files
from imagepack.commands import dvc as dvc_command
from imagepack.dvc import cache, git, lock_files, pushed, raw_data, repository
from imagepack.engine import params
from imagepack.errors import InputError
from imagepack.images import raw_files
from imagepack.names import counted, visible, visible_lines
from imagepack.reader.format import PackError

SAMPLE, RAW, RAW_DVC = Path("data/sample/images"), Path("data/raw"), Path("data/raw.dvc")
REPORTS = Path("reports")
SHOWN = 10
TOOL = "python3 run.py --"


def main() -> int:
    """Return the exit code."""
    code = bring_up_to_date()
    if code == 0:
        summarise(s3.is_own())
    return code


def bring_up_to_date() -> int:
    """Bring in data, run the pipeline and push to the local S3; return the exit code."""
    if git.text("rev-parse") is None:
        return fail("This is no git repository: run `git init` here first.")
    if left := unmerged.settle():
        return fail("\n\n".join(left))
    if faults := lock_files.faults() + cache.unfinished_runs() + unseen_files.dvc_files() + unseen_files.outputs():
        return fail("\n".join(faults))
    try:
        params.load(Path("params.yaml"))  # DVC stops at the first fault, and does not say what was meant
    except InputError as error:
        return fail(str(error))
    if schema.write():
        print(f"{schema.FILE}: written anew, for the params of stages/; it is for editors, and git's")
    own = s3.is_own()
    if fault := reach_remote(own):
        return fail(fault)
    if not bring_in_data(own):
        return 1
    recorded = lock_files.here()
    if not dvc("repro"):
        return fail("The pipeline stopped (see above). Mend that, then: python3 run.py")
    # a look at the local S3 takes less than a push that finds nothing to do
    looks = not own and lock_files.here() == recorded
    lacking = dvc_command.lacking("cache", *["remote"] * looks)
    if fault := unseen_files.unvalidated() or lacking["cache"]:
        return fail(f"{fault}, then python3 run.py")
    if looks and not lacking["remote"]:
        print("\nThe local S3 has all of it.")
    elif not own and not dvc("push"):
        return fail(s3.explain())
    elif not own and (fault := dvc_command.lacking("remote")["remote"]):
        return fail(f"{fault}, then python3 run.py")
    try:
        report.write(Path.cwd())
    except (InputError, PackError) as error:  # of a pipeline of one's own, say
        fail(f"{report.OUT} is not written: {error}")
    return 0


def reach_remote(own: bool) -> str:
    """Start the local S3, or forget its keys where the remote is the user's own; return why that fails, or nothing."""
    try:
        if own:
            s3.forget()
        else:
            s3.tell_dvc(s3.start(urlparse(s3.TEMPLATE_URL).netloc))
    except s3.S3Error as error:
        return str(error)
    return ""


def bring_in_data(own: bool) -> bool:
    """Pull what a teammate has pushed, or track what lies in data/raw, or copy the sample there."""
    if faults := unseen_files.untrackable():
        fail("\n  ".join([f"DVC cannot store what is in {RAW}:", *faults]))
        return False
    missing = RAW_DVC.exists() and not RAW.exists()
    if missing or raw_data.is_half_pulled() or raw_data.is_behind():
        print("data/raw.dvc is here, its images are not: fetching them.")
        raw_data.begin_pull()
        if dvc("pull"):
            raw_data.end_pull()
            pushed.note()
            # a merge may not know the size of the whole
            return "size:" in lock_files.here(RAW_DVC) or dvc("add", str(RAW))
        reason = s3.explain() or (
            "Not all could be pulled (see above): whoever made this version has yet to run `dvc push`, or a file there "
            f"is damaged (docs/faults.md); or {RAW} has files that no version has: move them elsewhere, run this "
            "again, put them back."
            if own
            else f"{s3.TEMPLATE_URL} is the local S3 of the machine where this was made: set a bucket you share there "
            "(README.md, Your images and your bucket), run `dvc push` there, and run this again."
        )
        if RAW.exists():  # perhaps brought by hand meanwhile
            reason += f"\nIf {RAW} is as you want it, whatever git has: remove {raw_data.PULLING}, then python3 run.py"
        fail(reason)
        return False
    if RAW.is_symlink():
        fail(f"{RAW} is a link, which DVC does not track: move the folder itself here, or mount it (mount --bind).")
        return False
    if not RAW.exists() and SAMPLE.exists():
        shutil.copytree(SAMPLE, RAW)
        print(f"Copied the sample images to {RAW}.")
    RAW.mkdir(exist_ok=True)  # a repository without the sample, which git cloned without the empty folder
    try:
        raw_files.find_some(RAW)
        faults = unseen_files.images()
    except InputError as error:
        faults = [str(error)]
    if faults:
        fail("\n".join(faults))
        return False
    if reason := raw_data.doubt():
        fail(reason)
        return False
    return RAW_DVC.exists() or dvc("add", str(RAW))


def dvc(*arguments: str) -> bool:
    """Run DVC, showing the command; whether it succeeded."""
    if arguments[0] in ("push", "pull"):
        repository.forget_data_index()
    print(f"\n$ dvc {' '.join(arguments)}", flush=True)
    code = dvc_command.run(list(arguments))
    if code == dvc_command.INTERRUPTED:
        raise KeyboardInterrupt
    return code == 0


def summarise(own: bool) -> None:
    """Print what came out, what was rejected, where to look, and the one thing to type next."""
    found = json.loads((REPORTS / "validation.json").read_text(encoding="utf-8"))
    packed = json.loads((REPORTS / "pack.json").read_text(encoding="utf-8"))
    split = ", ".join(f"{count} {name}" for name, count in packed["split"].items() if count)
    nouns = {"classes": "class", "labels": "label", "numbers": "number"}
    said = [counted(packed[key], noun) for key, noun in nouns.items() if key in packed]
    print(
        f"\n{counted(packed['images'], 'image')} {'in' if 'classes' in packed else 'with'} {said[0]} ({split}),",
        end=" ",
    )
    print(f"packed: {packed['bytes'] / 2**20:.1f} MiB in {counted(packed['shards'], 'shard')}.")
    if found["rejected"]:
        rows = validation_reports.read_rejected(REPORTS / "rejected.csv").rows(named=True)
        print(f"{found['rejected']} of {counted(found['files'], 'file')} rejected:")
        for row in rows[:SHOWN]:
            print(visible(f"  {row['path']}: {row['code']} ({row['seen']})"))
        if len(rows) > SHOWN:
            print(f"  ... and {len(rows) - SHOWN} more in reports/rejected.csv")
        print("They stay in data/raw and out of the packs; python3 run.py quarantine moves them out of data/raw too.")
    print(
        "\nLook at   reports/dataset.html (what it has, what was found), reports/preview/*.png (augmentation)\n"
        f"          {TOOL} dvc plots show --open"
    )
    if worth := advice.zips():
        print(f"\n{worth}")
    print(f"\nNext\n  {next_step(own)}")
    if not own:
        print("\nThe local S3 server goes on running; to stop it: python3 run.py s3 stop")


def next_step(own: bool) -> str:
    """Return what to type next."""
    steps, aside = [], ""
    if own and not s3.remote_url():
        return f"{TOOL} {s3.SET_REMOTE}"
    if own and not pushed.is_noted():
        steps.append(f"{TOOL} dvc push")
        aside = f"   # the data goes to {s3.remote_url()}"
    if git.lines("status", "--porcelain", "--", ".", ":!data/sample"):
        steps.append('git add reports && git commit -a -m "Dataset: what is new"')
    if steps:
        return " && ".join(steps) + aside
    if not own:
        return "put in your images and your bucket (README.md, Your images and your bucket)"
    return "read the packs in training (README.md, Read the packs in training)"


def fail(message: str) -> int:
    """Say so; the exit code."""
    print(f"\n{visible_lines(message)}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(fail("Stopped; to go on: python3 run.py"))
