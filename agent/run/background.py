"""What a run does beside its main line: open the bucket, claim its batch, finish earlier runs, ask the machine.

Nothing here stops the jobs: whoever needs a result awaits it, and gets its error then.
"""

import asyncio
import os
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self, TypeVar

from agent.base.errors import SecretsError, ShardError, StoreError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.base.stop import first
from agent.batch.claim import StandBack, Work
from agent.batch.history import History, Past
from agent.batch.log import Opening
from agent.batch.session import CLAIM_SECONDS, BatchSession, Begin, Report, Settled
from agent.batch.shards import identify
from agent.batch.slots import tag_may_change
from agent.batch.which import Purpose
from agent.bucket.store import Bucket
from agent.contract.facts import Cost, Host
from agent.contract.ids import process_nonce
from agent.delivery.recovery import deliver_pending
from agent.jobs.isolation.choice import choose_isolation
from agent.machine.cost import Rate
from agent.machine.instance import HostFacts, with_facts
from agent.machine.metadata import read_facts
from agent.machine.prices import cost_of_run, spot_price
from agent.machine.spot_watch import watch_spot
from agent.run.context import RunContext
from agent.secrets.sources import job_secrets, open_bucket, until_answered

T = TypeVar("T")

TAG_POLL_SECONDS = 5.0
PRICE_PAUSE = 5.0
"""From the jobs' beginning until the price is asked for: EC2's client is as much work for the processor as half of the
agent's own imports, and on a machine that is just up the first jobs would wait for it."""
COST_SECONDS = 12.0
"""For a price that is still not known when the run ends: a little more than what its question is limited to."""
HURRIED_COST_SECONDS = 3.0
"""The same when EC2 takes the machine away: the files need the time more."""
SECRETS_SECONDS = 120.0
"""For asking for the jobs' secrets again: jobs wait for them, also those that need none."""
ALONE_SECONDS = 20.0
"""For the claim of a run that nobody scheduled: it only looks for an earlier batch to go on with."""
STANDS_BACK = "another run has the batch"
NO_TAG = "the metadata service did not say for which slot the machine is: jobs may run that another run has done"
"""To go on costs a second run of the jobs at worst; not to go on, the night."""


