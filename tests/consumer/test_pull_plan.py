"""The decisions of a pull, by table and by property."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.console import printable
from agent.batch.fold import Arrived
from agent.contract.ids import Batch as Id
from consumer.model import Batch
from consumer.pull import plan
from consumer.pull.plan import Item, Rejection, Wish
from consumer.pull.report import (
    Delayed,
    Event,
    Failed,
    Installed,
    Note,
    Rejected,
    Report,
    lines_of,
    summary_line,
)
from consumer.pull.state import MOST_REJECTED, State
from tests.consumer.nights import attempt, history

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
SLOT = Id.of_slot("main", NOW - DAY)


def batches(*attempts: list[Arrived]) -> tuple[Batch, ...]:
    """What home knows of these attempts."""
    return history(NOW, *attempts).batches


NIGHTS = batches(
    attempt(NOW - 3 * DAY, {"quotes": "succeeded", "notes": "failed"}),
    attempt(NOW - 2 * DAY, {"quotes": "succeeded", "notes": "skipped"}),
    attempt(NOW - DAY, {"quotes": "succeeded", "notes": "succeeded"}, batch=SLOT),
    attempt(NOW - DAY + timedelta(hours=1), {"quotes": "succeeded"}, batch=SLOT),
)
RUNS = [run.id for batch in NIGHTS for run in batch.runs]


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Wish(), {("quotes", 0), ("quotes", 1), ("quotes", 2), ("notes", 2)}),
        (Wish(jobs=frozenset({"notes"})), {("notes", 2)}),
        (Wish(jobs=frozenset({"notes"}), partial=True), {("notes", 0), ("notes", 2)}),
        (Wish(since=NOW - 2 * DAY), {("quotes", 1), ("quotes", 2), ("notes", 2)}),
        (Wish(runs=frozenset({RUNS[0]})), {("quotes", 0), ("notes", 0)}),
        (Wish(runs=frozenset({RUNS[3]}), since=NOW), {("quotes", 3)}),
    ],
)
def test_what_is_wanted(wish: Wish, expected: set[tuple[str, int]]) -> None:
    """Successes that count, unless more is asked for; a job that was skipped has nothing."""
    found = {(one.job.name, RUNS.index(one.run)) for one in plan.wanted(NIGHTS, wish)}
    assert found == expected


def item(run: str, job: str, batch: Id, status: str = "succeeded") -> Item:
    """What was installed."""
    return Item(job, run, batch, status, 1, 1)


@given(data=st.data())
def test_each_result_is_fetched_once(data: st.DataObject) -> None:
    """However pulls with other wishes came before: what was installed is not fetched again, all else is."""
    names = st.sets(st.sampled_from(["quotes", "notes"]))
    items: dict[tuple[str, str], Item] = {}
    for jobs in data.draw(st.lists(names, max_size=3)):
        found = plan.lacking(plan.wanted(NIGHTS, Wish(frozenset(jobs))), items, {}, Wish())
        assert not {one.key for one in found} & items.keys()
        items |= {one.key: one.item for one in found}
    rest = plan.lacking(plan.wanted(NIGHTS, Wish()), items, {}, Wish())
    assert {one.key for one in rest} | items.keys() == {
        one.key for one in plan.wanted(NIGHTS, Wish())
    }


def test_a_success_that_was_installed_first_stays() -> None:
    """When another of the same batch counts now, home has the one that it has."""
    other = item(RUNS[3], "quotes", SLOT)
    found = plan.lacking(plan.wanted(NIGHTS, Wish()), {other.key: other}, {}, Wish())
    assert (("quotes", RUNS[2]) in {one.key for one in found}) is False
    failed = replace(other, status="failed")
    found = plan.lacking(plan.wanted(NIGHTS, Wish()), {failed.key: failed}, {}, Wish())
    assert ("quotes", RUNS[2]) in {one.key for one in found}


IDS = st.lists(st.integers(0, 59).map(lambda n: f"20261122T0642{n:02d}Z-000000"), unique=True)


@given(runs=IDS, keep=st.integers(1, 9), data=st.data())
def test_keep_removes_only_what_is_old_and_free(
    runs: list[str], keep: int, data: st.DataObject
) -> None:
    """The newest stay, the protected stay, and everything else goes."""
    protected = data.draw(st.sets(st.sampled_from(runs))) if runs else set()
    gone = plan.to_remove(runs, keep, protected, NOW)
    assert set(gone) == set(runs) - set(sorted(runs)[-keep:]) - protected
    assert gone == sorted(gone)


YEARS = st.sets(st.integers(0, 99).map(lambda n: f"2026112{n % 9}T0642{n // 9:02d}Z-000000"))


@given(runs=YEARS, there=YEARS, keep=st.integers(1, 4))
def test_what_would_go_at_once_is_not_fetched(runs: set[str], there: set[str], keep: int) -> None:
    """Each is judged beside what is there; in this history some runs are dated to come."""
    (one, *_) = plan.wanted(NIGHTS, Wish())
    results = [replace(one, run=run) for run in sorted(runs)]
    found = plan.worth_keeping(results, {"quotes": None}, {"quotes": there}, keep, NOW)
    assert [each.run for each in found] == [
        run for run in sorted(runs) if run not in plan.to_remove({*there, run}, keep, (), NOW)
    ]


class Counted(Collection[str]):
    """Runs, and how often somebody went through all of them."""

    def __init__(self, runs: list[str]) -> None:
        self.runs = runs
        self.times = 0

    def __len__(self) -> int:
        return len(self.runs)

    def __contains__(self, run: object) -> bool:
        return run in self.runs

    def __iter__(self) -> Iterator[str]:
        self.times += 1
        return iter(self.runs)


def test_the_runs_of_a_job_are_sorted_once() -> None:
    """And not for each of them: the first pull of ten years has thousands."""
    (one, *_) = plan.wanted(NIGHTS, Wish())
    runs = [f"20261122T0642{second:02d}Z-000000" for second in range(50)]
    there = Counted(runs)
    results = [replace(one, run=run) for run in runs]
    found = plan.worth_keeping(results, {"quotes": None}, {"quotes": there}, 2, NOW)
    assert [each.run for each in found] == runs[-2:]
    assert there.times == 1


@given(sizes=st.lists(st.integers(0, 9), max_size=12))
def test_portions_have_room(sizes: list[int]) -> None:
    """Nothing is lost or turned around, and what is together has room together, unless it is alone."""
    (one, *_) = plan.wanted(NIGHTS, Wish())
    results = [
        replace(one, committed=one.committed.model_copy(update={"bytes": size})) for size in sizes
    ]
    found = list(plan.portions(results, 3, 10))
    assert [each for portion in found for each in portion] == results
    for portion in found:
        assert 0 < len(portion) <= 3
        assert len(portion) == 1 or sum(each.committed.bytes for each in portion) <= 10


def test_rejections_are_bounded_and_each_is_kept_once(tmp_path: Path) -> None:
    """A bucket full of forgeries costs a bounded memory; the newest are told."""
    with State.open(tmp_path / "pull.db") as (state, problem):
        for number in range(MOST_REJECTED + 5):
            for _ in range(2):
                state.reject(Rejection("quotes", f"run{number}", ("p",)))
        kept = state.rejected()
    assert (problem, len(kept)) == ("", MOST_REJECTED)
    assert ("quotes", f"run{MOST_REJECTED + 4}") in kept


def test_memory_survives_and_tells_what_it_was_told(tmp_path: Path) -> None:
    """What was about to become visible, which hooks are owed, which failures are news."""
    one, other = item("r1", "quotes", SLOT), item("r2", "notes", SLOT, "failed")
    with State.open(tmp_path / "pull.db") as (state, _):
        state.install(one, owed=True, visible=False)
        state.install(other, owed=False, visible=True)
        assert state.tell("quotes", "r0")
    with State.open(tmp_path / "pull.db") as (state, _):
        assert state.unsure() == [one.key]
        assert state.owed() == [one]
        assert state.items() == state.items([SLOT]) == {one.key: one, other.key: other}
        assert state.items([Id.of_slot("main", NOW)]) == {}
        assert not state.tell("quotes", "r0")
        state.settle([], [one.key])
        assert state.items_of("quotes") == {}
        assert state.begun("quotes") is None


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ((), "nothing new"),
        ((Failed("r", "j", "x"),), "nothing new, 1 job failed and had nothing"),
        (
            (Failed("r", "j", "x"), Failed("s", "j", "x"), Delayed("r", "k", "x")),
            "nothing new, 1 job failed and had nothing, 1 problem",
        ),
        ((Installed("r", "j", "p", 1, 10, "succeeded"),), "1 job, 1 file, 10 B"),
        (
            (Installed("r", "j", "p", 2, 10, "succeeded"), Failed("r", "k", "x"), Note("n", True)),
            "1 job, 2 files, 10 B, 1 job failed and had nothing, 1 problem",
        ),
    ],
)
def test_the_last_line_says_what_came_and_what_did_not(
    events: tuple[Event, ...], line: str
) -> None:
    """In plain words."""
    assert summary_line(Report(events)) == line
    so_far = line.removeprefix("nothing new").removeprefix(", ")  # what a stopped pull cannot know
    told = ", ".join(filter(None, (so_far, "stopped before its end")))
    assert summary_line(Report(events, stopped=True)) == told


@given(text=st.text(max_size=40))
def test_nothing_hostile_is_in_a_line(text: str) -> None:
    """What a bucket says reaches a terminal without control characters, line by line."""
    events = (
        Rejected("r", "j", (text,)),
        Failed("r", "j", text),
        Delayed("r", "j", text, store=True),
        Note(text),
        Installed("r", "j", text, 1, 1, "failed"),
    )
    for event in events:
        for line in lines_of(event):
            assert printable(line) == " ".join(line.split())
