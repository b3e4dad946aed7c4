"""Which of a release's jobs are a run's: those that were asked for, and of these a shard's."""

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import ShardError, UsageError
from agent.config.jobsfile import Job, parse_jobs
from agent.contract.ids import Shard
from agent.jobs.selection import assigned, home_of, requested


def job(name: str, *needs: str, matrix: dict[str, tuple[str, ...]] | None = None) -> Job:
    """A job."""
    return Job(name=name, command=("x",), needs=needs, matrix=matrix or {})


NAMES = st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True), unique=True)


def shards_of(names: Iterable[str], shards: int) -> list[tuple[str, int]]:
    """Return each job without needs with the shards on which it is."""
    jobs = tuple(job(name) for name in names)
    numbers = range(shards)
    return [(one.name, at) for at in numbers for one in assigned(jobs, Shard("g", at, shards))]


@given(NAMES, NAMES, st.integers(1, 50))
def test_each_job_is_on_one_shard_and_another_does_not_move_it(
    names: list[str], more: list[str], shards: int
) -> None:
    """Its shard depends on nothing but its own name and the number of shards."""
    before = shards_of(names, shards)
    assert sorted(name for name, _ in before) == sorted(names)
    assert {*before} <= {*shards_of(sorted({*names, *more}), shards)}


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
    parts = [assigned(jobs.job, Shard("g", number, 4)) for number in range(4)]
    assert all(part[0].name == "login-check" for part in parts)
    shops = [each.name for part in parts for each in part[1:]]
    assert sorted(shops) == sorted(each.name for each in jobs.job[1:])


def test_a_matrix_cannot_be_needed_across_shards() -> None:
    """What needs all values of a matrix belongs to the home side; on one machine it is fine."""
    jobs = (job("shop-a", matrix={"shop": ("a",)}), job("sum", "shop-a"))
    with pytest.raises(ShardError, match='"sum" needs "shop-a"'):
        assigned(jobs, Shard("g", 0, 2))
    assert assigned(jobs, Shard("g", 0, 1)) == assigned(jobs, None) == jobs


def test_an_unknown_job_is_refused_before_the_deal() -> None:
    """A shard that does not have a named job is fine; a release that does not have it is not."""
    jobs = (job("a"), job("b"))
    with pytest.raises(UsageError, match='v1 has no job "c"'):
        requested(jobs, frozenset({"c"}), Shard("g", 0, 8), "v1")
    parts = [requested(jobs, frozenset({"a"}), Shard("g", number, 8), "v1") for number in range(8)]
    assert [each.name for part in parts for each in part] == ["a"]
