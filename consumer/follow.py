"""Keeps what home knows up with the bucket: one LIST when nothing is new, and each new object is read once.

`agent.batch.follow` decides where the reader looks. A store that is slow, fails or lies is an expected failure: what
was read stays, what was not is read at the next poll.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from agent.base.errors import StoreError
from agent.batch.fold import Arrived
from agent.contract.entries import MOST_BYTES, Invalid, Object
from agent.contract.ids import Batch as Id
from agent.contract.layout import INDEX, EntryKey, PointerKey, batch_prefix, parse_key
from consumer.bucket import ObjectInfo, Source
from consumer.entries import read_entry, within_bounds
from consumer.store import HistoryError, Store

MOST_POINTERS = 10_000
"""Of one poll, those with the smallest keys; the next poll goes on behind them."""
MOST_LOOKS = 500
"""Batches that one poll looks into; the next goes on with the others."""
MOST_ENTRIES = 20_000
"""Of one batch that are read; a run that commits every five seconds has fewer in a day."""
MOST_LOG_BYTES = 32 * 1024**2
"""Of one batch's entries together: those of ten thousand jobs have ten megabytes."""
AT_ONCE = 16
"""Requests that wait for the store."""
PORTION = 64
"""Entries that are read before they are kept: a poll that is killed goes on there."""
SECONDS = 300.0
"""For a listing of the index, and for a look into one log."""
PATIENCE = timedelta(hours=1)
"""For how long an entry is looked for at each poll that its pointer told of and that is not there."""


@dataclass(frozen=True, slots=True)
class Poll:
    """What came of one poll.

    Attributes:
        looked: Batches whose logs were looked into.
        entries: How many new entries were read.
        invalid: Which of them cannot be used, with the reason, by key.
        log: New parts of runs' logs, each with when it arrived.
        failed: Batches that could not be looked into, with the reason.
        more: Whether there was more than one poll reads.
    """

    looked: tuple[Id, ...] = ()
    entries: int = 0
    invalid: Mapping[str, str] = field(default_factory=dict)
    log: tuple[tuple[datetime, Object], ...] = ()
    failed: tuple[tuple[Id, str], ...] = ()
    more: bool = False

    @property
    def changed(self) -> bool:
        """Whether home knows something else than before."""
        return bool(self.looked)


async def poll(bucket: Source, store: Store, now: datetime, seconds: float = SECONDS) -> Poll:
    """Bring a history up to date.

    Args:
        bucket: The bucket.
        store: What is known so far.
        now: The time.
        seconds: How long the index, and each log, may take.

    Raises:
        StoreError: The index cannot be listed.
        HistoryError: The history cannot be written.
    """
    cursor = await asyncio.to_thread(store.cursor)
    pointers, more = await _pointers(bucket, cursor.start(now), seconds)
    held = await asyncio.to_thread(store.held, [pointer.entry for pointer in pointers])
    lacking = [pointer for pointer in pointers if pointer.entry not in held]
    following = cursor.advance(pointers, now)
    if lacking or following != cursor:
        await asyncio.to_thread(store.note, following, lacking)
    batches = await asyncio.to_thread(_to_look_into, store, now)
    looks = await _look_into_all(bucket, store, batches[:MOST_LOOKS], now, seconds)
    return Poll(
        tuple(look.batch for look in looks if not look.problem),
        sum(look.entries for look in looks),
        {key: reason for look in looks for key, reason in look.invalid.items()},
        tuple(part for look in looks for part in look.log),
        tuple((look.batch, look.problem) for look in looks if look.problem),
        more or len(batches) > MOST_LOOKS,
    )


async def _pointers(bucket: Source, after: str, seconds: float) -> tuple[list[PointerKey], bool]:
    """Return the pointers whose keys are the smallest after `after`, and whether there are more."""
    keys: list[str] = []
    more = False
    try:
        async with asyncio.timeout(seconds):
            async for item in bucket.list(INDEX, after=after):
                keys.append(item.key)
                if (
                    len(keys) == 2 * MOST_POINTERS
                ):  # a folder lists in no order, so all of it is seen
                    keys, more = sorted(keys)[:MOST_POINTERS], True
    except TimeoutError as error:
        raise StoreError(f"the store took longer than {seconds:g} s to list") from error
    keys.sort()
    found = [key for text in keys[:MOST_POINTERS] if isinstance(key := parse_key(text), PointerKey)]
    return found, more or len(keys) > MOST_POINTERS


