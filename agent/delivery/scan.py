"""Reads what a job left in its output directory, as if the job were hostile and still running.

Directories are opened by descriptor and no link is followed: the kernel refuses one that replaces a file between the
scan and the opening.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from agent.base.folders import opened
from agent.base.units import show_size
from agent.contract.names import MAX_DISK_PATH_BYTES, written
from agent.contract.package import RefusedFile

MAX_FILE_BYTES = 48 * 1024**3
"""S3 takes 10,000 parts, and a writer has one size for all of them."""
MAX_REFUSED = 100
"""Refused entries that are listed one by one."""
MAX_SHOWN = 700
"""Characters of a name that is listed."""
FILES_AT_ONCE = 500
"""Files whose status is taken before they are handed on."""
SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors for which no file is to blame: the process or the machine lacks something for the moment."""


class Signature(NamedTuple):
    """What changes when a file's content does; ctime cannot be set back by its owner."""

    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Signature":
        """Return the signature in a file's status."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Found(NamedTuple):
    """A file: its path below the directory, and its signature."""

    name: str
    signature: Signature


@dataclass(slots=True)
class Scan:
    """How much there is in an output directory, and what cannot be a result."""

    files: int = 0
    bytes: int = 0
    refused: list[RefusedFile] = field(default_factory=list)
    refusals: int = 0

    def refuse(self, path: str, reason: str) -> None:
        """List an entry as refused, up to the limit."""
        self.refusals += 1
        if len(self.refused) < MAX_REFUSED:
            self.refused.append(RefusedFile(path=written(path)[:MAX_SHOWN], reason=reason))

    def listed(self) -> tuple[RefusedFile, ...]:
        """Return what was refused; a last line counts those that are not listed."""
        more = self.refusals - len(self.refused)
        rest = RefusedFile(path="...", reason=f"and {more} more entries")
        return (*self.refused, rest) if more else tuple(self.refused)


def is_result(path: str) -> bool:
    """Tell whether a file is meant to be a result: not hidden, not still being written (`.part`, `.tmp`)."""
    parts = path.split("/")
    return not any(part.startswith(".") for part in parts) and not path.endswith((".part", ".tmp"))


def scan(root: Path) -> Scan:
    """Return how much there is in an output directory; in one that is gone, nothing."""
    result = Scan()
    try:
        for _ in walk(root, result):
            pass
    except OSError as error:
        result.refuse(".", _reason(error))
    return result


def walk(root: Path, result: Scan) -> Iterator[list[Found]]:
    """Yield the results in an output directory, in the order of their paths, some at a time.

    Args:
        root: The directory; nothing is in one that is gone.
        result: Counts them, and lists what is refused.

    Raises:
        OSError: One of `SHORTAGES`; what cannot be read for another reason is refused.
    """
    folders = [("", _names_in(root, "", result))]
    while folders:
        inside, names = folders[-1]
        some: list[str] = []
        while names and not names[-1].endswith("/") and len(some) < FILES_AT_ONCE:
            some.append(names.pop())
        if some:
            yield _stat_all(root, inside, some, result)
        elif names:
            deeper = inside + names.pop()
            folders.append((deeper, _names_in(root, deeper, result)))
        else:
            folders.pop()


def _names_in(root: Path, inside: str, result: Scan) -> list[str]:
    """Return the names in a folder that may be results, the last one first; those of folders have their slash."""
    names = []
    try:
        with opened(root, *inside.split("/")[:-1]) as descriptor, os.scandir(descriptor) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                path = inside + entry.name
                if entry.name.startswith(".") or not (is_folder or is_result(path)):
                    continue
                if is_folder and (problem := _path_problem(path)):
                    result.refuse(path, problem)
                else:
                    names.append(f"{entry.name}/" if is_folder else entry.name)
    except FileNotFoundError:
        return []
    except OSError as error:
        result.refuse(inside.rstrip("/") or ".", why_unreadable(error))
    return sorted(names, reverse=True)


def _stat_all(root: Path, inside: str, names: list[str], result: Scan) -> list[Found]:
    """Return those files of a folder that are results."""
    found = []
    try:
        with opened(root, *inside.split("/")[:-1]) as descriptor:
            for name in names:
                path = inside + name
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    result.refuse(path, why_unreadable(error))
                    continue
                if problem := _kind_problem(status) or _size_problem(path, status):
                    result.refuse(path, problem)
                else:
                    found.append(Found(path, Signature.of(status)))
    except FileNotFoundError:
        return []
    except OSError as error:
        result.refuse(inside.rstrip("/") or ".", why_unreadable(error))
    result.files += len(found)
    result.bytes += sum(one.signature.size for one in found)
    return found


def _path_problem(path: str) -> str | None:
    """Return why neither this file nor anything in this folder could be a result."""
    if len(os.fsencode(path)) > MAX_DISK_PATH_BYTES:
        return f"its path is longer than {MAX_DISK_PATH_BYTES} bytes"
    return None


def _size_problem(path: str, status: os.stat_result) -> str | None:
    if status.st_size > MAX_FILE_BYTES:
        return f"larger than {show_size(MAX_FILE_BYTES)}, the most that a bucket takes"
    return _path_problem(path)


def _kind_problem(status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        return "a hard link"
    return None


@contextmanager
def open_file(root: Path, path: str) -> Iterator[tuple[IO[bytes], Signature]]:
    """Open a file below a directory for reading, following no link in any part of its path.

    Raises:
        OSError: It is gone, or no longer a regular file of its own.
    """
    *above, name = path.split("/")
    with opened(root, *above) as folder:
        # O_NONBLOCK: opening a pipe that took the file's place must not wait for its writer.
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    # Unbuffered: whoever reads asks for a mebibyte at a time, or for all of it.
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        problem = _kind_problem(status)
        if problem:
            raise OSError(problem)
        yield stream, Signature.of(status)


def read_start(stream: IO[bytes], size: int) -> bytes:
    """Return a file's first `size` bytes, or all when it has fewer."""
    data = stream.read(size)
    while 0 < len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


def is_shortage(error: BaseException) -> bool:
    """Tell whether an error says nothing about a file: a retry may read it."""
    return isinstance(error, OSError) and error.errno in SHORTAGES


def why_unreadable(error: OSError) -> str:
    """Return why a file could not be opened or read, for the list of what was refused.

    Raises:
        OSError: The same error, when it is one of `SHORTAGES`.
    """
    if is_shortage(error):
        raise error
    return _reason(error)


def _reason(error: OSError) -> str:
    if error.errno in {errno.ENOTDIR, errno.ELOOP}:
        return "a link, or no folder"
    return f"cannot be read: {error.strerror}" if error.strerror else str(error)
