"""What home says of schedules and jobs: missed, late, failing, since when. Decisions only.

A schedule says when runs are due and with how much grace. A time that is due is missed when no run began for it within
the grace, and no run of the schedule was under way then. What a run began for is told by its slot, else by the last
time that was due. A job is judged by what became of it in each batch, or group of shards, in which it was due.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property, partial
from itertools import accumulate, pairwise, takewhile
from statistics import median
from zoneinfo import ZoneInfo

from agent.contract.entries import Invalid
from agent.contract.facts import Schedule
from agent.contract.results import RunStatus
from consumer.groups import Group, Outcome, State, groups_of, last_of
from consumer.model import History, Job
from consumer.schedule import MOST, Times, between, times_of

EARLY = timedelta(minutes=5)
"""By how much the clock of a machine may be behind, so that its run seems to begin before it was due."""
MOST_SCHEDULES = 100
"""Schedules that are judged, those that came first; each takes time and memory, and anybody can forge one more."""
MOST_CHANGES = 100
"""Of one schedule, the newest; before them nothing is said to be missed."""
SHARDED = 5
"""Groups of shards that are shown."""
RECENT = 14
"""Successes of which the median is given: as many as `expect.drop` compares with."""
_NEVER = datetime.max.replace(tzinfo=UTC)


_Event = tuple[datetime, State, tuple[str, ...]]
"""Something of a day: when, what it came to, and its runs."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How history is judged.

    Attributes:
        now: The time, aware.
        zone: Whose days count, as a person said; None for those of each schedule.
        schedule: The schedule of runs that name none.
        ended: Names of schedules of which nothing is due any more since their last run, as a person said.
    """

    now: datetime
    zone: tzinfo | None = None
    schedule: Schedule | None = None
    ended: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """A time at which a run was due.

    Attributes:
        due: When.
        until: When it is missed, if nothing came.
        groups: What was done for it.
        state: How that stands; NONE while it may still come, or while a run was under way.
        late: Whether it began after the grace.
    """

    due: datetime
    until: datetime
    groups: tuple[Group, ...] = ()
    state: State = State.NONE
    late: bool = False


@dataclass(frozen=True, slots=True)
class Day:
    """A calendar day, and its runs."""

    day: date
    state: State
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScheduleFacts:
    """A schedule, now.

    Attributes:
        schedule: What it says; None where nobody does, and nothing is ever missed.
        problem: Why that cannot be used; empty when it can.
        zone: Whose days count.
        groups: What was done, the oldest first.
        occurrences: When runs were due, the oldest first.
        ended: Whether a person said that nothing is due any more; then all of it is past.
    """

    name: str
    schedule: Schedule | None
    problem: str
    zone: tzinfo
    groups: tuple[Group, ...]
    occurrences: tuple[Occurrence, ...]
    next_due: datetime | None
    ended: bool = False

    @cached_property
    def missed(self) -> tuple[datetime, ...]:
        """The times in a row, up to now, for which nothing came."""
        ended = [one for one in self.occurrences if one.groups or one.state is not State.NONE]
        row = takewhile(lambda one: one.state is State.MISSED, reversed(ended))
        return tuple(one.due for one in row)[::-1]

    @cached_property
    def day_of(self) -> Mapping[datetime, date]:
        """The day of each group, by its time: that on which it was due, where it began within the grace."""
        return {
            group.at: (one.due if group.at <= one.until else group.at).astimezone(self.zone).date()
            for one in self.occurrences
            for group in one.groups
        }

    def day(self, at: datetime) -> date:
        """Return the day of a group."""
        return self.day_of.get(at) or at.astimezone(self.zone).date()

    def days(self, now: datetime) -> tuple[Day, ...]:
        """Return the days on which something happened or should have, oldest first."""
        events = (
            (group.at, group.state(now), tuple(run.id for _, run in group.runs))
            for group in self.groups
        )
        return _days(self, events, _missed_of(self.occurrences))


@dataclass(frozen=True)
class JobFacts:
    """A job of the newest release, now.

    Attributes:
        schedule: Its schedule's.
        outcomes: What became of it, the oldest first, where it was due.
        failures: How many in a row, up to now, it failed.
        failed_days: On how many days in a row it failed and never succeeded.
        failing_since: When the first of these failures was due; None when the last went well.
        missed: The times in a row for which no run came, and it was due.
    """

    name: str
    schedule: str
    outcomes: tuple[Outcome, ...]
    failures: int
    failed_days: int
    failing_since: datetime | None
    missed: tuple[datetime, ...]
    _days: Callable[[], tuple[Day, ...]]

    @property
    def days(self) -> tuple[Day, ...]:
        """Its days, oldest first, with those on which it was skipped or missed; made when somebody asks."""
        return self._days()

    @property
    def last(self) -> Outcome | None:
        """What became of it last, and is decided."""
        ended = (one for one in reversed(self.outcomes) if one.state is not State.RUNNING)
        return next(ended, None)

    @property
    def running(self) -> bool:
        """Whether a run is under way that shall do it."""
        return bool(self.outcomes) and self.outcomes[-1].state is State.RUNNING

    @property
    def last_success(self) -> Outcome | None:
        """When it last succeeded."""
        return next((one for one in reversed(self.outcomes) if one.state is State.SUCCEEDED), None)

    @property
    def failure(self) -> Outcome | None:
        """What went wrong last, while it goes wrong."""
        return self.last if self.last and self.last.state is State.FAILED else None

    @property
    def incomplete(self) -> Job | None:
        """Its last success, when not all that it wrote could be handed over."""
        job = self.last.job if self.last else None
        return job if job and job.incomplete else None

    @property
    def median_files(self) -> float | None:
        """The median of the files of recent successes before the last."""
        before = [one.job.files for one in self.outcomes[:-1] if one.job and one.job.succeeded]
        return float(median(before[-RECENT:])) if before else None


@dataclass(frozen=True, slots=True)
class Judged:
    """What follows from a history.

    Attributes:
        zone: Whose days count, for what belongs to no schedule.
        jobs: Of the newest release of each schedule that goes on, by name.
        not_judged: How many schedules there are besides.
    """

    now: datetime
    zone: tzinfo
    schedules: tuple[ScheduleFacts, ...] = ()
    jobs: tuple[JobFacts, ...] = ()
    not_judged: int = 0

    @property
    def going_on(self) -> list[ScheduleFacts]:
        """The schedules of which runs are to come."""
        return [one for one in self.schedules if not one.ended]

    @property
    def groups(self) -> list[Group]:
        """All batches and groups of shards, the oldest first."""
        groups = (group for schedule in self.schedules for group in schedule.groups)
        return sorted(groups, key=lambda group: group.at)

    @property
    def sharded(self) -> list[Group]:
        """The newest groups of shards, the newest first."""
        return [group for group in self.groups if group.shards > 1][: -SHARDED - 1 : -1]


def judge(history: History, rules: Rules) -> Judged:
    """Return what follows from a history."""
    by_schedule = groups_of(history)
    if not by_schedule and rules.schedule:
        by_schedule = {"main": []}
    first = sorted(by_schedule, key=lambda name: (_came(by_schedule[name]), name))[:MOST_SCHEDULES]
    schedules = tuple(
        _schedule(name, by_schedule[name], history.since, rules) for name in sorted(first)
    )
    jobs = [job for one in schedules if not one.ended for job in _jobs(one, rules.now)]
    newest = max(
        (one for one in schedules if one.groups), key=lambda one: one.groups[-1].at, default=None
    )
    zone = rules.zone or (newest.zone if newest else UTC)
    jobs.sort(key=lambda job: (job.name, job.schedule))
    return Judged(rules.now, zone, schedules, tuple(jobs), len(by_schedule) - len(schedules))


def _came(groups: Iterable[Group]) -> datetime:
    """Return when a run of a schedule first began by the store's clock: what others say of times can be forged."""
    runs = (run for group in groups for batch in group.batches for run in batch.runs)
    return min((run.first for run in runs if run.began), default=_NEVER)


