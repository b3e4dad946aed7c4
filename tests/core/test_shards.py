"""Shards: who says which one a run is, which jobs are its own, and what an earlier run has finished."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import ShardError, UsageError
from agent.config.jobsfile import Job, family_of, parse_jobs
from agent.core.catchup import finished_in
from agent.core.journal import Journal, after_death
from agent.core.manifest import HostRecord, IndexEntry, JobSummary, ManifestRef, RunRecord
from agent.core.results import JobResult, JobStatus, RunStatus
from agent.core.shards import (
    NOTHING_ASKED,
    Shard,
    Word,
    asked,
    dealt,
    home_of,
    identify,
    requested,
)
from agent.jobs.plan import SchedulerState, next_step
from agent.machine.instance import HostFacts

SLOT = datetime(2026, 11, 22, 18, tzinfo=UTC)
ARRAY_INDEX = "AWS_BATCH_JOB_ARRAY_INDEX"
K8S = {"JOB_COMPLETION_INDEX": "1", "MAYFLY_SHARDS": "8", "MAYFLY_GROUP": "nightly-29381234"}
BATCH = {
    "AWS_BATCH_JOB_ARRAY_INDEX": "1",
    "AWS_BATCH_JOB_ARRAY_SIZE": "8",
    "AWS_BATCH_JOB_ID": "6f2c9f1e-0000-4a5b-8c7d-111111111111:1",
}
FLEET = HostFacts(launch_index=1, tags={"mayfly-shards": "8"})


def job(name: str, *needs: str, matrix: dict[str, tuple[str, ...]] | None = None) -> Job:
    """A job."""
    return Job(name=name, command=("x",), needs=needs, matrix=matrix or {})


@pytest.mark.parametrize(
    ("flag", "group", "environ", "machine", "shard"),
    [
        (None, None, {}, (None, None), None),
        (None, None, {}, (HostFacts(launch_index=3), SLOT), None),  # every instance has an index
        ("2/8", "g", {}, (None, None), Shard("g", 1, 8)),
        ("8/8", None, {}, (None, SLOT), Shard("20261122T180000Z", 7, 8)),
        ("1/1", "g", {}, (None, None), Shard("g", 0, 1)),
        (None, "g", {}, (None, None), Shard("g", 0, 1)),
        (None, None, K8S, (None, None), Shard("nightly-29381234", 1, 8)),
        (None, None, K8S, (HostFacts(launch_index=5), None), Shard("nightly-29381234", 1, 8)),
        ("2/8", None, K8S, (None, None), Shard("nightly-29381234", 1, 8)),
        ("2/8", "mine", K8S, (None, None), Shard("mine", 1, 8)),
        (None, None, BATCH, (None, None), Shard("6f2c9f1e-0000-4a5b-8c7d-111111111111", 1, 8)),
        ("1/2", "2026-11-23T03:00:00+09:00", {}, (None, None), Shard("20261122T180000Z", 0, 2)),
        (None, None, {"AWS_BATCH_JOB_ID": "abc"}, (None, None), Shard("abc", 0, 1)),
        (None, None, {}, (FLEET, SLOT), Shard("20261122T180000Z", 1, 8)),
        (None, None, {"MAYFLY_SHARDS": "8"}, (HostFacts(launch_index=7), SLOT), Shard("20261122T180000Z", 7, 8)),
        (None, None, {"MAYFLY_SHARDS": "1"}, (None, SLOT), Shard("20261122T180000Z", 0, 1)),
        ("2/8", "g", {}, (FLEET, SLOT), Shard("g", 1, 8)),
    ],
)  # fmt: skip
def test_which_shard_a_run_is(
    flag: str | None,
    group: str | None,
    environ: dict[str, str],
    machine: tuple[HostFacts | None, datetime | None],
    shard: Shard | None,
) -> None:
    """The flag, Kubernetes, AWS Batch and an EC2 fleet each say it; a run that nobody speaks of is a whole batch."""
    assert identify(asked(flag, group, environ), *machine) == shard


@pytest.mark.parametrize(
    ("flag", "group", "environ", "facts", "words"),
    [
        ("0/8", "g", {}, None, ["--shard", "1/8"]),
        ("9/8", "g", {}, None, ["--shard"]),
        ("2 of 8", "g", {}, None, ["--shard"]),
        ("²/8", "g", {}, None, ["--shard"]),
        ("2/8", "a/b", {}, None, ['"a/b"', "group"]),
        ("2/8", "x\n", {}, None, ["group"]),
        ("2/8", None, {}, None, ["group", "--group"]),
        ("3/8", None, K8S, None, ["--shard", "2", "JOB_COMPLETION_INDEX", "1"]),
        ("2/9", None, K8S, None, ["--shard", "9", "MAYFLY_SHARDS", "8"]),
        (None, "g", {**K8S, ARRAY_INDEX: "4"}, None, ["JOB_COMPLETION_INDEX", ARRAY_INDEX]),
        ("3/8", "g", {}, FLEET, ["--shard", "the tag mayfly-shards"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "1"}, None, ["JOB_COMPLETION_INDEX", "MAYFLY_SHARDS"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "8", "MAYFLY_SHARDS": "8"}, None, ["shard 8", "of 8"]),
        (None, "g", {"JOB_COMPLETION_INDEX": "-1", "MAYFLY_SHARDS": "8"}, None, ["JOB_COMPLETION_INDEX"]),
        (None, "g", {"MAYFLY_SHARDS": "8"}, None, ["8 shards", "which one"]),
        (None, "g", {"MAYFLY_SHARDS": "0"}, None, ["0 shards"]),
        (None, "g", {"MAYFLY_SHARDS": "999999"}, None, ["999999"]),
        (None, "g", {}, HostFacts(launch_index=1, tags={"mayfly-shards": "many"}), ["mayfly-shards", "many"]),
    ],
)  # fmt: skip
def test_contradictions_and_gaps_are_refused(
    flag: str | None,
    group: str | None,
    environ: dict[str, str],
    facts: HostFacts | None,
    words: list[str],
) -> None:
    """Two sources that disagree are both named; what is missing is named with what would give it."""
    with pytest.raises(ShardError) as refused:
        identify(asked(flag, group, environ), facts, None)
    told = refused.value.with_remedy
    assert [word for word in words if word not in told] == []


def test_the_first_source_is_named_first() -> None:
    """The order of precedence is flag, Kubernetes, AWS Batch, fleet."""
    words = asked("2/8", None, K8S | BATCH).words
    assert words == (
        Word("--shard", 1, 8),
        Word("JOB_COMPLETION_INDEX", 1),
        Word("AWS_BATCH_JOB_ARRAY_INDEX", 1, 8),
        Word("MAYFLY_SHARDS", None, 8),
    )
    assert asked(None, None, {}) == NOTHING_ASKED


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True), unique=True)


@given(NAMES, st.integers(1, 50))
def test_each_job_is_on_one_shard(names: list[str], shards: int) -> None:
    """Over all shards of a group every job without needs appears once, whatever the number of shards."""
    jobs = tuple(job(name) for name in names)
    parts = [dealt(jobs, Shard("g", number, shards)) for number in range(shards)]
    assert sorted(each.name for part in parts for each in part) == sorted(names)


@given(NAMES, NAMES, st.integers(2, 50))
def test_adding_values_moves_no_other(names: list[str], more: list[str], shards: int) -> None:
    """A value's shard depends on nothing but its own name and the number of shards."""
    before = {
        each.name: number
        for number in range(shards)
        for each in dealt(tuple(job(name) for name in names), Shard("g", number, shards))
    }
    after = {
        each.name: number
        for number in range(shards)
        for each in dealt(
            tuple(job(name) for name in sorted({*names, *more})), Shard("g", number, shards)
        )
    }
    assert {name: after[name] for name in before} == before


