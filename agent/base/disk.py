"""What it means that a disk does not take what is written, and what a person can do about it. Decisions only."""

import errno
from collections.abc import Iterator
from pathlib import Path

from agent.base.errors import StateError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSALS = FULL | {
    errno.EROFS,
    errno.EIO,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.ELOOP,
}
"""Complaints that are about a file system. Anything else that an operating system says is a defect of ours."""


def disk_refusal(error: BaseException) -> OSError | None:
    """Return the first complaint of a file system in an error, or in a group of errors; None when it has none."""
    return next((one for one in _leaves(error) if one.errno in REFUSALS), None)


def whole_disk(error: BaseException) -> bool:
    """Tell whether a file system takes nothing at all: this is no damage of the one file that was asked for."""
    return any(one.errno in FULL | {errno.EROFS} for one in _leaves(error))


def _leaves(error: BaseException) -> Iterator[OSError]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif isinstance(error, OSError):
        yield error


def state_error(error: OSError, folder: Path, *, inodes_left: bool) -> StateError:
    """Return what it means that a folder with state does not take a change.

    Args:
        error: What the operating system said.
        folder: The state directory.
        inodes_left: Whether its file system can still name new files; where it cannot, it is full at any size.
    """
    if error.errno in FULL and not inodes_left:
        return StateError(
            f"the file system of {folder} has no inodes left",
            remedy=f"remove files there (`du --inodes -x {folder}` counts them); the next run goes on",
        )
    if error.errno in FULL:
        return StateError(
            f"the disk is full: no room in {folder}",
            remedy=f"make room there (`du -xh {folder}` tells what takes it); the next run goes on",
        )
    if error.errno == errno.EROFS:
        return StateError(
            f"the file system of {folder} is read-only",
            remedy="read the kernel's log for the disk's errors, then mount it writable; the next run goes on",
        )
    where = f": {error.filename}" if error.filename else ""
    return StateError(
        f"{folder} cannot be used: {error.strerror or error}{where}",
        remedy="check the folder's owner, its mode and its disk; the next run goes on",
    )
