"""What is to be known of each job: how it went last, and how long it has not gone well."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from statistics import median

from agent.core.results import JobCause, JobStatus, RunStatus

from consumer.facts.days import Calendar, Day, failed_in_a_row, job_days, missed_in_a_row
from consumer.facts.rows import JobRow, RunRow, local_day

MOST_JOBS = 500
"""Jobs that are told of at most, those that ran last: names come from the bucket, and each makes some thirty series."""
FORGOTTEN_AFTER = 45 * 86400.0
"""Seconds without a job, in which other jobs ran, after which nothing is told of it: longer than a month's rhythm."""
RECENT = 14
"""Successful runs of which the median is told: as many as `expect.drop` compares with."""
SLOT = 86400.0
"""Seconds within which the runs of one slot begin: shards, and a second attempt."""


@dataclass(frozen=True, slots=True)
class JobFacts:
    """A job, now.

    Attributes:
        name: Its name.
        last: Its last run in which it was due; None when there is none yet.
        last_listed: When it was last in a run at all, due or not (Unix seconds).
        last_success: Its last run that succeeded.
        consecutive_failures: Due runs since then, or since the first that is known.
        failed_days: Days in a row on which it failed; see `days.failed_in_a_row`.
        missed_days: Days in a row on which it should have run and did not; see `days.missed_in_a_row`.
        median_files: Files of its recent successes before the last run; None when there are none.
        days: All days that the rows cover.
        rows: Its rows, oldest first, with those of runs in which no job could run.
    """

    name: str
    last: JobRow | None
    last_listed: float
    last_success: JobRow | None
    consecutive_failures: int
    failed_days: int
    missed_days: int
    median_files: float | None
    days: tuple[Day, ...]
    rows: tuple[JobRow, ...]

    @property
    def incomplete(self) -> JobRow | None:
        """Its last run, when that succeeded without being able to hand over all that it wrote."""
        return self.last if self.last is not None and self.last.incomplete else None

    @property
    def failure(self) -> JobRow | None:
        """Its last run, when that failed."""
        return self.last if self.last is not None and self.last.failed else None


def facts_of_jobs(
    rows: Mapping[str, Sequence[JobRow]], runs: Sequence[RunRow], calendar: Calendar
) -> tuple[JobFacts, ...]:
    """Return the facts of each job that is not forgotten, by name.

    Args:
        rows: Of each job, oldest first: enough of them for the longest row of failures that shall be told.
        runs: All runs in that time, oldest first.
        calendar: Zone, now, and what is expected.
    """
    calendar = replace(calendar, others=_days_with_jobs(runs, calendar))
    barren = [run for run in runs if _is_barren(run)]
    fertile = [run.started for run in runs if run.jobs]
    facts = []
    for name in current_jobs(rows):
        whole = _with_barren(rows[name], barren, fertile)
        facts.append(facts_of_job(name, whole, calendar))
    return tuple(facts)


def current_jobs(rows: Mapping[str, Sequence[JobRow]]) -> list[str]:
    """Return the names of the jobs to be told of, sorted.

    The measure is the last run that listed any job, not the clock: when nothing runs at all, nothing is forgotten.
    """
    last = {name: of_job[-1].started for name, of_job in rows.items() if of_job}
    newest = max(last.values(), default=0.0)
    there = [name for name in last if last[name] >= newest - FORGOTTEN_AFTER]
    return sorted(sorted(there, key=lambda name: (-last[name], name))[:MOST_JOBS])


def facts_of_job(name: str, rows: Sequence[JobRow], calendar: Calendar) -> JobFacts:
    """Return the facts of one job from its rows, oldest first, of which there is at least one."""
    due = [row for row in rows if row.due]
    good = [row for row in due if not row.failed]
    failures = 0
    for row in reversed(due):
        if not row.failed:
            break
        failures += 1
    before = [row.files for row in due[:-1] if not row.failed][-RECENT:]
    days = job_days(rows, calendar)
    return JobFacts(
        name=name,
        last=due[-1] if due else None,
        last_listed=rows[-1].started,
        last_success=good[-1] if good else None,
        consecutive_failures=failures,
        failed_days=failed_in_a_row(days),
        missed_days=missed_in_a_row(days),
        median_files=float(median(before)) if before else None,
        days=tuple(days),
        rows=tuple(rows),
    )


def _days_with_jobs(runs: Iterable[RunRow], calendar: Calendar) -> frozenset[date]:
    return frozenset(local_day(run.started, calendar.zone) for run in runs if run.jobs)


def _is_barren(run: RunRow) -> bool:
    """Tell whether a run ended before it knew its jobs: no release could run, or it was stopped before."""
    return not run.jobs and run.status is not RunStatus.SUCCEEDED


def _with_barren(
    rows: Sequence[JobRow], barren: Sequence[RunRow], fertile: Sequence[float]
) -> list[JobRow]:
    """Return a job's rows with a failure for each run in which no job could run.

    The job counts as meant when the last run before that knew its jobs listed it, or another run of the same slot did.
    """
    found = list(rows)
    starts = [row.started for row in rows]
    for run in barren:
        at = bisect_left(fertile, run.started)
        mine = bisect_left(starts, run.started)
        if at and mine and starts[mine - 1] > fertile[at - 1] - SLOT:
            found.append(_lost(rows[0].name, run))
    return sorted(found, key=lambda row: row.run)


def _lost(name: str, run: RunRow) -> JobRow:
    stopped = run.status is RunStatus.INTERRUPTED
    return JobRow(
        run=run.run,
        name=name,
        started=run.started,
        finished=run.finished,
        status=JobStatus.INTERRUPTED if stopped else JobStatus.FAILED,
        cause=JobCause.INTERRUPTED if stopped else JobCause.RELEASE,
        message="the run was stopped before its jobs" if stopped else "no release could run",
    )
