"""Where releases come from: a repository's address, its refs, and the meaning of git's errors. Decisions only."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal
from urllib.parse import unquote, urlsplit

from agent.base.errors import ReleaseError
from agent.base.versions import Track
from agent.config.settings import Release
from agent.secrets.private import GitLogin

TRACK = "v*"
"""The default pattern of tags."""

_SCP_LIKE = re.compile(r"(?:[A-Za-z0-9._-]+@)?[A-Za-z0-9][A-Za-z0-9.-]*:(?![-:]).+")
_USER = re.compile(r"[A-Za-z0-9._-]*")
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_REF_LINE = re.compile(rb"([0-9a-f]{40}|[0-9a-f]{64})\trefs/(tags|heads)/([^\n]+?)(\^\{\})?")
MAX_REF_BYTES = 200
"""Longest name of a tag or branch: git's limit is that of a file name, less the suffix of its locks."""
# What git-check-ref-format forbids; a server may say anything.
_NOT_IN_REF = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|^[-/.]|/\.|[/.]$|\.lock$")


def channel_of(settings: Release) -> str:
    """Return which releases are followed: a branch, or a pattern of tags."""
    return settings.branch or settings.track or TRACK


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository's address, in parts.

    Attributes:
        url: What git gets and the manifest says: a URL or an absolute path, without credentials.
        protocols: The protocols that git may use for it, in the form of `GIT_ALLOW_PROTOCOL`.
        server: `scheme://host:port`, the only server that gets the credentials; empty for paths and ssh.
        user: User name for it, if the address had one.
        password: Password or token for it, if the address had one.
    """

    url: str
    protocols: str
    server: str = ""
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @property
    def local(self) -> bool:
        """Whether it is on this machine's disk."""
        return self.protocols == "file"

    @property
    def host(self) -> str:
        """Its server's name, without a port; empty for paths."""
        if "://" in self.url:
            return urlsplit(self.url).hostname or ""
        return "" if self.local else self.url.partition(":")[0].rpartition("@")[2]


def parse_repository(text: str, home: str | None) -> Repository:
    """Return a repository's address from the configuration's text.

    Args:
        text: `https://...`, `http://...`, `ssh://...`, `git@host:path`, `file:///...`, `/path` or `~/path`.
        home: The home directory, for `~/path`.

    Raises:
        ValueError: It is none of these. The message does not repeat it, because it may hold a password.
    """
    if text.startswith("~/") and home:
        text = f"{home.rstrip('/')}/{text[2:]}"
    if text.startswith("/"):
        return _on_disk(text)
    if _CONTROL.search(text):
        raise ValueError("has a space or a control character in it")
    if "://" in text:
        return _from_url(text)
    if _SCP_LIKE.fullmatch(text):
        return Repository(text, "ssh")
    raise ValueError("is neither a URL nor an absolute path")


def configured_repository(settings: Release, environ: Mapping[str, str]) -> Repository:
    """Return the repository of a configuration.

    Raises:
        ReleaseError: It names none, or an invalid one.
    """
    if settings.repository is None:
        raise ReleaseError(
            "no repository is configured",
            remedy="set release.repository, or see it work first: mayfly demo",
        )
    try:
        return parse_repository(settings.repository, environ.get("HOME"))
    except ValueError as error:
        raise ReleaseError(
            f"release.repository {error}",
            remedy='write for example "https://example.com/me/scrapers.git"',
        ) from error


def _on_disk(path: str) -> Repository:
    if "\0" in path:
        raise ValueError("has a NUL in its path")
    return Repository(path, "file")


def _from_url(text: str) -> Repository:
    url = urlsplit(text)
    if url.scheme == "file" and url.netloc in {"", "localhost"} and url.path:
        return _on_disk(unquote(url.path))
    if url.scheme not in {"http", "https", "ssh"}:
        raise ValueError("is not an https, http, ssh or file URL")
    if not url.hostname or url.hostname.startswith("-") or not url.path.strip("/"):
        raise ValueError("is a URL without a host or a path")
    address = url.netloc.rpartition("@")[2]
    if url.scheme == "ssh":
        if url.password is not None or not _USER.fullmatch(url.username or ""):
            raise ValueError("is an ssh URL with a password; ssh takes a key")
        return Repository(text, "ssh")
    if url.query or url.fragment:
        raise ValueError("is a URL with a query or a fragment")
    return Repository(
        f"{url.scheme}://{address}{url.path}",
        "http:https",
        f"{url.scheme}://{address}",
        None if url.username is None else unquote(url.username),
        None if url.password is None else unquote(url.password),
    )


