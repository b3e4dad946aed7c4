"""What the status page asks of the history: frozen answers, from the database alone, safe from any thread.

Texts are bounded and printable (no control characters), but still a stranger's: escape them.
"""

from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from agent.core.results import JobCause, JobStatus, RunStatus

from consumer.facts.days import Day, DayState
from consumer.facts.groups import GroupState
from consumer.facts.runs import Costs, Release

__all__ = [
    "BeginLine",
    "Costs",
    "Day",
    "DayState",
    "Evidence",
    "Failure",
    "FileLine",
    "GroupLine",
    "GroupState",
    "Health",
    "Incomplete",
    "JobLine",
    "JobView",
    "Overview",
    "Point",
    "Queries",
    "Release",
    "RunFiles",
    "RunLine",
    "RunPoint",
    "RunView",
]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file that explains a failure.

    Attributes:
        path: The resource's path, such as `_run/evidence/quotes/files/screenshot.png`.
        url: Where this server has it, percent-encoded and relative to the root: `runs/<run>/files/<path>`.
        bytes: Its size.
        image: Whether its name is that of a picture; the server sends it as one only if its content is PNG or JPEG.
    """

    path: str
    url: str
    bytes: int
    image: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """How a job failed; `cause` is None when nobody said why."""

    run: str
    started: datetime
    status: JobStatus
    cause: JobCause | None
    message: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True, slots=True)
class Incomplete:
    """A success of which files could not be handed over."""

    run: str
    started: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Point:
    """A job in one run, for lines over time; `items` is None where the job does not count them."""

    run: str
    started: datetime
    status: JobStatus
    files: int
    bytes: int
    seconds: float
    items: int | None = None


@dataclass(frozen=True, slots=True)
class RunPoint:
    """A run, for lines over time; `cost` (US dollars) is None where the run does not say."""

    run: str
    started: datetime
    status: RunStatus
    files: int
    bytes: int
    seconds: float
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class JobView:
    """A job, for its place on the page.

    Attributes:
        days: One for each day of the overview, oldest first, without gaps; all jobs have the same days.
        last: Its last run in which it was due.
        last_success: When it last succeeded.
        incomplete: Its last run, when that succeeded without being able to hand over all that it wrote.
        failure: Its last failure: of now when `consecutive_failures` is above 0, else one that is over; within `days`.
        points: Due runs within `days`, oldest first.
        median_files: Files of its recent successes before the last run.
    """

    name: str
    days: tuple[Day, ...]
    last: Point | None
    last_success: datetime | None
    consecutive_failures: int
    failed_days: int
    missed_days: int
    incomplete: Incomplete | None
    failure: Failure | None
    points: tuple[Point, ...]
    median_files: float | None


@dataclass(frozen=True, slots=True)
class BeginLine:
    """A run that began and is not committed: under way until `deadline`, then vanished."""

    run: str
    started: datetime
    deadline: datetime
    host: str


@dataclass(frozen=True, slots=True)
class Health:
    """How the server itself is.

    Attributes:
        last_read: When the bucket was last read; None before the first time.
        problem: Why it cannot be read now; empty when it can.
        refused: Objects in the bucket that say nothing credible.
    """

    last_read: datetime | None
    problem: str = ""
    refused: int = 0


@dataclass(frozen=True, slots=True)
class RunLine:
    """A committed run, in a list; `shard` is which of its `group` it is, as `2/8`."""

    run: str
    started: datetime
    finished: datetime
    status: RunStatus
    release: str | None
    commit: str | None
    stale: bool
    files: int
    bytes: int
    cost: float | None
    shard: str = ""
    group: str = ""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, (self.finished - self.started).total_seconds())


@dataclass(frozen=True, slots=True)
class GroupLine:
    """A group of shards, as one line.

    Attributes:
        shards, committed: How many there are to be, and how many are done.
        missing: The first of the others, counted from 1, as `--shard` counts.
        running: Runs of it that are under way.
        due: When it is late, unless it is complete.
        jobs, failed: Jobs that were due, and those of them that failed; None when they are too many to count.
        runs: Its committed runs: first those that did not succeed, then by shard; the first fifty.
        more: How many there are besides these.
    """

    name: str
    shards: int
    committed: int
    missing: tuple[int, ...]
    state: GroupState
    running: int
    began: datetime
    due: datetime
    jobs: int | None
    failed: int | None
    runs: tuple[RunLine, ...]
    more: int = 0


@dataclass(frozen=True, slots=True)
class Overview:
    """All that the front page shows. Times are aware, in the zone of the page.

    Attributes:
        bucket: Its address, without keys.
        now: The time of this answer.
        days: Of all runs together: the best run of a day is the day's.
        jobs: By name.
        points: Runs within `days`, oldest first.
        runs: The newest committed runs that are no shards, newest first.
        last: The newest committed run of all.
        groups: Groups of shards that began within `days`, newest first; not more than ten.
        running: Runs that are under way and no shards; `groups` has how many of these there are.
        vanished: Runs of the last seven days that were never committed.
        release: What ran last; None when nothing did.
        costs: US dollars.
    """

    bucket: str
    now: datetime
    health: Health
    days: tuple[Day, ...]
    jobs: tuple[JobView, ...]
    points: tuple[RunPoint, ...]
    runs: tuple[RunLine, ...]
    last: RunLine | None
    groups: tuple[GroupLine, ...]
    running: tuple[BeginLine, ...]
    vanished: tuple[BeginLine, ...]
    release: Release | None
    costs: Costs


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job, on the page of a run.

    Attributes:
        incomplete: Whether it succeeded, and not all that it wrote could be handed over.
    """

    name: str
    status: JobStatus
    cause: JobCause | None
    message: str
    files: int
    bytes: int
    items: int | None
    seconds: float
    evidence: tuple[Evidence, ...] = ()
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class RunView:
    """The page of a committed run; `before` and `after` are the ids of its neighbours."""

    line: RunLine
    jobs: tuple[JobLine, ...]
    stale_reason: str = ""
    before: str | None = None
    after: str | None = None


@dataclass(frozen=True, slots=True)
class FileLine:
    """A resource that the verified manifest of a run names; `job` is empty for the run's own."""

    path: str
    url: str
    bytes: int
    mediatype: str
    job: str = ""
    partial: bool = False


@dataclass(frozen=True, slots=True)
class RunFiles:
    """The files of a run, by its verified manifest.

    Attributes:
        files: The first of them, in the manifest's order.
        total: How many there are.
        problem: Why there is no list; empty when there is one.
    """

    files: tuple[FileLine, ...] = field(default=())
    total: int = 0
    problem: str = ""


class Queries(Protocol):
    """What the page may ask. Nothing of it raises, except where it says so."""

    def overview(self, days: int = 90) -> Overview:
        """Return the front page's content, for the last `days` days up to today (bounded to 1 to 400)."""

    def run(self, run: str) -> RunView | None:
        """Return a committed run; None when there is none."""

    def runs(self, limit: int = 50, before: str | None = None) -> tuple[RunLine, ...]:
        """Return committed runs that began before a run (or the newest), newest first; `limit` is bounded to 500."""

    def files(self, run: str) -> RunFiles:
        """Return a run's files: reads its manifest from the bucket, which takes a moment; at most 1,000 files."""

    def days_of(self, first: date, last: date) -> tuple[Day, ...]:
        """Return the days of all runs together in a span, for a calendar; bounded to 4,000 days."""
