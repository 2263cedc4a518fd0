"""What DVC passes over when it walks a folder."""

from collections.abc import Callable, Iterable
from pathlib import Path

from pathspec import GitIgnoreSpec

RULES = Path(".dvcignore")
WITHOUT_RULE = (".hg/", ".git/", ".git")
"""What DVC passes over without a rule; raw_files refuses what it makes of a .dvc."""


def ignored_by_dvc() -> Callable[[str], bool]:
    """Return a function that says whether DVC passes over a path, by itself or because .dvcignore says so."""
    lines = RULES.read_text(encoding="utf-8").splitlines() if RULES.exists() else []
    return GitIgnoreSpec.from_lines([*WITHOUT_RULE, *lines]).match_file


def hiding_rules(names: Iterable[str]) -> dict[str, str]:
    """Return, of the names that DVC passes over by a rule of any .dvcignore, that rule: `FILE:LINE:PATTERN`."""
    rules = _rules_as_dvc_reads_them()
    found = {name: rules.check_ignore(name) for name in names}
    return {name: result.pattern_infos[-1].file_info for name, result in found.items() if result.match}


def listed_by_dvc(folder: Path) -> set[str]:
    """Return the files that DVC finds below a folder, by their paths in it."""
    from dvc.fs import localfs

    top = folder.absolute()
    return {Path(path).relative_to(top).as_posix() for path in _rules_as_dvc_reads_them().find(localfs, str(top))}


def _rules_as_dvc_reads_them():
    """DVC's own filter, which takes a second to import."""
    from dvc.fs import localfs
    from dvc.ignore import DvcIgnoreFilter

    return DvcIgnoreFilter(localfs, str(Path.cwd()))
