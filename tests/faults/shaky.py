"""A bucket in a folder at which something happens: the process dies, the store fails, or it lies."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeVar

from obstore.store import LocalStore

from agent.base.errors import StoreError, StoreRefused
from agent.bucket.store import Bucket, ObjectInfo
from tests.faults.hurry import HurriedLoop

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone; nothing that expects failures catches it."""


class Trouble(Enum):
    """What happens at a request; `DOWN` and `KILL_*` last until the end of the process."""

    NONE = "none"
    KILL_BEFORE = "killed before it"
    KILL_AFTER = "killed after it"
    DOWN = "the store is down from it on"
    REFUSED = "it fails"
    ANSWER_LOST = "it works, and its answer is lost"
    FORGOTTEN = "the store says yes and keeps nothing"


FORGETTABLE = ("runs/", "state/")
"""Where what a store forgets is missed before an entry names it; a forgotten entry is one that was never put."""


@dataclass(frozen=True)
class Fault:
    """Trouble at a request.

    Attributes:
        at: Its number, from 0.
        trouble: What happens there.
        about: How the keys begin of the requests that count.
    """

    at: int
    trouble: Trouble
    about: str = ""


class Shaky(Bucket):
    """A bucket in a folder, with a fault.

    Attributes:
        requests: How many there were that count.
        on_kill: Called when the process is killed.
    """

    def __init__(self, root: Path, fault: Fault) -> None:
        super().__init__(LocalStore(root, mkdir=True), "shaky")
        self._fault = fault
        self._over: Trouble | None = None
        self.on_kill: Callable[[], object] = lambda: None
        self.requests = 0

    async def _request(
        self, key: str, effect: Callable[[], Awaitable[T]], otherwise: T | None
    ) -> T:
        """Do a request; `otherwise` is the answer of a store that keeps nothing, None where it cannot lie."""
        counts = key.startswith(self._fault.about)
        here = counts and self.requests == self._fault.at
        trouble = self._over or (self._fault.trouble if here else Trouble.NONE)
        self.requests += counts
        if trouble in {Trouble.KILL_BEFORE, Trouble.KILL_AFTER}:
            self._over = Trouble.KILL_BEFORE
        if trouble is Trouble.DOWN:
            self._over = trouble
        if trouble is Trouble.KILL_BEFORE:
            self._die()
        if trouble in {Trouble.DOWN, Trouble.REFUSED}:
            raise StoreRefused("the store is down")
        if trouble is Trouble.FORGOTTEN and otherwise is not None and key.startswith(FORGETTABLE):
            return otherwise
        answer = await _under_way(effect())
        if trouble is Trouble.KILL_AFTER:
            self._die()
        if trouble is Trouble.ANSWER_LOST:
            raise StoreError("the answer is lost")
        return answer

    def _die(self) -> None:
        self.on_kill()
        raise Killed

    async def put(self, key: str, data: bytes) -> None:
        """Write."""
        put = super().put
        await self._request(key, lambda: _true(put(key, data)), otherwise=True)

    async def put_once(self, key: str, data: bytes) -> None:
        """Write."""
        put = super().put_once
        await self._request(key, lambda: _true(put(key, data)), otherwise=True)

    async def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        """Write."""
        data = b"".join(chunks)  # read and hashed, whatever becomes of it
        await self.put(key, data)

    async def get(self, key: str, *, limit: int | None = None) -> bytes | None:
        """Read."""
        get = super().get
        return await self._request(key, lambda: get(key, limit=limit), otherwise=None)

    async def size(self, key: str) -> int | None:
        """Look."""
        size = super().size
        return await self._request(key, lambda: size(key), otherwise=None)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """List."""
        listing = super().list(prefix, after=after)

        async def whole() -> list[ObjectInfo]:
            return [item async for item in listing]

        for item in await self._request(prefix, whole, otherwise=None):
            yield item

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete."""
        delete = super().delete
        if keys:
            await self._request(keys[0], lambda: _true(delete(keys)), otherwise=True)


async def _true(work: Awaitable[None]) -> bool:
    await work
    return True


async def _under_way(work: Awaitable[T]) -> T:
    """Wait for a request, of whose threads the loop does not know."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, HurriedLoop)
    loop.begins()
    try:
        return await work
    finally:
        loop.ends()
