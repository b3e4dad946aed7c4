"""What it means that a disk does not take what is written."""

import errno
from pathlib import Path

import pytest

from agent.base.disk import disk_refusal, state_error
from agent.base.errors import ExitCode

FOLDER = Path("/var/lib/mayfly")


@pytest.mark.parametrize(
    ("number", "inodes_left", "said", "remedy"),
    [
        (errno.ENOSPC, True, "the disk is full", "make room there"),
        (errno.EDQUOT, True, "the disk is full", "make room there"),
        (errno.ENOSPC, False, "no inodes left", "remove files there"),
        (errno.EROFS, True, "is read-only", "mount it writable"),
        (errno.EACCES, True, "Permission denied: file", "owner, its mode"),
        (errno.EIO, False, "cannot be used", "its disk"),
    ],
)
def test_a_refusal_names_the_folder_and_the_remedy(
    number: int, *, inodes_left: bool, said: str, remedy: str
) -> None:
    """Each way in which a disk refuses has words of its own; all are exit code 4 where no run has begun."""
    error = state_error(
        OSError(number, "Permission denied", "file"), FOLDER, inodes_left=inodes_left
    )
    assert said in str(error)
    assert str(FOLDER) in str(error)
    assert remedy in error.remedy
    assert "next run" in error.remedy
    assert error.with_remedy == f"{error} ({error.remedy})"
    assert error.exit_code is ExitCode.CONFIGURATION


def test_a_refusal_is_found_in_a_group_and_a_defect_is_none() -> None:
    """Tasks fail in groups; a complaint that is not about a file system stays what it is."""
    full = OSError(errno.ENOSPC, "No space left on device")
    group = ExceptionGroup("tasks", [ValueError("x"), ExceptionGroup("inner", [full])])
    assert disk_refusal(group) is full
    assert disk_refusal(ExceptionGroup("tasks", [ValueError("x"), TimeoutError()])) is None
    assert disk_refusal(ConnectionResetError(errno.ECONNRESET, "reset")) is None
