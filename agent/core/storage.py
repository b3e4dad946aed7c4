"""How a bucket is addressed: from a URL and settings to the parameters of a client, without opening anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from agent.core.settings import Store

CONNECT_SECONDS = 5
REQUEST_SECONDS = 120
"""One request, such as an 8 MiB part: enough for a dozen of them side by side on 20 Mbit/s."""
RETRY_SECONDS = 60
"""From a request's start until no further retry begins; the client backs off with jitter in between."""
MAX_RETRIES = 6


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of an S3 account. They never appear in a log: `Journalist.add_secrets` is told of both."""

    access_key: str
    secret_key: str
    token: str | None = None


@dataclass(frozen=True, slots=True)
class LocalBucket:
    """A bucket that is a folder."""

    root: Path


@dataclass(frozen=True, slots=True)
class S3Bucket:
    """A bucket of an S3 service, in the client's terms."""

    bucket: str
    prefix: str
    config: dict[str, str | bool]


def bucket_at(store: Store, default: Path) -> LocalBucket | S3Bucket:
    """Return what `store.url` addresses; without one, the folder `default`."""
    if store.url is None:
        return LocalBucket(default)
    url = urlsplit(store.url)
    if url.scheme == "file":
        return LocalBucket(Path(unquote(url.path)))
    config: dict[str, str | bool] = {"region": store.region or "us-east-1"}
    if store.endpoint is not None:
        # Path style: it works with every service, and needs no DNS name per bucket.
        config |= {"endpoint": store.endpoint, "virtual_hosted_style_request": False}
    return S3Bucket(url.netloc, url.path.strip("/"), config)


def static_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys that an environment holds (`AWS_ACCESS_KEY_ID`, ...), or None."""
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    return (
        Credentials(access, secret, environ.get("AWS_SESSION_TOKEN")) if access and secret else None
    )


def client_options(bucket: S3Bucket) -> dict[str, object]:
    """Return the HTTP client's limits; plain HTTP only where the endpoint says so itself."""
    return {
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
        "allow_http": str(bucket.config.get("endpoint", "")).startswith("http://"),
    }


def retry_options() -> dict[str, object]:
    """Return the client's retry policy: the only place in which requests to a bucket are retried."""
    return {"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)}


def reason_of(message: str) -> str:
    """Return the first paragraph of a client's message on one line; what follows is its internals."""
    return " ".join(message.split("\n\n", maxsplit=1)[0].split())[:300]


def is_refusal(message: str) -> bool:
    """Tell whether a client's message is about credentials or policy: a listing reports 401 and 403 in words only."""
    return "401 Unauthorized" in message or "403 Forbidden" in message
