"""Clean-up after a run was committed: old releases, their images, and caches that have grown too large."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.base import durable
from agent.base.errors import ReleaseError
from agent.jobs.containers.leftovers import remove_built
from agent.jobs.isolation.diskwatch import occupied
from agent.release.context import ReleaseContext
from agent.release.images import remove_images
from agent.release.store import TREE, folders, on_disk, remove_if_possible, sweep

SECONDS = 30.0
"""Limit of the whole clean-up: the machine costs money meanwhile, and the next run does the rest."""
SPARE = 2
"""Former good releases that stay while there is room, for a rollback."""


async def prune(context: ReleaseContext, running: str, *, budget: int, grown: bool) -> None:
    """Remove what no run needs, for at most `SECONDS`; failures are only logged.

    The commit `running` stays. Releases and caches may take `budget` bytes, and are measured if they have `grown`.
    """
    try:
        async with asyncio.timeout(SECONDS):
            spare = await _old_releases(context, running)
            if grown:
                await _fit(context, spare, budget)
            await _unused_images(context)
    except TimeoutError:
        context.log.warning("tidy.out_of_time", seconds=SECONDS)
    except (ReleaseError, OSError) as error:
        context.log.warning("tidy.failed", reason=str(error))


async def _old_releases(context: ReleaseContext, running: str) -> list[Path]:
    """Remove releases that are neither needed nor spare; return the spare ones, the newest first."""
    store, known = context.release_store, context.memory.known
    await sweep(store, context.log)
    good = [one.commit for one in known.good(context.version)]
    pinned = known.pin.commit if known.pin else None
    needed = {running, store.image_commit, pinned, *good[:1]}
    others = [place for place in folders(store) if place.name not in needed]
    spare = [place for commit in good if (place := store.root(commit)) in others][:SPARE]
    for place in others:
        if place not in spare:
            await _remove(context, place)
    return spare


async def _remove(context: ReleaseContext, place: Path) -> None:
    # Before its files: once they are gone, nothing leads to the images.
    await remove_built(place / TREE, context.environ, context.log)
    if await remove_if_possible(place, context.log):
        context.log.info("tidy.release_removed", commit=place.name)


async def _fit(context: ReleaseContext, spare: Sequence[Path], budget: int) -> None:
    """Remove the spare releases, the oldest first, then uv's cache, then the mirror, until the rest fits."""
    store = context.release_store
    cache = store.cache / "uv"
    places = [store.releases, cache, store.mirror]
    excess = await asyncio.to_thread(occupied, places) - budget
    for place in (*reversed(spare), cache, store.mirror):
        if excess <= 0:
            return
        excess -= await asyncio.to_thread(occupied, [place])
        if place in spare:
            await _remove(context, place)
        else:  # it only saves transfers, and the next run makes it anew
            await asyncio.to_thread(durable.remove_tree, place)
            context.log.info("tidy.cache_removed", name=place.name)


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
