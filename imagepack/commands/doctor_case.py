"""What the checks of `python3 run.py doctor` share: levels, and what is read once."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from imagepack.dvc import config, git, lock_files, repository
from imagepack.dvc.remotes import SECONDS
from imagepack.images import raw_files

RAW = Path("data/raw")
OK, HINT, PROBLEM = "ok", "hint", "problem"
Findings = Iterator[tuple[str, str]]
"""Level, and a sentence with the fix. Never keys."""
TOOL = "python3 run.py --"
SECRET_NAME = r"key|secret|token|password|passphrase|connection_string|auth_header"
KEY_VARIABLES = (
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    *("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_CLIENT_SECRET"),
)


class Case:
    """The repository in this folder."""

    def __init__(self, deep: bool = False, push: bool = False) -> None:
        self.deep, self.push = deep, push
        self.remote_works = False  # set by the check of the remote

    @cached_property
    def config(self) -> dict:
        """DVC's, of all levels."""
        return config.read()

    @cached_property
    def repo(self) -> repository.Repo:
        """DVC's; raises DvcException where its configuration or its files are at fault."""
        return repository.open_repo(Path.cwd())

    @cached_property
    def damaged_files(self) -> list[str]:
        """Files of DVC that it cannot read, with the fix: what the checks of data go by."""
        return lock_files.faults()

    @cached_property
    def untrackable(self) -> list[str]:
        """What DVC cannot store, with the fix."""
        return raw_files.untrackable(RAW) if RAW.is_dir() else []

    @property
    def remote(self) -> dict | None:
        """What the configuration has of the default remote."""
        found = config.default_remote(self.config)
        return found if "url" in found else None

    @cached_property
    def git_remotes(self) -> dict[str, list[tuple[str, str]]]:
        """Of each git remote, hash and name of its branches and tags; as last seen where it does not answer."""
        return {name: self._refs(name) for name in git.lines("remote")[:3]}

    def _refs(self, name: str) -> list[tuple[str, str]]:
        found = git.lines("ls-remote", "--heads", "--tags", name, seconds=SECONDS)
        found = found or git.lines("for-each-ref", "--format=%(objectname)\t%(refname)", f"refs/remotes/{name}")
        return [(line.split("\t")[0], line.split("\t")[1]) for line in found]

    def without_keys(self, text: str) -> str:
        """`text`, with stars for what an exception of a library may quote: keys, and passwords in addresses."""
        keys = [os.environ.get(name) for name in KEY_VARIABLES]
        with suppress(config.ConfigError):
            for remote in self.config["remote"].values():
                keys += [str(value) for name, value in remote.items() if re.search(SECRET_NAME, name)]
        for key in (key for key in keys if key and len(key) > 3):
            text = text.replace(key, "***")
        return re.sub(r"://[^/\s@]*:[^/\s@]*@", "://***@", text)

    def close(self) -> None:
        """Give back what DVC holds open."""
        if "repo" in self.__dict__:
            with suppress(repository.DvcException, OSError):
                self.repo.close()


def some(names: list[str], shown: int = 3) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