def answer_for(
    repository: Repository, login: GitLogin | None, environ: Mapping[str, str]
) -> str | None:
    """Return the answer of a credential helper of git (git-credential(1)); None if it knows nothing.

    `environ` is git's, which may name a program that is asked for the password.
    """
    if login is not None and login.token:
        user = login.username or repository.user or login.user_at(repository.host)
        return f"username={user}\npassword={login.token}\n"
    if repository.user is None:
        return None
    if repository.password is None and "GIT_ASKPASS" in environ:
        return f"username={repository.user}\n"
    # A token alone may stand where the user name does, with no password at all.
    return f"username={repository.user}\npassword={repository.password or ''}\n"


def login_mismatch(repository: Repository, login: GitLogin) -> tuple[str, str] | None:
    """Return why credentials cannot be used for an address, and the remedy; None if they can."""
    if login.key and repository.protocols != "ssh":
        return (
            "release.credentials has a key, and release.repository is not an ssh address",
            f"write git@{repository.host}:..., or store a token",
        )
    if login.token and repository.protocols == "ssh":
        return (
            "release.credentials has a token, and release.repository is an ssh address",
            f"write https://{repository.host}/..., or store a deploy key",
        )
    if repository.server.startswith("http://") and not _LOOPBACK.fullmatch(repository.host):
        return ("a token is not sent over http, where others can read it", "write https://...")
    return None


_LOOPBACK = re.compile(r"localhost|127\.\d+\.\d+\.\d+|::1")


ObjectFormat = Literal["sha1", "sha256"]
"""How a repository names its objects, in git's words (`extensions.objectFormat`)."""
_SHA256_DIGITS = 64


def format_of(oid: str) -> ObjectFormat:
    """Return the format of the repository in which an object has this name."""
    return "sha256" if len(oid) == _SHA256_DIGITS else "sha1"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The release that should run: the tag or branch `name`, in full `ref`, is this commit in the repository."""

    name: str
    ref: str
    commit: str

    @property
    def is_tag(self) -> bool:
        """Whether it is a tag, which is not supposed to move."""
        return self.ref.startswith("refs/tags/")


def parse_refs(listing: bytes) -> dict[str, str]:
    """Return the refs that `git ls-remote` printed, in full, each with its commit (that of an annotated tag, too).

    Refs with invalid names are left out.
    """
    refs: dict[str, str] = {}
    for line in listing.split(b"\n"):
        match = _REF_LINE.fullmatch(line)
        name = match.group(3).decode(errors="replace") if match else ""
        if match is None or not can_be_asked_for(name):
            continue
        # An annotated tag comes twice: as itself, then with ^{} as the commit it points to.
        refs[f"refs/{match.group(2).decode()}/{name}"] = match.group(1).decode()
    return refs


def can_be_asked_for(name: str) -> bool:
    """Tell whether git takes a name as that of a tag or branch, and of no more than one."""
    return (
        len(name.encode()) <= MAX_REF_BYTES
        and _NOT_IN_REF.search(name) is None
        and "\ufffd" not in name
    )


def candidates(
    refs: Mapping[str, str], track: str | None, branch: str | None
) -> tuple[Wanted, ...]:
    """Return the releases that are offered, the newest first: the head of `branch`, or the tags that match `track`."""
    if branch is not None:
        ref = f"refs/heads/{branch}"
        return (Wanted(branch, ref, refs[ref]),) if ref in refs else ()
    prefix = "refs/tags/"
    tags = [ref.removeprefix(prefix) for ref in refs if ref.startswith(prefix)]
    ordered = Track(track or TRACK).newest_first(tags)
    return tuple(Wanted(tag, prefix + tag, refs[prefix + tag]) for tag in ordered)


class Trouble(Enum):
    """What a complaint of git means."""

    UNREACHABLE = "unreachable"  # the network or the server, now: worth another try
    REFUSED = "refused"  # the server denies access
    MISSING = "not found"  # no such repository or ref
    STUCK = "stuck"  # git did not end, and asked no server
    ENDLESS = "endless"  # it printed more than any valid answer has
    OTHER = "other"


# Read top down: a refusal also ends with 'the remote end hung up unexpectedly'.
_SIGNS = (
    (
        Trouble.REFUSED,
        (
            r"authentication failed|could not read (username|password)|permission denied|access denied"
            r"|host key verification failed|returned error: 40[13]|certificate verification failed"
            r"|ssl certificate problem|dubious ownership|transport '.*' not allowed"
        ),
    ),
    (
        Trouble.MISSING,
        (
            r"repository .*not found|returned error: 4(04|10)|does not appear to be a git repository"
            r"|couldn't find remote ref|no such remote ref|does not exist|not a git repository"
        ),
    ),
    (
        Trouble.UNREACHABLE,
        (
            r"could not resolve|name resolution|failed to connect|couldn't connect|connection (refused"
            r"|reset|timed out|closed)|timed out|no route to host|network is unreachable|too slow"
            r"|early eof|unexpected (disconnect|eof)|hung up unexpectedly|rpc failed|empty reply"
            r"|returned error: (429|5\d\d)|(recv|send) failure|ssl_error_syscall|ssl_connect"
            r"|gnutls_handshake|gnutls recv error|non-properly terminated|partial file"
            r"|transfer closed|http/2 stream|unable to access"
        ),
    ),
)


def trouble_of(complaint: str) -> Trouble:
    """Return the meaning of git's stderr (in the C locale)."""
    text = complaint.lower()
    return next((kind for kind, signs in _SIGNS if re.search(signs, text)), Trouble.OTHER)


