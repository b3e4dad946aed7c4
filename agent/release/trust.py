"""Who may sign a release, and the order of versions: decisions about signatures, without checking any.

git and ssh-keygen check the signature itself (`agent.release.verify`). What they do not check is decided here: that
the signed object is the one that was asked for, and not an old one put back.

Decisions only.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from agent.base.versions import Track
from agent.contract.facts import Signer
from agent.contract.releases import Version
from agent.release.repository import ObjectFormat, Wanted, format_of

Kind = Literal["tag", "commit"]

_GOOD = re.compile(r'Good "git" signature for (\S+) with \S+ key (SHA256:[A-Za-z0-9+/=]+)')
_WORD = re.compile(rb'(?:"[^"]*"|[^\s"])+')
"""A word of an allowed_signers line; quotes keep spaces together."""
_HEADER = re.compile(rb"([a-z]+) ([^\n]*)")
_TIME = re.compile(rb".*> (\d{1,15}) [+-]\d{4}")


@dataclass(frozen=True, slots=True)
class Signed:
    """A git object that carries the signature of a release.

    Attributes:
        kind: A tag, or the commit of a branch.
        data: The object as git stores it, without git's own header.
    """

    kind: Kind
    data: bytes

    @classmethod
    def parse(cls, text: str, *, tag: bool) -> "Signed":
        """Return an object from base64; a damaged one is an object that nobody signed."""
        with suppress(ValueError):
            return cls("tag" if tag else "commit", base64.b64decode(text))
        return cls("tag" if tag else "commit", b"")

    @property
    def text(self) -> str:
        """The object in base64."""
        return base64.b64encode(self.data).decode()

    @property
    def object_format(self) -> ObjectFormat:
        """Its repository's object format, by the name of the object that it points to."""
        first = _HEADER.match(self.data)
        return format_of(first.group(2).decode(errors="replace") if first else "")

    @property
    def oid(self) -> str:
        """Its name in git."""
        head = f"{self.kind} {len(self.data)}\0".encode()
        return hashlib.new(self.object_format, head + self.data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True, slots=True)
class Claim:
    """What a signed object says of itself.

    Attributes:
        commit: The commit that it points to; empty if it points to none.
        name: The tag's name; empty for a commit.
        time: When it was made, by its maker's clock, in Unix seconds; 0 if it does not say.
    """

    commit: str
    name: str
    time: int


def claim_of(signed: Signed) -> Claim:
    """Parse the headers. They come first, so that the signature covers them."""
    headers: dict[bytes, bytes] = {}
    for line in signed.data.partition(b"\n\n")[0].split(b"\n"):
        match = _HEADER.fullmatch(line)
        if match is not None:
            headers.setdefault(match.group(1), match.group(2))
    if signed.kind == "commit":
        return Claim(signed.oid, "", _time(headers.get(b"committer", b"")))
    commit = headers.get(b"object", b"") if headers.get(b"type") == b"commit" else b""
    name = headers.get(b"tag", b"").decode(errors="replace")
    return Claim(commit.decode(errors="replace"), name, _time(headers.get(b"tagger", b"")))


