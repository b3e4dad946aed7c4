"""The watch for EC2's notice that it takes the machine back."""

import asyncio
import random
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TypeVar

from agent.base.errors import MetadataError
from agent.base.logs import Log
from agent.base.stop import Stop
from agent.machine.metadata import Metadata, metadata_endpoint
from agent.machine.spot import reason, termination_time

T = TypeVar("T")

SOONEST, LATEST = 4.0, 5.0
"""Seconds from one poll to the next, at random: Amazon recommends one every 5 s."""


async def watch_spot(environ: Mapping[str, str], stop: Stop, log: Log) -> None:
    """Poll for a notice, and then ask the run to stop; returns at once on a machine that is not EC2's.

    A service that does not answer neither ends nor delays the watch: each poll has a limit.
    """
    endpoint = metadata_endpoint(environ)
    if endpoint is not None:
        await _Watch(Metadata(endpoint), stop, log).poll_until_notice()


class _Watch:
    def __init__(self, service: Metadata, stop: Stop, log: Log) -> None:
        self._service = service
        self._stop = stop
        self._log = log
        self._answers = True
        self._recommended = False

    async def poll_until_notice(self) -> None:
        while True:
            began = monotonic()
            if await self._poll():
                return
            pause = random.uniform(SOONEST, LATEST)  # noqa: S311 -- not a secret
            await asyncio.sleep(max(0.0, began + pause - monotonic()))

    async def _poll(self) -> bool:
        """Poll once; return whether there was a notice."""
        rebalance = asyncio.create_task(self._ask(self._service.rebalance()))
        try:
            notice = await self._ask(self._service.notice())
            if notice is not None:
                gone = termination_time(notice, datetime.now(UTC))
                self._log.warning(
                    "spot.notice",
                    action=notice.action,
                    time=notice.time.isoformat(),
                    gone=gone.isoformat(),
                )
                self._stop.request(reason(notice), gone=gone)
                return True
            since = await rebalance
            if since is not None and not self._recommended:
                # Finished jobs are delivered while others run anyway; nothing stops for a recommendation.
                self._recommended = True
                self._log.warning("spot.rebalance_recommended", since=since.isoformat())
            return False
        finally:
            rebalance.cancel()
            with suppress(asyncio.CancelledError):
                await rebalance

    async def _ask(self, question: Awaitable[T | None]) -> T | None:
        try:
            answer = await question
        except MetadataError as error:
            if self._answers:
                self._log.warning("spot.service_silent", reason=str(error))
            self._answers = False
            return None
        self._answers = True
        return answer
