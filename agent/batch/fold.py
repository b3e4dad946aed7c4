"""What a batch's log says: its runs, the results that count, and whether it is done. Decisions only.

An object arrived at the time that the store says. Each key is put by one request, so an object never changes, and
readers that have seen the same objects agree, in whichever order they saw them.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.contract.entries import Began, Closed, Ended, Entry, Invalid, Planned, StoodBack
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, PointerKey
from agent.contract.results import COMPLETE, RunStatus

WITHOUT_BEGINNING = timedelta(days=1)
"""After a sign of life, for a run whose beginning cannot be read and whose deadline nobody knows."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """An object of a batch's log.

    Attributes:
        at: When it arrived, by the store's clock.
        entry: What it holds.
    """

    key: EntryKey
    at: datetime
    entry: Entry | Invalid

    @property
    def order(self) -> tuple[datetime, str]:
        """By the store's time; what arrived in the same second goes by its key."""
        return self.at, self.key.text


@dataclass(frozen=True, slots=True)
class Result:
    """A job that ended, in the first entry that says so."""

    run: str
    at: datetime
    job: Ended


class Attempt(ABC):
    """One attempt at a batch: what follows from its entries, for `Run` and for home, which keeps less of it.

    Attributes:
        heard: When it gave its last sign of life in the batch's log.
        began: Its beginning; None when it was not seen, or cannot be read.
        planned: Its latest plan.
        closed: How it ended.
        stood_back: Why it did nothing.
    """

    __slots__ = ()
    id: str
    heard: datetime
    began: Began | None
    planned: Planned | None
    closed: Closed | None
    stood_back: StoodBack | None

    @property
    @abstractmethod
    def ended_jobs(self) -> Collection[str]:
        """The names of the jobs that ended."""

    @property
    def deadline(self) -> datetime:
        """Until when it may still close."""
        return self.began.deadline if self.began else self.heard + WITHOUT_BEGINNING

    @property
    def pending(self) -> tuple[str, ...]:
        """Jobs that ended, and whose results the machine could not send yet."""
        pending, ended = self.closed.pending if self.closed else (), self.ended_jobs
        return tuple(name for name in pending if name not in ended)

    @property
    def settled(self) -> bool:
        """Whether nothing more is expected of it: it closed, and what was pending then has followed."""
        return self.stood_back is not None if self.closed is None else not self.pending

    @property
    def progress(self) -> tuple[int, int | None]:
        """How many jobs are done, and of how many; None before there is a plan."""
        return len(self.ended_jobs), self.planned.count if self.planned else None

    def status(self, now: datetime) -> RunStatus:
        """Return how it stands: a run that did not close is running until its deadline, and lost after it."""
        if self.stood_back is not None:
            return RunStatus.STOOD_BACK
        if self.closed is not None:
            return self.closed.status
        return RunStatus.RUNNING if now <= self.deadline else RunStatus.LOST


