"""Which run works: tables of what a log says, and what follows from it."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.claim import (
    Claimant,
    LookAgain,
    StandBack,
    Work,
    decide,
    unheard,
)
from agent.batch.fold import Arrived, fold
from agent.contract.results import JobStatus
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
    jobs,
    run_of,
)

MINUTE = 60.0
Heard = Mapping[str, Collection[datetime]]


def b_decides(
    log: list[Arrived], *, heard: Heard | None = None, **about: Any
) -> Work | StandBack | LookAgain:
    """Return what run B does at its second look."""
    return decide(fold(SLOT, log), Claimant(B, heard=heard, **about))


def works(decision: object) -> bool:
    """Tell whether a run works."""
    assert isinstance(decision, Work | StandBack)
    return isinstance(decision, Work)


FIRST = arrived(A, 0, began=began(0, instance="i-1", boot="one"))


@pytest.mark.parametrize(
    ("log", "b_works"),
    [
        # Nobody else, or only who came later, or stood back.
        ([arrived(B, 10, began=began())], True),
        ([arrived(B, 0, began=began()), arrived(C, 1, began=began())], True),
        ([FIRST, arrived(A, 5, 1, stood_back=STOOD_BACK), arrived(B, 10, began=began())], True),
        # An earlier claim that holds.
        ([FIRST, arrived(B, 10, began=began())], False),
        ([FIRST, arrived(A, 590, 1, jobs=jobs(A, ["x"])), arrived(B, 1180, began=began())], False),
        # In the same second the key decides, and A's is the smaller.
        ([FIRST, arrived(B, 0, began=began())], False),
        # It is over: closed, silent for ten minutes, five minutes past its deadline.
        (
            [FIRST, arrived(A, 5, 1, closed=closed("interrupted")), arrived(B, 10, began=began())],
            True,
        ),
        ([FIRST, arrived(B, 10 * MINUTE, began=began())], False),
        ([FIRST, arrived(B, 10 * MINUTE + 1, began=began())], True),
        ([FIRST, arrived(A, 3899, 1), arrived(B, 3900, began=began())], False),
        ([FIRST, arrived(A, 3899, 1), arrived(B, 3901, began=began())], True),
        # It closed while B was between its looks.
        (
            [FIRST, arrived(B, 10, began=began()), arrived(A, 12, 1, closed=closed("interrupted"))],
            True,
        ),
        # The batch is done.
        (
            [FIRST, arrived(A, 5, 1, closed=closed("succeeded")), arrived(B, 10, began=began())],
            False,
        ),
        ([FIRST, arrived(A, 5, 1, closed=closed("failed")), arrived(B, 10, began=began())], False),
        # Of two earlier ones, one holds.
        (
            [
                arrived(A, 0, began=began()),
                arrived(C, 650, began=began()),
                arrived(B, 700, began=began()),
            ],
            False,
        ),
        # A sign of life after B began does not bring a claim back.
        ([FIRST, arrived(B, 700, began=began()), arrived(A, 702, 1)], True),
    ],
)
def test_the_first_whose_claim_is_not_over_works(log: list[Arrived], *, b_works: bool) -> None:
    """By the store's time alone."""
    assert works(b_decides(log)) is b_works
    assert works(b_decides(log, retried=True)), "an engine's retry never stands back"


def test_a_part_of_the_log_is_a_sign_of_life() -> None:
    """A long job says nothing else."""
    log = [FIRST, arrived(B, 700, began=began())]
    assert works(b_decides(log))
    assert not works(b_decides(log, heard={A: [at(280), at(560)]}))
    assert works(b_decides(log, heard={A: [at(50), at(705)]})), "after B's beginning it is too late"


def test_who_is_known_to_be_dead_has_no_claim() -> None:
    """Its state directory is locked by this process, or this machine was booted since."""
    log = [FIRST, arrived(B, 10, began=began(instance="i-1", boot="one"))]
    assert not works(b_decides(log))
    assert works(b_decides(log, dead={A}))
    assert works(b_decides([FIRST, arrived(B, 10, began=began(instance="i-1", boot="two"))]))
    assert not works(b_decides([FIRST, arrived(B, 10, began=began(instance="i-2", boot="two"))]))
    assert not works(b_decides([FIRST, arrived(B, 10, began=began())]))
    unknown = arrived(A, 0, began=began())
    assert not works(b_decides([unknown, arrived(B, 10, began=began())]))


def test_who_does_not_see_itself_looks_again() -> None:
    """The listing lags, and may lack others as well."""
    assert isinstance(b_decides([FIRST]), LookAgain)
    assert isinstance(b_decides([], retried=True), LookAgain)


def test_who_works_leaves_out_what_succeeded() -> None:
    """Also what a run that is over committed, and with its reason."""
    log = [
        FIRST,
        arrived(A, 5, 1, jobs=jobs(A, ["x"])),
        arrived(A, 6, 2, jobs=jobs(A, ["y"], JobStatus.FAILED)),
        arrived(A, 7, 3, closed=closed("interrupted")),
        arrived(B, 10, began=began()),
    ]
    assert b_decides(log) == Work({"x": f"succeeded in {A}"})


