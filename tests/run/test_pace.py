"""Politeness: jobs of several agents on one machine visit a site one after the other, at its rate."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from agent.base.errors import StateError
from agent.jobs.rate_limit import reserve
from tests.bucket.bucket import Bucket
from tests.run.bench import Bench, job
from tests.run.fleet import Fleet


def shops(bench: Bench, rate: str) -> str:
    """Return eight jobs that note the time of their visit to one site."""
    visits = f"date +%s.%N >> {bench.folder / 'visits'}"
    return job("shop", visits, matrix={"shop": [*"01234567"]}, rate={"shop.example": rate})


@pytest.fixture
def fleet(bench: Bench) -> Iterator[Fleet]:
    """Two shards on one machine that keep the pace together."""
    bench.settings |= {
        "limits.jobs": "4",
        "limits.jitter": "1s",
        "paths.pace": str(bench.folder / "pace"),
    }
    bench.release("v1", shops(bench, "2/s"))
    fleet = Fleet(bench, "night-1", 2)
    yield fleet
    fleet.end()


def test_shards_of_a_machine_keep_one_pace(fleet: Fleet, bucket: Bucket) -> None:
    """Two agents with four places each take their turns from one file: nobody starts before its turn."""
    members = [fleet.start(shard) for shard in range(2)]
    assert [member.wait() for member in members] == [0, 0]
    assert sum(len(member.log.events("job.started")) for member in members) == 8
    times = sorted(float(line) for line in (fleet.bench.folder / "visits").read_text().split())
    # A start may be late on a busy machine, never early: the last cannot come before its turn.
    assert times[-1] - float((fleet.bench.folder / "pace" / "shop.example").read_text()) >= -0.6
    assert len(bucket.runs) == 2


async def test_turns_that_are_taken_at_once_are_apart(tmp_path: Path) -> None:
    """Twenty visitors at the same moment get twenty turns, each a second after the one before."""
    began = time.time()
    waits = await asyncio.gather(
        *(reserve(tmp_path / "pace", "shop.example", 1.0, within=60.0) for _ in range(20))
    )
    took = time.time() - began
    known = sorted(wait for wait in waits if wait is not None)
    assert len(known) == 20
    # A turn is a second after the one before; a wait says less of it the longer it took to ask, for each by itself.
    assert all(abs(after - before - 1.0) < 0.002 + 2 * took for before, after in pairwise(known))
    assert float((tmp_path / "pace" / "shop.example").read_text()) - began >= 19.9
    assert await reserve(tmp_path / "pace", "shop.example", 1.0, within=5.0) is None
    assert await reserve(tmp_path / "pace", "other.example", 1.0, within=5.0) == 0.0


async def test_a_pace_that_cannot_be_kept_is_an_error(tmp_path: Path) -> None:
    """Nobody visits a site without its turn."""
    (tmp_path / "pace").write_text("in the way")
    with pytest.raises(StateError, match=r"the rate limit of shop\.example cannot be kept"):
        await reserve(tmp_path / "pace", "shop.example", 1.0, within=60.0)


def test_a_job_whose_turn_comes_too_late_fails_in_time(bench: Bench, bucket: Bucket) -> None:
    """A run does not wait beyond its time, and says why the job did not start."""
    bench.release("v1", shops(bench, "1/h"))
    bench.run(code=3, limits__run="30s")
    told = bucket.newest.told.values()
    statuses = [job["status"] for job in told]
    assert (statuses.count("succeeded"), statuses.count("failed")) == (1, 7)
    late = next(job for job in told if job["status"] == "failed")
    message = "the rate limit left no time for this job"
    assert (late["cause"], late["message"]) == ("timeout", message)
