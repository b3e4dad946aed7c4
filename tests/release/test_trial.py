"""Trials: how often, whose fault, what runs once more, and what becomes of a release."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.jobsfile import Job
from agent.contract.package import Attempt, JobRecord
from agent.contract.results import Fault, JobCause, JobStatus
from agent.release.trial import (
    Decision,
    again,
    doubts,
    fault_of,
    guilty_of,
    in_doubt,
    judge,
    judge_alone,
    passed_by,
)

NOW = datetime(2026, 11, 22, 6, 42, tzinfo=UTC)
RUN = "20261122T064205Z-3f9a1c"


def result(
    name: str,
    status: JobStatus = JobStatus.SUCCEEDED,
    cause: JobCause | None = None,
    message: str = "",
    code: int | None = None,
) -> JobRecord:
    """Return what became of a job that was tried once."""
    tried = Attempt(number=1, started=NOW, finished=NOW, status=status, exit_code=code)
    return JobRecord(
        run=RUN,
        name=name,
        status=status,
        cause=cause,
        message=message,
        finished=NOW,
        attempts=(tried,),
    )


def job(name: str, *needs: str) -> Job:
    """Return a job."""
    return Job(name=name, command=("true",), needs=needs)


@pytest.mark.parametrize(
    ("status", "cause", "message", "code", "fault"),
    [
        (JobStatus.SUCCEEDED, None, "", 0, None),
        (JobStatus.SKIPPED, None, "it runs on mon", None, None),
        (JobStatus.FAILED, JobCause.RELEASE, "could not be started", None, Fault.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 1: ImportError: x", 1, Fault.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 1: No module named x", 1, Fault.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 127: sh: x: not found", 127, Fault.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 3", 3, Fault.UNKNOWN),
        (JobStatus.FAILED, JobCause.ERROR, "killed by signal 6", None, Fault.UNKNOWN),
        (JobStatus.FAILED, JobCause.PAGE_CHANGED, "", 1, Fault.UNKNOWN),
        (JobStatus.FAILED, JobCause.OUT_OF_MEMORY, "", 1, Fault.UNKNOWN),
        (JobStatus.TIMED_OUT, JobCause.TIMEOUT, "", None, Fault.UNKNOWN),
        (JobStatus.EMPTY, JobCause.EXPECTATION, "0 files", 0, Fault.UNKNOWN),
        (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "ImportError", 1, Fault.SITE),
        (JobStatus.FAILED, JobCause.BLOCKED, "", 1, Fault.SITE),
        (JobStatus.FAILED, JobCause.BROWSER, "", 1, Fault.MACHINE),
        (JobStatus.FAILED, JobCause.OUT_OF_DISK, "", 1, Fault.MACHINE),
        (JobStatus.INTERRUPTED, JobCause.INTERRUPTED, "", None, Fault.MACHINE),
    ],
)
def test_whose_fault_a_failure_is(
    status: JobStatus,
    cause: JobCause | None,
    message: str,
    code: int | None,
    *,
    fault: Fault | None,
) -> None:
    """A site that is down is never the release's fault, and a missing import always is."""
    assert fault_of(result("x", status, cause, message, code)) is fault


FAILED = (JobStatus.FAILED, JobCause.ERROR, "exit code 3", 3)
BROKEN = (JobStatus.FAILED, JobCause.RELEASE, "no program", None)
DOWN = (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "", 1)
AFTER = (JobStatus.SKIPPED, JobCause.ERROR, 'it needs "a"', None)
A_FAILED = result("a", *FAILED)


def test_what_runs_once_more() -> None:
    """What may be the release's fault, and what was skipped for it, in the last good one's order and as it can."""
    good = [job("c", "a"), job("a"), job("b"), job("d", "a", "b")]
    results = [A_FAILED, result("b", *DOWN), result("c", *AFTER), result("d", *AFTER)]
    results.append(result("new", *BROKEN))
    assert again(results, good, None, 100) == ("c", "a")
    assert again(results, good, {"b"}, 100) == ()
    assert again(results, good, None, 0) == ()
    assert again([result("a", *BROKEN)], good, {"b"}, 100) == ("a",)


