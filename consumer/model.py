"""Runs, their jobs, and the batches that they are attempts at: what everything at home takes. Decisions only.

A batch is what `agent.batch.fold` makes of its log, less what home does not need: half a million results have room in
the memory of a small machine.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cached_property, lru_cache
from sys import intern
from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from agent.batch import fold
from agent.batch.follow import shown
from agent.contract.entries import Began, Closed, Ended, Object, Planned, StoodBack
from agent.contract.ids import Batch as Id
from agent.contract.ids import run_started
from agent.contract.layout import JobKey
from agent.contract.results import JobCause, JobStatus, RunStatus

MOST_MESSAGE = 300
FAILURES = frozenset(
    {
        JobStatus.FAILED,
        JobStatus.TIMED_OUT,
        JobStatus.INTERRUPTED,
        JobStatus.EMPTY,
        JobStatus.UNKNOWN,
    }
)
"""An interrupted job is one of them: whoever waits for its files does not get them. A later run heals it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A job's package, as its entry commits it; the run and the job say where it is."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Job:
    """A job that ended in a run.

    Attributes:
        arrived: When the bucket had its result.
        family: The name that its release gives it, before a matrix.
        refused: Files that could not be results.
        release: The commit that made it, where that is not the plan's.
        package: Its package, which commits its files; None for a job that was skipped, and where nobody asked for it.
    """

    name: str
    arrived: datetime
    status: JobStatus
    cause: JobCause | None = None
    family: str | None = None
    release: str | None = None
    message: str = ""
    files: int = 0
    bytes: int = 0
    items: int | None = None
    seconds: float = 0.0
    attempts: int = 0
    refused: int = 0
    package: Package | None = None

    @property
    def succeeded(self) -> bool:
        """Whether there is nothing left to do."""
        return self.status is JobStatus.SUCCEEDED

    @property
    def incomplete(self) -> bool:
        """Whether it succeeded, and not all that it wrote could be handed over."""
        return self.succeeded and self.refused > 0

    @property
    def due(self) -> bool:
        """Whether it counts: one that is skipped without a cause was not due that day."""
        return self.status is not JobStatus.SKIPPED or self.cause is not None

    def committed(self, run: str) -> Object | None:
        """Return its package as the entry of a run commits it; None for a job that was skipped."""
        if self.package is None:
            return None
        key = JobKey(run, self.name).text
        return Object(key=key, bytes=self.package.bytes, sha256=self.package.sha256)

    @property
    def failed(self) -> bool:
        """Whether it did not do what was due."""
        return self.status.known in FAILURES or (self.due and self.status is JobStatus.SKIPPED)


@dataclass(frozen=True, slots=True)
class Run(fold.Attempt):
    """One attempt at a batch; texts are printable, times are aware.

    Attributes:
        first: When its beginning arrived, by the store's clock.
        jobs: What ended, in the order in which it arrived.
        expired: Whether its files are no longer in the bucket, which a lifecycle rule may do.
    """

    id: str
    first: datetime
    heard: datetime
    began: Began | None = None
    planned: Planned | None = None
    jobs: tuple[Job, ...] = ()
    closed: Closed | None = None
    stood_back: StoodBack | None = None
    expired: bool = False

    @property
    def started(self) -> datetime:
        """When it began, by its own clock."""
        return self.began.started if self.began else run_started(self.id)

    @property
    def ended_jobs(self) -> Collection[str]:
        """The names of the jobs that ended."""
        return {job.name for job in self.jobs}

    @property
    def names(self) -> frozenset[str]:
        """The jobs that it knows: those that it planned, left out, or finished."""
        known = {*self.ended_jobs}
        if self.planned:
            known |= {*self.planned.jobs, *(one.name for one in self.planned.left_out)}
        return frozenset(known)

    def status(self, now: datetime) -> RunStatus:
        """Return how it stands; a run that closed and whose files are gone has expired."""
        closed = self.closed is not None and self.stood_back is None
        return RunStatus.EXPIRED if closed and self.expired else fold.Attempt.status(self, now)

    @property
    def usd(self) -> float | None:
        """What it cost, as it says itself."""
        return self.closed.cost.total_usd if self.closed and self.closed.cost else None


@dataclass(frozen=True)
class Batch:
    """What may be tried more than once, and is done once.

    Attributes:
        looked: When its log was last looked into, by home's clock.
        runs: Its attempts, the first to begin first, with those that stood back.
        done_by: The run that did what there was to do; None while there is something left.
        invalid: What could not be read, by key.
    """

    id: Id
    looked: datetime
    runs: tuple[Run, ...] = ()
    done_by: str | None = None
    invalid: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def attempts(self) -> tuple[Run, ...]:
        """Its runs that did something, or may."""
        return tuple(run for run in self.runs if run.stood_back is None)

    @cached_property
    def counts(self) -> Mapping[str, str]:
        """Of each job that succeeded, the run whose result counts: the first to arrive."""
        good = [(job, run.id) for run in self.runs for job in run.jobs if job.succeeded]
        good.sort(key=lambda pair: (pair[0].arrived, pair[1]), reverse=True)
        return {job.name: run for job, run in good}

    @cached_property
    def memo(self) -> dict[Any, Any]:
        """What others derive from it, for as long as it stays the same."""
        return {}

    @property
    def at(self) -> datetime:
        """The time that it is for, else when its first run began."""
        return self.slot or min((run.started for run in self.runs), default=self.looked)

    @property
    def slot(self) -> datetime | None:
        """The scheduled time that it is for; None where nobody said."""
        said = (run.began.slot for run in self.runs if run.began)
        return self.id.slot or next((slot for slot in said if slot), None)

    @property
    def group(self) -> tuple[str, int] | None:
        """What shards have in common: the group's name, and in how many it was dealt."""
        return (shard.group, shard.shards) if (shard := self.id.shard) else None

    def status(self, run: Run) -> RunStatus:
        """Return how a run is shown: nobody is lost before the log was looked into after the deadline."""
        return shown(run, self.looked)


