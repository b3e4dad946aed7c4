"""How a reader follows a bucket from its index alone. Decisions only.

A pointer only says which batch has news: the reader reads from that batch's log all entries that it lacks. Pointers can
be late, missing, or from the future; so the reader lists again what it has listed, and looks into a batch's log,
whatever the index says, when a run of it should have ended.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.batch.fold import Attempt
from agent.contract.layout import INDEX, PointerKey, index_start, parse_key
from agent.contract.results import RunStatus

LOOK_BACK = timedelta(hours=1)
"""By how much the clocks of writers may differ, from each other's and from the reader's."""
REACH = 900
"""Pointers that are listed again, however old: with a hundred new ones they fit one page of a thousand."""
CLOCKS = timedelta(minutes=5)
"""After a deadline: a run that closes just before it has put its last entry by then, on whichever clock."""
ONCE_MORE = timedelta(minutes=20)
"""After a deadline, for what arrived late."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a reader is in the index.

    Attributes:
        floor: The key after which it began to read.
        recent: The last pointers that it saw, in order; none that is later than the reader's clock was then.
        reach: How many of them it keeps.
    """

    floor: str = INDEX
    recent: tuple[str, ...] = ()
    reach: int = REACH

    def start(self, now: datetime) -> str:
        """Return the key after which the next listing begins."""
        newest = parse_key(self.recent[-1]) if self.recent else None
        if len(self.recent) < self.reach or not isinstance(newest, PointerKey):
            return self.floor
        hour = index_start(min(newest.time, now) - LOOK_BACK)
        return max(self.floor, min(hour, self.recent[0]))

    def advance(self, pointers: Iterable[PointerKey], now: datetime) -> "Cursor":
        """Return the cursor after a listing; a pointer from the future is news, and does not move it."""
        limit = index_start(now)
        seen = {*self.recent, *(key.text for key in pointers)}
        recent = sorted(key for key in seen if key <= limit)[-self.reach :]
        return replace(self, recent=tuple(recent))


def next_look(runs: Iterable[Attempt], looked: datetime) -> datetime | None:
    """Return when a batch's log is looked into without any news: a run of it should have ended. None for never.

    `looked` is when the reader last did so, by its own clock.
    """
    moments = (
        moment
        for run in runs
        if not run.settled
        for moment in (run.deadline + CLOCKS, run.deadline + ONCE_MORE)
        if moment > looked
    )
    return min(moments, default=None)


def shown(run: Attempt, looked: datetime) -> RunStatus:
    """Return how a reader shows a run that it last looked at by its own clock.

    A run is called lost only after a look that followed its deadline.
    """
    return run.status(looked - CLOCKS)
