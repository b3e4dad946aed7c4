"""Which of several runs works on a batch. Decisions only.

A run puts its `began`, fetches its release, and looks at its batch's log after `SETTLE` at least. The run whose `began`
arrived first, by the store's time, works. A later one works only if every earlier claim was over when its own `began`
arrived, and none if the batch is done. No other clock than the store's counts.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.batch.fold import Run, State

SETTLE = timedelta(seconds=5)
"""Between the answer to `began` and the look: what was answered before is in a listing by then."""
PAST_DEADLINE = timedelta(minutes=5)
"""Most by which the clock that set a deadline may be behind the store's."""
SILENCE = timedelta(minutes=10)
"""Without a sign of life; a part of the log goes out every five minutes, news or not."""

Heard = Mapping[str, Collection[datetime]]


@dataclass(frozen=True, slots=True)
class Claimant:
    """A run that wants to work on a batch.

    Attributes:
        retried: Whether an engine starts it again when it is lost: then it never stands back.
        dead: Runs that are known to have died: of the state directory whose lock this process holds.
        heard: When parts of the runs' logs arrived, by run: signs of life that are not in the batch's log. Needed of
            those that `unheard` names.
    """

    run: str
    retried: bool = False
    dead: Collection[str] = ()
    heard: Heard = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Work:
    """The run works.

    Attributes:
        leave_out: The jobs that it leaves out, each with the reason.
    """

    leave_out: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StandBack:
    """The run does nothing.

    Attributes:
        run: The run that has the batch.
    """

    reason: str
    run: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """The listing does not show the run's own `began` yet, so that it may lack those of others too."""


def decide(state: State, claimant: Claimant) -> Work | StandBack | LookAgain:
    """Return what a run does: before its jobs begin, and at every look while it works.

    A run that has to stand back while it works commits what ended, starts nothing more and closes. That happens when
    it was silent for so long that another took over, or when its first look did not show an earlier run.
    """
    own = state.runs.get(claimant.run)
    if own is None or own.began is None:
        return LookAgain()
    if claimant.retried:
        return Work(state.finished)
    if done := state.done_by:
        return StandBack(f"run {done.id} has done it", done.id)
    heard = claimant.heard
    earlier = [run for run in _before(state, own, claimant) if not _is_over(run, own.first, heard)]
    overtaking = [run for run in _after(state, own) if _is_over(own, run.first, heard)]
    return next(map(_to, [*earlier, *overtaking]), Work(state.finished))


def unheard(state: State, claimant: Claimant) -> frozenset[str]:
    """Return the runs that seem silent in the batch's log: parts of their own logs tell whether they were alive.

    There are none when two machines begin at the same time.
    """
    own = state.runs.get(claimant.run)
    if own is None or own.began is None or claimant.retried:
        return frozenset()
    silent = {run.id for run in _before(state, own, claimant) if _seems_silent(run, own.first)}
    if any(_seems_silent(own, run.first) for run in _after(state, own)):
        silent.add(own.id)
    return frozenset(silent)


def _is_over(run: Run, at: datetime, heard: Heard) -> bool:
    """Tell whether a claim was over at a moment of the store's time, from what every run can see.

    The moment is fixed, so that all who have read the same objects give the same answer, at any time.
    """
    signs = [*run.signs, *heard.get(run.id, ())]
    last = max((sign for sign in signs if sign <= at), default=run.first)
    return _is_late(run, at) or last + SILENCE < at


def _is_late(run: Run, at: datetime) -> bool:
    return run.deadline + PAST_DEADLINE < at


def _seems_silent(run: Run, at: datetime) -> bool:
    return _is_over(run, at, {}) and not _is_late(run, at)


def _before(state: State, own: Run, claimant: Claimant) -> Iterator[Run]:
    """Yield the runs that began before a run, did not end, and are not known to be dead."""
    for run in state.runs.values():
        ended = run.closed is not None or run.stood_back is not None
        dead = run.id in claimant.dead or _rebooted(run, own)
        if run.order < own.order and not ended and not dead:
            yield run


def _after(state: State, own: Run) -> Iterator[Run]:
    """Yield the runs that began after a run, and work still."""
    for run in state.runs.values():
        works = run.began is not None and run.closed is None and run.stood_back is None
        if run.order > own.order and works:
            yield run


def _rebooted(run: Run, own: Run) -> bool:
    """Tell whether a run was of an earlier boot of the same machine."""
    if run.began is None or own.began is None:
        return False
    then, now = run.began.host, own.began.host
    known = None not in {then.instance_id, then.boot_id, now.boot_id}
    return known and then.instance_id == now.instance_id and then.boot_id != now.boot_id


def _to(run: Run) -> StandBack:
    host = run.began.host if run.began else None
    where = f" on {host.instance_id or host.name}" if host else ""
    return StandBack(f"run {run.id}{where} works for it", run.id)