def test_the_hash_is_the_same_for_ever() -> None:
    """Machines of different versions deal alike; and values spread over the shards."""
    assert [home_of(name, 8) for name in ("quotes", "shop-a", "shop-b", "shop-c")] == [3, 2, 7, 3]
    counts = [0] * 8
    for number in range(8000):
        counts[home_of(f"shop-{number}", 8)] += 1
    assert 900 < min(counts) <= max(counts) < 1100


def test_what_a_job_needs_goes_with_it() -> None:
    """A job without a matrix that others need runs on each shard that has one of them, before them."""
    values = ", ".join(f'"{number}"' for number in range(40))
    text = f"""
        [[job]]
        name = "login-check"
        command = ["true"]
        [[job]]
        name = "shop"
        command = ["true"]
        needs = ["login-check"]
        matrix = {{ shop = [{values}] }}
    """
    jobs, faults = parse_jobs(text, "jobs.toml", "1.0.0")
    assert jobs is not None, faults
    parts = [dealt(jobs.job, Shard("g", number, 4)) for number in range(4)]
    assert all(part[0].name == "login-check" for part in parts)
    shops = [each.name for part in parts for each in part[1:]]
    assert sorted(shops) == sorted(each.name for each in jobs.job[1:])


def test_a_matrix_cannot_be_needed_across_shards() -> None:
    """What needs all values of a matrix belongs to the home side; on one machine it is fine."""
    jobs = (job("shop-a", matrix={"shop": ("a",)}), job("sum", "shop-a"))
    with pytest.raises(ShardError, match='"sum" needs "shop-a"'):
        dealt(jobs, Shard("g", 0, 2))
    assert dealt(jobs, Shard("g", 0, 1)) == dealt(jobs, None) == jobs


