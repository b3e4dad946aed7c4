"""What a run does beside its main line: open the bucket, finish earlier runs, announce itself, look back.

Nothing here stops the jobs: who needs a result awaits it, and gets its error then.
"""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from agent.core.errors import MayflyError, SecretsError, StoreError
from agent.core.layout import started_key
from agent.core.locate import Locations
from agent.core.manifest import StartedMarker
from agent.core.redact import Redactor
from agent.core.settings import Settings
from agent.core.storage import bucket_at
from agent.steps.credentials import job_secrets, store_credentials
from agent.steps.jobs.choice import Chosen, choose_isolation
from agent.steps.ledger import Ledger, read_ledger
from agent.steps.logs import Journalist
from agent.steps.recovery import deliver_pending
from agent.steps.spool import Spool, SpooledRun
from agent.steps.store import Bucket

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Orders:
    """What the errands need to know.

    Attributes:
        settings: The configuration.
        places: Where things are.
        environ: The agent's environment.
        journalist: Learns the secrets, so that no log shows them.
        spool: The spool.
        waiting: Runs in it that an earlier process left.
        marker: What the bucket is told at the start.
    """

    settings: Settings
    places: Locations
    environ: Mapping[str, str]
    journalist: Journalist
    spool: Spool
    waiting: Sequence[SpooledRun]
    marker: StartedMarker


class Errands:
    """The errands of one run, as tasks; leaving the context ends what is still under way."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._tasks: list[asyncio.Task[Any]] = []
        self.bucket = self._start(self._open())
        self.secrets = self._start(self._secrets())
        self.earlier = self._start(self._deliver_earlier())
        self.conditional = self._start(self._announce())
        self.isolation = self._start(self._isolate())
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
        store, environ = self._orders.settings.store, self._orders.environ
        address = bucket_at(store, self._orders.places.bucket)
        try:
            credentials = await store_credentials(store, environ)
        except SecretsError as error:
            raise StoreError(f"no credentials: {error}", remedy=error.remedy) from error
        if credentials is not None:
            self._orders.journalist.add_secrets(
                {"store": credentials.secret_key, "store-token": credentials.token or ""}
            )
        return await asyncio.to_thread(Bucket.open, address, credentials)

    async def _secrets(self) -> dict[str, str]:
        secrets = await job_secrets(self._orders.settings.secrets, self._orders.environ)
        self._orders.journalist.add_secrets(secrets)
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
            log=orders.journalist.log,
        )

    def _redactor(self) -> Redactor | None:
        """Return what hides the jobs' secrets; None when they are not known."""
        known = self.secrets.done() and not self.secrets.cancelled()
        if not known or self.secrets.exception() is not None:
            return None
        return self._orders.journalist.redactor

    async def _announce(self) -> bool | None:
        """Say that the run began, and find out on the way whether the store honours conditions."""
        key = started_key(self._orders.marker.run_id)
        data = self._orders.marker.model_dump_json(indent=1).encode()
        try:
            bucket = await asyncio.shield(self.bucket)
            await bucket.create(key, data)
            return await bucket.refuses_overwrite(key, data)
        except MayflyError as error:
            self._orders.journalist.log.warning("run.not_announced", reason=str(error))
            return None

    async def _isolate(self) -> Chosen:
        orders = self._orders
        return await choose_isolation(
            orders.settings,
            orders.places,
            orders.marker.run_id,
            orders.environ,
            orders.journalist.log,
        )

    async def _look_back(self, with_past: bool) -> Ledger:
        bucket = await asyncio.shield(self.bucket)
        await asyncio.shield(self.earlier)
        return await read_ledger(bucket, datetime.now(UTC), with_past=with_past)
