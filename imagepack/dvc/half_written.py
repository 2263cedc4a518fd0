"""The two files that DVC writes in place, and leaves empty or cut where it is killed just then; git, with conflicts.

With such a dvc.lock it runs nothing. An empty data/raw.dvc it takes for no data, in silence.
"""

import re
from pathlib import Path

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from voluptuous import Invalid

from imagepack.dvc.git import git

LOCK, RAW_DVC = "dvc.lock", "data/raw.dvc"


def faults() -> list[str]:
    """Those that are so here, each with the fix."""
    found = []
    for name in (LOCK, RAW_DVC):
        file = Path(name)
        text = file.read_text(encoding="utf-8", errors="surrogateescape") if file.is_file() else None
        if text is not None and re.search("^<{7} ", text, re.MULTILINE):
            fix = f"git checkout --ours -- {name} or --theirs, git add it, python3 run.py -- dvc pull, python3 run.py"
            found.append(f"{name} has a merge conflict: take one of the two: {fix}")
        elif text is not None and not _is_whole(name, text):
            has_git = _is_whole(name, git("show", f"HEAD:./{name}") or "")
            fix = f"git checkout HEAD -- {name}" if has_git else f"rm {name}"
            found.append(f"{name} is damaged, as DVC leaves it when killed while it writes: {fix}, then python3 run.py")
    return found


def _is_whole(name: str, text: str) -> bool:
    """Whether DVC can read it. One that is cut where that leaves it valid is out of date, and the next run mends it."""
    if name == RAW_DVC:
        return "outs:" in text
    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, name))
    except (YAMLFileCorruptedError, Invalid):
        return False
    return True
