"""Runs that an earlier process left: finished under their own ids, and none stands in another's way."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from agent.base.errors import StoreError
from agent.bucket.store import Bucket
from agent.contract.entries import Ended, Planned
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.delivery.database import Database
from agent.delivery.prepare import Preparer
from agent.delivery.spool import DATABASE, LogPart, Stage
from tests.contract.examples import RELEASE
from tests.delivery.world import FINDER, SECONDS, World, began, folder_bucket, no_descriptors


def left(world: World, *jobs: str, count: int | None = None) -> None:
    """Leave a run in which jobs have ended, as a process does that died."""
    world.run.begin(world.batch, began())
    count = len(jobs) if count is None else count
    world.run.plan(Planned(release=RELEASE, count=count, jobs=jobs))
    for job in jobs:
        world.attempt(job, {"x": job.encode()})
        world.run.end(world.finished(job), held=False)
    world.run.database.close()


async def test_what_ended_is_committed_and_what_ran_is_interrupted(world: World) -> None:
    """With the files that it had; what was only planned is not named."""
    left(world, "a", count=3)
    world.attempt("b", {"half": b"1"})
    world.note('{"event": "last"}')
    assert await world.recovered() == 1
    jobs = await world.committed()
    assert {name: job.status for name, job in jobs.items()} == {
        "a": JobStatus.SUCCEEDED,
        "b": JobStatus.INTERRUPTED,
    }
    assert (jobs["b"].files, jobs["b"].cause) == (1, JobCause.INTERRUPTED)
    run = await world.seen()
    assert run.closed is not None
    assert run.closed.status is RunStatus.INTERRUPTED
    assert run.closed.recovered_by == FINDER
    assert run.closed.interruption == "the machine or the agent died"
    assert run.planned is not None
    assert run.planned.count == 3, "whoever counts knows that a job was never begun"
    assert [one.path for one in (await world.manifest()).resources][-1] == "log/0.jsonl"
    assert not world.run.root.exists()


async def test_a_run_of_which_all_jobs_ended_is_not_interrupted(world: World) -> None:
    """It died between its last job and its end."""
    left(world, "a")
    assert await world.recovered() == 1
    run = await world.seen()
    assert run.closed is not None
    assert (run.closed.status, run.closed.interruption) == (RunStatus.SUCCEEDED, None)


async def test_a_run_that_was_stopped_is_interrupted(local: World) -> None:
    """What it skipped for the stop is not done, so its batch is not either."""
    left(local, "a", count=2)
    skipped = local.finished("b", JobStatus.SKIPPED, attempts=0, cause=JobCause.INTERRUPTED)
    local.run.end(skipped, held=False)
    local.run.save(local.record(RunStatus.INTERRUPTED, release=RELEASE, interruption="a notice"))
    assert await local.recovered() == 1
    run = await local.seen()
    assert run.closed is not None
    assert (run.closed.status, run.closed.interruption) == (RunStatus.INTERRUPTED, "a notice")


@pytest.mark.parametrize(
    ("status", "interruption"),
    [(RunStatus.FAILED, None), (RunStatus.INTERRUPTED, "a notice")],
)
async def test_a_run_without_a_release_did_not_succeed(
    local: World, status: RunStatus, interruption: str | None
) -> None:
    """None could run, or it was stopped before it had one."""
    local.run.begin(local.batch, began())
    local.run.plan(Planned(count=0))
    local.run.save(local.record(status, interruption=interruption))
    assert await local.recovered() == 1
    run = await local.seen()
    assert run.closed is not None
    assert (run.closed.status, run.closed.interruption) == (status, interruption)


async def test_a_run_that_had_concluded_keeps_what_it_said(local: World) -> None:
    """Only its entry says who closed it: of a disk that was copied, another may put the same manifest."""
    left(local, "a")
    local.run.save(local.record(RunStatus.PARTIAL, warnings=("odd",)), concluded=True)
    assert await local.recovered() == 1
    record = (await local.manifest()).run
    assert (record.status, record.warnings) == (RunStatus.PARTIAL, ("odd",))
    closed = (await local.seen()).closed
    assert closed is not None
    assert closed.recovered_by == FINDER


async def test_a_run_that_never_began_leaves_no_trace(local: World) -> None:
    """Nothing of it can be in the bucket."""
    local.run.database.close()
    assert await local.recovered() == 1
    assert await local.keys() == []
    assert not local.run.root.exists()


async def test_a_run_that_is_only_not_removed_is_removed(local: World) -> None:
    """Nothing is put again."""
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"1"})
        await delivery.ended(local.finished("a"))
        await delivery.close(local.record(), await delivery.flush(SECONDS), keeps_disk=True)
    before = await local.keys()
    assert await local.recovered() == 1
    assert await local.keys() == before
    assert not local.run.root.exists()


async def test_damaged_leftovers_stop_nothing_else(local: World) -> None:
    """They are put aside with their files, for a person, and told; the other is finished."""
    garbage, late, strange = (World.make(local.spool.root.parent, local.bucket) for _ in "123")
    for world in (garbage, late, local):
        left(world, "a")
    (garbage.run.root / DATABASE).write_bytes(b"no database" * 1000)
    late.run.database.note(began="{}")  # no longer what it wrote
    late.run.database.close()
    strange.attempt("a", {"x": b"1"})  # a job of no batch
    (local.spool.root / "20250101T000000Z-aaaaaa").mkdir()
    assert await local.recovered() == 1
    assert set(await local.committed()) == {"a"}
    broken = local.spool.root / "broken"
    runs = {garbage.run.run, late.run.run, strange.run.run}
    assert {path.name for path in broken.iterdir()} == {*runs, "20250101T000000Z-aaaaaa"}
    assert len(local.spool.warnings) == 4
    assert "for which batch" in " ".join(local.spool.warnings)
    assert {path.parents[4].name for path in broken.rglob("x")} == {*runs}


async def test_a_bucket_that_is_away_leaves_everything(local: World) -> None:
    """The next run tries again."""
    left(local, "a")
    broken: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    broken.set_exception(StoreError("no credentials"))
    local.opened = lambda: broken  # type: ignore[method-assign]
    assert await local.recovered() == 0
    assert local.run.root.exists()


async def test_of_what_was_sent_earlier_the_logs_stay(local: World) -> None:
    """Whoever goes on does not know the secrets; what was sent had none any more."""
    left(local)
    local.attempt("a", {".evidence/page": b"1"})
    local.run.end(local.finished("a", JobStatus.FAILED), held=False)
    preparer = Preparer(local.run, local.uploader(), local.opened(), local.log)
    job = local.run.ended("a")
    assert job is not None
    await preparer._send(job, smallest_first=False)
    local.known = False
    assert await local.recovered() == 1
    package = await local.package("a")
    assert [one.path for one in package.resources] == [
        "logs/attempt-1.log",
        "evidence/attempt-1/page",
    ]


async def _sealed(world: World, state: bytes) -> Ended:
    left(world, "a")
    world.run.saved_state("a").write_bytes(state)
    async with world.delivery() as delivery:
        preparer = Preparer(world.run, delivery._uploader, world.opened(), world.log)
        entry = await preparer.prepare("a")
    assert entry.state is not None
    return entry


async def test_the_same_bytes_are_put_again(world: World) -> None:
    """A package that was sealed does not change, whatever becomes of the output."""
    entry = await _sealed(world, b"state")
    assert entry.package is not None
    await world.bucket.delete([entry.package.key])
    (world.attempt("a", {}, number=2) / "more").write_bytes(b"1")
    assert await world.recovered() == 1
    assert (await world.committed())["a"].package == entry.package


async def test_a_package_that_was_damaged_is_not_put(local: World) -> None:
    """Its run is put aside, after what else had ended was committed."""
    await _sealed(local, b"state")
    local.attempt("b", {"x": b"1"})
    local.run.end(local.finished("b"), held=False)
    local.run.database.keep("a", [b"{}"])
    local.run.database.close()
    assert await local.recovered() == 0
    assert set(await local.committed()) == {"b"}
    assert "damaged" in local.spool.warnings[0]


async def test_a_state_that_was_damaged_is_not_named(local: World) -> None:
    """The job is committed without it."""
    await _sealed(local, b"state")
    local.run.saved_state("a").write_bytes(b"damage")
    assert await local.recovered() == 1
    assert (await local.committed())["a"].state is None


async def test_a_log_that_lost_its_end(local: World) -> None:
    """A power cut takes what was not synced: the manifest names what is in the bucket, as it is there."""
    async with local.under_way("a") as delivery:
        local.note("1", "2")
        local.attempt("a", {})
        await delivery.ended(local.finished("a"))
        await delivery._parts.put()
        await delivery.flush(SECONDS)
    local.run.log.write_bytes(b"1\n")
    assert await local.recovered() == 1
    assert [one.path for one in (await local.manifest()).resources][-1] == "log/0.jsonl"
    assert await local.bucket.get(f"runs/{local.run.run}/log/0.jsonl") == b"1\n2\n"


async def test_what_is_half_begun_or_half_gone_is_swept(local: World) -> None:
    """And is no run."""
    (local.spool.root / ".begin-20250101T000000Z-aaaaaa" / "x").mkdir(parents=True)
    local.run.discard(local.log, remove=False)
    assert local.spool.pending(local.log) == []
    local.spool.sweep(local.log)
    assert list(local.spool.root.iterdir()) == []


async def test_a_log_that_is_gone(local: World) -> None:
    """Its parts are in the bucket, and the run closes."""
    async with local.under_way("a") as delivery:
        local.note("1")
        await delivery._parts.put()
        local.note("2")
        local.run.cut_part(LogPart(1, 2, 4, "0" * 64, 0))
    local.run.log.unlink()
    assert await local.recovered() == 1
    assert [one.path for one in (await local.manifest()).resources] == ["log/0.jsonl"]


async def test_runs_that_wait_take_no_descriptors(local: World) -> None:
    """Hundreds wait where the keys are wrong for a month, and the next run begins all the same."""
    local.run.database.close()
    for _ in range(3):
        left(World.make(local.spool.root.parent, local.bucket), "a")
    runs = local.spool.pending(local.log)
    assert len(runs) == 4
    assert _open_below(local.spool.root) == []
    failed: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    failed.set_exception(StoreError("no credentials"))
    local.opened = lambda: failed  # type: ignore[method-assign]
    assert await local.recovered(runs) == 0
    assert _open_below(local.spool.root) == []


def _open_below(folder: Path) -> list[str]:
    """Return the files in a folder that this process has open."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one of this very look
            found.append(str(link.readlink()))
    return [path for path in found if path.startswith(f"{folder}/")]


