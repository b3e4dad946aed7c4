"""Credentials of private repositories: their form, and what is wrong with them. Decisions only."""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.base.errors import SecretsError, UsageError
from agent.config.faults import Fault
from agent.secrets.envfile import parse_env

GIT_NAMES = ("token", "username", "key", "known_hosts")
"""The names of a repository's credentials below their path, and in their file."""

_KEY = re.compile(
    r"\s*(-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----)(.*)", re.DOTALL
)
_OPENSSH = "-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
_PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ AAAA")
_TOKEN_USERS = {"bitbucket.org": "x-token-auth"}
_TOKEN_USER = "x-access-token"  # noqa: S105 -- what stands in the place of a user's name


@dataclass(frozen=True, slots=True)
class GitLogin:
    """Credentials of a private repository: a token over HTTPS, or a deploy key over SSH.

    Attributes:
        token: A token, or a password.
        username: The token's user; empty for the host's default.
        key: A private key, as ssh-keygen wrote it.
        known_hosts: Lines of a known_hosts file; empty for those that come with Mayfly.
    """

    token: str = field(default="", repr=False)
    username: str = ""
    key: str = field(default="", repr=False)
    known_hosts: str = ""

    @property
    def secrets(self) -> dict[str, str]:
        """What no log may show, by name."""
        found = {"git token": self.token, "git key": self.key}
        return {name: value for name, value in found.items() if value}

    def user_at(self, host: str) -> str:
        """Return the user name for the token."""
        return self.username or _TOKEN_USERS.get(host, _TOKEN_USER)


def git_login(found: Mapping[str, str], source: str) -> GitLogin:
    """Return a repository's credentials from the values that `source` has.

    Raises:
        SecretsError: Neither a token nor a key is there, or both, or the key is unusable.
    """
    login = GitLogin(**{name: found[name].strip() for name in GIT_NAMES if name in found})
    if bool(login.token) == bool(login.key):
        raise SecretsError(
            f"{source} has {'both a token and a key' if login.token else 'neither a token nor a key'}",
            remedy="`mayfly secrets set --git token` or `mayfly secrets set --git key`; keep one of them",
        )
    problem = key_problem(login.key) if login.key else None
    if problem:
        raise SecretsError(
            f"the key of {source} {problem}", remedy="ssh-keygen -t ed25519 -N '' makes one"
        )
    return login


def parse_git_file(text: str, source: str) -> tuple[dict[str, str], list[Fault]]:
    """Return the credentials in a file: an env file, or a private key and then known_hosts lines."""
    match = _KEY.fullmatch(text)
    if match is None:
        return parse_env(text, source)
    return {"key": match.group(1), "known_hosts": match.group(2).strip()}, []


def key_problem(key: str) -> str | None:
    """Return why a text is not a usable deploy key, or None."""
    if _PUBLIC_KEY.match(key.strip()):
        return "is a public key: its other half, the file without .pub, belongs here"
    match = _KEY.fullmatch(key)
    if match is None or match.group(2).strip():
        return "is not a private key as ssh-keygen writes it, from its first line to its last"
    if "ENCRYPTED" in key or (_OPENSSH in key and not _is_open(key)):
        return "has a passphrase, and nobody is there to type it"
    return None


def _is_open(key: str) -> bool:
    """Tell whether a key in OpenSSH's own format has no passphrase (PROTOCOL.key of OpenSSH)."""
    body = "".join(line for line in key.split() if re.fullmatch(r"[A-Za-z0-9+/=]{8,}", line))
    try:
        data = base64.b64decode(body)
    except binascii.Error:
        return True  # ssh-add says what is wrong with it
    start = len(_MAGIC) + 4
    return data[start : start + 4] == b"none"


def check_git_value(name: str, value: str) -> None:
    """Reject a value that could never open a repository; `name` is one of `GIT_NAMES`.

    Raises:
        UsageError: It could not; the message does not contain it.
    """
    problem = key_problem(value) if name == "key" else None
    if name in ("token", "username") and len(value.splitlines()) > 1:
        problem = "has several lines"
    if problem:
        raise UsageError(f"the {name} {problem}")
