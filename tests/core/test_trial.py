"""Trials: how often, whose fault, what runs once more, and what becomes of a release."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.jobsfile import Job
from agent.core.results import Attempt, JobCause, JobResult, JobStatus
from agent.release.trial import (
    Blame,
    Decision,
    again,
    blame,
    guilty_of,
    judge,
    judge_alone,
    passed_by,
)

NOW = datetime(2026, 11, 22, 6, 42, tzinfo=UTC)
COMMIT, OTHER = "a" * 40, "b" * 40


def result(
    name: str,
    status: JobStatus = JobStatus.SUCCEEDED,
    cause: JobCause | None = None,
    message: str = "",
    code: int | None = None,
) -> JobResult:
    """Return what became of a job that was tried once."""
    tried = Attempt(number=1, started=NOW, finished=NOW, status=status, exit_code=code)
    return JobResult(name=name, status=status, cause=cause, message=message, attempts=(tried,))


def job(name: str, *needs: str) -> Job:
    """Return a job."""
    return Job(name=name, command=("true",), needs=needs)


@pytest.mark.parametrize(
    ("status", "cause", "message", "code", "who"),
    [
        (JobStatus.SUCCEEDED, None, "", 0, Blame.NOBODY),
        (JobStatus.SKIPPED, None, "it runs on mon", None, Blame.NOBODY),
        (JobStatus.FAILED, JobCause.RELEASE, "could not be started", None, Blame.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 1: ImportError: x", 1, Blame.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 1: No module named x", 1, Blame.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 127: sh: x: not found", 127, Blame.RELEASE),
        (JobStatus.FAILED, JobCause.ERROR, "exit code 3", 3, Blame.UNKNOWN),
        (JobStatus.FAILED, JobCause.ERROR, "killed by signal 6", None, Blame.UNKNOWN),
        (JobStatus.FAILED, JobCause.PAGE_CHANGED, "", 1, Blame.UNKNOWN),
        (JobStatus.FAILED, JobCause.OUT_OF_MEMORY, "", 1, Blame.UNKNOWN),
        (JobStatus.TIMED_OUT, JobCause.TIMEOUT, "", None, Blame.UNKNOWN),
        (JobStatus.EMPTY, JobCause.EXPECTATION, "0 files", 0, Blame.UNKNOWN),
        (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "ImportError", 1, Blame.OTHERS),
        (JobStatus.FAILED, JobCause.BLOCKED, "", 1, Blame.OTHERS),
        (JobStatus.FAILED, JobCause.BROWSER, "", 1, Blame.OTHERS),
        (JobStatus.FAILED, JobCause.OUT_OF_DISK, "", 1, Blame.OTHERS),
        (JobStatus.INTERRUPTED, JobCause.INTERRUPTED, "", None, Blame.OTHERS),
    ],
)
def test_whose_fault_a_failure_is(
    status: JobStatus, cause: JobCause | None, message: str, code: int | None, *, who: Blame
) -> None:
    """A site that is down is never the release's fault, and a missing import always is."""
    assert blame(result("x", status, cause, message, code)) is who


FAILED = (JobStatus.FAILED, JobCause.ERROR, "exit code 3", 3)
BROKEN = (JobStatus.FAILED, JobCause.RELEASE, "no program", None)
DOWN = (JobStatus.FAILED, JobCause.SITE_UNREACHABLE, "", 1)
AFTER = (JobStatus.SKIPPED, JobCause.ERROR, 'it needs "a"', None)


def test_what_runs_once_more() -> None:
    """What may be the release's fault, and what was skipped for it, in the last good one's order and as it can."""
    good = [job("c", "a"), job("a"), job("b"), job("d", "a", "b")]
    results = [
        result("a", *FAILED),
        result("b", *DOWN),
        result("c", *AFTER),
        result("d", *AFTER),
        result("new", *BROKEN),
    ]
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
        (
            [result("a", *FAILED), result("b", *AFTER)],
            [result("a", *FAILED), result("b")],
            Decision.UNDECIDED,
            "",
        ),
    ],
)
def test_what_becomes_of_a_release(
    results: list[JobResult], rerun: list[JobResult], decision: Decision, words: str
) -> None:
    """Bad is what failed by itself, or what the last good release does and it does not."""
    judgement = judge(results, rerun, guilty_of(results))
    assert judgement.decision is decision
    assert words in judgement.reason
    assert bool(judgement.reason) is (decision is Decision.BAD)


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
    results: list[JobResult], decision: Decision
) -> None:
    """That nothing could take over from it proves nothing."""
    assert judge_alone(results).decision is decision


CAUSES = list(JobCause)
RESULTS = st.lists(
    st.builds(
        result,
        st.sampled_from("abcd"),
        st.sampled_from([JobStatus.FAILED, JobStatus.SUCCEEDED, JobStatus.TIMED_OUT]),
        st.sampled_from(CAUSES),
    ),
    unique_by=lambda each: each.name,
)


@given(RESULTS, st.sets(st.sampled_from("abcd")), st.booleans())
def test_only_what_failed_runs_once_more(
    results: list[JobResult], passed: set[str], known: bool
) -> None:
    """Nothing that succeeded, and nothing that a site or the machine failed, is ever repeated."""
    names = again(results, [job(name) for name in "abcd"], passed if known else None, 60)
    by_name = {each.name: each for each in results}
    for name in names:
        assert blame(by_name[name]) in {Blame.UNKNOWN, Blame.RELEASE}


@given(RESULTS)
def test_without_a_reason_of_its_own_no_release_is_bad(results: list[JobResult]) -> None:
    """As long as the last good release does nothing better, only certain guilt counts."""
    bad = judge(results, (), guilty_of(results)).decision is Decision.BAD
    assert bad is any(blame(each) is Blame.RELEASE for each in results)


def test_what_the_last_good_release_does_well_is_remembered() -> None:
    """A job that a site failed keeps its mark; one that failed by itself loses it."""
    passed = passed_by(None, [result("a"), result("b"), result("c")])
    assert passed == ("a", "b", "c")
    assert passed_by(passed, [result("a", *DOWN), result("b", *FAILED)]) == ("a", "c")