class Background:
    """The background tasks of one run; leaving the context ends what is still under way.

    Attributes:
        unopened: Why the bucket is not open yet; empty before the first failure, and once it is open.
        refusal: Why the run cannot be a shard as it was asked to; None when it can.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._call = call = context.call
        self._began = context.began
        self._log = context.log
        self.unopened = ""
        self.refusal: ShardError | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self.facts = self._start(read_facts(call.environ, self._log))
        self._start(self._unless_it_fails("spot", watch_spot(call.environ, call.stop, self._log)))
        self._at_end = asyncio.Event()
        self._price: asyncio.Task[Rate | None] | None = None
        self.bucket = self._start(self._open())
        self.secrets = self._start(self._read_secrets())
        self.earlier = self._start(self._unless_it_fails("earlier", self._deliver_earlier()))
        self.isolation = self._start(
            choose_isolation(call.settings, call.places, context.run.run, call.environ, self._log)
        )
        sweep = asyncio.to_thread(context.spool.sweep, self._log)
        self._start(self._unless_it_fails("sweep", sweep))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def claim(self, begin: Begin) -> None:
        """Start to claim the run's batch; `begin` puts the beginning."""
        self.session = self._start(self._begin(begin))
        self.settled = self._start(self._settle())
        self.history = self._start(self._open_history())

    def watch(self, report: Report) -> None:
        """Do what goes on beside the jobs: look whether the batch is still the run's, and ask for the price."""

        async def watch() -> None:
            await (await asyncio.shield(self.session)).watch(report)

        self._start(self._unless_it_fails("batch", watch()))
        self._price = self._price_task()

    def outputs(self, jobs: Sequence[str]) -> "asyncio.Task[Past]":
        """Look what jobs produced in earlier batches."""

        async def outputs() -> Past:
            return await (await asyncio.shield(self.history)).outputs(jobs)

        return self._start(outputs())

    async def decision(self, seconds: float) -> Settled:
        """Return whether the run works for its batch; waits for it, at most `seconds` and until the run is stopped."""
        await first(asyncio.wait([self.settled]), self._call.stop.wait(), seconds=seconds)
        if self.settled.done():
            return self.settled.result()
        return Settled(Work({}))

    @property
    def host(self) -> Host:
        """The machine, with what EC2 has said of it by now."""
        return with_facts(self._began.host, self._facts_so_far)

    @property
    def _facts_so_far(self) -> HostFacts | None:
        return self.facts.result() if self.facts.done() else None

    async def cost(self, *, taken_back: bool) -> Cost | None:
        """Return what the run costs, if it ends now; None where nothing is billed, or nobody knows the price."""
        self._at_end.set()
        seconds = HURRIED_COST_SECONDS if taken_back else COST_SECONDS
        price = self._price or self._price_task()
        await asyncio.wait([price], timeout=seconds)
        return cost_of_run(
            self._facts_so_far,
            self._call.settings.cost,
            price.result() if price.done() else None,
            began=self._began.host.booted or self._began.started,
            now=_now(),
            taken_back=taken_back,
            log=self._log,
        )

    def _start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def _unless_it_fails(self, task: str, work: Coroutine[Any, Any, T]) -> T | None:
        """Do what a run can do without: a failure that nobody expects is logged, and nothing else would tell of it."""
        try:
            return await work
        except Exception:  # noqa: BLE001 -- whatever it is, jobs and hand-off go on
            self._log.exception("background.defect", task=task)
            return None

    async def _open(self) -> Bucket:
        """Open the bucket. Its keys are asked for as long as jobs may run: without it, all that they do is lost."""

        def again(error: SecretsError) -> None:
            self.unopened = error.with_remedy
            self._log.info("store.retry", reason=str(error))

        call = self._call
        store, add_secrets = call.settings.store, call.run_logger.add_secrets
        try:
            bucket = await until_answered(
                lambda: open_bucket(store, call.places.bucket, call.environ, add_secrets),
                seconds=self._context.seconds_left(),
                again=again,
            )
        except SecretsError as error:
            raise StoreError(f"no credentials: {error}", remedy=error.remedy) from error
        self.unopened = ""
        return bucket

    async def _read_secrets(self) -> dict[str, str]:
        secrets = await until_answered(
            lambda: job_secrets(self._call.settings.secrets, self._call.environ),
            seconds=SECRETS_SECONDS,
            again=lambda error: self._log.info("secrets.retry", reason=str(error)),
        )
        self._call.run_logger.add_secrets(secrets)
        return secrets

    async def _deliver_earlier(self) -> int:
        context = self._context
        if context.waiting:
            await asyncio.wait([self.secrets])
        return await deliver_pending(
            context.spool,
            context.waiting,
            self.bucket,
            finder=context.run.run,
            concurrency=self._call.settings.store.concurrency,
            redactor=self._redactor,
            log=self._log,
        )

    def _redactor(self) -> Redactor | None:
        """Return what hides the jobs' secrets; None when they are not known."""
        known = self.secrets.done() and not self.secrets.cancelled()
        if not known or self.secrets.exception() is not None:
            return None
        return self._call.run_logger.redactor

    def _price_task(self) -> "asyncio.Task[Rate | None]":
        return self._start(self._unless_it_fails("price", self._ask_price()))

    async def _ask_price(self) -> Rate | None:
        """Ask for the machine's price while the jobs run, so that the run's end does not wait for the answer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PRICE_PAUSE):
                await self._at_end.wait()
        facts = await asyncio.shield(self.facts)
        return await spot_price(facts, environ=self._call.environ, log=self._log)

    async def _begin(self, begin: Begin) -> BatchSession:
        """Find out which batch the run is for, and put its beginning."""
        call, facts = self._call, await asyncio.shield(self.facts)
        purpose = await self._purpose(facts)
        session = BatchSession(
            Opening(self.bucket),
            self._context.run.run,
            process_nonce(os.urandom(4)),
            purpose,
            self._began.model_copy(update={"host": with_facts(self._began.host, facts)}),
            now=_now,
            catch_up=timedelta(seconds=call.settings.limits.catch_up),
            dead=[run.run for run in self._context.waiting],
            seconds=min(
                ALONE_SECONDS if purpose.unscheduled else CLAIM_SECONDS,
                call.settings.job_seconds / 4,
            ),
            begin=begin,
        )
        await session.begin()
        batch = session.batch
        self._log.info("batch.begun", schedule=batch.schedule, batch=batch.name)
        return session

    async def _purpose(self, facts: HostFacts | None) -> Purpose:
        call, slot = self._call, self._call.slot
        if slot == "tag":
            slot = await slot_of_tag(facts, self._began.host.booted, call.environ, self._log)
        count, index = (facts.shards, facts.launch_index) if facts else (None, None)
        try:
            shard = identify(call.shard, slot, count=count, launch_index=index)
        except ShardError as error:
            self.refusal, slot, shard = error, None, None
        return Purpose(
            schedule=call.settings.schedule.name,
            slot=slot,
            shard=shard,
            retried=bool(call.shard.group),
            by_name=bool(call.only),
        )

    async def _settle(self) -> Settled:
        """Decide whether the run works for its batch; if another run does, stop this one at once."""
        session = await asyncio.shield(self.session)
        await self._earlier_done()
        settled = await session.settle()
        if isinstance(settled.decision, StandBack):
            self._log.info("batch.stands_back", reason=settled.decision.reason)
            self._call.stop.request(STANDS_BACK)
        else:
            self._log.info("batch.claimed", leaves_out=len(settled.decision.leave_out))
        facts = await asyncio.shield(self.facts)
        if self._call.slot == "tag" and facts is not None and facts.instance_id is None:
            return replace(settled, warning="; ".join(filter(None, (NO_TAG, settled.warning))))
        return settled

    async def _earlier_done(self) -> None:
        """Wait, while the bucket answers, for the delivery of this disk's earlier runs: what they did is left out."""
        seconds = self._call.settings.job_seconds / 4
        if not self._context.waiting:
            return
        if (await asyncio.wait([self.bucket], timeout=min(CLAIM_SECONDS, seconds)))[0]:
            await asyncio.wait([self.earlier], timeout=seconds)

    async def _open_history(self) -> History:
        session = await asyncio.shield(self.session)
        await self._earlier_done()
        return History(await asyncio.shield(self.bucket), session.batch, self._began.started)


async def slot_of_tag(
    facts: HostFacts | None, booted: datetime | None, environ: Mapping[str, str], log: Log
) -> datetime | None:
    """Return the slot that the machine's tag names; waits, bounded, where the tag may be the last slot's still."""
    slot = facts.slot if facts else None
    while slot is not None and tag_may_change(slot, booted, _now()):
        log.info("slot.tag_is_old", slot=slot.isoformat())
        await asyncio.sleep(TAG_POLL_SECONDS)
        again = await read_facts(environ, log)
        slot = again.slot if again and again.slot else slot
    return slot


def _now() -> datetime:
    return datetime.now(UTC)
