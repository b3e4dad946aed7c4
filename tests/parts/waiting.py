"""Bounded waiting for something that becomes true."""

import time
from collections.abc import Callable

POLL_SECONDS = 0.02


class WaitedTooLongError(Exception):
    """Something did not become true in the time it was given."""


def wait_until(condition: Callable[[], object], *, what: str, seconds: float = 60.0) -> None:
    """Ask `condition` until it is true.

    Raises:
        WaitedTooLongError: It was still false after `seconds`; the message says `what` was waited for.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise WaitedTooLongError(f"after {seconds:g} s still waiting for {what}")
        time.sleep(POLL_SECONDS)