async def test_want_of_descriptors_damages_no_run(local: World) -> None:
    """It waits for the next run, where it is."""
    left(local, "a")
    runs = local.spool.pending(local.log)
    local.run.database.close()
    with no_descriptors():
        assert await local.recovered(runs) == 0
    assert local.spool.warnings == ()
    assert await local.recovered() == 1
    assert set(await local.committed()) == {"a"}


async def test_want_of_descriptors_at_a_run_s_end_leaves_its_jobs_pending(local: World) -> None:
    """It is no failure of the disk: the run says which jobs wait for the next one."""
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"x"})
        await delivery.ended(local.finished("a"), hold=True)
        with no_descriptors():
            assert await delivery.flush(SECONDS) == ["a"]
        assert await delivery.flush(SECONDS) == []
    assert set(await local.committed()) == {"a"}


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """It would be an empty run."""
    with pytest.raises(OSError, match="unable to open"):
        Database(tmp_path / "none").check()
    assert list(tmp_path.iterdir()) == []


def test_large_documents_come_in_pieces(local: World) -> None:
    """And whole."""
    database = local.run.database
    pieces = [bytes([number]) * 300_000 for number in range(20)]
    digest = database.keep("x", iter(pieces))
    chunks = list(database.chunks("x"))
    assert b"".join(chunks) == b"".join(pieces)
    assert digest.bytes == 6_000_000
    assert max(map(len, chunks)) < 1_400_000
    database.keep("x", [b"1"])
    assert list(database.chunks("x")) == [b"1"]


