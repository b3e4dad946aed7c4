"""Which run works: tables of what a log says, and what follows from it."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.claim import Claimant, LookAgain, StandBack, Work, decide, unheard
from agent.batch.fold import Arrived, fold
from agent.contract.results import JobStatus
from tests.batch.entries import SLOT, STOOD_BACK, A, B, C, arrived, at, began, closed, jobs, run_of

MINUTE = 60.0


def b_decides(log: list[Arrived], **about: Any) -> Work | StandBack | LookAgain:
    """Return what run B does at its second look."""
    return decide(fold(SLOT, log), Claimant(B, **about))


def works(decision: object) -> bool:
    """Tell whether a run works."""
    assert isinstance(decision, Work | StandBack)
    return isinstance(decision, Work)


def begins(run: str, seconds: float, **host: Any) -> Arrived:
    """Return a beginning that arrived then; the deadline is an hour after A's beginning."""
    return arrived(run, seconds, began=began(**host))


FIRST = begins(A, 0, instance="i-1", boot="one")
DONE, CUT_OFF = closed("succeeded"), closed("interrupted")


@pytest.mark.parametrize(
    ("log", "b_works"),
    [
        # Nobody else, or only who came later, or stood back.
        ([begins(B, 10)], True),
        ([begins(B, 0), begins(C, 1)], True),
        ([FIRST, arrived(A, 5, 1, stood_back=STOOD_BACK), begins(B, 10)], True),
        # An earlier claim that holds; in the same second the key decides, and A's is the smaller.
        ([FIRST, begins(B, 10)], False),
        ([FIRST, arrived(A, 590, 1, jobs=jobs(A, ["x"])), begins(B, 1180)], False),
        ([FIRST, begins(B, 0)], False),
        # It is over: closed, silent for ten minutes, five minutes past its deadline.
        ([FIRST, arrived(A, 5, 1, closed=CUT_OFF), begins(B, 10)], True),
        ([FIRST, begins(B, 10 * MINUTE)], False),
        ([FIRST, begins(B, 10 * MINUTE + 1)], True),
        ([FIRST, arrived(A, 3899, 1), begins(B, 3900)], False),
        ([FIRST, arrived(A, 3899, 1), begins(B, 3901)], True),
        # It closed while B was between its looks.
        ([FIRST, begins(B, 10), arrived(A, 12, 1, closed=CUT_OFF)], True),
        # The batch is done.
        ([FIRST, arrived(A, 5, 1, closed=DONE), begins(B, 10)], False),
        ([FIRST, arrived(A, 5, 1, closed=closed("failed")), begins(B, 10)], False),
        # Of two earlier ones, one holds.
        ([FIRST, begins(C, 650), begins(B, 700)], False),
        # A sign of life after B began does not bring a claim back.
        ([FIRST, begins(B, 700), arrived(A, 702, 1)], True),
        # C came later, and B was alive; or B was silent for ten minutes then, whatever it says since.
        ([begins(B, 0), begins(C, 100)], True),
        ([begins(B, 0), begins(C, 700), arrived(B, 701, 1)], False),
        # Who overtook B stood back, or was interrupted itself, and works no more; or it is done.
        ([begins(B, 0), begins(C, 700), arrived(C, 705, 1, stood_back=STOOD_BACK)], True),
        ([begins(B, 0), begins(C, 700), arrived(C, 705, 1, closed=CUT_OFF)], True),
        ([begins(B, 0), begins(C, 700), arrived(C, 705, 1, closed=DONE)], False),
        # The same boot of the same machine; another one; another machine; machines without ids.
        ([FIRST, begins(B, 10, instance="i-1", boot="one")], False),
        ([FIRST, begins(B, 10, instance="i-1", boot="two")], True),
        ([FIRST, begins(B, 10, instance="i-2", boot="two")], False),
        ([begins(A, 0), begins(B, 10)], False),
    ],
)
def test_the_first_whose_claim_is_not_over_works(log: list[Arrived], *, b_works: bool) -> None:
    """By the store's time alone, at its second look and while it works."""
    assert works(b_decides(log)) is b_works
    assert works(b_decides(log, retried=True)), "an engine's retry never stands back"


def test_a_part_of_the_log_is_a_sign_of_life() -> None:
    """A long job says nothing else."""
    log = [FIRST, begins(B, 700)]
    assert not works(b_decides(log, heard={A: [at(280), at(560)]}))
    assert works(b_decides(log, heard={A: [at(50), at(705)]})), "after B's beginning it is too late"


