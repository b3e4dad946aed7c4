"""Blocking calls with a limit that holds.

A thread cannot be ended, only abandoned, and by itself `asyncio.run` waits for the threads of `asyncio.to_thread`. A
disk or a name server that does not answer, or an HTTP server that sends a byte a second, would so keep a machine from
switching itself off, whatever limit stood around the call.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


class _Workers(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread`, for which nobody waits once the event loop ends."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: ARG002
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's main coroutine, and return when it does, whatever its threads still do.

    The process has to end as `mayfly` does (docs/decisions/0003): the interpreter would wait for them as well.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Workers())
        return runner.run(main)


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
