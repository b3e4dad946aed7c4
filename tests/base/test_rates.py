"""Turns at a site: how far apart, and whose is when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.rates import MOST_WAITING, interval_of, is_site, reservation
from agent.config.jobsfile import parse_jobs


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [("1/s", 1.0), ("4/s", 0.25), ("30/m", 2.0), ("1/10s", 10.0), ("1/h", 3600.0)],
)
def test_a_rate_is_a_distance(rate: str, seconds: float) -> None:
    """So many visits for each so long a time."""
    assert interval_of(rate) == seconds


@pytest.mark.parametrize(
    "rate", ["", "1", "0/s", "s", "1/0s", "1/d", "-1/s", "1 / s", "1/s\n", "²/s"]
)
def test_what_is_no_rate_is_refused(rate: str) -> None:
    """With an example of one."""
    with pytest.raises(ValueError, match='"1/s"'):
        interval_of(rate)


@pytest.mark.parametrize(
    "site", ["", "..", "a/b", "Example.org", "/etc", ".hidden", "a\n", "x" * 300]
)
def test_a_site_is_a_file_name(site: str) -> None:
    """What a jobs file says cannot name a file elsewhere."""
    assert not is_site(site)
    text = f'[[job]]\nname = "a"\ncommand = ["x"]\nrate = {{ {site!r} = "1/s" }}'
    assert parse_jobs(text, "jobs.toml", "1.0.0")[1]


@given(
    st.lists(st.tuples(st.floats(0, 50), st.floats(0.1, 5)), min_size=2, max_size=30),
)
def test_turns_keep_their_distance(visits: list[tuple[float, float]]) -> None:
    """However visitors come, each keeps the distance that the one before it asked for."""
    now, following, last = 1e9, None, None
    for pause, interval in visits:
        now += pause
        start, following = reservation(following, now, interval)
        assert start >= now
        if last is not None:
            assert start >= last
        last = following


def test_a_clock_that_was_set_back_stops_nobody() -> None:
    """A reservation more than a day ahead is forgotten."""
    assert reservation(1e9 + MOST_WAITING + 1, 1e9, 1.0) == (1e9, 1e9 + 1)
    assert reservation(1e9 + 100, 1e9, 1.0)[0] == 1e9 + 100