# Schedules.


@dataclass(frozen=True, slots=True)
class _Span:
    """The time in which one and the same schedule held."""

    schedule: Schedule
    since: datetime
    until: datetime
    groups: Sequence[Group]


def _schedule(
    name: str, groups: Sequence[Group], since: datetime | None, rules: Rules
) -> ScheduleFacts:
    spans = [*_spans(groups, since, rules)]
    parsed = [(span, times_of(span.schedule, _anchor(span))) for span in spans]
    usable = [(span, times) for span, times in parsed if not isinstance(times, Invalid)]
    dues = _all_dues(usable)
    last = parsed[-1] if parsed else None
    problem = last[1].reason if last and isinstance(last[1], Invalid) else ""
    upcoming = last[1].after(rules.now) if last and not isinstance(last[1], Invalid) else None
    occurrences = [*_occurrences(dues, groups, rules.now)]
    ended = name in rules.ended
    while ended and occurrences and not occurrences[-1].groups:
        occurrences.pop()
    return ScheduleFacts(
        name,
        last[0].schedule if last else None,
        problem,
        rules.zone or _zone(last[0].schedule if last else None),
        tuple(groups),
        tuple(occurrences),
        None if ended else upcoming,
        ended,
    )


def _zone(schedule: Schedule | None) -> tzinfo:
    try:
        return ZoneInfo(schedule.timezone) if schedule else UTC
    except (ValueError, OSError, KeyError):
        return UTC


