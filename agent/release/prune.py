"""Clean-up after a run was committed: old releases, their images, and caches that have grown too large."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from agent.base import durable
from agent.base.errors import ReleaseError
from agent.jobs.containers.leftovers import remove_built
from agent.jobs.isolation.diskwatch import occupied
from agent.release.context import ReleaseContext
from agent.release.environment import run_uv
from agent.release.images import remove_images
from agent.release.retention import Stored, to_remove
from agent.release.store import (
    TREE,
    folders,
    on_disk,
    read_marker,
    remove_if_possible,
    sweep,
)

SECONDS = 30.0
"""Limit of the whole clean-up: the machine costs money meanwhile, and the next run does the rest."""
UV_SECONDS = 20.0


async def prune(context: ReleaseContext, running: str, *, budget: int, grown: bool) -> None:
    """Remove what no run needs, for at most `SECONDS`; failures are only logged.

    The commit `running` stays. Releases and caches may take `budget` bytes; caches are measured if they have `grown`.
    """
    try:
        async with asyncio.timeout(SECONDS):
            await _releases(context, running, budget)
            await _unused_images(context)
            if grown:
                await _caches(context, budget)
    except TimeoutError:
        context.log.warning("tidy.out_of_time", seconds=SECONDS)
    except (ReleaseError, OSError) as error:
        context.log.warning("tidy.failed", reason=str(error))


async def _releases(context: ReleaseContext, running: str, budget: int) -> None:
    store, known = context.release_store, context.memory.known
    await sweep(store, context.log)
    present = folders(store)
    good = [one.commit for one in known.good(context.version)]
    pinned = known.pin.commit if known.pin else None
    needed = {running, store.image_commit, pinned, *good[:1]}
    if all(place.name in needed for place in present):
        return  # the usual case: nothing is measured
    stored = await asyncio.to_thread(lambda: [_stored(place) for place in present])
    stays = {commit for commit in needed if commit}
    for commit in to_remove(stored, needed=stays, good=good[::-1], budget=budget):
        # Before its files: once they are gone, nothing leads to the images.
        await remove_built(store.root(commit) / TREE, context.environ, context.log)
        if await remove_if_possible(store.root(commit), context.log):
            context.log.info("tidy.release_removed", commit=commit)


async def _unused_images(context: ReleaseContext) -> None:
    """Remove images that we pulled for releases, once no release on disk pins them."""
    images = context.memory.images
    if context.browser is None or not images:
        return
    used = {context.browser.image, *await asyncio.to_thread(_pins, context)}
    gone = await remove_images([image for image in images if image not in used], context.environ)
    if gone:
        context.log.info("tidy.images_removed", images=gone)
        context.memory.keep_images([image for image in images if image not in gone])


def _pins(context: ReleaseContext) -> set[str]:
    found = set()
    for place in context.release_store.releases.iterdir():
        with suppress(ReleaseError):
            jobs = on_disk(context.release_store, place.name, context.checks).jobs
            if jobs.browser is not None:
                found.add(jobs.browser.image)
    return found


async def _caches(context: ReleaseContext, budget: int) -> None:
    """Shrink uv's cache, then remove the mirror, while everything together is above the budget."""
    store = context.release_store
    cache = store.cache / "uv"
    rest = await asyncio.to_thread(occupied, [store.releases, store.mirror])
    for command in ("prune", "clean"):
        if rest + await asyncio.to_thread(occupied, [cache]) <= budget:
            return
        await _shrink(context, cache, command)
    if rest + await asyncio.to_thread(occupied, [cache]) > budget:
        # It only saves transfers, and the next run makes it anew.
        await asyncio.to_thread(durable.remove_tree, store.mirror)
        context.log.info("tidy.mirror_removed")


async def _shrink(context: ReleaseContext, cache: Path, command: str) -> None:
    try:
        done = await run_uv(
            *("cache", command),
            environ={
                "PATH": context.environ.get("PATH", os.defpath),
                "HOME": str(context.release_store.cache),
                "UV_CACHE_DIR": str(cache),
            },
            seconds=UV_SECONDS,
        )
    except ReleaseError as error:
        context.log.warning("tidy.cache_kept", reason=str(error))
        return
    context.log.info("tidy.cache", command=f"cache {command}", said=done.complaint)


def _stored(place: Path) -> Stored:
    marker = read_marker(place)
    age = marker.fetched.timestamp() if marker else 0.0
    return Stored(place.name, occupied([place]), age)
