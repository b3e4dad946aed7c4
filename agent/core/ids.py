"""Run ids and the stamps that make keys sort by time."""

import re
from datetime import UTC, datetime

RUN_ID = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
"""`20261122T064205Z-3f9a1c`: the start in UTC and six random hex digits."""


def run_id(started: datetime, entropy: bytes) -> str:
    """Return the id of a run that began at `started` (aware), told apart by three bytes of `entropy`."""
    return f"{started.astimezone(UTC):%Y%m%dT%H%M%SZ}-{entropy[:3].hex()}"


def is_run_id(text: str) -> bool:
    """Tell whether `text` has the form of a run id."""
    return RUN_ID.fullmatch(text) is not None


def run_started(run: str) -> datetime:
    """Return when a run began, to the second, from its id.

    Raises:
        ValueError: `run` is not a run id.
    """
    if not is_run_id(run):
        raise ValueError(f"not a run id: {run!r}")
    return datetime.strptime(run[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def commit_stamp(moment: datetime) -> str:
    """Return `20261122T064817.123Z`: UTC with milliseconds, so that text order is time order."""
    utc = moment.astimezone(UTC)
    return f"{utc:%Y%m%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"
