"""Answers what page, metrics and `mayfly status` ask, from the database; what was computed is kept for a while."""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import islice
from typing import TypeVar
from urllib.parse import quote

from agent.core.results import RunStatus

from consumer.archive.reader import Past, Reader
from consumer.archive.schema import ArchiveError
from consumer.facts.days import Calendar, Day, DayState, run_days
from consumer.facts.groups import Family, GroupFacts, families_of, groups_of, newest_of
from consumer.facts.jobs import JobFacts, facts_of_jobs
from consumer.facts.rows import BegunRow, EvidenceRow, JobRow, RunRow
from consumer.facts.runs import RunFacts, facts_of_runs
from consumer.queries import (
    BeginLine,
    Evidence,
    Failure,
    GroupLine,
    Health,
    Incomplete,
    JobLine,
    JobView,
    Overview,
    Point,
    RunFiles,
    RunLine,
    RunPoint,
    RunView,
)

MOST_DAYS = 400
MOST_CALENDAR_DAYS = 4000
MOST_LINES = 500
RECENT_RUNS = 20
MOST_GROUPS = 10
MOST_SHARD_LINES = 50
FRESH_SECONDS = 60.0
"""How long facts hold while nothing new comes: they depend on the clock by the minute at most."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at one moment.

    Attributes:
        now: Unix seconds.
        groups: By the begin of their first run.
        families: Of the last of them.
    """

    now: float
    past: Past
    jobs: tuple[JobFacts, ...]
    runs: RunFacts
    groups: tuple[GroupFacts, ...] = ()
    families: tuple[Family, ...] = ()


@dataclass(frozen=True, slots=True)
class Rules:
    """How the history is judged.

    Attributes:
        zone: Where people live.
        every: Seconds between runs that are expected; None to learn it from the history.
        group_limit: Seconds after its begin when an incomplete group is late; None to go by its runs' deadlines.
    """

    zone: tzinfo = field(default=UTC)
    every: float | None = None
    group_limit: float | None = None


def facts_of(past: Past, rules: Rules, now: float) -> Facts:
    """Return what follows from a history."""
    calendar = Calendar(rules.zone, now, rules.every)
    jobs = facts_of_jobs(past.jobs or {}, past.runs, calendar)
    groups = groups_of(past.runs, past.begun, now, rules.group_limit)
    return Facts(
        now=now,
        past=past,
        jobs=jobs,
        runs=facts_of_runs(past.runs, past.begun, rules.zone, now),
        groups=groups,
        families=_families(past, newest_of(groups)),
    )


def _families(past: Past, group: GroupFacts | None) -> tuple[Family, ...]:
    if group is None:
        return ()
    mine = frozenset(group.runs)
    parts = {run.run: run.part for run in past.runs if run.part is not None and run.run in mine}
    return families_of(past.grouped, parts)


