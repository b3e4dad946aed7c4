"""Which run works: tables of what a log says, and what follows from it."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.batch.claim import (
    PERSON,
    Beginning,
    Claimant,
    LookAgain,
    StandBack,
    Work,
    before_beginning,
    catch_up,
    decide,
)
from agent.batch.fold import Arrived, State, fold
from agent.contract.ids import Batch
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


def test_the_first_look_asks_only_whether_all_is_done() -> None:
    """Others' claims need the store's time, which is not known before the own beginning arrived."""
    assert before_beginning(fold(SLOT, [FIRST]), Claimant(B)) is None
    done = fold(SLOT, [FIRST, arrived(A, 5, 1, closed=closed())])
    assert before_beginning(done, Claimant(B)) == StandBack(f"run {A} has done it", A)
    assert before_beginning(done, Claimant(B, retried=True)) is None


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
        # C is done already.
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


# What a run that nobody scheduled goes on with.

WINDOW = timedelta(hours=6)
BEGINS = Beginning(at(7200), WINDOW, "main")


def batch(name: str, start: float, *log: Arrived) -> State:
    """Return the state of the batch of a run that began then."""
    own = Batch.of_run("main", run_of(name, start))
    return fold(own, log)


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
