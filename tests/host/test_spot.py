"""What is left to do when a machine is taken back: pure decisions."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.machine.instance import SpotNotice
from agent.machine.spot import LINK, deadlines, ends_in_time, termination_time

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


@given(st.floats(30, 120), st.integers(0, 10**12), st.floats(0.1, 3600))
def test_the_commit_has_its_time_whatever_waits(left: float, pending: int, grace: float) -> None:
    """Sending ends 30 s before the machine does and the commit 15 s before; no job gets more than its grace."""
    gone = NOW + timedelta(seconds=left)
    table = deadlines(gone, NOW, pending=pending, grace=grace)
    assert table.commit_by == gone - timedelta(seconds=15)
    assert table.send_by == gone - timedelta(seconds=30)
    assert table.begin_by >= NOW
    assert NOW <= table.jobs_end <= NOW + timedelta(seconds=grace)


def test_what_waits_takes_from_the_jobs_grace() -> None:
    """With 200 MB on 20 Mbit/s, of two minutes a job gets the ten seconds that are left, and of 110 s two."""
    for left, expected in ((120, 10.0), (110, 2.0), (115, 5.0)):
        gone = NOW + timedelta(seconds=left)
        table = deadlines(gone, NOW, pending=int(80 * LINK), grace=30)
        assert (table.jobs_end - NOW).total_seconds() == expected


@given(st.floats(-1e6, 1e6))
def test_a_clock_that_is_wrong_neither_hastens_nor_delays_beyond_reason(ahead: float) -> None:
    """The machine is gone between 30 s and two minutes after the notice was seen, whatever time it names."""
    notice = SpotNotice("terminate", NOW + timedelta(seconds=ahead))
    left = (termination_time(notice, NOW) - NOW).total_seconds()
    assert 30 <= left <= 120


@pytest.mark.parametrize(
    ("past", "ran", "left", "ends"),
    [
        ([], 0, 1000, False),
        ([10], 0, 11, True),
        ([10], 0, 10, False),
        ([10, 60], 50, 16, True),
        ([10, 60], 50, 15, False),
    ],
)
def test_a_job_that_has_always_been_quick_enough_goes_on(
    past: list[float], ran: float, left: float, *, ends: bool
) -> None:
    """As slow as it ever was, and a tenth more; of a job without a history nobody knows."""
    assert ends_in_time(past, ran, left) is ends
