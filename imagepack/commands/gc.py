"""Which versions are kept, what each holds, and what cleaning up would free, here and in the bucket; --yes does it.

    python -m imagepack.commands.gc [--yes [--cloud]] [options]

Without --yes nothing is removed.
"""

import argparse
import logging
import os
import sys
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

from imagepack.commands import s3
from imagepack.commands.doctor_case import some
from imagepack.dvc import config, garbage, git, kept_versions, repository
from imagepack.dvc.garbage import Held, Plan, Wanted
from imagepack.dvc.kept_versions import RemoteTip, Rules
from imagepack.dvc.stores import Share, Store, cache_of, remote_of
from imagepack.engine import memo, params
from imagepack.errors import InputError
from imagepack.names import counted, visible, visible_lines

DAYS = 90
"""As long as git itself remembers commits that no branch has any more."""
GIB, MIB = 2**30, 2**20
SHOWN, FEW = 30, 3
WIDTH = 44
"""Characters for the names of a version."""
FETCH = "git fetch --all --tags"
FETCH_EXPERIMENTS = "git fetch {} 'refs/exps/*:refs/exps/*'"


def main() -> int:
    """Run the command line; return the exit code."""
    options = parser().parse_args()
    if options.dry and options.yes:
        parser().error("--dry and --yes contradict each other")
    logging.getLogger("dvc").setLevel(logging.ERROR)
    os.environ["NO_PROXY"] = ",".join(filter(None, [os.environ.get("NO_PROXY"), "127.0.0.1"]))  # the local S3
    try:
        return clean(options)
    except (InputError, git.GitError, repository.DvcException, config.ConfigError, OSError) as error:
        print(visible_lines(f"gc: {error}"), file=sys.stderr)
    except KeyboardInterrupt:
        print("gc: stopped; what is gone was to go, and the rest is whole: run it again", file=sys.stderr)
        return 130
    return 1


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python3 run.py gc",
        description="Say what cleaning up would free, here and in the bucket; with --yes, do it.",
        epilog="Always kept: what this working tree has in use, the HEAD of every working tree, stashes, and commits "
        f"that no git remote has. Without options that say what to keep: -a -T --all-experiments --days {DAYS}.",
    )
    keep = made.add_argument_group("what to keep, as for dvc gc")
    keep.add_argument("-w", "--workspace", action="store_true", help="only what is always kept")
    keep.add_argument("-a", "--all-branches", action="store_true", help="the tips of branches, also of git remotes")
    keep.add_argument("-T", "--all-tags", action="store_true", help="tags")
    keep.add_argument("-A", "--all-commits", action="store_true", help="every commit of branches, tags and experiments")
    keep.add_argument("--all-experiments", action="store_true", help="DVC experiments")
    keep.add_argument("--date", type=date.fromisoformat, metavar="YYYY-MM-DD", help="commits since then")
    keep.add_argument("--days", type=int, metavar="N", help="commits of the last N days")
    keep.add_argument("--rev", action="append", default=[], metavar="COMMIT", help="this one; may be given again")
    keep.add_argument("-n", "--num", type=int, default=1, metavar="N", help="N commits of each branch and --rev")
    keep.add_argument("--skip-failed", action="store_true", help="go on where it is unknown what a version needs")
    do = made.add_argument_group("what to do")
    do.add_argument("--dry", action="store_true", help="remove nothing: the default")
    do.add_argument("--yes", action="store_true", help="remove it from DVC's cache here")
    do.add_argument("-c", "--cloud", action="store_true", help="with --yes: from the bucket too")
    do.add_argument("--unnamed", action="store_true", help="also what no version of this repository names")
    do.add_argument("-r", "--remote", metavar="NAME", help="of DVC, instead of the default one")
    do.add_argument(
        "--price", type=float, metavar="USD", help="of a GiB and month, instead of bucket.price in params.yaml"
    )
    return made


