"""A run from its beginning to its end, in a folder and in an S3 server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from obstore.store import LocalStore

from agent.batch.log import LogReader
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from agent.bucket.store import Bucket
from agent.contract.descriptor import Role
from agent.contract.entries import Ended, Entry, Output, Planned
from agent.contract.layout import FILES, JobKey, StateKey, batch_prefix
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.delivery.delivery import Delivery
from agent.delivery.sealing import status_of
from agent.delivery.spool import Stage
from tests.delivery.world import SECONDS, SECRET, World, began, now, until

AWKWARD = {
    "page 1.json": b"{}",
    "\u540d\u524d.txt": b"name",
    "deep/er/deeper.bin": b"\0\1\2",
    "empty": b"",
    "line\nbreak.md": b"# mayfly",
    "x" * 250: b"long",
    "large.bin": b"0123456789abcdef" * 500_000,
}


async def test_a_job_is_committed_when_it_ends_and_the_run_when_it_closes(world: World) -> None:
    """All that is named is there: files, package, state, entry; then log, in parts that are put once, and manifest."""
    async with world.under_way("a", "b") as delivery:
        world.note("1", "2")
        world.attempt("a", AWKWARD)
        world.run.saved_state("a").write_bytes(b"state")
        await delivery.ended(world.finished("a", outputs=(Output(files=7),)))
        await until(lambda: world.has("a"))
        with world.run.log.open("a") as stream:
            stream.write("3\nhalf a line")
        entry = (await world.committed())["a"]
        assert (entry.files, entry.bytes) == (7, sum(map(len, AWKWARD.values())))
        assert entry.outputs == (Output(files=7), Output(files=7, seconds=0.0))
        assert entry.state is not None
        assert entry.state.key == StateKey("a", world.run.run).text
        world.attempt("b", {"1": b"1"})
        await delivery.ended(world.finished("b", JobStatus.FAILED, message="oh"))
        assert await delivery.flush(SECONDS) == []
        ended = await delivery.results()
        assert [job.name for job in ended] == ["a", "b"]
        record = world.record(status_of(ended, interrupted=False))
        await delivery.close(record, [], keeps_disk=True)
    assert set(await world.committed()) == {"a", "b"}
    run = await world.seen()
    assert run.closed is not None
    assert run.closed.status is RunStatus.PARTIAL
    assert run.progress == (2, 2)
    manifest = await world.manifest()
    paths = [one.path for one in manifest.resources]
    assert paths[:2] == ["jobs/a/datapackage.json", "jobs/b/datapackage.json"]
    parts = [await world.bucket.get(f"runs/{run.id}/{path}") or b"" for path in paths[2:]]
    assert b"".join(parts) == b"1\n2\n3\n"
    assert await world.content("a", f"{FILES}page 1.json") == b"{}"


async def test_of_a_failed_job_come_its_logs_and_its_evidence(world: World) -> None:
    """Of each attempt; without the secrets that they show. The results are as they were."""
    for number in (1, 2):
        files = {".evidence/page.html": f"<p>{SECRET}".encode(), "r": SECRET.encode()}
        world.attempt("a", files, number=number, printed=f"{number} {SECRET}\n")
    world.run.saved_state("a").write_bytes(b"state")
    entry = (await world.deliver(world.finished("a", JobStatus.FAILED, attempts=2)))["a"]
    assert (entry.status, entry.state, entry.attempts) == (JobStatus.FAILED, None, 2)
    for number in (1, 2):
        printed = await world.content("a", f"logs/attempt-{number}.log")
        assert printed == f"{number} [redacted:password]\n".encode()
        page = await world.content("a", f"evidence/attempt-{number}/page.html")
        assert page == b"<p>[redacted:password]"
    assert await world.content("a", "files/r") == SECRET.encode()
    package = await world.package("a")
    roles = [Role.RESULT, Role.LOG, Role.LOG, Role.EVIDENCE, Role.EVIDENCE]
    assert [one.role for one in package.resources] == roles


async def test_no_evidence_goes_while_secrets_are_unknown(world: World) -> None:
    """The results do, and the package says what is lacking."""
    world.known = False
    world.attempt("a", {".evidence/page.html": b"<p>", "r": b"1"})
    await world.deliver(world.finished("a", JobStatus.FAILED))
    package = await world.package("a")
    assert [one.path for one in package.resources] == ["files/r"]
    assert "secrets" in package.job.notes[0]


async def test_a_job_that_never_started_has_a_package_too(world: World) -> None:
    """Its log says why; one that was skipped has none."""
    why: dict[str, Any] = {"message": "no secret", "cause": JobCause.ERROR}
    failed = world.finished("a", JobStatus.FAILED, attempts=0, **why)
    jobs = await world.deliver(failed, world.finished("b", JobStatus.SKIPPED))
    assert await world.content("a", "logs/job.log") == b"failed: no secret\n"
    assert jobs["b"].package is None


@pytest.mark.long
async def test_what_is_held_waits_for_its_rerun(world: World) -> None:
    """And is an attempt of the one result."""
    async with world.under_way("a", "b") as delivery:
        world.attempt("a", {"x": b"1"})
        await delivery.ended(world.finished("a", JobStatus.FAILED), hold=True)
        world.attempt("b", {"x": b"1"})
        await delivery.ended(world.finished("b"))
        await until(lambda: world.has("b"))
        assert set(await world.committed()) == {"b"}
        world.attempt("a", {"y": b"2"}, number=2)
        await delivery.ended(world.finished("a", first=2))
        await until(lambda: world.has("a"))
    package = await world.package("a")
    assert [(one.number, one.status) for one in package.job.attempts] == [
        (1, JobStatus.FAILED),
        (2, JobStatus.SUCCEEDED),
    ]
    assert [one.path for one in package.resources if one.role is Role.RESULT] == ["files/y"]


async def test_what_is_held_is_committed_as_it_is_at_the_end(world: World) -> None:
    """Or once it is released."""
    async with world.under_way("a", "b") as delivery:
        for name in ("a", "b"):
            world.attempt(name, {"x": b"1"})
        await delivery.ended(world.finished("a", JobStatus.FAILED), hold=True)
        await delivery.release()
        await until(lambda: world.has("a"))
        await delivery.ended(world.finished("b", JobStatus.FAILED), hold=True)
        assert await delivery.flush(SECONDS) == []
    assert set(await world.committed()) == {"a", "b"}


async def test_a_job_ends_once(local: World) -> None:
    """What is on its way does not change any more."""
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"1"})
        await delivery.ended(local.finished("a"))
        with pytest.raises(ValueError, match="ended already"):
            await delivery.ended(local.finished("a"))


async def _has(world: World, *paths: str) -> bool:
    return None not in [await world.content("a", f"files/{path}") for path in paths]


async def test_what_settles_leaves_while_the_job_runs(world: World) -> None:
    """And is not sent again at its end; what is still being written stays."""
    async with world.under_way("a") as delivery:
        output = world.attempt("a", {"done": b"1", "growing.part": b"2"})
        async with delivery.watch("a", output):
            await until(lambda: _has(world, "done"))
            first = {item.key: item.written async for item in world.bucket.list("runs/")}
        (output / "growing.part").rename(output / "grown")
        await asyncio.sleep(1.1)  # a store tells whole seconds
        await delivery.ended(world.finished("a"))
        assert await delivery.flush(SECONDS) == []
    await world.committed()
    assert await world.content("a", "files/grown") == b"2"
    last = {item.key: item.written async for item in world.bucket.list("runs/")}
    done = JobKey(world.run.run, "a", "files/done").text
    assert first[done] == last[done]


async def test_a_run_and_its_claim_write_through_one_log(world: World) -> None:
    """The claim puts the beginning, once, after it was written down; what ends follows from the same process."""
    async with world.delivery() as delivery:
        session = BatchSession(
            world.bucket,
            world.run.run,
            "00c0ffee",
            Purpose(),
            began(),
            now=now,
            begin=delivery.begin,
        )
        await session.begin()
        assert world.run.batch == session.batch == world.batch
        await delivery.plan(Planned(count=1, jobs=("a",)))
        world.attempt("a", {"1": b"one"})
        await delivery.ended(world.finished("a"))
        assert await delivery.flush(SECONDS) == []
    entries = [one.key async for one in world.bucket.list(batch_prefix(world.batch))]
    assert len({key.rsplit(".", 2)[0] for key in entries}) == 1
    log = await LogReader(world.bucket, world.batch).look()
    assert [one.key.number for one in log if isinstance(one.entry, Entry) and one.entry.began] == [
        0
    ]
    assert set((await world.seen()).results) == {"a"}


async def test_results_beyond_one_entry(local: World) -> None:
    """More than two hundred jobs that end together."""
    names = [f"job-{number}" for number in range(230)]
    async with local.under_way(*names) as delivery:
        for name in names:
            await delivery.ended(local.finished(name, JobStatus.SKIPPED))
        assert await delivery.flush(SECONDS) == []
        await delivery.close(local.record(), [], keeps_disk=True)
        assert {job.stage for job in local.run.jobs()} == {Stage.COMMITTED}
    assert (await local.seen()).progress == (230, 230)


async def test_a_checkpoint_is_kept(local: World) -> None:
    """The state of an attempt that did not succeed, under a key of its own."""
    local.attempt("a", {})
    local.run.saved_state("a").write_bytes(bytes(3 * 1024**2))
    finished = local.finished("a", JobStatus.TIMED_OUT, checkpoint=True)
    state = (await local.deliver(finished))["a"].state
    assert state is not None
    assert state.key == StateKey("a", local.run.run, checkpoint=True).text


async def test_the_log_ends_where_the_manifest_says(local: World) -> None:
    """What is written after that is in no part: the manifest names all of them."""
    async with local.under_way("a") as delivery:
        local.note("1")
        (part,) = await delivery._parts.put_last()
        local.note("2")
        await delivery._parts.put()
        assert await local.keys(f"runs/{local.run.run}/log/") == [part.key]


class Syncing(Bucket):
    """A bucket in a folder, whose sync takes as long as somebody wants.

    Attributes:
        begun: Set when a sync began.
        free: Until it is set, no sync ends.
        durable: The keys of what was there when a sync that has ended began.
        named: The keys that entries named before they were durable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        super().__init__(LocalStore(root, mkdir=True), "syncing", root)
        self.begun, self.free = asyncio.Event(), asyncio.Event()
        self.free.set()
        self.durable: set[str] = set()
        self.named: set[str] = set()

    async def sync(self) -> None:
        """Sync."""
        there = {item.key async for item in self.list("")}
        self.begun.set()
        await self.free.wait()
        await super().sync()
        self.durable |= there

    async def put_once(self, key: str, data: bytes) -> None:
        """Write, after a look at what an entry names."""
        if data:
            entry = json.loads(data)
            named = [job["package"] for job in entry["jobs"]] + entry["log"]
            self.named |= {one["key"] for one in named} - self.durable
        await super().put_once(key, data)


