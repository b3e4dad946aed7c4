"""Whom a release may come from, and which way versions go: decisions about signatures, without checking any.

git and ssh-keygen check the signature itself (`agent.release.verify`). What they do not look at is decided here:
that the signed object is the one that was asked for, and that it is not an old one put back.

Decisions only.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from agent.base.versions import Track
from agent.contract.facts import Signer
from agent.contract.releases import Version
from agent.contract.results import Record
from agent.release.repository import ObjectFormat, Wanted, format_of

Kind = Literal["tag", "commit"]

_GOOD = re.compile(r'Good "git" signature for (\S+) with \S+ key (SHA256:[A-Za-z0-9+/=]+)')
_WORD = re.compile(rb'(?:"[^"]*"|[^\s"])+')
"""A word of an allowed_signers line: what is between quotes belongs together."""
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

    @property
    def object_format(self) -> ObjectFormat:
        """How its repository names objects: as this one names the tree or the commit that it stands for."""
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
        commit: The commit that it stands for; empty when it stands for none.
        name: The tag's name; empty for a commit.
        time: When it was made, by its maker's clock, in Unix seconds; 0 when it does not say.
    """

    commit: str
    name: str
    time: int


def claim_of(signed: Signed) -> Claim:
    """Return what the headers say. They come first, so that the signature covers them."""
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
    """Return why a signed object does not stand for a release, or None.

    A signature says that somebody made this object, not where it may lie: a tag object that was signed as `v1.0` is
    as valid under `refs/tags/v3.0`.

    Args:
        signed: The object.
        name: The tag or branch that was asked for.
        commit: The commit that would run.
    """
    claim = claim_of(signed)
    if signed.kind == "tag" and claim.name != name:
        return f'its tag object was made as "{claim.name}", and lies under the name "{name}"'
    if claim.commit != commit:
        return f"what is signed is not commit {commit[:12]}"
    return None


def signer_of(said: str) -> Signer | None:
    """Return who signed, from what git's verification printed; None when it is nobody that is allowed."""
    lines = [line for line in said.splitlines() if line.startswith("Good ")]
    match = _GOOD.fullmatch(lines[0]) if len(lines) == 1 else None
    return Signer(principal=match.group(1)[:300], key=match.group(2)) if match else None


def unsigned_reason(kind: Kind, said: str) -> str:
    """Return why there is no signer, from what git's verification printed."""
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
    """Return why a file cannot be an allowed_signers file, or None."""
    lines = _signer_lines(text)
    if not lines:
        return "names nobody"
    if not any(map(_has_key, lines.values())):
        return "has no line with a key"
    return None


def keyless_lines(text: bytes) -> tuple[int, ...]:
    """Return the numbers of the lines that are to name somebody and have no key; ssh-keygen passes over them."""
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


class Floor(Record):
    """The newest release of a line that was ever verified and found good: nothing below it runs by itself."""

    ref: str
    commit: str
    time: int = 0


def line_of(repository: str, branch: str | None, track: str) -> str:
    """Return the name of a line of releases: versions are compared within it, and nowhere else."""
    return f"{repository} {'branch' if branch else 'tags'} {branch or track}"


def _track_of(line: str) -> Track:
    """Return the pattern of a line of tags; no tag has a space in its name."""
    return Track(line.rpartition(" ")[2])


def order_of(version: Version) -> tuple[Any, ...]:
    """Return a sort key of a release among those of its line: by version for tags, by time for a branch's commits."""
    return _track_of(version.line).order(version.ref) if version.tag else (version.time,)


def floor_problem(floor: Floor | None, line: str, ref: str, *, is_tag: bool) -> str | None:
    """Return why a tag is a step back, or None."""
    order = _track_of(line).order
    if floor is None or not is_tag or order(ref) >= order(floor.ref):
        return None
    return f"it is older than {floor.ref}, which ran here before"


def to_try(candidates: Sequence[Wanted], floor: Floor | None, line: str) -> tuple[Wanted, ...]:
    """Return which of the releases that a repository offers may be tried, one after the other until one can run.

    The newest is judged in any case; an older one is tried in its place unless it is older than what ran here before.

    Args:
        candidates: What is offered, the newest first.
        floor: The newest release of the line that was found good.
        line: The line.
    """
    older = (
        each
        for each in candidates[1:]
        if floor_problem(floor, line, each.name, is_tag=each.is_tag) is None
    )
    return (*candidates[:1], *older)


def forced_back_problem(floor: Floor | None, branch: str, claim: Claim) -> str | None:
    """Return why the head of a branch is a step back, or None.

    The commit's own time is signed with it, so that an old commit cannot be passed off as new. Its history is not
    asked: the mirror has none, and an owner who amends the last commit does no harm.
    """
    if floor is None or claim.commit == floor.commit or claim.time >= floor.time:
        return None
    return (
        f"the branch {branch} was forced back: commit {claim.commit[:12]} is older than"
        f" {floor.commit[:12]}, which ran here before"
    )


def highest(floors: Iterable[Floor | None], line: str, *, is_tag: bool) -> Floor | None:
    """Return the highest of some floors of a line."""
    order = _track_of(line).order
    return max(
        filter(None, floors),
        key=lambda floor: order(floor.ref) if is_tag else (floor.time,),
        default=None,
    )
