"""Polls a bucket into the history: one LIST when nothing is new, and each new object is read once.

`agent.batch.follow` decides where the reader looks. A store that is slow, fails or lies is an expected failure: what
was read stays, what was not is read at the next poll.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Literal

from agent.base.errors import StoreError
from agent.batch.fold import Arrived
from agent.contract.entries import MOST_BYTES, Invalid
from agent.contract.ids import Batch as Id
from agent.contract.layout import INDEX, EntryKey, PointerKey, batch_prefix, parse_key
from consumer.bucket import ObjectInfo, Source
from consumer.entries import read_entry, within_bounds
from consumer.store import MOST_POINTERS as MOST_KEPT
from consumer.store import HistoryError, Store

MOST_POINTERS = 10_000
"""Of one poll, those with the smallest keys; the next poll goes on behind them."""
MOST_LOOKS = 500
"""Batches that one poll looks into; the next goes on with the others."""
MOST_ENTRIES = 25_000
"""Of one batch that are read; a run that commits every four seconds has fewer in a day."""
MOST_LOG_BYTES = 32 * 1024**2
"""Of one batch's entries together: those of ten thousand jobs have ten megabytes."""
MOST_AGAIN = 50
"""Of them, those that are looked into because of entries that could not be read: each costs a LIST a day."""
AT_ONCE = 16
"""Requests that wait for the store."""
PORTION = 64
"""Entries that are read before they are kept: a poll that is killed goes on there."""
SECONDS = 300.0
"""For a listing of the index, and for a look into one log."""
PATIENCE = timedelta(hours=1)
"""For how long an entry is looked for at each poll that its pointer told of and that is not there."""
AGAIN = timedelta(days=1)
"""After which it is asked whether an entry that could not be read is still there, as it was."""

Listed = tuple[EntryKey, ObjectInfo]
"""An entry in a listing."""
_TOO_LARGE = "it, or its log, is too large"


@dataclass(frozen=True, slots=True)
class Poll:
    """What came of one poll.

    Attributes:
        looked: Batches whose logs were looked into.
        entries: How many new entries were read.
        invalid: Which of them cannot be used, with the reason, by key.
        failed: Batches that could not be looked into, with the reason.
        more: Whether there is more than one poll reads, and this one came further: the next need not wait.
    """

    looked: tuple[Id, ...] = ()
    entries: int = 0
    invalid: Mapping[str, str] = field(default_factory=dict)
    failed: tuple[tuple[Id, str], ...] = ()
    more: bool = False


async def poll(bucket: Source, store: Store, now: datetime, seconds: float = SECONDS) -> Poll:
    """Bring a history up to date; the index, and each log, may take so many seconds.

    Raises:
        StoreError: The index cannot be listed, or no object can be read.
        HistoryError: The history cannot be written.
    """
    # Where there is no room, the logs come first that earlier pointers told of.
    room = await asyncio.to_thread(store.unasked) + MOST_POINTERS <= MOST_KEPT
    goes_on = room and await _read_index(bucket, store, now, seconds)
    looks = await asyncio.to_thread(_to_look_into, store, now)
    many, looks = len(looks) > MOST_LOOKS, looks[:MOST_LOOKS]
    await _look_into_all(bucket, store, looks, now, seconds)
    looked = tuple(look.batch for look in looks if not look.problem)
    failed = tuple((look.batch, look.problem) for look in looks if look.problem)
    entries = sum(look.entries for look in looks)
    # Keys that may list and not read: who took that for a night without news would call it missed.
    if failed and not entries and not await _is_readable(bucket, store, seconds):
        (batch, problem), count = failed[0], len(failed)
        name = f"{batch.schedule}/{batch.name}"
        raise StoreError(f"no log could be read, of {count} with news, such as {name}: {problem}")
    left = bool(looked) and (many or not room)
    if left:  # not those that were looked for in vain, and are once more by each poll for a while
        left = bool(await asyncio.to_thread(lambda: store.unasked() or store.due(now)))
    return Poll(
        looked,
        entries,
        {key: reason for look in looks for key, reason in look.invalid.items()},
        failed,
        goes_on or left,
    )