def _to_look_into(store: Store, now: datetime) -> list[Id]:
    """Return the batches that have news, and those of which a run should have ended."""
    expected = store.expected(now - PATIENCE, MOST_LOOKS + 1)
    return list(dict.fromkeys([*store.due(now), *expected]))


@dataclass(slots=True)
class _Look:
    """What one look into a batch's log brought; `problem` when it did not end."""

    batch: Id
    entries: int = 0
    invalid: dict[str, str] = field(default_factory=dict)
    log: list[tuple[datetime, Object]] = field(default_factory=list)
    problem: str = ""

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Note what came; the entries themselves are kept by the store alone."""
        self.entries += len(arrived)
        for one in arrived:
            if isinstance(one.entry, Invalid):
                self.invalid[one.key.text] = one.entry.reason
            else:
                self.log += [(one.at, part) for part in one.entry.log]


async def _look_into_all(
    bucket: Source, store: Store, batches: Sequence[Id], now: datetime, seconds: float
) -> list[_Look]:
    gate = asyncio.Semaphore(AT_ONCE)
    looks = [_Look(batch) for batch in batches]
    waiting = iter(looks)

    async def work() -> None:
        for look in waiting:
            try:
                async with asyncio.timeout(seconds):
                    await _look_into(bucket, store, look, gate)
            except TimeoutError:
                look.problem = f"the store took longer than {seconds:g} s"
            except StoreError as error:
                look.problem = error.with_remedy
            else:
                await asyncio.to_thread(store.looked, look.batch, now)

    unusable: list[BaseException] = []
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE // 2):
                group.create_task(work())
    except* HistoryError as errors:
        # What is raised in here comes out as a group again.
        unusable += errors.exceptions
    if unusable:
        raise unusable[0]
    return looks


async def _look_into(bucket: Source, store: Store, look: _Look, gate: asyncio.Semaphore) -> None:
    known = await asyncio.to_thread(store.valid_keys, look.batch)
    async with gate:
        listed = await _log(bucket, look.batch)
    size = 0
    portion: list[Arrived] = []
    new: list[tuple[EntryKey, ObjectInfo]] = []
    for key, item in listed:
        size += min(item.bytes, MOST_BYTES)
        if key in known:
            continue
        if item.bytes > MOST_BYTES or size > MOST_LOG_BYTES:
            portion.append(Arrived(key, item.written, Invalid("it, or its log, is too large")))
        else:
            new.append((key, item))
    for start in range(0, len(new), PORTION):
        some = [_read(bucket, key, item, gate) for key, item in new[start : start + PORTION]]
        read = await asyncio.gather(*some, return_exceptions=True)
        portion += [one for one in read if isinstance(one, Arrived)]
        await _take(store, look, portion)
        portion = []
        for one in read:
            if isinstance(one, BaseException):
                raise one
    await _take(store, look, portion)


async def _take(store: Store, look: _Look, arrived: list[Arrived]) -> None:
    if arrived:
        await asyncio.to_thread(store.add, arrived)
        look.take(arrived)


async def read_log(bucket: Source, batch: Id) -> list[Arrived]:
    """Read a batch's log as it is now, whatever is known of it.

    Raises:
        StoreError: The bucket cannot be read.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    listed = await _log(bucket, batch)
    read = await asyncio.gather(*(_read(bucket, key, item, gate) for key, item in listed))
    return within_bounds(one for one in read if one)


async def _log(bucket: Source, batch: Id) -> list[tuple[EntryKey, ObjectInfo]]:
    """Return what a listing shows of a batch's log, the first to arrive first."""
    found: list[tuple[EntryKey, ObjectInfo]] = []
    async for item in bucket.list(batch_prefix(batch)):
        key = parse_key(item.key)
        if isinstance(key, EntryKey) and key.batch == batch:
            found.append((key, item))
        if len(found) == 2 * MOST_ENTRIES:
            found = _first(found)
    return _first(found)


def _first(found: list[tuple[EntryKey, ObjectInfo]]) -> list[tuple[EntryKey, ObjectInfo]]:
    return sorted(found, key=lambda one: (one[1].written, one[0].text))[:MOST_ENTRIES]


async def _read(
    bucket: Source, key: EntryKey, item: ObjectInfo, gate: asyncio.Semaphore
) -> Arrived | None:
    async with gate:
        content = await bucket.get(key.text, limit=MOST_BYTES)
    if content is None:  # a listing that runs ahead of the objects, or behind a lifecycle rule
        return None
    if len(content) != item.bytes:
        raise StoreError(f"{key.text}: {len(content)} bytes came, and {item.bytes} are listed")
    return Arrived(key, item.written, read_entry(key, item.written, content))
