"""Batches that belong together, one by itself or the shards of a group, and their jobs. Decisions only."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cached_property
from itertools import islice

from agent.contract.facts import Schedule
from agent.contract.results import JobCause, RunStatus
from consumer.model import Batch, History, Job, Run

PATIENCE = timedelta(hours=1)
"""After the last sign of a group, within which its engine has to start what is missing."""
PENDING = timedelta(days=1)
"""After a deadline, within which a machine that keeps its disk sends what it could not send."""
MOST_MISSING = 20
"""Missing shards that are named."""
MOST_FAMILIES = 50
"""Matrix jobs that are reported, those with most jobs; the others are summed up as one."""
OTHERS = "_others"
"""The name of that one; no job can have it."""


class State(StrEnum):
    """How something stands: a batch, a group, a job in it, a day."""

    SUCCEEDED = "succeeded"
    PARTIAL = "partial"
    FAILED = "failed"
    LOST = "lost"
    MISSED = "missed"
    RUNNING = "running"
    SKIPPED = "skipped"
    NONE = "none"


BAD = frozenset({State.FAILED, State.LOST, State.MISSED})


def last_of(states: Iterable[State]) -> State:
    """Return what several come to, in the order of time: the last decides, but what went well is not forgotten."""
    decided = [one for one in states if one not in {State.NONE, State.SKIPPED}]
    ended = [one for one in decided if one is not State.RUNNING]
    if not ended:
        return decided[-1] if decided else State.NONE
    good = any(one in {State.SUCCEEDED, State.PARTIAL} for one in ended)
    return State.PARTIAL if good and ended[-1] in BAD else ended[-1]


@dataclass(frozen=True, slots=True)
class Without:
    """A job without a result: its name, and why."""

    name: str
    cause: JobCause | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job in a group; a year of five hundred jobs has 183,000 of them in memory.

    Attributes:
        of: Its result, or what is known without one.
        at: The time that the group is for.
        run: The run that decides.
    """

    of: Job | Without
    state: State
    at: datetime
    run: str

    @property
    def name(self) -> str:
        """The job's name."""
        return self.of.name

    @property
    def job(self) -> Job | None:
        """Its result; None when it has none."""
        return self.of if isinstance(self.of, Job) else None

    @property
    def cause(self) -> JobCause | None:
        """Why it did not succeed."""
        return self.of.cause

    @property
    def message(self) -> str:
        """What was said of it."""
        return self.of.message


