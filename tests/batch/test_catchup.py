"""What a run that nobody scheduled goes on with."""

from datetime import timedelta
from typing import Any

import pytest

from agent.batch.catchup import PERSON, Beginning, catch_up
from agent.batch.fold import Arrived, fold
from agent.contract.ids import Batch
from tests.batch.entries import SLOT, STOOD_BACK, A, B, arrived, at, began, closed, jobs

WINDOW = timedelta(hours=6)
BEGINS = Beginning(at(7200), WINDOW, "main")


def cut_off(start: float = 0.0, **end: Any) -> list[Arrived]:
    """Return the log of a run that was interrupted a minute after its start."""
    return [
        arrived(A, start, 0, began=began(start)),
        arrived(A, start + 30, 1, jobs=jobs(A, ["x"])),
        arrived(A, start + 60, 2, closed=closed("interrupted", **end)),
    ]


@pytest.mark.parametrize(
    ("log", "goes_on"),
    [
        (cut_off(), True),
        (cut_off()[:2], True),  # lost: its deadline was an hour ago
        (cut_off(6900)[:2], False),  # it works still
        (cut_off(-6 * 3600.0), False),  # too long ago
        (cut_off(interruption=PERSON), False),
        (cut_off(interruption="spot notice"), True),
        ([arrived(A, 0, 0, began=began(channel="beta")), *cut_off()[1:]], False),
        ([*cut_off()[:2], arrived(A, 60, 2, closed=closed())], False),
        (
            [
                *cut_off(),
                arrived(B, 90, 0, began=began(90)),
                arrived(B, 95, 1, stood_back=STOOD_BACK),
            ],
            True,
        ),
        ([*cut_off(), arrived(B, 7000, 0, began=began(7000))], False),  # somebody goes on with it
        ([arrived(B, 95, 0, began=began(), stood_back=STOOD_BACK)], False),
    ],
)
def test_a_run_goes_on_with_what_was_cut_off_just_now(log: list[Arrived], *, goes_on: bool) -> None:
    """Lost or interrupted inside the window, by no person, on the same channel."""
    state = fold(SLOT, log)
    assert catch_up([state], BEGINS) == (state if goes_on else None)


def test_a_run_that_is_known_to_be_dead_need_not_be_lost_yet() -> None:
    """Its machine came back at once."""
    state = fold(SLOT, cut_off(6900)[:2])
    assert catch_up([state], BEGINS) is None
    assert catch_up([state], Beginning(at(7200), WINDOW, "main", dead={A})) == state


def test_only_the_newest_batch_counts() -> None:
    """An older one that was cut off was followed by a whole one."""
    old = fold(
        Batch.of_run("main", A), [arrived(A, 0, began=began(), batch=Batch.of_run("main", A))]
    )
    own = Batch.of_run("main", B)
    new = fold(own, [arrived(B, 60, began=began(), closed=closed(), batch=own)])
    assert catch_up([old, new], BEGINS) is None
    assert catch_up([new, old], BEGINS) is None
    assert catch_up([old], BEGINS) == old
    assert catch_up([], BEGINS) is None


def test_a_shard_is_nobody_elses() -> None:
    """Its engine starts it again."""
    shard = Batch.of_shard("main", "nightly", 0, 2)
    state = fold(shard, [arrived(A, 0, began=began(), batch=shard)])
    assert catch_up([state], BEGINS) is None