def _spans(groups: Sequence[Group], since: datetime | None, rules: Rules) -> Iterator[_Span]:
    """Yield which schedule held when, as the runs say; else, as a person says, from the first that is known on."""
    said: list[tuple[datetime, Schedule]] = []
    for group in groups:
        if group.declared and (not said or said[-1][1] != group.declared):
            said.append((group.at, group.declared))
    if not said and rules.schedule:
        first = min(
            [*(group.at for group in groups[:1]), *([since] if since else [])], default=None
        )
        said = [(first or rules.now, rules.schedule)]
    at = [group.at for group in groups]
    for (start, schedule), (end, following) in pairwise([*said[-MOST_CHANGES:], (rules.now, None)]):
        if schedule is not None:
            last = bisect_left(at, end) if following else len(at)
            yield _Span(schedule, start, end, groups[bisect_left(at, start) : last])


def _anchor(span: _Span) -> datetime:
    """Return a time at which a run was due, from which a rate is counted: the last that is known."""
    slots = [group.slot for group in span.groups if group.slot]
    return slots[-1] if slots else span.groups[-1].at if span.groups else span.since


def _all_dues(spans: Sequence[tuple[_Span, Times]]) -> list[tuple[datetime, timedelta]]:
    """Return when runs were due, each with its grace, the oldest first; of more than `MOST`, the latest."""
    dues: list[tuple[_Span, list[tuple[datetime, timedelta]]]] = []
    left = MOST
    for span, times in reversed(spans):
        if left > 0:
            dues.append((span, _dues(span, times, left)))
            left -= len(dues[-1][1])
    found: list[tuple[datetime, timedelta]] = []
    came: Sequence[Group] = ()
    for span, mine in reversed(dues):
        # Nobody says when the schedule changed: the first run by the new one stands for the last time by the old.
        if found and mine and not any(group.at >= found[-1][0] - EARLY for group in came):
            found.pop()
        found += [one for one in mine if not found or one[0] > found[-1][0]]
        came = span.groups
    return found


def _dues(span: _Span, times: Times, most: int) -> list[tuple[datetime, timedelta]]:
    """Return when runs were due; the first is that for which the first run came, if it came within the grace."""
    grace = timedelta(seconds=span.schedule.grace_seconds)
    dues = between(times, span.since, span.until, most)
    if len(dues) < most:
        before = between(times, span.since - grace, min(span.since, span.until), 1)
        following = dues[0] if dues else times.after(before[0]) if before else None
        if (following or _NEVER) > span.since + EARLY:
            dues = before + dues
    return [(due, grace) for due in dues]


def _occurrences(
    dues: Sequence[tuple[datetime, timedelta]], groups: Sequence[Group], now: datetime
) -> Iterator[Occurrence]:
    moments = [due for due, _ in dues]
    found: dict[int, list[Group]] = {}
    for group in groups:
        found.setdefault(_place(group, moments), []).append(group)
    spans = sorted(_under_way(groups, now))
    starts = [start for start, _ in spans]
    ends = [*accumulate((end for _, end in spans), max)]
    for place, (due, grace) in enumerate(dues):
        mine = tuple(found.get(place, ()))
        until = due + grace
        if mine:
            began = min(
                run.started for group in mine for batch in group.batches for run in batch.runs
            )
            state = last_of(group.state(now) for group in mine)
            yield Occurrence(due, until, mine, state, began > until)
        else:
            before = bisect_right(starts, due)
            waits = now <= until or (before > 0 and due <= ends[before - 1])
            yield Occurrence(due, until, (), State.NONE if waits else State.MISSED)