class Answers:
    """`consumer.queries.Queries`, and the facts behind it. Any thread may ask.

    Args:
        reader: The history.
        bucket: The bucket's address, for people.
        rules: How the history is judged.
        clock: Returns Unix seconds.
        health: Returns how the server is.
        files: Returns the files of a run, by its manifest.
    """

    def __init__(
        self,
        reader: Reader,
        bucket: str,
        rules: Rules,
        *,
        clock: Callable[[], float],
        health: Callable[[], Health],
        files: Callable[[str], RunFiles],
    ) -> None:
        self._reader = reader
        self._bucket = bucket
        self._rules = rules
        self._clock = clock
        self._health = health
        self._files = files
        self._lock = threading.Lock()
        self._facts: Facts | None = None
        self._views: dict[int, tuple[Facts, Health, Overview]] = {}

    def changed(self) -> None:
        """Forget what was computed: the history is another one now."""
        with self._lock:
            self._facts = None

    def facts(self) -> Facts:
        """Return the facts, at most `FRESH_SECONDS` old.

        Raises:
            ArchiveError: The file fails.
        """
        with self._lock:
            now = self._clock()
            if self._facts is None or not 0 <= now - self._facts.now < FRESH_SECONDS:
                self._facts = facts_of(self._reader.past(), self._rules, now)
            return self._facts

    def overview(self, days: int = 90) -> Overview:
        """Return the front page's content."""
        try:
            facts = self.facts()
        except ArchiveError as error:
            facts = facts_of(Past(), self._rules, self._clock())
            return self._overview(facts, 1, str(error))
        days = min(max(days, 1), MOST_DAYS)
        health = self._health()
        kept = self._views.get(days)
        if kept is None or kept[0] is not facts or kept[1] != health:
            kept = (facts, health, self._overview(facts, days))
            self._views = {**dict(list(self._views.items())[-3:]), days: kept}
        return kept[2]

    def _overview(self, facts: Facts, days: int, problem: str = "") -> Overview:
        zone, past = self._rules.zone, facts.past
        calendar = Calendar(zone, facts.now, self._rules.every)
        first = calendar.today - timedelta(days=days - 1)
        begin = datetime.combine(first, time(), zone).timestamp()
        evidence = self._evidence_of(facts, begin)
        health = replace(self._health(), refused=past.refused)
        if problem:
            health = replace(health, problem=problem)
        runs = [run for run in past.runs if run.started >= begin]
        alone = (run for run in reversed(past.runs) if run.part is None)
        return Overview(
            bucket=self._bucket,
            now=_at(facts.now, zone),
            health=health,
            days=_filled(run_days(past.runs, past.begun, calendar, first), first, calendar.today),
            jobs=tuple(
                _job_view(job, (first, calendar.today), zone, evidence) for job in facts.jobs
            ),
            points=tuple(_run_point(run, zone) for run in runs),
            runs=tuple(_line(run, zone) for run in islice(alone, RECENT_RUNS)),
            last=_line(past.runs[-1], zone) if past.runs else None,
            groups=self._group_lines(facts, begin),
            running=tuple(_begin_line(one, zone) for one in facts.runs.running if one.part is None),
            vanished=tuple(_begin_line(one, zone) for one in facts.runs.vanished),
            release=facts.runs.release,
            costs=facts.runs.costs,
        )

    def _group_lines(self, facts: Facts, begin: float) -> tuple[GroupLine, ...]:
        groups = [group for group in facts.groups if group.began >= begin][: -MOST_GROUPS - 1 : -1]
        mine = {run for group in groups for run in group.runs}
        rows = {run.run: run for run in facts.past.runs if run.run in mine}
        return tuple(
            self._group_line(group, [rows[run] for run in group.runs if run in rows])
            for group in groups
        )

    def _group_line(self, group: GroupFacts, rows: list[RunRow]) -> GroupLine:
        zone = self._rules.zone
        rows.sort(key=lambda row: (row.status is RunStatus.SUCCEEDED, row.part and row.part.shard))
        jobs = self._asked(lambda: self._reader.group_jobs(group.name, group.shards))
        return GroupLine(
            name=group.name,
            shards=group.shards,
            committed=group.committed,
            missing=tuple(shard + 1 for shard in group.missing),
            state=group.state,
            running=group.running,
            began=_at(group.began, zone),
            due=_at(group.due, zone),
            jobs=jobs and jobs[0],
            failed=jobs and jobs[1],
            runs=tuple(_line(row, zone) for row in rows[:MOST_SHARD_LINES]),
            more=max(0, len(rows) - MOST_SHARD_LINES),
        )

    def _evidence_of(self, facts: Facts, begin: float) -> dict[tuple[str, str], list[Evidence]]:
        runs = {row.run for job in facts.jobs if (row := _last_failure(job, begin)) is not None}
        found: dict[tuple[str, str], list[Evidence]] = {}
        for run in sorted(runs):
            for one in self._evidence_rows(run):
                found.setdefault((one.run, one.job), []).append(_evidence(one))
        return found

    def _evidence_rows(self, run: str) -> tuple[EvidenceRow, ...]:
        return self._asked(lambda: self._reader.evidence(run)) or ()

    def run(self, run: str) -> RunView | None:
        """Return a committed run."""

        def ask() -> RunView | None:
            row = self._reader.run(run)
            if row is None:
                return None
            evidence: dict[str, list[Evidence]] = {}
            for one in self._reader.evidence(run):
                evidence.setdefault(one.job, []).append(_evidence(one))
            jobs = tuple(_job_line(job, evidence) for job in self._reader.jobs_of(run))
            line = _line(row, self._rules.zone)
            return RunView(line, jobs, row.stale_reason, *self._reader.neighbours(run))

        return self._asked(ask)

    def runs(self, limit: int = 50, before: str | None = None) -> tuple[RunLine, ...]:
        """Return committed runs, newest first."""
        limit = min(max(limit, 1), MOST_LINES)
        rows = self._asked(lambda: self._reader.runs(limit, before)) or ()
        return tuple(_line(row, self._rules.zone) for row in rows)

    def files(self, run: str) -> RunFiles:
        """Return a run's files."""
        return self._files(run)

    def days_of(self, first: date, last: date) -> tuple[Day, ...]:
        """Return the days of all runs together in a span."""
        zone = self._rules.zone
        calendar = Calendar(zone, self._clock(), self._rules.every)
        last = min(last, calendar.today)
        first = max(first, last - timedelta(days=MOST_CALENDAR_DAYS - 1))
        if first > last:
            return ()
        # Some weeks more, from which the rhythm is learnt.
        begin = datetime.combine(first - timedelta(days=60), time(), zone).timestamp()
        end = datetime.combine(last + timedelta(days=1), time(), zone).timestamp()
        rows = self._asked(lambda: self._reader.span(begin, end, 10 * MOST_CALENDAR_DAYS)) or ()
        begun = self._asked(self._reader.begun) or ()
        found = run_days(
            rows, [one for one in begun if begin <= one.started < end], calendar, first
        )
        return _filled([day for day in found if day.day <= last], first, last)

    def _asked(self, ask: Callable[[], Value]) -> Value | None:
        """Return an answer; None when the file fails, which the health tells of."""
        try:
            return ask()
        except ArchiveError:
            return None


