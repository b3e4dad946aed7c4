"""Errors of a full, read-only or broken disk become expected failures with a remedy."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.base.errors import StateError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
REFUSALS = FULL | {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP}
"""Errors of a file system. Any other error of the operating system is a defect of ours."""


def disk_refusal(error: BaseException) -> OSError | None:
    """Return the first error of a file system in an exception, or in a group of them; None if it has none."""
    return next((one for one in _leaves(error) if one.errno in REFUSALS), None)


def whole_disk(error: BaseException) -> bool:
    """Tell whether a file system takes nothing at all, so that the one file is not to blame."""
    return any(one.errno in FULL | {errno.EROFS} for one in _leaves(error))


def _leaves(error: BaseException) -> Iterator[OSError]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif isinstance(error, OSError):
        yield error


def state_error(error: OSError, folder: Path, *, inodes_left: bool) -> StateError:
    """Return the meaning of an error of the state directory `folder`.

    Without `inodes_left` its file system cannot name new files: it is full at any size.
    """
    if error.errno in FULL and not inodes_left:
        return StateError(
            f"the file system of {folder} has no inodes left",
            remedy=f"remove files there (`du --inodes -x {folder}` counts them); the next run goes on",
        )
    if error.errno in FULL:
        return StateError(
            f"the disk is full: no room in {folder}",
            remedy=f"make room there (`du -xh {folder}` shows what uses it); the next run goes on",
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


@contextmanager
def state_disk(folder: Path) -> Iterator[None]:
    """Turn what the file system of a state directory refuses within the block into one error with a remedy.

    Raises:
        StateError: It is full, out of inodes, read-only, or broken.
    """
    try:
        yield
    except (OSError, ExceptionGroup) as error:
        refusal = disk_refusal(error)
        if refusal is None:
            raise
        raise state_error(refusal, folder, inodes_left=_has_inodes(folder)) from error


def _has_inodes(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return True
    return status.f_files == 0 or status.f_favail > 0
