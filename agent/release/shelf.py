"""The releases on disk: each complete or not there, and which of them is the last good one.

A release is made under its final name, because a virtual environment cannot be moved. It is complete once its marker
exists, which is written last; what has none was being made when the power went, and is removed.
"""

import asyncio
import base64
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
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
from agent.config.jobsfile import JobsFile
from agent.release.checks import Checks, checked_jobs
from agent.release.record import Remembered
from agent.release.trust import Floor, Signed, Signer, raised

MARKER = "release.json"
TREE = "tree"
ENVIRONMENT = "env"
DRAFT = ".tmp"
"""At the end of the name of a release that is being made."""

_COMMIT = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class Shelf:
    """The places in which releases are kept.

    Attributes:
        releases: A directory for each release, named by its commit.
        good: Symbolic link to the last good one.
        baked: Symbolic link to the one that came with the machine's image; no run moves it.
        record: What is remembered about releases.
        mirror: The bare repository that the agent owns.
        cache: Caches that may be deleted at any time; uv's is in it.
    """

    releases: Path
    good: Path
    baked: Path
    record: Path
    mirror: Path
    cache: Path

    @classmethod
    def at(cls, state: Path, cache: Path) -> "Shelf":
        """Return the shelf in a state directory. Absolute: environments have their path written into them."""
        state = state.absolute()
        return cls(
            releases=state / "releases",
            good=state / "good",
            baked=state / "baked",
            record=state / "releases" / "record.json",
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
    if marker.signed is None:
        return None
    return Signed("tag" if marker.tag else "commit", base64.b64decode(marker.signed))


def encoded(signed: Signed | None) -> str | None:
    """Return a signed object as a marker holds it."""
    return None if signed is None else base64.b64encode(signed.data).decode()


def floor_of(release: Installed) -> Floor:
    """Return the floor that a release sets."""
    return Floor(ref=release.ref, commit=release.commit, time=release.time)


def promote(shelf: Shelf, release: Installed) -> None:
    """Make a release the last good one, in a single rename; a kill leaves the old one or the new one.

    Its trial is over, and of its line nothing older will run by itself any more.

    Raises:
        ReleaseError: The disk does not take it; the old one stands.
    """
    point_good(shelf, release.root, release.ref)
    record = Remembered.read(shelf.record)
    memory = record.memory.with_good(release.commit)
    floors = raised(memory.floors, release.line, floor_of(release), is_tag=release.is_tag)
    record.keep(memory.model_copy(update={"floors": floors}))


def bake(shelf: Shelf, release: Installed) -> None:
    """Make a release the one that came with the machine's image: the last resort.

    Raises:
        ReleaseError: The disk does not take it.
    """
    try:
        durable.point_to(shelf.baked, os.path.relpath(release.root, shelf.baked.parent))
    except OSError as error:
        raise ReleaseError(f"{release.ref} could not be marked: {error}") from error


def point_good(shelf: Shelf, root: Path, ref: str) -> None:
    """Have the link to the last good release name another one, unless it does.

    Raises:
        ReleaseError: The disk does not take it; the old one stands.
    """
    target = os.path.relpath(root, shelf.good.parent)
    with suppress(OSError):
        if str(shelf.good.readlink()) == target:
            return
    try:
        durable.point_to(shelf.good, target)
    except OSError as error:
        raise ReleaseError(f"{ref} could not be made the last good one: {error}") from error


def good_commit(shelf: Shelf) -> str | None:
    """Return the commit of the last good release, or None when there is none."""
    return linked_commit(shelf.good)


def linked_commit(link: Path) -> str | None:
    """Return the commit that a link of the shelf names, or None when there is none."""
    try:
        name = link.readlink().name
    except OSError:
        return None
    return name if _COMMIT.fullmatch(name) else None


def last_good(
    shelf: Shelf, *, jobs: str, version: str, environ: Mapping[str, str]
) -> Installed | None:
    """Return the last good release, or None when there is none.

    Args:
        shelf: Where releases are.
        jobs: Path of the jobs file in a release.
        version: This agent's version.
        environ: Its PATH is where programs are looked for that the release does not bring.

    Raises:
        ReleaseError: There is one, but this agent cannot run it.
    """
    commit = good_commit(shelf)
    return None if commit is None else on_disk(shelf, commit, Checks(jobs, version, environ))


def on_disk(shelf: Shelf, commit: str, checks: Checks) -> Installed:
    """Return the release of a commit.

    Raises:
        ReleaseError: It is not whole, or this agent cannot run it.
    """
    root = shelf.root(commit)
    marker = read_marker(root)
    if marker is None:
        which = "last good " if commit == good_commit(shelf) else ""
        raise ReleaseError(f"the {which}release {commit[:12]} is damaged")
    return load(root, marker, checks)


def folders(shelf: Shelf) -> list[Path]:
    """Return the folders of releases, whole or not; one that is not named after a commit is not the agent's.

    Raises:
        OSError: The directory cannot be read.
    """
    return [
        place
        for place in shelf.releases.iterdir()
        if _COMMIT.fullmatch(place.name.partition(".")[0]) and place.is_dir()
    ]


async def sweep(shelf: Shelf) -> list[str]:
    """Remove what killed agents left unfinished, and return the names of it.

    Raises:
        ReleaseError: It cannot be removed, or the directory cannot be used.
    """
    try:
        shelf.releases.mkdir(parents=True, exist_ok=True)
        unfinished = [
            place
            for place in folders(shelf)
            if place.name.endswith(DRAFT) or not (place / MARKER).exists()
        ]
    except OSError as error:
        raise ReleaseError(f"{shelf.releases} cannot be used: {error}") from error
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
