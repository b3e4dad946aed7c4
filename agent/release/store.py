"""The releases on disk: each complete or not there, and which of them came with the machine's image.

A release is made under its final name, because a virtual environment cannot be moved. It is complete once its marker
exists, which is written last; what has none was being made when the power went, and is removed.
"""

import asyncio
import base64
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from agent.base import durable
from agent.base.errors import ReleaseError
from agent.config.jobsfile import JobsFile, family_of
from agent.contract.facts import Signer
from agent.contract.releases import MOST_SIGNED, Good, Version
from agent.release.checks import Checks, checked_jobs
from agent.release.trust import Signed

MARKER = "release.json"
TREE = "tree"
ENVIRONMENT = "env"
DRAFT = ".tmp"
"""At the end of the name of a release that is being made."""

_COMMIT = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """The places in which releases are kept.

    Attributes:
        releases: A directory for each release, named by its commit.
        baked: Symbolic link to the one that came with the machine's image; no run moves it.
        copy: What was last known of releases, for a bucket that does not answer.
        mirror: The bare repository that the agent owns.
        cache: Caches that may be deleted at any time; uv's is in it.
    """

    releases: Path
    baked: Path
    copy: Path
    mirror: Path
    cache: Path

    @classmethod
    def at(cls, state: Path, cache: Path) -> "ReleaseStore":
        """Return the release store in a state directory. Absolute: environments have their path written into them."""
        state = state.absolute()
        return cls(
            releases=state / "releases",
            baked=state / "baked",
            copy=state / "releases" / "known.json",
            mirror=state / "mirror.git",
            cache=cache.absolute(),
        )

    def root(self, commit: str) -> Path:
        """Return where the release of a commit is, or would be."""
        return self.releases / commit


@dataclass(frozen=True, slots=True)
class Installed:
    """A release that is complete on disk and was checked by this agent.

    Attributes:
        commit: Its commit.
        ref: Tag or branch under which it was last wanted.
        repository: Where it came from, without credentials.
        fetched: When it was first fetched (aware, UTC).
        root: Its directory.
        jobs: Its jobs, expanded.
        has_environment: Whether it brought a lock, and so has an environment of its own.
        line: The line of releases it belongs to (`agent.release.trust.line_of`).
        is_tag: Whether `ref` is a tag.
        time: When it was tagged or committed, as it says itself, in Unix seconds.
        signed: The object that carries its signature; None when nobody asked for one.
        verified_by: Who signed it; None likewise.
    """

    commit: str
    ref: str
    repository: str
    fetched: datetime
    root: Path
    jobs: JobsFile
    has_environment: bool
    line: str = ""
    is_tag: bool = True
    time: int = 0
    signed: Signed | None = None
    verified_by: Signer | None = None

    @property
    def tree(self) -> Path:
        """Its files: the working directory of its jobs."""
        return self.root / TREE

    @property
    def programs(self) -> Path | None:
        """The `bin` of its environment, which comes first on its jobs' PATH; None without one."""
        return self.root / ENVIRONMENT / "bin" if self.has_environment else None


class Marker(BaseModel):
    """`release.json`: says that the directory it is in is complete."""

    model_config = ConfigDict(frozen=True)

    version: Literal[1] = 1
    commit: str = Field(pattern=_COMMIT.pattern)
    ref: str
    repository: str
    fetched: AwareDatetime
    environment: bool
    line: str = ""
    tag: bool = True
    time: int = 0
    signed: str | None = None
    """The signed object, in base64."""
    verified_by: Signer | None = None


def read_marker(root: Path) -> Marker | None:
    """Return the marker of a complete release, or None when it is incomplete, damaged, or of a newer agent.

    An environment whose interpreter was removed since is damage too: it can only be made again.
    """
    try:
        marker = Marker.model_validate_json((root / MARKER).read_bytes())
    except (OSError, ValidationError):
        return None
    whole = marker.commit == root.name and (root / TREE).is_dir()
    python = root / ENVIRONMENT / "bin" / "python"
    return marker if whole and (not marker.environment or os.access(python, os.X_OK)) else None


def write_marker(root: Path, marker: Marker) -> None:
    """Declare a release complete, or under which name it is wanted now.

    Raises:
        ReleaseError: The disk does not take it.
    """
    try:
        durable.write_atomic(root / MARKER, marker.model_dump_json(indent=1).encode())
        durable.sync_directory(root.parent)
    except OSError as error:
        raise ReleaseError(f"it could not be written: {error}") from error


def load(root: Path, marker: Marker, checks: Checks) -> Installed:
    """Return a complete release, once its jobs have been checked.

    Raises:
        ReleaseError: This agent cannot run its jobs; all faults are in the message.
    """
    programs = root / ENVIRONMENT / "bin" if marker.environment else None
    return Installed(
        commit=marker.commit,
        ref=marker.ref,
        repository=marker.repository,
        fetched=marker.fetched,
        root=root,
        jobs=checked_jobs(root / TREE, programs, checks),
        has_environment=marker.environment,
        line=marker.line,
        is_tag=marker.tag,
        time=marker.time,
        signed=_signed(marker),
        verified_by=marker.verified_by,
    )


def _signed(marker: Marker) -> Signed | None:
    return None if marker.signed is None else decoded(marker.signed, tag=marker.tag)


