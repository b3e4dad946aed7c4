"""Claims slots in a process of its own: one half of a race. `python -m tests.run.claim_slots RACE`, RACE as JSON."""

import asyncio
import json
import os
import random
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.base.errors import StoreError
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.cli import leave
from agent.config.credentials import static_credentials
from agent.config.settings import Store
from agent.core.slots import Claim
from agent.steps.slots import claim_slot

AT_ONCE = 10
ROUND_SECONDS = 2.0


async def _race(race: dict[str, Any]) -> None:
    store = Store(url=race["url"], endpoint=race["endpoint"])
    bucket = Bucket.open(bucket_at(store, Path()), static_credentials(os.environ))
    dice = random.Random(f"{race['seed']}-{race['runner']}")
    rounds = [race["slots"][at : at + AT_ONCE] for at in range(0, len(race["slots"]), AT_ONCE)]
    for number, slots in enumerate(rounds):
        begin = race["begin"] + number * (ROUND_SECONDS + race["settle"])
        await asyncio.sleep(max(0.0, begin - time.time()))
        await asyncio.gather(*(_claim(bucket, slot, race, dice.random()) for slot in slots))


async def _claim(bucket: Bucket, slot: str, race: dict[str, Any], offset: float) -> None:
    await asyncio.sleep(offset * race["spread"])
    now = datetime.now(UTC)
    run = f"{now:%Y%m%dT%H%M%SZ}-{random.randrange(16**6):06x}"
    own = Claim(run_id=run, claimed=now, deadline=now + timedelta(hours=2), host=race["runner"])
    try:
        settled = await claim_slot(
            bucket,
            slot,
            own,
            conditional=race["conditional"],
            dead=frozenset(),
            settle=race["settle"],
        )
        why_not = settled.why_not
    except StoreError as error:
        why_not = f"failed: {error}"
    print(json.dumps({"slot": slot, "run": run, "why_not": why_not}), flush=True)


if __name__ == "__main__":
    asyncio.run(_race(json.loads(sys.argv[1])))
    leave(0)
