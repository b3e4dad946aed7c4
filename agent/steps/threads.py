"""Blocking calls with a limit that holds.

`asyncio.to_thread` cannot be abandoned: its threads are waited for when the program ends. A name server that does not
answer, or an HTTP server that sends a byte a second, would so keep a machine from switching itself off.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def in_thread(function: Callable[[], T], *, seconds: float) -> T:
    """Return what a blocking function returns, or raise what it raises.

    Args:
        function: Runs in a thread of its own, which nobody waits for once the limit has passed.
        seconds: The limit.

    Raises:
        TimeoutError: It took longer; it may still be running.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def succeed(result: T) -> None:
        if not answer.done():
            answer.set_result(result)

    def fail(error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    def work() -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 -- it is raised where the answer is awaited
            _tell(loop, fail, error)
        else:
            _tell(loop, succeed, result)

    threading.Thread(target=work, daemon=True).start()
    async with asyncio.timeout(seconds):
        return await answer


def _tell(loop: asyncio.AbstractEventLoop, tell: Callable[[T], None], value: T) -> None:
    with suppress(RuntimeError):  # the loop ended meanwhile, and nobody listens
        loop.call_soon_threadsafe(tell, value)