@dataclass(frozen=True)
class Group:
    """A batch, or the shards of one.

    Attributes:
        name: What the shards have in common; the batch's name where there are none.
        shards: How many there are to be.
        batches: Those of which something is known.
    """

    schedule: str
    name: str
    shards: int
    batches: tuple[Batch, ...]

    @cached_property
    def runs(self) -> tuple[tuple[Batch, Run], ...]:
        """Its attempts, the first to begin first."""
        pairs = [(batch, run) for batch in self.batches for run in batch.attempts]
        return tuple(sorted(pairs, key=lambda pair: (pair[1].first, pair[1].id)))

    @cached_property
    def at(self) -> datetime:
        """The time that it is for."""
        return min(batch.at for batch in self.batches)

    @property
    def slot(self) -> datetime | None:
        """The scheduled time that it is for, where somebody said so."""
        return min((batch.slot for batch in self.batches if batch.slot), default=None)

    @property
    def declared(self) -> Schedule | None:
        """The schedule that its last run names."""
        said = [run.began.schedule for _, run in self.runs if run.began and run.began.schedule]
        return said[-1] if said else None

    @cached_property
    def done(self) -> int:
        """How many of its batches are done."""
        return sum(batch.done_by is not None for batch in self.batches)

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """The first shards, from 0, that are not done."""
        done = {
            shard.shard for batch in self.batches if (shard := batch.id.shard) and batch.done_by
        }
        if self.shards == 1:
            return () if self.done else (0,)
        missing = (shard for shard in range(self.shards) if shard not in done)
        return tuple(islice(missing, MOST_MISSING))

    @cached_property
    def running(self) -> int:
        """How many of its runs are under way."""
        return sum(batch.status(run) is RunStatus.RUNNING for batch, run in self.runs)

    @cached_property
    def due(self) -> datetime:
        """When it is late, unless each shard is done."""
        signs = [run.heard for _, run in self.runs]
        open_until = [
            run.deadline for batch, run in self.runs if batch.status(run) is RunStatus.RUNNING
        ]
        return max([self.at, *signs]) + PATIENCE if not open_until else max(open_until)

    def state(self, now: datetime) -> State:
        """Return how it stands."""
        states = [_state(batch) for batch in self.batches]
        if len(self.batches) < self.shards:
            states.append(State.RUNNING if now <= self.due else State.LOST)
        if len(set(states)) == 1:
            return states[0]
        if State.RUNNING in states:
            return State.RUNNING
        if any(one in {State.SUCCEEDED, State.PARTIAL} for one in states):
            return State.PARTIAL
        return State.FAILED if State.FAILED in states else State.LOST

    def is_late(self, now: datetime) -> bool:
        """Tell whether something is missing, and nothing more is to be expected."""
        return bool(self.missing) and not self.running and now > self.due

    @property
    def names(self) -> frozenset[str]:
        """The jobs that its runs know."""
        return frozenset(name for _, run in self.runs for name in run.names)

    @cached_property
    def knows_all(self) -> bool:
        """Whether a job that it does not name is in no release any more."""
        whole = len(self.batches) == self.shards
        return whole and all(any(map(_has_plan, batch.attempts)) for batch in self.batches)

    def outcomes(self, known: Iterable[str], now: datetime) -> dict[str, Outcome]:
        """Return what became of each job, by name.

        `known` are the jobs of the group before: a run without a plan did none of them.
        """
        found: dict[str, Outcome] = {}
        known = frozenset(known) - self.names
        for batch, run in self.runs:
            for one in _of_run(batch, run, self.at, known, now):
                before = found.get(one.name)
                if before is None or _replaces(one, before):
                    found[one.name] = one
        return found


def groups_of(history: History) -> dict[str, list[Group]]:
    """Return the groups of each schedule, by the time that they are for."""
    found: dict[tuple[str, str, int], list[Batch]] = {}
    # Of a forged pointer, to a run that no clock can have dated, nothing is left but its batch.
    for batch in (one for one in history.batches if one.runs):
        name, shards = batch.group or (batch.id.name, 1)
        found.setdefault((batch.id.schedule, name, shards), []).append(batch)
    by_schedule: dict[str, list[Group]] = {}
    for (schedule, name, shards), batches in found.items():
        group = Group(schedule, name, shards, tuple(batches))
        by_schedule.setdefault(schedule, []).append(group)
    for groups in by_schedule.values():
        groups.sort(key=lambda group: (group.at, group.name))
    return by_schedule


def _state(batch: Batch) -> State:
    if not batch.attempts:
        return State.NONE
    done = next((run for run in batch.runs if run.id == batch.done_by), None)
    if done and done.closed:
        return State(done.closed.status.value)
    statuses = [batch.status(run) for run in batch.attempts]
    if RunStatus.RUNNING in statuses:
        return State.RUNNING
    if statuses[-1] is RunStatus.LOST:
        return State.LOST
    return State.PARTIAL if batch.counts else State.FAILED


def _has_plan(run: Run) -> bool:
    whole = run.planned is None or run.planned.count <= len(run.planned.jobs)
    return whole and (bool(run.names) or _ended_well(run))


def _ended_well(run: Run) -> bool:
    return run.closed is not None and run.closed.status is RunStatus.SUCCEEDED


