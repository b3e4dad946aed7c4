"""The maintenance lease: the uptime until which the machine stays on for a person. Decisions only.

`systemd/lease.sh` and `systemd/deadman.sh` read and write the same number, in seconds since the kernel started: it
is independent of the clock, and ends with the boot.
"""

import re

from agent.base.errors import UsageError

LONGEST = 24 * 3600.0
"""No lease holds the machine beyond this uptime (seconds); the scripts have the same number."""

_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def granted(uptime: float, seconds: float) -> int:
    """Return the uptime until which a lease holds that is granted now for `seconds`.

    Raises:
        UsageError: The machine has been on for longer than any lease may hold it.
    """
    if uptime >= LONGEST:
        raise UsageError(
            f"the machine has been on for {uptime / 3600:.0f} h, and no lease goes beyond 24 h",
            remedy="start it anew",
        )
    return int(min(uptime + seconds, LONGEST))


def seconds_left(text: str, uptime: float) -> float:
    """Return how long a lease still holds; 0 if it is over or invalid."""
    line = (text.splitlines() or [""])[0].strip()
    until = float(line) if _NUMBER.fullmatch(line) else 0.0
    return max(0.0, min(until, LONGEST) - uptime)
