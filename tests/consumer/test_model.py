"""Runs, batches and groups of shards, as everything at home sees them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from agent.batch.fold import Arrived, fold
from agent.contract.entries import Closed, Entry, StoodBack
from agent.contract.ids import Batch as Id
from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.groups import (
    MOST_FAMILIES,
    MOST_MISSING,
    OTHERS,
    Group,
    State,
    families_of,
    groups_of,
)
from consumer.model import Batch, Job, batch_of
from tests.consumer.nights import attempt, history, tokyo

START = tokyo("21 02:00")
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SLOT = Id.of_slot("main", START)


def batch(*attempts: list[Arrived], looked: timedelta = timedelta(days=1)) -> Batch:
    """Return a batch as it is after a look."""
    log = [one for entries in attempts for one in entries]
    return batch_of(fold(SLOT, log), START + looked)


def changed(one: Arrived, **parts: object) -> Arrived:
    """Return an entry that says something else."""
    assert isinstance(one.entry, Entry)
    return replace(one, entry=one.entry.model_copy(update=parts))


@pytest.mark.parametrize(
    ("status", "cause", "due", "failed"),
    [
        ("succeeded", None, True, False),
        ("failed", "error", True, True),
        ("timed_out", "timeout", True, True),
        ("interrupted", "interrupted", True, True),
        ("empty", "expectation", True, True),
        ("skipped", None, False, False),  # not on this day
        ("skipped", "error", True, True),  # what it needs did not succeed
        ("postponed", None, True, True),  # a word of a newer writer
    ],
)
def test_which_results_count(status: str, cause: str | None, *, due: bool, failed: bool) -> None:
    """A job that was not due is neither a success nor a failure."""
    job = Job("x", START, JobStatus(status), JobCause(cause) if cause else None)
    assert (job.due, job.failed) == (due, failed)


def test_running_k_of_n_then_lost_k_of_n() -> None:
    """Five minutes after the deadline, if the log was looked into then."""
    run = attempt(START, {"a": "succeeded"}, batch=SLOT, planned=["b", "c"], minutes=None)
    said = batch(run, looked=HOUR)
    assert (said.status(said.runs[0]), said.runs[0].progress) == (RunStatus.RUNNING, (1, 3))
    said = batch(run, looked=2 * HOUR + 5 * MINUTE)
    assert said.status(said.runs[0]) is RunStatus.RUNNING
    said = batch(run, looked=2 * HOUR + 6 * MINUTE)
    assert (said.status(said.runs[0]), said.runs[0].progress) == (RunStatus.LOST, (1, 3))
    assert said.counts == {"a": said.runs[0].id}


def test_before_there_is_a_plan_nobody_knows_of_how_many() -> None:
    """And nothing is done."""
    said = batch(attempt(START, None, batch=SLOT, minutes=None), looked=MINUTE)
    assert said.runs[0].progress == (0, None)


def test_which_of_two_results_counts() -> None:
    """Of two successes the first to arrive."""
    first = attempt(
        START, {"a": "succeeded", "b": "failed"}, batch=SLOT, minutes=20, status="interrupted"
    )
    second = attempt(START + HOUR, {"a": "succeeded", "b": "succeeded"}, batch=SLOT, minutes=5)
    said = batch(first, second)
    early, late = said.runs
    assert [run.id for run in said.attempts] == [early.id, late.id]
    assert said.counts == {"a": early.id, "b": late.id}
    assert said.done_by == late.id
    assert batch(first).counts == {"a": early.id}
    assert batch(first).done_by is None


def test_who_stood_back_is_no_attempt() -> None:
    """It is shown as what it is, and costs the other nothing."""
    works = attempt(START, batch=SLOT)
    other = attempt(START + MINUTE, None, batch=SLOT, minutes=None)
    back = changed(other[0], stood_back=StoodBack(reason="another works", run=works[0].key.run))
    said = batch(works, [back])
    assert [said.status(run) for run in said.runs] == [RunStatus.SUCCEEDED, RunStatus.STOOD_BACK]
    assert len(said.attempts) == 1
    assert all(run.settled for run in said.runs)


def test_what_is_pending_is_named_until_it_follows() -> None:
    """On a machine that keeps its disk."""
    *begun, results, end = attempt(START, {"a": "succeeded"}, batch=SLOT)
    closed = end.entry.closed if isinstance(end.entry, Entry) else None
    assert isinstance(closed, Closed)
    pending = changed(end, closed=closed.model_copy(update={"pending": ("a",)}))
    run = batch([*begun, pending]).runs[0]
    assert (run.pending, run.settled) == (("a",), False)
    run = batch([*begun, pending, results]).runs[0]
    assert (run.pending, run.settled) == ((), True)


def test_history_finds_a_run() -> None:
    """By its id, whichever batch it is in."""
    runs = [attempt(START + hour * HOUR) for hour in (5, 1, 3)]
    said = history(START + 9 * HOUR, *runs)
    assert [run.started for _, run in said.runs] == [START + hour * HOUR for hour in (1, 3, 5)]
    assert said.by_id[runs[0][0].key.run][1].started == START + 5 * HOUR


# Groups.


def shard(number: int, shards: int, jobs: Mapping[str, str] | None, **how: object) -> list[Arrived]:
    """Return a shard's run."""
    of_group = Id.of_shard("main", "crawl", number, shards)
    return attempt(START + number * MINUTE, jobs, batch=of_group, **how)  # type: ignore[arg-type]