def _time(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    return int(match.group(1)) if match else 0


def claim_problem(signed: Signed, name: str, commit: str) -> str | None:
    """Return why a signed object does not stand for the release `name` at `commit`, or None.

    A signature says that somebody made this object, not where it may lie: a tag object that was signed as `v1.0` is
    equally valid under `refs/tags/v3.0`.
    """
    claim = claim_of(signed)
    if signed.kind == "tag" and claim.name != name:
        return f'its tag object was made as "{claim.name}", and lies under the name "{name}"'
    if claim.commit != commit:
        return f"what is signed is not commit {commit[:12]}"
    return None


def signer_of(said: str) -> Signer | None:
    """Return who signed, from the output of git's verification; None if nobody who may."""
    lines = [line for line in said.splitlines() if line.startswith("Good ")]
    match = _GOOD.fullmatch(lines[0]) if len(lines) == 1 else None
    return Signer(principal=match.group(1)[:300], key=match.group(2)) if match else None


def unsigned_reason(kind: Kind, said: str) -> str:
    """Return why there is no signer, from the output of git's verification."""
    what = "the tag" if kind == "tag" else "the commit"
    key = re.search(r"key (SHA256:\S+)", said)
    if "no signature found" in said or not said.strip():
        return f"{what} is not signed"
    if "No principal matched" in said and key:
        return (
            f"{what} was signed with a key that is not in release.allowed_signers: {key.group(1)}"
        )
    if "expired" in said or "not yet valid" in said or "not valid" in said:
        return f"{what} was signed outside of the time in which its key is valid"
    return f"{what} has no valid ssh signature: {' '.join(said.split())[:200]}"


def signers_problem(text: bytes) -> str | None:
    """Return why a text is not an allowed_signers file, or None."""
    lines = _signer_lines(text)
    if not lines:
        return "names no signer"
    if not any(map(_has_key, lines.values())):
        return "has no line with a key"
    return None


def keyless_lines(text: bytes) -> tuple[int, ...]:
    """Return the numbers of the lines without a key; ssh-keygen ignores them."""
    return tuple(number for number, line in _signer_lines(text).items() if not _has_key(line))


def _signer_lines(text: bytes) -> dict[int, bytes]:
    lines = ((number, line.strip()) for number, line in enumerate(text.split(b"\n"), 1))
    return {number: line for number, line in lines if line and not line.startswith(b"#")}


def _has_key(line: bytes) -> bool:
    """Tell whether a line has principals, perhaps options, and a key: its kind, and the same kind within it."""
    words = _WORD.findall(line)
    return any(_is_key(kind, data) for kind, data in pairwise(words[1:4]))


def _is_key(kind: bytes, data: bytes) -> bool:
    try:
        blob = base64.b64decode(data, validate=True)
    except binascii.Error:
        return False
    # RFC 4253, 6.6: a length of four bytes, and the kind; the key itself follows.
    head = len(kind).to_bytes(4, "big") + kind
    return blob.startswith(head) and len(blob) > len(head)


def line_of(repository: str, branch: str | None, track: str) -> str:
    """Return the name of a line of releases: versions are compared only within it."""
    return f"{repository} {'branch' if branch else 'tags'} {branch or track}"


def _track_of(line: str) -> Track:
    """Return the pattern of a line of tags; tag names have no spaces."""
    return Track(line.rpartition(" ")[2])


def order_of(version: Version) -> tuple[Any, ...]:
    """Return a sort key within a line: the version for tags, the time for a branch's commits."""
    return _track_of(version.line).order(version.ref) if version.tag else (version.time,)


def minimum_problem(minimum: Version | None, ref: str, *, is_tag: bool) -> str | None:
    """Return why a tag is older than the minimum version of its line, or None."""
    if minimum is None or not (is_tag and minimum.tag):
        return None
    order = _track_of(minimum.line).order
    return (
        None
        if order(ref) >= order(minimum.ref)
        else f"it is older than {minimum.ref}, which ran here before"
    )


def to_try(candidates: Sequence[Wanted], minimum: Version | None) -> tuple[Wanted, ...]:
    """Return the candidates (newest first) to try one after the other until one can run.

    The newest is judged in any case; the others only if they are not below the minimum version.
    """
    older = (
        each
        for each in candidates[1:]
        if minimum_problem(minimum, each.name, is_tag=each.is_tag) is None
    )
    return (*candidates[:1], *older)


def forced_back_problem(minimum: Version | None, head: Version) -> str | None:
    """Return why the head of a branch (`head.time` as it is signed) is a step back, or None.

    The commit's own time is signed with it, so that an old commit cannot pass as new. Its history is not asked: the
    mirror has none, and an owner who amends the last commit does no harm.
    """
    if minimum is None or head.commit == minimum.commit or head.time >= minimum.time:
        return None
    return (
        f"the branch {head.ref} was forced back: commit {head.commit[:12]} is older than"
        f" {minimum.commit[:12]}, which ran here before"
    )


def highest(versions: Iterable[Version | None]) -> Version | None:
    """Return the highest version of a line."""
    known = filter(None, versions)
    return max(known, key=lambda one: (order_of(one), one.commit), default=None)
