"""Durations and sizes as people write them in TOML: `"10m"`, `"1h30m"`, `"1GiB"`. Decisions only."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?", re.ASCII)
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]i?)?B?", re.IGNORECASE | re.ASCII)
_LARGEST = 2**63
"""Bytes; no file is as large."""
_LONGEST = 3660 * 86400.0
"""Seconds; nothing here takes ten years, and dates end after a few thousand of them."""
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def parse_duration(value: object) -> float:
    """Return the seconds of `"1d2h3m4s"`, or of a number of seconds.

    Raises:
        ValueError: It is not a duration above zero and below ten years.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(min(value, 2 * _LONGEST))
    else:
        match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None or not any(match.groups()):
            raise ValueError('not a duration; write for example "90s", "10m" or "1h30m"')
        days, hours, minutes, rest = (float(group or 0) for group in match.groups())
        seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
    if not 0 < seconds < _LONGEST:
        raise ValueError("a duration must be above zero, and below ten years")
    return seconds


def parse_size(value: object) -> int:
    """Return the bytes of `"1KiB"` (1024), `"1kB"` (1000), `"5G"` (as `GiB`), or of a number of bytes.

    Raises:
        ValueError: It is not a size.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if not 0 <= value < _LARGEST:
            raise ValueError("a size cannot be negative, nor this large")
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not a size; write for example "500kB", "1KiB" or "2GiB"')
    number, prefix = match.group(1), (match.group(2) or "")
    decimal = len(prefix) == 1 and match.group(0).upper().endswith("B")
    size = float(number) * (1000 if decimal else 1024) ** _POWERS[prefix[:1].upper()]
    if not size < _LARGEST:
        raise ValueError("too large to be a size")
    return int(size)


def show_duration(seconds: float) -> str:
    """Format seconds: `0.4s`, `42s`, `3m 05s`, `2h 10m`."""
    if seconds < 10:  # noqa: PLR2004 -- below ten seconds a decimal says something
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h {minutes:02d}m"
    return f"{minutes}m {rest:02d}s" if minutes else f"{rest}s"


def show_size(size: float) -> str:
    """Format bytes in powers of 1000: `812 B`, `4.1 kB`, `1.3 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 -- decimal units
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def parse_span(value: object) -> float:
    """Return seconds as `parse_duration` does; `0`, `"0"` and `"0s"` are zero.

    Raises:
        ValueError: It is not a duration.
    """
    nothing = value in ("0", "0s") or (value == 0 and not isinstance(value, bool))
    return 0.0 if nothing else parse_duration(value)


def _schema(pattern: str, number: dict[str, Any], description: str) -> WithJsonSchema:
    forms = [{"type": "string", "pattern": pattern}, number]
    return WithJsonSchema({"anyOf": forms, "description": description})


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    _schema(
        r"^(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?$",
        {"type": "number", "exclusiveMinimum": 0},
        'Duration such as "90s", "10m", "1h30m", or seconds.',
    ),
]
"""A duration in seconds, written as `"10m"` or as a number."""

Span = Annotated[
    float,
    BeforeValidator(parse_span),
    _schema(
        r"^(0|(\d+d)?(\d+h)?(\d+m)?(\d+(\.\d+)?s)?)$",
        {"type": "number", "minimum": 0},
        'Duration such as "90s" or "6h", or seconds; 0 for none.',
    ),
]
"""A duration in seconds that may be zero."""

Size = Annotated[
    int,
    BeforeValidator(parse_size),
    _schema(
        r"^\d+(\.\d+)?\s*([KMGTkmgt]i?)?B?$",
        {"type": "integer", "minimum": 0},
        'Size such as "1KiB", "500kB", "2GiB", or bytes.',
    ),
]
"""A size in bytes, written as `"1KiB"` or as a number."""