async def test_an_entry_names_only_what_a_power_cut_leaves(tmp_path: Path) -> None:
    """What is put while the folder is synced is named by the next entry."""
    bucket = Syncing(tmp_path / "bucket")
    world = World.make(tmp_path / "state", bucket)
    async with world.under_way("a", "b") as delivery:
        bucket.begun.clear()
        bucket.free.clear()
        for job in ("a", "b"):
            world.attempt(job, {"x": b"1"})
        await delivery.ended(world.finished("a"))
        await bucket.begun.wait()
        world.note("1")
        await delivery.ended(world.finished("b"))
        await until(lambda: _is_ready(delivery, "b"))
        await delivery._parts.put()
        bucket.free.set()
        assert await delivery.flush(SECONDS) == []
        await delivery.close(world.record(), [], keeps_disk=True)
    assert set(await world.committed()) == {"a", "b"}
    assert bucket.named == set()


async def _is_ready(delivery: Delivery, job: str) -> bool:
    return job in delivery._committer._ready


async def test_an_entry_that_breaks_the_contract_loses_no_job(local: World) -> None:
    """A defect of ours is logged, and what it keeps from the log is not held for committed."""
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"1"})
        await delivery.ended(local.finished("a"), hold=True)
        committer = delivery._committer
        committer._ready["a"] = Ended(name="a", status=JobStatus.SUCCEEDED)  # without a package
        committer._news.set()

        async def failed() -> bool:
            return "commit.failed" in [event["event"] for event in local.events]

        await until(failed)
        assert await committer.pending() == ["a"]
        del committer._ready["a"]
        assert await delivery.flush(SECONDS) == []
    assert set(await local.committed()) == {"a"}


async def test_an_end_that_is_large_has_no_results_beside_it(local: World) -> None:
    """Ten thousand jobs that follow, and two hundred that ended with long messages: together more than an entry."""
    names = [f"job-{number}" for number in range(200)]
    async with local.under_way(*names) as delivery:
        for name in names:
            await delivery.ended(local.finished(name, JobStatus.SKIPPED, message="\u540d" * 1600))
        assert await delivery.flush(SECONDS) == []
        pending = [f"{number:060}" for number in range(10_000)]
        warnings = ("\u540d" * 2000,) * 100
        await delivery.close(local.record(warnings=warnings), pending, keeps_disk=True)
    run = await local.seen()
    assert run.closed is not None
    assert (len(run.closed.pending), len(run.results)) == (10_000, 200)
