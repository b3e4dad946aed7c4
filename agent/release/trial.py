"""A release on trial: how often it may begin, whether it is to blame, and which jobs run again on the last good one.

A fault that decides a rollback must be the release's own. If it is unclear whose fault a failure is, the last good
release decides: what works there, and did not work here, was broken by the new one.

Decisions only.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

from agent.base.errors import Refusal
from agent.config.jobsfile import Job
from agent.contract.package import JobRecord
from agent.contract.releases import MOST_NAMED
from agent.contract.results import Fault, JobCause, JobStatus

MAX_STARTS = 3
"""Times that a release may begin to run without coming to an end (greenboot and RAUC count to three as well)."""
MAX_INSTALLS = 6
"""Times that installing it may be cut off: an interrupted machine is no evidence against a release."""

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
"""Errors of uv 0.13 about a release's own files, and ours about locks. Another uv's words only cost a retry."""
_NOT_FOUND_CODES = frozenset({126, 127})
"""A shell's exit codes for a program that is not executable, or not there."""


def passed_by(before: Collection[str] | None, results: Sequence[JobRecord]) -> tuple[str, ...]:
    """Return the jobs that the last good release does well after it ran; a new one must do them too.

    At most as many as a fact holds. `before` is the same from the time before; None if not known.
    """
    ran = {result.name for result in results if fault_of(result) not in _OTHERS}
    fine = {result.name for result in results if result.status is JobStatus.SUCCEEDED}
    return tuple(sorted({name for name in before or () if name not in ran} | fine))[:MOST_NAMED]


def own_fault(kind: Refusal, reason: str) -> bool:
    """Tell whether a refusal is certainly the release's own fault, so that another attempt would end the same.

    For an installation this is known only if its own lock or project is invalid, or asks for a Python that is not here.
    Everything else that uv reports may come from the network, an index or the disk.
    """
    return kind in {"check", "trial"} or (
        kind == "install" and _BROKEN_LOCK.search(reason) is not None
    )


def fault_of(result: JobRecord) -> Fault | None:
    """Return whose fault a job's failure is, for a release on trial; None if it did not fail."""
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
    """Tell whether the release may be to blame for a job's result."""
    return fault_of(result) in {Fault.RELEASE, Fault.UNKNOWN}


def may_run_again(result: JobRecord) -> bool:
    """Tell whether what became of a job of a release on trial waits for the trial's end: see `again`."""
    return in_doubt(result) or _follows(result)


def _follows(result: JobRecord) -> bool:
    """Tell whether a job was skipped because another one failed."""
    return result.status is JobStatus.SKIPPED and result.cause is not None


def proves_release(results: Collection[JobRecord]) -> bool:
    """Tell whether a release has shown that it works: one of its jobs succeeded."""
    return any(result.status is JobStatus.SUCCEEDED for result in results)


def doubts(
    results: Sequence[JobRecord], known: Collection[str] | None, passed: Collection[str] | None
) -> set[str]:
    """Return the jobs whose failure on a release is its fault if they work on the last good one.

    Args:
        results: The results of the jobs.
        known: The last good release's jobs; None if not known.
        passed: Those of them that succeeded when it last ran; None if not known.
    """
    return {
        result.name
        for result in results
        if fault_of(result) is Fault.UNKNOWN
        and all(names is None or result.name in names for names in (known, passed))
    }


def again(
    results: Sequence[JobRecord],
    good: Sequence[Job],
    passed: Collection[str] | None,
    seconds_left: float,
) -> tuple[str, ...]:
    """Return the jobs of a release on trial to run again on the last good one, in the order of its file.

    These are the jobs whose failure may be the release's fault, and those that were skipped because of them. A job that
    the last good release does not have cannot run there; one that failed on it last time proves nothing, unless the new
    release is known to be the cause.

    Args:
        results: The results of the jobs.
        good: The jobs of the last good release.
        passed: Those of them that succeeded when it last ran; None if not known.
        seconds_left: Until every job must have ended. A job with a longer limit gets what is left.
    """
    if seconds_left < 1:
        return ()
    known = {job.name: job for job in good}
    wanted = doubts(results, known, passed) | (known.keys() & guilty_of(results))
    skipped = {result.name for result in results if _follows(result) and result.name in known}
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
    """The decision on a release, and why it failed (empty if it did not)."""

    decision: Decision
    reason: str = ""


def guilty_of(results: Sequence[JobRecord]) -> tuple[str, ...]:
    """Return the jobs that failed by the release's own fault, whatever the last good one would do."""
    return tuple(result.name for result in results if fault_of(result) is Fault.RELEASE)


def judge(
    results: Sequence[JobRecord],
    rerun: Sequence[JobRecord],
    guilty: Collection[str],
    doubtful: Collection[str] = (),
) -> Judgement:
    """Judge a release on trial by its jobs, and by those that ran again on the last good release (`rerun`).

    `guilty` jobs failed by the release's own fault; of `doubtful` ones the last good release tells, if it was asked.
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
    asked = {result.name for result in rerun if result.cause is not JobCause.INTERRUPTED}
    if proves_release(results) and asked.issuperset(doubtful):
        return Judgement(Decision.PROMOTE)
    return Judgement(Decision.UNDECIDED)


def judge_alone(results: Sequence[JobRecord]) -> Judgement:
    """Judge a release on trial if no other could take over.

    One job that succeeded is enough: what else fails may be anybody's fault. Without any, it has proved nothing; it
    runs again, because nothing else can, and the next one need not be better than it.
    """
    if proves_release(results):
        return Judgement(Decision.PROMOTE)
    return judge(results, (), guilty_of(results))
