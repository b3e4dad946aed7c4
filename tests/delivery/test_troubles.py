"""A bucket that lies, loses answers, stalls, or is not there yet; a run whose time is over before all is sent."""

import asyncio
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.base.errors import StoreError
from agent.bucket.store import Bucket
from agent.contract.entries import Ended, Object, Planned
from agent.contract.ids import Batch, run_id
from agent.contract.layout import JobKey, batch_prefix
from agent.contract.results import JobStatus, RunStatus
from agent.delivery.prepare import Preparer
from tests.delivery.buckets import s3_bucket
from tests.delivery.world import SECONDS, World, began, until
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, BlackHole, Corrupt, Fault, Lie
from tests.parts.seaweed import S3Server

SOON = 4.0


@pytest.fixture
def behind(s3_server: S3Server, s3_proxy: FaultProxy, tmp_path: Path) -> World:
    """A run whose bucket is behind the proxy."""
    bucket = s3_bucket(s3_server, s3_server.make_bucket(), s3_proxy.url)
    return World.make(tmp_path / "state", bucket)


LIES: dict[str, tuple[str, Fault]] = {
    "a result": ("/files/1", Lie()),
    "half of a result": ("/files/1", Corrupt()),
    "a log": ("/logs/attempt-1.log", Corrupt(lambda content: content[:-1])),
    "the package": ("/jobs/a/datapackage.json", Lie()),
    "the state": ("/state/a/", Corrupt()),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_noticed_before_the_commit(
    behind: World, s3_proxy: FaultProxy, lie: str
) -> None:
    """Nothing is committed while the store lies; once it is honest, all of it is."""
    path, fault = LIES[lie]
    async with behind.under_way("a") as delivery:
        s3_proxy.inject(fault, method="PUT", path=path)
        behind.attempt("a", {"1": b"one", "2": b"two"})
        behind.run.saved_state("a").write_bytes(b"state")
        await delivery.ended(behind.finished("a"))
        await until(lambda: _is_noticed(behind))
        assert await delivery.flush(SOON) == ["a"]
        assert (await behind.seen()).results == {}
        s3_proxy.heal()
        assert await delivery.flush(SECONDS) == []
    assert set(await behind.committed()) == {"a"}


async def _is_noticed(world: World) -> bool:
    return any("does not hold it" in str(event.get("reason")) for event in world.events)


async def _is_sent(world: World, *paths: str) -> bool:
    return None not in [await world.content("a", path) for path in paths]


async def test_a_pointer_to_the_beginning_is_put_before_anything_else(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """A machine can vanish after one request; then home knows that something began."""
    behind.note("1")
    async with behind.under_way("a"):
        puts = [one.path for one in s3_proxy.seen if one.method == "PUT"]
    assert [path.split("/")[4] for path in puts] == ["index", "batches"]


async def test_a_large_plan_has_an_entry_of_its_own(behind: World) -> None:
    """It would not fit beside results."""
    names = [f"{number:060}" for number in range(10_000)]
    async with behind.under_way(*names) as delivery:
        await delivery.ended(behind.finished("a", JobStatus.SKIPPED))
        assert await delivery.flush(SECONDS) == []
    run = await behind.seen()
    assert run.progress == (1, 10_000)
    assert len(await behind.keys(batch_prefix(behind.batch))) == 3


@pytest.mark.long
async def test_a_bucket_that_comes_late(behind: World) -> None:
    """Jobs end before it is open: then their entries follow the run's beginning."""
    bucket: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    behind.opened = lambda: bucket  # type: ignore[method-assign]
    async with behind.delivery() as delivery:
        beginning = asyncio.create_task(behind.begin(delivery))
        await asyncio.to_thread(behind.run.begin, behind.batch, began())
        await delivery.plan(Planned(count=1, jobs=("a",)))
        behind.attempt("a", {"1": b"one"})
        await delivery.ended(behind.finished("a"))
        assert await delivery.flush(1.0) == ["a"]
        bucket.set_result(behind.bucket)
        assert await delivery.flush(SECONDS) == []
        await beginning
    assert set(await behind.committed()) == {"a"}


async def test_what_a_store_refuses_for_the_moment_is_tried_again(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """`400 RequestTimeout` in every kind of put, which its client takes for final."""
    slow = Answer(400, "RequestTimeout")
    async with behind.under_way("a") as delivery:
        files = ("/files/1", "/files/large", "datapackage.json")
        for path in (*files, "/log/0", "/batches/", "/index/"):
            s3_proxy.inject(slow, method="PUT", path=path, times=1)
        behind.note("1")
        behind.attempt("a", {"1": b"one", "large": bytes(6 * 1024**2)})
        await delivery.ended(behind.finished("a"))
        assert await delivery.flush(SECONDS) == []
        await delivery.close(behind.record(), [], keeps_disk=True)
    await behind.committed()
    await behind.manifest()
    assert s3_proxy.met >= 5
    assert [event for event in behind.events if event["event"] == "job.postponed"] == []


async def test_one_job_that_cannot_be_sent_keeps_no_other(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """It is pending, follows from the disk later, and settles the run."""
    async with behind.under_way("a", "b") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path="/jobs/a/files/stuck")
        behind.attempt("a", {"stuck": b"1"})
        behind.attempt("b", {"x": b"1"})
        await delivery.ended(behind.finished("a"))
        await delivery.ended(behind.finished("b"))
        await until(lambda: behind.has("b"))
        pending = await delivery.flush(SOON, hurried=True)
        assert pending == ["a"]
        await delivery.close(behind.record(), pending, keeps_disk=True)
    assert set(await behind.committed()) == {"b"}
    run = await behind.seen()
    assert not run.settled
    s3_proxy.heal()
    assert await behind.recovered() == 1
    assert set(await behind.committed()) == {"a", "b"}
    after = await behind.seen()
    assert after.settled
    assert after.closed == run.closed
    assert not behind.run.root.exists()


async def test_an_earlier_run_of_which_the_bucket_refuses_something_keeps_no_other(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """It waits for a process for which the bucket takes the rest."""
    later = run_id(datetime.now(UTC) + timedelta(seconds=2), b"abc")
    other = replace(behind, run=behind.spool.begin(later), batch=Batch.of_run("main", later))
    for world, jobs in ((behind, "ab"), (other, "c")):
        world.run.begin(world.batch, began())
        for job in jobs:
            world.attempt(job, {"1": b"1"})
            world.run.end(world.finished(job), held=False)
        world.run.database.close()
    s3_proxy.inject(Answer(403, "AccessDenied"), method="PUT", path="/jobs/a/files/1")
    assert await behind.recovered() == 1
    assert set(await other.committed()) == {"c"}
    assert not other.run.root.exists()
    assert behind.run.root.exists()
    s3_proxy.heal()
    assert await behind.recovered() == 1
    assert set(await behind.committed()) == {"a", "b"}


async def test_without_a_disk_a_job_is_committed_as_far_as_it_was_sent(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """As interrupted; its state is not kept."""
    async with behind.under_way("a") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path="/files/stuck")
        behind.attempt("a", {"1": b"1", "2": b"22", "stuck": b"333"})
        behind.run.saved_state("a").write_bytes(b"state")
        await delivery.ended(behind.finished("a"))
        await until(lambda: _is_sent(behind, "files/1", "files/2"))
        assert await delivery.flush(SOON, hurried=True, keeps_disk=False) == []
        closed = await delivery.close(behind.record(RunStatus.INTERRUPTED), [], keeps_disk=False)
    assert (closed.pending, closed.not_sent) == ((), 0)
    job = (await behind.committed())["a"]
    assert (job.status, job.files, job.state) == (JobStatus.INTERRUPTED, 2, None)
    assert job.message == "1 file of it could not be sent in time"


async def test_without_a_disk_a_job_of_which_nothing_was_sent_says_so(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """The log that is in its place as well: it did not succeed."""
    async with behind.under_way("a") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path="/files/stuck")
        s3_proxy.inject(BlackHole(), method="PUT", path="/logs/attempt-1.log")
        behind.attempt("a", {"stuck": b"1"})
        await delivery.ended(behind.finished("a"))
        assert await delivery.flush(SOON, hurried=True, keeps_disk=False) == []
    assert (await behind.committed())["a"].status is JobStatus.INTERRUPTED
    said = b"interrupted: 2 files of it could not be sent in time\n"
    assert await behind.content("a", "logs/job.log") == said


async def test_a_job_that_waits_for_the_log_alone_is_committed_with_the_run_s_end(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """It counts as sent: its package is in the bucket, and its entry goes before the closing one."""
    async with behind.under_way("a", "b") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path="/batches/")
        for job in ("a", "b"):  # the entry of the first is on its way when the second is ready
            behind.attempt(job, {"1": b"1"})
            await delivery.ended(behind.finished(job))
            await until(lambda: _has_entry_on_its_way(s3_proxy))
        pending = await delivery.flush(SOON, keeps_disk=False)
        s3_proxy.heal()
        closed = await delivery.close(behind.record(), pending, keeps_disk=False)
    assert (pending, closed.not_sent) == ([], 0)
    assert set(await behind.committed()) == {"a", "b"}
    named = [one.path for one in (await behind.manifest()).resources]
    assert {"jobs/a/datapackage.json", "jobs/b/datapackage.json"} <= {*named}


async def _has_entry_on_its_way(proxy: FaultProxy) -> bool:
    return proxy.met > 0


@pytest.mark.parametrize("stuck", ["/jobs/a/", "/jobs/a/datapackage.json"])
async def test_without_a_disk_what_could_not_be_sent_is_counted(
    behind: World, s3_proxy: FaultProxy, stuck: str
) -> None:
    """And the run closes all the same; its manifest names no package that was sealed and could not be put."""
    async with behind.under_way("a", "b") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path=stuck)
        for job in ("a", "b"):
            behind.attempt(job, {"1": b"1"})
            await delivery.ended(behind.finished(job))
        await until(lambda: behind.has("b"))
        pending = await delivery.flush(SOON, keeps_disk=False)
        assert pending == ["a"]
        record = behind.record(RunStatus.INTERRUPTED)
        closed = await delivery.close(record, pending, keeps_disk=False)
    assert (closed.pending, closed.not_sent) == ((), 1)
    assert set(await behind.committed()) == {"b"}
    manifest = await behind.manifest()
    assert manifest.run.not_sent == 1
    assert [one.path for one in manifest.resources] == ["jobs/b/datapackage.json"]


async def test_one_damaged_package_keeps_no_other_from_what_was_sent(
    behind: World, s3_proxy: FaultProxy
) -> None:
    """Without a disk, and with no time left."""
    async with behind.under_way("a", "b") as delivery:
        s3_proxy.inject(BlackHole(), method="PUT", path="/files/stuck")
        for job in ("a", "b"):
            behind.attempt(job, {"1": b"1", "stuck": b"2"})
            await delivery.ended(behind.finished(job), hold=True)
        behind.run.database.keep("a", [b"{}"])
        package = Object(key=JobKey(behind.run.run, "a").text, bytes=1, sha256="0" * 64)
        behind.run.seal(Ended(name="a", status=JobStatus.FAILED, package=package))
        assert await delivery.flush(SOON, keeps_disk=False) == ["a"]
        assert set(delivery.broken) == {"a"}
    assert set(await behind.committed()) == {"b"}


async def test_the_smallest_files_come_first(behind: World, s3_proxy: FaultProxy) -> None:
    """On a machine that is taken back: of each job the smallest that is left."""
    behind.concurrency = 1
    async with behind.under_way("a", "b") as delivery:
        for job, sizes in (("a", (9000, 300, 200)), ("b", (100, 10))):
            behind.attempt(job, {f"{size}": bytes(size) for size in sizes})
            await delivery.ended(behind.finished(job, JobStatus.FAILED), hold=True)
        assert await delivery.flush(SECONDS, hurried=True) == []
    assert set(await behind.committed()) == {"a", "b"}
    puts = [one.path for one in s3_proxy.seen if one.method == "PUT" and "/files/" in one.path]
    for job, order in (("a", ["200", "300", "9000"]), ("b", ["10", "100"])):
        assert [path.rpartition("/")[2] for path in puts if f"/jobs/{job}/" in path] == order


async def test_of_many_files_some_thousands_are_held_when_the_smallest_come_first(
    local: World,
) -> None:
    """A machine that is taken back has little memory as well: 20,000 files together take twice of this."""
    local.attempt("a", {f"{number // 1000}/{number}": b"1" for number in range(20_000)})
    local.run.end(local.finished("a"), held=False)
    away: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    away.set_exception(StoreError("no answer"))
    local.opened = lambda: away  # type: ignore[method-assign]
    preparer = Preparer(local.run, local.uploader(), away, local.log)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="no answer"):
            await preparer.prepare("a", smallest_first=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024**2
