"""Whether the limits of the machine's units leave a run its time, and end it after that. Decisions only."""

import re

from agent.base.units import show_duration

STOP_SECONDS = 120.0
"""`TimeoutStopSec=` of mayfly.service: its time to end in order after its limit."""

BOOT_SECONDS = 300.0
"""From power-on, where the dead-man starts to count, to the beginning of the run, at most."""

DEADMAN_SECONDS = 3600.0
"""From `limits.run` to the dead-man's deadline, as `systemd/install.sh --limit` sets it."""

_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|min|h|d|w|month|y)")
_UNITS = {
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
    "w": 7 * 86400.0,
    "month": 2629800.0,  # systemd.time(7)
    "y": 31557600.0,
}


def parse_span(text: str) -> float | None:
    """Return the seconds of a time as `systemctl show` prints it (`2h 15min`); None for `infinity` or other text."""
    words = text.split()
    parts = [_PART.fullmatch(word) for word in words]
    if not words or not all(parts):
        return None
    return sum(float(part[1]) * _UNITS[part[2]] for part in parts if part)


def deadline_of(timers: str) -> float | None:
    """Return the dead-man's deadline, in seconds after power-on, from its `TimersMonotonic`; None without one."""
    found = re.search(r"OnBootUSec=([^;}]*)", timers)
    return parse_span(found[1].strip()) if found else None


def complaint(run: float, runtime_max: float | None, deadline: float | None) -> str:
    """Return what is wrong with the limits of the units for a run of `run` seconds; empty if they fit.

    Args:
        run: `limits.run`.
        runtime_max: `RuntimeMaxSec=` of mayfly.service, in seconds; None for no limit.
        deadline: The dead-man's, in seconds after power-on; None if there is no timer.
    """
    if deadline is None:
        return "the dead-man timer is not installed: nothing switches off a machine that hangs"
    if runtime_max is not None and runtime_max < run:
        return (
            f"mayfly.service is ended after {show_duration(runtime_max)},"
            f" limits.run is {show_duration(run)}"
        )
    needed = BOOT_SECONDS + (runtime_max or run) + STOP_SECONDS
    if deadline < needed:
        return (
            f"the dead-man switches off {show_duration(deadline)} after power-on,"
            f" and a run may need until {show_duration(needed)}"
        )
    return ""
