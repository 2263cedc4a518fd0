"""What is wrong with a DVC remote, in a sentence, told from the errors of the libraries that DVC reaches it with.

By their names, since neither DVC nor these libraries need be installed.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
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


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def fault(url: str, chain: list[BaseException]) -> str:
    """Why the remote cannot be used and what to do, if it is for good; empty if another try may help.

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
