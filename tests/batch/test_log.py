"""The log and sessions in real buckets, a folder and an S3 server; with a proxy where requests fail."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import StoreError, StoreRefused
from agent.batch.claim import StandBack, Work
from agent.batch.fold import State, fold
from agent.batch.history import History
from agent.batch.log import PAUSES, LogReader, LogWriter, heard
from agent.batch.session import BatchSession
from agent.batch.which import Purpose
from agent.bucket.store import Bucket
from agent.contract.entries import MOST_BYTES, Invalid, Object, Output
from agent.contract.ids import Batch, run_id
from agent.contract.layout import (
    INDEX,
    EntryKey,
    LogKey,
    PointerKey,
    StateKey,
    batch_prefix,
    parse_key,
)
from tests.batch.entries import closed, job, jobs, planned
from tests.batch.memory import MemoryBucket
from tests.delivery.buckets import s3_bucket as open_bucket
from tests.delivery.world import began, folder_bucket, now
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, Fault, LoseAnswer
from tests.parts.seaweed import S3Server

BATCH = Batch.of_shard("nightly", "monday.v2", 3, 8)
SLOT = Purpose(slot=datetime(2026, 11, 22, 18, 0, tzinfo=UTC))


def run_named(name: bytes, ago: timedelta = timedelta(0)) -> str:
    """Return the id of a run."""
    return run_id(now() - ago, name)


RUN, OTHER = run_named(b"abc"), run_named(b"xyz")


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of either kind."""
    if request.param == "folder":
        return folder_bucket(tmp_path / "bucket")
    server: S3Server = request.getfixturevalue("s3_server")
    return open_bucket(server, server.make_bucket())


class Pauses:
    """Notes how long was waited, and does not wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note it."""
        self.seconds.append(seconds)


def writer(bucket: Bucket, **more: Any) -> LogWriter:
    """Return a writer that does not wait between attempts."""
    return LogWriter(bucket, BATCH, RUN, "00c0ffee", now=now, **{"pause": Pauses()} | more)


async def shortly(_: float) -> None:
    """Wait for less than is asked: these stores list at once what they have taken."""
    await asyncio.sleep(0.05)


def session(bucket: Bucket, name: bytes, purpose: Purpose = SLOT, **more: Any) -> BatchSession:
    """Return the session of a run that begins now."""
    run = run_named(name)
    options = {"pause": shortly} | more
    return BatchSession(bucket, run, run[-6:] + "00", purpose, began(), now=now, **options)


async def state_of(bucket: Bucket, batch: Batch = BATCH) -> State:
    """Return what a batch's log says."""
    return fold(batch, await LogReader(bucket, batch).look())


async def keys(bucket: Bucket, prefix: str) -> list[Any]:
    """Return the keys below a prefix, taken apart."""
    return [parse_key(text) for text in sorted([item.key async for item in bucket.list(prefix)])]


async def test_what_is_appended_is_seen(bucket: Bucket) -> None:
    """With its pointers, and with the store's own times."""
    log = writer(bucket)
    before = now() - timedelta(seconds=2)
    with pytest.raises(ValueError, match="how its run began"):
        await log.append(closed=closed())
    await log.append(began=began())
    await log.append(planned=planned("x"), jobs=(job(RUN, "x"),))
    await log.append(closed=closed())
    state = await state_of(bucket)
    assert state.done_by is not None
    assert state.done_by.id == RUN
    assert list(state.successes) == ["x"]
    assert all(before <= sign <= now() + timedelta(seconds=2) for sign in state.runs[RUN].signs)
    pointers = await keys(bucket, INDEX)
    told = {(one.kind, one.entry.number) for one in pointers}
    assert told == {("began", 0), ("jobs", 1), ("closed", 2)}
    assert log.pending == 0


async def test_a_reader_gets_only_what_is_new(bucket: Bucket) -> None:
    """And skips what is not an entry."""
    log, reader = writer(bucket), LogReader(bucket, BATCH)
    await log.append(began=began())
    first = await reader.look()
    await bucket.put(f"{batch_prefix(BATCH)}notes.txt", b"hello")
    await log.append(closed=closed())
    second = await reader.look()
    assert len(first) == 1
    assert len(second) == 2
    assert second[0] is first[0]
    assert reader.seen == second


