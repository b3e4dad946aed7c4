"""Rate limits of sites, over all agents of a machine that share a folder: a file for each site, with a lock."""

import fcntl
import math
import time
from pathlib import Path

from agent.base.errors import StateError
from agent.base.rates import reservation
from agent.base.threads import in_thread

LOCK_SECONDS = 10.0
"""For reading and writing a number under a lock that nobody holds for longer."""


async def reserve(folder: Path, site: str, interval: float, *, within: float) -> float | None:
    """Reserve the next visit to a site, and return the seconds until then; None, without one, if it is too late.

    Visits are `interval` seconds apart for all agents that share the folder; `within` seconds is the longest wait.

    Raises:
        StateError: The folder cannot be used.
    """
    try:
        return await in_thread(lambda: _take(folder / site, interval, within), seconds=LOCK_SECONDS)
    except (OSError, TimeoutError) as error:
        raise StateError(f"the rate limit of {site} cannot be kept in {folder}: {error}") from error


def _take(path: Path, interval: float, within: float) -> float | None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        now = time.time()
        start, following = reservation(_number(stream.read(64)), now, interval)
        if start - now > within:
            return None
        # No fsync: a restart takes longer than the interval.
        stream.truncate(0)
        stream.write(f"{following:.3f}")
        stream.flush()
        return start - now


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
