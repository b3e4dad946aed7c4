"""What follows from a history: failures in a row, missed days, money, releases."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.results import JobCause, JobStatus
from consumer.answers import Rules, facts_of
from consumer.archive.reader import Past
from consumer.facts.days import Calendar, DayState, job_days, run_days
from consumer.facts.jobs import FORGOTTEN_AFTER, MOST_JOBS, JobFacts, current_jobs, facts_of_jobs
from consumer.facts.runs import costs_of, facts_of_runs, release_of
from tests.consumer.rows import FIRST, after, begun, job_rows, run_rows, split

LETTERS = {
    DayState.SUCCEEDED: "s",
    DayState.FAILED: "f",
    DayState.MISSED: "m",
    DayState.SKIPPED: "-",
    DayState.NONE: ".",
    DayState.PARTIAL: "p",
    DayState.RUNNING: "r",
}


def facts(
    days: str, *, now: float | None = None, every: float | None = None, runs: str = ""
) -> JobFacts:
    """The facts of a job with such a history, an hour after the last day's run."""
    rows = job_rows(days)
    moment = after(len(split(days)) - 1, 1.5) if now is None else now
    calendar = Calendar(UTC, moment, every)
    (found,) = facts_of_jobs({"quotes": rows}, run_rows(runs), calendar)
    return found


def strip(days: str, *, now: float | None = None, every: float | None = None) -> str:
    """The days of a job as letters."""
    return "".join(LETTERS[day.state] for day in facts(days, now=now, every=every).days)


@pytest.mark.parametrize(
    ("days", "consecutive", "failed_days", "missed_days"),
    [
        ("s", 0, 0, 0),
        ("f", 1, 1, 0),
        ("sssfff", 3, 3, 0),
        ("ssftie", 4, 4, 0),
        ("fffs", 0, 0, 0),
        ("sff-f", 3, 3, 0),
        ("sf-", 1, 1, 0),
        ("sxx", 2, 2, 0),
        ("s(ff)(ff)", 4, 2, 0),
        ("s(ff)(fs)", 0, 0, 0),
        ("s(sf)", 1, 0, 0),
        ("ss.s", 0, 0, 0),
        ("sf.f", 2, 2, 0),
        ("-", 0, 0, 0),
    ],
)
def test_rows_of_failures(days: str, consecutive: int, failed_days: int, missed_days: int) -> None:
    """Each run counts once and each day once; what was not due, or did not run, neither counts nor ends a row."""
    found = facts(days)
    assert found.consecutive_failures == consecutive
    assert found.failed_days == failed_days
    assert found.missed_days == missed_days


@pytest.mark.parametrize(
    ("days", "hours", "expected"),
    [
        ("ssss", 24 * 3, "ssssmm."),  # today's run may still come
        ("ssss", 24 * 3 + 4, "ssssmmm"),  # it is three hours later than usual
        ("s.s.s.s", 24 * 3, "s.s.s.s.m."),  # every second day
        ("s......s......s", 24 * 15, "s......s......s......m......m."),
        ("sssss..sssss..sssss", 24 * 5, "sssss..sssss..sssss..mm."),  # working days
        ("s" * 12 + "....s", 0, "s" * 12 + "mmmms"),  # a week-end belongs to it
    ],
)
def test_missed_days_follow_the_rhythm_of_the_job(days: str, hours: float, expected: str) -> None:
    """Every day, every second, weekly, on working days: a day is missed when the job was to be expected on it."""
    assert strip(days, now=after(len(days) - 1, hours)) == expected


def test_a_person_may_say_how_often() -> None:
    """With an expected interval nothing is learnt: each day, or each week, counts from the last run."""
    assert strip("s", now=after(3, 4), every=86400.0) == "smmm"
    assert strip("s", now=after(15, 4), every=7 * 86400.0) == "s......m......m."
    assert facts("s", now=after(15, 4), every=7 * 86400.0).missed_days == 2


def test_a_vanished_run_is_no_run_of_the_job() -> None:
    """When a run died, its jobs were missed, whatever it had announced."""
    days = run_days(run_rows("ss"), begun([2]), Calendar(UTC, after(2, 5)))
    assert "".join(LETTERS[day.state] for day in days) == "ssm"
    assert strip("ss", now=after(2, 5)) == "ssm"


def test_a_job_that_left_the_release_is_not_missed() -> None:
    """Days with runs that list other jobs are no days of a job that is not among them."""
    found = facts("ss", now=after(4, 5), runs="sssss")
    assert "".join(LETTERS[day.state] for day in found.days) == "ss..."
    assert found.missed_days == 0


def test_a_run_without_a_release_is_a_failure_of_its_jobs() -> None:
    """When no release could run, the index lists no job, and all that were meant have failed."""
    found = facts("sss", now=after(4, 1), runs="sss00")
    assert (found.consecutive_failures, found.failed_days, found.missed_days) == (2, 2, 0)
    assert found.failure is not None
    assert found.failure.cause is JobCause.RELEASE
    gone = facts("s", now=after(4, 1), runs="sss00")
    assert gone.consecutive_failures == 0


