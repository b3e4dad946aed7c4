"""The edge at which a state directory that does not take a change becomes an expected failure."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.base.disk import disk_refusal, state_error
from agent.base.errors import StateError


@contextmanager
def state_disk(folder: Path) -> Iterator[None]:
    """Have what the file system of a state directory refuses within the block end as one error with a remedy.

    Raises:
        StateError: It is full, out of inodes, read-only, or broken.
    """
    try:
        yield
    except (OSError, ExceptionGroup) as error:
        refusal = disk_refusal(error)
        if refusal is None:
            raise
        raise as_state_error(refusal, folder) from error


def as_state_error(error: OSError, folder: Path) -> StateError:
    """Return a refusal of a state directory's file system as an expected failure."""
    return state_error(error, folder, inodes_left=_has_inodes(folder))


def _has_inodes(folder: Path) -> bool:
    try:
        status = os.statvfs(folder)
    except OSError:
        return True
    return status.f_files == 0 or status.f_favail > 0