@dataclass(frozen=True, slots=True)
class Run(Attempt):
    """An attempt, with all that its log says.

    Attributes:
        order: When its beginning arrived, and its key; of a run whose beginning was not seen, of its first object.
        signs: When its objects arrived, the first to arrive first.
        results: What ended, by the job's name.
        ended: When its end arrived.
    """

    id: str
    order: tuple[datetime, str]
    heard: datetime
    signs: tuple[datetime, ...] = ()
    began: Began | None = None
    planned: Planned | None = None
    results: Mapping[str, Result] = field(default_factory=dict)
    closed: Closed | None = None
    ended: datetime | None = None
    stood_back: StoodBack | None = None

    @property
    def first(self) -> datetime:
        """When it began, by the store's clock."""
        return self.order[0]

    @property
    def ended_jobs(self) -> Collection[str]:
        """The names of the jobs that ended."""
        return self.results.keys()

    @property
    def interrupted(self) -> bool:
        """Whether it closed without having done what there was to do."""
        return self.closed is not None and self.closed.status.known not in COMPLETE


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a batch.

    Attributes:
        runs: Its runs, the first to begin first.
        successes: Of each job that succeeded, the result that counts.
        invalid: What could not be read, by key.
    """

    batch: Batch
    runs: Mapping[str, Run] = field(default_factory=dict)
    successes: Mapping[str, Result] = field(default_factory=dict)
    invalid: Mapping[str, str] = field(default_factory=dict)

    @property
    def finished(self) -> dict[str, str]:
        """The jobs that need not run again, each with the reason."""
        return {job: f"succeeded in {one.run}" for job, one in self.successes.items()}

    @property
    def done_by(self) -> Run | None:
        """The first run that closed and was not interrupted: the batch is done. None while it is not."""
        ended = [run for run in self.runs.values() if run.closed and not run.interrupted]
        return min(ended, key=lambda run: (run.ended, run.id), default=None)


def fold(batch: Batch, log: Iterable[Arrived], pointers: Iterable[PointerKey] = ()) -> State:
    """Return what a batch's log says; the order and the number of times in which entries are given do not matter.

    A run whose beginning never arrived is known by its pointer alone.
    """
    by_run: dict[str, list[Arrived]] = {}
    first = {one.key: one for one in sorted(log, key=lambda one: one.order, reverse=True)}
    for one in sorted(first.values(), key=lambda one: one.order):
        by_run.setdefault(one.key.run, []).append(one)
    announced = {key.entry.run: key for key in pointers if key.entry.run not in by_run}
    runs = [_run(run, arrived) for run, arrived in by_run.items()]
    runs += [Run(run, (key.time, key.entry.text), key.time) for run, key in announced.items()]
    runs.sort(key=lambda run: run.order)
    successes: dict[str, Result] = {}
    for result in sorted(
        (one for run in runs for one in run.results.values() if one.job.succeeded),
        key=lambda one: (one.at, one.run),
    ):
        successes.setdefault(result.job.name, result)
    invalid = {
        one.key.text: one.entry.reason
        for arrived in by_run.values()
        for one in arrived
        if isinstance(one.entry, Invalid)
    }
    return State(batch, {run.id: run for run in runs}, successes, invalid)


def _run(run: str, arrived: list[Arrived]) -> Run:
    """Fold the objects of one run, the first to arrive first."""
    valid = [(one, one.entry) for one in arrived if isinstance(one.entry, Entry)]
    began = next(((one, entry) for one, entry in valid if entry.began), None)
    # Only the first end counts: a later process may have closed a run whose own last word comes late.
    end = next(((one, entry) for one, entry in valid if entry.closed or entry.stood_back), None)
    return Run(
        run,
        (began[0] if began else arrived[0]).order,
        arrived[-1].at,
        tuple(one.at for one in arrived),
        began=began[1].began if began else None,
        planned=_latest_plan(valid),
        results=_results(run, valid),
        closed=end[1].closed if end else None,
        ended=end[0].at if end else None,
        stood_back=end[1].stood_back if end else None,
    )


def _latest_plan(valid: list[tuple[Arrived, Entry]]) -> Planned | None:
    """Return the last plan of the process that came last: what one process puts late is still its earlier plan."""
    processes = list(dict.fromkeys(one.key.nonce for one, _ in valid))
    plans = [
        (processes.index(one.key.nonce), one.key.number, entry.planned)
        for one, entry in valid
        if entry.planned
    ]
    return max(plans, key=lambda plan: plan[:2])[2] if plans else None


def _results(run: str, valid: list[tuple[Arrived, Entry]]) -> dict[str, Result]:
    """Return what ended: the first to arrive of each job, and a success before anything else."""
    results: dict[str, Result] = {}
    for one, entry in valid:
        for job in entry.jobs:
            known = results.get(job.name)
            if known is None or (job.succeeded and not known.job.succeeded):
                results[job.name] = Result(run, one.at, job)
    return results
