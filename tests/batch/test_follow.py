"""Where a reader looks: what it lists again, and when it looks without being told to."""

from collections.abc import Iterable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.fold import fold
from agent.batch.follow import CLOCKS, ONCE_MORE, Cursor, next_look, shown
from agent.contract.layout import EntryKey, PointerKey, index_start
from agent.contract.results import RunStatus
from tests.batch.entries import HOUR, SLOT, STOOD_BACK, A, arrived, at, began, closed, jobs


def pointer(seconds: float, number: int = 0) -> PointerKey:
    """Return a pointer of that time."""
    return PointerKey(at(seconds), "jobs", EntryKey(SLOT, A, "00000000", number))


@pytest.mark.parametrize(
    ("reach", "seen", "now", "start"),
    [
        (900, [], 0, "index/"),
        (3, [1, 2], 9, "index/"),
        # From an hour before the newest, or as far back as the last pointers reach, if that is farther.
        (2, range(9), 10, index_start(at(8 - 3600))),
        (2, [0, 9000], 9001, pointer(0).text),
        # A clock that is days ahead would hide everybody else's entries.
        (1, [0, 500_000], 60, index_start(at(-3600))),
    ],
    ids=["at first", "a small index", "a large one", "a quiet one", "from the future"],
)
def test_where_a_listing_begins(reach: int, seen: Iterable[int], now: float, start: str) -> None:
    """Where the reader began, while one page holds the index."""
    cursor = Cursor(reach=reach).advance([pointer(one) for one in seen], at(now))
    assert cursor.start(at(now)) == start


def test_a_clock_that_was_ahead_once_does_no_lasting_harm() -> None:
    """The reader's own: it lists from an hour before now."""
    ahead = Cursor(reach=1).advance([pointer(500_000)], at(500_001))
    assert ahead.start(at(60)) == index_start(at(60 - 3600))


@given(st.lists(st.integers(-7200, 7200), min_size=1, max_size=30), st.integers(1, 5))
def test_whatever_arrives_within_the_hour_is_listed(seconds: list[int], reach: int) -> None:
    """In whichever order pointers become visible, none of the last hour is ever before the start."""
    cursor = Cursor(reach=reach)
    newest = max((one for one in seconds if one <= 0), default=0)
    for number, one in enumerate(seconds):
        cursor = cursor.advance([pointer(one, number)], at(0))
        assert cursor.start(at(0)) < pointer(newest - 3599).text


DEADLINE = at(0) + HOUR
RUNNING = [arrived(A, 0, began=began())]


@pytest.mark.parametrize(
    ("looked", "moment"),
    [
        (at(10), DEADLINE + CLOCKS),
        (DEADLINE + CLOCKS - timedelta(seconds=1), DEADLINE + CLOCKS),
        (DEADLINE + CLOCKS, DEADLINE + ONCE_MORE),
        (DEADLINE + ONCE_MORE, None),
    ],
)
def test_a_log_is_looked_into_when_its_run_should_have_ended(
    looked: datetime, moment: datetime | None
) -> None:
    """Twice, and never again."""
    assert next_look(fold(SLOT, RUNNING).runs.values(), looked) == moment


def test_nothing_is_due_once_a_run_is_settled() -> None:
    """Closed, or stood back; but not while jobs are pending."""
    for parts, moment in (
        ({"closed": closed()}, None),
        ({"stood_back": STOOD_BACK}, None),
        ({"closed": closed(pending=("x",))}, DEADLINE + CLOCKS),
        ({"closed": closed(pending=("x",)), "jobs": jobs(A, ["x"])}, None),
    ):
        log = [*RUNNING, arrived(A, 5, 1, **parts)]
        assert next_look(fold(SLOT, log).runs.values(), at(9)) == moment, parts


def test_nobody_is_called_lost_without_a_look() -> None:
    """However late it is."""
    run = fold(SLOT, RUNNING).runs[A]
    assert shown(run, at(10)) is RunStatus.RUNNING
    assert shown(run, DEADLINE + CLOCKS) is RunStatus.RUNNING
    assert shown(run, DEADLINE + CLOCKS + timedelta(seconds=1)) is RunStatus.LOST
