"""Appends entries to a batch's log in the bucket, and reads it.

Nothing is conditional, changed or deleted. Each put has a key of its own, also a retry whose first answer was lost: an
object arrives once, or never, at the time that the store says, and a late request does no harm.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import Protocol, TypedDict, Unpack

from agent.base.errors import StoreError, StoreRefused
from agent.batch.fold import Arrived
from agent.contract.entries import (
    MOST_BYTES,
    Began,
    Closed,
    Ended,
    Entry,
    Invalid,
    Object,
    Planned,
    StoodBack,
    read_entry,
    write_entry,
)
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, LogKey, PointerKey, batch_prefix, log_prefix, parse_key

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
"""Seconds between attempts at a put: half a minute, after which the entry waits for the next append."""
MOST_ENTRIES = 25_000
"""Of one batch, and parts of one log, that are read; a run that commits every four seconds has fewer in a day."""
GETS_AT_ONCE = 16


class Listed(Protocol):
    """An object in a listing."""

    @property
    def key(self) -> str:
        """Relative to the bucket's prefix."""

    @property
    def bytes(self) -> int:
        """Its size."""

    @property
    def written(self) -> datetime:
        """When it arrived, by the store's clock."""

    @property
    def etag(self) -> str:
        """The store's tag of its content, without quotes; with most stores its MD5."""


class Source(Protocol):
    """What a reader of logs needs of a bucket; each method raises `StoreError` when the store fails it."""

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        """Yield the objects under a prefix whose keys sort after `after`; some that are new may be lacking."""

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content, of `limit` bytes at most; None when there is none."""


class Store(Source, Protocol):
    """What a writer needs besides."""

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object with one request: after an error it may be there, or arrive later, or never."""


class Parts(TypedDict, total=False):
    """What an entry may say, as `Entry` has it."""

    began: Began | None
    planned: Planned | None
    jobs: Sequence[Ended]
    log: Sequence[Object]
    closed: Closed | None
    stood_back: StoodBack | None


class Opening:
    """A bucket that is still being opened: each request waits for that."""

    def __init__(self, bucket: "asyncio.Task[Store]") -> None:
        self._bucket = bucket

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Listed]:
        """Yield the objects under a prefix."""
        bucket = await asyncio.shield(self._bucket)
        async for item in bucket.list(prefix, after=after):
            yield item

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content."""
        return await (await asyncio.shield(self._bucket)).get(key, limit=limit)

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object with one request."""
        await (await asyncio.shield(self._bucket)).put_once(key, data)