def test_who_is_known_to_be_dead_has_no_claim() -> None:
    """Its state directory is locked by this process."""
    assert works(b_decides([FIRST, begins(B, 10)], dead={A}))


def test_who_does_not_see_itself_looks_again() -> None:
    """The listing lags, and may lack others as well."""
    assert isinstance(b_decides([FIRST]), LookAgain)
    assert isinstance(b_decides([], retried=True), LookAgain)


def test_who_works_leaves_out_what_succeeded() -> None:
    """What a run that is over committed, or a twin meanwhile, with its reason."""
    log = [
        FIRST,
        arrived(A, 5, 1, jobs=jobs(A, ["x"])),
        arrived(A, 6, 2, jobs=jobs(A, ["y"], JobStatus.FAILED)),
        begins(B, 10),
    ]
    assert b_decides(log, retried=True) == Work({"x": f"succeeded in {A}"})
    assert b_decides(log) == StandBack(f"run {A} on i-1 works for it", A)
    log.append(arrived(A, 7, 3, closed=CUT_OFF))
    assert b_decides(log) == Work({"x": f"succeeded in {A}"})


WHO = st.integers(0, 3)
SIGNS = st.lists(st.tuples(WHO, st.integers(0, 6000)), max_size=12)


def log_of(
    starts: list[int], signs: list[tuple[int, int]], ended: Collection[int] = ()
) -> tuple[list[str], list[Arrived]]:
    """Return runs that begin at these times, and a log with further signs of life of them."""
    runs = [run_of(str(number), number) for number in range(len(starts))]
    log = [arrived(run, start, began=began(start)) for run, start in zip(runs, starts, strict=True)]
    for number, (who, seconds) in enumerate(signs):
        if who < len(runs) and seconds > starts[who]:
            end = CUT_OFF if who in ended else None
            log.append(arrived(runs[who], seconds, 1 + number, closed=end))
    return runs, log


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=4), SIGNS)
def test_of_runs_that_see_the_same_one_works_and_the_others_know(
    starts: list[int], signs: list[tuple[int, int]]
) -> None:
    """Whatever the times: who may work is nobody's rival, and whoever it overtook knows it."""
    runs, log = log_of(starts, signs)
    state = fold(SLOT, log)
    working = [run for run in runs if works(decide(state, Claimant(run)))]
    assert len(working) <= 1
    assert working or len(runs) > 2, "of two, one works"


@given(
    st.lists(st.integers(0, 4000), min_size=2, max_size=4), SIGNS, SIGNS, st.sets(WHO), st.sets(WHO)
)
def test_only_the_parts_of_logs_that_matter_are_asked_for(
    starts: list[int],
    signs: list[tuple[int, int]],
    parts: list[tuple[int, int]],
    ended: set[int],
    dead: set[int],
) -> None:
    """A look that lists no other log decides the same; each that is listed costs a request."""
    runs, log = log_of(starts, signs, ended)
    everything: dict[str, list[datetime]] = {run: [] for run in runs}
    for who, seconds in parts:
        if who < len(runs) and seconds > starts[who]:
            everything[runs[who]].append(at(seconds))
    state = fold(SLOT, log)
    known = {runs[who] for who in dead if who < len(runs)}
    for run in runs:
        claimant = Claimant(run, dead=known - {run})
        needed = {one: everything[one] for one in unheard(state, claimant)}
        assert decide(state, replace(claimant, heard=needed)) == decide(
            state, replace(claimant, heard=everything)
        )


@pytest.mark.parametrize(
    ("log", "asked"),
    [
        ([FIRST, begins(B, 1)], set()),
        ([FIRST, begins(B, 700)], {A}),
        # Past its deadline nothing brings it back; and what ended needs no sign of life.
        ([FIRST, begins(B, 4000)], set()),
        ([FIRST, arrived(A, 9, 1, closed=DONE), begins(B, 700)], set()),
        # C began when B seemed silent: then B asks whether it was.
        ([begins(B, 0), begins(C, 700)], {B}),
        ([begins(B, 0), begins(C, 100)], set()),
        ([FIRST], set()),
    ],
)
def test_who_seems_silent_is_listened_to(log: list[Arrived], asked: set[str]) -> None:
    """Ten minutes without an entry: a long job, or a machine that is gone."""
    assert unheard(fold(SLOT, log), Claimant(B)) == asked
    assert unheard(fold(SLOT, log), Claimant(B, retried=True)) == set()
    assert unheard(fold(SLOT, log), Claimant(B, dead={A})) == asked - {A}
