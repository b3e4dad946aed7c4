"""What the page is told: whole spans of days, failures with their evidence, and no exception."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest

from agent.core.ids import run_id
from agent.core.results import JobCause, JobResult, JobStatus
from consumer.answers import MOST_DAYS, Answers, Rules
from consumer.archive.follow import look
from consumer.archive.reader import Reader
from consumer.archive.writer import Writer
from consumer.facts.days import DayState
from consumer.queries import Health, RunFiles
from tests.bucket.bucket import Bucket
from tests.bucket.leaving import leave_begun, leave_run

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
SHOT = "_run/evidence/quotes/\u540d\u524d 1.png"


def run_at(days: int, number: int = 0) -> str:
    """A run that began so many days ago."""
    return run_id(NOW - timedelta(days=days, hours=6 - number), bytes([days, number, 3]))


@pytest.fixture
async def answers(tmp_path: Path, folder: Bucket) -> Answers:
    """Answers about four days: two good, a vanished one, a bad one with a screenshot."""
    for days in (4, 3):
        leave_run(folder, run_at(days))
    leave_begun(folder, run_at(2))
    bad = JobResult(
        name="quotes", status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="<b>\x1b[1m"
    )
    jobs = (JobResult(name="notes", status=JobStatus.SUCCEEDED), bad)
    files = {SHOT: b"\x89PNG", "_run/evidence/quotes/attempt-1.log": b"x"}
    leave_run(folder, run_at(1), jobs=jobs, files=files, stale=True)
    bucket = folder.reader()
    path = tmp_path / "history.sqlite"
    writer = Writer(path, bucket.name)
    await look(bucket, writer, NOW)
    writer.close()
    return answers_of(path, bucket.name)


def answers_of(path: Path, bucket: str) -> Answers:
    """Answers from a history, as of `NOW`."""
    return Answers(
        Reader(path),
        bucket,
        Rules(),
        clock=NOW.timestamp,
        health=lambda: Health(NOW),
        files=lambda run: RunFiles(problem=run),
    )


async def test_the_overview_has_all_days_of_all_jobs(answers: Answers) -> None:
    """Days are without gaps and the same for each job; the best of a day counts for all runs together."""
    view = answers.overview(7)
    spans = {tuple(day.day for day in job.days) for job in view.jobs}
    assert spans == {tuple(day.day for day in view.days)}
    assert [day.day for day in view.days][-1] == date(2026, 11, 22)
    assert [day.state for day in view.days][2:6] == [
        DayState.SUCCEEDED,
        DayState.SUCCEEDED,
        DayState.MISSED,
        DayState.PARTIAL,
    ]
    quotes = next(job for job in view.jobs if job.name == "quotes")
    assert [day.state.value for day in quotes.days][2:6] == [
        "succeeded",
        "succeeded",
        "missed",
        "failed",
    ]
    assert (quotes.consecutive_failures, len(quotes.points)) == (1, 3)
    assert [one.run for one in view.vanished] == [run_at(2)]
    assert view.release is not None
    assert view.release.stale_since is not None


async def test_a_failure_comes_with_its_evidence(answers: Answers) -> None:
    """Pictures come first, links lead to this server, messages are quiet and not yet escaped."""
    (failure,) = [job.failure for job in answers.overview().jobs if job.failure]
    assert (failure.cause, failure.message) == (JobCause.BLOCKED, "<b> [1m")
    assert [one.image for one in failure.evidence] == [True, False]
    assert unquote(failure.evidence[0].url) == f"runs/{run_at(1)}/files/{SHOT}"
    assert failure.evidence[0].url.isascii()


async def test_a_run_has_its_jobs_in_order_and_its_neighbours(answers: Answers) -> None:
    """The page of a run shows what its release listed, and leads to the runs beside it."""
    view = answers.run(run_at(1))
    assert view is not None
    assert [job.name for job in view.jobs] == ["notes", "quotes"]
    assert (view.before, view.after) == (run_at(3), None)
    assert view.stale_reason == "no network"
    assert answers.run(run_at(2)) is None
    assert answers.run("../x") is None


async def test_lists_are_bounded_whatever_is_asked(answers: Answers) -> None:
    """Days, lines and spans that nobody needs are cut to what is answered."""
    assert len(answers.overview(10**9).days) == MOST_DAYS
    assert len(answers.overview(-5).days) == 1
    assert [line.run for line in answers.runs(10**9)] == [run_at(1), run_at(3), run_at(4)]
    assert [line.run for line in answers.runs(1, before=run_at(1))] == [run_at(3)]
    assert len(answers.days_of(date(2026, 11, 1), date(2026, 11, 30))) == 22
    assert answers.days_of(date(2027, 1, 1), date(2027, 1, 2)) == ()


async def test_answers_are_kept_until_something_changes(answers: Answers) -> None:
    """The same question costs nothing a second time."""
    assert answers.overview(30) is answers.overview(30)
    first = answers.facts()
    answers.changed()
    assert answers.facts() is not first


def test_without_a_history_there_are_answers_all_the_same(tmp_path: Path) -> None:
    """The page says that the history cannot be read, and raises nothing."""
    answers = answers_of(tmp_path / "none", "b")
    assert answers.overview().jobs == ()
    assert "history" in answers.overview().health.problem
    assert answers.run(run_at(1)) is None
    assert answers.runs() == ()
    assert answers.days_of(date(2026, 1, 1), date(2026, 1, 2))[0].state is DayState.NONE
