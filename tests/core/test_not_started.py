"""Whose doing it is that a program could not be started: a release must not be rolled back for a busy machine."""

import errno
import os

import pytest

from agent.contract.results import JobCause
from agent.jobs.verdict import not_started


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.ENOENT, JobCause.RELEASE),
        (errno.EACCES, JobCause.RELEASE),
        (errno.ENOEXEC, JobCause.RELEASE),
        (errno.EISDIR, JobCause.RELEASE),
        (errno.ENOSPC, JobCause.OUT_OF_DISK),
        (errno.EAGAIN, JobCause.ERROR),
        (errno.ENOMEM, JobCause.ERROR),
        (errno.EMFILE, JobCause.ERROR),
    ],
)
def test_the_release_is_to_blame_for_its_program_only(number: int, cause: JobCause) -> None:
    """No such program, or none that can be executed; what the machine had not is the machine's."""
    assert not_started(OSError(number, os.strerror(number))) is cause


def test_a_program_that_is_not_on_the_path_is_the_releases() -> None:
    """The agent finds that out itself, so that the error has no number."""
    assert not_started(FileNotFoundError('program "x" is not on the PATH')) is JobCause.RELEASE


def test_a_unit_that_did_not_start_in_time_is_not_the_releases() -> None:
    """A machine with too much to do starts nobody's program in time."""
    error = OSError("systemd did not start its unit in 60 s")
    assert not_started(error) is JobCause.ERROR
