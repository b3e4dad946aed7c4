"""Keeps the history up with the bucket: two listings when nothing is new, and each new object is read once."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from agent.core.ids import is_run_id, run_id, run_started
from agent.core.layout import (
    INDEX,
    INDEX_OVERLAP,
    STARTED,
    IndexKey,
    manifest_key,
    parse_index_key,
    started_key,
)

from consumer.archive.intake import (
    CLOCKS,
    MAX_DETAIL_BYTES,
    Details,
    IncredibleError,
    Taken,
    is_ahead,
    take_entry,
    take_manifest,
    take_marker,
)
from consumer.archive.writer import Batch, Position, Writer
from consumer.bucket import ReadOnlyBucket, TooLargeError
from consumer.facts.rows import BegunRow, RefusedRow
from consumer.history import (
    GONE,
    READS_AT_ONCE,
    Unreadable,
    index_keys,
    read_entry,
    read_marker,
)
from consumer.pull.plan import stamp_time

BATCH = 256
"""Runs that are written in one transaction: a killed first look goes on where it was."""
SMALL_BYTES = 256 * 1024
"""Manifests up to this are read side by side; larger ones one at a time, because of the memory that they take."""
CHECKED_AGAIN = 16
"""Refused objects that one look reads once more."""
MANIFESTS_KEPT = timedelta(days=7)
"""After its commit a run's manifest must be there for so long; later a lifecycle rule may have removed it."""


@dataclass(frozen=True, slots=True)
class Look:
    """What came of one look into the bucket.

    Attributes:
        runs: New committed runs.
        refused: New objects that say nothing credible.
        begun: Runs without a commit that were read, again or for the first time.
        ahead: Index keys that claim a time that has not come.
        withdrawn: Runs whose agents took back that they began.
    """

    runs: int = 0
    refused: tuple[RefusedRow, ...] = ()
    begun: int = 0
    ahead: int = 0
    withdrawn: int = 0

    @property
    def changed(self) -> bool:
        """Whether the history is another one now."""
        return bool(self.runs or self.refused or self.begun or self.withdrawn)


async def look(bucket: ReadOnlyBucket, writer: Writer, now: datetime) -> Look:
    """Bring the history up to date.

    Raises:
        StoreError: The bucket cannot be read; what was read so far is kept.
        ArchiveError: The history cannot be written.
    """
    moment = now.timestamp()
    position = await asyncio.to_thread(writer.position)
    # In this order: a run that commits between the two looks is then seen as committed.
    since = _since(position)
    begun = await _begun_keys(bucket, since)
    after = _after(position) if bucket.checks_clocks else None
    keys = await index_keys(bucket, after)
    known = await asyncio.to_thread(writer.known, after or "")
    ahead = {key.key for key in keys if is_ahead(key, now)}
    new = [key for key in keys if key.key not in known and key.key not in ahead]
    runs, refused = 0, list[RefusedRow]()
    for first in range(0, len(new), BATCH):
        batch = await _read(bucket, new[first : first + BATCH], now)
        position = _moved(position, new[first : first + BATCH], now)
        await asyncio.to_thread(writer.take, batch, position, moment)
        runs += len(batch.taken)
        refused += batch.refused
    again = await _again(bucket, writer, now)
    await asyncio.to_thread(writer.take, again, position, moment)
    found = await _read_begun(bucket, writer, begun, since, now)
    position = replace(position, began=_newest(position.began, begun, now), read=moment)
    await asyncio.to_thread(writer.take, found, position, moment)
    return Look(
        runs + len(again.taken),
        (*refused, *found.refused),
        len(found.begun),
        len(ahead),
        len(found.withdrawn),
    )


async def _again(bucket: ReadOnlyBucket, writer: Writer, now: datetime) -> Batch:
    """Look once more at some of what was refused: it may have been removed, or this program may know better now."""
    keys = await asyncio.to_thread(writer.to_check_again, CHECKED_AGAIN)
    index = [key for key in map(parse_index_key, keys) if key is not None]
    found = await _read(bucket, index, now)
    begun = [
        key.removeprefix(STARTED).removesuffix(".json") for key in keys if key.startswith(STARTED)
    ]
    markers = await _markers(bucket, begun, now)
    refused = (*found.refused, *markers.refused)
    return Batch(
        taken=found.taken,
        refused=tuple(row for row in refused if row.problem != GONE),
        begun=markers.begun,
        gone=tuple(row.key for row in refused if row.problem == GONE)
        + tuple(started_key(row.run) for row in markers.begun),
    )


def _after(position: Position) -> str | None:
    if not position.cursor:
        return None
    since = stamp_time(position.cursor) - INDEX_OVERLAP
    return f"{INDEX}{since:%Y%m%dT%H%M%S}.{since.microsecond // 1000:03d}Z"


