"""DVC's configuration: of the system, the user, the repository (.dvc/config) and this clone (.dvc/config.local)."""

from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

from dvc.config import Config, ConfigError, merge

from imagepack.dvc import git

__all__ = ["ConfigError", "default_remote", "edit_local", "level", "read", "read_commit", "shares_files"]


def read() -> Config:
    """Return the configuration of the repository in this folder, all levels together.

    Raises:
        ConfigError: a file of it cannot be read.
    """
    return Config(dvc_dir=".dvc", validate=False)


def default_remote(config: dict | None = None) -> dict:
    """Return what the configuration, None for that here, has of the default remote, `url` and others; may be empty."""
    config = read() if config is None else config
    return config["remote"].get(config["core"].get("remote"), {})


def shares_files() -> bool:
    """Return whether DVC may link files of the workspace with its cache, which it then makes read-only."""
    kinds = read().get("cache", {}).get("type", [])
    return not {"hardlink", "symlink"}.isdisjoint(kinds.split(",") if isinstance(kinds, str) else kinds)


def edit_local() -> AbstractContextManager[dict]:
    """Give .dvc/config.local to be changed, and write it."""
    return read().edit("local", validate=False)


def level(name: str, dvc_folder: Path | None = None) -> dict:
    """Return one level alone: system, global (the user's), repo or local; the latter two of this .dvc folder."""
    return Config(dvc_dir=str(dvc_folder) if dvc_folder else None, validate=False).load_one(name)


def read_commit(root: Path, commit: str) -> dict:
    """Return .dvc/config of a commit, with this clone's keys and addresses in place of it; empty where it has none."""
    if (text := git.text("show", f"{commit}:./.dvc/config", folder=root)) is None:
        return {}
    with TemporaryDirectory() as folder:
        Path(folder, "config").write_text(text, encoding="utf-8")
        config = Config.load_file(f"{folder}/config")
    config = Config._load_paths(config, str(root / ".dvc/config"))  # paths in it are relative to where it stands
    merge(config, level("local", root / ".dvc"))
    return config
