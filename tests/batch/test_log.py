"""The log in real buckets: a folder, and an S3 server; with a proxy where requests fail."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.base.errors import StoreError, StoreRefused
from agent.batch.claim import Claimant, LookAgain, StandBack, Work, decide
from agent.batch.fold import fold
from agent.batch.log import PAUSES, LogReader, LogWriter, heard
from agent.bucket.address import LocalBucket, S3Bucket
from agent.bucket.store import Bucket
from agent.config.credentials import Credentials
from agent.contract.entries import MOST_BYTES, Began, Invalid
from agent.contract.facts import Host
from agent.contract.ids import Batch, process_nonce, run_id
from agent.contract.layout import INDEX, EntryKey, LogKey, PointerKey, batch_prefix, parse_key
from tests.batch.entries import closed, job, planned
from tests.batch.memory import MemoryBucket
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, LoseAnswer
from tests.parts.seaweed import S3Server

BATCH = Batch.of_shard("nightly", "monday.v2", 3, 8)


def now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)


RUN = run_id(now(), b"abc")


def began() -> Began:
    """Return a beginning."""
    deadline = now() + timedelta(hours=1)
    return Began(started=now(), deadline=deadline, host=Host(name="h"), agent="1", channel="main")


def s3(server: S3Server, name: str, url: str = "") -> Bucket:
    """Return a bucket of an S3 server, or of a proxy in front of it."""
    config: dict[str, str | bool] = {
        "region": "us-east-1",
        "endpoint": url or server.url,
        "virtual_hosted_style_request": False,
    }
    address = S3Bucket(name, "some/prefix", config)
    return Bucket.open(address, Credentials(server.access_key, server.secret_key))


@pytest.fixture(params=["folder", "s3"])
def bucket(request: pytest.FixtureRequest, tmp_path: Path) -> Bucket:
    """An empty bucket of either kind."""
    if request.param == "folder":
        return Bucket.open(LocalBucket(tmp_path / "bucket"), None)
    server = request.getfixturevalue("s3_server")
    return s3(server, server.make_bucket())


class Pauses:
    """Notes how long was waited, and does not wait."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Note it."""
        self.seconds.append(seconds)


def writer(bucket: Bucket, run: str = RUN, nonce: str = "00c0ffee", **more: Any) -> LogWriter:
    """Return a writer that does not wait between attempts."""
    return LogWriter(bucket, BATCH, run, nonce, now=now, **{"pause": Pauses()} | more)


async def keys(bucket: Bucket, prefix: str) -> list[Any]:
    """Return the keys below a prefix, taken apart."""
    return [parse_key(text) for text in sorted([item.key async for item in bucket.list(prefix)])]


async def test_what_is_appended_is_seen(bucket: Bucket) -> None:
    """With its pointers, and with the store's own times."""
    log = writer(bucket)
    before = now() - timedelta(seconds=2)
    await log.append(began=began())
    await log.append(planned=planned("x"), jobs=(job(RUN, "x"),))
    await log.append(closed=closed())
    reader = LogReader(bucket, BATCH)
    state = fold(BATCH, await reader.look())
    assert state.done_by is not None
    assert state.done_by.id == RUN
    assert list(state.successes) == ["x"]
    assert all(before <= sign <= now() + timedelta(seconds=2) for sign in state.runs[RUN].signs)
    pointers = await keys(bucket, INDEX)
    assert {(one.kind, one.entry.number) for one in pointers} == {
        ("began", 0),
        ("jobs", 1),
        ("closed", 2),
    }
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
    """Cut short, copied from elsewhere, too large to be read at all."""
    log = writer(bucket)
    await log.append(began=began())
    [whole] = [item async for item in bucket.list(batch_prefix(BATCH))]
    content = await bucket.get(whole.key)
    assert content is not None
    other = EntryKey(BATCH, run_id(now(), b"xyz"), "00c0ffee", 0)
    await bucket.put(EntryKey(BATCH, RUN, "00c0ffee", 1).text, content[:-9])
    await bucket.put(other.text, content)
    await bucket.put(EntryKey(BATCH, RUN, "00c0ffee", 2).text, b" " * (MOST_BYTES + 1))
    seen = {
        one.key.number: one.entry
        for one in await LogReader(bucket, BATCH).look()
        if one.key.run == RUN
    }
    assert isinstance(seen[1], Invalid)
    assert isinstance(seen[2], Invalid)
    assert str(MOST_BYTES + 1) in seen[2].reason
    state = fold(BATCH, await LogReader(bucket, BATCH).look())
    assert len(state.invalid) == 3
    assert state.runs[RUN].began is not None