async def test_damage_is_seen_as_such(bucket: Bucket) -> None:
    """Cut short, copied from elsewhere, too large to be read at all; nobody holds what has no limit."""
    log = writer(bucket)
    await log.append(began=began())
    [whole] = [item async for item in bucket.list(batch_prefix(BATCH))]
    content = await bucket.get(whole.key)
    assert content is not None
    await bucket.put(EntryKey(BATCH, RUN, "00c0ffee", 1).text, content[:-9])
    await bucket.put(EntryKey(BATCH, OTHER, "00c0ffee", 0).text, content)
    await bucket.put(EntryKey(BATCH, RUN, "00c0ffee", 2).text, b" " * (MOST_BYTES + 1))
    state = await state_of(bucket)
    assert sorted(map(len, state.invalid)) == [len(whole.key)] * 3
    assert f"it has {MOST_BYTES + 1} bytes" in state.invalid.values()
    assert state.runs[RUN].began is not None
    with pytest.raises(StoreError, match=f"bytes, more than {len(whole.key)}"):
        await bucket.get(whole.key, limit=len(whole.key))


async def test_parts_of_a_runs_log_are_signs_of_life(bucket: Bucket) -> None:
    """Of that run alone."""
    await bucket.put(LogKey(RUN, 0).text, b"{}\n")
    await bucket.put(LogKey(RUN, 1).text, b"{}\n")
    await bucket.put(f"runs/{RUN}/log/other", b"")
    assert len(await heard(bucket, RUN)) == 2
    assert await heard(bucket, OTHER) == ()


async def test_of_three_that_claim_at_once_one_works(bucket: Bucket) -> None:
    """In a real store's own time, three times over."""
    for hour in range(3):
        purpose = Purpose(slot=SLOT.slot and SLOT.slot + timedelta(hours=hour))
        three = [session(bucket, bytes([hour, one, 7]), purpose) for one in range(3)]
        await asyncio.gather(*(one.begin() for one in three))
        settled = await asyncio.gather(*(one.settle() for one in three))
        kinds = sorted(type(one.decision).__name__ for one in settled)
        assert kinds == ["StandBack", "StandBack", "Work"]


async def test_a_run_is_cut_off_and_a_fresh_machine_goes_on(bucket: Bucket) -> None:
    """A slot's run is told to stop; whoever comes next, without a disk and without a slot, does what is left."""
    one, beside = session(bucket, b"one"), session(bucket, b"two")
    for each in (one, beside):
        await each.begin()
    assert (await one.settle()).decision == Work({})
    back = (await beside.settle()).decision
    assert isinstance(back, StandBack)
    assert await beside.stand_back(back.reason, back.run)
    await one.log.append(jobs=jobs(one.run, ["x"]), closed=closed("interrupted"))
    late = session(bucket, b"six", Purpose(), catch_up=timedelta(hours=6))
    await late.begin()
    assert late.batch == one.batch
    assert (await late.settle()).decision == Work({"x": f"succeeded in {one.run}"})
    await late.log.append(jobs=jobs(late.run, ["y"]), closed=closed())
    state = await state_of(bucket, late.batch)
    counted = {name: result.run for name, result in state.successes.items()}
    assert counted == {"x": one.run, "y": late.run}
    assert state.done_by is not None


async def test_what_was_before_is_found(bucket: Bucket) -> None:
    """Outputs of the newest entry, and the newest state that was committed."""
    for number in range(12):
        run = run_named(bytes([number, 7, 7]), timedelta(minutes=30 - number))
        batch = Batch.of_shard("main", f"g{number}", 0, 1)
        state = Object(key=StateKey("x", run).text, bytes=3, sha256="0" * 64)
        await bucket.put_once(state.key, b"tar")
        outputs = tuple(Output(files=one) for one in range(number + 1))
        ended = job(run, "x").model_copy(update={"state": state, "outputs": outputs})
        log = LogWriter(bucket, batch, run, "00c0ffee", now=now)
        await log.append(began=began(), jobs=(ended,), closed=closed())
    await bucket.put_once(StateKey("x", run_named(b"new")).text, b"uncommitted")
    history = History(bucket, batch, now())
    assert [one.files for one in (await history.outputs(["x"])).outputs["x"]] == list(range(12))
    found = await history.newest_state("x")
    assert found is not None
    assert (found.key.run, found.object) == (run, state)


# Where requests fail.


@pytest.fixture
def proxied(s3_server: S3Server, s3_proxy: FaultProxy, s3_bucket: str) -> Bucket:
    """A bucket behind a proxy."""
    return open_bucket(s3_server, s3_bucket, s3_proxy.url)