async def _read_index(bucket: Source, store: Store, now: datetime, seconds: float) -> bool:
    """Note what the index tells of and is not known; return whether it goes on, behind a key that is noted as well."""
    cursor = await asyncio.to_thread(store.cursor)
    # A cursor looks back, so that it alone would come no further than one page in an hour full of pointers.
    page = await asyncio.to_thread(store.page)
    pointers, following_page = await _pointers(bucket, page or cursor.start(now), seconds)
    held = await asyncio.to_thread(store.held, [pointer.entry for pointer in pointers])
    lacking = [pointer for pointer in pointers if pointer.entry not in held]
    following = cursor.advance(pointers, now)
    if lacking or (following, following_page) != (cursor, page):
        await asyncio.to_thread(store.note, following, lacking, following_page)
    return bool(following_page)


async def _pointers(bucket: Source, after: str, seconds: float) -> tuple[list[PointerKey], str]:
    """Return the pointers whose keys are the smallest after `after`, and the last key where there are more."""
    keys: list[str] = []
    more = False
    try:
        async with asyncio.timeout(seconds):
            async for item in bucket.list(INDEX, after=after):
                keys.append(item.key)
                if len(keys) == 2 * MOST_POINTERS:  # a folder lists in no order: all of it is seen
                    keys, more = sorted(keys)[:MOST_POINTERS], True
    except TimeoutError as error:
        raise StoreError(f"the store took longer than {seconds:g} s to list") from error
    more, keys = more or len(keys) > MOST_POINTERS, sorted(keys)[:MOST_POINTERS]
    found = [key for text in keys if isinstance(key := parse_key(text), PointerKey)]
    return found, keys[-1] if more else ""


@dataclass(slots=True)
class _Look:
    """What one look into a batch's log brought; `problem` when it did not end.

    One that is not `whole` reads nothing again that could not be read and is still as it was.
    """

    batch: Id
    whole: bool
    entries: int = 0
    invalid: dict[str, str] = field(default_factory=dict)
    problem: str = ""


def _to_look_into(store: Store, now: datetime) -> list[_Look]:
    """Return the batches of which a run should have ended, some with what could not be read, and those with news."""
    due, expected = store.due(now), store.expected(now - PATIENCE, MOST_LOOKS + 1)
    again = store.unread(now - AGAIN, MOST_AGAIN)
    whole = {*due, *expected, *(batch for batch, by_another in again.items() if by_another)}
    batches = dict.fromkeys([*due, *again, *expected])
    return [_Look(batch, batch in whole) for batch in batches]


async def _look_into_all(
    bucket: Source, store: Store, looks: Sequence[_Look], now: datetime, seconds: float
) -> None:
    # An entry takes ten times the memory of its text: of one log at a time, while the others are fetched.
    gate, turn = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
    waiting = iter(looks)

    async def work() -> None:
        for look in waiting:
            try:
                async with asyncio.timeout(seconds):
                    await _look_into(bucket, store, look, gate, turn)
            except TimeoutError:
                look.problem = f"the store took longer than {seconds:g} s"
            except StoreError as error:
                look.problem = error.with_remedy
            keep = store.announced if look.problem else store.looked
            async with turn:
                await asyncio.to_thread(keep, look.batch, now)

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