def clean(options: argparse.Namespace) -> int:
    """Show what there is and, if asked to, remove it; return the exit code.

    Raises:
        InputError, GitError, DvcException, ConfigError: it cannot be told what goes.
    """
    if git.text("rev-parse", "--verify", "--quiet", "HEAD") is None:
        raise InputError("there is no commit here, so no version that could be told from what may go")
    price = params.load(Path("params.yaml"))["bucket"].price if options.price is None else options.price
    tips, silent = kept_versions.remote_tips()
    with closing(repository.open_repo(Path.cwd())) as repo, repo.lock:
        cache, (bucket, no_bucket) = cache_of(repo), _bucket(repo, options.remote)
        stores = [cache, bucket] if bucket else [cache]
        rules = rules_of(options)
        plan = garbage.plan(repo, stores, _wanted(rules, tips, options.skip_failed), options.unnamed)
        refusals = [*silent, *_unfetched(tips), *_unsure(options.unnamed)]
        _show(plan, stores, rules, price)
        if no_bucket:
            print(f"\nThe bucket was not looked at: {no_bucket}")
        if not options.yes:
            return _propose(plan, stores, options, refusals)
        if options.cloud and (refusals or no_bucket):
            raise InputError("\n  ".join(["nothing was removed:", *refusals, *([no_bucket] if no_bucket else [])]))
        chosen = stores if options.cloud else [cache]
        left = [_remove(plan, number, store) for number, store in enumerate(chosen)]
    repository.forget_data_index()
    return 1 if any(left) else 0


def rules_of(options: argparse.Namespace) -> Rules:
    """What the command line says is to be kept."""
    since = options.date
    if options.days is not None:
        since = min(filter(None, [since, date.today() - timedelta(days=options.days)]))
    rules = Rules(
        options.all_branches,
        options.all_tags,
        options.all_experiments,
        options.all_commits,
        since,
        tuple(options.rev),
        max(options.num, 1),
    )
    if options.workspace or rules != Rules(number=rules.number):
        return rules
    since = date.today() - timedelta(days=DAYS)
    return Rules(branches=True, tags=True, experiments=True, since=since, number=rules.number)


def _wanted(rules: Rules, tips: list[RemoteTip], skip_failed: bool) -> Wanted:
    known, unknown = kept_versions.all_versions(), set(kept_versions.unknown(tips))
    kept = kept_versions.select(rules, known, [tip for tip in tips if tip not in unknown])
    changing = kept_versions.changing(version.commit for version in kept)
    return Wanted(known | {version.commit: version for version in kept}, kept, changing, skip_failed)


def _bucket(repo: repository.Repo, name: str | None) -> tuple[Store | None, str]:
    """The remote, and why it cannot be looked at, empty if it can."""
    settings = config.read()
    remote = config.default_remote(settings) if name is None else settings["remote"].get(name, {})
    if name is not None and not remote:
        raise InputError(f"there is no remote {name}: known are {', '.join(settings['remote']) or 'none'}")
    if fault := s3.fault(remote):
        return None, fault
    return remote_of(repo, name), ""


def _unfetched(tips: list[RemoteTip]) -> list[str]:
    """What others have pushed to git and is not here: it may need anything."""
    found = kept_versions.unknown(tips)
    lines = []
    if names := [tip.name for tip in found if not tip.name.startswith("experiment ")]:
        lines.append(f"git remotes have commits that are not here ({some(names)}), which may need it: {FETCH}")
    if names := [tip.name for tip in found if tip.name.startswith("experiment ")]:
        remote = names[0].rpartition(" of ")[2]
        fetch = FETCH_EXPERIMENTS.format(remote)
        lines.append(f"git remotes have experiments that are not here ({some(names)}), which may need it: {fetch}")
    return lines


def _unsure(unnamed: bool) -> list[str]:
    """Where what no version here names may be one's own."""
    if unnamed and git.text("rev-parse", "--is-shallow-repository") == "true":
        return ["this clone is shallow, so --unnamed would take the data of earlier commits: git fetch --unshallow"]
    return []


def _show(plan: Plan, stores: list[Store], rules: Rules, price: float) -> None:
    """What is kept and what would go."""
    print(f"{'Kept':{WIDTH}}  of          files       data      alone  USD a month alone")
    for held in plan.held[:SHOWN]:
        print(_row(held, price))
    if rest := plan.held[SHOWN:]:
        alone = sum(held.alone for held in rest)
        print(f"... and {counted(len(rest), 'older one')}, {_size(alone)} of them alone")
    print(f"\nKept: {_in_words(rules)}.")
    for line in plan.skipped[:FEW]:
        print(f"Skipped: {visible(line)}")
    if len(plan.skipped) > FEW:
        print(f"... and {counted(len(plan.skipped) - FEW, 'version')} more of which that cannot be told")
    if plan.dropped:
        newest, oldest = plan.dropped[0], plan.dropped[-1]
        names = f"{newest.commit[:9]} of {newest.date}"
        names += f" to {oldest.commit[:9]} of {oldest.date}" if newest != oldest else ""
        print(f"Not kept: {counted(len(plan.dropped), 'version')}, {names}.")
    print(f"\n{'':{WIDTH}}  {'stays':24}{'would be freed':24}no version names it")
    for store, staying, doomed, unnamed in zip(stores, plan.staying, plan.doomed, plan.unnamed, strict=True):
        where = _where(store)
        print(f"{where:{WIDTH}}  {_share(staying):24}{_share(doomed):24}{_share(unnamed)}")
        if not store.is_local:
            costs = [f"{share.size / GIB * price:.2f} USD a month" for share in (staying, doomed, unnamed)]
            print(f"{f'  at {price:g} USD a GiB and month':{WIDTH}}  {costs[0]:24}{costs[1]:24}{costs[2]}")
    if line := _memo_line():
        print(line)


