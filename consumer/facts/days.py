"""Days: which a job succeeded on, which it failed on, and which it should have run on and did not."""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from enum import StrEnum
from itertools import pairwise
from statistics import median_low

from agent.core.ids import run_started

from consumer.facts.rows import BegunRow, JobRow, RunRow, local_day

MEMORY = 28
"""Days with runs from which the rhythm is learnt: four weeks of a daily job."""
WEEKS_KNOWN = 10
"""Days with runs before a weekday without any counts as free: two weeks of a job that runs on working days."""
GRACE = timedelta(hours=3)
"""After the latest usual time of a day, the run of today counts as missed: longer than a run may take by default."""


class DayState(StrEnum):
    """What became of a job, or of a run, on one day."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    MISSED = "missed"
    SKIPPED = "skipped"
    RUNNING = "running"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Day:
    """One day, where people live.

    Attributes:
        state: Of a job: succeeded (once is enough, at whatever time of the day), failed, missed (it should have run and
            there is nothing of it: no run at all, or one that vanished), skipped (not due), or none (nothing was to be
            expected). Of runs as a whole also partial, and running.
        runs: Ids of the runs of that day, oldest first.
    """

    day: date
    state: DayState
    runs: tuple[str, ...] = ()


class Rhythm:
    """On which days something is to be expected: as a person said, else as the days before tell on which it was there.

    The first `MEMORY` days are judged by each other: nothing came before them.

    Args:
        there: The days on which it was there, in order.
        every: Days from one to the next, when a person said so.
    """

    def __init__(self, there: Sequence[date], every: int | None) -> None:
        self._there = there
        self._every = every
        self._last: date | None = None

    def passes(self, day: date) -> None:
        """Note a day on which it was there, or should have been: the next is expected a step later."""
        self._last = day

    def expects(self, day: date) -> bool:
        """Tell whether it should be there on a day, later than all that passed."""
        if self._last is None:
            return False
        at = bisect_left(self._there, day)
        known = self._there[max(0, at - MEMORY) : max(at, MEMORY)]
        step = self._every or _step(known)
        if (day - self._last).days < step:
            return False
        return step > 1 or self._every is not None or not _is_free(day.weekday(), known)


def _step(known: Sequence[date]) -> int:
    gaps = [(later - earlier).days for earlier, later in pairwise(known)]
    return max(1, median_low(gaps)) if gaps else 1


def _is_free(weekday: int, known: Sequence[date]) -> bool:
    return len(known) >= WEEKS_KNOWN and all(day.weekday() != weekday for day in known)


@dataclass(frozen=True, slots=True)
class Calendar:
    """What the days of a job are judged against.

    Attributes:
        zone: Where people live.
        now: Unix seconds.
        every: Seconds between runs that a person expects; None to learn it.
        others: Days on which committed runs listed jobs at all: a job that is not among them was not in the release.
    """

    zone: tzinfo
    now: float
    every: float | None = None
    others: frozenset[date] = frozenset()

    @property
    def today(self) -> date:
        """The day it is."""
        return local_day(self.now, self.zone)

    @property
    def step(self) -> int | None:
        """Days between expected runs, when a person said so."""
        return None if self.every is None else max(1, round(self.every / 86400))


def job_days(rows: Sequence[JobRow], calendar: Calendar, first: date | None = None) -> list[Day]:
    """Return the days of a job, oldest first, from its first row to today.

    Args:
        rows: Its rows, oldest first. The rhythm is learnt from them; give some more than the days that are wanted.
        calendar: Zone, now, and what is expected.
        first: Days before this one are left out.
    """
    by_day: dict[date, list[JobRow]] = {}
    for row in rows:
        by_day.setdefault(local_day(row.started, calendar.zone), []).append(row)
    rhythm, found = Rhythm(sorted(by_day), calendar.step), []
    for day in days_between(min(by_day, default=None), calendar.today):
        there = by_day.get(day, [])
        if there:
            state = _judged(there)
            rhythm.passes(day)
        elif day in calendar.others or not rhythm.expects(day) or _is_early(day, rows, calendar):
            state = DayState.NONE
        else:
            state = DayState.MISSED
            rhythm.passes(day)
        if first is None or day >= first:
            found.append(Day(day, state, tuple(row.run for row in there)))
    return found


def _judged(rows: Collection[JobRow]) -> DayState:
    due = [row for row in rows if row.due]
    if not due:
        return DayState.SKIPPED
    return DayState.FAILED if all(row.failed for row in due) else DayState.SUCCEEDED


def _is_early(day: date, rows: Sequence[JobRow], calendar: Calendar) -> bool:
    """Tell whether a day is today, and it is not later than the job usually begins by more than the grace."""
    if day != calendar.today:
        return False
    usual = max((_into_day(row.started, calendar.zone) for row in rows[-MEMORY:]), default=0.0)
    return _into_day(calendar.now, calendar.zone) <= usual + GRACE.total_seconds()


def _into_day(moment: float, zone: tzinfo) -> float:
    local = datetime.fromtimestamp(moment, UTC).astimezone(zone)
    return local.hour * 3600.0 + local.minute * 60 + local.second


def run_days(
    runs: Iterable[RunRow], begun: Iterable[BegunRow], calendar: Calendar, first: date | None = None
) -> list[Day]:
    """Return the days of all runs together, oldest first, from the first run to today; as `job_days`."""
    by_day: dict[date, list[tuple[str, DayState]]] = {}
    for row in runs:
        found = _RUN_STATES[row.status.value]
        by_day.setdefault(local_day(row.started, calendar.zone), []).append((row.run, found))
    for one in begun:
        found = DayState.RUNNING if one.deadline > calendar.now else DayState.MISSED
        by_day.setdefault(local_day(one.started, calendar.zone), []).append((one.run, found))
    rhythm, days = Rhythm(sorted(by_day), calendar.step), []
    usual = max((_into_day(run_start, calendar.zone) for run_start in _starts(by_day)), default=0.0)
    late = _into_day(calendar.now, calendar.zone) > usual + GRACE.total_seconds()
    for day in days_between(min(by_day, default=None), calendar.today):
        there = sorted(by_day.get(day, []))
        if there:
            rhythm.passes(day)
            state = min((state for _, state in there), key=_BEST_FIRST.index)
        elif rhythm.expects(day) and (day < calendar.today or late):
            rhythm.passes(day)
            state = DayState.MISSED
        else:
            state = DayState.NONE
        if first is None or day >= first:
            days.append(Day(day, state, tuple(run for run, _ in there)))
    return days


_RUN_STATES = {
    "succeeded": DayState.SUCCEEDED,
    "partial": DayState.PARTIAL,
    "failed": DayState.FAILED,
    "interrupted": DayState.FAILED,
}
_BEST_FIRST = (
    DayState.SUCCEEDED,
    DayState.PARTIAL,
    DayState.RUNNING,
    DayState.FAILED,
    DayState.MISSED,
)
"""The best of a day's runs is the day's: a later run heals it."""


def _starts(by_day: Mapping[date, Sequence[tuple[str, DayState]]]) -> Iterator[float]:
    for day in sorted(by_day)[-MEMORY:]:
        for run, _ in by_day[day]:
            yield run_started(run).timestamp()


def days_between(first: date | None, last: date) -> Iterator[date]:
    """Yield each day from the first to the last."""
    day = first
    while day is not None and day <= last:
        yield day
        day += timedelta(days=1)


def failed_in_a_row(days: Sequence[Day]) -> int:
    """Return on how many days in a row, up to the latest, a job failed.

    A day on which it was not due, or did not run at all, neither counts nor ends the row: nothing succeeded on it.
    """
    count = 0
    for day in reversed(days):
        if day.state is DayState.SUCCEEDED:
            break
        count += day.state is DayState.FAILED
    return count


def missed_in_a_row(days: Sequence[Day]) -> int:
    """Return on how many days since it last ran (or was skipped on purpose) a job should have run and did not."""
    count = 0
    for day in reversed(days):
        if day.runs:
            break
        count += day.state is DayState.MISSED
    return count
