"""What is said of a job, decided without a bucket."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.entries import MOST_OUTPUTS, Ended, Object, Output
from agent.contract.layout import JobKey
from agent.contract.package import Attempt, JobRecord, RefusedFile
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.delivery.sealing import (
    cut_short,
    entry_of,
    rerun,
    status_of,
    with_note,
    with_refusals,
)

RUN = "20261126T000000Z-abcdef"
MOMENT = datetime(2026, 11, 26, tzinfo=UTC)
LINK = RefusedFile(path="x", reason="a link")
PACKAGE = Object(key=JobKey(RUN, "a").text, bytes=1, sha256="0" * 64)


def job(status: JobStatus = JobStatus.SUCCEEDED, **more: Any) -> JobRecord:
    """Return a job."""
    return JobRecord(run=RUN, name="a", status=status, finished=MOMENT, **more)


def attempt(number: int, status: JobStatus = JobStatus.FAILED) -> Attempt:
    """Return an attempt."""
    return Attempt(number=number, started=MOMENT, finished=MOMENT, status=status)


@pytest.mark.parametrize(
    ("status", "count", "files", "after"),
    [
        (JobStatus.SUCCEEDED, 0, 0, JobStatus.SUCCEEDED),
        (JobStatus.SUCCEEDED, 1, 3, JobStatus.SUCCEEDED),
        (JobStatus.SUCCEEDED, 1, 0, JobStatus.EMPTY),
        (JobStatus.FAILED, 1, 0, JobStatus.FAILED),
    ],
)
def test_refusals(status: JobStatus, count: int, files: int, after: JobStatus) -> None:
    """A success without any file is none."""
    told = with_refusals(job(status, message="m"), [LINK] * count, count, files=files)
    assert (told.status, len(told.refused)) == (after, count)
    assert ("could not be delivered" in told.message) == (count > 0 and status is job().status)
    assert (told.cause is JobCause.EXPECTATION) == (after is JobStatus.EMPTY)


@given(message=st.text(max_size=2000), count=st.integers(1, 10**9), notes=st.integers(0, 100))
def test_what_is_added_stays_within_the_bounds(message: str, count: int, notes: int) -> None:
    """What is sealed can be read, whatever the job said."""
    record = job(message=message, notes=("n",) * notes)
    told = with_note(with_refusals(cut_short(record, count), [LINK], count, files=1), message)
    JobRecord.model_validate_json(told.model_dump_json())


def test_a_job_that_was_cut_short_is_no_success() -> None:
    """One that failed stays what it was."""
    cut = cut_short(job(), 2)
    assert (cut.status, cut.cause) == (JobStatus.INTERRUPTED, JobCause.INTERRUPTED)
    assert cut.message == "2 files of it could not be sent in time"
    failed = cut_short(job(JobStatus.FAILED), 1)
    assert failed.status is JobStatus.FAILED
    assert failed.notes == ("1 file of it could not be sent in time",)


def test_a_rerun_has_the_attempts_of_both() -> None:
    """In their order; the result is the later one's."""
    earlier = job(JobStatus.FAILED, attempts=(attempt(1), attempt(2)), started=MOMENT)
    later = job(attempts=(attempt(3, JobStatus.SUCCEEDED),), started=MOMENT + timedelta(hours=1))
    told = rerun(earlier, later)
    assert [one.number for one in told.attempts] == [1, 2, 3]
    assert (told.status, told.started) == (JobStatus.SUCCEEDED, MOMENT)


def entry(record: JobRecord, outputs: tuple[Output, ...] = (), **more: Any) -> Ended:
    """Return what the log says of a job."""
    values: dict[str, Any] = {"files": 2, "size": 20, "refused": 0, "commit": None}
    return entry_of(record, PACKAGE, outputs, **values | more)


def test_only_a_success_is_an_output() -> None:
    """And the last ones are kept."""
    past = tuple(Output(files=number) for number in range(MOST_OUTPUTS))
    assert entry(job(items=5), past).outputs == (*past[1:], Output(files=2, items=5, seconds=0.0))
    assert entry(job(JobStatus.FAILED), past).outputs == past


@pytest.mark.parametrize(
    ("plan", "said"), [("c" * 40, None), ("d" * 40, "c" * 40), (None, "c" * 40)]
)
def test_the_commit_is_told_where_it_is_not_the_plans(plan: str | None, said: str | None) -> None:
    """After a rollback, some jobs are of another release."""
    assert entry(job(commit="c" * 40), commit=plan).release == said


def ended(status: JobStatus, cause: JobCause | None = None, *, refused: int = 0) -> Ended:
    """Return a job as the log has it."""
    return Ended(name="a", status=status, cause=cause, refused=refused)


S, F, K = ended(JobStatus.SUCCEEDED), ended(JobStatus.FAILED), ended(JobStatus.SKIPPED)
INCOMPLETE = ended(JobStatus.SUCCEEDED, refused=1)


@pytest.mark.parametrize(
    ("jobs", "status"),
    [
        ([], RunStatus.SUCCEEDED),
        ([S, S], RunStatus.SUCCEEDED),
        ([S, K], RunStatus.SUCCEEDED),
        ([K], RunStatus.SUCCEEDED),
        ([S, ended(JobStatus.SKIPPED, JobCause.ERROR)], RunStatus.PARTIAL),
        ([S, F], RunStatus.PARTIAL),
        ([S, INCOMPLETE], RunStatus.PARTIAL),
        ([INCOMPLETE], RunStatus.PARTIAL),
        ([F, ended(JobStatus.EMPTY)], RunStatus.FAILED),
        ([ended(JobStatus.FAILED, refused=1)], RunStatus.FAILED),
    ],
)
def test_a_runs_status(jobs: list[Ended], status: RunStatus) -> None:
    """A job that was not due counts neither way; one that was skipped for a cause did not succeed."""
    assert status_of(jobs, interrupted=False) is status
    assert status_of(jobs, interrupted=True) is RunStatus.INTERRUPTED
