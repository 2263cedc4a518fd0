"""Why a remote that is not S3 cannot be used: of Google Cloud and Azure Blob Storage, and a little of others."""

import logging
from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from dvc.fs import get_cloud_fs, known_implementations

from imagepack.commands.doctor_case import TooSlow, in_time
from imagepack.dvc import remotes

NOISY = ("gcsfs", "azure", "asyncio")
"""Libraries that log a traceback for each try."""


def fault(remote: dict) -> str:
    """Why it cannot be used and what to do, in a sentence; empty if nothing is known against it.

    Args:
        remote: `url`, ..., as DVC's configuration has them.
    """
    url, key_file = remote["url"], remote.get("credentialpath")
    scheme, bucket = urlsplit(url)[:2]
    if package := _missing_package(scheme):
        return f"{url} takes a package that is not installed: python3 run.py -- pip install {package}"
    if scheme not in remotes.KEYS:
        return ""
    if key_file and not Path(key_file).is_file():  # its name would be sent to Google as if it were the key
        return f"there is no key file {key_file}, which credentialpath of the remote names: correct it, or put it there"
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        in_time(_look, remote)
    except TooSlow as slow:
        return f"{url}: {slow}: check the address and the network, and the keys ({remotes.KEYS[scheme]})"
    except FileNotFoundError:
        return f"there is no bucket {bucket}: make it, or check the remote's URL"
    except Exception as error:  # noqa: BLE001  (of whatever library the store takes)
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return remotes.fault(url, list(remotes.causes(error))) or f"{url} cannot be used: {first}"
    return ""


def _missing_package(scheme: str) -> str:
    """What DVC wants installed for such URLs; empty if it is."""
    name = known_implementations.get(scheme, {}).get("class", "dvc").split(".")[0]
    try:
        import_module(name)
    except ImportError:
        return name.replace("_", "-")
    return ""


def _look(remote: dict) -> None:
    """List the remote's folder, or where there is none yet, the bucket."""
    kind, config, path = get_cloud_fs({"remote": {"it": remote}}, name="it")
    store = kind(**config).fs
    try:
        store.ls(path, detail=False)
    except FileNotFoundError:
        store.ls(path.split("/")[0], detail=False)
