"""The state of the service: written by its loop, read by pages and metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from agent.base.errors import MayflyError
from consumer.diff import Sum
from consumer.judge import Judged, Rules, judge
from consumer.model import History
from consumer.page.given import Health, Problem, Pull
from consumer.pull.report import (
    Delayed,
    Event,
    Failed,
    Hooked,
    Installed,
    Note,
    Rejected,
    Removed,
    Report,
)
from consumer.spending import MonthCosts, month_costs, month_of

PROBLEMS = ("store", "disk", "hook", "invalid")
"""What may keep a pull from ending well: the bucket, the folder or its disk, a hook, and what was rejected."""
MOST_PROBLEMS = 200
"""Of one kind that are told."""
Problems = dict[tuple[str, str], Problem]


@dataclass(frozen=True, slots=True)
class Known:
    """What is known at a moment."""

    history: History
    judged: Judged
    costs: MonthCosts

    @classmethod
    def of(cls, history: History, rules: Rules) -> "Known":
        """Return what follows from a history."""
        judged = judge(history, rules)
        month = month_of(rules.now, judged.zone)
        costs = month_costs(history, month, rules.now, rules.ended)
        return cls(history, judged, costs)


@dataclass(slots=True)
class Counts:
    """What happened since the service began."""

    polls: int = 0
    poll_failures: int = 0
    entries: int = 0
    pulls: int = 0
    pulled_jobs: int = 0
    pulled_bytes: int = 0
    hook_failures: int = 0


@dataclass(slots=True)
class Home:
    """The service, now.

    Attributes:
        bucket: The bucket's name.
        began: When the service did.
        stale_after: Seconds without a poll after which it is of no use.
        read: When the bucket was last read to the end, if need be by an earlier process with the same history.
        up: Whether the bucket could be read by the last poll that a history without faults let look.
        problem: Why the bucket or the history could not be used the last time; empty when both could.
        history_up: Whether the history can be used: after a failure, not before a poll has written to it.
        pulls: Whether there is a pull beside the service.
        pulled: When a pull last ended well; before the first, when it first tried.
        ended: When one last ended, well or not.
        pending: See `Pull`.
        problems: What is wrong with the pull, by kind and subject; replaced and never changed, as threads read it.
        changes: How much changed in each job that was pulled, by schedule and job; see `Store.change_sums`.
    """

    bucket: str
    known: Known
    began: datetime
    stale_after: float
    read: datetime | None = None
    up: bool = False
    problem: str = ""
    history_up: bool = True
    pulls: bool = False
    pulled: datetime | None = None
    ended: datetime | None = None
    pending: int | None = None
    counts: Counts = field(default_factory=Counts)
    problems: Mapping[tuple[str, str], Problem] = field(default_factory=dict)
    changes: Mapping[tuple[str, str], tuple[str, Sum]] = field(default_factory=dict)

    def sick(self, now: datetime) -> str:
        """Return why the service is unhealthy: the bucket was not read for too long; empty when it is healthy."""
        age = (now - max(self.read or self.began, self.began)).total_seconds()
        if age <= self.stale_after:
            return ""
        since = "since the start" if self.read is None else f"for {age:.0f} s"
        return f"the bucket was not read {since}: {self.problem or 'no answer yet'}"

    def health(self) -> Health:
        """Return how it is, for the pages."""
        problems = tuple(self.problems.values())
        pull = Pull(self.ended, self.pending, problems) if self.pulls else None
        return Health(self.bucket, self.read, self.problem, self.known.history.invalid, pull)

    def note_pull(self, report: Report, now: datetime) -> None:
        """Take note of a pull that ended."""
        before = self.problems
        # What is rejected stays so until another pull with --again succeeds; all else is tried and told again by each.
        rejected = {("invalid", f"{run} {job}") for job, run in report.rejected}
        found = {key: one for key, one in before.items() if key in rejected}
        for event in report.events:
            self._note(event, found)
        _add(found, "store", self.bucket, report.unreachable)
        # Of each kind: who has many jobs rejected must not hide a full disk.
        self.problems = {
            key: replace(found[key], since=before[key].since if key in before else now)
            for kind in PROBLEMS
            for key in [key for key in found if key[0] == kind][:MOST_PROBLEMS]
        }
        self.counts.pulls += 1
        self.ended, self.pending = now, report.pending
        if all(one.kind == "invalid" for one in found.values()):
            self.pulled = now

    def note_failed_pull(self, error: MayflyError, now: datetime) -> None:
        """Take note of a pull that could not look at anything."""
        before = self.problems.get(("disk", ""))
        since = before.since if before else now
        problem = Problem("disk", "", str(error), error.remedy, since)
        self.problems = {**self.problems, ("disk", ""): problem}
        self.counts.pulls += 1
        self.ended = now

    def _note(self, event: Event, problems: Problems) -> None:
        match event:
            case Installed():
                self.counts.pulled_jobs += 1
                self.counts.pulled_bytes += event.bytes
            case Hooked(run, job, problem) if problem:
                self.counts.hook_failures += 1
                _add(problems, "hook", f"{run} {job}", problem)
            case Rejected(run, job, reasons):
                remedy = "mayfly pull --again tries it once more"
                _add(problems, "invalid", f"{run} {job}", reasons[0], remedy)
            case Delayed(run, job, problem, store):
                _add(problems, "store" if store else "disk", f"{run} {job}", problem)
            case Note(text, folder=True):
                _add(problems, "disk", "", text)
            case Hooked() | Removed() | Failed() | Note():
                pass


def _add(problems: Problems, kind: str, subject: str, reason: str, remedy: str = "") -> None:
    """Add something that is wrong, if there is a reason."""
    if reason:
        problems[kind, subject] = Problem(kind, subject, reason, remedy)
