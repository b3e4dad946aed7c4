"""A request to stop, and what is waited for until then."""

import asyncio

import pytest

from agent.base.stop import Stop, StoppedError


async def endless(cancelled: asyncio.Event) -> None:
    """Do something that does not end by itself."""
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


async def test_what_ends_in_time_is_returned_and_raised() -> None:
    """The answer, or the error, of what was waited for."""

    async def answer() -> int:
        return 42

    async def fail() -> None:
        raise ZeroDivisionError

    assert await Stop().in_time(answer(), 30) == 42
    with pytest.raises(ZeroDivisionError):
        await Stop().in_time(fail(), 30)


async def test_nothing_is_left_of_what_takes_too_long() -> None:
    """It is over when the wait is, whichever ended it: its limit, a request, or the end of whoever waited."""
    cancelled = asyncio.Event()
    with pytest.raises(TimeoutError):
        await Stop().in_time(endless(cancelled), 0)
    assert cancelled.is_set()

    stop, cancelled = Stop(), asyncio.Event()
    asyncio.get_running_loop().call_soon(stop.request, "spot")
    with pytest.raises(StoppedError):
        await stop.in_time(endless(cancelled), 30)
    assert cancelled.is_set()

    cancelled = asyncio.Event()
    waiting = asyncio.create_task(Stop().in_time(endless(cancelled), 30))
    await asyncio.sleep(0)  # it has begun
    await asyncio.sleep(0)  # and what it waits for, too
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled.is_set()