class LogWriter:
    """Appends the entries of one process of a run.

    An entry that could not be put waits, and later ones wait behind it: nothing of a run comes before its beginning.
    Entries that wait, or that `prove` has not found yet, are in memory only. A store may answer yes and keep nothing:
    a caller that must not lose an entry keeps it elsewhere until it is proven.

    Attributes:
        trouble: Why the entry that is being put was not put at the last try; empty when nothing is wrong.
    """

    def __init__(
        self,
        bucket: Store,
        batch: Batch,
        run: str,
        nonce: str,
        *,
        now: Callable[[], datetime],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._batch = batch
        self._run = run
        self._nonce = nonce
        self._now = now
        self._pause = pause
        self._number = 0
        self._began = False
        self._waiting: deque[Entry] = deque()
        self._unproven: dict[EntryKey, Entry] = {}
        self._unpointed: list[tuple[EntryKey, str]] = []
        self._turn = asyncio.Lock()
        self.trouble = ""

    @property
    def pending(self) -> int:
        """How many entries wait."""
        return len(self._waiting)

    @property
    def unproven(self) -> int:
        """How many entries were put, and not found yet by `prove`."""
        return len(self._unproven)

    def add(self, **parts: Unpack[Parts]) -> None:
        """Let an entry wait, behind those that wait already, for the next `flush`.

        Raises:
            ValueError: The first entry of a process has no `began`, or the entry breaks the contract.
        """
        if parts.get("began") is None and not self._began:
            raise ValueError("the first entry of a process says how its run began")
        entry = Entry.model_validate(
            {
                "schedule": self._batch.schedule,
                "batch": self._batch.name,
                "run": self._run,
                "nonce": self._nonce,
                "written": self._now(),
                **parts,
            }
        )
        write_entry(entry)
        self._began = True
        self._waiting.append(entry)

    async def append(self, **parts: Unpack[Parts]) -> None:
        """Append an entry, after all that wait; when this returns, it is committed.

        Raises:
            StoreError: The bucket failed; the entry waits, and may be in the log nevertheless.
            ValueError: As of `add`.
        """
        self.add(**parts)
        await self.flush()

    async def flush(self) -> None:
        """Put what waits, and pointers that are missing.

        A run does so before each look: while its beginning waits, whoever else is in the log was first.

        Raises:
            StoreError: The bucket failed; the rest still waits.
        """
        async with self._turn:
            await self._flush()

    async def prove(self) -> None:
        """Check that the store holds what was put, and put again what it lacks or has changed.

        One LIST, and a GET for each entry whose tag there is not its MD5.

        Raises:
            StoreError: The bucket failed, or does not hold what it accepts.
        """
        async with self._turn:
            for pause in (*PAUSES, None):
                await self._flush()
                await self._list()
                # A copy: whoever reads the log meanwhile may find some of them.
                unproven = [*self._unproven.items()]
                lacking = [one for one in unproven if not await self._holds(*one)]
                self._waiting.extend(entry for _, entry in lacking)
                self._unproven.clear()
                if not lacking:
                    return
                key = lacking[0][0].text
                self.trouble = f"the bucket accepted {key} and does not hold it as it was sent"
                if pause is not None:
                    await self._pause(pause)
            raise StoreError(self.trouble)

    async def _list(self) -> None:
        """Find entries in a listing, which may lag, and whose tags need not be MD5s."""
        prefix = batch_prefix(self._batch)
        if self._unproven:
            async for item in self._bucket.list(
                prefix, after=f"{prefix}{self._run}-{self._nonce}."
            ):
                key = parse_key(item.key)
                if isinstance(key, EntryKey):
                    self.find(key, item.etag)

    def find(self, key: EntryKey, etag: str) -> Entry | None:
        """Return an entry of this process that a listing shows with its MD5, so that it need not be read; else None."""
        entry = self._unproven.get(key)
        if (
            entry is None
            or etag != hashlib.md5(write_entry(entry), usedforsecurity=False).hexdigest()
        ):
            return None
        return self._unproven.pop(key)

    async def _holds(self, key: EntryKey, entry: Entry) -> bool:
        return await self._bucket.get(key.text, limit=MOST_BYTES) == write_entry(entry)

    async def _flush(self) -> None:
        while self._waiting:
            await self._commit(self._waiting[0])
            self._waiting.popleft()
        await self._point_to_rest()

    async def _commit(self, entry: Entry) -> None:
        announced = None
        if entry.began is not None:
            # A machine that vanishes now has left nothing else to know it by.
            announced = self._key()
            await self._point(announced, entry.kind)
        key = await self._put(entry)
        if key != announced:
            self._unpointed.append((key, entry.kind))
        await self._point_to_rest()

    async def _put(self, entry: Entry) -> EntryKey:
        data = write_entry(entry)
        for pause in (*PAUSES, None):
            key = self._key()
            self._number += 1
            try:
                await self._bucket.put_once(key.text, data)
            except StoreError as error:
                self.trouble = str(error)
                if pause is None or isinstance(error, StoreRefused):
                    raise
                await self._pause(pause)
            else:
                self.trouble = ""
                self._unproven[key] = entry
                return key
        raise AssertionError("the last attempt returns or raises")

    async def _point_to_rest(self) -> None:
        self._unpointed = [
            (key, kind) for key, kind in self._unpointed if not await self._point(key, kind)
        ]

    async def _point(self, key: EntryKey, kind: str) -> bool:
        """Put a pointer, and tell whether that succeeded: without it readers find the entry later."""
        for pause in (*PAUSES[:3], None):
            pointer = PointerKey(self._now(), kind, key)
            try:
                await self._bucket.put_once(pointer.text, b"")
            except StoreError as error:
                if pause is None or isinstance(error, StoreRefused):
                    return False
                await self._pause(pause)
            else:
                return True
        return False

    def _key(self) -> EntryKey:
        return EntryKey(self._batch, self._run, self._nonce, self._number)


class LogReader:
    """Reads a batch's log; it gets each entry once, and those of `own`, the writer in this process, not at all."""

    def __init__(self, bucket: Source, batch: Batch, own: LogWriter | None = None) -> None:
        self._bucket = bucket
        self._batch = batch
        self._own = own
        self._known: dict[EntryKey, Arrived] = {}

    @property
    def seen(self) -> tuple[Arrived, ...]:
        """Everything that was seen so far."""
        return tuple(self._known.values())

    async def look(self) -> tuple[Arrived, ...]:
        """List the log, get what is new, and return everything that was seen so far.

        Raises:
            StoreError: The bucket failed.
        """
        new: list[tuple[EntryKey, Listed]] = []
        async for item in self._bucket.list(batch_prefix(self._batch)):
            key = parse_key(item.key)
            if isinstance(key, EntryKey) and key.batch == self._batch and key not in self._known:
                new.append((key, item))
            if len(self._known) + len(new) == MOST_ENTRIES:
                break
        for start in range(0, len(new), GETS_AT_ONCE):
            some = new[start : start + GETS_AT_ONCE]
            for one in await asyncio.gather(*(self._read(key, item) for key, item in some)):
                if one is not None:
                    self._known[one.key] = one
        return self.seen

    async def _read(self, key: EntryKey, item: Listed) -> Arrived | None:
        if item.bytes > MOST_BYTES:
            return Arrived(key, item.written, Invalid(f"it has {item.bytes} bytes"))
        own = self._own.find(key, item.etag) if self._own else None
        if own is not None:
            return Arrived(key, item.written, own)
        content = await self._bucket.get(key.text, limit=MOST_BYTES)
        if content is None:  # a listing that runs ahead of the objects; the next look has it
            return None
        return Arrived(key, item.written, read_entry(key, content))


async def heard(bucket: Source, run: str) -> tuple[datetime, ...]:
    """Return when the parts of a run's log arrived: signs of life that are not in its batch's log.

    Raises:
        StoreError: The bucket failed.
    """
    signs: list[datetime] = []
    async for item in bucket.list(log_prefix(run)):
        if isinstance(parse_key(item.key), LogKey):
            signs.append(item.written)
        if len(signs) == MOST_ENTRIES:
            break
    return tuple(signs)
