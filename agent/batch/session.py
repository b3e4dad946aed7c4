"""A run's part in its batch: claims it, writes its log, and checks while the run works that the claim still holds.

Only the answer that another run has the batch stops a run. A lost day is worse than two runs of one batch, in which
each job counts once all the same.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar

from agent.base.errors import StoreError
from agent.batch.catchup import Beginning
from agent.batch.claim import SETTLE, SILENCE, Claimant, LookAgain, StandBack, Work, decide, unheard
from agent.batch.fold import State, fold
from agent.batch.history import batch_to_go_on_with
from agent.batch.log import LogReader, LogWriter, Store, heard
from agent.batch.which import Purpose
from agent.contract.entries import Began, StoodBack
from agent.contract.ids import Batch, is_run_id, run_started

T = TypeVar("T")

CLAIM_SECONDS = 60.0
"""For `begin`, and again for `settle`; then the run works without a claim."""
EARLIER_SHARE = 0.25
"""Of that time, to look for an earlier batch: the rest is for the beginning."""
STAND_BACK_SECONDS = 30.0
"""To put `stood_back`; a run that could not put it looks like one that was lost."""
LOOK_EVERY = SILENCE / 2
"""While a run works: so it stops before a second run can have taken over from the one that took over from it."""
LOOK_AGAIN = timedelta(seconds=30)
"""After a look that failed, or while there is no claim."""
LOOK_SECONDS = 60.0
POLL_SECONDS = 15.0
"""Between checks of the clock: a run that stood still for an hour looks at the bucket as soon as it goes on."""

Report = Callable[[Work | StandBack], None]
Begin = Callable[[LogWriter, Batch, Began], Awaitable[None]]
Look = Callable[[], Awaitable[Work | StandBack | LookAgain]]


@dataclass(frozen=True, slots=True)
class Settled:
    """Whether a run works on its batch, decided before its jobs begin.

    Attributes:
        decision: Whether it works, and what it leaves out.
        warning: What a person should know of it; may be empty.
    """

    decision: Work | StandBack
    warning: str = ""


class BatchSession:
    """One run's part in its batch: `begin`, `settle`, then `watch` beside the jobs, or `stand_back`.

    Attributes:
        run: The run's id.
        batch: The batch; final when `begin` has returned.
        log: Appends to the batch's log; nothing is appended before `begin` has returned.
    """

    def __init__(
        self,
        bucket: Store,
        run: str,
        nonce: str,
        purpose: Purpose,
        began: Began,
        *,
        now: Callable[[], datetime],
        catch_up: timedelta = timedelta(0),
        dead: Collection[str] = (),
        seconds: float = CLAIM_SECONDS,
        begin: Begin | None = None,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the session; nothing is sent yet.

        `began` has no slot and no shard yet. `dead` are the other runs of the state directory whose lock this process
        holds. `begin` and `settle` have so many seconds each. The function `begin` notes the beginning where it cannot
        be lost, and puts it through `log`; by default it only puts it. The clock, in seconds, does not jump.
        """
        self._bucket = bucket
        self.run = run
        self._nonce = nonce
        self._purpose = purpose
        self._began = began
        self._catch_up = catch_up
        self._now = now
        self._pause = pause
        self._clock = clock
        self._claimant = Claimant(run, purpose.retried, dead)
        self._seconds = seconds
        self._append_beginning = begin or _put
        self._answered: float | None = None
        self._last: Work | StandBack | None = None
        self._looked = (clock(), now())
        self._sure = False
        self._first = began.started
        self._trouble = self._warning = ""
        self._enter(purpose.batch(run))

    def _enter(self, batch: Batch) -> None:
        self.batch = batch
        if is_run_id(batch.name):  # its first run's, whose log may never be read
            self._first = min(self._first, run_started(batch.name))
        self.log = self._writer(batch)
        self._reader = LogReader(self._bucket, batch, self.log)

    def _writer(self, batch: Batch) -> LogWriter:
        return LogWriter(
            self._bucket, batch, self.run, self._nonce, now=self._now, pause=self._pause
        )

    @property
    def at(self) -> datetime:
        """The time that the batch is for, else when its first run began; as home has it, as far as the log is known."""
        return self._purpose.slot or self.batch.slot or self._first

    @property
    def _alone(self) -> bool:
        """Whether the batch is the run's own: nobody else is in it."""
        return self.batch.name == self.run

    async def begin(self) -> None:
        """Find the batch and put the beginning; the bucket's failure is no error here."""
        if self._purpose.unscheduled and self._catch_up and not self._purpose.by_name:
            await self._try(self._go_on_with_earlier(), EARLIER_SHARE * self._seconds)
            if self._trouble:
                self._warning = f"what earlier runs finished is not known: {self._trouble}"
        await self._try(self._put_beginning(), (1 - EARLIER_SHARE) * self._seconds)

    async def settle(self) -> Settled:
        """Return whether the run works, after a look at the log; bounded. Call `begin` first."""
        if self._alone:
            return Settled(Work({}), self._warning)
        until = self._clock() + self._seconds
        while (left := until - self._clock()) > 0:
            if decision := await self._look_within(left, self._look_settled):
                return Settled(decision)
            await self._pause(SETTLE.total_seconds())
        why = self._trouble or "it does not list what this run has put"
        return Settled(
            Work({}), f"another run may work for {self.batch.name}, the bucket did not say: {why}"
        )

    async def look(self) -> Work | StandBack | LookAgain:
        """Put what waits, look at the batch's log, and return what the run does; what it did itself is not left out.

        Raises:
            StoreError: The bucket failed.
        """
        await self._flush()
        state = await self._state()
        silent = unheard(state, self._claimant)
        signs = {run: await heard(self._bucket, run) for run in sorted(silent)}
        decision = self._decide(state, replace(self._claimant, heard=signs))
        return self._of_others(decision, state) if isinstance(decision, Work) else decision

    async def watch(self, report: Report) -> None:
        """Look every few minutes while the run works, until it is cancelled or has to stand back.

        Args:
            report: Called with what another run has finished meanwhile, or when another has the batch: then the run
                commits what ended, starts nothing more and closes.
        """
        while not self._alone and not isinstance(self._last, StandBack):
            await self._pause(POLL_SECONDS)
            if self._age < (LOOK_EVERY if self._sure else LOOK_AGAIN):
                continue
            if news := await self._look_within(LOOK_SECONDS, self.look):
                report(news)

    async def stand_back(self, reason: str, run: str | None = None) -> bool:
        """Close the run as one that did nothing, and tell whether that is in the log; bounded.

        `run` has the batch; None where there is another reason, such as a request that makes no sense.
        """
        closing = self.log.append(stood_back=StoodBack(reason=reason, run=run))
        await self._try(closing, STAND_BACK_SECONDS)
        return self.log.pending == 0

    async def _look_within(self, seconds: float, look: Look) -> Work | StandBack | None:
        """Look, remember when and what was seen, and return it where that is news."""
        asked = (self._clock(), self._now())
        decision = await self._try(look(), seconds)
        self._looked = asked  # not when the answer came: the machine may have stood still meanwhile
        self._sure = isinstance(decision, Work | StandBack)
        if not isinstance(decision, Work | StandBack) or decision == self._last:
            return None
        self._last = decision
        return decision

    async def _state(self) -> State:
        state = fold(self.batch, await self._reader.look())
        begun = (run.began.started for run in state.runs.values() if run.began)
        self._first = min([self._first, *begun])
        return state

    def _decide(self, state: State, claimant: Claimant) -> Work | StandBack | LookAgain:
        return decide(state, claimant)

    def _of_others(self, work: Work, state: State) -> Work:
        others = {
            job: reason
            for job, reason in work.leave_out.items()
            if state.successes[job].run != self.run
        }
        return Work({} if self._purpose.by_name else others)

    async def _go_on_with_earlier(self) -> None:
        schedule = self._purpose.schedule
        batch = await batch_to_go_on_with(self._bucket, schedule, self._beginning())
        if batch is not None:
            self._enter(batch)

    def _beginning(self) -> Beginning:
        return Beginning(self._now(), self._catch_up, self._began.channel, self._claimant.dead)

    async def _put_beginning(self) -> None:
        began = self._purpose.in_batch(self._began, self.batch)
        await self._append_beginning(self.log, self.batch, began)
        self._answered = self._clock()

    async def _look_settled(self) -> Work | StandBack | LookAgain:
        await self._flush()
        since = self._clock() - (self._answered or 0.0)
        if not self._purpose.retried and since < SETTLE.total_seconds():
            await self._pause(SETTLE.total_seconds() - since)
        return await self.look()

    async def _flush(self) -> None:
        """Put what waits: while the beginning waits, every run in the log has begun before this one."""
        await self.log.flush()
        if self._answered is None:
            self._answered = self._clock()

    @property
    def _age(self) -> timedelta:
        """The age of the last look, by the clock that says more: one stops while the machine does, the other jumps."""
        at, on = self._looked
        return max(timedelta(seconds=self._clock() - at), self._now() - on)

    async def _try(self, step: Awaitable[T], seconds: float) -> T | None:
        """Return what a step returns; None when the bucket failed, or took too long."""
        try:
            async with asyncio.timeout(seconds):
                result = await step
        except TimeoutError:
            self._trouble = f"no answer within {seconds:.0f} s"
        except StoreError as error:
            self._trouble = str(error)
        else:
            return result
        return None


async def _put(log: LogWriter, _: Batch, began: Began) -> None:
    await log.append(began=began)
