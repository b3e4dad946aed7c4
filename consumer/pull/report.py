"""What came of a pull: for people line by line, for programs as JSON, for scripts as an exit code."""

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from agent.base.console import printable
from agent.base.errors import ExitCode
from agent.base.units import show_size
from agent.contract.ids import Batch


@dataclass(frozen=True, slots=True)
class Installed:
    """A job of a run that is in place, whole and verified; `path` is its folder. Files and bytes are its results.

    `changes` is how it differs from the success before it, such as `+12, -3, 5 changed`; empty for the first, and for
    all but the last of several that came at once without a hook.
    """

    run: str
    job: str
    path: str
    files: int
    bytes: int
    status: str
    changes: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A job of a run that is not as it says, and is not fetched. `again`: told before."""

    run: str
    job: str
    problems: tuple[str, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Failed:
    """A job whose last run brought nothing; `run` is empty where none came. `again`: told before."""

    run: str
    job: str
    reason: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Hooked:
    """A hook that ran; `problem` is empty when it succeeded."""

    run: str
    job: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Removed:
    """A run of a job that `--keep` removed."""

    run: str
    job: str


@dataclass(frozen=True, slots=True)
class Delayed:
    """A job that could not be fetched now; the next pull tries again. `store`: because of the bucket."""

    run: str
    job: str
    problem: str
    store: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """Something else to know. `fault`: a person has to do something about it; `folder`: about the folder at home."""

    text: str
    fault: bool = False
    folder: bool = False


LEFTOVERS = ""
"""In the place of a job: what earlier pulls left behind."""

Event = Installed | Rejected | Failed | Hooked | Removed | Delayed | Note
_KINDS = {
    Installed: "installed",
    Rejected: "rejected",
    Failed: "failed",
    Hooked: "hooks",
    Removed: "removed",
    Delayed: "delayed",
    Note: "notes",
}


class Watcher(Protocol):
    """Who watches a pull. Its methods return at once and never raise."""

    def expects(self, what: str, size: int) -> None:
        """Something is going to be fetched."""

    def received(self, size: int) -> None:
        """Bytes of it arrived."""

    def told(self, event: Event) -> None:
        """Something came of the pull."""


@dataclass(frozen=True, slots=True)
class Report:
    """All that came of one pull.

    Attributes:
        events: In the order in which they happened.
        unreachable: Why the bucket could not be read; empty when it could.
        waiting: Batches that the next pull has to look at whether they have news or not.
        untidy: Jobs of which the folder refused `latest`, or the removal of what is old, and `LEFTOVERS`; the next
            pull tries again.
        rejected: Jobs and their runs that the folder remembers as rejected, whoever pulled into it.
        pending: How many jobs of runs are wanted, and neither at home nor rejected.
        stopped: Whether it was stopped before its end.
    """

    events: tuple[Event, ...] = ()
    unreachable: str = ""
    waiting: frozenset[Batch] = frozenset()
    untidy: frozenset[str] = frozenset()
    rejected: frozenset[tuple[str, str]] = frozenset()
    pending: int = 0
    stopped: bool = False

    @property
    def exit_code(self) -> ExitCode:
        """The exit code; what is worst comes first."""
        if self.stopped:
            return ExitCode.INTERRUPTED
        if self.unreachable or any(isinstance(one, Delayed) and one.store for one in self.events):
            return ExitCode.NOT_DELIVERED
        return ExitCode.PARTIAL if any(map(is_problem, self.events)) else ExitCode.DONE


def is_problem(event: Event) -> bool:
    """Tell whether a person should look at it."""
    match event:
        case Rejected() | Failed() | Delayed():
            return True
        case Hooked(problem=problem):
            return bool(problem)
        case Note(fault=fault):
            return fault
    return False


def lines_of(event: Event) -> list[str]:
    """Return what a person reads of an event; no byte of it means anything to a terminal."""
    if isinstance(event, Note):
        return [printable(event.text)]
    what = f"{event.run or 'no run'} {event.job}".rstrip()
    match event:
        case Installed():
            size = f"{_count(event.files, 'file')}, {show_size(event.bytes)}"
            status = "" if event.status == "succeeded" else f" ({event.status})"
            changes = f" ({event.changes})" if event.changes else ""
            lines = [f"{size}{status}{changes} -> {event.path}"]
        case Rejected():
            again = ", as before (--again tries it once more)" if event.again else ""
            lines = [f"rejected{again}", *event.problems]
        case Failed():
            lines = [f"nothing, {event.reason}"]
        case Hooked():
            how = f"hook failed, {event.problem}; the next pull tries again"
            lines = [how if event.problem else "hook done"]
        case Removed():
            lines = ["removed"]
        case Delayed():
            lines = [f"not now, {event.problem}; the next pull tries again"]
    first, *more = map(printable, lines)
    return [f"{what}: {first}", *(f"    {line}" for line in more)]


def summary_line(report: Report) -> str:
    """Return the last line."""
    if report.unreachable:
        return f"the bucket cannot be read: {printable(report.unreachable)}"
    installed = [one for one in report.events if isinstance(one, Installed)]
    failed = len({one.job for one in report.events if isinstance(one, Failed)})
    problems = sum(is_problem(one) and not isinstance(one, Failed) for one in report.events)
    nothing = "" if report.stopped else "nothing new"
    parts = [
        f"{_count(len(installed), 'job')}, {_count(sum(one.files for one in installed), 'file')}, "
        f"{show_size(sum(one.bytes for one in installed))}"
        if installed
        else nothing,
        f"{_count(failed, 'job')} failed and had nothing" if failed else "",
        _count(problems, "problem") if problems else "",
        "stopped before its end" if report.stopped else "",
    ]
    return ", ".join(filter(None, parts))


def report_json(report: Report, bucket: str, dest: str) -> dict[str, Any]:
    """Return a report as JSON."""
    events: dict[str, list[dict[str, Any]]] = {name: [] for name in _KINDS.values()}
    for event in report.events:
        events[_KINDS[type(event)]].append(asdict(event))
    head = {"bucket": bucket, "dest": dest, "exit_code": int(report.exit_code)}
    return {**head, "unreachable": report.unreachable, **events}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
