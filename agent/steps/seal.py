"""What a job left in its output directory, read as if the job were hostile and still running.

Directories are walked by descriptor and nothing is followed: a link that replaces a file between the look and the
opening is refused by the kernel, not by our luck.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from agent.core.layout import MAX_PATH_BYTES, is_result, path_problem
from agent.core.results import RefusedFile

MAX_REFUSED = 100
"""Refused entries that are listed one by one."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file's content does; ctime cannot be set back by its owner."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Signature":
        """Return the signature in a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(slots=True)
class Contents:
    """An output directory's results by relative POSIX path, and what in it cannot be a result."""

    files: dict[str, Signature] = field(default_factory=dict)
    refused: list[RefusedFile] = field(default_factory=list)
    more_refused: int = 0

    def refuse(self, path: str, reason: str) -> None:
        """List an entry as refused, up to the limit."""
        if len(self.refused) < MAX_REFUSED:
            self.refused.append(RefusedFile(path=_printable(path), reason=reason))
        else:
            self.more_refused += 1


def look(root: Path) -> Contents:
    """Return what is in an output directory; a directory that is gone is empty."""
    contents = Contents()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            # From the root each time: however deep a job nests its folders, one descriptor is open.
            descriptor = _open_folder(root, inside.split("/")[:-1])
        except FileNotFoundError:
            continue
        except OSError as error:
            contents.refuse(inside.rstrip("/") or ".", why_unreadable(error))
            continue
        try:
            waiting += _look_into(inside, descriptor, contents)
        finally:
            os.close(descriptor)
    return contents


def _look_into(inside: str, descriptor: int, contents: Contents) -> list[str]:
    """Note the files of an open folder, and return the folders in it, each with its slash."""
    folders = []
    try:
        names = sorted(os.listdir(descriptor))
    except OSError as error:
        contents.refuse(inside.rstrip("/") or ".", why_unreadable(error))
        return []
    for name in names:
        path = inside + name
        try:
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        is_folder = stat.S_ISDIR(status.st_mode)
        if name.startswith(".") or not (is_folder or is_result(path)):
            continue
        problem = (
            _folder_problem(path) if is_folder else _kind_problem(status) or path_problem(path)
        )
        if problem is not None:
            contents.refuse(path, problem)
        elif is_folder:
            folders.append(f"{path}/")
        else:
            contents.files[path] = Signature.of(status)
    return folders


def _folder_problem(path: str) -> str | None:
    """Return why nothing in a folder could be a result, so that it is not entered."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    return None


def _open_folder(root: Path, folders: list[str]) -> int:
    """Return a descriptor of a folder beneath `root`, following no link on the way.

    Raises:
        OSError: It is gone, is no folder, or cannot be read.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    current = os.open(root, flags)
    try:
        for folder in folders:
            deeper = os.open(folder, flags, dir_fd=current)
            os.close(current)
            current = deeper
    except OSError:
        os.close(current)
        raise
    return current


def _kind_problem(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        return "a hard link"
    return None


@contextmanager
def open_result(root: Path, path: str) -> Iterator[tuple[IO[bytes], Signature]]:
    """Open a result for reading, following no link in any part of its path.

    Raises:
        OSError: It is gone, or no longer a regular file of its own.
    """
    *folders, name = path.split("/")
    current = _open_folder(root, folders)
    try:
        # O_NONBLOCK: opening a pipe that took the file's place must not wait for its writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current)
    finally:
        os.close(current)
    # Unbuffered: whoever reads asks for a mebibyte at a time, or for all of it.
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        problem = _kind_problem(status)
        if problem:
            raise OSError(problem)
        yield stream, Signature.of(status)


def why_unreadable(error: OSError) -> str:
    """Return why a result could not be opened or read, for the list of what was refused."""
    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
        return "a link, or no folder"
    return f"cannot be read: {error.strerror}" if error.strerror else str(error)


def _printable(path: str) -> str:
    """Return a path that any JSON reader can hold."""
    return path.encode(errors="backslashreplace").decode()[:MAX_PATH_BYTES]
