"""A bucket in memory, at the edge of the protocol: with a clock of its own, and with what stores do to clients."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.base.errors import StoreError
from agent.batch.log import Store
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from tests.batch.entries import SLOT, at, began
from tests.batch.world import Stored

PAGE = 1000
SCHEDULED = Purpose(slot=SLOT.slot)


class TimeIsUpError(Exception):
    """Whoever waits is stopped: the test has seen enough."""


@dataclass
class Clock:
    """The time of the store and of everybody, in seconds since the beginning of the tests' world."""

    seconds: float = 0.0
    until: float = float("inf")
    waiters: list[tuple[float, "asyncio.Future[None]"]] = field(default_factory=list)

    def now(self) -> datetime:
        """Return the time."""
        return at(self.seconds)

    def monotonic(self) -> float:
        """Return the seconds that have passed."""
        return self.seconds

    async def pause(self, seconds: float) -> None:
        """Let the time pass."""
        self.seconds += seconds
        await asyncio.sleep(0)
        if self.seconds > self.until:
            raise TimeIsUpError

    async def sleep(self, seconds: float) -> None:
        """Wait until others have let the time pass."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiters.append((self.seconds + seconds, waiter))
        await waiter

    async def pass_seconds(self, seconds: float) -> None:
        """Let the time pass, a second at a time; whoever waits has its turn."""
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += 1
            for one in [one for one in self.waiters if one[0] <= self.seconds]:
                self.waiters.remove(one)
                if not one[1].done():
                    one[1].set_result(None)
            for _ in range(5):
                await asyncio.sleep(0)


@dataclass
class MemoryBucket:
    """Counts requests as they are billed: a LIST for each thousand keys.

    Attributes:
        clock: Its time.
        lag: Seconds for which a listing lacks what arrived.
        fails: Kinds of requests that fail: `list`, `get`, `put`.
        hangs: Kinds of requests that are never answered.
        slow: Seconds that each request takes.
    """

    clock: Clock = field(default_factory=Clock)
    lag: float = 0.0
    slow: float = 0.0
    fails: set[str] = field(default_factory=set)
    hangs: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    keys: list[tuple[str, str]] = field(default_factory=list)
    objects: dict[str, Stored] = field(default_factory=dict)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stored]:
        """Yield what a listing shows, a page with each request."""
        await self._ask("list", prefix)
        visible = self.clock.seconds - self.lag
        found = sorted(
            key
            for key, one in self.objects.items()
            if key.startswith(prefix) and key > (after or "") and one.at <= visible
        )
        for number, key in enumerate(found):
            if number and number % PAGE == 0:
                await self._ask("list", prefix)
            yield self.objects[key]

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content."""
        await self._ask("get", key)
        stored = self.objects.get(key)
        return stored.data if stored else None

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object; twice is a defect."""
        await self._ask("put", key)
        assert key not in self.objects, f"{key} is written twice"
        self.place(key, data)

    def place(self, key: str, data: bytes = b"", *, ago: float = 0.0) -> None:
        """Let an object be there, since some seconds."""
        moment = self.clock.seconds - ago
        self.objects[key] = Stored(key, data, at(moment).replace(microsecond=0), moment)

    def forget(self) -> Counter[str]:
        """Return what was asked so far, and count from here."""
        asked, self.asked = self.asked, Counter()
        self.keys.clear()
        return asked

    async def _ask(self, kind: str, key: str) -> None:
        self.asked[kind] += 1
        self.keys.append((kind, key))
        self.clock.seconds += self.slow
        await asyncio.sleep(0)
        if kind in self.hangs:
            await asyncio.Event().wait()
        if kind in self.fails:
            raise StoreError(f"could not {kind} {key}")


def session(
    bucket: MemoryBucket,
    run: str,
    purpose: Purpose = SCHEDULED,
    *,
    boot: str | None = None,
    channel: str = "main",
    of: Store | None = None,
    **more: Any,
) -> BatchSession:
    """Return the session of a run that begins now; `boot` is of the one machine that is known by its id."""
    clock = bucket.clock
    return BatchSession(
        of or bucket,
        run,
        run[-6:] + "00",
        purpose,
        began(clock.seconds, instance="i-1" if boot else None, boot=boot, channel=channel),
        **{"now": clock.now, "pause": clock.pause, "clock": clock.monotonic} | more,
    )