@pytest.mark.parametrize(
    "fault", [Answer(500), Answer(503, "SlowDown"), Answer(400, "RequestTimeout"), LoseAnswer()]
)
async def test_a_put_that_failed_is_repeated_under_another_name(
    proxied: Bucket, s3_proxy: FaultProxy, fault: Fault
) -> None:
    """Whether the first arrived or not: what it says counts once, and each key was asked for once."""
    pauses = Pauses()
    log = writer(proxied, pause=pauses)
    await log.append(began=began())
    s3_proxy.inject(fault, times=2, method="PUT", path="/batches/")
    await log.append(jobs=(job(RUN, "x"),))
    assert pauses.seconds == list(PAUSES[:2])
    seen = await LogReader(proxied, BATCH).look()
    arrived = [0, 1, 2, 3] if isinstance(fault, LoseAnswer) else [0, 3]
    assert sorted(one.key.number for one in seen) == arrived
    assert len(fold(BATCH, seen).successes) == 1
    targets = [one.path for one in s3_proxy.seen if one.method == "PUT"]
    assert len(targets) == len(set(targets)), "a key was written twice"
    assert (await keys(proxied, INDEX))[-1].entry.number == 3


async def test_what_cannot_be_put_waits_and_keeps_its_order(
    proxied: Bucket, s3_proxy: FaultProxy
) -> None:
    """Nothing of a run comes before its beginning, however long the bucket is away."""
    log = writer(proxied)
    s3_proxy.inject(Answer(500), method="PUT")
    parts: list[dict[str, Any]] = [
        {"began": began()},
        {"jobs": (job(RUN, "x"),)},
        {"closed": closed()},
    ]
    for number, one in enumerate(parts):
        with pytest.raises(StoreError):
            await log.append(**one)
        assert log.pending == number + 1
    s3_proxy.relent()
    await log.flush()
    assert log.pending == 0
    seen = sorted(await LogReader(proxied, BATCH).look(), key=lambda one: one.key.number)
    kinds = [one.entry.kind for one in seen if not isinstance(one.entry, Invalid)]
    assert kinds == ["began", "jobs", "closed"]


async def test_a_beginning_is_told_before_it_is_there_and_all_else_after(
    proxied: Bucket, s3_proxy: FaultProxy
) -> None:
    """Home knows of a machine that vanishes; an entry is committed without its pointer, which follows with the next."""
    log = writer(proxied)
    await log.append(began=began())
    await log.append(planned=planned("x"))
    puts = [one.path for one in s3_proxy.seen if one.method == "PUT"]
    assert ["/index/" in path for path in puts] == [True, False, False, True]
    s3_proxy.inject(Answer(500), method="PUT", path="/index/")
    await log.append(jobs=(job(RUN, "x"),))
    assert log.pending == 0
    pointers: list[PointerKey] = await keys(proxied, INDEX)
    assert [one.entry.number for one in pointers] == [0, 1]
    s3_proxy.relent()
    await log.append(closed=closed())
    pointers = await keys(proxied, INDEX)
    assert sorted(one.entry.number for one in pointers) == [0, 1, 2, 3]


async def test_a_refusal_is_not_repeated(proxied: Bucket, s3_proxy: FaultProxy) -> None:
    """The same credentials would be refused again; the entry waits for a time at which they are not."""
    pauses = Pauses()
    log = writer(proxied, pause=pauses)
    s3_proxy.inject(Answer(403, "AccessDenied"), method="PUT")
    with pytest.raises(StoreRefused):
        await log.append(began=began())
    assert (pauses.seconds, log.pending) == ([], 1)


class Late(MemoryBucket):
    """Its listing shows what arrived only once somebody has asked for an object."""

    after: Callable[[], Awaitable[object]] | None = None

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content."""
        after, self.after, self.lag = self.after, None, 0.0
        if after is not None:
            await after()
        return await super().get(key, limit=limit)


async def test_a_look_beside_the_proof_takes_nothing_from_it() -> None:
    """The run looks at its batch every few minutes, and finds entries that are being asked for."""
    bucket = Late(lag=60.0)
    log = LogWriter(bucket, BATCH, RUN, "00c0ffee", now=now)
    await log.append(began=began())
    await log.append(jobs=(job(RUN, "x"),))
    bucket.after = LogReader(bucket, BATCH, log).look
    await log.prove()
    assert (log.unproven, log.pending) == (0, 0)
