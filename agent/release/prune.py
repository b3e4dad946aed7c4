"""Clean-up after a run was committed: old releases, their images, and caches that have grown too large."""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError
from agent.config.jobsfile import JobsFile
from agent.jobs.containers.leftovers import remove_built
from agent.release.context import ReleaseContext
from agent.release.environment import uv_command
from agent.release.retention import Shelved, to_remove
from agent.release.store import TREE, folders, linked_commit, on_disk, read_marker, remove, sweep

SECONDS = 30.0
"""For the whole. The machine is paid for meanwhile; the rest is left for the next run."""
UV_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Prune:
    """Removes what no run needs.

    Attributes:
        context: Releases, what is known of them, and the images that they brought.
        budget: Bytes that releases and caches may take.
        seconds: Limit of the whole.
    """

    context: ReleaseContext
    budget: int
    seconds: float = SECONDS

    async def sweep(self, running: str, *, grown: bool) -> None:
        """Remove what no run needs; failures are only logged.

        Args:
            running: The commit that ran.
            grown: Whether something was installed, so that the caches are worth a look.
        """
        try:
            async with asyncio.timeout(self.seconds):
                await self._releases(running)
                await self._unused_images()
                if grown:
                    await self._caches()
        except TimeoutError:
            self.context.log.warning("tidy.out_of_time", seconds=self.seconds)
        except (ReleaseError, OSError) as error:
            self.context.log.warning("tidy.failed", reason=str(error))

    async def _releases(self, running: str) -> None:
        await sweep(self.context.release_store)
        present = folders(self.context.release_store)
        known = self.context.memory.known
        good = [one.commit for one in known.good(self.context.version)]
        needed = {running, linked_commit(self.context.release_store.baked), *good[:1]}
        needed |= {known.pin.commit} if known.pin else set()
        if all(place.name in needed for place in present):
            return  # the usual case: nothing is measured
        shelved = await asyncio.to_thread(lambda: [_shelved(place) for place in present])
        for commit in to_remove(
            shelved,
            needed={commit for commit in needed if commit},
            good=good[::-1],
            budget=self.budget,
        ):
            await remove(self.context.release_store.root(commit))
            await remove_built(
                self.context.release_store.root(commit) / TREE,
                self.context.environ,
                self.context.log,
            )
            self.context.log.info("tidy.release_removed", commit=commit)

    async def _unused_images(self) -> None:
        """Remove images that we pulled for releases, once no release on disk pins them."""
        brought, images = self.context.images, self.context.memory.images
        if brought is None or not images:
            return
        used = {brought.settings.image, *(self._pins())}
        gone = await brought.remove([image for image in images if image not in used])
        if gone:
            self.context.log.info("tidy.images_removed", images=gone)
            self.context.memory.keep_images([image for image in images if image not in gone])

    def _pins(self) -> set[str]:
        found = set()
        for place in self.context.release_store.releases.iterdir():
            with suppress(ReleaseError):
                jobs: JobsFile = on_disk(
                    self.context.release_store, place.name, self.context.checks
                ).jobs
                if jobs.browser is not None:
                    found.add(jobs.browser.image)
        return found

    async def _caches(self) -> None:
        """Shrink uv's cache and the mirror while everything together is above the budget."""
        total = await asyncio.to_thread(_size, self.context.release_store.releases)
        mirror = await asyncio.to_thread(_size, self.context.release_store.mirror)
        uv = await asyncio.to_thread(_size, self.context.release_store.cache / "uv")
        if total + mirror + uv <= self.budget:
            return
        for command in (("cache", "prune"), ("cache", "clean")):
            await self._uv(*command)
            uv = await asyncio.to_thread(_size, self.context.release_store.cache / "uv")
            if total + mirror + uv <= self.budget:
                return
        await asyncio.to_thread(_remove_packs, self.context.release_store.mirror)
        self.context.log.info("tidy.mirror_emptied", bytes=mirror)

    async def _uv(self, *arguments: str) -> None:
        try:
            done = await processes.run(
                uv_command(*arguments),
                environ={
                    "PATH": self.context.environ.get("PATH", os.defpath),
                    "HOME": str(self.context.release_store.cache),
                    "UV_CACHE_DIR": str(self.context.release_store.cache / "uv"),
                },
                seconds=UV_SECONDS,
            )
        except (ProcessTimeout, OSError) as error:
            self.context.log.warning("tidy.cache_kept", reason=str(error))
            return
        self.context.log.info("tidy.cache", command=" ".join(arguments), said=done.complaint)


def _shelved(place: Path) -> Shelved:
    marker = read_marker(place)
    age = marker.fetched.timestamp() if marker else 0.0
    return Shelved(place.name, _size(place), age)


def _size(top: Path) -> int:
    """Return a folder's size in blocks of the disk, in bytes."""
    total = 0
    for folder, _, files in os.walk(top):
        for name in files:
            with suppress(OSError):
                total += os.lstat(Path(folder, name)).st_blocks * 512
    return total


def _remove_packs(mirror: Path) -> None:
    """Empty the mirror: it only saves transfers, and the next fetch fills it again."""
    for file in (mirror / "objects").rglob("*"):
        if file.is_file():
            file.unlink()
    for name in ("shallow", "packed-refs"):
        (mirror / name).unlink(missing_ok=True)
    for file in (mirror / "refs").rglob("*"):
        if file.is_file():
            file.unlink()
