"""Ends the job that fills the disk, before the agent and the other jobs have none left."""

import asyncio
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import chain, islice
from pathlib import Path

from agent.base.folders import below
from agent.base.logs import Log
from agent.base.processes import in_group
from agent.base.units import show_size
from agent.jobs.interface import Launch
from agent.jobs.isolation.confinement import unit_name

LOOK_SECONDS = 0.5
"""An ordinary cloud disk takes 60 MB meanwhile, and the page cache somewhat more."""

INNOCENT = 16 * 1024**2
"""A job that occupies less has not filled any disk."""

PART = 4
"""Unless the jobs occupy one in so many of the bytes that are missing, something else took them: a container, an image
that is pulled, a job that has ended. To end jobs would not bring them back."""

MOST_HELD = 100_000
"""Descriptors of a unit that are looked at, which takes a fraction of a second."""


class DiskWatch:
    """Watches that jobs leave `free` bytes; what each occupies is counted only when the disk is nearly full."""

    def __init__(self, free: int, log: Log) -> None:
        self._free = free
        self._log = log
        self._running: dict[str, Callable[[], int]] = {}
        self._before = 0
        """What was free before the first of the jobs that now run."""
        self._warned = False

    @asynccontextmanager
    async def watching(self, launch: Launch, end: Callable[[], None]) -> AsyncIterator[None]:
        """Call `end` while the disk is nearly full and no other job occupies more of it than this one.

        It is called again until the block is left: a signal may not arrive.
        """
        folders = tuple(path for path in (*launch.writable, launch.scratch) if path is not None)
        if not folders:
            yield
            return
        if not self._running:
            self._before = shutil.disk_usage(folders[0]).free
        unit = unit_name(launch.environ["MAYFLY_RUN_ID"], launch.name)
        self._running[launch.name] = lambda: occupied(folders) + held_open(unit, folders)
        task = asyncio.create_task(self._watch(launch.name, folders[0], end))
        try:
            yield
        finally:
            del self._running[launch.name]
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, name: str, place: Path, end: Callable[[], None]) -> None:
        ended = False
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            free = shutil.disk_usage(place).free
            if free >= self._free:
                continue
            sizes = {
                other: await asyncio.to_thread(size) for other, size in list(self._running.items())
            }
            missing = max(self._before, self._free) - free
            if sum(sizes.values()) < missing / PART:
                self._warn(missing, sum(sizes.values()))
            elif sizes[name] >= max(INNOCENT, *sizes.values()):
                if not ended:
                    occupies = show_size(sizes[name])
                    self._log.warning("job.fills_the_disk", name=name, occupies=occupies)
                ended = True
                end()

    def _warn(self, missing: int, jobs: int) -> None:
        if not self._warned:
            self._warned = True
            self._log.warning(
                "disk.full_of_other", missing=show_size(missing), jobs=show_size(jobs)
            )


def occupied(folders: Iterable[Path]) -> int:
    """Return the bytes on disk of all entries of some folders; entries that disappear meanwhile do not count."""
    total = 0
    for entry in chain.from_iterable(map(below, folders)):
        with suppress(OSError):  # each by itself: the others count
            total += entry.stat(follow_symlinks=False).st_blocks * 512
    return total


def held_open(unit: str, folders: Iterable[Path]) -> int:
    """Return the bytes on the disk of some folders that only a unit's descriptors hold: files without a name."""
    disks, found = set(), {}
    for folder in folders:
        with suppress(OSError):
            disks.add(folder.stat().st_dev)
    for path in islice(chain.from_iterable(map(_descriptors, in_group(unit))), MOST_HELD):
        with suppress(OSError):  # closed meanwhile
            seen = os.stat(path)  # noqa: PTH116 -- there may be very many
            if seen.st_nlink == 0 and stat.S_ISREG(seen.st_mode) and seen.st_dev in disks:
                found[seen.st_dev, seen.st_ino] = seen.st_blocks * 512
    return sum(found.values())


def _descriptors(pid: int) -> Iterator[str]:
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        yield from (entry.path for entry in entries)
