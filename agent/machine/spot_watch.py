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
    if endpoint is None:
        return
    service, silent, recommended = Metadata(endpoint), False, False

    async def ask(question: Awaitable[T | None]) -> T | None:
        nonlocal silent
        try:
            answer = await question
        except MetadataError as error:
            if not silent:
                log.warning("spot.service_silent", reason=str(error))
            silent = True
            return None
        silent = False
        return answer

    while True:
        began = monotonic()
        rebalance = asyncio.create_task(ask(service.rebalance()))
        try:
            if notice := await ask(service.notice()):
                gone = termination_time(notice, datetime.now(UTC))
                times = {"time": notice.time.isoformat(), "gone": gone.isoformat()}
                log.warning("spot.notice", action=notice.action, **times)
                stop.request(reason(notice), gone=gone)
                return
            since = await rebalance
            if since is not None and not recommended:
                # Finished jobs are delivered while others run anyway; nothing stops for a recommendation.
                recommended = True
                log.warning("spot.rebalance_recommended", since=since.isoformat())
        finally:
            rebalance.cancel()
            with suppress(asyncio.CancelledError):
                await rebalance
        pause = random.uniform(SOONEST, LATEST)  # noqa: S311 -- not a secret
        await asyncio.sleep(max(0.0, began + pause - monotonic()))