async def test_no_more_is_read_than_was_listed(bucket: Bucket) -> None:
    """An object can have grown since; nobody holds what has no limit."""
    await bucket.put("a", b"xyz")
    assert await bucket.get("a", limit=3) == b"xyz"
    with pytest.raises(StoreError, match="3 bytes, more than 2"):
        await bucket.get("a", limit=2)


async def test_parts_of_a_runs_log_are_signs_of_life(bucket: Bucket) -> None:
    """Of that run alone."""
    await bucket.put(LogKey(RUN, 0).text, b"{}\n")
    await bucket.put(LogKey(RUN, 1).text, b"{}\n")
    await bucket.put(f"runs/{RUN}/log/other", b"")
    assert len(await heard(bucket, RUN)) == 2
    assert await heard(bucket, run_id(now(), b"xyz")) == ()


async def test_a_process_begins_with_how_its_run_began(bucket: Bucket) -> None:
    """Anything else would be a defect of ours."""
    with pytest.raises(ValueError, match="how its run began"):
        await writer(bucket).append(closed=closed())


async def claims(
    bucket: Bucket, batch: Batch, number: int, arrived: asyncio.Barrier
) -> Work | StandBack | LookAgain:
    """Return what one of several claimants does, who looks when all have arrived."""
    run = run_id(now(), bytes([number, 7, 7]))
    log = LogWriter(bucket, batch, run, process_nonce(bytes([0, 0, 0, number])), now=now)
    await log.append(began=began())
    await arrived.wait()
    return decide(fold(batch, await LogReader(bucket, batch).look()), Claimant(run))


async def test_of_three_that_claim_at_once_one_works(bucket: Bucket) -> None:
    """In a real store's own time, three times over."""
    for number in range(3):
        batch = Batch.of_shard("nightly", f"race-{number}", 0, 1)
        arrived = asyncio.Barrier(3)
        decisions = await asyncio.gather(*(claims(bucket, batch, one, arrived) for one in range(3)))
        assert sorted(type(one).__name__ for one in decisions) == ["StandBack", "StandBack", "Work"]


# Where requests fail.


@pytest.fixture
def proxied(s3_server: S3Server, s3_proxy: FaultProxy, s3_bucket: str) -> Bucket:
    """A bucket behind a proxy."""
    return s3(s3_server, s3_bucket, s3_proxy.url)


async def test_a_put_of_the_log_is_one_request(proxied: Bucket, s3_proxy: FaultProxy) -> None:
    """The client repeats others by itself, under the same key: then the time of the object would change."""
    s3_proxy.inject(Answer(503, "SlowDown"), times=1, method="PUT")
    with pytest.raises(StoreError):
        await proxied.put_once("a", b"")
    assert s3_proxy.count("PUT") == 1
    s3_proxy.inject(Answer(503, "SlowDown"), times=1, method="PUT")
    await proxied.put("b", b"")
    assert s3_proxy.count("PUT") == 3


Fault = Answer | LoseAnswer


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
    appends: list[Callable[[], Any]] = [
        lambda: log.append(began=began()),
        lambda: log.append(jobs=(job(RUN, "x"),)),
        lambda: log.append(closed=closed()),
    ]
    for number, append in enumerate(appends):
        with pytest.raises(StoreError):
            await append()
        assert log.pending == number + 1
    s3_proxy.relent()
    await log.flush()
    assert log.pending == 0
    seen = sorted(await LogReader(proxied, BATCH).look(), key=lambda one: one.key.number)
    assert [one.entry.kind for one in seen if not isinstance(one.entry, Invalid)] == [
        "began",
        "jobs",
        "closed",
    ]


async def test_a_beginning_is_told_before_it_is_there(
    proxied: Bucket, s3_proxy: FaultProxy
) -> None:
    """Should the machine vanish between the two, home knows that something began; else the entry comes first."""
    log = writer(proxied)
    await log.append(began=began())
    await log.append(closed=closed())
    puts = [one.path for one in s3_proxy.seen if one.method == "PUT"]
    assert ["/index/" in path for path in puts] == [True, False, False, True]


async def test_an_entry_is_committed_without_its_pointer(
    proxied: Bucket, s3_proxy: FaultProxy
) -> None:
    """The pointer follows with the next entry, under the time at which it is put."""
    log = writer(proxied)
    await log.append(began=began())
    s3_proxy.inject(Answer(500), method="PUT", path="/index/")
    await log.append(jobs=(job(RUN, "x"),))
    assert log.pending == 0
    pointers: list[PointerKey] = await keys(proxied, INDEX)
    assert [one.entry.number for one in pointers] == [0]
    s3_proxy.relent()
    await log.append(closed=closed())
    pointers = await keys(proxied, INDEX)
    assert sorted(one.entry.number for one in pointers) == [0, 1, 2]


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