def test_an_unknown_job_is_refused_before_the_deal() -> None:
    """A shard that does not have a named job is fine; a release that does not have it is not."""
    jobs = (job("a"), job("b"))
    with pytest.raises(UsageError, match='v1 has no job "c"'):
        requested(jobs, frozenset({"c"}), Shard("g", 0, 8), "v1")
    parts = [requested(jobs, frozenset({"a"}), Shard("g", number, 8), "v1") for number in range(8)]
    assert [each.name for part in parts for each in part] == ["a"]


MATRIX = """
[[job]]
name = "shop"
command = ["x"]
matrix = { city = ["akasaka", "Ume Da"] }

[[job]]
name = "shop-list"
command = ["x"]
"""


def journal() -> Journal:
    """A run that has planned nothing yet."""
    known: dict[str, Any] = {"started": SLOT, "finished": SLOT, "agent": "1"}
    host = HostRecord(name="h", system="s")
    return Journal(run=RunRecord(run_id="R", status=RunStatus.SUCCEEDED, host=host, **known))


def test_a_value_of_a_matrix_knows_its_job() -> None:
    """Whatever its own name became, it has the one in jobs.toml besides; a job without a matrix has one name."""
    jobs, faults = parse_jobs(MATRIX, "jobs.toml", "1.0")
    assert (jobs is not None, faults) == (True, [])
    assert jobs is not None
    assert [family_of(each) for each in jobs.job] == ["shop", "shop", "shop-list"]
    assert len({each.name for each in jobs.job}) == 3
    assert all(each.command == ("x",) for each in jobs.job)


def test_results_say_which_job_of_the_file_they_are_of() -> None:
    """Those that ended and those that a death cut off; a journal of an older agent does not say, and nobody guesses."""
    jobs, _ = parse_jobs(MATRIX, "jobs.toml", "1.0")
    assert jobs is not None
    planned = journal().with_plan(jobs.job, 3)
    assert (planned.planned, planned.place) == (tuple(each.name for each in jobs.job), 3)
    done = JobResult(name="shop-akasaka", status=JobStatus.SUCCEEDED)
    dead = after_death(planned.with_result(done), frozenset(), "X", SLOT)
    assert [each.family for each in dead.run.jobs] == ["shop", "shop", "shop-list"]
    older = planned.model_copy(update={"families": {}}).with_result(done)
    assert [each.family for each in older.run.jobs] == [None]


def entry(run: str, status: RunStatus, hours: int, **jobs: JobStatus) -> IndexEntry:
    """A run that was committed."""
    at = SLOT + timedelta(hours=hours)
    summaries = tuple(JobSummary(name=name, status=each) for name, each in jobs.items())
    reference = ManifestRef(key="x", bytes=1, sha256="0" * 64)
    known: dict[str, Any] = {"files": 0, "bytes": 0, "jobs": summaries, "manifest": reference}
    return IndexEntry(run_id=run, status=status, started=at, finished=at, **known)


def test_only_what_succeeded_is_finished() -> None:
    """What failed, was cut off or was skipped runs again; of two successes the earlier is named."""
    cut = entry(
        *("one", RunStatus.INTERRUPTED, 0),
        a=JobStatus.SUCCEEDED,
        b=JobStatus.INTERRUPTED,
        c=JobStatus.FAILED,
    )
    rest = entry(
        *("two", RunStatus.PARTIAL, 1),
        a=JobStatus.SKIPPED,
        b=JobStatus.SUCCEEDED,
        c=JobStatus.FAILED,
    )
    assert finished_in([rest, cut]) == {
        "a": "succeeded in one, which was interrupted",
        "b": "succeeded in two",
    }
    assert finished_in([]) == {}


def test_what_needs_a_finished_job_starts() -> None:
    """A job that an earlier run did is skipped in this one, and counts as done."""
    jobs = (job("a"), job("b", "a"))
    ended = {"a": JobStatus.SKIPPED}
    assert next_step(
        SchedulerState(jobs, ended, frozenset(), 2, 2, finished=frozenset({"a"}))
    ).start == ("b",)
    assert next_step(SchedulerState(jobs, ended, frozenset(), 2, 2)).skip[0][0] == "b"
