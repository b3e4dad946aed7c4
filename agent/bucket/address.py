"""A bucket's address: from a URL and settings to the parameters of a client. Decisions only."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from agent.base.errors import StoreError, StoreRefused
from agent.config.credentials import Credentials
from agent.config.settings import Store

CONNECT_SECONDS = 5
REQUEST_SECONDS = 120
"""One request, such as an 8 MiB part: enough for a dozen of them side by side on 20 Mbit/s."""
RETRY_SECONDS = 60
"""From a request's start until no further retry begins; the client backs off with jitter in between."""
MAX_RETRIES = 6
ONCE_SECONDS = 20
"""For one put of two megabytes at most: whoever repeats it under another key need not wait longer."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between retries of requests that the client does not retry."""
PASSING = frozenset(
    {"BadDigest", "IncompleteBody", "OperationAborted", "RequestTimeout", "SlowDown"}
)
"""Codes of 4xx answers that a retry may not meet, although the client takes them for final."""


_CODE = re.compile(r"<Error>.*?<Code>([\w.]{1,80})</Code>", re.DOTALL)
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")
_STATUS = re.compile(r"status code: (\d{3}(?: [A-Z][\w ]*)?)")

_KEYS = "check the bucket's keys; `mayfly doctor` says where they come from"
_REGION = "set store.region to the region of the bucket"
_REMEDIES = {
    "RequestTimeTooSkewed": "set this computer's clock: a signature's time may be 15 minutes off at most",
    "RequestExpired": "set this computer's clock: a signature's time may be 15 minutes off at most",
    "AccessDenied": "allow it in the policy of the keys' owner, or of the bucket",
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch"), _KEYS),
    **dict.fromkeys(("ExpiredToken", "InvalidToken"), _KEYS),
    **dict.fromkeys(("AuthorizationHeaderMalformed", "PermanentRedirect"), _REGION),
    "NoSuchBucket": "make the bucket, or correct store.url",
}
"""Remedies by S3's error code."""


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

    @property
    def name(self) -> str:
        """Its address, for people."""
        return "/".join(filter(None, (f"s3://{self.bucket}", self.prefix)))

    @property
    def identity(self) -> str:
        """Its address and its service's, the same in each spelling: several services may have a bucket of that name."""
        endpoint = urlsplit(str(self.config.get("endpoint", "")))
        if not endpoint.hostname:
            return self.name
        usual = {"http": 80, "https": 443}.get(endpoint.scheme)
        port = "" if endpoint.port in (None, usual) else f":{endpoint.port}"
        service = f"{endpoint.scheme}://{endpoint.hostname}{port}{endpoint.path.rstrip('/')}"
        return f"{self.name} at {service}"


def bucket_at(store: Store, default: Path) -> LocalBucket | S3Bucket:
    """Return the bucket of `store.url`; without one, the folder `default`."""
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


def s3_parameters(
    address: S3Bucket, credentials: Credentials | None, chain: Callable[[], object]
) -> dict[str, Any]:
    """Return the parameters of an S3 client, with limits on every wait and the only retries there are.

    Args:
        address: The bucket. Plain HTTP is used only if its endpoint says so itself.
        credentials: Its keys.
        chain: Returns a provider of keys if none are given.
    """
    parameters: dict[str, Any] = {
        "config": address.config,
        "client_options": {
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
            "allow_http": str(address.config.get("endpoint", "")).startswith("http://"),
        },
        "retry_config": {
            "max_retries": MAX_RETRIES,
            "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        },
    }
    if address.prefix:
        parameters["prefix"] = address.prefix
    if credentials is None:
        return parameters | {"credential_provider": chain()}
    parameters["access_key_id"] = credentials.access_key
    parameters["secret_access_key"] = credentials.secret_key
    return parameters | ({"token": credentials.token} if credentials.token else {})


def store_error(action: str, key: str, message: str, *, denied: bool) -> StoreError:
    """Return the error for a client's message.

    Args:
        action: What was tried, such as `put`.
        key: The object's key.
        message: The message.
        denied: Whether the client itself says that credentials or rights are the cause.
    """
    code, reason = code_of(message), reason_of(message)
    # The reason is cut, and the status may stand behind the cut.
    if denied or is_refusal(message):
        error: StoreError = StoreRefused(
            f"the bucket refused to {action} {key}: {reason}",
            remedy=_REMEDIES.get(code, "check the credentials, the bucket's policy and the clock"),
        )
    else:
        remedy = _REMEDIES.get(code, "")
        error = StoreError(f"could not {action} {key}: {reason}", remedy=remedy)
    error.code = code
    return error


def reason_of(message: str) -> str:
    """Return a client's message on one line: the service's own answer, else the message's first paragraph.

    Before the answer stands the whole address of the object, and after the paragraph the client's internals.
    """
    said = message.split("\n\n", maxsplit=1)[0]
    if code := code_of(said):
        from html import unescape  # noqa: PLC0415 -- only errors need it and its two thousand entities

        status, text = _STATUS.search(said), _MESSAGE.search(said)
        parts = (
            code,
            f": {unescape(text.group(1))}" if text and text.group(1) else "",
            f" ({status.group(1)})" if status else "",
        )
        said = "".join(parts)
    return " ".join(said.split())[:300]


def code_of(message: str) -> str:
    """Return the store's error code; empty if the message has none."""
    match = _CODE.search(message)
    return match[1] if match else ""


def is_refusal(message: str) -> bool:
    """Tell whether a client's message is about credentials or policy: a listing reports 401 and 403 in words only."""
    return "401 Unauthorized" in message or "403 Forbidden" in message
