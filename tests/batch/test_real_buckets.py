"""Sessions and looks back in real buckets: a folder, whose listings have no order, and an S3 server."""

import asyncio
import os
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from agent.batch.claim import StandBack, Work
from agent.batch.fold import fold
from agent.batch.history import History
from agent.batch.log import LogReader
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from agent.bucket.address import LocalBucket, S3Bucket
from agent.bucket.store import Bucket
from agent.config.credentials import Credentials
from agent.contract.entries import Began, Ended, Object, Output
from agent.contract.facts import Host
from agent.contract.ids import run_id
from agent.contract.layout import StateKey, batch_prefix
from tests.batch.entries import closed, job, jobs
from tests.parts.seaweed import S3Server

SLOT = Purpose(slot=datetime(2026, 11, 22, 18, 0, tzinfo=UTC))


def now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)


def run_named(name: bytes, ago: timedelta = timedelta(0)) -> str:
    """Return the id of a run."""
    return run_id(now() - ago, name)


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of either kind."""
    if request.param == "folder":
        return Bucket.open(LocalBucket(tmp_path / "bucket"), None)
    server: S3Server = request.getfixturevalue("s3_server")
    config: dict[str, str | bool] = {
        "region": "us-east-1",
        "endpoint": server.url,
        "virtual_hosted_style_request": False,
    }
    address = S3Bucket(server.make_bucket(), "some/prefix", config)
    return Bucket.open(address, Credentials(server.access_key, server.secret_key))


def session(bucket: Bucket, run: str, purpose: Purpose = SLOT, **more: Any) -> BatchSession:
    """Return the session of a run that begins now."""
    began = Began(
        started=now(),
        deadline=now() + timedelta(hours=1),
        host=Host(name="host"),
        agent="1",
        channel="v*",
    )
    options = {"pause": shortly} | more
    return BatchSession(bucket, run, run[-6:] + "00", purpose, began, now=now, **options)


async def shortly(_: float) -> None:
    """Wait for less than is asked: these stores list at once what they have taken, and nobody races here."""
    await asyncio.sleep(0.05)


async def test_a_run_is_cut_off_and_a_fresh_machine_goes_on(bucket: Bucket) -> None:
    """A slot's run is told to stop; whoever comes next, without a disk and without a slot, does what is left."""
    one = session(bucket, run_named(b"one"))
    await one.begin()
    assert (await one.settle()).decision == Work({})
    beside = session(bucket, run_named(b"two"))
    await beside.begin()
    back = (await beside.settle()).decision
    assert isinstance(back, StandBack)
    assert await beside.stand_back(back.reason, back.run)
    await one.log.append(jobs=jobs(one.run, ["x"]), closed=closed("interrupted"))
    late = session(bucket, run_named(b"six"), Purpose(), catch_up=timedelta(hours=6))
    await late.begin()
    assert late.batch == one.batch
    assert (await late.settle()).decision == Work({"x": f"succeeded in {one.run}"})
    await late.log.append(jobs=jobs(late.run, ["y"]), closed=closed())
    state = fold(late.batch, await LogReader(bucket, late.batch).look())
    assert {name: one.run for name, one in state.successes.items()} == {
        "x": one.run,
        "y": late.run,
    }
    assert state.done_by is not None


async def test_what_was_before_is_found(bucket: Bucket) -> None:
    """Outputs of the newest entry, and the newest state that was committed."""
    for number in range(12):
        run = run_named(bytes([number, 7, 7]), timedelta(minutes=30 - number))
        purpose = Purpose(shard=(f"g{number}", 0, 1), retried=True)
        one = session(bucket, run, purpose)
        await one.begin()
        key = StateKey("x", run)
        await bucket.put_once(key.text, b"tar")
        left = Object(key=key.text, bytes=3, sha256="0" * 64)
        outputs = tuple(Output(files=one) for one in range(number + 1))
        ended: Ended = job(run, "x").model_copy(update={"state": left, "outputs": outputs})
        await one.log.append(jobs=(ended,), closed=closed())
    await bucket.put_once(StateKey("x", run_named(b"new")).text, b"uncommitted")
    history = History(bucket, one.batch, now())
    assert [one.files for one in (await history.outputs(["x"])).outputs["x"]] == list(range(12))
    state = await history.newest_state("x")
    assert state is not None
    assert (state.key.run, state.object) == (run, left)


async def test_a_run_that_was_silent_is_overtaken(tmp_path: Path) -> None:
    """The machine stood still for eleven minutes; the files of its log are as old as that."""
    bucket = Bucket.open(LocalBucket(tmp_path), None)
    ticks = count()

    async def tick(_: float) -> None:
        assert next(ticks) < 9, "the run was not told"

    hours = count(step=3600)
    one = session(
        bucket, run_named(b"one"), pause=tick, clock=lambda: float(next(hours)), seconds=1e9
    )
    await one.begin()
    long_ago = (now() - timedelta(minutes=11)).timestamp()
    for path in (tmp_path / batch_prefix(one.batch)).iterdir():
        os.utime(path, (long_ago, long_ago))
    assert (await one.settle()).decision == Work({})
    two = session(bucket, run_named(b"two"))
    await two.begin()
    assert (await two.settle()).decision == Work({})
    told: list[Any] = []
    await one.watch(told.append)
    assert told == [StandBack(f"run {two.run} on host works for it", two.run)]
