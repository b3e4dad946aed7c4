"""A shard's commits, in the bucket: one after the other, so that a twin commits nothing twice.

Each commit of a shard takes the next free number below `shards/<group>/<shard>-of-<shards>/`, on condition that it is
free, and its content is the index entry. A run looks at them when it begins, leaves out what they say is done, and
takes the number after them when it commits. If another run took that number meanwhile, it has done things that this one
did not know of, and this one commits nothing. Why no lock: docs/decisions/0102-a-shard-is-fenced-at-its-commit.md.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from agent.base.errors import ShardTaken, StoreConflict, StoreError
from agent.base.logs import Log
from agent.bucket.store import Bucket
from agent.core.catchup import finished_in
from agent.core.layout import index_key, shard_key, shard_prefix
from agent.core.manifest import IndexEntry
from agent.core.shards import Shard
from agent.steps.ledger import is_committed
from agent.steps.spool import SpooledRun

MOST_COMMITS = 1000
"""Of one shard, that are read; an engine gives up long before."""
SETTLE_SECONDS = 2.0
"""Where the store ignores conditions: between writing a number and reading who has it."""

_PLACE = re.compile(r"(0|[1-9][0-9]{0,5})\.json", re.ASCII)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a shard has committed before.

    Attributes:
        place: How many commits that are, which is the number of the next.
        finished: The jobs that they finished, each with the reason why it is not done again.
    """

    place: int = 0
    finished: Mapping[str, str] = field(default_factory=dict)


async def standing_of(bucket: Bucket, shard: Shard, now: datetime, log: Log) -> Standing:
    """Return what earlier runs of a shard have committed; the last commit is completed if its run died in the middle.

    Raises:
        StoreError: The bucket did not say.
    """
    prefix = shard_prefix(shard.group, shard.shard, shard.shards)
    places = []
    async for item in bucket.list(prefix):
        match = _PLACE.fullmatch(item.key.removeprefix(prefix))
        if match:
            places.append(int(match.group(1)))
        if len(places) == MOST_COMMITS:
            break
    entries = []
    for place in sorted(places):
        key = shard_key(shard.group, shard.shard, shard.shards, place)
        entries.append(_readable(key, content := await bucket.get(key)))
        if place == max(places) and content is not None:
            await _publish(bucket, entries[-1], content, now, log)
    return Standing(max(places, default=-1) + 1, finished_in(entries))


async def take_place(run: SpooledRun, bucket: Bucket) -> None:
    """Take the number of a sealed run's commit; a run that is no shard needs none.

    Raises:
        ShardTaken: Another run took it; this one must not commit.
        StoreError: The bucket failed; a later call goes on from here.
    """
    record = run.journal.run
    if record.group is None or record.shard is None or record.shards is None:
        return
    key = shard_key(record.group, record.shard, record.shards, run.journal.place)
    data = await asyncio.to_thread(run.index.read_bytes)
    if not record.conditional_writes and await bucket.get(key) not in {None, data}:
        raise _taken(key)
    try:
        await bucket.create(key, data)
    except StoreConflict as error:
        raise _taken(key) from error
    if not record.conditional_writes:
        await asyncio.sleep(SETTLE_SECONDS)
    if not await bucket.holds(key, data):
        raise _taken(key)


def _readable(key: str, content: bytes | None) -> IndexEntry:
    try:
        return IndexEntry.model_validate_json(content or b"")
    except ValidationError as error:
        raise StoreError(f"{key} is not a commit that can be read") from error


async def _publish(
    bucket: Bucket, entry: IndexEntry, content: bytes, now: datetime, log: Log
) -> None:
    """Put the index entry of a run that took its number and died before it could; its files are all there."""
    if await is_committed(bucket, entry.run_id):
        return
    key = index_key(entry.run_id, now)
    await bucket.create(key, content)
    log.warning("shard.published", of=entry.run_id, index=key)


def _taken(key: str) -> ShardTaken:
    return ShardTaken(
        f"another run of this shard committed first ({key})",
        remedy="nothing is lost: start the shard again, it does what is still missing",
    )
