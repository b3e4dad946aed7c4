"""What the parts of the service tell each other: the bucket's health, the pull's, the shipping's."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from consumer.queries import Health


@dataclass(frozen=True, slots=True)
class Pulse:
    """How the service is; times in Unix seconds.

    Attributes:
        began: When the service did.
        last_read: When the bucket was last read to the end, if need be by an earlier process with the same history;
            None while the history is not complete.
        up: Whether the last look into the bucket succeeded.
        problem: Why it could not be read the last time; empty when it could.
        ahead: Index keys that claim a time that has not come.
        pulled: When a pull last ended with all in place.
        pull_refused: Runs that the pull refused; None before the first pull.
        shipping: Whether logs are shipped.
        shipped: When a log was last accepted.
    """

    began: float
    last_read: float | None = None
    up: bool = False
    problem: str = ""
    ahead: int = 0
    pulled: float | None = None
    pull_refused: int | None = None
    shipping: bool = False
    shipped: float | None = None


class State:
    """The pulse, for all threads."""

    def __init__(self, pulse: Pulse, clock: Callable[[], float], stale_after: float) -> None:
        self._pulse = pulse
        self._clock = clock
        self._stale_after = stale_after
        self._lock = threading.Lock()

    @property
    def pulse(self) -> Pulse:
        """How the service is."""
        return self._pulse

    def now(self) -> float:
        """The time (Unix seconds)."""
        return self._clock()

    def tell(self, **changes: object) -> None:
        """Change the pulse."""
        with self._lock:
            self._pulse = replace(self._pulse, **changes)  # type: ignore[arg-type]

    def sick(self) -> str:
        """Return why the service is of no use now: the bucket was not read for too long; empty when it is well."""
        pulse = self._pulse
        age = self._clock() - max(pulse.last_read or 0.0, pulse.began)
        if age <= self._stale_after:
            return ""
        since = "since the start" if pulse.last_read is None else f"for {age:.0f} s"
        return f"the bucket was not read {since}: {pulse.problem or 'no answer yet'}"

    def health(self) -> Health:
        """Return the health, for the page."""
        pulse = self._pulse
        read = None if pulse.last_read is None else datetime.fromtimestamp(pulse.last_read, UTC)
        return Health(read, pulse.problem)