def group(*attempts: list[Arrived], after: timedelta = 12 * HOUR) -> Group:
    """Return the group that these are."""
    (found,) = groups_of(history(START + after, *attempts))["main"]
    return found


def states(found: Group, *known: str, after: timedelta = HOUR) -> dict[str, State]:
    """Return what became of its jobs."""
    return {name: one.state for name, one in found.outcomes(known, START + after).items()}


def test_a_later_attempt_decides_unless_it_left_the_job_out() -> None:
    """A success stands, whatever a twin says."""
    first = attempt(START, {"a": "succeeded", "b": "failed", "c": "failed"}, batch=SLOT)
    jobs = {"a": "failed", "c": "succeeded"}
    second = attempt(START + MINUTE, jobs, batch=SLOT, left_out=["b", "d"])
    assert states(group(first, second)) == {
        "a": State.SUCCEEDED,
        "b": State.FAILED,
        "c": State.SUCCEEDED,
        "d": State.SKIPPED,
    }


def test_what_a_shard_without_a_plan_did_not_do_is_what_no_other_does() -> None:
    """Of the jobs that are known from before."""
    plans = shard(0, 2, {}, planned=["x"], minutes=None)
    barren = shard(1, 2, None, minutes=None)
    found = group(plans, barren, after=HOUR)
    assert states(found, "x", "y") == {"x": State.RUNNING, "y": State.RUNNING}
    barren = shard(1, 2, None)
    found = group(plans, barren, after=HOUR)
    assert states(found, "x", "y") == {"x": State.RUNNING, "y": State.FAILED}


def test_a_job_that_is_pending_is_waited_for_a_day() -> None:
    """The machine keeps its disk, and sends it when it boots again."""
    *begun, _, end = attempt(START, {"a": "succeeded"}, batch=SLOT)
    closed = end.entry.closed if isinstance(end.entry, Entry) else None
    assert isinstance(closed, Closed)
    found = group([*begun, changed(end, closed=closed.model_copy(update={"pending": ("a",)}))])
    assert states(found, after=25 * HOUR) == {"a": State.RUNNING}
    assert states(found, after=27 * HOUR) == {"a": State.FAILED}


@pytest.mark.parametrize(
    ("ends", "after", "state"),
    [
        (["succeeded"] * 3, 12, State.SUCCEEDED),
        (["failed"] * 3, 12, State.FAILED),
        (["succeeded", "failed", "succeeded"], 12, State.PARTIAL),
        (["succeeded", "lost", "succeeded"], 1, State.RUNNING),
        (["succeeded", "lost", "succeeded"], 12, State.PARTIAL),
        (["lost", "lost", "lost"], 12, State.LOST),
        (["succeeded", "succeeded"], 0.5, State.RUNNING),
        (["succeeded", "succeeded"], 12, State.PARTIAL),
    ],
)
def test_how_a_group_stands(ends: list[str], after: float, state: State) -> None:
    """Of three shards; one that did not begin yet may come for an hour after the last sign."""
    runs = [
        shard(number, 3, {} if end == "lost" else {"a": end}, minutes=None if end == "lost" else 10)
        for number, end in enumerate(ends)
    ]
    found = group(*runs, after=after * HOUR)
    assert found.state(START + after * HOUR) is state
    late = state is not State.RUNNING and len(ends) - ends.count("lost") < 3
    assert found.is_late(START + after * HOUR) is late


def test_the_first_shards_that_are_missing_are_named() -> None:
    """Of a thousand."""
    found = group(shard(3, 1000, {"a": "succeeded"}))
    assert found.missing == tuple(one for one in range(MOST_MISSING + 1) if one != 3)
    assert found.done == 1


def test_a_group_that_is_dealt_anew_is_another() -> None:
    """Among another number of shards."""
    runs = [shard(0, 2, {"a": "succeeded"}), shard(0, 3, {"a": "succeeded"})]
    assert len(groups_of(history(START + HOUR, *runs))["main"]) == 2


def test_kinds_of_jobs_over_all_shards() -> None:
    """By their name in jobs.toml; the small ones are one, and a job that two shards had to run counts once."""
    names = {f"job-{number:03d}": "succeeded" for number in range(MOST_FAMILIES + 5)}
    runs = [
        shard(0, 2, {"login": "succeeded", "bad": "failed"}),
        shard(1, 2, {**names, "login": "succeeded"}),
    ]
    kinds = families_of(group(*runs), START + HOUR)
    assert len(kinds) == MOST_FAMILIES + 1
    assert kinds[-1].name == OTHERS
    assert sum(kind.jobs for kind in kinds) == MOST_FAMILIES + 7
    assert sum(kind.succeeded for kind in kinds) == MOST_FAMILIES + 6
    bad = next(kind for kind in kinds if kind.name == "bad")
    assert bad.failures == {JobCause.PAGE_CHANGED: 1}
