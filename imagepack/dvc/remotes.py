"""What is wrong with a DVC remote, in a sentence, told from the errors of the libraries that DVC reaches it with.

By their names, since neither DVC nor these libraries need be installed.
"""

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib import import_module
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

KEYS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "run gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to the path of a key file",
    "azure": "set AZURE_STORAGE_CONNECTION_STRING, or set AZURE_STORAGE_ACCOUNT and run az login",
}
"""Where keys come from, by the scheme of a remote's URL."""
NO_PACKAGE = {"RemoteMissingDepsError", "ModuleNotFoundError"}
NO_KEYS = {
    *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),  # boto
    "DefaultCredentialsError",  # Google
    "CredentialUnavailableError",  # Azure
}
REFUSED = {"PermissionError", "AuthError", "AzureAuthError", "ClientAuthenticationError", "RefreshError"}
SKEWED = "RequestTimeTooSkewed"
MOST_SKEW = 15 * 60
"""What S3 answers where the clock of a request is off by more than this, in seconds."""
NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
NOISY = ("gcsfs", "azure", "asyncio")
"""Libraries that log a traceback for each try."""
SECONDS = 8
"""How long a check waits for a remote, and for each git remote."""


class TooSlow(Exception):
    """No answer in time."""


def in_time(function: Callable, *arguments):
    """Return what `function` returns. After SECONDS raise TooSlow; it then goes on until this process ends."""
    answer: Future = Future()

    def call() -> None:
        try:
            answer.set_result(function(*arguments))
        except BaseException as error:  # noqa: BLE001  (it is raised in the thread that asked)
            answer.set_exception(error)

    Thread(target=call, daemon=True).start()
    if not wait([answer], SECONDS).done:
        raise TooSlow(f"no answer in {SECONDS} seconds")
    return answer.result()


def try_out(remote: dict) -> str:
    """Return why a remote of Google Cloud or Azure cannot be listed, and what to do; empty if it can.

    Of other stores, say only whether DVC has the package that reaches them.

    Args:
        remote: `url`, ..., as DVC's configuration has them.
    """
    url, key_file = remote["url"], remote.get("credentialpath")
    scheme, bucket = urlsplit(url)[:2]
    if package := _missing_package(scheme):
        return f"{url} takes a package that is not installed: python3 run.py -- pip install {package}"
    if scheme not in KEYS:
        return ""
    if key_file and not Path(key_file).is_file():  # its name would be sent to Google as if it were the key
        return f"there is no key file {key_file}, which credentialpath of the remote names: correct it, or put it there"
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.CRITICAL)
    try:
        in_time(_list, remote)
    except TooSlow as slow:
        return f"{url}: {slow}: check the address and the network, and the keys ({KEYS[scheme]})"
    except FileNotFoundError:
        return f"there is no bucket {bucket}: make it, or check the remote's URL"
    except Exception as error:  # noqa: BLE001  (of whatever library the store takes)
        first = next(iter(str(error).splitlines()), type(error).__name__)
        return fault(url, list(causes(error))) or f"{url} cannot be used: {first}"
    return ""


def _missing_package(scheme: str) -> str:
    """What DVC wants installed for such URLs; empty if it is."""
    from dvc.fs import known_implementations  # late: DVC's file systems take long to import

    name = known_implementations.get(scheme, {}).get("class", "dvc").split(".")[0]
    try:
        import_module(name)
    except ImportError:
        return name.replace("_", "-")
    return ""


def _list(remote: dict) -> None:
    """List the remote's folder, or where there is none yet, the bucket."""
    from dvc.fs import get_cloud_fs

    kind, config, path = get_cloud_fs({"remote": {"it": remote}}, name="it")
    store = kind(**config).fs
    try:
        store.ls(path, detail=False)
    except FileNotFoundError:
        store.ls(path.split("/")[0], detail=False)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause's cause, ..."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def fault(url: str, chain: list[BaseException]) -> str:
    """Return why the remote cannot be used and what to do; empty if another try may help.

    Args:
        url: of the remote.
        chain: an error and its causes.
    """
    scheme, bucket = urlsplit(url)[:2]
    keys = KEYS.get(scheme, "see DVC's documentation of remotes for where it takes them from")
    names = {type(cause).__name__ for cause in chain} | {getattr(cause, "error_code", None) for cause in chain}
    if names & NO_PACKAGE:
        return f"to read from {url} takes more of DVC: pip install 'dvc[{scheme or 's3'}]'"
    if names & NO_KEYS or any("requires either account_name" in str(cause) for cause in chain):  # of dvc-azure
        return f"there are no keys for {url}: {keys}"
    if any(map(_is_skewed, chain)):
        return f"{url} refuses requests whose time is not its own: set this machine's clock"
    if names & REFUSED or any(map(_is_refusal, chain)):
        elsewhere = " (and AWS_ENDPOINT_URL, where it is not Amazon's)" if scheme == "s3" else ""
        return f"{url} refuses these keys: {keys}{elsewhere}"
    if names & NO_BUCKET:
        return f"there is no bucket {bucket}: check the remote's URL"
    return ""


def _is_skewed(error: BaseException) -> bool:
    """Whether S3 refuses a request for its time. Its answer to HEAD has no words, but the server's own time."""
    if SKEWED in str(error) or "difference between the request time" in str(error):
        return True
    answer = getattr(error, "response", None)
    meta = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
    try:
        there = parsedate_to_datetime(meta.get("HTTPHeaders", {}).get("date", ""))
        apart = abs((datetime.now(UTC) - there).total_seconds())
    except (TypeError, ValueError):
        return False
    return meta.get("HTTPStatusCode") == 403 and apart > MOST_SKEW


def _is_refusal(error: BaseException) -> bool:
    """Whether it is an HTTP answer to keys that are wrong or may not do this."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)  # Azure's, Google's
    return str(status) in ("401", "403") or isinstance(error, PermissionError) or str(error).startswith("Forbidden: ")
