"""What a log says: a function of what is in it, and of nothing else."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.fold import WITHOUT_BEGINNING, Arrived, Run, fold
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


def run_in(log: list[Arrived]) -> Run:
    """Return what a log says of run A."""
    return fold(SLOT, log).runs[A]


def status(log: list[Arrived], seconds: float) -> RunStatus:
    """Return how run A stands at a moment."""
    return run_in(log).status(at(seconds))


def successes(log: list[Arrived]) -> dict[str, str]:
    """Return the run whose success counts, by job."""
    return {name: one.run for name, one in fold(SLOT, log).successes.items()}


BEGAN = arrived(A, 1, began=began())


def test_a_run_runs_until_its_deadline_and_is_lost_after_it() -> None:
    """What it committed is there either way."""
    log = [BEGAN, arrived(A, 9, 1, planned=planned("x", "y", "z"), jobs=jobs(A, ["x"]))]
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
    state = fold(SLOT, [BEGAN, arrived(A, 2, 1, closed=closed(word))])
    assert state.runs[A].status(at(9999)) == word
    assert (state.done_by is not None, state.runs[A].interrupted) == (done, interrupted)


def test_a_copy_changes_nothing() -> None:
    """An answer was lost, the put was repeated, and the first arrived after all; or a store shows a later time."""
    log = [BEGAN, arrived(A, 5, 2, jobs=jobs(A, ["x"]))]
    late = arrived(A, 900, 1, jobs=jobs(A, ["x"]))
    first, second = fold(SLOT, log), fold(SLOT, [*log, late])
    assert first.successes == second.successes
    assert second.runs[A].results["x"].at == at(5)
    assert fold(SLOT, [replace(log[1], at=at(50)), *log]) == first


def test_a_success_is_not_taken_back() -> None:
    """A later process of the same run may know less than the first."""
    log = [
        BEGAN,
        arrived(A, 9, 0, "bb", began=began(), jobs=jobs(A, ["x"], JobStatus.INTERRUPTED)),
        arrived(A, 20, 1, jobs=jobs(A, ["x"])),
    ]
    assert run_in(log).results["x"].job.succeeded
    assert successes(log) == {"x": A}


def test_the_last_plan_of_the_last_process_counts() -> None:
    """A plan that arrives late is still the earlier one."""
    log = [
        BEGAN,
        arrived(A, 90, 1, planned=planned("x")),
        arrived(A, 20, 2, planned=planned("x", "y")),
    ]
    assert run_in(log).progress == (0, 2)
    log.append(arrived(A, 50, 0, "bb", began=began(), planned=planned("z")))
    assert run_in(log).progress == (0, 1)


def test_the_first_end_counts() -> None:
    """Whatever is said later: by a process on the same disk, or by its own last word that was late."""
    own = arrived(A, 10, 1, closed=closed("succeeded"))
    cut_off = arrived(A, 20, 0, "bb", began=began(), closed=closed("interrupted"))
    late = arrived(A, 1500, 1, stood_back=STOOD_BACK)
    run = run_in([BEGAN, cut_off, own])
    assert (run.status(at(0)), run.ended) == (RunStatus.SUCCEEDED, at(10))
    assert status([BEGAN, cut_off, late], 9999) is RunStatus.INTERRUPTED
    assert status([BEGAN, replace(late, at=at(2)), cut_off], 9999) is RunStatus.STOOD_BACK


def test_pending_jobs_may_follow_the_end() -> None:
    """On a machine that keeps its disk; until then the run is not settled."""
    log = [BEGAN, arrived(A, 2, 1, closed=closed("succeeded", pending=("x",)))]
    assert not run_in(log).settled
    log.append(arrived(A, 90, 0, "bb", began=began(), jobs=jobs(A, ["x"])))
    assert run_in(log).settled
    assert successes(log) == {"x": A}


def test_damage_is_told_and_hides_nothing_else() -> None:
    """Neither the other entries of the run, nor its signs of life."""
    broken = replace(arrived(A, 5, 7), entry=Invalid("cut short"))
    state = fold(SLOT, [BEGAN, broken, arrived(A, 2, 1, jobs=jobs(A, ["x"]))])
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
    pointer = PointerKey(at(3), "began", BEGAN.key)
    run = fold(SLOT, [], [pointer]).runs[A]
    assert run.status(at(4)) is RunStatus.RUNNING
    assert run.status(at(4) + WITHOUT_BEGINNING) is RunStatus.LOST
    assert fold(SLOT, [BEGAN], [pointer]) == fold(SLOT, [BEGAN])


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
    assert successes(early).items() <= successes(log).items()
    if before.done_by is not None:
        assert after.done_by is not None
        assert after.done_by.id == before.done_by.id
    for run, known in before.runs.items():
        if known.closed or known.stood_back:
            later = after.runs[run]
            assert (later.closed, later.stood_back) == (known.closed, known.stood_back)