@pytest.mark.parametrize(
    ("results", "rerun", "decision", "words"),
    [
        ([result("a")], [], Decision.PROMOTE, ""),
        ([result("a", *DOWN)], [], Decision.UNDECIDED, ""),
        ([], [], Decision.UNDECIDED, ""),
        ([result("a"), result("b", *DOWN)], [], Decision.PROMOTE, ""),
        ([result("a"), result("b", *FAILED)], [result("b")], Decision.BAD, "works on the last"),
        ([result("a"), result("b", *FAILED)], [result("b", *FAILED)], Decision.PROMOTE, ""),
        ([result("b", *FAILED)], [result("b", *DOWN)], Decision.UNDECIDED, ""),
        ([result("a"), result("b", *BROKEN)], [result("b", *DOWN)], Decision.BAD, "no program"),
        ([A_FAILED, result("b", *AFTER)], [A_FAILED, result("b")], Decision.UNDECIDED, ""),
    ],
)
def test_what_becomes_of_a_release(
    results: list[JobRecord], rerun: list[JobRecord], decision: Decision, words: str
) -> None:
    """Bad is what failed by itself, or what the last good release does and it does not."""
    judgement = judge(results, rerun, guilty_of(results))
    assert judgement.decision is decision
    assert words in judgement.reason
    assert bool(judgement.reason) is (decision is Decision.BAD)


CUT_OFF = (JobStatus.INTERRUPTED, JobCause.INTERRUPTED, "", None)


@pytest.mark.parametrize(
    ("rerun", "decision"),
    [
        ([], Decision.UNDECIDED),
        ([result("b", *CUT_OFF)], Decision.UNDECIDED),
        ([result("c", *FAILED)], Decision.UNDECIDED),
        ([result("b", *FAILED)], Decision.PROMOTE),
        ([result("b", *DOWN)], Decision.PROMOTE),
        ([result("b")], Decision.BAD),
    ],
)
def test_what_was_not_asked_is_open(rerun: list[JobRecord], decision: Decision) -> None:
    """A machine that is taken back before the last good release has told makes no release good."""
    results = [result("a"), result("b", *FAILED)]
    assert judge(results, rerun, guilty_of(results), ["b"]).decision is decision


@pytest.mark.parametrize(
    ("known", "passed", "open_"),
    [
        (None, None, {"a", "b"}),
        (("a", "c"), None, {"a"}),
        (None, ("b",), {"b"}),
        (("a", "b"), ("b", "c"), {"b"}),
        ((), None, set()),
    ],
)
def test_what_the_last_good_release_is_to_tell(
    known: tuple[str, ...] | None, passed: tuple[str, ...] | None, open_: set[str]
) -> None:
    """Of a job that it does not have, or that failed on it too, it would never tell."""
    results = [A_FAILED, result("b", *FAILED), result("c"), result("d", *DOWN)]
    results.append(result("e", *BROKEN))
    assert doubts(results, known, passed) == open_


@pytest.mark.parametrize(
    ("results", "decision"),
    [
        ([result("a")], Decision.PROMOTE),
        ([result("a"), result("b", *BROKEN)], Decision.PROMOTE),
        ([result("a", *FAILED)], Decision.UNDECIDED),
        ([result("a", *DOWN), result("b", *FAILED)], Decision.UNDECIDED),
        ([result("a", *FAILED), result("b", *BROKEN)], Decision.BAD),
        ([result("a", JobStatus.SKIPPED, None, "it runs on mon")], Decision.UNDECIDED),
        ([], Decision.UNDECIDED),
    ],
)
def test_a_first_release_is_good_once_a_job_of_it_succeeded(
    results: list[JobRecord], decision: Decision
) -> None:
    """That nothing could take over from it proves nothing."""
    assert judge_alone(results).decision is decision


RESULTS = st.lists(
    st.builds(
        result,
        st.sampled_from("abcd"),
        st.sampled_from([JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.TIMED_OUT]),
        st.sampled_from(list(JobCause)),
    ),
    unique_by=lambda each: each.name,
)


@given(RESULTS, st.sets(st.sampled_from("abcd")), st.booleans())
def test_only_what_failed_runs_once_more(
    results: list[JobRecord], passed: set[str], known: bool
) -> None:
    """Nothing that succeeded, and nothing that a site or the machine failed, is ever repeated."""
    names = again(results, [job(name) for name in "abcd"], passed if known else None, 60)
    by_name = {each.name: each for each in results}
    for name in names:
        assert in_doubt(by_name[name])


@given(RESULTS)
def test_without_a_reason_of_its_own_no_release_is_bad(results: list[JobRecord]) -> None:
    """As long as the last good release does nothing better, only certain guilt counts."""
    bad = judge(results, (), guilty_of(results)).decision is Decision.BAD
    assert bad is any(fault_of(each) is Fault.RELEASE for each in results)


def test_what_the_last_good_release_does_well_is_remembered() -> None:
    """A job that a site failed keeps its mark; one that failed by itself loses it."""
    passed = passed_by(None, [result("a"), result("b"), result("c")])
    assert passed == ("a", "b", "c")
    assert passed_by(passed, [result("a", *DOWN), result("b", *FAILED)]) == ("a", "c")
