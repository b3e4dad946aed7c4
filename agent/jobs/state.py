"""A job's state: packed when the job succeeded, or is checkpointed; unpacked before its next attempt.

The archive's content is the job's own, so it is treated as hostile: plain files and folders only, within limits.
"""

import gzip
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path, PurePosixPath

from agent.base.durable import remove_tree, sync_directory
from agent.base.stop import StoppedError
from agent.base.units import show_size
from agent.delivery.scan import open_file

MAX_ENTRIES = 10_000
"""Files and folders. Each costs a request of the disk now and in every later run, however small it is."""
NAMED = 3
"""Files that a note names."""

_UNUSABLE = (
    *(tarfile.TarError, zlib.error, OSError, EOFError, ValueError, StoppedError),
    RecursionError,  # from pathlib, of a thousand folders in each other
)

MOST_HEADER = 256 * 1024
"""Bytes from the end of one file in an archive to the next: its header, with a path of some thousand bytes."""

Stopped = Callable[[], bool]
"""Tells whether to give up; asked between two files."""


class _Budget:
    def __init__(self, limit: int, stopped: Stopped) -> None:
        self._limit, self._bytes = limit, limit
        self._entries = MAX_ENTRIES
        self._stopped = stopped

    def take(self, *, entries: int = 0, size: int = 0) -> None:
        """Count entries, or bytes of a file.

        Raises:
            ValueError: There are more than a state may hold.
            StoppedError: The run was told to stop.
        """
        if self._stopped():
            raise StoppedError("the run was told to stop")
        self._entries -= entries
        self._bytes -= size
        if self._entries < 0:
            raise ValueError(f"it has more than {MAX_ENTRIES} files and folders")
        if self._bytes < 0:
            raise ValueError(f"it has more than {show_size(self._limit)}")


def pack(
    state: Path, archive: Path, limit: int, stopped: Stopped, *, supersedes: bool = False
) -> str:
    """Write what is in `state` to `archive` (gzip, replaced atomically).

    All files together have at most `limit` bytes. An empty folder writes none, unless it `supersedes` an older state,
    which the next run would get otherwise.

    Returns:
        Why nothing was written, or what was left out; empty when all was written.
    """
    draft = archive.with_name(f".{archive.name}.tmp")
    try:
        with tarfile.open(draft, "w:gz", compresslevel=6) as tar:
            left_out = _add_all(tar, state, _Budget(limit, stopped))
            empty = tar.offset == 0
        if supersedes or not empty:
            draft.replace(archive)
            sync_directory(archive.parent)
    except (tarfile.TarError, OSError, ValueError, StoppedError) as error:
        return f"its state was not kept: {error}"
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
    if not left_out:
        return ""
    more = f" and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    names = ", ".join(ascii(name) for name in left_out[:NAMED])
    return f"left out of its state, as links or unreadable: {names}{more}"


def _add_all(tar: tarfile.TarFile, state: Path, budget: _Budget) -> list[str]:
    """Add the plain files of a folder to an archive; return the names of the other entries."""
    left_out: list[str] = []
    for name in sorted(_names(state, budget)):
        with ExitStack() as held:
            try:
                stream, mark = held.enter_context(open_file(state, name))
            except FileNotFoundError:
                continue
            except OSError:
                left_out.append(name)
                continue
            budget.take(size=mark.size)
            header = tarfile.TarInfo(name)
            header.size, header.mtime = mark.size, mark.modified // 10**9
            tar.addfile(header, stream)
    return left_out


def _names(state: Path, budget: _Budget) -> Iterator[str]:
    """Yield the paths of all entries below a folder but folders; no link is followed."""
    folders = [""]
    while folders:
        inside = folders.pop()
        with os.scandir(state / inside) as entries:
            for entry in entries:
                budget.take(entries=1)
                if entry.is_dir(follow_symlinks=False):
                    folders.append(f"{inside}{entry.name}/")
                else:
                    yield f"{inside}{entry.name}"


class _Archive(gzip.GzipFile):
    """What an archive unpacks to, of which no more is read than was counted: a header may claim to be a gigabyte.

    Attributes:
        left: Bytes that may be read.
    """

    left = MOST_HEADER

    def read(self, size: int | None = -1) -> bytes:
        """Return bytes.

        Raises:
            ValueError: More are asked for than may be.
        """
        if size is None or not 0 <= size <= self.left:
            raise ValueError("one of its headers is too large")
        data = super().read(size)
        self.left -= len(data)
        return data


def unpack(archive: Path, state: Path, limit: int, stopped: Stopped) -> str:
    """Extract a state into an empty folder.

    Returns:
        Why it was not extracted, and the folder is empty: half a state is worse than none. Empty when it was.
    """
    budget = _Budget(limit, stopped)
    try:
        with _Archive(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for member in tar:
                if not member.isreg() or not _stays_inside(member.name):
                    raise tarfile.TarError(f"{member.name!a} is not a plain file")
                budget.take(entries=1, size=member.size)
                stream.left = member.size + MOST_HEADER
                target = state / member.name
                target.parent.mkdir(parents=True, exist_ok=True)
                source = tar.extractfile(member)
                if source is not None:
                    with source, target.open("xb") as sink:
                        shutil.copyfileobj(source, sink)
    except _UNUSABLE as error:
        remove_tree(state)
        state.mkdir()
        return f"its state could not be restored: {error}"
    return ""


def _stays_inside(name: str) -> bool:
    """Tell whether a path stays below its start."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts
