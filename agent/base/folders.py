"""Folders that somebody else has filled: any number of entries, at any depth."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

DEEPEST = 100
"""Folders in folders that are given away: each has two descriptors meanwhile."""


def below(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """Yield all entries below a folder, each folder before what is in it.

    No link is followed; a folder that cannot be read, or whose path is too long, has no entries.
    """
    # A name each, not a path: thousands of folders may be in one whose own path is as long as a path can be.
    waiting = [(os.fspath(folder), "")]
    while waiting:
        above, name = waiting.pop()
        here = os.path.join(above, name) if name else above  # noqa: PTH118 -- a Path for each takes as long again
        with suppress(OSError), os.scandir(here) as entries:
            for entry in entries:
                yield entry
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((here, entry.name))


@contextmanager
def opened(root: Path | int, *names: str, make: bool = False) -> Iterator[int]:
    """Open the folder to which names lead from `root` (its path, or a descriptor of it), following no link.

    However many names there are, two folders are open at a time. With `make`, those of the names that are missing are
    made.

    Raises:
        OSError: One is gone, is no folder, or cannot be read or made.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    current = os.dup(root) if isinstance(root, int) else os.open(root, flags)
    try:
        for name in names:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=current)
            deeper = os.open(name, flags, dir_fd=current)
            os.close(current)
            current = deeper
        yield current
    finally:
        os.close(current)


def give(folder: Path, user: int) -> None:
    """Make a user, and the group of that number, the owner of a folder and of all below it down to `DEEPEST`.

    Others may change it meanwhile: no link is followed, and what is gone is passed over.

    Raises:
        OSError: It is no folder, or the system refuses.
    """
    with opened(folder) as descriptor:
        _give(descriptor, user, 0)


def _give(folder: int, user: int, depth: int) -> None:
    os.fchown(folder, user, user)
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError, NotADirectoryError):
                if depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                    with opened(folder, entry.name) as inner:
                        _give(inner, user, depth + 1)
                else:
                    os.chown(entry.name, user, user, dir_fd=folder, follow_symlinks=False)
