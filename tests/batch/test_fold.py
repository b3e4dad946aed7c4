"""What a log says: a function of what is in it, and of nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.fold import WITHOUT_BEGINNING, Arrived, State, fold
from agent.contract.entries import Invalid
from agent.contract.layout import PointerKey
from agent.contract.results import JobStatus, RunStatus
from tests.batch.entries import (
    SLOT,
    STOOD_BACK,
    A,
    B,
    C,
    arrived,
    at,
    began,
    closed,
    job,
    jobs,
    planned,
)


def status(log: list[Arrived], seconds: float, run: str = A) -> RunStatus:
    """Return how a run stands at a moment."""
    return fold(SLOT, log).runs[run].status(at(seconds))


def test_a_run_runs_until_its_deadline_and_is_lost_after_it() -> None:
    """What it committed is there either way."""
    log = [
        arrived(A, 1, 0, began=began()),
        arrived(A, 9, 1, planned=planned("x", "y", "z"), jobs=jobs(A, ["x"])),
    ]
    assert status(log, 3600) is RunStatus.RUNNING
    assert status(log, 3601) is RunStatus.LOST
    state = fold(SLOT, log)
    assert state.runs[A].progress == (1, 3)
    assert state.finished == {"x": f"succeeded in {A}"}
    assert state.done_by is None


@pytest.mark.parametrize(
    ("word", "done", "interrupted"),
    [
        ("succeeded", True, False),
        ("partial", True, False),
        ("failed", True, False),
        ("interrupted", False, True),
        ("composted", False, True),
    ],
)
def test_a_batch_is_done_when_a_run_of_it_closed(
    word: str, *, done: bool, interrupted: bool
) -> None:
    """And was not interrupted; what a newer agent calls its end is no reason to leave jobs undone."""
    state = fold(SLOT, [arrived(A, 1, began=began()), arrived(A, 2, 1, closed=closed(word))])
    assert state.runs[A].status(at(9999)) == word
    assert (state.done_by is not None, state.runs[A].interrupted) == (done, interrupted)


def test_a_run_that_stood_back_neither_runs_nor_ends_anything() -> None:
    """It says so, and that is all."""
    log = [arrived(B, 1, began=began()), arrived(B, 2, 1, stood_back=STOOD_BACK)]
    assert status(log, 9999, B) is RunStatus.STOOD_BACK
    assert fold(SLOT, log).done_by is None


def test_the_first_success_to_arrive_counts() -> None:
    """By the store's time, whatever the writers' clocks say, and whoever began first."""
    log = [
        arrived(A, 1, began=began()),
        arrived(B, 2, began=began()),
        arrived(A, 30, 1, jobs=jobs(A, ["x", "y"]), written=-500),
        arrived(B, 20, 1, jobs=jobs(B, ["x"]), written=500),
        arrived(B, 10, 2, jobs=jobs(B, ["y"], JobStatus.FAILED)),
    ]
    successes = fold(SLOT, log).successes
    assert {name: one.run for name, one in successes.items()} == {"x": B, "y": A}


def test_in_the_same_second_the_key_decides() -> None:
    """S3 tells whole seconds: some order it must be, and the same for everybody."""
    log = [
        arrived(run, 5, number, began=began(), jobs=jobs(run, ["x"]))
        for run, number in ((B, 0), (A, 1), (C, 2))
    ]
    assert fold(SLOT, log).successes["x"].run == A
    assert list(fold(SLOT, log).runs) == [A, B, C]


def test_a_copy_changes_nothing() -> None:
    """An answer was lost, the put was repeated under the next name, and the first arrived after all."""
    log = [arrived(A, 1, began=began()), arrived(A, 5, 2, jobs=jobs(A, ["x"]))]
    late = arrived(A, 900, 1, jobs=jobs(A, ["x"]))
    first, second = fold(SLOT, log), fold(SLOT, [*log, late])
    assert first.successes == second.successes
    assert second.runs[A].results["x"].at == at(5)


def test_an_object_that_was_seen_twice_arrived_at_the_earlier_time() -> None:
    """A store that shows a later time for a key changed nothing."""
    one = arrived(A, 1, began=began(), jobs=jobs(A, ["x"]))
    assert fold(SLOT, [replace(one, at=at(50)), one]) == fold(SLOT, [one])


def test_a_success_is_not_taken_back() -> None:
    """A later process of the same run may know less than the first."""
    log = [
        arrived(A, 1, began=began()),
        arrived(A, 9, 0, "bb", began=began(), jobs=jobs(A, ["x"], JobStatus.INTERRUPTED)),
        arrived(A, 20, 1, jobs=jobs(A, ["x"])),
    ]
    state = fold(SLOT, log)
    assert state.runs[A].results["x"].job.status is JobStatus.SUCCEEDED
    assert "x" in state.successes


def test_the_last_plan_of_the_last_process_counts() -> None:
    """A plan that arrives late is still the earlier one."""
    log = [
        arrived(A, 1, 0, began=began()),
        arrived(A, 90, 1, planned=planned("x")),
        arrived(A, 20, 2, planned=planned("x", "y")),
    ]
    assert fold(SLOT, log).runs[A].progress == (0, 2)
    log.append(arrived(A, 50, 0, "bb", began=began(), planned=planned("z")))
    assert fold(SLOT, log).runs[A].progress == (0, 1)


def test_the_first_end_counts() -> None:
    """A run that its own process closed is closed, whatever a later one says."""
    log = [
        arrived(A, 1, 0, began=began()),
        arrived(A, 20, 0, "bb", began=began(), closed=closed("interrupted")),
        arrived(A, 10, 1, closed=closed("succeeded")),
    ]
    run = fold(SLOT, log).runs[A]
    assert (run.status(at(0)), run.ended) == (RunStatus.SUCCEEDED, at(10))


def test_a_run_that_was_closed_does_not_stand_back_any_more() -> None:
    """Its own last word was late: a process on the same disk had closed it."""
    log = [
        arrived(A, 1, 0, began=began()),
        arrived(A, 20, 0, "bb", began=began(), closed=closed("interrupted")),
        arrived(A, 1500, 1, stood_back=STOOD_BACK),
    ]
    assert status(log, 9999) is RunStatus.INTERRUPTED
    assert status([log[0], replace(log[2], at=at(2)), log[1]], 9999) is RunStatus.STOOD_BACK


def test_pending_jobs_may_follow_the_end() -> None:
    """On a machine that keeps its disk; until then the run is not settled."""
    log = [
        arrived(A, 1, 0, began=began()),
        arrived(A, 2, 1, closed=closed("succeeded", pending=("x",))),
    ]
    assert not fold(SLOT, log).runs[A].settled
    log.append(arrived(A, 90, 0, "bb", began=began(), jobs=jobs(A, ["x"])))
    assert fold(SLOT, log).runs[A].settled
    assert "x" in fold(SLOT, log).successes


def test_damage_is_told_and_hides_nothing_else() -> None:
    """Neither the other entries of the run, nor its signs of life."""
    broken = replace(arrived(A, 5, 7), entry=Invalid("cut short"))
    state = fold(SLOT, [arrived(A, 1, began=began(), jobs=jobs(A, ["x"])), broken])
    assert state.invalid == {broken.key.text: "cut short"}
    assert "x" in state.successes
    assert state.runs[A].heard == at(5)


def test_a_run_whose_beginning_cannot_be_read_is_lost_a_day_after_its_last_word() -> None:
    """Nobody knows its deadline."""
    log = [replace(arrived(A, 5, 0), entry=Invalid("cut short"))]
    day = WITHOUT_BEGINNING.total_seconds()
    assert status(log, 5 + day) is RunStatus.RUNNING
    assert status(log, 6 + day) is RunStatus.LOST


def test_a_pointer_alone_makes_a_run() -> None:
    """The machine vanished between the two puts."""
    one = arrived(A, 0, began=began())
    pointer = PointerKey(at(3), "began", one.key)
    state = fold(SLOT, [], [pointer])
    assert state.runs[A].status(at(4)) is RunStatus.RUNNING
    assert state.runs[A].status(at(4) + WITHOUT_BEGINNING) is RunStatus.LOST
    assert fold(SLOT, [one], [pointer]) == fold(SLOT, [one])


def test_an_empty_log_says_nothing() -> None:
    """No run, nothing done."""
    assert fold(SLOT, []) == State(SLOT)


PARTS: list[Callable[[str], dict[str, Any]]] = [
    lambda _: {"began": began()},
    lambda run: {"began": began(), "jobs": jobs(run, ["x"])},
    lambda _: {"planned": planned("x", "y")},
    lambda run: {"jobs": jobs(run, ["x"])},
    lambda run: {"jobs": (job(run, "y"), job(run, "x", JobStatus.FAILED))},
    lambda _: {"closed": closed("succeeded")},
    lambda _: {"closed": closed("interrupted")},
    lambda _: {"stood_back": STOOD_BACK},
]
LOGS = st.lists(
    st.builds(
        lambda run, seconds, number, parts: arrived(run, seconds, number, **parts(run)),
        st.sampled_from([A, B, C]),
        st.integers(0, 20),
        st.integers(0, 6),
        st.sampled_from(PARTS),
    ),
    max_size=12,
    unique_by=lambda one: one.key,
)


@given(LOGS, st.randoms())
def test_the_order_in_which_it_is_read_does_not_matter(log: list[Arrived], random: Any) -> None:
    """Nor how often."""
    again = [*log, *log]
    random.shuffle(again)
    assert fold(SLOT, again) == fold(SLOT, log)


@given(LOGS, st.integers(0, 21))
def test_what_counts_is_not_changed_by_what_arrives_later(log: list[Arrived], seconds: int) -> None:
    """So that home can keep what it installed first, and a batch that is done stays done."""
    early = [one for one in log if one.at < at(seconds)]
    before, after = fold(SLOT, early), fold(SLOT, log)
    counts = {name: one.run for name, one in after.successes.items()}
    assert {name: one.run for name, one in before.successes.items()}.items() <= counts.items()
    if before.done_by is not None:
        assert after.done_by is not None
        assert after.done_by.id == before.done_by.id
    for run, known in before.runs.items():
        if known.closed or known.stood_back:
            later = after.runs[run]
            assert (later.closed, later.stood_back) == (known.closed, known.stood_back)
