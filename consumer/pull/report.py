"""What came of a pull: for people line by line, for programs as JSON, for scripts as an exit code."""

from dataclasses import dataclass, field
from typing import Any, Protocol

from agent.base.console import printable
from agent.base.errors import ExitCode
from agent.base.units import show_size


@dataclass(frozen=True, slots=True)
class Placed:
    """A job of a run that is in place, whole and verified; `path` is its folder."""

    run: str
    job: str
    path: str
    files: int
    bytes: int
    status: str
    partial: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A run (or a job of one) that is not what it says. `again`: it was refused earlier, and was not fetched again."""

    run: str
    job: str | None
    problems: tuple[str, ...]
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
    """A run that could not be fetched now; the next pull tries again. `store`: because of the bucket."""

    run: str
    problem: str
    store: bool


@dataclass(frozen=True, slots=True)
class Note:
    """Something else to know. `fault`: a person has to do something about it."""

    text: str
    fault: bool = False


Event = Placed | Refused | Hooked | Removed | Delayed | Note


class Watcher(Protocol):
    """Who watches a pull. Its methods return at once and never raise."""

    def expects(self, run: str, files: int, size: int) -> None:
        """A run is going to be fetched."""

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
    """

    events: tuple[Event, ...] = ()
    unreachable: str = field(default="")

    @property
    def exit_code(self) -> ExitCode:
        """The exit code; what is worst comes first."""
        if self.unreachable or any(isinstance(one, Delayed) and one.store for one in self.events):
            return ExitCode.NOT_DELIVERED
        return ExitCode.PARTIAL if any(is_problem(one) for one in self.events) else ExitCode.DONE


def is_problem(event: Event) -> bool:
    """Tell whether a person should look at it."""
    match event:
        case Refused() | Delayed():
            return True
        case Hooked(problem=problem):
            return bool(problem)
        case Note(fault=fault):
            return fault
    return False


def lines_of(event: Event) -> list[str]:
    """Return what a person reads of an event; no byte of it means anything to a terminal."""
    match event:
        case Placed():
            files = f"{event.files} file{'' if event.files == 1 else 's'}"
            partial = f" (partial: {event.status})" if event.partial else ""
            size = show_size(event.bytes)
            return [f"{event.run} {event.job}: {files}, {size}{partial} -> {printable(event.path)}"]
        case Refused():
            what = f"{event.run} {event.job}" if event.job else event.run
            again = ", as before (--again tries it once more)" if event.again else ""
            return [
                f"{what}: refused{again}",
                *(f"    {printable(problem)}" for problem in event.problems),
            ]
        case Hooked():
            how = f"hook failed, {event.problem}; the next pull tries again"
            return [f"{event.run} {event.job}: {how if event.problem else 'hook done'}"]
        case Removed():
            return [f"{event.run} {event.job}: removed"]
        case Delayed():
            return [f"{event.run}: not now, {printable(event.problem)}; the next pull tries again"]
        case Note():
            return [printable(event.text)]


def summary_line(report: Report) -> str:
    """Return the last line."""
    placed = [one for one in report.events if isinstance(one, Placed)]
    if report.unreachable:
        return f"the bucket cannot be read: {printable(report.unreachable)}"
    problems = sum(map(is_problem, report.events))
    told = f"{problems} problem{'' if problems == 1 else 's'}" if problems else ""
    if not placed:
        return f"nothing new, {told}" if told else "nothing new"
    runs = len({one.run for one in placed})
    what = f"{runs} run{'' if runs == 1 else 's'}, {sum(one.files for one in placed)} files"
    size = show_size(sum(one.bytes for one in placed))
    return ", ".join(filter(None, (what, size, told)))


def report_json(report: Report, bucket: str, dest: str) -> dict[str, Any]:
    """Return a report as JSON."""
    kinds: dict[str, list[dict[str, Any]]] = {
        "placed": [],
        "refused": [],
        "hooks": [],
        "removed": [],
        "delayed": [],
        "notes": [],
    }
    for event in report.events:
        match event:
            case Placed():
                names = ("run", "job", "path", "files", "bytes", "status", "partial")
                kinds["placed"].append({name: getattr(event, name) for name in names})
            case Refused():
                row = {"run": event.run, "job": event.job, "again": event.again}
                kinds["refused"].append({**row, "problems": list(event.problems)})
            case Hooked():
                row = {"run": event.run, "job": event.job, "ok": not event.problem}
                kinds["hooks"].append({**row, "problem": event.problem})
            case Removed():
                kinds["removed"].append({"run": event.run, "job": event.job})
            case Delayed():
                kinds["delayed"].append({"run": event.run, "problem": event.problem})
            case Note():
                kinds["notes"].append({"text": event.text, "fault": event.fault})
    head = {"bucket": bucket, "dest": dest, "exit_code": int(report.exit_code)}
    return {**head, "unreachable": report.unreachable, **kinds}
