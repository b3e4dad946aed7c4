"""What a run does beside its main line: open the bucket, finish earlier runs, announce itself, look back.

Nothing here stops the jobs: who needs a result awaits it, and gets its error then.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

from agent.base.errors import MayflyError, SecretsError, ShardError, StoreError
from agent.base.logs import RunLogger
from agent.base.redact import Redactor
from agent.base.stop import Stop, first
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.config.locate import Locations
from agent.config.settings import Settings
from agent.core.catchup import Beginning
from agent.core.layout import started_key
from agent.core.manifest import HostRecord, StartedMarker
from agent.core.results import CostRecord
from agent.core.shards import Asked, Shard, identify
from agent.core.slots import Claim, slot_name, tag_may_change
from agent.jobs.isolation.choice import Chosen, choose_isolation
from agent.machine.cost import Rate
from agent.machine.instance import HostFacts
from agent.machine.metadata import read_facts
from agent.machine.prices import cost_of_run, spot_price
from agent.machine.spot_watch import watch_spot
from agent.secrets.sources import job_secrets, store_credentials, until_answered
from agent.steps.ledger import Ledger, read_ledger
from agent.steps.lookback import finished_before
from agent.steps.recovery import deliver_pending
from agent.steps.shards import Standing, standing_of
from agent.steps.slots import CLAIM_SECONDS, Settled, claim_slot, slot_of_tag
from agent.steps.spool import Spool, SpooledRun

T = TypeVar("T")
SlotWish = datetime | Literal["tag"] | None

WITHDRAW_SECONDS = 5.0
"""For taking back the word that a run began; when that fails, it looks like a run that vanished."""
COST_SECONDS = 12.0
"""For a price that is still not known when the run ends: a little more than what its question is limited to."""
STANDING_SECONDS = 60.0
"""For looking what a shard has committed."""
CATCH_UP_SECONDS = 10.0
"""For looking what an interrupted run has finished: jobs wait for it, and a bucket that is away must not keep them."""
HURRIED_COST_SECONDS = 3.0
"""The same when EC2 takes the machine away: the files need the time more."""
SECRETS_SECONDS = 120.0
"""For asking for the jobs' secrets again: jobs wait for them, also those that need none."""
STANDS_BACK = "another machine has the slot"


@dataclass(frozen=True, slots=True)
class Orders:
    """What the errands need to know.

    Attributes:
        settings: The configuration.
        places: Where things are.
        environ: The agent's environment.
        run_logger: Learns the secrets, so that no log shows them.
        spool: The spool.
        waiting: Runs in it that an earlier process left.
        marker: What the bucket is told at the start.
        host: The machine.
        slot: The scheduled time that the run is for, or that the machine's tag knows it; None for a run without.
        stop: Told when another machine's run has the slot.
        asked: What is known of the run's shard.
        only: Names of the jobs that were asked for; empty for all.
    """

    settings: Settings
    places: Locations
    environ: Mapping[str, str]
    run_logger: RunLogger
    spool: Spool
    waiting: Sequence[SpooledRun]
    marker: StartedMarker
    host: HostRecord
    slot: SlotWish
    stop: Stop
    asked: Asked
    only: frozenset[str] = frozenset()


