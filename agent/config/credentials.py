"""Keys of a store or of AWS, and those that the environment has. Decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Credentials:
    """Keys of an S3 account. They never appear in a log: `RunLogger.add_secrets` gets both."""

    access_key: str
    secret_key: str
    token: str | None = None


def static_credentials(environ: Mapping[str, str]) -> Credentials | None:
    """Return the keys that an environment holds (`AWS_ACCESS_KEY_ID`, ...), or None."""
    access, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    return (
        Credentials(access, secret, environ.get("AWS_SESSION_TOKEN")) if access and secret else None
    )