def test_stages_only_rise(local: World) -> None:
    """A job that is sealed does not end again, and what is committed is not sealed again."""
    left(local, "a")
    entry = Ended(name="a", status=JobStatus.SKIPPED)
    local.run.seal(entry)
    local.run.end(local.finished("a", JobStatus.FAILED), held=True)
    job = local.run.ended("a")
    assert job is not None
    assert (job.stage, job.finished.job.status) == (Stage.SEALED, JobStatus.SUCCEEDED)
    local.run.commit(["a"])
    local.run.unseal("a")
    local.run.seal(entry)
    job = local.run.ended("a")
    assert job is not None
    assert (job.stage, job.entry) == (Stage.COMMITTED, entry)


async def test_a_run_is_delivered_into_the_bucket_that_has_begun_to_take_it(
    world: World, tmp_path: Path
) -> None:
    """Another one that is configured meanwhile would get half of it; the first is named until it is back."""
    world.note('{"event": "first"}')
    async with world.under_way("a") as delivery:
        world.attempt("a", {"x": b"1"})
        await delivery.ended(world.finished("a"))
    first, world.bucket = world.bucket, folder_bucket(tmp_path / "other")
    assert await world.recovered() == 0
    assert await world.keys() == []
    (warning,) = world.spool.warnings
    for named in (world.run.run, first.identity, world.bucket.identity, str(world.run.root)):
        assert named in warning
    world.bucket = first
    assert await world.recovered() == 1
    assert (await world.seen()).closed is not None
