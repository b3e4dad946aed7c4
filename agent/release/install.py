"""A fetched release becomes one on disk: its files, its environment, its marker, in this order."""

import time
from collections.abc import Mapping
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError
from agent.base.versions import Track
from agent.release import environment
from agent.release.advice import needed, refuse_unpinned
from agent.release.checks import read_jobs
from agent.release.dependencies import Dependencies
from agent.release.means import Means, refusing, since
from agent.release.mirror import Mirror
from agent.release.passing import mark
from agent.release.repository import TRACK, Wanted
from agent.release.shelf import (
    ENVIRONMENT,
    TREE,
    Installed,
    Marker,
    load,
    remove,
    seal,
    write_marker,
)
from agent.release.verify import Trust

SYNC_SECONDS = 120.0
"""What writing a new release's files to the disk may take; a small cloud disk does 125 MB/s."""


async def install(means: Means, mirror: Mirror, wanted: Wanted, marker: Marker) -> Installed:
    """Export a fetched release, make its environment, check it, and only then declare it complete.

    Raises:
        ReleaseRefused: It may not be installed, or its lock or its jobs are wrong.
        ReleaseError: The disk does not take it.
        GitError: git lost a part of it.
    """
    started = time.monotonic()
    root = means.shelf.root(wanted.commit)
    if root.exists():
        await remove(root)
    await _export(means, mirror, wanted.commit, root)
    with refusing("content"):
        # Before an environment is made for nothing.
        jobs = read_jobs(root / TREE, means.checks)
    with refusing("install"):
        dependencies = needed(root / TREE, jobs, means.checks.jobs)
        signed = Trust.of(means.settings).signers is not None
        refuse_unpinned(dependencies, signed=signed)
    if dependencies is not None:
        await _make_environment(means, root, wanted, dependencies)
    marker = marker.model_copy(update={"environment": dependencies is not None})
    with refusing("content"):
        release = load(root, marker, means.checks)
    await seal(root)
    await _to_disk(root, means.checks.environ)
    write_marker(root, marker)
    means.log.info(
        "release.installed", ref=wanted.name, commit=wanted.commit, seconds=since(started)
    )
    return release


async def _make_environment(
    means: Means, root: Path, wanted: Wanted, dependencies: Dependencies
) -> None:
    with refusing("install"):
        await environment.install(
            root / TREE,
            root / ENVIRONMENT,
            dependencies,
            version=_version(means, wanted),
            cache=means.shelf.cache,
            environ=means.checks.environ,
            mark=mark(means.shelf.mirror),
            seconds=means.settings.install_timeout,
            log=means.log,
            logins=means.keyring.indexes if means.keyring else environment.no_logins,
        )


def _version(means: Means, wanted: Wanted) -> str:
    """Return the release's version; of a branch one that names the commit."""
    known = Track(means.settings.track or TRACK).version(wanted.name) if wanted.is_tag else None
    return str(known) if known else f"0+g{wanted.commit[:12]}"


async def _export(means: Means, mirror: Mirror, commit: str, root: Path) -> None:
    started = time.monotonic()
    entries = await mirror.entries(commit)
    await mirror.export(entries, root / TREE)
    means.log.info(
        "release.exported",
        commit=commit,
        files=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        seconds=since(started),
    )


async def _to_disk(root: Path, environ: Mapping[str, str]) -> None:
    """Have the whole file system written: one call, where thousands of files would need one each."""
    try:
        done = await processes.run(
            ("sync", "--file-system", str(root)), environ=environ, seconds=SYNC_SECONDS
        )
    except (ProcessTimeout, OSError) as error:
        raise ReleaseError(f"it could not be written to the disk: {error}") from error
    if done.code != 0:
        raise ReleaseError(f"it could not be written to the disk: {done.complaint}")