class Errands:
    """The errands of one run, as tasks; leaving the context ends what is still under way.

    Attributes:
        unopened: Why the bucket is not open yet; empty before the first failure, and once it is open.
    """

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self.unopened = ""
        self._tasks: list[asyncio.Task[Any]] = []
        self.facts = self._start(read_facts(orders.environ, orders.run_logger.log))
        self._start(watch_spot(orders.environ, orders.stop, orders.run_logger.log))
        self._price = self._start(self._ask_price())
        self.bucket = self._start(self._open())
        self.secrets = self._start(self._secrets())
        self.earlier = self._start(self._deliver_earlier())
        self.conditional = self._start(self._announce())
        self.place = self._start(self._settle())
        self.shard = self._start(self._identify())
        self._standing = self._start(self._stand())
        self.isolation = self._start(self._isolate())
        self._start(asyncio.to_thread(orders.spool.sweep, orders.run_logger.log))
        self._ledger: asyncio.Task[Ledger] | None = None

    def ledger(self, *, with_past: bool) -> "asyncio.Task[Ledger]":
        """Return the look back, begun at the first call; it comes after the earlier runs, which belong to it."""
        if self._ledger is None:
            self._ledger = self._start(self._look_back(with_past))
        return self._ledger

    @property
    def conditional_writes(self) -> bool | None:
        """Whether the bucket was seen to refuse a second write of a key; None while that is not known."""
        task = self.conditional
        return task.result() if task.done() and not task.cancelled() else None

    @property
    def facts_so_far(self) -> HostFacts | None:
        """What EC2 has said of this machine by now; None when it has not, or there is no EC2."""
        task = self.facts
        return task.result() if task.done() and not task.cancelled() else None

    async def standing(self, stop: Stop, seconds: float) -> Standing:
        """Return what this shard has committed before; waits until it is known, but not beyond the run's time."""
        await first(asyncio.wait([self._standing]), stop.wait(), seconds=seconds)
        return self._standing.result() if self._standing.done() else Standing()

    async def cost(self, *, taken_back: bool) -> CostRecord | None:
        """Return what the run costs, if it ends now; None where nothing is billed, or nobody knows the price.

        Args:
            taken_back: Whether EC2 takes the machine away.
        """
        orders, log = self._orders, self._orders.run_logger.log
        seconds = HURRIED_COST_SECONDS if taken_back else COST_SECONDS
        await asyncio.wait([self._price], timeout=seconds)
        return cost_of_run(
            self.facts_so_far,
            orders.settings.cost,
            self._price.result() if self._price.done() else None,
            began=orders.host.booted or orders.marker.started,
            now=datetime.now(UTC),
            taken_back=taken_back,
            log=log,
        )

    async def withdraw(self) -> None:
        """Take back, as far as that is possible at once, that the run began and what it claimed."""
        with suppress(MayflyError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_SECONDS):
                await asyncio.shield(self.conditional)
                bucket = await asyncio.shield(self.bucket)
                place = await asyncio.shield(self.place)
                keys = [started_key(self._orders.marker.run_id), place.key]
                await bucket.delete([key for key in keys if key])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, errand: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(errand)
        self._tasks.append(task)
        return task

    async def _open(self) -> Bucket:
        """Open the bucket. Its keys are asked for as long as jobs may run: without it, all that they do is lost."""
        orders = self._orders
        until = orders.marker.started + timedelta(seconds=orders.settings.job_seconds)

        def again(error: SecretsError) -> None:
            self.unopened = error.with_remedy
            orders.run_logger.log.info("store.retry", reason=str(error))

        try:
            bucket = await until_answered(
                self._open_once, seconds=(until - datetime.now(UTC)).total_seconds(), again=again
            )
        except SecretsError as error:
            raise StoreError(f"no credentials: {error}", remedy=error.remedy) from error
        self.unopened = ""
        return bucket

    async def _open_once(self) -> Bucket:
        store, environ = self._orders.settings.store, self._orders.environ
        address = bucket_at(store, self._orders.places.bucket)
        credentials = await store_credentials(store, environ)
        if credentials is not None:
            self._orders.run_logger.add_secrets(
                {"store": credentials.secret_key, "store-token": credentials.token or ""}
            )
        return await asyncio.to_thread(Bucket.open, address, credentials, environ)

    async def _secrets(self) -> dict[str, str]:
        orders = self._orders
        secrets = await until_answered(
            lambda: job_secrets(orders.settings.secrets, orders.environ),
            seconds=SECRETS_SECONDS,
            again=lambda error: orders.run_logger.log.info("secrets.retry", reason=str(error)),
        )
        orders.run_logger.add_secrets(secrets)
        return secrets

    async def _deliver_earlier(self) -> int:
        orders = self._orders
        if orders.waiting:
            await asyncio.wait([self.secrets])
        return await deliver_pending(
            orders.spool,
            orders.waiting,
            self.bucket,
            finder=orders.marker.run_id,
            concurrency=orders.settings.store.concurrency,
            redactor=self._redactor,
            log=orders.run_logger.log,
        )

    def _redactor(self) -> Redactor | None:
        """Return what hides the jobs' secrets; None when they are not known."""
        known = self.secrets.done() and not self.secrets.cancelled()
        if not known or self.secrets.exception() is not None:
            return None
        return self._orders.run_logger.redactor

    async def _announce(self) -> bool | None:
        """Say that the run began, and find out on the way whether the store honours conditions."""
        slot = await self._slot_at_once()
        key = started_key(self._orders.marker.run_id)
        marker = self._orders.marker.model_copy(update={"slot": slot, **await self._shard_at(slot)})
        data = marker.model_dump_json(indent=1).encode()
        try:
            bucket = await asyncio.shield(self.bucket)
            await bucket.create(key, data)
            return await bucket.refuses_overwrite(key, data)
        except MayflyError as error:
            self._orders.run_logger.log.warning("run.not_announced", reason=str(error))
            return None

    async def _ask_price(self) -> Rate | None:
        """Ask what the machine costs while the run works, so that its end does not wait for the answer."""
        orders = self._orders
        return await spot_price(
            await asyncio.shield(self.facts),
            cache=orders.places.cache,
            environ=orders.environ,
            log=orders.run_logger.log,
        )

    async def _slot_at_once(self) -> datetime | None:
        """Return the slot if it is known without waiting for a schedule."""
        wish = self._orders.slot
        if wish != "tag":
            return wish
        facts = await asyncio.shield(self.facts)
        slot = facts.slot if facts else None
        booted = self._orders.host.booted
        late = slot is not None and tag_may_change(slot, booted, datetime.now(UTC))
        return None if late else slot

    async def _settle(self) -> Settled:
        """Find out for which slot the run is, and whether it is this run that works for it."""
        orders, log = self._orders, self._orders.run_logger.log
        slot = orders.slot
        if slot is None:
            return Settled()
        facts = await asyncio.shield(self.facts)
        if slot == "tag":
            slot = await slot_of_tag(facts, orders.host.booted, orders.environ, log)
        if slot is None:
            return Settled()
        if orders.asked.group:
            # The engine that named the group starts a shard again as soon as it is lost: a claim would be in its way.
            return Settled(slot)
        if orders.waiting and (await asyncio.wait([self.bucket], timeout=CLAIM_SECONDS))[0]:
            # One of them may be what the slot was for.
            await asyncio.wait([self.earlier])
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                settled = await self._claim(slot, facts)
        except (MayflyError, TimeoutError) as error:
            reason = str(error) or f"no answer within {CLAIM_SECONDS:g} s"
            log.warning("slot.unsettled", slot=slot.isoformat(), reason=reason)
            return Settled(slot, warning=f"another machine may have worked for the slot: {reason}")
        if settled.why_not:
            log.info("slot.stands_back", slot=slot.isoformat(), reason=settled.why_not)
            orders.stop.request(STANDS_BACK)
        else:
            log.info("slot.claimed", slot=slot.isoformat(), key=settled.key)
        return replace(settled, slot=slot)

    async def _claim(self, slot: datetime, facts: HostFacts | None) -> Settled:
        orders, marker = self._orders, self._orders.marker
        shard = identify(orders.asked, facts, slot)
        conditional = await asyncio.shield(self.conditional)
        if conditional is None:
            raise StoreError("the bucket did not say whether it honours conditions")
        return await claim_slot(
            await asyncio.shield(self.bucket),
            slot_name(slot, shard=shard.shard, shards=shard.shards) if shard else slot_name(slot),
            Claim(
                run_id=marker.run_id,
                claimed=datetime.now(UTC),
                deadline=marker.deadline,
                host=marker.host,
                instance_id=facts.instance_id if facts else None,
                boot_id=orders.host.boot_id,
            ),
            conditional=conditional,
            dead=frozenset(run.run_id for run in orders.waiting),
        )

    async def _identify(self) -> Shard | None:
        settled = await asyncio.shield(self.place)
        return identify(self._orders.asked, await asyncio.shield(self.facts), settled.slot)

    async def _shard_at(self, slot: datetime | None) -> dict[str, Any]:
        """Return what the marker says of the shard; nothing where that is not known, which the run itself will say."""
        try:
            shard = identify(self._orders.asked, await asyncio.shield(self.facts), slot)
        except ShardError:
            return {}
        return asdict(shard) if shard else {}

    async def _stand(self) -> Standing:
        """Look what this shard has committed; not knowing it, the run does everything, and its commit finds out."""
        log = self._orders.run_logger.log
        try:
            shard = await asyncio.shield(self.shard)
            if shard is None:
                return await self._catch_up()
            async with asyncio.timeout(STANDING_SECONDS):
                bucket = await asyncio.shield(self.bucket)
            await asyncio.shield(self.earlier)
            async with asyncio.timeout(STANDING_SECONDS):
                standing = await standing_of(bucket, shard, datetime.now(UTC), log)
        except ShardError:
            return Standing()  # the run itself refuses
        except (MayflyError, TimeoutError) as error:
            log.warning("run.standing_unknown", reason=str(error) or "the bucket took too long")
            return Standing()
        log.info(
            "shard.stands",
            **asdict(shard),
            commits=standing.place,
            finished=len(standing.finished),
        )
        return standing

    async def _catch_up(self) -> Standing:
        """Look what a run that was interrupted a short while ago has finished; who asks for jobs by name gets them."""
        orders, settled = self._orders, await asyncio.shield(self.place)
        window = timedelta(seconds=orders.settings.limits.catch_up)
        if not window or orders.only:
            return Standing()
        async with asyncio.timeout(CATCH_UP_SECONDS):
            bucket = await asyncio.shield(self.bucket)
            begins = Beginning(
                orders.marker.started, window, settled.slot, orders.marker.release_wanted
            )
            finished = await finished_before(bucket, orders.waiting, begins)
        if finished:
            orders.run_logger.log.info("run.catches_up", finished=len(finished))
        return Standing(finished=finished)

    async def _isolate(self) -> Chosen:
        orders = self._orders
        return await choose_isolation(
            orders.settings,
            orders.places,
            orders.marker.run_id,
            orders.environ,
            orders.run_logger.log,
        )

    async def _look_back(self, with_past: bool) -> Ledger:
        bucket = await asyncio.shield(self.bucket)
        await asyncio.shield(self.earlier)
        return await read_ledger(bucket, datetime.now(UTC), with_past=with_past)
