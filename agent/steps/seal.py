"""What a job left in its output directory, read as if the job were hostile and still running.

Directories are walked by descriptor and nothing is followed: a link that replaces a file between the look and the
opening is refused by the kernel, not by our luck.
"""

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
    start = f"{root}/"
    for folder, names, files, descriptor in os.fwalk(root, follow_symlinks=False):
        inside = f"{folder}/"[len(start) :]
        for name in list(names):
            if problem := _folder_problem(inside + name, name, descriptor):
                contents.refuse(inside + name, problem)
            if problem is not None:
                names.remove(name)
        for name in files:
            _look_at(inside + name, name, descriptor, contents)
    return contents


def _folder_problem(path: str, name: str, parent: int) -> str | None:
    """Return why a folder is not entered: a reason, or an empty string for one that is hidden."""
    if name.startswith("."):
        return ""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        return ""  # gone meanwhile
    if not stat.S_ISDIR(mode):
        return "a link"
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        return f"its path is longer than {MAX_PATH_BYTES} bytes"
    return None


def _look_at(path: str, name: str, parent: int, contents: Contents) -> None:
    if not is_result(path):
        return
    try:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except OSError:
        return  # gone meanwhile
    problem = _kind_problem(status) or path_problem(path)
    if problem:
        contents.refuse(path, problem)
    else:
        contents.files[path] = Signature.of(status)


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
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for folder in folders:
            deeper = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            os.close(current)
            current = deeper
        # O_NONBLOCK: opening a pipe that took the file's place must not wait for its writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=current)
    finally:
        os.close(current)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        problem = _kind_problem(status)
        if problem:
            raise OSError(f"{path}: {problem}")
        yield stream, Signature.of(status)


def _printable(path: str) -> str:
    """Return a path that any JSON reader can hold."""
    return path.encode(errors="backslashreplace").decode()[:MAX_PATH_BYTES]
