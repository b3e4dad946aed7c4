"""Time zones, by the values of `TZ`. Decisions only."""

import re
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

_POSIX = re.compile(r":?(?:[A-Za-z]{3,}|<[\w+-]{3,}>)[+-]?\d{1,3}(?::\d\d)*\S*")
"""A POSIX rule, such as `JST-9`, which is not a name."""


def zone_of(name: str) -> ZoneInfo | None:
    """Return the zone of a name such as `Asia/Tokyo`; None for anything else, such as POSIX's `JST-9`."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # a folder such as `Asia` is an OSError
        return None


def zone_problem(name: str, *, by_days: bool) -> str | None:
    """Return why a job cannot have this `TZ`, or None: a C library silently takes an unknown zone for UTC.

    `by_days`: weekdays are judged by it, which a POSIX rule does not allow.
    """
    if zone_of(name) is not None or zone_of("Asia/Tokyo") is None:  # a computer without any zones
        return None
    if _POSIX.fullmatch(name) is None:
        return f'"{name}" is not a time zone'
    if by_days:
        return f'"{name}" is a POSIX rule, which `on` cannot use; write for example "Asia/Tokyo"'
    return None


def zones() -> frozenset[str]:
    """Return the names of all zones on this computer."""
    return frozenset(available_timezones())
