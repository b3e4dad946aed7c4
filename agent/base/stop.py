"""A request to stop the run early."""

import asyncio
import math
from collections.abc import Awaitable
from datetime import datetime
from time import monotonic
from typing import TypeVar

T = TypeVar("T")


class StoppedError(Exception):
    """The run was stopped, and the work in hand was abandoned."""


class Stop:
    """Set by a signal, by the run's limit, or by a notice that the machine will be taken.

    Attributes:
        reason: The first reason.
        gone: When the machine will be gone; None if nobody takes it.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._taken = asyncio.Event()
        self.reason = ""
        self.gone: datetime | None = None
        self._asked = math.inf

    def request(self, reason: str, *, gone: datetime | None = None) -> None:
        """Request a stop. The first reason counts; that the machine is taken is noted whenever it comes."""
        if gone is not None:
            self.gone = gone
            self._taken.set()
        if not self._event.is_set():
            self.reason = reason
            self._asked = monotonic()
            self._event.set()

    @property
    def requested(self) -> bool:
        """Whether a stop was requested."""
        return self._event.is_set()

    def overdue(self, seconds: float) -> bool:
        """Tell whether the stop was requested more than `seconds` ago; safe in any thread."""
        return monotonic() - self._asked > seconds

    async def wait(self) -> None:
        """Wait for a request."""
        await self._event.wait()

    async def taken(self) -> None:
        """Wait for a notice that the machine is taken."""
        await self._taken.wait()

    async def pause(self, seconds: float) -> bool:
        """Sleep, at most until a request; tell whether there was one."""
        return await first(self.wait(), seconds=seconds) is not None

    async def in_time(self, answer: Awaitable[T], seconds: float) -> T:
        """Wait for something at most `seconds`, and at most until a request; then it is cancelled.

        Raises:
            TimeoutError: It takes longer.
            StoppedError: The request came first.
        """
        task = asyncio.ensure_future(answer)
        try:
            which = await first(asyncio.wait([task]), self.wait(), seconds=seconds)
            if task.done():
                return task.result()
            raise TimeoutError if which is None else StoppedError
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def first(*waits: Awaitable[object], seconds: float) -> int | None:
    """Return the index of the first of `waits` to end within `seconds`, or None; the others are cancelled."""
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
