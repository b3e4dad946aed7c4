"""The grid: a row for each job, a column for each day or run, today at the right edge. Decisions only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import takewhile
from typing import Literal

from consumer.groups import BAD, State
from consumer.judge import Day, JobFacts, Judged, ScheduleFacts

COLUMNS = 60
"""Of which a phone shows the last 30."""
ROWS = 50
APART = 6
"""Columns that the name of a month takes."""
BUSY = 10
"""Batches in two days from which on a column is a run."""
By = Literal["day", "run"]


@dataclass(frozen=True, slots=True)
class Cell:
    """What became of a job on a day or in a run; `run` is empty where there is none to look at."""

    state: State
    run: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """A day or a run, and what stands above it; most have nothing there."""

    name: str
    month: str = ""
    day: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A job, or a schedule as a whole, whose `job` is empty.

    Attributes:
        cells: One for each column.
        rate: Which part of what was due succeeded, of the columns; None where nothing was.
        seconds: How long it took last.
    """

    schedule: str
    job: str
    cells: tuple[Cell, ...]
    rate: float | None
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Grid:
    """All of it.

    Attributes:
        by: What a column is.
        columns: The oldest first.
        rows: Schedules first, on each page.
        page, pages: Which jobs these are; from 1.
        back: How many columns there are to the right that are not shown.
        older: Whether there is more to the left.
    """

    by: By
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    page: int
    pages: int
    back: int
    older: bool


def grid(judged: Judged, by: str = "", page: int = 1, back: int = 0) -> Grid:
    """Return the grid of a page of jobs, without the `back` newest columns.

    A column is a `day` or a `run`; where `by` is neither, it depends on how often there are runs.
    """
    pages = max(1, -(-len(judged.jobs) // ROWS))
    page = min(max(1, page), pages)
    jobs = judged.jobs[(page - 1) * ROWS : page * ROWS]
    if by == "run" or (by != "day" and _often(judged)):
        return _by_run(judged, jobs, page, pages, back)
    return _by_day(judged, jobs, page, pages, back)


def _often(judged: Judged) -> bool:
    since = judged.now - timedelta(days=2)
    return sum(group.at > since for one in judged.schedules for group in one.groups) > BUSY


def _by_day(judged: Judged, jobs: Sequence[JobFacts], page: int, pages: int, back: int) -> Grid:
    today = judged.now.astimezone(judged.zone).date()
    days = [today - timedelta(days=back + ago) for ago in range(COLUMNS - 1, -1, -1)]
    rows = [
        _row(one.name, "", _on(one.days(judged.now), days), _seconds(one))
        for one in judged.schedules
    ]
    rows += [_row(job.schedule, job.name, _on(job.days, days), _took(job)) for job in jobs]
    oldest = min((one.groups[0].at for one in judged.schedules if one.groups), default=judged.now)
    older = oldest.astimezone(judged.zone).date() < days[0]
    columns = _columns([(str(day), day, str(day.day)) for day in days], weekly=True)
    return Grid("day", columns, tuple(rows), page, pages, back, older)


def _on(of: Sequence[Day], days: Sequence[date]) -> list[Cell]:
    recent = takewhile(lambda one: one.day >= days[0], reversed(of))
    found = {one.day: Cell(one.state, one.runs[-1] if one.runs else "") for one in recent}
    return [found.get(day, _NOTHING) for day in days]


def _by_run(judged: Judged, jobs: Sequence[JobFacts], page: int, pages: int, back: int) -> Grid:
    events: dict[tuple[datetime, str], Cell] = {}
    for one in judged.schedules:
        for group in one.groups:
            run = group.runs[-1][1].id if group.runs else ""
            events[group.at, one.name] = Cell(group.state(judged.now), run)
        for due in one.occurrences:
            if due.state is State.MISSED:
                events[due.due, one.name] = Cell(State.MISSED)
    order = sorted(events)
    end = len(order) - back
    keys = order[max(0, end - COLUMNS) : max(0, end)]
    rows = [
        _row(
            one.name,
            "",
            [events[key] if key[1] == one.name else _NOTHING for key in keys],
            _seconds(one),
        )
        for one in judged.schedules
    ]
    rows += [_row(job.schedule, job.name, _in_runs(job, keys, events), _took(job)) for job in jobs]
    local = [at.astimezone(judged.zone) for at, _ in keys]
    columns = _columns([(f"{at:%Y-%m-%d %H:%M}", at.date(), str(at.day)) for at in local])
    return Grid("run", columns, tuple(rows), page, pages, back, end > COLUMNS)


def _in_runs(
    job: JobFacts, keys: Sequence[tuple[datetime, str]], events: Mapping[tuple[datetime, str], Cell]
) -> list[Cell]:
    found = {one.at: Cell(one.state, one.run) for one in job.outcomes}
    began = job.outcomes[0].at if job.outcomes else None
    cells = []
    for key in keys:
        cell = found.get(key[0], _NOTHING) if key[1] == job.schedule else _NOTHING
        # Only a missed time has a column and no outcome of a job that was there before.
        if key[1] == job.schedule and cell is _NOTHING and began and began < key[0]:
            cell = _MISSED if events[key].state is State.MISSED else _NOTHING
        cells.append(cell)
    return cells


_NOTHING = Cell(State.NONE)
_MISSED = Cell(State.MISSED)


def _columns(named: Iterable[tuple[str, date, str]], *, weekly: bool = False) -> tuple[Column, ...]:
    """Return columns with months above, and the day of the month: of each Monday, else where it changes."""
    found: list[Column] = []
    last = None
    for name, day, text in named:
        begins = last is None or (day.year, day.month) != (last.year, last.month)
        shown = day.weekday() == 0 if weekly else day != last
        found.append(Column(name, f"{day:%Y-%m}" if begins else "", text if shown else ""))
        last = day
    if any(column.month for column in found[1:APART]):
        found[0] = replace(found[0], month="")
    return tuple(found)


def _row(schedule: str, job: str, cells: Sequence[Cell], seconds: float | None) -> Row:
    states = [cell.state for cell in cells]
    # A day on which a job succeeded is good, whatever else came of it; a run that is good in part is not.
    good = states.count(State.SUCCEEDED) + (states.count(State.PARTIAL) if job else 0)
    due = sum(state in BAD or state in {State.SUCCEEDED, State.PARTIAL} for state in states)
    return Row(schedule, job, tuple(cells), good / due if due else None, seconds)


def _took(job: JobFacts) -> float | None:
    return job.last.job.seconds if job.last and job.last.job else None


def _seconds(schedule: ScheduleFacts) -> float | None:
    runs = (run for group in reversed(schedule.groups) for _, run in reversed(group.runs))
    last = next((run for run in runs if run.closed), None)
    return (last.closed.finished - last.started).total_seconds() if last and last.closed else None
