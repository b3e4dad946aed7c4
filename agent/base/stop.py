"""A request to stop the run early."""

import asyncio
import math
from collections.abc import Awaitable
from datetime import datetime
from time import monotonic


class StoppedError(Exception):
    """The run was told to stop, and what was being done was given up."""


class Stop:
    """Set by a signal, by the run's limit, or by a notice that the machine will be taken.

    Attributes:
        reason: Why; the first counts.
        gone: When the machine will be gone; None when nobody takes it.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._taken = asyncio.Event()
        self.reason = ""
        self.gone: datetime | None = None
        self._asked = math.inf

    def request(self, reason: str, *, gone: datetime | None = None) -> None:
        """Ask the run to stop; the first reason counts, but that the machine is taken is noted whenever it comes."""
        if gone is not None:
            self.gone = gone
            self._taken.set()
        if not self._event.is_set():
            self.reason = reason
            self._asked = monotonic()
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether the run was asked to stop."""
        return self._event.is_set()

    def overdue(self, seconds: float) -> bool:
        """Tell whether it was asked to stop more than so many seconds ago; any thread may ask."""
        return monotonic() - self._asked > seconds

    async def wait(self) -> None:
        """Wait until it is asked to stop."""
        await self._event.wait()

    async def taken(self) -> None:
        """Wait until the machine is taken back."""
        await self._taken.wait()

    async def pause(self, seconds: float) -> bool:
        """Sleep, but no longer than until the run is asked to stop; tell whether it was."""
        return await first(self.wait(), seconds=seconds) is not None


async def first(*waits: Awaitable[object], seconds: float) -> int | None:
    """Return the position of the first of `waits` to end within `seconds`, or None; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=max(seconds, 0), return_when=asyncio.FIRST_COMPLETED
        )
        return next((number for number, task in enumerate(tasks) if task in done), None)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
