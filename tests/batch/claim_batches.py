"""Claims batches in a process of its own, a part of a race: `python -m tests.batch.claim_batches RACE`, as JSON."""

import asyncio
import json
import os
import random
import socket
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.batch.claim import StandBack
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.cli import leave
from agent.config.credentials import static_credentials
from agent.config.settings import Store
from agent.contract.entries import Began
from agent.contract.facts import Host
from agent.contract.ids import Shard, process_nonce, run_id
from tests.batch.entries import closed, job

AT_ONCE = 25
ROUND_SECONDS = 9.0
TWIN_SECONDS = 60.0
"""Until the other twin has looked as well, on a busy machine."""


def open_bucket(race: dict[str, Any], environ: dict[str, str]) -> Bucket:
    """Return the bucket of a race."""
    store = Store(url=race["url"], endpoint=race["endpoint"])
    return Bucket.open(bucket_at(store, Path()), static_credentials(environ))


def purpose_of(number: int, *, shards: bool) -> Purpose:
    """Return what the claimants of a race are for: a slot each, or a shard that an engine has started twice."""
    if shards:
        return Purpose(shard=Shard("race", number, 1000), retried=True)
    return Purpose(slot=datetime(2026, 11, 22, tzinfo=UTC) + timedelta(minutes=number))


async def _race(race: dict[str, Any]) -> None:
    bucket = open_bucket(race, dict(os.environ))
    dice = random.Random(f"{race['seed']}-{race['runner']}")
    numbers = range(race["races"])
    for round_number, first in enumerate(numbers[::AT_ONCE]):
        begin = race["begin"] + round_number * (ROUND_SECONDS + race["spread"])
        await asyncio.sleep(max(0.0, begin - time.time()))
        some = numbers[first : first + AT_ONCE]
        await asyncio.gather(*(_claim(bucket, number, race, dice.random()) for number in some))


async def _claim(bucket: Bucket, number: int, race: dict[str, Any], offset: float) -> None:
    await asyncio.sleep(offset * race["spread"])
    now = datetime.now(UTC)
    run = run_id(now, os.urandom(3))
    host = Host(name=f"{socket.gethostname()}-{race['runner']}")
    session = BatchSession(
        bucket,
        run,
        process_nonce(os.urandom(4)),
        purpose_of(number, shards=race["shards"]),
        Began(started=now, deadline=now + timedelta(hours=2), host=host, agent="1", channel="v*"),
        now=lambda: datetime.now(UTC),
    )
    await session.begin()
    settled = await session.settle()
    if isinstance(settled.decision, StandBack):
        await session.stand_back(settled.decision.reason, settled.decision.run)
    else:
        if race["shards"]:
            await _both_work(race, number)
        await session.log.append(jobs=(job(run, "x"),), closed=closed())
    works = not isinstance(settled.decision, StandBack)
    said = {"number": number, "run": run, "works": works, "warning": settled.warning}
    print(json.dumps(said), flush=True)


async def _both_work(race: dict[str, Any], number: int) -> None:
    """Wait until the twin has settled the same batch: one that comes when all is done has nothing to do."""
    (Path(race["folder"]) / f"{number}-{race['runner']}").touch()
    async with asyncio.timeout(TWIN_SECONDS):
        while len([*Path(race["folder"]).glob(f"{number}-*")]) < 2:  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(_race(json.loads(sys.argv[1])))
    leave(0)
