"""Blocking calls with a limit that holds.

A thread cannot be ended, only abandoned, and `asyncio.run` waits for the threads of `asyncio.to_thread`. A disk, name
server or HTTP server that hangs would keep the machine from switching itself off, whatever the limit around the call.
"""

import _thread
import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class _Workers(ThreadPoolExecutor):
    """The threads of `asyncio.to_thread`, without a wait for them at the end of the event loop."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = True) -> None:  # noqa: ARG002
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's main coroutine, and return when it ends, whatever its threads still do.

    The process must end as `mayfly` does (docs/decisions/0003): the interpreter would wait for the threads as well.
    """
    with asyncio.Runner() as runner:
        runner.get_loop().set_default_executor(_Workers())
        return runner.run(main)


def begun(function: Callable[[], T]) -> Future[T]:
    """Begin a function in a thread of its own; the future has what it returns or raises, and cannot be cancelled."""
    answer: Future[T] = Future()
    answer.set_running_or_notify_cancel()

    def work() -> None:
        try:
            answer.set_result(function())
        except Exception as error:  # noqa: BLE001 -- it is raised where the answer is awaited
            answer.set_exception(error)

    # `Thread.start` waits until the thread runs, and the event loop with it: long, where all processors are taken.
    _thread.start_new_thread(work, ())
    return answer


async def in_thread(function: Callable[[], T], *, seconds: float) -> T:
    """Return or raise what a blocking function does, in its own thread, within `seconds`.

    Raises:
        TimeoutError: It took longer, as the text says; it may still be running.
    """
    answer = begun(function)
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(answer)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"it took more than {seconds:g} s") from error