def test_days_are_those_of_where_people_live() -> None:
    """A run at 16:00 in London is one of the next day in Tokyo."""
    rows = job_rows("s", first=FIRST.replace(hour=16))
    tokyo = Calendar(ZoneInfo("Asia/Tokyo"), rows[0].started + 60)
    (day,) = job_days(rows, tokyo)
    assert day.day == date(2026, 11, 3)


def test_the_median_is_of_successes_before_the_last_run() -> None:
    """What the last run brought is compared with what is usual, and failures are not usual."""
    rows = job_rows("ssfs")
    rows[-1] = replace(rows[-1], files=1)
    (found,) = facts_of_jobs({"quotes": rows}, [], Calendar(UTC, after(4)))
    assert (found.last and found.last.files, found.median_files) == (1, 10.0)


def test_jobs_that_nobody_runs_any_more_are_forgotten() -> None:
    """A job that is gone while others run drops out; when nothing runs at all, all of them stay."""
    old = job_rows("s", "old")
    new = job_rows("s", "new", first=FIRST + timedelta(seconds=FORGOTTEN_AFTER + 1))
    assert current_jobs({"old": old, "new": new}) == ["new"]
    assert current_jobs({"old": old}) == ["old"]


def test_no_bucket_makes_more_jobs_than_a_metric_can_bear() -> None:
    """Of a thousand names those that ran last are told of."""
    rows = {f"job-{number}": job_rows("s", f"job-{number}") for number in range(1000)}
    assert len(current_jobs(rows)) == MOST_JOBS


def test_a_month_costs_what_its_runs_cost() -> None:
    """Cost is by local month; what is to come is guessed from the days of four weeks; unknown stays unknown."""
    runs = run_rows("s" * 20, cost=0.5)
    costs = costs_of(runs, UTC, after(19, 1))
    assert costs.last == 0.5
    assert costs.month == 10.0
    assert costs.forecast == pytest.approx(10.0 + 10.0 / 19.04 * 9.68, abs=0.02)
    assert costs_of(run_rows("sss"), UTC, after(3)).month is None
    kept = costs_of([replace(run, standing=3.0) for run in runs], UTC, after(19, 1))
    assert kept.month == pytest.approx(10.0 + 3.0 * 20.32 / 30, abs=0.01)
    assert kept.forecast == pytest.approx((costs.forecast or 0.0) + 3.0)
    december = datetime(2026, 12, 1, 1, tzinfo=UTC).timestamp()
    assert costs_of(runs, UTC, december).month is None
    assert costs_of([], UTC, december).forecast is None


def test_a_release_is_stale_since_the_first_run_in_a_row_that_was() -> None:
    """A run without any release does not end the row; one with the wanted release does."""
    runs = run_rows("sssss")
    runs = [replace(run, stale=number in {0, 2, 4}) for number, run in enumerate(runs)]
    runs[3] = replace(runs[3], release=None, stale=False)
    release = release_of(runs)
    assert release is not None
    assert release.stale_since == runs[2].started
    fresh = release_of(runs[:2])
    assert fresh is not None
    assert fresh.stale_since is None
    assert release_of([]) is None


def test_vanished_runs_count_for_a_week() -> None:
    """Those under way are told apart, and the last that ever vanished is remembered."""
    found = facts_of_runs(run_rows("s"), begun([1, 10, 12]), UTC, after(12, 1))
    assert [one.run for one in found.vanished] == [begun([10])[0].run]
    assert [one.run for one in found.running] == [begun([12])[0].run]
    assert found.last_vanished == begun([10])[0].started


HISTORIES = st.text("sftie-x.", min_size=1, max_size=60).filter(lambda days: days.strip("."))


@given(
    days=HISTORIES,
    later=st.integers(0, 40),
    every=st.none() | st.sampled_from([3600.0, 86400.0, 9e5]),
)
def test_counts_and_days_agree(days: str, later: int, every: float | None) -> None:
    """Whatever the history: one day each without gaps, counts within the days, and a success ends every row."""
    found = facts(days, now=after(len(days) + later, 2), every=every)
    spans = [day.day for day in found.days]
    assert spans == [spans[0] + timedelta(days=number) for number in range(len(spans))]
    failed = sum(day.state is DayState.FAILED for day in found.days)
    missed = sum(day.state is DayState.MISSED for day in found.days)
    assert 0 <= found.failed_days <= failed
    assert 0 <= found.missed_days <= missed
    assert found.failed_days <= found.consecutive_failures
    assert (found.failure is not None) == (found.consecutive_failures > 0)
    due = days.replace("-", "").replace(".", "")
    assert found.consecutive_failures == len(due) - len(due.rstrip("ftiex"))
    if later == 0 and days.endswith("s"):
        assert (found.failed_days, found.missed_days) == (0, 0)


@given(days=HISTORIES, runs=st.text("spfi0.", max_size=60), now=st.integers(0, 100))
def test_no_history_breaks_the_facts(days: str, runs: str, now: int) -> None:
    """Runs, jobs and clocks that do not fit each other still make facts."""
    rows = job_rows(days)
    past = Past(tuple(run_rows(runs)), {"quotes": tuple(rows)}, tuple(begun([1, 5])))
    found = facts_of(past, Rules(ZoneInfo("Asia/Tokyo")), after(now))
    assert [job.name for job in found.jobs] == ["quotes"]
    assert all(row.status in JobStatus for row in found.jobs[0].rows)
