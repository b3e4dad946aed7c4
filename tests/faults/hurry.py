"""An event loop that does not sleep: where nothing is under way it goes on at the next moment that something waits for.

What the product waits for between two tries, seconds or minutes, takes no time then, and stays in its order.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

GRACE_SECONDS = 0.001
"""For what a thread has to say that has just come to its end."""
LOOK_SECONDS = 0.05


class _Selector(selectors.DefaultSelector):
    """Waits for what is under way, and skips the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way = 0
        self.skipped = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        if self.under_way:
            return super().select(min(timeout, LOOK_SECONDS))
        events = super().select(GRACE_SECONDS)
        if not events:
            self.skipped += timeout
        return events


class _Threads(ThreadPoolExecutor):
    """Threads whose work counts as under way until the loop has heard of its end."""

    def __init__(self, loop: "HurriedLoop") -> None:
        super().__init__(4)
        self._loop = loop

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        self._loop.begins()
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(self._told)
        return future

    def _told(self, _: object) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._loop.call_soon, self._loop.ends)


class HurriedLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._hurried = _Selector()
        super().__init__(self._hurried)
        self.set_default_executor(_Threads(self))

    def time(self) -> float:
        """Return the time, with what was skipped."""
        return super().time() + self._hurried.skipped

    def begins(self) -> None:
        """Note that something is under way that the loop does not know of."""
        self._hurried.under_way += 1

    def ends(self) -> None:
        """Note that it is not any more."""
        self._hurried.under_way -= 1


def run_hurried(work: Coroutine[Any, Any, T]) -> T:
    """Run something to its end."""
    with asyncio.Runner(loop_factory=HurriedLoop) as runner:
        return runner.run(work)
