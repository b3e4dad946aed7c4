"""How a run ended: its exit code, and the news of it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import ExitCode
from agent.contract.entries import Ended
from agent.contract.facts import RolledBack
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.notify.news import MAX_BYTES, compose, concerns_people
from agent.notify.outcome import Outcome

RUN = "20261122T064205Z-3f9a1c"


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome(RunStatus.SUCCEEDED), ExitCode.DONE),
        (Outcome(RunStatus.STOOD_BACK), ExitCode.DONE),
        (Outcome(RunStatus.PARTIAL), ExitCode.PARTIAL),
        (Outcome(RunStatus.FAILED), ExitCode.FAILED),
        (Outcome(RunStatus.INTERRUPTED), ExitCode.INTERRUPTED),
        (Outcome(RunStatus.FAILED, released=False), ExitCode.NO_RELEASE),
        (Outcome(RunStatus.SUCCEEDED, delivered=False), ExitCode.NOT_DELIVERED),
        (Outcome(RunStatus.FAILED, released=False, delivered=False), ExitCode.NOT_DELIVERED),
    ],
)
def test_the_exit_code_says_what_needs_a_person_most(outcome: Outcome, code: ExitCode) -> None:
    """Files that are not in the bucket come before everything."""
    assert outcome.exit_code is code


def outcome(**changes: object) -> Outcome:
    """A run with one job that failed, one that was not due, one that succeeded."""
    jobs = (
        Ended(name="a", status=JobStatus.SUCCEEDED),
        Ended(name="b", status=JobStatus.FAILED, cause=JobCause.PAGE_CHANGED, message="no table"),
        Ended(name="c", status=JobStatus.SKIPPED, message="it runs on sun"),
    )
    values: dict[str, object] = {"status": RunStatus.PARTIAL, "jobs": jobs, **changes}
    return Outcome(**values)  # type: ignore[arg-type]


def test_news_say_what_failed_and_why() -> None:
    """A line for a phone's lock screen, and below it each job that did not succeed."""
    news = compose(outcome(manifest="s3://b/runs/x/datapackage.json"), RUN)
    assert news.title == "mayfly: partial, 1 of 2 jobs"
    assert news.text.splitlines() == [
        f"run {RUN}, exit code 3",
        "b failed (page_changed): no table",
        "s3://b/runs/x/datapackage.json",
    ]


def test_news_of_what_needs_a_person_come_first() -> None:
    """Files that wait on the machine or are lost, a success that lacks some of its files, a day without a release."""
    late = compose(outcome(delivered=False, undelivered="no route"), RUN)
    assert late.title.endswith(", not delivered")
    assert "the files wait on the machine: no route" in late.text
    gone = compose(outcome(delivered=False, undelivered="no route", kept=False), RUN)
    assert "the files are lost with the machine: no route" in gone.text
    job = Ended(name="a", status=JobStatus.SUCCEEDED, refused=1, message="1 file: a link")
    partly = compose(outcome(jobs=(job,)), RUN)
    assert partly.title == "mayfly: partial, 1 of 1 jobs"
    assert "a incomplete: 1 file: a link" in partly.text.splitlines()
    lost = compose(outcome(status=RunStatus.FAILED, jobs=(), released=False), RUN)
    assert lost.title == "mayfly: failed, no release could run"


def test_news_tell_of_a_rollback() -> None:
    """All jobs succeeded, on the last good release: somebody has to mend the newest."""
    back = RolledBack(ref="v2.0", commit="c" * 40, reason="no module named x", jobs=("a",))
    calm = outcome(status=RunStatus.SUCCEEDED)
    told = replace(calm, rolled_back=back)
    assert (told.exit_code, concerns_people(calm), concerns_people(told)) == (0, False, True)
    news = compose(told, RUN)
    assert news.title == "mayfly: succeeded, 1 of 2 jobs, v2.0 rolled back"
    assert "release v2.0 failed its trial: no module named x" in news.text.splitlines()


@given(st.lists(st.text(max_size=2000), max_size=60))
def test_news_fit_into_a_ping(messages: list[str]) -> None:
    """Whatever jobs say, the text is short and encodes."""
    jobs = tuple(
        Ended.model_construct(name="j", status=JobStatus.FAILED, cause=None, message=message)
        for message in messages
    )
    news = compose(outcome(jobs=jobs), RUN)
    assert len(news.text.encode()) <= MAX_BYTES