_MEANINGS = (
    (
        r"host identification has changed",
        "the host key changed",
        "compare the new key with the published one, then: mayfly secrets set --git known_hosts",
    ),
    (
        r"no \S+ host key is known for",
        "no host key is known for the server",
        "compare ssh-keyscan with the published key, then: mayfly secrets set --git known_hosts",
    ),
    (
        r"certificate",
        "the host's certificate is not trusted",
        "check this machine's clock, and at the authorities it knows (GIT_SSL_CAINFO)",
    ),
    (
        r"permission denied \(.*publickey",
        "the server rejected the key",
        "add its public half to the repository as a deploy key; read-only is enough",
    ),
    (
        # GitLab says of every refusal that a token is "either incorrect, expired, or improperly scoped".
        r"(?<!incorrect, )expired",
        "the token has expired",
        "make a new one that may read the repository: mayfly secrets set --git token",
    ),
    (
        r"authentication failed|could not read (username|password)|returned error: 401",
        "the server rejected the token: it is wrong, expired or revoked",
        "make a new one that may read the repository: mayfly secrets set --git token",
    ),
    (
        r"returned error: 403|access denied",
        "the token may not read this repository",
        "give it the right to read the repository's contents; no other is needed",
    ),
)


def meaning_of(complaint: str, trouble: Trouble, *, with_login: bool) -> tuple[str, str]:
    """Return what git's stderr means for credentials, and the remedy; the first is empty if the text is clear.

    `with_login`: the configuration has credentials.
    """
    text = complaint.lower()
    if trouble is Trouble.MISSING:
        return "", (
            "check release.repository, and that the credentials may read it: hosts answer the same for hidden ones"
            if with_login
            else "check release.repository and that its host lets this machine in; a private one needs"
            " release.credentials"
        )
    if trouble is not Trouble.REFUSED:
        return "", ""
    found = ((what, remedy) for sign, what, remedy in _MEANINGS if re.search(sign, text))
    what, remedy = next(found, ("", ""))
    if with_login or "host" in what:  # also without credentials of ours
        return what, remedy or "check release.credentials"
    return "", (
        "set release.credentials; or check those in release.repository, or the machine's key and known hosts"
    )
