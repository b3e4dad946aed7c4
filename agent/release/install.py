"""Installs a fetched release: its files, its environment, its marker, in this order."""

import asyncio
import time
from pathlib import Path

from agent.base.durable import sync_file_system
from agent.base.errors import ReleaseError
from agent.base.threads import in_thread
from agent.base.versions import Track
from agent.release.advice import needed, refuse_unpinned
from agent.release.checks import read_jobs
from agent.release.context import ReleaseContext, refusing, since
from agent.release.environment import make_environment
from agent.release.mirror import Mirror
from agent.release.repository import TRACK
from agent.release.store import (
    TREE,
    Installed,
    Marker,
    load,
    remove,
    seal,
    write_marker,
)

SYNC_SECONDS = 120.0
"""Limit for writing a release's files to the disk; a small cloud disk does 125 MB/s."""


async def install(context: ReleaseContext, mirror: Mirror, marker: Marker) -> Installed:
    """Export a fetched release, make its environment, check it, and only then declare it complete.

    Raises:
        ReleaseRefused: It may not be installed, or its lock or its jobs are wrong.
        ReleaseError: The disk does not take it.
        GitError: git lost a part of it.
    """
    started = time.monotonic()
    root = context.release_store.root(marker.commit)
    if root.exists():
        await remove(root)
    await _export(context, mirror, marker.commit, root)
    with refusing("content"):
        # Before the environment, which takes longest.
        jobs = await asyncio.to_thread(read_jobs, root / TREE, context.checks)
    with refusing("install"):
        dependencies = await asyncio.to_thread(needed, root / TREE, jobs, context.checks.jobs)
        refuse_unpinned(dependencies, signed=context.settings.allowed_signers is not None)
    if dependencies is not None:
        track = Track(context.settings.track or TRACK)
        version = track.version(marker.ref) if marker.tag else None
        with refusing("install"):
            await make_environment(
                context, root, str(version or f"0+g{marker.commit[:12]}"), dependencies
            )
    marker = marker.model_copy(update={"environment": dependencies is not None})
    with refusing("content"):
        release = await asyncio.to_thread(load, root, marker, context.checks)
    await seal(root)
    await _to_disk(root)
    write_marker(root, marker)
    context.log.info(
        "release.installed", ref=marker.ref, commit=marker.commit, seconds=since(started)
    )
    return release


async def _export(context: ReleaseContext, mirror: Mirror, commit: str, root: Path) -> None:
    started = time.monotonic()
    entries = await mirror.entries(commit)
    await mirror.export(entries, root / TREE)
    context.log.info(
        "release.exported",
        commit=commit,
        files=len(entries),
        bytes=sum(entry.bytes for entry in entries),
        seconds=since(started),
    )


async def _to_disk(root: Path) -> None:
    try:
        await in_thread(lambda: sync_file_system(root), seconds=SYNC_SECONDS)
    except TimeoutError as error:
        raise ReleaseError(f"no end of writing to the disk in {SYNC_SECONDS:g} s") from error
    except OSError as error:
        raise ReleaseError(f"it could not be written to the disk: {error}") from error
