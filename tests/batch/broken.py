"""Rules of the protocol that are broken on purpose, each with the scenario in which the model notices, and how."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from agent.base.errors import StoreError
from agent.batch import claim, follow
from agent.batch.claim import Claimant, LookAgain, StandBack, Work
from agent.batch.fold import Arrived, State, fold
from agent.batch.log import LogWriter
from agent.contract.entries import Entry, write_entry
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, PointerKey
from tests.batch.actors import Rules


class SameKey(LogWriter):
    """Repeats a put under the same key."""

    async def _put(self, entry: Entry) -> EntryKey:
        key = self._key()
        self._number += 1
        for _ in range(6):
            with suppress(StoreError):
                await self._bucket.put_once(key.text, write_entry(entry))
                return key
            await self._pause(1.0)
        raise StoreError("never")


class PointerLast(LogWriter):
    """Tells of a beginning when it is in the log."""

    async def _commit(self, entry: Entry) -> None:
        self._unpointed.append((await self._put(entry), entry.kind))
        await self._point_to_rest()


class Impatient(LogWriter):
    """Puts what can be put, whatever waits before it."""

    async def flush(self) -> None:
        """Put what waits; what fails waits no longer."""
        try:
            await super().flush()
        except StoreError:
            self._waiting.popleft()
            raise


class Hasty(follow.Cursor):
    """Goes on after the last pointer that it saw, whenever that is from."""

    def start(self, now: datetime) -> str:
        """Return that pointer."""
        return self.recent[-1] if self.recent else self.floor

    def advance(self, pointers: Iterable[PointerKey], now: datetime) -> follow.Cursor:
        """Move to it."""
        return replace(self, recent=tuple(sorted({*self.recent, *(key.text for key in pointers)})))


def _by_writers_clock(batch: Batch, log: Iterable[Arrived], *pointers: Any) -> State:
    told = [
        replace(one, at=one.entry.written) if isinstance(one.entry, Entry) else one for one in log
    ]
    return fold(batch, told, *pointers)


def _last_counts(batch: Batch, log: Iterable[Arrived], *pointers: Any) -> State:
    state = fold(batch, log, *pointers)
    results = [one for run in state.runs.values() for one in run.results.values()]
    return replace(state, successes={one.job.name: one for one in results if one.job.succeeded})


def _by_own_clock(state: State, claimant: Claimant) -> Work | StandBack | LookAgain:
    """Decide by a clock that is eleven minutes ahead of the store's."""
    own = state.runs.get(claimant.run)
    if own is None:
        return claim.decide(state, claimant)
    later = replace(own, order=(own.order[0] + timedelta(minutes=11), own.order[1]))
    return claim.decide(replace(state, runs={**state.runs, own.id: later}), claimant)


class Everybody(tuple[str, ...]):
    """Whoever is asked for is in it."""

    __slots__ = ()

    def __contains__(self, _: object) -> bool:
        return True


def _looks_again(*_: Any) -> LookAgain:
    return LookAgain()


def _works(*_: Any) -> Work:
    return Work({})


AT_ONCE = "two machines at once"
IN_TURN = "two machines, one after the other"
KEPT = "one machine, its disk kept"
GONE = "one machine that does not come back"
TWINS = "a shard and its twin, clocks that jump"

BROKEN: dict[str, tuple[str, Rules, str]] = {
    "numbered names": (KEPT, Rules(nonce=lambda _: "0" * 8), "was changed"),
    "a put is repeated under its key": (TWINS, Rules(writer=SameKey), "another"),
    "no queue behind the beginning": (
        IN_TURN,
        Rules(writer=Impatient),
        "came before its beginning",
    ),
    "the beginning's pointer last": (GONE, Rules(writer=PointerLast), "never heard"),
    "no second look": (
        AT_ONCE,
        Rules(looks_after=False, go_on=_looks_again),
        "work at the same time",
    ),
    "claims by the own clock": (
        AT_ONCE,
        Rules(decide=_by_own_clock, go_on=_looks_again),
        "work at the same time",
    ),
    "nobody looks while it works": (
        "two machines that stand still",
        Rules(go_on=_looks_again),
        "at the same time",
    ),
    "a batch that is done is not looked for": (
        IN_TURN,
        Rules(decide=_works, go_on=_works),
        "again, after its success|is worked again|at the same time",
    ),
    "time by the writers' clocks": (TWINS, Rules(fold=_by_writers_clock), "another"),
    "the last success counts": (TWINS, Rules(fold=_last_counts), "another"),
    "whoever has not closed is dead": (
        "a slot's machine at work, and one that nobody scheduled",
        Rules(begins=lambda begins: replace(begins, dead=Everybody())),
        "done, or alive",
    ),
    "nobody goes on with what was lost": (
        "a slot's machine, and one that nobody scheduled",
        Rules(begins=lambda begins: replace(begins, window=timedelta(0))),
        "does not go on",
    ),
    "the entry before the package": (KEPT, Rules(package_first=False), "which is not there"),
    "nobody looks at the deadline": (GONE, Rules(next_look=lambda *_: None), "another picture"),
    "the cursor follows the last pointer": (
        IN_TURN,
        Rules(cursor=Hasty),
        "another picture|never heard",
    ),
    "lost is who is past its deadline by home's clock": (
        AT_ONCE,
        Rules(shown=lambda run, looked: run.status(looked + timedelta(minutes=20))),
        "is called lost",
    ),
}