@dataclass(frozen=True)
class History:
    """What home knows.

    Attributes:
        batches: By the time that they are for.
        since: When home began to watch.
        missing: Pointers to entries that are not in the bucket.
    """

    batches: tuple[Batch, ...] = ()
    since: datetime | None = None
    missing: int = 0

    @property
    def runs(self) -> list[tuple[Batch, Run]]:
        """All runs, the first to begin first."""
        pairs = [(batch, run) for batch in self.batches for run in batch.runs]
        return sorted(pairs, key=lambda pair: (pair[1].started, pair[1].id))

    @cached_property
    def by_id(self) -> Mapping[str, tuple[Batch, Run]]:
        """All runs by their ids."""
        return {run.id: (batch, run) for batch in self.batches for run in batch.runs}

    @property
    def invalid(self) -> dict[str, str]:
        """All objects that could not be read, with the reason, by key."""
        return {key: reason for batch in self.batches for key, reason in batch.invalid.items()}


def history_of(
    batches: Iterable[Batch], since: datetime | None = None, missing: int = 0
) -> History:
    """Return batches in their order."""
    return History(tuple(sorted(batches, key=_order)), since, missing)


def _order(batch: Batch) -> tuple[datetime, str, str]:
    return batch.at, batch.id.schedule, batch.id.name


def batch_of(state: fold.State, looked: datetime, expired: frozenset[str] = frozenset()) -> Batch:
    """Return what home keeps of a log as it was by its clock; of expired runs the files are gone."""
    done = state.done_by
    return Batch(
        state.batch,
        looked,
        tuple(_run(run, expired=run.id in expired) for run in state.runs.values()),
        done.id if done else None,
        dict(state.invalid),
    )


def _run(run: fold.Run, *, expired: bool) -> Run:
    results = sorted(run.results.values(), key=lambda one: (one.at, one.job.name))
    return Run(
        run.id,
        run.first,
        run.heard,
        run.began,
        run.planned,
        tuple(_job(one.job, one.at) for one in results),
        run.closed,
        run.stood_back,
        expired,
    )


def _job(job: Ended, arrived: datetime) -> Job:
    return Job(
        name=job.name,
        arrived=arrived,
        status=job.status,
        cause=job.cause,
        message=job.message[:MOST_MESSAGE],
        files=job.files,
        bytes=job.bytes,
        items=job.items,
        seconds=job.seconds,
        attempts=job.attempts,
        refused=job.refused,
        family=job.family,
        release=job.release,
        package=Package(job.package.bytes, job.package.sha256) if job.package else None,
    )


_BATCH = TypeAdapter(Batch)
_JOBS = {"runs": {"__all__": {"jobs"}}}


def write_batch(batch: Batch) -> bytes:
    """Return a batch as JSON, for whoever keeps it; jobs are rows, because there are many."""
    document = _BATCH.dump_python(batch, mode="json", by_alias=True, exclude=_JOBS)
    return to_json([document, [[_row(job) for job in run.jobs] for run in batch.runs]])


def load_batch(text: bytes, *, packages: bool = True) -> Batch:
    """Return a batch that `write_batch` wrote; without packages its jobs take two thirds of the memory."""
    document, rows = from_json(text)
    batch = _BATCH.validate_python(document, extra="ignore")  # an older home kept all of it
    runs = tuple(
        replace(
            run,
            planned=_shared(run.planned) if run.planned else None,
            jobs=tuple(_job_of(row, packages=packages) for row in jobs),
        )
        for run, jobs in zip(batch.runs, rows, strict=True)
    )
    return replace(batch, runs=runs)


def _shared(plan: Planned) -> Planned:
    """Return a plan whose names are those of an equal plan before: a year of five hundred jobs has them once."""
    return plan.model_copy(update={"jobs": _names(plan.jobs)})


def _row(job: Job) -> list[Any]:
    package = [job.package.bytes, job.package.sha256] if job.package else None
    values = (getattr(job, one.name) for one in fields(Job)[_PARSED:-1])
    return [job.name, job.arrived, job.status, job.cause, job.family, job.release, package, *values]


def _job_of(row: list[Any], *, packages: bool) -> Job:
    name, arrived, status, cause, family, release, package, *values = row
    parsed: list[Any] = [intern(name), _moment(arrived), _status(status)]
    parsed.append(_cause(cause) if cause else None)
    parsed += [intern(family) if family else None, intern(release) if release else None]
    return Job(*[*parsed, *values, Package(*package) if package and packages else None])


_PARSED = 6
"""The fields of a job that are parsed, or of which half a million rows have few different ones: they come first."""
_moment = lru_cache(maxsize=1024)(datetime.fromisoformat)
_status = lru_cache(maxsize=64)(JobStatus)
_cause = lru_cache(maxsize=64)(JobCause)


@lru_cache(maxsize=16)
def _names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(map(intern, names))
