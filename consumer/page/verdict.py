"""The morning's question: did the last runs work, are the files at home, and what fails now? Decisions only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from enum import StrEnum

from agent.contract.ids import is_run_id
from agent.contract.results import JobCause, RunStatus
from consumer.groups import Group, Outcome, State
from consumer.judge import MOST_SCHEDULES, JobFacts, Judged, ScheduleFacts
from consumer.page.given import Health, Problem, Pull


class Kind(StrEnum):
    """What a trouble is about; the first are the worst."""

    BUCKET = "bucket"
    MISSED = "missed"
    LOST = "lost"
    RUN = "run"
    JOB = "job"
    HOME = "home"
    INCOMPLETE = "incomplete"
    STALE = "stale"
    SCHEDULE = "schedule"
    REJECTED = "rejected"


MILD = frozenset({Kind.INCOMPLETE, Kind.STALE, Kind.SCHEDULE, Kind.REJECTED})
"""Kinds with which nothing that was due is lacking."""
_ORDER = list(Kind)


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that is wrong now: one cause, and all that comes of it.

    Attributes:
        subject: A bucket, a folder, a release, shards; empty where the jobs are the subject.
        part: Of home, as `Problem.kind` has it.
        jobs: The jobs that it concerns; of home, the subjects.
        run: The run in which it was seen last.
        since: When it was due first.
        times: How many times in a row.
        days: On how many days in a row.
        last_success: When one of the jobs last succeeded.
    """

    kind: Kind
    schedule: str = ""
    subject: str = ""
    part: str = ""
    jobs: tuple[str, ...] = ()
    run: str = ""
    cause: JobCause | None = None
    message: str = ""
    remedy: str = ""
    since: datetime | None = None
    times: int = 0
    days: int = 0
    last_success: datetime | None = None

    @property
    def mild(self) -> bool:
        """Whether nothing that was due is lacking."""
        return self.kind in MILD


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest batch of a schedule, or the one that did not come.

    Attributes:
        zone: Whose times are told.
        state: MISSED when nothing came, NONE before the first run.
        at: What the newest batch is for; None before the first.
        run: Its last run.
        done: Its jobs that succeeded; those that ended, while it is under way.
        jobs: Its jobs that were due; None while nobody knows.
        files: Of its successes.
        shards: How many are done, and of how many; None where there are none.
        expected: When the run was due that did not come.
    """

    schedule: str
    zone: tzinfo
    state: State
    at: datetime | None = None
    run: str = ""
    done: int = 0
    jobs: int | None = None
    files: int = 0
    shards: tuple[int, int] | None = None
    failed: tuple[str, ...] = ()
    expected: datetime | None = None
    next_due: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer.

    Attributes:
        latest: Of each schedule, the one with the newest batch first.
        troubles: What is wrong, the worst first.
        pull: Whether the files are at home; None where nobody pulls.
    """

    now: datetime
    latest: tuple[Latest, ...]
    troubles: tuple[Trouble, ...]
    pull: Pull | None = None

    @property
    def fine(self) -> bool:
        """Whether nothing that was due is lacking."""
        return all(one.mild for one in self.troubles)

    @property
    def state(self) -> State:
        """How everything stands, as one word."""
        if not self.fine:
            return State.FAILED
        states = {one.state for one in self.latest}
        order = (State.RUNNING, State.SUCCEEDED, State.PARTIAL)
        return next((one for one in order if one in states), State.NONE)


def verdict(judged: Judged, health: Health | None = None) -> Verdict:
    """Return the answer, with what is wrong at home where a service knows it."""
    jobs: dict[str, list[JobFacts]] = {}
    for job in judged.jobs:
        jobs.setdefault(job.schedule, []).append(job)
    latest = [_latest(one, jobs.get(one.name, ()), judged.now) for one in judged.going_on]
    latest.sort(key=lambda one: (one.at is not None, one.at or judged.now), reverse=True)
    troubles = [*_of_home(health)] if health else []
    if judged.not_judged:
        troubles.append(
            Trouble(
                Kind.REJECTED,
                subject=f"{judged.not_judged} schedules",
                message=f"they came after {MOST_SCHEDULES} others, and are not judged",
            )
        )
    for schedule in judged.going_on:
        troubles += _of_schedule(schedule, jobs.get(schedule.name, ()), judged.now)
    troubles.sort(key=lambda one: (_ORDER.index(one.kind), -one.days, -one.times, one.jobs))
    return Verdict(judged.now, tuple(latest), tuple(troubles), health.pull if health else None)


def _latest(schedule: ScheduleFacts, jobs: Iterable[JobFacts], now: datetime) -> Latest:
    group = schedule.groups[-1] if schedule.groups else None
    missed = schedule.missed
    nothing = Latest(
        schedule.name,
        schedule.zone,
        State.MISSED if missed else State.NONE,
        expected=missed[-1] if missed else None,
        next_due=schedule.next_due,
    )
    if group is None:
        return nothing
    outcomes = group.outcomes([job.name for job in jobs], now).values()
    due = [one for one in outcomes if one.state is not State.SKIPPED]
    good = [one for one in due if one.state is State.SUCCEEDED]
    ended = [one for one in due if one.state is not State.RUNNING]
    state = group.state(now)
    return replace(
        nothing,
        state=State.MISSED if missed else state,
        at=group.at,
        run=group.runs[-1][1].id if group.runs else "",
        done=len(ended if state is State.RUNNING else good),
        jobs=len(due) if due or state is not State.RUNNING else None,
        files=sum(one.job.files for one in good if one.job),
        shards=(group.done, group.shards) if group.shards > 1 else None,
        failed=tuple(sorted(one.name for one in due if one.state is State.FAILED)),
    )


