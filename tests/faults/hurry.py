"""An event loop that does not sleep: where nothing is under way it goes on at the next moment that something waits for.

What the product waits for between two tries, seconds or minutes, takes no time then, and stays in its order.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

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


class HurriedLoop(asyncio.SelectorEventLoop):
    """The loop."""

    def __init__(self) -> None:
        self._hurried = _Selector()
        super().__init__(self._hurried)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> "asyncio.Future[T]":
        """Let a thread's work count as under way until the loop has heard of its end."""
        self.begins()
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(lambda _: self.ends())
        return future

    async def shutdown_default_executor(self, *seconds: float | None) -> None:
        """Let the end of the threads count as under way: Python 3.12 and newer wait for it with a limit."""
        self.begins()
        try:
            await super().shutdown_default_executor(*seconds)
        finally:
            self.ends()

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
