"""The releases on disk: each complete or not there, and which of them came with the machine's image.

A release is made under its final name, because a virtual environment cannot be moved. It is complete once its marker
exists, which is written last; without one it was being made when the power went, and is removed.
"""

import asyncio
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from agent.base import durable
from agent.base.errors import ReleaseError
from agent.base.logs import Log
from agent.base.regular import read_regular
from agent.config.jobsfile import JobsFile, family_of
from agent.contract.facts import Signer
from agent.contract.releases import MOST_NAMED, MOST_SIGNED, Good
from agent.contract.results import LONGEST_SECONDS
from agent.release.checks import Checks, checked_jobs
from agent.release.trust import Signed

MARKER = "release.json"
MOST_MARKER_BYTES = 1024**2
TREE = "tree"
ENVIRONMENT = "env"
DRAFT = ".tmp"
"""Suffix of a release that is being removed."""

_COMMIT = re.compile(r"^(?:[0-9a-f]{40}|[0-9a-f]{64})$")


@dataclass(frozen=True, slots=True)
class ReleaseStore:
    """The places of releases.

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
        """Return the release store in a state directory. Absolute: environments contain their path."""
        state = state.absolute()
        return cls(
            releases=state / "releases",
            baked=state / "baked",
            copy=state / "releases" / "known.json",
            mirror=state / "mirror.git",
            cache=cache.absolute(),
        )

    def root(self, commit: str) -> Path:
        """Return the directory of a commit's release, whether it exists or not."""
        return self.releases / commit

    @property
    def image_commit(self) -> str | None:
        """The commit of the release that came with the machine's image; None if none did."""
        try:
            name = self.baked.readlink().name
        except OSError:
            return None
        return name if _COMMIT.fullmatch(name) else None

    def marker(self, commit: str | None) -> "Marker | None":
        """Return the marker of a commit's release as `read_marker` does; None without a commit."""
        return read_marker(self.root(commit)) if commit else None


class Marker(Good):
    """`release.json`: says that the directory it is in is complete.

    Attributes:
        signed: The object that carries its signature, in base64 and of any size; None when nobody asked for one.
        environment: Whether its lock asked for an environment of its own.
        verified_by: Who signed it; None when nobody has to.
    """

    version: Literal[1] = 1
    signed: str | None = None
    environment: bool
    verified_by: Signer | None = None

    @property
    def signed_object(self) -> Signed | None:
        """The object that carries its signature."""
        return None if self.signed is None else Signed.parse(self.signed, tag=self.tag)


@dataclass(frozen=True, slots=True)
class Installed:
    """A release that is complete in the directory `root` and was checked by this agent; its jobs are expanded."""

    marker: Marker
    root: Path
    jobs: JobsFile

    @property
    def commit(self) -> str:
        """Its commit."""
        return self.marker.commit

    @property
    def ref(self) -> str:
        """Tag or branch under which it was last wanted."""
        return self.marker.ref

    @property
    def tree(self) -> Path:
        """Its files: the working directory of its jobs."""
        return self.root / TREE

    def age_seconds(self, now: datetime) -> float:
        """Return how long ago it was first fetched, in the bounds of a manifest: the clock may have been wrong then."""
        age = (now - self.marker.fetched).total_seconds()
        return min(max(0.0, age), LONGEST_SECONDS)

    @property
    def programs(self) -> Path | None:
        """The `bin` of its environment, which comes first on its jobs' PATH; None without one."""
        return self.root / ENVIRONMENT / "bin" if self.marker.environment else None


def read_marker(root: Path) -> Marker | None:
    """Return the marker of a complete release; None if it is incomplete, damaged, or of a newer agent.

    An environment without its interpreter is damage too: it can only be made again.
    """
    try:
        marker = Marker.model_validate_json(read_regular(root / MARKER, MOST_MARKER_BYTES))
    except (OSError, ValidationError):
        return None
    whole = marker.commit == root.name and (root / TREE).is_dir()
    python = root / ENVIRONMENT / "bin" / "python"
    return marker if whole and (not marker.environment or os.access(python, os.X_OK)) else None


