"""Rate limits of sites: the interval between visits, and the time of the next one. Decisions only."""

import re

MOST_WAITING = 86400.0
"""Seconds. A reservation further ahead means that the clock was set; it is discarded."""

_RATE = re.compile(r"([1-9][0-9]{0,5})/([1-9][0-9]{0,3})?(s|m|h)", re.ASCII)
_SITE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,200}[a-z0-9])?", re.ASCII)
_UNIT = {"s": 1.0, "m": 60.0, "h": 3600.0}


def interval_of(rate: str) -> float:
    """Return the seconds between two visits at a rate such as `1/s`, `30/m` or `1/10s`.

    Raises:
        ValueError: It is not a rate.
    """
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(f'"{rate}" is not a rate; write for example "1/s", "30/m" or "1/10s"')
    return int(match.group(2) or 1) * _UNIT[match.group(3)] / int(match.group(1))


def is_site(text: str) -> bool:
    """Tell whether a text is a host name in lower case, which is also safe as a file name."""
    return _SITE.fullmatch(text) is not None


def reservation(following: float | None, now: float, interval: float) -> tuple[float, float]:
    """Return the times of the next visit and of the one after it, at least `interval` seconds apart.

    `following` is the second value of the previous call, or None.
    """
    known = following is not None and following <= now + MOST_WAITING
    start = max(following or now, now) if known else now
    return start, start + interval
