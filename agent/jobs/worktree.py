"""The working directory of a job's program: a copy of the release's files, where the isolation cannot protect these.

Permissions stop no superuser, and nobody who changes them; a hard link shares what is written into it. So each file is
copied, which takes 50 ms for 200 files and some seconds for the 20,000 of 540 MB that a release may have, and copies no
data at all where the file system can share blocks (XFS, Btrfs). A copy that a job left as it was is lent again, so
that a run makes as many as it has jobs at once.
"""

import asyncio
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agent.base.durable import remove_tree
from agent.base.stop import StoppedError
from agent.contract.names import written
from agent.delivery.scan import Signature, is_result
from agent.jobs.verdict import NO_STRAYS, Strays

FICLONE = 0x40049409
"""Of linux/fs.h: two files share their blocks until one of them is written."""


@dataclass(slots=True)
class WorkingDirectory:
    """Where a program works.

    Attributes:
        path: The folder.
        strays: What the program wrote there, once it has been given back.
    """

    path: Path
    strays: Strays = NO_STRAYS


class WorkingTrees:
    """The copies of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._idle: dict[Path, list[_Copy]] = {}

    @asynccontextmanager
    async def lend(
        self, tree: Path, *, stopped: Callable[[], bool]
    ) -> AsyncIterator[WorkingDirectory]:
        """Lend a copy of a release's files for one attempt.

        Args:
            tree: The files.
            stopped: Whether the run was told to stop; asked between two files.

        Raises:
            StoppedError: It was, before the copy was made.
            OSError: The disk does not take it.
        """
        idle = self._idle.setdefault(tree, [])
        copy = idle.pop() if idle else await self._make(tree, stopped)
        working = WorkingDirectory(copy.root)
        try:
            yield working
        finally:
            as_it_was, working.strays = await asyncio.to_thread(copy.restore)
            if as_it_was:
                idle.append(copy)
            else:
                await asyncio.to_thread(_remove, copy.root)

    async def _make(self, tree: Path, stopped: Callable[[], bool]) -> "_Copy":
        self._made += 1
        target = self._folder / str(self._made)
        try:
            return await asyncio.to_thread(_copy, tree, target, stopped)
        except BaseException:
            await asyncio.to_thread(_remove, target)
            raise


class _Copy:
    """A copy, and what its files were like when nobody had worked in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before = {path: _state(status) for path, status in _entries(root)}

    def restore(self) -> tuple[bool, Strays]:
        """Take away what is new; return whether all is as it was then, and what was written."""
        same, count, first = 0, 0, ""
        as_it_was = True
        for path, status in _entries(self.root):
            if self._before.get(path) == _state(status):
                same += 1
                continue
            is_new = path not in self._before
            as_it_was &= is_new
            if not stat.S_ISDIR(status.st_mode) and _is_stray(path):
                count, first = count + 1, first or path
        if not as_it_was or same < len(self._before):
            return False, Strays(count, written(first))
        return self._without_new(), Strays(count, written(first))

    def _without_new(self) -> bool:
        try:
            # What is in a folder goes before the folder.
            for path, status in reversed(list(_entries(self.root))):
                if path not in self._before:
                    target = self.root / path
                    target.rmdir() if stat.S_ISDIR(status.st_mode) else target.unlink()
        except OSError:
            return False
        return True


def _is_stray(path: str) -> bool:
    """Tell whether somebody may miss a file that is thrown away: not what is hidden, and not Python's caches."""
    return is_result(path) and "__pycache__" not in path.split("/")


def _state(status: os.stat_result) -> Signature | int:
    """Return what changes with an entry; of a folder only its mode, because what is in it is looked at by itself."""
    return status.st_mode if stat.S_ISDIR(status.st_mode) else Signature.of(status)


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield all that is below a folder with its status, folders before their content; nothing is followed."""
    folders = [""]
    while folders:
        inside = folders.pop()
        with suppress(OSError), os.scandir(root / inside) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{inside}{entry.name}"
                with suppress(OSError):
                    yield path, entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{path}/")


def _copy(tree: Path, target: Path, stopped: Callable[[], bool]) -> _Copy:
    def copy_file(source: str, copy: str) -> None:
        if stopped():
            raise StoppedError("the run was told to stop while the release's files were copied")
        _clone(source, copy)

    target.parent.mkdir(exist_ok=True)
    shutil.copytree(tree, target, symlinks=True, copy_function=copy_file)
    return _Copy(target)


def _clone(source: str, copy: str) -> None:
    """Copy a file with its mode and times, without its data where the file system can share them."""
    with open(source, "rb") as reading, open(copy, "wb") as writing:  # noqa: PTH123 -- copytree speaks in strings
        try:
            fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
        except OSError:
            shutil.copyfileobj(reading, writing, 1024**2)
    shutil.copystat(source, copy)


def _remove(copy: Path) -> None:
    with suppress(OSError):  # it goes with the run
        remove_tree(copy)
