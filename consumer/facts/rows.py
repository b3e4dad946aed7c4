"""What the history knows, as values. Texts are printable and bounded, numbers are possible, names are names."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo

from agent.core.results import JobCause, JobStatus, RunStatus
from agent.core.shards import Shard

FAILURES = frozenset(
    {JobStatus.FAILED, JobStatus.TIMED_OUT, JobStatus.INTERRUPTED, JobStatus.EMPTY}
)
"""An interrupted job is one of them: whoever waits for its files does not get them. A later run heals the day."""


def was_due(status: JobStatus, cause: JobCause | None) -> bool:
    """Tell whether a job counts: one that is skipped without a cause was not due that day."""
    return status is not JobStatus.SKIPPED or cause is not None


def is_failure(status: JobStatus, cause: JobCause | None) -> bool:
    """Tell whether a job did not do what was due; one that was skipped for a cause did not, either."""
    return status in FAILURES or (status is JobStatus.SKIPPED and cause is not None)


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job in a committed run.

    Attributes:
        run: The run's id; sorts by time.
        started: When the run began (Unix seconds).
        family: The name that its release gives it, before a matrix; None when the run does not say.
        refused_files: Entries of its output that could not be handed over.
        message: Why it did not succeed; for people.
        files, bytes: What it left.
        items: What it says it collected; None when it does not say.
        seconds: Wall-clock time over all attempts.
    """

    run: str
    name: str
    started: float
    finished: float
    status: JobStatus
    cause: JobCause | None = None
    message: str = ""
    files: int = 0
    bytes: int = 0
    items: int | None = None
    seconds: float = 0.0
    family: str | None = None
    refused_files: int = 0

    @property
    def incomplete(self) -> bool:
        """Whether it succeeded, and not all that it wrote could be handed over."""
        return self.status is JobStatus.SUCCEEDED and self.refused_files > 0

    @property
    def due(self) -> bool:
        """Whether it counts."""
        return was_due(self.status, self.cause)

    @property
    def failed(self) -> bool:
        """Whether it did not do what was due."""
        return is_failure(self.status, self.cause)


@dataclass(frozen=True, slots=True)
class RunRow:
    """A committed run; times in Unix seconds.

    Attributes:
        release, commit: What ran; None when no release could.
        stale: Whether an older release ran than the one that was wanted.
        stale_reason: Why; empty when unknown.
        cost: US dollars; None when the run does not say.
        standing: US dollars that a month costs, run or no run; None when the run does not say.
        jobs: How many it lists.
        part: Which shard of which group it is; None for a whole batch.
    """

    run: str
    started: float
    finished: float
    status: RunStatus
    release: str | None = None
    commit: str | None = None
    stale: bool = False
    stale_reason: str = ""
    files: int = 0
    bytes: int = 0
    cost: float | None = None
    standing: float | None = None
    jobs: int = 0
    part: Shard | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.finished - self.started)


@dataclass(frozen=True, slots=True)
class BegunRow:
    """A run that began and is not committed; past its deadline it has vanished. Times in Unix seconds.

    Attributes:
        part: Which shard of which group it is; None for a whole batch.
    """

    run: str
    started: float
    deadline: float
    host: str = ""
    release_wanted: str = ""
    part: Shard | None = None


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """An object in the bucket that says nothing credible."""

    key: str
    run: str
    problem: str


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """A file that explains why a job did not succeed; `path` is the resource's in the manifest."""

    run: str
    job: str
    path: str
    bytes: int
    mediatype: str


def local_day(moment: float, zone: tzinfo) -> date:
    """Return the day, where people live, on which something happened. A run belongs to the day on which it began."""
    return datetime.fromtimestamp(moment, UTC).astimezone(zone).date()