# Troubles.


def _of_home(health: Health) -> Iterator[Trouble]:
    if health.problem:
        yield Trouble(Kind.BUCKET, subject=health.bucket, message=health.problem, since=health.read)
    alike: dict[tuple[str, str], list[Problem]] = {}
    for one in health.pull.problems if health.pull else ():
        alike.setdefault((one.kind, one.reason), []).append(one)
    for (kind, reason), problems in alike.items():
        yield Trouble(
            Kind.REJECTED if kind == "invalid" else Kind.HOME,
            part=kind,
            subject=problems[0].subject,
            jobs=tuple(dict.fromkeys(_job_of(one.subject) for one in problems if one.subject)),
            run=max(_run_of(one.subject) for one in problems),
            message=reason,
            remedy=problems[0].remedy,
            since=min((one.since for one in problems if one.since), default=None),
        )
    for key, reason in sorted(health.rejected.items()):
        yield Trouble(Kind.REJECTED, subject=key, message=reason)


def _run_of(subject: str) -> str:
    """Return the run of what the pull calls by a run and a job; empty for what it calls otherwise."""
    run = subject.partition(" ")[0]
    return run if is_run_id(run) else ""


def _job_of(subject: str) -> str:
    return subject.removeprefix(_run_of(subject)).strip() or subject


def _of_schedule(
    schedule: ScheduleFacts, jobs: Sequence[JobFacts], now: datetime
) -> Iterator[Trouble]:
    name = schedule.name
    if schedule.missed:
        yield Trouble(
            Kind.MISSED,
            name,
            jobs=tuple(job.name for job in jobs if job.missed),
            since=schedule.missed[0],
            times=len(schedule.missed),
            last_success=schedule.groups[-1].at if schedule.groups else None,
        )
    failing = [*_one_for_each_cause(name, jobs, schedule.groups)]
    yield from failing
    last = schedule.groups[-1] if schedule.groups else None
    if last and last.runs and not any(last.runs[-1][1].id == one.run for one in failing):
        yield from _of_group(last, now)
    yield from _incomplete(name, jobs)
    if schedule.problem and schedule.schedule:
        said = schedule.schedule.expression
        yield Trouble(Kind.SCHEDULE, name, subject=said, message=schedule.problem)
    yield from _stale(schedule)


def _one_for_each_cause(
    schedule: str, jobs: Iterable[JobFacts], groups: Sequence[Group]
) -> Iterator[Trouble]:
    found: dict[tuple[object, ...], list[tuple[JobFacts, Outcome]]] = {}
    for job in jobs:
        if one := job.failure:
            # What has no result of its own failed with its run.
            key = (one.cause, one.message, *(() if one.job else (one.run,)))
            found.setdefault(key, []).append((job, one))
    statuses = {run.id: batch.status(run) for group in groups for batch, run in group.runs}
    for members in found.values():
        first = members[0][1]
        lost = statuses.get(first.run) is RunStatus.LOST
        kind = Kind.JOB if first.job else Kind.LOST if lost else Kind.RUN
        since = [job.failing_since for job, _ in members if job.failing_since]
        good = [job.last_success.at for job, _ in members if job.last_success]
        yield Trouble(
            kind,
            schedule,
            jobs=tuple(job.name for job, _ in members),
            run=max(one.run for _, one in members),
            cause=first.cause,
            message=first.message if first.job else "",
            since=min(since, default=None),
            times=max(job.failures for job, _ in members),
            days=max(job.failed_days for job, _ in members),
            last_success=max(good, default=None),
        )


def _of_group(group: Group, now: datetime) -> Iterator[Trouble]:
    """Yield what is wrong with a group of which no job fails: its jobs are not known, or shards never came."""
    state = group.state(now)
    _, run = group.runs[-1]
    if group.is_late(now) and group.shards > 1:
        # Counted from 1, as `--shard` does.
        missing = ", ".join(str(shard + 1) for shard in group.missing)
        yield Trouble(Kind.LOST, group.schedule, subject=missing, run=run.id, since=group.at)
    elif state in {State.LOST, State.FAILED}:
        kind = Kind.LOST if state is State.LOST else Kind.RUN
        why = (run.closed.interruption or "") if run.closed else ""
        yield Trouble(kind, group.schedule, run=run.id, message=why, since=group.at, times=1)


def _incomplete(schedule: str, jobs: Iterable[JobFacts]) -> Iterator[Trouble]:
    for job in jobs:
        if (one := job.incomplete) and job.last:
            yield Trouble(
                Kind.INCOMPLETE,
                schedule,
                jobs=(job.name,),
                run=job.last.run,
                message=one.message,
                since=job.last.at,
                times=one.refused,
            )


def _stale(schedule: ScheduleFacts) -> Iterator[Trouble]:
    plans = (run.planned for group in reversed(schedule.groups) for _, run in group.runs[::-1])
    release = next((plan.release for plan in plans if plan), None)
    if release and (stale := release.stale):
        subject = f"{release.ref} ({stale.wanted})"
        yield Trouble(
            Kind.STALE, schedule.name, subject=subject, message=stale.reason, since=stale.since
        )