def _place(group: Group, dues: Sequence[datetime]) -> int:
    """Return the index of the due time that a group ran for: the last one, or a very near next one; -1 for none."""
    place = bisect_right(dues, group.at) - 1
    if 0 <= place + 1 < len(dues):
        gap = (dues[place + 1] - dues[place]) / 4 if place >= 0 else EARLY
        if dues[place + 1] - group.at <= min(EARLY, gap):
            return place + 1
    return place


def _under_way(groups: Iterable[Group], now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield when runs were under way: what is due meanwhile may be kept from starting, and is not missed."""
    for group in groups:
        for batch, run in group.runs:
            if batch.status(run) is RunStatus.RUNNING:
                yield run.started, now
            elif run.closed:
                yield run.started, run.closed.finished


def _missed_of(occurrences: Iterable[Occurrence]) -> list[datetime]:
    return [one.due for one in occurrences if one.state is State.MISSED]


# Jobs.


def _jobs(schedule: ScheduleFacts, now: datetime) -> Iterator[JobFacts]:
    known: frozenset[str] = frozenset()
    outcomes: dict[str, list[Outcome]] = {}
    scheduled = any(group.declared for group in schedule.groups)
    for group in schedule.groups:
        for one in group.outcomes(known, now).values():
            outcomes.setdefault(one.name, []).append(one)
        # Who ran something by hand, of some other release, ends no job of the schedule.
        whole = group.knows_all and (group.declared or not scheduled or not known)
        known = group.names if whole else known | group.names
    missed = _missed_of(schedule.occurrences)
    for name in sorted(known):
        # What is told of one job is let go of before the next: there are 183,000 in a year of five hundred.
        yield _job(name, schedule, outcomes.pop(name, []), missed)


def _job(
    name: str, schedule: ScheduleFacts, outcomes: Sequence[Outcome], missed: Sequence[datetime]
) -> JobFacts:
    due = tuple(one for one in outcomes if one.state is not State.SKIPPED)
    missed = [*_missed_of_job(schedule, outcomes, missed)]
    streak = [*takewhile(lambda one: one.state is not State.SUCCEEDED, reversed(due))]
    failed = [one for one in streak if one.state is State.FAILED]
    good = {schedule.day(one.at) for one in due if one.state is State.SUCCEEDED}
    last = outcomes[-1].at if outcomes else None
    return JobFacts(
        name,
        schedule.name,
        due,
        len(failed),
        len({schedule.day(one.at) for one in failed} - good),
        failed[-1].at if failed else None,
        tuple(one for one in missed if last is None or one > last),
        partial(_job_days, schedule, due if len(due) == len(outcomes) else outcomes, missed),
    )


def _missed_of_job(
    schedule: ScheduleFacts, outcomes: Sequence[Outcome], missed: Sequence[datetime]
) -> Iterator[datetime]:
    """Yield the times for which no run came and the job was due, as on the same weekday before."""
    on: dict[int, State] = {}
    events = [*((one.at, one.state) for one in outcomes), *((one, State.MISSED) for one in missed)]
    began = outcomes[0].at if outcomes else None
    for at, state in sorted(events, key=lambda event: event[0]):
        weekday = schedule.day(at).weekday()
        if state is not State.MISSED:
            on[weekday] = state
        elif began and at > began and on.get(weekday) is not State.SKIPPED:
            yield at


def _job_days(
    schedule: ScheduleFacts, outcomes: Iterable[Outcome], missed: Iterable[datetime]
) -> tuple[Day, ...]:
    return _days(schedule, ((one.at, one.state, (one.run,)) for one in outcomes), missed)


def _days(
    schedule: ScheduleFacts, events: Iterable[_Event], missed: Iterable[datetime]
) -> tuple[Day, ...]:
    missing: Iterable[_Event] = ((due, State.MISSED, ()) for due in missed)
    found: dict[date, list[_Event]] = {}
    for event in (*events, *missing):
        found.setdefault(schedule.day(event[0]), []).append(event)
    return tuple(_day(day, sorted(events)) for day, events in sorted(found.items()))


def _day(day: date, events: Sequence[_Event]) -> Day:
    states = [state for _, state, _ in events]
    state = last_of(states)
    if state is State.NONE and State.SKIPPED in states:
        state = State.SKIPPED
    return Day(day, state, tuple(run for _, _, runs in events for run in runs if run))
