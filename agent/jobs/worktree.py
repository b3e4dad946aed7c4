"""The working directory of a job's program: a copy of the release's files, where the isolation cannot protect these.

Permissions stop no superuser, and nobody who changes them; a hard link shares what is written into it. So each file is
copied, which takes 50 ms for 200 files and some seconds for the 20,000 of 540 MB that a release may have, and copies no
data at all where the file system can share blocks (XFS, Btrfs). A copy that a job left as it was is lent again, so
that a run makes as many as it has jobs at once.

Stacks get a copy as well, and so does a program whose results are beside its code: what is new or changed in the
folder that the job names is moved to its output.
"""

import asyncio
import fcntl
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from agent.base.durable import remove_tree
from agent.base.folders import below, opened
from agent.base.stop import StoppedError
from agent.contract.names import written
from agent.delivery.scan import Signature, is_result, open_file
from agent.jobs.verdict import NO_STRAYS, Strays

FICLONE = 0x40049409
"""Of linux/fs.h: two files share their blocks until one of them is written."""


MOST_NEW = 1000
"""New entries that are removed from a copy one by one; one that has more is thrown away whole."""

MOST_LATE = 50_000
"""Entries of a copy among which results are still sought when the run was told to stop: some seconds."""

_MADE_BY_TOOLS = frozenset({"__pycache__", "node_modules"})
"""Folders that nobody misses: tools make them again."""


@dataclass(slots=True)
class WorkingDirectory:
    """The working directory of a program or a stack.

    Attributes:
        path: The folder.
        output: The folder, or file, in it whose new and changed files are results; None for none.
        mounted: Its folders by the `output` that names them; for a stack, its mounts.
        volumes: Paths of a stack's volumes, which cannot be looked into.
        strays: What was written elsewhere in it; known when the program has ended.
    """

    path: Path
    output: str | None = None
    mounted: Mapping[str, str] = field(default_factory=lambda: {".": "."})
    volumes: tuple[str, ...] = ()
    strays: Strays = NO_STRAYS

    def collect(self, output: str) -> None:
        """Have the results in a folder, which is made unless a file, or a link of the release, is in its place.

        Raises:
            OSError: It could not be made.
        """
        self.output = output
        with suppress(NotADirectoryError), opened(self.path, *output.split("/"), make=True):
            pass


class WorkingTrees:
    """The copies of one run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0
        self._idle: dict[tuple[Path, bool], list[_Copy]] = {}

    @asynccontextmanager
    async def lend(
        self,
        tree: Path,
        *,
        stopped: Callable[[], bool],
        results: Path | None = None,
    ) -> AsyncIterator[WorkingDirectory]:
        """Lend a copy of a release's files for one attempt; results are moved to `results`, if the job has them there.

        Such a copy may be written by every user. Whether the run was told to stop is asked between two files; from then
        on only results are taken from it, and it goes with the run.

        Raises:
            StoppedError: The run was told to stop before the copy was made.
            OSError: The copy could not be written.
        """
        idle = self._idle.setdefault((tree, results is not None), [])
        copy = idle.pop() if idle else await self._make(tree, stopped, is_open=results is not None)
        working = WorkingDirectory(copy.root)
        try:
            yield working
        finally:
            as_it_was = await asyncio.to_thread(copy.take_back, working, results, stopped)
            if as_it_was:
                idle.append(copy)
            elif not stopped():
                await asyncio.to_thread(_remove, copy.root)

    async def _make(self, tree: Path, stopped: Callable[[], bool], *, is_open: bool) -> "_Copy":
        self._made += 1
        target = self._folder / str(self._made)
        try:
            return await asyncio.to_thread(_copy, tree, target, stopped, is_open=is_open)
        except BaseException:
            await asyncio.to_thread(_remove, target)
            raise


class _Copy:
    """A copy of the release's files, and the status that each had at first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._before = dict(_entries(root))

    def take_back(
        self, working: WorkingDirectory, results: Path | None, stopped: Callable[[], bool]
    ) -> bool:
        """Move results out, count strays, remove new entries; return whether the copy is as at first.

        A job may leave more entries than there is memory: none is kept but `MOST_NEW`.
        """
        count, nearest, late = 0, ("", "."), 0
        new: list[tuple[str, bool]] = []
        for path, status in _entries(self.root):
            late += stopped()
            if late > MOST_LATE:
                break
            if self._is_written(path, status):
                inside = _within(path, working.output)
                if (
                    results
                    and inside
                    and is_result(inside)
                    and _moved(self.root, path, results, inside)
                ):
                    continue
                place = _place(path, working.mounted)
                if place is not None and is_result(path):
                    count += 1
                    nearest = min(nearest, (path, place), key=_distance)
            if path not in self._before and len(new) <= MOST_NEW:
                new.append((path, stat.S_ISDIR(status.st_mode)))
        first, output = nearest
        working.strays = Strays(count, written(first), output, working.volumes)
        return not late and len(new) <= MOST_NEW and self._restored(new)

    def _is_written(self, path: str, status: os.stat_result) -> bool:
        """Tell whether a file is new or has other content, and is none that tools make again."""
        if stat.S_ISDIR(status.st_mode) or not _MADE_BY_TOOLS.isdisjoint(path.split("/")):
            return False
        before = self._before.get(path)
        return before is None or _content(before) != _content(status)

    def _restored(self, new: list[tuple[str, bool]]) -> bool:
        """Remove what is new, and whether it is a folder; return whether everything else is as it was."""
        try:
            for path, status in self._before.items():
                if _state(status) != _state((self.root / path).lstat()):
                    return False
            # What is in a folder goes before the folder.
            for path, is_folder in reversed(new):
                target = self.root / path
                target.rmdir() if is_folder else target.unlink()
        except OSError:
            return False
        return True


