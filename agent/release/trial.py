"""A release on trial: how often it may begin, when it is to blame, and what then runs on the last good one.

Health that decides a rollback must be the release's own. A site that is down is nobody's fault, and when it is not
clear whose fault a failure is, the last good release is asked: what works there, and did not work here, was broken
by the new one.

Decisions only.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.base.errors import Refusal
from agent.config.jobsfile import Job
from agent.contract.package import JobRecord
from agent.contract.results import Fault, JobCause, JobStatus

MAX_STARTS = 3
"""How often a release may begin to run without coming to an end (greenboot and RAUC count to three as well)."""
MAX_INSTALLS = 6
"""How often installing it may be cut off: a machine that is taken away often is no sign against a release."""

_OTHERS = frozenset({Fault.SITE, Fault.MACHINE})
_IMPORT = re.compile(
    r"\b(ModuleNotFoundError|ImportError|SyntaxError|IndentationError)\b|No module named "
)
_BROKEN_LOCK = re.compile(
    # A newer uv may understand a newer kind of lock ("..., which uses an unsupported schema version").
    r"^uv \w+: (?:(?:Using|warning:) (?:(?!error:).)*)?error: (?:"
    r"Failed to parse:? `?(?:uv\.lock|pyproject\.toml)`?(?!`?,)"
    r"|failed to read from file `[^`]*/(?:uv\.lock|pyproject\.toml)`: stream did not contain valid UTF-8"
    r"|No interpreter found for Python "
    r"|The current Python version \([\d.]+\) is not compatible with the locked Python requirement"
    r"|Unexpected .{1,100}: requirements\.txt:\d+:\d+"
    r")|^\S*(?:poetry|Pipfile)\.lock cannot be installed: "
)
"""What uv 0.13 says of a release's own files, and we of locks. Other words of another uv only cost a retry."""
_NOT_FOUND_CODES = frozenset({126, 127})
"""What a shell says of a program that is not executable, or not there."""


def passed_by(before: Collection[str] | None, results: Sequence[JobRecord]) -> tuple[str, ...]:
    """Return which jobs the last good release does well, after it ran: a new one is held to that.

    Args:
        before: What it did well before; None when that is not known.
        results: What became of its jobs.
    """
    ran = {result.name for result in results if fault_of(result) not in _OTHERS}
    fine = {result.name for result in results if result.status is JobStatus.SUCCEEDED}
    return tuple(sorted({name for name in before or () if name not in ran} | fine))


def own_fault(kind: Refusal, reason: str) -> bool:
    """Tell whether a refusal is for certain the release's own doing, so that another attempt would end the same.

    Of an installation this is known only where its own lock or project cannot be read, or asks for a Python that is
    not here. All else that uv says may be the network's, an index's or the disk's doing.
    """
    return kind in {"check", "trial"} or (
        kind == "install" and _BROKEN_LOCK.search(reason) is not None
    )


def fault_of(result: JobRecord) -> Fault | None:
    """Return whose fault it is that a job of a release on trial did not succeed; None when it did not fail."""
    if result.cause is JobCause.INTERRUPTED:
        return Fault.MACHINE
    if result.status in {JobStatus.SUCCEEDED, JobStatus.SKIPPED}:
        return None
    codes = {attempt.exit_code for attempt in result.attempts}
    if result.cause is JobCause.ERROR and (
        _IMPORT.search(result.message) or (codes and codes <= _NOT_FOUND_CODES)
    ):
        return Fault.RELEASE
    return result.cause.fault if result.cause else Fault.UNKNOWN


def in_doubt(result: JobRecord) -> bool:
    """Tell whether the release may be to blame for what became of a job."""
    return fault_of(result) in {Fault.RELEASE, Fault.UNKNOWN}


def may_run_again(result: JobRecord) -> bool:
    """Tell whether what became of a job of a release on trial waits for the trial's end: see `again`."""
    skipped = result.status is JobStatus.SKIPPED and result.cause is not None
    return in_doubt(result) or skipped


def proves_release(results: Collection[JobRecord]) -> bool:
    """Tell whether a release has shown that it works: a job of it succeeded."""
    return any(result.status is JobStatus.SUCCEEDED for result in results)


def again(
    results: Sequence[JobRecord],
    good: Sequence[Job],
    passed: Collection[str] | None,
    seconds_left: float,
) -> tuple[str, ...]:
    """Return which jobs of a release on trial run once more on the last good one, in the order of its file.

    Those whose failure may be the release's doing, and those that were skipped because of them. A job that the last
    good release does not have cannot; one that did not succeed on it last time either proves nothing, unless the new
    release is known to be the cause.

    Args:
        results: What became of the jobs.
        good: The jobs of the last good release.
        passed: Those of them that succeeded when it last ran; None when that is not known.
        seconds_left: Until every job must have ended. A job whose own limit is longer than that gets what is left.
    """
    if seconds_left < 1:
        return ()
    known = {job.name: job for job in good}
    faults = {result.name: fault_of(result) for result in results if result.name in known}
    guilty = [name for name, fault in faults.items() if fault is Fault.RELEASE]
    doubtful = [
        name
        for name, fault in faults.items()
        if fault is Fault.UNKNOWN and (passed is None or name in passed)
    ]
    wanted = {*guilty, *doubtful}
    skipped = {
        result.name
        for result in results
        if result.status is JobStatus.SKIPPED and result.cause is not None and result.name in known
    }
    fine = {result.name for result in results if result.status is JobStatus.SUCCEEDED}
    while more := {
        name
        for name in skipped - wanted
        if not wanted.isdisjoint(known[name].needs) and set(known[name].needs) <= wanted | fine
    }:
        wanted |= more
    return tuple(job.name for job in good if job.name in wanted)


class Decision(Enum):
    """What becomes of a release after its trial."""

    PROMOTE = "passed"
    BAD = "failed"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class Judgement:
    """What becomes of a release, and why it failed (empty when it did not)."""

    decision: Decision
    reason: str = ""


def guilty_of(results: Sequence[JobRecord]) -> tuple[str, ...]:
    """Return the jobs that a release on trial failed for reasons of its own, whatever the last good one would do."""
    return tuple(result.name for result in results if fault_of(result) is Fault.RELEASE)


def judge(
    results: Sequence[JobRecord], rerun: Sequence[JobRecord], guilty: Collection[str]
) -> Judgement:
    """Return what becomes of a release on trial.

    Args:
        results: What became of its jobs.
        rerun: What became of those that ran once more on the last good release.
        guilty: Jobs that failed for reasons of the release's own.
    """
    better = {result.name for result in rerun if result.status is JobStatus.SUCCEEDED}
    broken = [result for result in results if result.name in better or result.name in guilty]
    own = [result for result in broken if in_doubt(result)]
    if own:
        first = own[0]
        said = first.message or (first.cause.value if first.cause else first.status.value)
        works = " (it works on the last good release)" if first.name in better else ""
        more = f", and {len(own) - 1} more" if len(own) > 1 else ""
        return Judgement(Decision.BAD, f"job {first.name}: {said[:300]}{works}{more}")
    if proves_release(results):
        return Judgement(Decision.PROMOTE)
    return Judgement(Decision.UNDECIDED)


def judge_alone(results: Sequence[JobRecord]) -> Judgement:
    """Return what becomes of a release on trial where no other could take over.

    One job that succeeded is enough: what else fails may be anybody's doing, and nobody can be asked. Without any, it
    has proved nothing. It runs again, because nothing else can, and the next one need not be better than it.
    """
    if proves_release(results):
        return Judgement(Decision.PROMOTE)
    return judge(results, (), guilty_of(results))