def decoded(signed: str, *, tag: bool) -> Signed:
    """Return a signed object from the form in which it is kept; damage is an object that nobody signed."""
    return Signed("tag" if tag else "commit", base64.b64decode(signed, validate=False))


def encoded(signed: Signed | None) -> str | None:
    """Return a signed object as a marker holds it."""
    return None if signed is None else base64.b64encode(signed.data).decode()


def version_of(release: Installed) -> Version:
    """Return a release as a step in its line."""
    return Version(
        line=release.line,
        tag=release.is_tag,
        ref=release.ref,
        commit=release.commit,
        time=release.time,
    )


def good_of(release: Installed) -> Good:
    """Return what is to be known of a release that proved itself, so that it can be had again without this disk."""
    signed = encoded(release.signed)
    declared = sorted({family_of(job) for job in release.jobs.job})
    return Good(
        **dict(version_of(release)),
        repository=release.repository,
        fetched=release.fetched,
        signed=signed if signed and len(signed) <= MOST_SIGNED else None,
        jobs=tuple(declared),
    )


def bake(release_store: ReleaseStore, release: Installed) -> None:
    """Make a release the one that came with the machine's image: the last resort.

    Raises:
        ReleaseError: The disk does not take it.
    """
    try:
        durable.point_to(
            release_store.baked, os.path.relpath(release.root, release_store.baked.parent)
        )
    except OSError as error:
        raise ReleaseError(f"{release.ref} could not be marked: {error}") from error


def linked_commit(link: Path) -> str | None:
    """Return the commit that a link of the release store names, or None when there is none."""
    try:
        name = link.readlink().name
    except OSError:
        return None
    return name if _COMMIT.fullmatch(name) else None


def has_fallback(release_store: ReleaseStore, good: Iterable[Good], commit: str) -> bool:
    """Tell whether there is a release that proved itself, or that came with the image, besides one."""
    known = (*(one.commit for one in good), linked_commit(release_store.baked))
    return any(one not in {None, commit} for one in known)


def last_here(
    release_store: ReleaseStore, good: Iterable[Good], checks: Checks
) -> Installed | None:
    """Return the last good release that is on this disk, else the image's; None when neither is.

    Raises:
        ReleaseError: There is one, but this agent cannot run it.
    """
    commits = (*(one.commit for one in good), linked_commit(release_store.baked))
    here = next((one for one in commits if one and release_store.root(one).is_dir()), None)
    return None if here is None else on_disk(release_store, here, checks)


def on_disk(release_store: ReleaseStore, commit: str, checks: Checks) -> Installed:
    """Return the release of a commit.

    Raises:
        ReleaseError: It is not whole, or this agent cannot run it.
    """
    root = release_store.root(commit)
    marker = read_marker(root)
    if marker is None:
        raise ReleaseError(f"the release {commit[:12]} is damaged")
    return load(root, marker, checks)


def folders(release_store: ReleaseStore) -> list[Path]:
    """Return the folders of releases, whole or not; one that is not named after a commit is not the agent's.

    Raises:
        OSError: The directory cannot be read.
    """
    return [
        place
        for place in release_store.releases.iterdir()
        if _COMMIT.fullmatch(place.name.partition(".")[0]) and place.is_dir()
    ]


async def sweep(release_store: ReleaseStore) -> list[str]:
    """Remove what killed agents left unfinished, and return the names of it.

    Raises:
        ReleaseError: It cannot be removed, or the directory cannot be used.
    """
    try:
        release_store.releases.mkdir(parents=True, exist_ok=True)
        unfinished = [
            place
            for place in folders(release_store)
            if place.name.endswith(DRAFT) or not (place / MARKER).exists()
        ]
    except OSError as error:
        raise ReleaseError(f"{release_store.releases} cannot be used: {error}") from error
    for place in unfinished:
        await remove(place)
    return [place.name for place in unfinished]


async def remove(root: Path) -> None:
    """Remove a release. It stops being one at once, in a rename, however long the rest takes.

    Raises:
        ReleaseError: It cannot be removed.
    """
    try:
        await asyncio.to_thread(_remove, root)
    except OSError as error:
        raise ReleaseError(f"{root} cannot be removed: {error}") from error


def _remove(root: Path) -> None:
    if not root.name.endswith(DRAFT):
        root = root.rename(root.with_name(f"{root.name}.{secrets.token_hex(4)}{DRAFT}"))
    # What is sealed can be renamed, but not emptied.
    for folder, _, _ in os.walk(root):  # from the top; links are not followed
        Path(folder).chmod(0o700)
    shutil.rmtree(root)


async def seal(root: Path) -> None:
    """Make a release's files read-only for everybody, and readable for everybody: jobs may be other users.

    Raises:
        ReleaseError: The disk does not take it.
    """
    try:
        await asyncio.to_thread(root.chmod, 0o755)
        for part in (TREE, ENVIRONMENT):
            await asyncio.to_thread(_seal, root / part)
    except OSError as error:
        raise ReleaseError(f"it could not be made read-only: {error}") from error


def _seal(top: Path) -> None:
    for folder, _, files in os.walk(top, topdown=False):
        for name in files:
            file = Path(folder, name)
            if not file.is_symlink():
                file.chmod(0o555 if file.stat().st_mode & 0o111 else 0o444)
        Path(folder).chmod(0o555)
