"""Being told to stop: SIGTERM from the agent, and the deadline the job was given.

Signals belong to the process, so this module holds the one piece of state that the kit has. A stop is raised as an
exception where the job happens to be, except while a file is being finished: then it is raised right after.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

RESERVE_SECONDS = 15.0
"""How long before its deadline a job stops by itself: time for evidence (8 s), closing the browser and the result."""

RESERVE_SHARE = 0.1
"""Of a short limit, at most this share is kept back."""


class Stopped(BaseException):
    """The job has to end now. Not an `Exception`: a job's own `except Exception` must not swallow it."""


class Interrupted(Stopped):
    """SIGTERM or SIGINT: the run is ending, or the machine is."""


class DeadlineReached(Stopped):
    """The time the job was given is used up."""


class _Stops:
    """Whether a stop may be raised now, waits, or has been raised."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew: nothing is held, nothing has come."""
        self.held = 0
        self.waiting: Stopped | None = None
        self.raised = False

    def stop(self, reason: Stopped) -> None:
        """Raise `reason`, once; while something is being finished, keep it for later."""
        if self.raised:
            return
        if self.held:
            self.waiting = self.waiting or reason
            return
        self.raised = True
        raise reason

    def raise_waiting(self) -> None:
        """Raise what came while stops were held."""
        if self.waiting is not None and not self.held:
            reason, self.waiting = self.waiting, None
            self.stop(reason)


_stops = _Stops()


@contextmanager
def finishing() -> Iterator[None]:
    """Let what is inside finish before a stop is raised; for work that is short, such as writing a file."""
    _stops.held += 1
    try:
        yield
    finally:
        _stops.held -= 1
    _stops.raise_waiting()


@contextmanager
def cleaning_up() -> Iterator[None]:
    """Keep stops out of clean-up that bounds itself: none may replace the error in flight."""
    _stops.held += 1
    try:
        yield
    finally:
        _stops.held -= 1


def stop_after(deadline: float | None, now: float) -> float | None:
    """Return the seconds from `now` (Unix) after which a job with this deadline stops by itself, above zero."""
    if deadline is None:
        return None
    left = deadline - now
    return max(left - min(RESERVE_SECONDS, left * RESERVE_SHARE), 0.01)


@contextmanager
def watch(deadline: float | None) -> Iterator[None]:
    """Turn SIGTERM, SIGINT and the deadline (Unix seconds) into `Stopped` inside the block."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        _stops.stop(Interrupted("told to stop"))

    def alarm(_signal: int, _frame: FrameType | None) -> None:
        _stops.stop(DeadlineReached("out of time"))

    _stops.reset()
    handlers = {signal.SIGTERM: interrupt, signal.SIGINT: interrupt, signal.SIGALRM: alarm}
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    signal.setitimer(signal.ITIMER_REAL, stop_after(deadline, time.time()) or 0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in previous.items():
            signal.signal(number, handler)
