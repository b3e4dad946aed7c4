"""Which earlier batch a run goes on with that nobody scheduled. Decisions only."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.batch.claim import PAST_DEADLINE
from agent.batch.fold import Run, State
from agent.contract.results import RunStatus

PERSON = "SIGINT"
"""Ctrl-C: a person who stops a run and starts another wants all jobs to run."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """A run that nobody scheduled, and that is no shard: it may go on with an earlier batch.

    Attributes:
        now: When it begins.
        window: How long ago an interruption may be (`limits.catch_up`).
        channel: Which releases it follows.
        dead: Runs that are known to have died.
    """

    now: datetime
    window: timedelta
    channel: str
    dead: Collection[str]


def catch_up(batches: Collection[State], begins: Beginning) -> State | None:
    """Return the batch that a run goes on with, of those of a schedule that are no shards; None for a batch by itself.

    Only the newest batch counts, and only if its last run was lost or interrupted inside the window, by
    no person, on the same channel. A batch that is done, or that somebody works on, is left alone.
    """
    worked = [
        (state, runs)
        for state in batches
        if (runs := [run for run in state.runs.values() if not run.stood_back])
    ]
    if not worked:
        return None
    state, runs = max(worked, key=lambda one: one[1][-1].order)
    last = runs[-1]
    unfinished = state.done_by is None and _gone(last, begins)
    recent = begins.now - (last.ended or last.heard) <= begins.window
    return state if unfinished and recent and _alike(last, begins) else None


def _gone(run: Run, begins: Beginning) -> bool:
    lost = run.status(begins.now - PAST_DEADLINE) is RunStatus.LOST
    return run.interrupted or lost or run.id in begins.dead


def _alike(run: Run, begins: Beginning) -> bool:
    by_person = run.closed is not None and run.closed.interruption == PERSON
    same = run.began is None or run.began.channel == begins.channel
    return same and not by_person
