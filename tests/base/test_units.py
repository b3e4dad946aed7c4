"""Durations and sizes, as people write and read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.units import parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("10m", 600),
        ("1h30m", 5400),
        ("1d2h3m4.5s", 93784.5),
        (" 2h ", 7200),
        (0.25, 0.25),
        (45, 45),
    ],
)
def test_durations_are_seconds(text: object, seconds: float) -> None:
    """A number with a unit, several of them from large to small, or a plain number."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "10", "s", "10 m", "30m1h", "-5s", "0s", "1w", "1.5h", "\u0663m", "9" * 400 + "d"),
        *(0, -1, float("nan"), float("inf"), 10**400, True, None, [], "4000d"),
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    """Nonsense, nothing, and what no run lasts are errors of the value, never of arithmetic."""
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_parts_of_a_duration_add_up(days: int, hours: int, minutes: int, seconds: int) -> None:
    """Parts that are zero may be written or left out."""
    total = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    written = f"{days}d{hours}h{minutes}m{seconds}s"
    if total:
        assert parse_duration(written) == total


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1KiB", 1024),
        ("1kB", 1000),
        ("1k", 1024),
        ("5G", 5 * 1024**3),
        ("1.5MB", 1_500_000),
        ("2 GiB", 2 * 1024**3),
        ("0", 0),
        ("17B", 17),
        (123, 123),
    ],
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    """`kB` counts in thousands, `KiB` and a bare `K` in 1024s."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "B", "1 XB", "-1", "1e3", "1KiBB", "9" * 400, "9999999TiB", -1, 10**30, True, 1.5]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    """So are sizes that no file has."""
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0s"),
        (0.44, "0.4s"),
        (42, "42s"),
        (59.7, "1m 00s"),
        (185, "3m 05s"),
        (7800, "2h 10m"),
        (90061, "25h 01m"),
    ],
)
def test_durations_are_shown_short(seconds: float, shown: str) -> None:
    """Two units at most, and never sixty of one."""
    assert show_duration(seconds) == shown


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (812, "812 B"), (4100, "4.1 kB"), (1_300_000_000, "1.3 GB"), (5e15, "5000.0 TB")],
)
def test_sizes_are_shown_in_thousands(size: float, shown: str) -> None:
    """As `ls -h --si` and disk makers do."""
    assert show_size(size) == shown


@given(st.integers(0, 2**63))
def test_any_size_can_be_shown(size: int) -> None:
    """A size is a number and a unit."""
    number, unit = show_size(size).split()
    assert float(number) >= 0
    assert unit in {"B", "kB", "MB", "GB", "TB"}
