"""Logins of registries and package indexes: which are needed, and the form that docker and uv need. Decisions only."""

import base64
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.base.errors import SecretsError

LOGIN_NAMES = ("username", "password")
"""The names of a registry's or an index's credentials below their path, and in their file."""
HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
"""Its key in docker's configuration."""

_ECR = re.compile(r"\d{12}\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")


@dataclass(frozen=True, slots=True)
class Login:
    """A user's name and password, or token."""

    username: str
    password: str = field(repr=False)


def login_from(found: Mapping[str, str], source: str) -> Login:
    """Return the login that the values of `source` make.

    Raises:
        SecretsError: A half is missing.
    """
    missing = [name for name in LOGIN_NAMES if not found.get(name)]
    if missing:
        raise SecretsError(
            f"{source} has no {' and no '.join(missing)}",
            remedy=f"`mayfly secrets set --registry HOST {missing[0]}`, or --index NAME, stores it",
        )
    return Login(found["username"], found["password"])


def index_variables(logins: Mapping[str, Login]) -> dict[str, str]:
    """Return the variables by which uv logs in to indexes, by their names in pyproject.toml."""
    return {
        f"UV_INDEX_{re.sub('[^A-Za-z0-9]', '_', name).upper()}_{what}": value
        for name, login in logins.items()
        for what, value in (("USERNAME", login.username), ("PASSWORD", login.password))
    }


def host_of(image: str) -> str:
    """Return the registry of an image; one without a host comes from Docker Hub."""
    first, slash, _ = image.partition("/")
    is_host = slash and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in {"index.docker.io", "registry-1.docker.io"} else HUB


def ecr_region(host: str) -> str | None:
    """Return the region of a registry of ECR; None for other registries."""
    match = _ECR.fullmatch(host)
    return match and match.group(1)


def needed(images: Iterable[str], builds: Iterable[str], configured: Collection[str]) -> list[str]:
    """Return the registries that need a login.

    `builds` are texts that name more images: Dockerfiles, compose files. `configured` registries have credentials.
    """
    hosts = {host_of(image) for image in images}
    found = {host for host in hosts if host in configured or ecr_region(host)}
    for text in builds:
        found |= {match.group() for match in _ECR.finditer(text)}
        # An image without a host is Docker Hub's, and looks like any other word.
        found |= {host for host in configured if host in text or host == HUB}
    return sorted(found)


def client_config(own: Mapping[str, Any], logins: Mapping[str, Login]) -> dict[str, Any]:
    """Return the configuration of docker's client: the user's own, with these logins."""
    keys = {_HUB_KEY if host == HUB else host: login for host, login in logins.items()}
    auths = {
        key: {"auth": base64.b64encode(f"{one.username}:{one.password}".encode()).decode()}
        for key, one in keys.items()
    }
    return {
        **own,
        "auths": {**(own.get("auths") or {}), **auths},
        # Empty: this file itself, not the keychain that the user may have chosen.
        "credHelpers": {**(own.get("credHelpers") or {}), **dict.fromkeys(keys, "")},
    }
