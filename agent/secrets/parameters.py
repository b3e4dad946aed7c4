"""Names and values of secrets in the parameter store of AWS. Decisions only."""

import re
from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import UsageError
from agent.secrets.private import GIT_NAMES
from agent.secrets.registries import LOGIN_NAMES

SSM = "ssm:"
STORE_NAMES = ("access_key_id", "secret_access_key", "session_token")
"""The names of a bucket's keys below their path."""
LONGEST_VALUE = 4096
"""Bytes of a parameter of the standard tier, which is free."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)
_PATH = re.compile(r"(/[A-Za-z0-9_.-]+){1,14}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A secret without its value.

    Attributes:
        name: Below its path, as jobs know it.
        changed: When it was last set.
        version: How often it was set.
    """

    name: str
    changed: datetime
    version: int


def parameter_path(source: str | None, key: str) -> str:
    """Return the path of `ssm:/path`, the value of the configuration's `key`.

    Raises:
        UsageError: It is not a path of SSM.
    """
    if source is None or not source.startswith(SSM):
        raise UsageError(
            f"{key} does not say where in SSM the secrets are",
            remedy=f'set it to "ssm:/mayfly/..." in agent.toml, or give --set {key}=ssm:/mayfly/...',
        )
    path = f"/{source.removeprefix(SSM).strip('/')}"
    if _PATH.fullmatch(path) is None:
        raise UsageError(
            f"{path} cannot be a path in SSM",
            remedy="letters, digits, `_`, `.` and `-`, between slashes",
        )
    return path


@dataclass(frozen=True, slots=True)
class Group:
    """Secrets of one kind, below one path.

    Attributes:
        key: The configuration's key that has the path.
        names: The names that the agent reads; empty if jobs choose them.
    """

    key: str
    names: tuple[str, ...] = ()


JOBS = Group("secrets.source")
BUCKET = Group("store.credentials", STORE_NAMES)
GIT = Group("release.credentials", GIT_NAMES)


def login_group(section: str, name: str) -> Group:
    """Return the secrets of a registry or an index, by its name in the configuration."""
    return Group(f"{section}.{name}", LOGIN_NAMES)


def check_name(name: str, group: Group) -> None:
    """Reject a name that nothing would read.

    Raises:
        UsageError: It is such a name.
    """
    if group.names and name not in group.names:
        raise UsageError(
            f"{name!r} is not read from {group.key}", remedy=f"one of {', '.join(group.names)}"
        )
    if _NAME.fullmatch(name) is None:
        raise UsageError(
            f"{name!r} cannot be the name of a secret",
            remedy="a job gets it as an environment variable: letters, digits and `_`",
        )


def check_value(value: str) -> str:
    """Return a value as it is stored: without the newline at the end of its input.

    Raises:
        UsageError: It cannot be stored, or no environment variable could hold it. The message does not contain it.
    """
    value = value.removesuffix("\n").removesuffix("\r")
    if not value:
        raise UsageError("the value is empty", remedy="`mayfly secrets rm` removes a secret")
    if "\0" in value:
        raise UsageError("the value has a NUL in it, which no environment variable can hold")
    size = len(value.encode())
    if size > LONGEST_VALUE:
        raise UsageError(
            f"the value has {size} bytes, and a parameter of SSM's free tier holds {LONGEST_VALUE}",
            remedy="store a file in the bucket, and its key here",
        )
    return value
