"""A bucket in a folder at which something happens: the process dies, the store fails, or it lies."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from obstore.store import LocalStore

from agent.base.errors import StoreError, StoreRefused
from agent.bucket.store import Bucket, Data, ObjectInfo
from tests.bucket.layout import ENTRIES, MANIFEST

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


@dataclass(frozen=True)
class Fault:
    """Trouble at a request.

    Attributes:
        at: Its number, from 0.
        trouble: What happens there.
        committing: Whether only requests count that are about a manifest or an index entry.
    """

    at: int
    trouble: Trouble
    committing: bool = False


class Shaky(Bucket):
    """A bucket in a folder, with a fault.

    Attributes:
        requests: How many there were that count.
        conditions: Whether it honours conditional puts.
    """

    def __init__(self, root: Path, fault: Fault, *, conditions: bool) -> None:
        super().__init__(LocalStore(root, mkdir=True), "shaky")
        self._fault = fault
        self._over: Trouble | None = None
        self.requests = 0
        self.conditions = conditions

    async def _request(
        self, key: str, effect: Callable[[], Awaitable[T]], otherwise: T | None
    ) -> T:
        """Do a request; `otherwise` is the answer of a store that keeps nothing, None where it cannot lie."""
        counts = not self._fault.committing or key.startswith(ENTRIES) or key.endswith(MANIFEST)
        here = counts and self.requests == self._fault.at
        trouble = self._over or (self._fault.trouble if here else Trouble.NONE)
        self.requests += counts
        if trouble in {Trouble.KILL_BEFORE, Trouble.KILL_AFTER}:
            self._over = Trouble.KILL_BEFORE
        if trouble is Trouble.DOWN:
            self._over = trouble
        if trouble is Trouble.KILL_BEFORE:
            raise Killed
        if trouble in {Trouble.DOWN, Trouble.REFUSED}:
            # Not `StoreError`, which is tried again for a minute.
            raise StoreRefused("the store is down")
        if trouble is Trouble.FORGOTTEN and otherwise is not None:
            return otherwise
        answer = await effect()
        if trouble is Trouble.KILL_AFTER:
            raise Killed
        if trouble is Trouble.ANSWER_LOST:
            raise StoreError("the answer is lost")
        return answer

    async def put(self, key: str, data: Data) -> None:
        """Write."""
        put = super().put
        await self._request(key, lambda: _true(put(key, data)), otherwise=True)

    async def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        """Write."""
        data = b"".join(chunks)  # read and hashed, whatever becomes of it
        await self.put(key, data)

    async def _put_new(self, key: str, data: Data) -> None:
        put = super()._put_new if self.conditions else super().put
        await self._request(key, lambda: _true(put(key, data)), otherwise=True)

    async def get(self, key: str, *, limit: int | None = None) -> bytes | None:
        """Read."""
        get = super().get
        return await self._request(key, lambda: get(key, limit=limit), otherwise=None)

    async def size(self, key: str) -> int | None:
        """Look."""
        size = super().size
        return await self._request(key, lambda: size(key), otherwise=None)

    async def holds(self, key: str, data: Data) -> bool:
        """Compare."""
        holds = super().holds
        return await self._request(key, lambda: holds(key, data), otherwise=None)

    async def list(self, prefix: str, *, after: str | None = None) -> Any:
        """List."""
        listing = super().list(prefix, after=after)

        async def whole() -> list[ObjectInfo]:
            return [item async for item in listing]

        for item in await self._request(prefix, whole, otherwise=None):
            yield item

    async def delete(self, keys: Any) -> None:
        """Delete."""
        delete = super().delete
        if keys:
            await self._request(keys[0], lambda: _true(delete(keys)), otherwise=True)


async def _true(work: Awaitable[None]) -> bool:
    await work
    return True
