"""What rides together, and when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.commit import in_entries, next_commit
from agent.contract.entries import MOST_JOBS
from tests.batch.entries import A, job


@pytest.mark.parametrize(
    ("last", "now", "seconds"),
    [(None, 7.0, 0.0), (10.0, 10.0, 4.0), (10.0, 12.5, 1.5), (10.0, 14.0, 0.0), (10.0, 99.0, 0.0)],
)
def test_a_commit_begins_every_four_seconds_at_most(
    last: float | None, now: float, seconds: float
) -> None:
    """The first at once."""
    assert next_commit(last, now) == seconds


@given(st.lists(st.integers(0, 2000), max_size=450))
def test_results_are_split_and_none_is_lost(messages: list[int]) -> None:
    """In their order, at most two hundred in each entry."""
    ended = [
        job(A, f"job-{number}").model_copy(update={"message": "x" * length})
        for number, length in enumerate(messages)
    ]
    portions = list(in_entries(ended))
    assert [one for portion in portions for one in portion] == ended
    assert all(0 < len(portion) <= MOST_JOBS for portion in portions)


def test_large_results_are_split_by_size() -> None:
    """An entry has a limit of its own."""
    large = [
        job(A, f"job-{number}").model_copy(update={"weather": "x" * 300_000}) for number in range(5)
    ]
    assert [len(portion) for portion in in_entries(large)] == [3, 2]