async def _look_into(
    bucket: Source, store: Store, look: _Look, gate: asyncio.Semaphore, turn: asyncio.Lock
) -> None:
    def checked() -> Iterator[Arrived]:
        """Check what came, one after the other: each may take fifty times the memory of its text."""
        for one in chain(too_large, (_arrived(*one) for one in came)):
            look.entries += 1
            if isinstance(one.entry, Invalid):
                look.invalid[one.key.text] = one.entry.reason
            yield one

    known = await asyncio.to_thread(store.valid_keys, look.batch)
    async with gate:
        listed = await _log(bucket, look.batch)
    unread = await asyncio.to_thread(store.invalid, look.batch)
    if len(listed) < MOST_ENTRIES and (gone := unread.keys() - {key for key, _ in listed}):
        await asyncio.to_thread(store.forget, gone)
    if not look.whole:
        # What did not fit fits once others are deleted.
        known |= {
            key
            for key, item in listed
            if key in unread and unread[key][0] == item.written and unread[key][1] != _TOO_LARGE
        }
    fitting, too_large = _within_bytes(listed)
    new = [(key, item) for key, item in fitting if key not in known]
    too_large = [one for one in too_large if one.key not in known]
    for start in range(0, len(new) or 1, PORTION):
        some = [_read(bucket, *one, gate) for one in new[start : start + PORTION]]
        read = await asyncio.gather(*some, return_exceptions=True)
        came = [one for one in read if isinstance(one, tuple)]
        if came or too_large:
            async with turn:
                await asyncio.to_thread(lambda: store.add(checked()))
        too_large = []
        for problem in read:
            if isinstance(problem, BaseException):
                raise problem


async def _is_readable(bucket: Source, store: Store, seconds: float) -> bool:
    """Tell whether what was read before still can be: one log may have an object that is not for us."""
    key = await asyncio.to_thread(store.last_read)
    if key is None:
        return False
    try:
        async with asyncio.timeout(seconds):
            await _log(bucket, key.batch)
            return await bucket.get(key.text, limit=MOST_BYTES) is not None
    except (StoreError, TimeoutError):
        return False


async def read_log(bucket: Source, batch: Id) -> list[Arrived]:
    """Read a batch's log as it is now, whatever is known of it.

    Raises:
        StoreError: The bucket cannot be read.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    fitting, too_large = _within_bytes(await _log(bucket, batch))
    read = await asyncio.gather(*(_read(bucket, *one, gate) for one in fitting))
    return within_bounds([*too_large, *(_arrived(*one, "ignore") for one in read if one)])


async def _log(bucket: Source, batch: Id) -> list[Listed]:
    """Return what a listing shows of a batch's log, the first to arrive first."""
    found: list[Listed] = []
    async for item in bucket.list(batch_prefix(batch)):
        key = parse_key(item.key)
        if isinstance(key, EntryKey) and key.batch == batch:
            found.append((key, item))
        if len(found) == 2 * MOST_ENTRIES:
            found = _first(found)
    return _first(found)


def _within_bytes(listed: Sequence[Listed]) -> tuple[list[Listed], list[Arrived]]:
    """Return which entries of a log are read, and what is told of the others."""
    size = 0
    fitting: list[Listed] = []
    too_large: list[Arrived] = []
    for key, item in listed:
        size += min(item.bytes, MOST_BYTES)
        if item.bytes > MOST_BYTES or size > MOST_LOG_BYTES:
            too_large.append(Arrived(key, item.written, Invalid(_TOO_LARGE)))
        else:
            fitting.append((key, item))
    return fitting, too_large


def _first(found: list[Listed]) -> list[Listed]:
    return sorted(found, key=lambda one: (one[1].written, one[0].text))[:MOST_ENTRIES]


async def _read(
    bucket: Source, key: EntryKey, item: ObjectInfo, gate: asyncio.Semaphore
) -> tuple[EntryKey, ObjectInfo, bytes] | None:
    async with gate:
        content = await bucket.get(key.text, limit=MOST_BYTES)
    if content is None:  # a listing that runs ahead of the objects, or behind a lifecycle rule
        return None
    if len(content) != item.bytes:
        raise StoreError(f"{key.text}: {len(content)} bytes came, and {item.bytes} are listed")
    return key, item, content


def _arrived(
    key: EntryKey, item: ObjectInfo, content: bytes, extra: Literal["allow", "ignore"] = "allow"
) -> Arrived:
    return Arrived(key, item.written, read_entry(key, item.written, content, extra))
