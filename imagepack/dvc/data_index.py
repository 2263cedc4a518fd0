"""DVC's list of what there is to push or pull, which it keeps from one command to the next.

    python -m imagepack.dvc.data_index   (DVC makes it anew: run.py does so before `dvc push`, `pull` and `fetch`)

DVC 3.67.1 writes it bit by bit, and takes for whole what there is of it when it was killed or interrupted: the next
`dvc push` pushes that part, with lists of folders that name files which are not there, and says that all is up to date.
DVC trusts those lists, so that no later `dvc push` pushes the rest.
"""

import contextlib
import sqlite3
from contextlib import closing

from dvc.exceptions import DvcException
from dvc.repo import Repo


def forget() -> None:
    """Drop the list. Where that cannot be done, as where another DVC is at work, the command that follows says why."""
    with contextlib.suppress(DvcException, OSError, sqlite3.Error), closing(Repo()) as repo, repo.lock:
        repo.drop_data_index()


if __name__ == "__main__":
    forget()
