"""What a run asks of the bucket for its batch, counted as it is billed; docs/shards.md has the figures.

Files, packages, states and parts of the log come on top: whoever delivers them counts those.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta

import pytest

from agent.batch.claim import Work
from agent.batch.commit import EVERY_SECONDS
from agent.batch.history import History
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from agent.contract.ids import Shard
from agent.delivery.committer import MOST_UNPROVEN
from tests.batch.entries import A, closed, jobs, planned, run_of
from tests.batch.memory import SCHEDULED, MemoryBucket
from tests.batch.memory import session as session_of

WRITTEN, READ = 5.0, 0.4
"""US dollars for a million PUTs or LISTs, and for a million GETs, at AWS's list price (us-east-1)."""
SHARD = Purpose(shard=Shard("monday", 1, 1000), retried=True)


def dollars(asked: Counter[str]) -> float:
    """Return what requests cost."""
    return ((asked["put"] + asked["list"]) * WRITTEN + asked["get"] * READ) / 1e6


async def run(
    bucket: MemoryBucket,
    purpose: Purpose,
    names: list[str],
    *,
    at_once: int = 1,
    seconds: float = EVERY_SECONDS,
    name: str = "first",
) -> Counter[str]:
    """Let a run do its jobs, so many in each commit, and return what it asked for its batch."""
    clock = bucket.clock
    own = run_of(name, clock.seconds)
    session = session_of(bucket, own, purpose, pause=clock.sleep, catch_up=timedelta(hours=6))
    bucket.forget()
    claiming = asyncio.create_task(claimed(session))
    await clock.pass_seconds(10)
    assert await claiming == {}
    history = History(bucket, session.batch, clock.now())
    plan = planned(*names)
    told: list[object] = []
    watching = asyncio.create_task(session.watch(told.append))
    for start in range(0, len(names), at_once):
        some = names[start : start + at_once]
        for job in some:
            assert await history.newest_state(job) is None
        await clock.pass_seconds(seconds)
        results = jobs(session.run, some)
        await session.log.append(planned=plan if start == 0 else None, jobs=results)
        if session.log.unproven >= MOST_UNPROVEN:
            await session.log.prove()
    await session.log.append(closed=closed())
    await session.log.prove()
    watching.cancel()
    assert told == []
    return bucket.forget()


async def claimed(session: BatchSession) -> Mapping[str, str]:
    """Claim a batch that nobody else wants, and return what is left out."""
    await session.begin()
    decision = (await session.settle()).decision
    assert isinstance(decision, Work)
    return decision.leave_out


FIVE = [f"job-{number}" for number in range(5)]


@pytest.mark.parametrize(
    ("purpose", "at_once", "puts"),
    [(SCHEDULED, 1, 14), (SCHEDULED, 5, 6), (Purpose(), 1, 14)],
    ids=["a commit for each job", "one commit", "a run by itself"],
)
async def test_five_jobs(purpose: Purpose, at_once: int, puts: int) -> None:
    """Nobody scheduled the last: it looks once whether there is something to go on with."""
    asked = await run(MemoryBucket(), purpose, FIVE, at_once=at_once)
    assert asked == {"put": puts, "list": 3}


async def test_five_jobs_of_two_minutes() -> None:
    """Two looks while it works, which find its own entries by their tags."""
    asked = await run(MemoryBucket(), SCHEDULED, FIVE, seconds=120)
    assert (asked["put"], asked["get"]) == (14, 0)
    assert asked["list"] <= 5


async def test_the_next_night_asks_the_same() -> None:
    """Also after months of nights."""
    bucket = MemoryBucket()
    for night in range(60):
        bucket.clock.seconds = night * 86400.0
        slot = bucket.clock.now()
        asked = await run(bucket, Purpose(slot=slot), FIVE, name=str(night))
        assert asked == {"put": 14, "list": 3}


@pytest.mark.parametrize(("at_once", "commits"), [(2, 500), (10, 100), (200, 5)])
async def test_a_million_jobs_on_a_thousand_shards(at_once: int, commits: int) -> None:
    """An hour's work, with two, ten, or two hundred jobs in each commit: half a cent for each commit of all shards."""
    names = [f"shop-{number}" for number in range(1000)]
    asked = await run(MemoryBucket(), SHARD, names, at_once=at_once, seconds=3600 / commits)
    assert asked["put"] == 2 * commits + 4
    assert 13 <= asked["list"] <= 15 + commits // MOST_UNPROVEN
    assert asked["get"] <= commits
    whole = 1000 * dollars(asked)
    print(f"{commits} commits: {dict(asked)} for a shard, {whole:.2f} dollars for all")
    assert whole < 0.25 + commits * 0.011


async def test_other_shards_cost_a_shard_nothing() -> None:
    """A group's pointers are listed by nobody who works in it."""
    bucket = MemoryBucket()
    alone = await run(bucket, SHARD, FIVE)
    for number in range(2, 60):
        await run(bucket, Purpose(shard=Shard("monday", number, 1000), retried=True), FIVE)
    last = Purpose(shard=Shard("monday", 999, 1000), retried=True)
    assert await run(bucket, last, FIVE, name="last") == alone


async def test_a_shard_that_is_tried_again_reads_what_it_has_committed() -> None:
    """An entry is read once."""
    bucket = MemoryBucket()
    await run(bucket, SHARD, [f"shop-{number}" for number in range(50)])
    session = session_of(bucket, A, SHARD)
    bucket.forget()
    assert len(await claimed(session)) == 50
    assert bucket.asked == {"put": 2, "list": 1, "get": 52}
