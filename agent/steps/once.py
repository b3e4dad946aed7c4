"""What is written once: one manifest and one index entry for a run, also where two writers hold copies of one spool.

The index entry's key carries the time of the commit, so that no condition of the store keeps two writers from two keys.
Each looks before and after, and one key stays: docs/decisions/0091-the-oldest-index-entry-stays.md.
"""

import json
from contextlib import suppress
from datetime import timedelta

from agent.base.errors import StoreConflict
from agent.bucket.store import Bucket, Data
from agent.core.ids import run_started
from agent.core.layout import INDEX, index_key, manifest_key, parse_index_key
from agent.steps.packing import not_held

CLOCKS_APART = timedelta(days=1)
"""How much earlier than the run's start another writer's clock may be when it commits."""


async def put_once(bucket: Bucket, key: str, data: Data) -> None:
    """Put what is written once, and look whether it is there: an answer of 200 is not proof.

    Raises:
        StoreConflict: There is something else.
        StoreError: The bucket failed, or does not hold what it accepted.
    """
    await bucket.create(key, data)
    if await bucket.holds(key, data):
        return
    there = await bucket.get(key) or b""
    if data[: len(there)] != there and _whole(there):
        # A store without conditions let another writer in, between our put and our look.
        raise StoreConflict(f"{key} holds something else already")
    await bucket.delete([key])  # ours, and of no use; it would look like another writer's
    raise not_held(key)


async def committed_as(bucket: Bucket, run: str, entry: bytes) -> str | None:
    """Return the oldest key under which a run is committed; None when it is not.

    Raises:
        StoreConflict: Another writer has handed over this run, with another content.
        StoreError: The bucket failed.
    """
    keys = await _keys_of(bucket, run)
    if not keys:
        return None
    if not await bucket.holds(keys[0], entry):
        raise StoreConflict(f"{keys[0]} is another hand-off of this run")
    return keys[0]


async def leave_one(bucket: Bucket, run: str, own: str, entry: bytes, manifest: Data) -> str:
    """Leave one index entry of a run, and return its key: of those that name the manifest that is there, the oldest.

    Who sees two entries may decide, whichever is its own: both writers have put their manifest by then, so that both
    decide alike. Who sees one alone came first, and the other will see both.

    Raises:
        StoreConflict: The manifest that is there is another writer's; our entry is taken back.
        StoreError: The bucket failed; the run is committed all the same.
    """
    keys = await _keys_of(bucket, run)
    if not set(keys) - {own}:
        return own
    if not await bucket.holds(manifest_key(run), manifest):
        await bucket.delete([own])
        raise StoreConflict(f"{manifest_key(run)} is another hand-off of this run")
    valid = [key for key in keys if key == own or await bucket.holds(key, entry)]
    stays = min(valid, default=own)
    await bucket.delete([key for key in keys if key != stays])
    return stays


async def _keys_of(bucket: Bucket, run: str) -> list[str]:
    since = index_key(run, run_started(run) - CLOCKS_APART)
    found = [parse_index_key(item.key) async for item in bucket.list(INDEX, after=since)]
    return sorted(key.key for key in found if key is not None and key.run == run)


def _whole(content: bytes) -> bool:
    """Tell whether this is a document that somebody wrote, and not what a store made of ours."""
    with suppress(ValueError, RecursionError):
        return isinstance(json.loads(content), dict)
    return False