def write_marker(root: Path, marker: Marker) -> None:
    """Declare a release complete, or give it the name under which it is wanted now.

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
    return Installed(marker, root, checked_jobs(root / TREE, programs, checks))


def good_of(release: Installed) -> Good:
    """Return what the bucket keeps of a release that proved itself, so that it can be restored without this disk."""
    known = {name: getattr(release.marker, name) for name in Good.model_fields}
    if len(release.marker.signed or "") > MOST_SIGNED:
        known["signed"] = None
    declared = sorted({family_of(job) for job in release.jobs.job})
    return Good.model_validate(
        {**known, "jobs": None if len(declared) > MOST_NAMED else tuple(declared)}
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


def has_fallback(release_store: ReleaseStore, good: Iterable[Good], commit: str) -> bool:
    """Tell whether another release proved itself or came with the image."""
    known = (*(one.commit for one in good), release_store.image_commit)
    return any(one not in {None, commit} for one in known)


def last_here(
    release_store: ReleaseStore, good: Iterable[Good], checks: Checks
) -> Installed | None:
    """Return the last good release that is on this disk, else the image's; None if neither is.

    Raises:
        ReleaseError: There is one, but this agent cannot run it.
    """
    commits = (*(one.commit for one in good), release_store.image_commit)
    here = next((one for one in commits if one and release_store.root(one).is_dir()), None)
    return None if here is None else on_disk(release_store, here, checks)


def on_disk(release_store: ReleaseStore, commit: str, checks: Checks) -> Installed:
    """Return the release of a commit.

    Raises:
        ReleaseError: It is incomplete, or this agent cannot run it.
    """
    marker = release_store.marker(commit)
    if marker is None:
        raise ReleaseError(f"the release {commit[:12]} is damaged")
    return load(release_store.root(commit), marker, checks)


def folders(release_store: ReleaseStore) -> list[Path]:
    """Return the folders of releases, complete or not; one that is not named after a commit is not the agent's.

    Raises:
        OSError: The directory cannot be read.
    """
    return [
        place
        for place in release_store.releases.iterdir()
        if _COMMIT.fullmatch(place.name.partition(".")[0]) and place.is_dir()
    ]


async def sweep(release_store: ReleaseStore, log: Log) -> None:
    """Remove what killed agents left unfinished. What cannot be removed keeps nobody from a release, and is logged.

    Raises:
        ReleaseError: The directory cannot be used.
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
        if await remove_if_possible(place, log):
            log.info("release.swept", name=place.name)


async def remove_if_possible(root: Path, log: Log) -> bool:
    """Do what `remove` does, and return whether it worked; the reason why not is logged."""
    try:
        await remove(root)
    except ReleaseError as error:
        log.warning("release.not_removed", name=root.name, reason=str(error))
        return False
    return True


async def remove(root: Path) -> None:
    """Remove a release. It stops being one at once, by a rename, however long the rest takes.

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
    durable.remove_tree(root)


async def seal(root: Path) -> None:
    """Make a release's files read-only, and readable for everybody: jobs may be other users.

    Raises:
        ReleaseError: The disk does not take it.
    """
    try:
        await asyncio.to_thread(_seal, root)
    except OSError as error:
        raise ReleaseError(f"it could not be made read-only: {error}") from error


def _seal(root: Path) -> None:
    root.chmod(0o755)
    for part in (TREE, ENVIRONMENT):
        for folder, _, files in os.walk(root / part, topdown=False):
            for name in files:
                file = Path(folder, name)
                if not file.is_symlink():
                    file.chmod(0o555 if file.stat().st_mode & 0o111 else 0o444)
            Path(folder).chmod(0o555)
