"""What a pull wants, and what it removes. Decisions only."""

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from agent.contract.entries import Object
from agent.contract.ids import Batch as Id
from agent.contract.ids import run_started
from agent.contract.results import JobStatus
from consumer.entries import CLOCKS
from consumer.model import Batch, Job

MAX_BYTES = 10 * 1024**3
"""What a job of a run may hold, unless a person says otherwise: a hundred days of a hundred megabytes."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants at home.

    Attributes:
        jobs: Names of jobs; empty for all.
        runs: Ids of runs; empty for all. One that is named comes even if it was removed at home, or does not count.
        since: Runs that began earlier are not fetched.
        keep: How many runs of each job stay; None for all.
        partial: Whether jobs that did not succeed are wanted, too.
        complete_groups: Whether shards are wanted only when all shards of their group are done.
        max_bytes: What a job of a run may hold.
        again: Whether jobs that were rejected before are tried once more.
    """

    jobs: frozenset[str] = frozenset()
    runs: frozenset[str] = frozenset()
    since: datetime | None = None
    keep: int | None = None
    partial: bool = False
    complete_groups: bool = False
    max_bytes: int = MAX_BYTES
    again: bool = False

    def wants(self, job: str) -> bool:
        """Tell whether a job is wanted."""
        return not self.jobs or job in self.jobs

    def wants_run(self, run: str) -> bool:
        """Tell whether a run is wanted."""
        if self.runs:
            return run in self.runs
        return self.since is None or run_started(run) >= self.since


Key = tuple[str, str]
"""A job and a run."""


@dataclass(frozen=True, slots=True)
class Item:
    """A job of a run that was installed; files and bytes are its results."""

    job: str
    run: str
    batch: Id
    status: str
    files: int
    bytes: int

    @property
    def key(self) -> Key:
        """The job and the run."""
        return self.job, self.run

    @property
    def succeeded(self) -> bool:
        """Whether it is the result that counts of its batch, and not what a failure left."""
        return self.status == JobStatus.SUCCEEDED.value


@dataclass(frozen=True, slots=True)
class Rejection:
    """A job of a run that is not what it says, and is not downloaded again.

    Attributes:
        needed: Bytes that it declares, when these were too many; it is tried again when more are allowed.
    """

    job: str
    run: str
    problems: tuple[str, ...]
    needed: int | None = None

    def fits(self, size: int) -> bool:
        """Tell whether only its size was too much, and is not any more."""
        return self.needed is not None and self.needed <= size


@dataclass(frozen=True, slots=True)
class Result:
    """A job of a run that left a package."""

    batch: Id
    at: datetime
    run: str
    job: Job
    committed: Object

    @property
    def key(self) -> tuple[str, str]:
        """The job and the run."""
        return self.job.name, self.run

    @property
    def item(self) -> Item:
        """What is remembered of it at home."""
        job = self.job
        return Item(job.name, self.run, self.batch, job.status.value, job.files, job.bytes)


def wanted(batches: Iterable[Batch], wish: Wish) -> list[Result]:
    """Return the results that are wanted, whether they are at home or not, in the order of their batches.

    Of a batch's successes of one job only the one that counts is wanted.
    """
    found = [
        Result(batch.id, batch.at, run.id, job, committed)
        for batch in batches
        for run in batch.runs
        if wish.wants_run(run.id) and not run.expired
        for job in run.jobs
        if wish.wants(job.name) and (committed := job.committed(run.id))
        if (batch.counts.get(job.name) == run.id if job.succeeded else wish.partial)
        or run.id in wish.runs
    ]
    return sorted(found, key=lambda one: (one.at, one.job.arrived, one.run, one.job.name))


def lacking(
    results: Iterable[Result],
    items: Mapping[Key, Item],
    rejections: Mapping[Key, Rejection],
    wish: Wish,
) -> list[Result]:
    """Return which results are to be fetched.

    Args:
        results: What is wanted.
        items: What was installed of their batches. What was removed since does not come back, unless it is asked for.
        rejections: What was rejected.
        wish: What is wanted.
    """
    # Which of two successes counts may change while they are not both listed; at home the first to be installed does.
    first = {(one.job, one.batch): one.run for one in items.values() if one.succeeded}

    def is_lacking(one: Result) -> bool:
        rejection = rejections.get(one.key)
        if rejection and not (wish.again or rejection.fits(wish.max_bytes)):
            return False
        if one.run in wish.runs:
            return True
        twin = one.job.succeeded and first.get((one.job.name, one.batch), one.run) != one.run
        return one.key not in items and not twin

    return [one for one in results if is_lacking(one)]


def worth_keeping(
    results: Sequence[Result],
    begun: Mapping[str, datetime | None],
    beside: Mapping[str, Collection[str]],
    keep: int,
    now: datetime,
) -> list[Result]:
    """Leave out what `--keep` would remove at once, if it was in the bucket before the job was first pulled.

    What came later is fetched and told to the hook however old it is.

    Args:
        results: What is to be fetched.
        begun: Since when each job is pulled; None for one that never was.
        beside: The runs of each job beside which these are counted.
        keep: How many stay.
        now: The time.
    """
    stay = {job: _staying(runs, keep, now) for job, runs in beside.items()}
    return [
        one
        for one in results
        if one.job.arrived >= (begun[one.job.name] or now)
        or one.run >= stay[one.job.name].get(by_start(one.run, now)[0], "")
    ]


def portions(results: Iterable[Result], most: int, size: int) -> Iterator[list[Result]]:
    """Yield results in portions whose packages have room in memory together."""
    portion: list[Result] = []
    for one in results:
        if portion and (
            len(portion) == most or sum(each.committed.bytes for each in (*portion, one)) > size
        ):
            yield portion
            portion = []
        portion.append(one)
    if portion:
        yield portion


def by_start(run: str, now: datetime) -> tuple[bool, str]:
    """Return what orders runs by their start; those that a wrong clock dated to come are before all others."""
    return run_started(run) <= now + CLOCKS, run


def latest_of(runs: Iterable[str], now: datetime) -> str | None:
    """Return the run that began last; None when there is none."""
    return max(runs, key=lambda run: by_start(run, now), default=None)


def to_remove(
    runs: Iterable[str], keep: int, protected: Collection[str], now: datetime
) -> list[str]:
    """Return the runs of a job that go, oldest first.

    Args:
        runs: Those that are there.
        keep: How many of the newest stay; of those that a wrong clock dated to come, as many beside them.
        protected: What stays whatever its age: the latest, and runs whose hook has not succeeded.
        now: What is later than this was dated by a wrong clock.
    """
    ordered = sorted(runs)
    stay = _staying(ordered, keep, now)
    old = [run for run in ordered if run < stay.get(by_start(run, now)[0], "")]
    return [run for run in old if run not in protected]


def _staying(runs: Iterable[str], keep: int, now: datetime) -> dict[bool, str]:
    """Return the oldest run that stays: of the past (True), and of those to come; none where fewer are there."""
    found = {}
    for past, some in groupby(sorted(runs), key=lambda run: by_start(run, now)[0]):
        if len(newest := deque(some, maxlen=keep)) == keep:
            found[past] = newest[0]
    return found