def _within(path: str, folder: str | None) -> str | None:
    """Return a file's path within a folder; its name where the folder is the file; None elsewhere."""
    if folder is None:
        return None
    if folder in {".", path}:
        return path if folder == "." else path.rpartition("/")[2]
    return path.removeprefix(f"{folder}/") if path.startswith(f"{folder}/") else None


def _distance(stray: tuple[str, str]) -> tuple[bool, int, str]:
    """Return a sort key of a path and its place, the empty path last: no folder has its entries in an order."""
    path = stray[0]
    return not path, path.count("/"), path


def _place(path: str, mounted: Mapping[str, str]) -> str | None:
    """Return the `output` that would collect a file; None where the job has no such folder."""
    places = [
        (folder, target) for target, folder in mounted.items() if _within(path, folder) is not None
    ]
    return max(places, key=lambda each: len(each[0]))[1] if places else None


def _moved(root: Path, path: str, results: Path, inside: str) -> bool:
    """Move a result out of a copy to `inside` in the results; tell whether it worked.

    No link is followed on either side: what runs as another user may have left some in both.
    """
    *above, name = path.split("/")
    *deeper, new = inside.split("/")
    try:
        with (
            opened(root, *above) as source,
            opened(results, *deeper, make=True) as target,
        ):
            try:
                os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)
            except PermissionError:  # in a folder that a container's root has made
                with open_file(root, path) as (stream, _):
                    _copy_whole(stream, new, target)
    except OSError:
        return False
    return True


def _copy_whole(source: IO[bytes], name: str, folder: int) -> None:
    """Copy a file into a folder; a part of it would be taken for the result.

    Raises:
        OSError: It could not be copied, and there is no copy.
    """
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy, 1024**2)
    except OSError:
        os.unlink(name, dir_fd=folder)
        raise


def _content(status: os.stat_result) -> tuple[int, int, int, int]:
    """Return what changes with a file's content, but not with its owner or mode."""
    return status.st_ino, stat.S_IFMT(status.st_mode), status.st_size, status.st_mtime_ns


def _state(status: os.stat_result) -> Signature | int:
    """Return what changes with an entry; of a folder only its mode: its entries are compared themselves."""
    return status.st_mode if stat.S_ISDIR(status.st_mode) else Signature.of(status)


def _entries(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of all entries below a folder, folders before their content; no link is followed."""
    start = len(os.fspath(root)) + 1
    for entry in below(root):
        with suppress(OSError):
            yield entry.path[start:], entry.stat(follow_symlinks=False)


def open_up(tree: Path) -> None:
    """Let every user write in a folder; the folder above it keeps others out."""
    tree.chmod(0o777)
    for entry in below(tree):
        if entry.is_dir(follow_symlinks=False):
            Path(entry.path).chmod(0o777)
        elif not entry.is_symlink():
            Path(entry.path).chmod(entry.stat().st_mode | 0o666)


def _copy(tree: Path, target: Path, stopped: Callable[[], bool], *, is_open: bool) -> _Copy:
    def copy_file(source: str, copy: str) -> None:
        if stopped():
            raise StoppedError("the run was told to stop while the release's files were copied")
        _clone(source, copy)

    target.parent.mkdir(exist_ok=True)
    target.parent.chmod(0o700)
    shutil.copytree(tree, target, symlinks=True, copy_function=copy_file)
    if is_open:
        open_up(target)
    return _Copy(target)


def _clone(source: str, copy: str) -> None:
    """Copy a file with mode and times; where the file system can share blocks, no data are copied."""
    with open(source, "rb") as reading, open(copy, "wb") as writing:  # noqa: PTH123 -- copytree speaks in strings
        try:
            fcntl.ioctl(writing.fileno(), FICLONE, reading.fileno())
        except OSError:
            shutil.copyfileobj(reading, writing, 1024**2)
    shutil.copystat(source, copy)


def _remove(copy: Path) -> None:
    with suppress(OSError):  # it goes with the run
        remove_tree(copy)
