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
from tests.run.bench import Bench
from tests.run.fleet import Fleet

JOBS = """
    [[job]]
    name = "shop"
    command = ["sh", "-c", "date +%s.%N >> {visits}"]
    matrix = {{ shop = ["0", "1", "2", "3", "4", "5", "6", "7"] }}
    rate = {{ "shop.example" = "2/s" }}
"""


@pytest.fixture
def fleet(bench: Bench) -> Iterator[Fleet]:
    """Two shards on one machine that keep the pace together."""
    bench.settings |= {
        "limits.jobs": "4",
        "limits.jitter": "1s",
        "paths.pace": str(bench.folder / "pace"),
    }
    bench.release("v1", JOBS.format(visits=bench.folder / "visits"))
    fleet = Fleet(bench, "night-1", 2)
    yield fleet
    fleet.end()


def test_shards_of_a_machine_keep_one_pace(fleet: Fleet, bucket: Bucket) -> None:
    """Two agents with four places each take their turns from one file: nobody starts before its turn."""
    members = [fleet.start(shard) for shard in range(2)]
    assert [member.wait() for member in members] == [0, 0]
    starts = sorted(
        each["timestamp"]
        for member in members
        for each in member.log.events()
        if each["event"] == "job.started"
    )
    assert len(starts) == 8
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
    bench.settings |= {"limits.run": "30s"}
    jobs = JOBS.format(visits=bench.folder / "visits").replace('"2/s"', '"1/h"')
    bench.release("v1", jobs)
    ran = bench.run()
    assert ran.code == 3
    told = bucket.newest.told.values()
    statuses = [job["status"] for job in told]
    assert (statuses.count("succeeded"), statuses.count("failed")) == (1, 7)
    late = next(job for job in told if job["status"] == "failed")
    assert (late["cause"], late["message"]) == (
        "timeout",
        "the rate limit left no time for this job",
    )
