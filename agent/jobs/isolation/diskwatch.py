"""Ends the job that fills the disk, before the agent and the other jobs have none left."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import chain
from pathlib import Path

from agent.base.folders import below
from agent.base.logs import Log
from agent.base.units import show_size
from agent.jobs.interface import Launch

LOOK_SECONDS = 0.5
"""An ordinary cloud disk takes 60 MB meanwhile, and the page cache somewhat more."""

INNOCENT = 16 * 1024**2
"""A job that occupies less has not filled any disk."""


class DiskWatch:
    """Watches that jobs leave `free` bytes; what each occupies is counted only when the disk is nearly full."""

    def __init__(self, free: int, log: Log) -> None:
        self._free = free
        self._log = log
        self._running: dict[str, tuple[Path, ...]] = {}

    @asynccontextmanager
    async def watching(self, launch: Launch, end: Callable[[], None]) -> AsyncIterator[None]:
        """Call `end`, once, when the disk is nearly full and no other job occupies more of it than this one."""
        folders = tuple(path for path in (*launch.writable, launch.scratch) if path is not None)
        if not folders:
            yield
            return
        self._running[launch.name] = folders
        task = asyncio.create_task(self._watch(launch.name, folders[0], end))
        try:
            yield
        finally:
            del self._running[launch.name]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, name: str, place: Path, end: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if shutil.disk_usage(place).free >= self._free:
                continue
            sizes = {
                other: await asyncio.to_thread(occupied, folders)
                for other, folders in list(self._running.items())
            }
            if sizes[name] >= max(INNOCENT, *sizes.values()):
                self._log.warning("job.fills_the_disk", name=name, occupies=show_size(sizes[name]))
                end()
                return


def occupied(folders: Iterable[Path]) -> int:
    """Return the bytes on disk of all entries of some folders; entries that disappear meanwhile do not count."""
    total = 0
    for entry in chain.from_iterable(map(below, folders)):
        with suppress(OSError):  # each by itself: the others count
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total
