"""What need not run again, because an earlier run of the same batch has finished it."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.core.manifest import IndexEntry, RunRecord
from agent.core.results import JobStatus, RunStatus


def finished_in(entries: Iterable[IndexEntry]) -> dict[str, str]:
    """Return the jobs that succeeded in runs that are committed, each with the reason why it is not done again.

    Args:
        entries: The runs, in any order; of two that finished the same job, the earlier is named.
    """
    done: dict[str, str] = {}
    for entry in sorted(entries, key=lambda entry: (entry.finished, entry.run_id)):
        cut = ", which was interrupted" if entry.status is RunStatus.INTERRUPTED else ""
        for job in entry.jobs:
            if job.status is JobStatus.SUCCEEDED:
                done.setdefault(job.name, f"succeeded in {entry.run_id}{cut}")
    return done


PERSON = "SIGINT"
"""Ctrl-C: who ends a run by hand and starts another wants it whole."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """An earlier run, as far as it matters for what is done again.

    Attributes:
        wanted: The track or branch that it followed; None when that is not known.
        succeeded: The jobs that it finished.
    """

    run_id: str
    started: datetime
    finished: datetime
    status: RunStatus
    slot: datetime | None
    interruption: str | None
    continues: str | None
    shard: int | None
    succeeded: frozenset[str]
    wanted: str | None = None


def earlier(run: IndexEntry | RunRecord, wanted: str | None = None) -> Earlier:
    """Return what matters of a run that is committed, or that waits in the spool."""
    return Earlier(
        run_id=run.run_id,
        started=run.started,
        finished=run.finished,
        status=run.status,
        slot=run.slot,
        interruption=run.interruption,
        continues=run.continues,
        shard=run.shard,
        succeeded=frozenset(job.name for job in run.jobs if job.status is JobStatus.SUCCEEDED),
        wanted=wanted,
    )


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that begins.

    Attributes:
        now: When.
        window: How long ago an interruption may be.
        slot: The scheduled time that it is for; None for one that nobody scheduled.
        wanted: The track or branch that it follows.
    """

    now: datetime
    window: timedelta
    slot: datetime | None
    wanted: str


def caught_up(runs: Collection[Earlier], begins: Beginning) -> dict[str, str]:
    """Return the jobs that need not run, each with the reason: they succeeded in runs that were interrupted just now.

    Back from the newest run, as long as each was interrupted inside the window, by no person, on the same track, and
    for the same slot: a run for another slot is another day's. A run without a slot goes on with any.
    """
    done: dict[str, str] = {}
    cut_off: set[str] = set()
    rest = [run for run in runs if run.continues is None]
    for run in sorted(rest, key=lambda run: run.run_id, reverse=True):
        if not _belongs(run, begins):
            break
        cut_off.add(run.run_id)
        done |= dict.fromkeys(run.succeeded, f"succeeded in {run.run_id}, which was interrupted")
    for run in runs:
        if run.continues in cut_off:
            text = f"succeeded in {run.continues}, which was interrupted, and {run.run_id}"
            done |= dict.fromkeys(run.succeeded, text)
    return done


def _belongs(run: Earlier, begins: Beginning) -> bool:
    return (
        run.status is RunStatus.INTERRUPTED
        and run.interruption != PERSON
        and run.shard is None
        and begins.now - run.finished <= begins.window
        and begins.slot in {None, run.slot}
        and run.wanted in {None, begins.wanted}
    )