def run_url(run: str, path: str) -> str:
    """Return where the server has a file of a run, relative to its root."""
    return f"runs/{run}/files/{quote(path)}"


def _at(moment: float, zone: tzinfo) -> datetime:
    return datetime.fromtimestamp(moment, UTC).astimezone(zone)


def _filled(days: Iterable[Day], first: date, last: date) -> tuple[Day, ...]:
    """Return one day for each day of a span."""
    found = {day.day: day for day in days}
    span = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    return tuple(found.get(day) or Day(day, DayState.NONE) for day in span)


def _job_view(
    job: JobFacts,
    span: tuple[date, date],
    zone: tzinfo,
    evidence: Mapping[tuple[str, str], list[Evidence]],
) -> JobView:
    first, today = span
    begin = datetime.combine(first, time(), zone).timestamp()
    failure = _last_failure(job, begin)
    return JobView(
        name=job.name,
        days=_filled((day for day in job.days if day.day >= first), first, today),
        last=_point(job.last, zone) if job.last else None,
        last_success=_at(job.last_success.started, zone) if job.last_success else None,
        consecutive_failures=job.consecutive_failures,
        failed_days=job.failed_days,
        missed_days=job.missed_days,
        incomplete=_incomplete(job.incomplete, zone) if job.incomplete else None,
        failure=_failure(failure, zone, evidence) if failure else None,
        points=tuple(_point(row, zone) for row in job.rows if row.due and row.started >= begin),
        median_files=job.median_files,
    )


def _last_failure(job: JobFacts, begin: float) -> JobRow | None:
    failures = (row for row in reversed(job.rows) if row.failed and row.started >= begin)
    return job.failure or next(failures, None)


def _failure(
    row: JobRow, zone: tzinfo, evidence: Mapping[tuple[str, str], list[Evidence]]
) -> Failure:
    files = tuple(evidence.get((row.run, row.name), ()))
    return Failure(row.run, _at(row.started, zone), row.status, row.cause, row.message, files)


def _incomplete(row: JobRow, zone: tzinfo) -> Incomplete:
    return Incomplete(row.run, _at(row.started, zone), row.message)


def _evidence(row: EvidenceRow) -> Evidence:
    image = row.mediatype in {"image/png", "image/jpeg"}
    return Evidence(row.path, run_url(row.run, row.path), row.bytes, image)


def _point(row: JobRow, zone: tzinfo) -> Point:
    numbers = (row.files, row.bytes, row.seconds, row.items)
    return Point(row.run, _at(row.started, zone), row.status, *numbers)


def _run_point(row: RunRow, zone: tzinfo) -> RunPoint:
    numbers = (row.files, row.bytes, row.seconds, row.cost)
    return RunPoint(row.run, _at(row.started, zone), row.status, *numbers)


def _line(row: RunRow, zone: tzinfo) -> RunLine:
    return RunLine(
        run=row.run,
        started=_at(row.started, zone),
        finished=_at(row.finished, zone),
        status=row.status,
        release=row.release,
        commit=row.commit,
        stale=row.stale,
        files=row.files,
        bytes=row.bytes,
        cost=row.cost,
        shard=row.part.label if row.part else "",
        group=row.part.group if row.part else "",
    )


def _begin_line(row: BegunRow, zone: tzinfo) -> BeginLine:
    return BeginLine(row.run, _at(row.started, zone), _at(row.deadline, zone), row.host)


def _job_line(row: JobRow, evidence: Mapping[str, list[Evidence]]) -> JobLine:
    return JobLine(
        name=row.name,
        status=row.status,
        cause=row.cause,
        message=row.message,
        files=row.files,
        bytes=row.bytes,
        items=row.items,
        seconds=row.seconds,
        evidence=tuple(evidence.get(row.name, ())),
        incomplete=row.incomplete,
    )