def _of_run(
    batch: Batch, run: Run, at: datetime, known: frozenset[str], now: datetime
) -> Iterator[Outcome]:
    # Half a million of them are made once, and not with each judgement.
    key = (_of_job, run.id, at)
    done = batch.memo.get(key)
    if done is None:
        done = batch.memo[key] = tuple(_of_job(job, run, at) for job in run.jobs)
    yield from done
    ended = {job.name for job in run.jobs}
    if run.planned:
        for one in run.planned.left_out:
            if one.name not in ended:
                yield Outcome(Without(one.name, message=one.reason), State.SKIPPED, at, run.id)
    planned = run.planned.jobs if run.planned else ()
    # A run that ended before it knew its jobs did none of those that it should have known.
    without = known if not run.names and not _ended_well(run) else frozenset[str]()
    waits = run.pending if now <= run.deadline + PENDING else ()
    runs = batch.status(run) is RunStatus.RUNNING
    why = _why_not(batch, run)
    for name in (*planned, *without):
        if name in ended:
            continue
        if runs or name in waits:
            yield Outcome(Without(name), State.RUNNING, at, run.id)
        else:
            yield Outcome(Without(name, *why), State.FAILED, at, run.id)


def _why_not(batch: Batch, run: Run) -> tuple[JobCause, str]:
    """Return why a run did not do a job that it should have done."""
    if batch.status(run) is RunStatus.LOST:
        return JobCause.INTERRUPTED, "the run was lost"
    if run.planned and run.planned.release is None and not run.planned.jobs:
        return JobCause.RELEASE, "no release could run"
    return JobCause.INTERRUPTED, "the run ended before this job did"


def _of_job(job: Job, run: Run, at: datetime) -> Outcome:
    state = State.SUCCEEDED if job.succeeded else State.FAILED if job.failed else State.SKIPPED
    return Outcome(job, state, at, run.id)


def _replaces(later: Outcome, before: Outcome) -> bool:
    """Tell whether a later attempt says more: a success stands, and who left a job out says nothing."""
    return before.state is not State.SUCCEEDED and later.state is not State.SKIPPED


@dataclass(frozen=True, slots=True)
class Family:
    """The jobs of a group that share a name in jobs.toml, because of a matrix.

    Attributes:
        jobs: How many were due. A job that runs on several shards, because others need it, counts once.
        succeeded: How many of them succeeded.
        files, bytes, seconds: Of all of them together.
        failures: How many failed, by cause.
    """

    name: str
    jobs: int = 0
    succeeded: int = 0
    files: int = 0
    bytes: int = 0
    seconds: float = 0.0
    failures: Mapping[JobCause, int] = field(default_factory=dict)


def families_of(group: Group, now: datetime) -> tuple[Family, ...]:
    """Return the jobs of a group by their names in jobs.toml; of more than `MOST_FAMILIES`, the small ones as one."""
    kinds: dict[str, list[Outcome]] = {}
    for one in group.outcomes((), now).values():
        if one.state is not State.SKIPPED:
            kind = one.job.family if one.job and one.job.family else one.name
            kinds.setdefault(kind, []).append(one)
    kept = sorted(kinds, key=lambda kind: (-len(kinds[kind]), kind))[:MOST_FAMILIES]
    rest = [one for kind, members in kinds.items() if kind not in kept for one in members]
    families = [_family(kind, kinds[kind]) for kind in sorted(kept)]
    return (*families, _family(OTHERS, rest)) if rest else tuple(families)


def _family(name: str, members: list[Outcome]) -> Family:
    jobs = [one.job for one in members if one.job]
    failed = (one.cause or JobCause.INTERRUPTED for one in members if one.state is State.FAILED)
    return Family(
        name,
        len(members),
        sum(one.state is State.SUCCEEDED for one in members),
        sum(job.files for job in jobs),
        sum(job.bytes for job in jobs),
        sum(job.seconds for job in jobs),
        Counter(cause.known for cause in failed),
    )