def _memo_line() -> str:
    """What the stages' memo takes, which is this machine's alone."""
    size = sum(size for _, _, size in memo.sizes())
    return (
        f"{'.memo, finished work of stages':{WIDTH}}  {_size(size):24}python3 run.py memo clear frees it"
        if size
        else ""
    )


def _row(held: Held, price: float) -> str:
    versions = [version for version in held.versions if version.is_named] or held.versions[: not held.is_here]
    names = ["working tree"] * held.is_here + [name for version in versions for name in version.names]
    named = some(list(dict.fromkeys(names)), 3)
    when = str(held.versions[0].date) if held.versions else ""
    where = visible(named if len(named) <= WIDTH else f"{named[: WIDTH - 3]}...")
    return (
        f"{where:{WIDTH}}  {when:10}{held.files:>7,}{_size(held.size):>11}{_size(held.alone):>11}"
        f"{held.alone / GIB * price:>19.2f}"
    )


def _in_words(rules: Rules) -> str:
    """What is kept."""
    last = f"the last {rules.number} commits of " if rules.number > 1 else ""
    parts = [
        "this working tree",
        f"{last}branches, also of git remotes" if rules.branches else "",
        "tags" if rules.tags else "",
        "experiments" if rules.experiments else "",
        "every commit" if rules.commits else "",
        f"commits since {rules.since}" if rules.since else "",
        last + some(list(rules.revisions)) if rules.revisions else "",
        "stashes",
        "commits that are not pushed",
    ]
    return ", ".join(filter(None, parts))


def _propose(plan: Plan, stores: list[Store], options: argparse.Namespace, refusals: list[str]) -> int:
    """What to type next."""
    if refusals:
        print("\nThe bucket cannot be cleaned yet:", *map(visible, refusals), sep="\n  ")
    again = " ".join(word for word in sys.argv[1:] if word not in ("--dry", "-c", "--cloud"))
    command = f"python3 run.py gc {again}".rstrip()
    if len(stores) > 1 and plan.doomed[1].files and not refusals:
        print(f"\nNothing was removed. To free it: {command} --yes --cloud (without --cloud: only here)")
    elif plan.doomed[0].files:
        print(f"\nNothing was removed. To free it here: {command} --yes")
    elif any(share.files for share in plan.unnamed):
        print("\nNothing is to go, unless what no version names is: python3 run.py gc --unnamed")
    else:
        print("\nNothing is to go.")
    return 0


def _remove(plan: Plan, number: int, store: Store) -> bool:
    """Remove what goes from a store, and look whether it has gone; whether some has not."""
    doomed = plan.doomed[number]
    if not doomed.files:
        return False
    store.remove(doomed.sizes, plan.kept)
    after = Store(store.odb, store.where).sizes
    left, lost = doomed.sizes.keys() & after.keys(), plan.staying[number].sizes.keys() - after.keys()
    gone = Share({name: size for name, size in doomed.sizes.items() if name not in left})
    print(f"Freed {_share(gone)} in {_where(store)}.")
    if left:
        print(f"gc: {counted(len(left), 'file')} could not be removed from {_where(store)}", file=sys.stderr)
    if lost:
        print(f"gc: somebody else has removed {counted(len(lost), 'file')} that is kept: doctor", file=sys.stderr)
    return bool(left or lost)


def _where(store: Store) -> str:
    return visible(os.path.relpath(store.where) if store.is_local else store.where)


def _share(share: Share) -> str:
    return f"{_size(share.size)} in {share.files:,} file{'s' * (share.files != 1)}" if share.files else "nothing"


def _size(size: int) -> str:
    return f"{size / GIB:,.2f} GiB" if size >= GIB else f"{size / MIB:,.1f} MiB" if size >= MIB / 10 else f"{size:,} B"


if __name__ == "__main__":
    sys.exit(main())
