"""What is known of groups of shards, by table and by property."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.jobsfile import Job, JobsFile, expand
from agent.core.manifest import StartedMarker
from agent.core.results import JobCause, JobStatus, RunStatus
from agent.core.shards import MOST_SHARDS, Shard
from consumer.facts.groups import (
    LATE_FOR,
    MOST_FAMILIES,
    MOST_MISSING,
    OTHERS,
    PATIENCE,
    GroupState,
    complete_of,
    families,
    families_of,
    groups_of,
    late_of,
    shard_of,
)
from consumer.facts.rows import BegunRow, JobRow, RunRow
from tests.consumer.rows import FIRST, after, run_on

SHARDS = 3
HOUR = 3600.0


def run_of(number: int, shard: int, status: str = "succeeded", group: str = "monday") -> RunRow:
    """A run of a shard that began so many hours after the first, and took an hour."""
    return RunRow(
        run=run_on(0, number),
        started=after(0, number),
        finished=after(0, number + 1),
        status=RunStatus(status),
        part=Shard(group, shard, SHARDS),
    )


def begun_of(number: int, shard: int) -> BegunRow:
    """A run of a shard that began so many hours after the first, and has two hours."""
    part = Shard("monday", shard, SHARDS)
    return BegunRow(run_on(0, number), after(0, number), after(0, number + 2), part=part)


@pytest.mark.parametrize(
    ("came", "committed", "missing"),
    [
        (["0 succeeded", "1 succeeded", "2 succeeded"], 3, ()),
        (["0 succeeded", "1 failed", "2 partial"], 3, ()),
        (["0 succeeded", "1 interrupted", "2 succeeded"], 2, (1,)),
        (["0 succeeded", "0 succeeded", "0 partial"], 1, (1, 2)),
        (["1 interrupted"], 0, (0, 1, 2)),
        (["1 succeeded", "1 interrupted"], 1, (0, 2)),
    ],
)
def test_a_shard_is_done_by_a_run_that_was_not_interrupted(
    came: list[str], committed: int, missing: tuple[int, ...]
) -> None:
    """A failed run settles its shard, an interrupted one does not, and a shard is counted once."""
    words = [one.split() for one in came]
    runs = [run_of(number, int(shard), status) for number, (shard, status) in enumerate(words)]
    (group,) = groups_of(runs, [], after(0, 5))
    assert (group.committed, group.missing) == (committed, missing)
    assert (group.state is GroupState.COMPLETE) == (not missing)


def test_a_retry_completes_a_group() -> None:
    """The second attempt of an interrupted shard settles it, and both are the group's runs."""
    runs = [run_of(0, 0), run_of(1, 1, "interrupted"), run_of(2, 2), run_of(3, 1)]
    (group,) = groups_of(runs, [], after(400))
    assert group.state is GroupState.COMPLETE
    assert group.runs == tuple(run.run for run in runs)


def test_an_incomplete_group_is_late_when_nothing_more_is_to_be_expected() -> None:
    """While a run is before its deadline, or a commit is fresh, the missing shards may still come."""
    runs, begun = [run_of(0, 0)], [begun_of(3, 1)]
    (group,) = groups_of(runs, begun, after(0, 4))
    assert (group.state, group.running) == (GroupState.INCOMPLETE, 1)
    assert group.due == after(0, 5)
    (group,) = groups_of(runs, begun, after(0, 5) + 1)
    assert (group.state, group.running) == (GroupState.LATE, 0)
    (group,) = groups_of(runs, [], after(0, 1) + PATIENCE)
    assert group.state is GroupState.INCOMPLETE
    (group,) = groups_of(runs, [], after(0, 1) + PATIENCE + 1)
    assert group.state is GroupState.LATE


def test_a_limit_counts_from_the_begin_of_a_group() -> None:
    """With a limit a group is late at that time, whatever its runs' deadlines say."""
    begun = [begun_of(0, 0), begun_of(1, 1)]
    assert groups_of([], begun, after(0, 1) + 1, HOUR)[0].state is GroupState.LATE
    assert groups_of([], begun, after(0, 9), 10 * HOUR)[0].state is GroupState.INCOMPLETE
    late = groups_of([], begun, after(0, 9), HOUR)
    assert late_of(late, after(0, 9)) == late
    assert late_of(late, after(0) + LATE_FOR) == ()


def test_a_group_that_was_dealt_anew_is_another_one() -> None:
    """Shards of three and shards of two have nothing in common but the name."""
    other = replace(run_of(3, 1), part=Shard("monday", 1, 2))
    groups = groups_of([run_of(0, 0), run_of(1, 1), other], [], after(0, 5))
    assert [(group.shards, group.committed) for group in groups] == [(3, 2), (2, 1)]


def test_a_huge_group_names_few_of_what_is_missing() -> None:
    """A hundred thousand shards of which none came are as many, and twenty of them are named."""
    run = replace(run_of(0, 0), part=Shard("g", MOST_SHARDS - 1, MOST_SHARDS))
    (group,) = groups_of([run], [], after(0))
    assert group.missing == tuple(range(MOST_MISSING))


RUNS = st.lists(
    st.tuples(
        st.integers(0, SHARDS - 1),
        st.sampled_from(["succeeded", "failed", "interrupted"]),
        st.sampled_from(["monday", "tuesday"]),
    ),
    max_size=12,
)