def _moved(position: Position, keys: Iterable[IndexKey], now: datetime) -> Position:
    """Return the position after these keys. The cursor never passes now: tomorrow's would hide today's runs."""
    cursor = position.cursor
    for key in keys:
        try:
            moment = stamp_time(key.stamp)
        except ValueError:
            continue
        if moment <= now:
            cursor = max(cursor, key.stamp)
    return replace(position, cursor=cursor)


# Index entries and manifests.


async def _read(bucket: ReadOnlyBucket, keys: Sequence[IndexKey], now: datetime) -> Batch:
    gate, alone = asyncio.Semaphore(READS_AT_ONCE), asyncio.Lock()

    async def read(key: IndexKey) -> tuple[Taken, Details | None] | RefusedRow:
        async with gate:
            row = await read_entry(bucket, key)
            if isinstance(row, Unreadable):
                return RefusedRow(key.key, key.run, row.problem[:300])
            try:
                return await _whole(bucket, take_entry(key, row.entry), alone, now)
            except IncredibleError as error:
                return RefusedRow(key.key, key.run, str(error)[:300])

    found = await asyncio.gather(*(read(key) for key in keys))
    return Batch(
        taken=tuple(one for one in found if not isinstance(one, RefusedRow)),
        refused=tuple(one for one in found if isinstance(one, RefusedRow)),
    )


async def _whole(
    bucket: ReadOnlyBucket, taken: Taken, alone: asyncio.Lock, now: datetime
) -> tuple[Taken, Details | None]:
    """Return a run with the details of its manifest, where that is not too large to be read for them."""
    if taken.manifest_bytes > MAX_DETAIL_BYTES:
        return taken, None
    if taken.manifest_bytes <= SMALL_BYTES:
        return taken, await _details(bucket, taken, now)
    async with alone:
        return taken, await _details(bucket, taken, now)


async def _details(bucket: ReadOnlyBucket, taken: Taken, now: datetime) -> Details | None:
    try:
        text = await bucket.get(manifest_key(taken.run.run), limit=taken.manifest_bytes)
    except TooLargeError:
        raise IncredibleError("its manifest is larger than the index entry says") from None
    if text is None and stamp_time(taken.key.stamp) < now - MANIFESTS_KEPT:
        return None
    if text is None:
        raise IncredibleError("its manifest is not in the bucket")
    if len(text) <= SMALL_BYTES:
        return take_manifest(taken, text)
    return await asyncio.to_thread(take_manifest, taken, text)


# Started markers.


def _since(position: Position) -> str:
    """Return the run id from which on markers are listed: a day before the newest, since a marker may come late."""
    if not position.began:
        return ""
    return run_id(run_started(position.began) - CLOCKS, b"\0\0\0")


async def _begun_keys(bucket: ReadOnlyBucket, since: str) -> list[str]:
    """Return the runs that have a marker, from a run id on."""
    found = []
    async for info in bucket.list(STARTED, after=started_key(since) if since else None):
        name = info.key.removeprefix(STARTED).removesuffix(".json")
        if is_run_id(name) and info.key == started_key(name):
            found.append(name)
    return sorted(found)


async def _read_begun(
    bucket: ReadOnlyBucket, writer: Writer, runs: Sequence[str], since: str, now: datetime
) -> Batch:
    """Return what markers of uncommitted runs say, those that are not known yet, and which were taken back."""
    done = await asyncio.to_thread(writer.committed, runs)
    unresolved = await asyncio.to_thread(writer.unresolved)
    found = await _markers(bucket, [run for run in runs if run not in done | unresolved], now)
    # A run that stood back, because another machine has its slot, did not vanish.
    withdrawn = {run for run in unresolved if run > since}.difference(runs)
    # Neither did one whose marker went between the listing and the look at it.
    refused = tuple(row for row in found.refused if row.problem != GONE)
    return replace(found, refused=refused, withdrawn=tuple(withdrawn))


async def _markers(bucket: ReadOnlyBucket, runs: Iterable[str], now: datetime) -> Batch:
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def read(run: str) -> BegunRow | RefusedRow:
        async with gate:
            row = await read_marker(bucket, run, now)
            if isinstance(row, Unreadable):
                return RefusedRow(row.key, run, row.problem[:300])
            try:
                return take_marker(row.marker, now)
            except IncredibleError as error:
                return RefusedRow(started_key(run), run, str(error)[:300])

    found = await asyncio.gather(*(read(run) for run in runs))
    return Batch(
        begun=tuple(one for one in found if isinstance(one, BegunRow)),
        refused=tuple(one for one in found if isinstance(one, RefusedRow)),
    )


def _newest(newest: str, runs: Iterable[str], now: datetime) -> str:
    for run in runs:
        try:
            if run_started(run) <= now:
                newest = max(newest, run)
        except ValueError:
            continue
    return newest
