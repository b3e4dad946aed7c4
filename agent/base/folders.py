"""Folders that somebody else has filled: any number of entries, at any depth."""

import os
from collections.abc import Iterator
from contextlib import suppress
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


def give(folder: Path, user: int) -> None:
    """Make a user, and the group of that number, the owner of a folder and of all below it down to `DEEPEST`.

    Others may change it meanwhile: no link is followed, and what is gone is passed over.

    Raises:
        OSError: It is no folder, or the system refuses.
    """
    _give(os.fspath(folder), None, user, 0)


def _give(name: str, above: int | None, user: int, depth: int) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        os.fchown(descriptor, user, user)
        with os.scandir(descriptor) as entries:
            for entry in entries:
                with suppress(FileNotFoundError, NotADirectoryError):
                    if depth < DEEPEST and entry.is_dir(follow_symlinks=False):
                        _give(entry.name, descriptor, user, depth + 1)
                    else:
                        os.chown(entry.name, user, user, dir_fd=descriptor, follow_symlinks=False)
    finally:
        os.close(descriptor)
