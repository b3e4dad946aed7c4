"""A bucket in memory, with a clock, listings that lag, puts that fail, and a count of its requests."""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from agent.base.errors import StoreError


@dataclass(frozen=True)
class Stored:
    """An object."""

    key: str
    data: bytes
    written: datetime

    @property
    def bytes(self) -> int:
        """Its size."""
        return len(self.data)

    @property
    def etag(self) -> str:
        """The MD5 of what it holds."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


@dataclass
class Objects:
    """A store that tells times in whole seconds, as S3 does.

    Attributes:
        now: Its clock.
        lag: What is younger is not listed.
        lost: How many puts still apply and answer with an error all the same.
        away: Whether it answers nothing.
        requests: How many there were of each kind.
    """

    now: datetime = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
    lag: timedelta = timedelta(0)
    lost: int = 0
    away: bool = False
    requests: Counter[str] = field(default_factory=Counter)
    there: dict[str, Stored] = field(default_factory=dict)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stored]:
        """Yield what is old enough to be listed; a page has a thousand."""
        self._answer("list")
        keys = [key for key in sorted(self.there) if key.startswith(prefix) and key > (after or "")]
        self.requests["list"] += max(0, len(keys) - 1) // 1000
        for key in keys:
            if self.there[key].written <= self.now - self.lag:
                yield self.there[key]

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object."""
        self._answer("get")
        return self.there[key].data[:limit] if key in self.there else None

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object, and perhaps deny it."""
        self._answer("put")
        assert key not in self.there, "no key is written twice"
        self.there[key] = Stored(key, data, self.now.replace(microsecond=0))
        if self.lost:
            self.lost -= 1
            raise StoreError("the answer was lost")

    async def opened(self) -> "Objects":
        """Return it, as a bucket that has to be opened first."""
        return self

    def _answer(self, kind: str) -> None:
        self.requests[kind] += 1
        if self.away:
            raise StoreError("it does not answer")