@given(drawn=RUNS, more=RUNS, seed=st.integers(0, 9))
def test_groups_do_not_depend_on_order_and_stay_complete(
    drawn: list[tuple[int, str, str]], more: list[tuple[int, str, str]], seed: int
) -> None:
    """Facts are the same in any order; what is complete stays so, and a pull decides as the page does."""
    all_runs = [run_of(number, *one) for number, one in enumerate([*drawn, *more])]
    runs, now = all_runs[: len(drawn)], after(0, 30)
    groups = groups_of(runs, [], now)
    shuffled = list(runs)
    random.Random(seed).shuffle(shuffled)
    assert groups_of(shuffled, [], now) == groups
    complete = {(one.name, one.shards) for one in groups if one.state is GroupState.COMPLETE}
    assert complete == complete_of((run.part, run.status) for run in runs if run.part)
    assert complete <= complete_of((run.part, run.status) for run in all_runs if run.part)
    for group in groups:
        assert group.committed + len(group.missing) == SHARDS


@pytest.mark.parametrize(
    ("group", "shard", "shards"),
    [
        ("g", 0, None),
        ("g", None, 2),
        (None, 0, 2),
        ("g", 2, 2),
        ("g", 0, MOST_SHARDS + 1),
        ("g\n", 0, 2),
        ("\x1b[2J", 0, 2),
        ("", 0, 1),
        ("g" * 101, 0, 1),
    ],
)
def test_impossible_shards_are_refused(
    group: str | None, shard: int | None, shards: int | None
) -> None:
    """What no agent would say of its shard is not believed."""
    marker = StartedMarker(
        run_id=run_on(0),
        started=FIRST,
        deadline=FIRST,
        host="h",
        release_wanted="v1",
        group=group,
        shard=shard,
        shards=shards,
    )
    with pytest.raises(ValueError, match="impossible"):
        shard_of(marker)


def row_of(
    run: RunRow, name: str, status: str = "succeeded", cause: JobCause | None = None, files: int = 1
) -> JobRow:
    """A job in a run, with a hundred bytes in each file."""
    return JobRow(
        run=run.run,
        name=name,
        started=run.started,
        finished=run.finished,
        status=JobStatus(status),
        cause=cause,
        files=files,
        bytes=files * 100,
        seconds=2.0,
    )


def test_jobs_are_summed_up_over_shards_and_attempts() -> None:
    """What an interrupted attempt finished counts from there, what it did not from the next; nothing counts twice."""
    first, second, other = run_of(0, 0, "interrupted"), run_of(1, 0), run_of(2, 1)
    rows = [
        row_of(first, "shop-a"),
        row_of(first, "shop-b", "interrupted", JobCause.INTERRUPTED, files=0),
        row_of(second, "shop-a", "skipped", files=0),
        row_of(second, "shop-b", files=3),
        row_of(other, "shop-c", "failed", JobCause.PAGE_CHANGED, files=0),
        row_of(other, "report", "failed", files=0),
        row_of(run_of(3, 0, group="tuesday"), "shop-z"),
    ]
    parts = {run.run: run.part for run in (first, second, other) if run.part}
    report, shop = families_of(rows, parts)
    assert (shop.name, shop.jobs, shop.succeeded) == ("shop", 3, 2)
    assert (shop.files, shop.bytes, shop.seconds) == (4, 400, 6.0)
    assert shop.failures == {JobCause.PAGE_CHANGED: 1}
    assert report.failures == {JobCause.ERROR: 1}


def test_what_a_run_says_of_its_jobs_is_not_guessed() -> None:
    """A job that is no value of the matrix is its own kind, whatever it is called; older runs are guessed as before."""
    run, older = run_of(0, 0), run_of(1, 1)
    parts = {one.run: one.part for one in (run, older) if one.part}
    said = {
        "shop-a": "shop",
        "shop-b": "shop",
        "shop-list": "shop-list",
        "x-1": "x-1",
        "x-2": "x-2",
    }
    rows = [replace(row_of(run, name), family=family) for name, family in said.items()]
    rows += [row_of(older, "shop-c"), row_of(older, "shop-d")]
    assert {one.name: one.jobs for one in families_of(rows, parts)} == {
        "shop": 4,
        "shop-list": 1,
        "x-1": 1,
        "x-2": 1,
    }


def test_kinds_are_few() -> None:
    """However many jobs are like no other, at most fifty kinds are told of, and the others as one."""
    run = run_of(0, 0)
    assert run.part is not None
    rows = [row_of(run, f"job{number}") for number in range(300)]
    found = families_of([*rows, row_of(run, "shop-a"), row_of(run, "shop-b")], {run.run: run.part})
    assert len(found) == MOST_FAMILIES + 1
    assert {"shop", OTHERS} <= {one.name for one in found}
    assert sum(one.jobs for one in found) == 302


def test_values_of_a_matrix_are_one_kind() -> None:
    """Names as a release makes them, of values with hyphens, capitals and accents, come together again."""
    job = Job(name="shop", command=("x",), matrix={"city": ("akasaka", "Ume Da", "\u5929", "a-b")})
    names = [one.name for one in expand(JobsFile(job=(job,))).job]
    assert len(names) == 4
    assert set(families([*names, "report"]).values()) == {"shop", "report"}


@given(st.lists(st.from_regex(r"[ab]{1,2}(-[ab]){0,3}", fullmatch=True), max_size=20))
def test_a_kind_is_the_begin_of_its_jobs(names: list[str]) -> None:
    """Each job has one kind, with which its name begins, and jobs of one first word that meet are one kind."""
    found = families(names)
    assert found.keys() == set(names)
    for name, kind in found.items():
        assert name == kind or name.startswith(f"{kind}-")