def test_a_reason_names_run_and_machine() -> None:
    """A person reads it in the log."""
    decision = b_decides([FIRST, arrived(B, 10, began=began())])
    assert decision == StandBack(f"run {A} on i-1 works for it", A)


@pytest.mark.parametrize(
    ("log", "lost"),
    [
        ([arrived(B, 0, began=began())], False),
        # C came later, and B was alive; or C stood back.
        ([arrived(B, 0, began=began()), arrived(C, 100, began=began())], False),
        (
            [
                arrived(B, 0, began=began()),
                arrived(C, 700, began=began()),
                arrived(C, 705, 1, stood_back=STOOD_BACK),
            ],
            False,
        ),
        # B was silent for ten minutes when C began, and has been heard of since.
        ([arrived(B, 0, began=began()), arrived(C, 700, began=began()), arrived(B, 701, 1)], True),
        # C was interrupted itself, and works no more; or it is done.
        (
            [
                arrived(B, 0, began=began()),
                arrived(C, 700, began=began()),
                arrived(C, 705, 1, closed=closed("interrupted")),
            ],
            False,
        ),
        (
            [
                arrived(B, 0, began=began()),
                arrived(C, 700, began=began()),
                arrived(C, 705, 1, closed=closed()),
            ],
            True,
        ),
    ],
)
def test_who_was_silent_finds_out_that_it_was_overtaken(log: list[Arrived], *, lost: bool) -> None:
    """At its second look, if it was silent before that, and while it works: then it starts nothing more."""
    assert works(b_decides(log)) is not lost
    assert works(b_decides(log, retried=True))


def test_who_worked_beside_another_stops_when_it_sees_that() -> None:
    """Its second look lacked an earlier run: the listing lagged."""
    log = [arrived(B, 10, began=began())]
    assert works(b_decides(log))
    assert not works(b_decides([FIRST, *log]))


def test_who_works_leaves_out_what_a_twin_has_done_meanwhile() -> None:
    """A shard and its replacement look as they go."""
    log = [FIRST, arrived(B, 10, began=began()), arrived(A, 20, 1, jobs=jobs(A, ["x"]))]
    assert b_decides(log, retried=True) == Work({"x": f"succeeded in {A}"})


BEGINNINGS = st.lists(st.integers(0, 3000), min_size=2, max_size=4)


@given(BEGINNINGS, st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3000)), max_size=12))
def test_of_runs_that_see_the_same_one_works_and_the_others_know(
    starts: list[int], signs: list[tuple[int, int]]
) -> None:
    """Whatever the times: who may work is nobody's rival, and whoever it overtook knows it."""
    runs = [run_of(str(number), number) for number in range(len(starts))]
    log = [arrived(run, start, began=began()) for run, start in zip(runs, starts, strict=True)]
    log += [
        arrived(runs[who], seconds, 1 + number)
        for number, (who, seconds) in enumerate(signs)
        if who < len(runs) and seconds > starts[who]
    ]
    state = fold(SLOT, log)
    working = [run for run in runs if works(decide(state, Claimant(run)))]
    assert len(working) <= 1
    assert working or len(runs) > 2, "of two, one works"


@given(
    st.lists(st.integers(0, 4000), min_size=2, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6000)), max_size=8),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6000)), max_size=8),
    st.sets(st.integers(0, 3)),
    st.sets(st.integers(0, 3)),
)
def test_only_the_parts_of_logs_that_matter_are_asked_for(
    starts: list[int],
    signs: list[tuple[int, int]],
    parts: list[tuple[int, int]],
    ended: set[int],
    dead: set[int],
) -> None:
    """A look that lists no other log decides the same; each that is listed costs a request."""
    runs = [run_of(str(number), number) for number in range(len(starts))]
    log = [arrived(run, start, began=began(start)) for run, start in zip(runs, starts, strict=True)]
    log += [
        arrived(
            runs[who], seconds, 1 + number, closed=closed("interrupted") if who in ended else None
        )
        for number, (who, seconds) in enumerate(signs)
        if who < len(runs) and seconds > starts[who]
    ]
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
        ([FIRST, arrived(B, 1, began=began(1))], set()),
        ([FIRST, arrived(B, 700, began=began(700))], {A}),
        # Past its deadline nothing brings it back; and what ended needs no sign of life.
        ([FIRST, arrived(B, 4000, began=began(4000))], set()),
        ([FIRST, arrived(A, 9, 1, closed=closed()), arrived(B, 700, began=began(700))], set()),
        # C began when B seemed silent: then B asks whether it was.
        ([arrived(B, 0, began=began()), arrived(C, 700, began=began(700))], {B}),
        ([arrived(B, 0, began=began()), arrived(C, 100, began=began(100))], set()),
        ([FIRST], set()),
    ],
)
def test_who_seems_silent_is_listened_to(log: list[Arrived], asked: set[str]) -> None:
    """Ten minutes without an entry: a long job, or a machine that is gone."""
    assert unheard(fold(SLOT, log), Claimant(B)) == asked
    assert unheard(fold(SLOT, log), Claimant(B, retried=True)) == set()
    assert unheard(fold(SLOT, log), Claimant(B, dead={A})) == asked - {A}
