"""How home keeps up with a bucket: what it asks for, what it knows then, and what a store's failures cost."""

import asyncio
import sqlite3
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.base.errors import StoreError
from agent.batch.follow import Cursor
from agent.contract.entries import MOST_BYTES
from agent.contract.ids import Batch as Id
from agent.contract.layout import INDEX, EntryKey, PointerKey, batch_prefix
from agent.contract.results import RunStatus
from consumer import follow
from consumer import store as store_module
from consumer.bucket import ObjectInfo, ReadOnlyBucket
from consumer.follow import Poll, poll
from consumer.model import Batch, Run
from consumer.store import Store
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.bucket.objects import FolderObjects
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.seaweed import S3Server

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
STARTED = datetime.now(UTC).replace(microsecond=0) - 5 * MINUTE
"""On a server nobody can say when an object arrived; what is done in these tests is of today."""
NOW = STARTED + 10 * MINUTE


class Counted:
    """A bucket that counts what is asked of it, and can be told to lie."""

    def __init__(self, bucket: ReadOnlyBucket) -> None:
        self._bucket = bucket
        self.asked: list[str] = []
        self.at_once = self.most_at_once = 0
        self.cut: set[str] = set()
        self.hangs: set[str] = set()

    def took(self) -> list[str]:
        """Return what was asked since the last time."""
        asked, self.asked = self.asked, []
        return [line.split("/")[0] for line in asked]

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """List."""
        self.asked.append(f"LIST {prefix}")
        async for item in self._bucket.list(prefix, after=after):
            yield item

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Get; of some objects, a part."""
        self.asked.append(f"GET {key}")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(3600 if key in self.hangs else 0)
            content = await self._bucket.get(key, limit=limit)
        finally:
            self.at_once -= 1
        return content[: len(content) // 2] if content and key in self.cut else content


class Home:
    """What home knows of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = Counted(bucket.reader())
        self.store = Store.open(None, "bucket", NOW)

    async def polls(self, now: datetime = NOW) -> Poll:
        """Poll once."""
        return await poll(self.bucket, self.store, now)

    def run(self, run: str) -> tuple[Batch, Run]:
        """Return a run."""
        return self.store.history().by_id[run]

    def status(self, run: str) -> RunStatus:
        """Return how a run is shown."""
        batch, one = self.run(run)
        return batch.status(one)


@pytest.fixture
def home(bucket: Bucket) -> Home:
    """Home, and a bucket of each kind."""
    return Home(bucket)


@pytest.fixture
def local(folder: Bucket) -> Home:
    """Home, and a folder."""
    return Home(folder)


async def test_one_list_when_nothing_is_new(home: Home, bucket: Bucket) -> None:
    """Whatever there is: an empty bucket, runs that ended, a run under way. Results count by the store's clock."""
    assert not (await home.polls()).looked
    assert home.bucket.took() == ["LIST index"]
    leave_run(bucket.objects, STARTED)
    leave_run(bucket.objects, STARTED + MINUTE, until="jobs")
    found = [item async for item in bucket.reader().list("batches/")]
    # A session of tests may be hours from its imports.
    assert all(abs(item.written - STARTED) < timedelta(days=1) for item in found)
    await home.polls()
    assert home.bucket.took().count("GET batches") == 7
    for minute in range(5):
        assert not (await home.polls(NOW + minute * MINUTE)).looked
    assert home.bucket.took() == ["LIST index"] * 5


async def test_a_run_is_followed_while_it_goes_on(home: Home, bucket: Bucket) -> None:
    """Running, k of n; each poll reads what is new and nothing else; in the end all is known."""
    writer = leave_run(bucket.objects, STARTED, ["a", "b"], until="planned")
    said = await home.polls()
    assert (len(said.looked), said.entries, said.failed) == (1, 2, ())
    assert home.run(writer.run)[1].progress == (0, 2)
    home.bucket.took()
    writer.after = 3 * MINUTE
    writer.append(jobs=(writer.job("a"),))
    await home.polls()
    assert home.bucket.took() == ["LIST index", "LIST batches", "GET batches"]
    assert (home.status(writer.run), home.run(writer.run)[1].progress) == (
        RunStatus.RUNNING,
        (1, 2),
    )
    writer.append(jobs=(writer.job("b", "failed"),))
    writer.append(closed=writer.closed())
    await home.polls()
    batch, run = home.run(writer.run)
    assert {job.name: job.status.value for job in run.jobs} == {"a": "succeeded", "b": "failed"}
    assert (run.progress, batch.status(run)) == ((2, 2), RunStatus.PARTIAL)
    assert batch.counts == {"a": writer.run}
    assert run.planned is not None
    packages = [job.package.sha256 for job in run.jobs if job.package]
    assert packages == [committed.sha256 for committed in writer.packages]


async def test_a_lost_run_is_looked_for_twice_and_never_again(local: Home, folder: Bucket) -> None:
    """Five minutes after its deadline, and a quarter of an hour later; before that it is not called lost."""
    writer = leave_run(folder.objects, STARTED, ["a", "b"], until="planned")
    writer.append(jobs=(writer.job("a"),))
    await local.polls()
    deadline = STARTED + 2 * HOUR
    local.bucket.took()
    looks = []
    for minute in range(0, 90, 1):
        await local.polls(deadline + minute * MINUTE + SECOND)
        if "LIST batches" in local.bucket.took():
            looks.append(minute)
        lost = local.status(writer.run) is RunStatus.LOST
        assert lost == (minute >= 5), minute
    assert looks == [5, 20]
    assert local.run(writer.run)[1].progress == (1, 2)


async def test_an_end_without_a_pointer_is_found_at_the_deadline(
    local: Home, folder: Bucket
) -> None:
    """Nobody who closed is called lost."""
    writer = leave_run(folder.objects, STARTED, until="jobs")
    await local.polls()
    writer.append(closed=writer.closed(), pointer=False)
    await local.polls()
    assert local.status(writer.run) is RunStatus.RUNNING
    await local.polls(STARTED + 2 * HOUR + 6 * MINUTE)
    assert local.status(writer.run) is RunStatus.SUCCEEDED


async def test_a_run_of_which_only_the_pointer_is_left_is_known(
    local: Home, folder: Bucket
) -> None:
    """The machine vanished after one request; home looks for the entry for an hour, and then no more."""
    writer = leave_run(folder.objects, STARTED, until="pointer")
    await local.polls()
    assert local.status(writer.run) is RunStatus.RUNNING
    local.bucket.took()
    await local.polls(NOW + 30 * MINUTE)
    assert local.bucket.took() == ["LIST index", "LIST batches"]
    await local.polls(NOW + 61 * MINUTE)
    assert local.bucket.took() == ["LIST index"]
    await local.polls(STARTED + timedelta(days=1, minutes=6))
    assert local.status(writer.run) is RunStatus.LOST


async def test_a_beginning_that_arrives_late_is_read(local: Home, folder: Bucket) -> None:
    """After the pointer, and after a first look."""
    writer = leave_run(folder.objects, STARTED, until="pointer")
    await local.polls()
    writer.number = 0
    writer.append(began=writer.began(), pointer=False)
    assert (await local.polls(NOW + 5 * MINUTE)).entries == 1
    assert local.store.history().missing == 0
    assert not (await local.polls(NOW + 6 * MINUTE)).looked


async def test_a_pointer_of_years_to_come_hides_nothing(local: Home, folder: Bucket) -> None:
    """Forged, or of a broken clock: what is real is read, and the index is listed once."""
    forged = RunWriter(folder.objects, STARTED)
    far = PointerKey(datetime(2099, 1, 1, tzinfo=UTC), "began", forged.key).text
    folder.objects.put(far, b"")
    await local.polls()
    writer = leave_run(folder.objects, STARTED + MINUTE)
    await local.polls()
    assert local.status(writer.run) is RunStatus.SUCCEEDED
    await local.polls(NOW + 2 * HOUR)
    local.bucket.took()
    await local.polls(NOW + 2 * HOUR + MINUTE)
    assert local.bucket.took() == ["LIST index"]


@pytest.mark.parametrize(
    ("content", "fetched"), [(b"{" * 50, 1), (b" " * (2 * 1024**2 + 1), 0)], ids=["cut", "large"]
)
async def test_what_is_no_entry_is_told_once(
    local: Home, folder: Bucket, content: bytes, fetched: int
) -> None:
    """The rest of the run counts; an entry is not read again for it, and not fetched if its listing says enough."""
    writer = leave_run(folder.objects, STARTED, until="planned")
    key = replace(writer.key)
    writer.append(closed=writer.closed())
    folder.objects.put(key.text, content)
    said = await local.polls()
    assert list(said.invalid) == [key.text]
    assert list(local.store.history().invalid) == [key.text]
    assert local.bucket.asked.count(f"GET {key.text}") == fetched
    assert local.status(writer.run) is RunStatus.RUNNING
    assert (await local.polls()).invalid == {}


async def test_a_forged_log_takes_no_more_memory_than_its_text(local: Home, folder: Bucket) -> None:
    """A million lists have three megabytes there, and seventy in memory: they are let go of one entry at a time."""
    writer = leave_run(folder.objects, STARTED, until="planned")
    forged: list[list[object]] = [[]] * 45_000
    for _ in range(24):
        writer.append(weather=forged)
    writer.append(closed=writer.closed(weather=forged))
    tracemalloc.start()
    try:
        said = await local.polls()
        batch, run = local.run(writer.run)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (said.entries, said.invalid) == (27, {})
    assert batch.status(run) is RunStatus.SUCCEEDED
    assert run.closed is not None
    assert not run.closed.model_extra
    assert peak < 40 * 1024**2


LOST = STARTED + 2 * timedelta(days=1)
"""When nothing more is expected of a run that may have begun."""


def forged_entry(folder: Bucket, number: int = 0, content: bytes = b"{" * 50) -> EntryKey:
    """Put what is no entry, with a pointer, into a log of its own."""
    writer = RunWriter(folder.objects, STARTED + number * SECOND)
    folder.objects.put(PointerKey(writer.now, "closed", writer.key).text, b"")
    writer.put(writer.key.text, content)
    return writer.key


async def test_what_is_no_entry_is_told_until_it_is_deleted(local: Home, folder: Bucket) -> None:
    """It is asked for once a day, by one LIST; nobody hears of it for a year after somebody has cleaned up."""
    key = forged_entry(folder)
    await local.polls(LOST)
    local.bucket.took()
    await local.polls(LOST + 23 * HOUR)
    assert local.bucket.took() == ["LIST index"]
    assert (await local.polls(LOST + 25 * HOUR)).invalid == {}
    assert local.bucket.took() == ["LIST index", "LIST batches"]
    assert list(local.store.history().invalid) == [key.text]
    for text in (key.text, *folder.objects.keys(INDEX)):
        folder.objects.delete(text)
    await local.polls(LOST + 26 * HOUR)
    assert list(local.store.history().invalid) == [key.text]
    await local.polls(LOST + 50 * HOUR)
    history = local.store.history()
    assert (history.invalid, history.missing, history.runs) == ({}, 0, [])
    local.bucket.took()
    await local.polls(LOST + 75 * HOUR)
    assert local.bucket.took() == ["LIST index"]


async def test_a_bucket_full_of_forgeries_makes_no_poll_expensive(
    local: Home, folder: Bucket
) -> None:
    """Each day's polls share the work, and no content is read again."""
    count = follow.MOST_AGAIN + 10
    for number in range(count):
        forged_entry(folder, number)
    await local.polls(LOST)
    local.bucket.took()
    asked = []
    for minute in range(3):
        await local.polls(LOST + 25 * HOUR + minute * MINUTE)
        asked.append(local.bucket.took())
    assert [one.count("LIST batches") for one in asked] == [follow.MOST_AGAIN, 10, 0]
    assert not any("GET batches" in one for one in asked)


async def test_what_an_older_home_could_not_read_is_read_after_an_update(
    folder: Bucket, tmp_path: Path
) -> None:
    """A machine may be newer than home for a while; what stays as it was is not read by the same home again."""
    home, path = Home(folder), tmp_path / "history"
    home.store = Store.open(path, "bucket", NOW)
    writer = leave_run(folder.objects, STARTED, until="jobs")
    key = writer.key
    said = writer.append(closed=writer.closed())
    good = folder.objects.get(said.text)
    writer.put(key.text, b"of a newer agent")
    await home.polls(LOST)
    assert home.status(writer.run) is RunStatus.LOST
    writer.put(key.text, good)
    await home.polls(LOST + 25 * HOUR)
    assert list(home.store.history().invalid) == [key.text]
    home.store.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE about SET value = '0.1.0' WHERE name = 'version'")
    home.store = Store.open(path, "bucket", LOST + 26 * HOUR)
    home.bucket.took()
    await home.polls(LOST + 26 * HOUR)
    assert home.bucket.took() == ["LIST index", "LIST batches", "GET batches"]
    assert home.status(writer.run) is RunStatus.SUCCEEDED
    assert home.store.history().invalid == {}
    home.store.close()


async def test_what_found_no_room_in_a_log_is_read_when_others_are_deleted(
    local: Home, folder: Bucket
) -> None:
    """Somebody filled it before the run ended; and what was put in the place of a broken entry is read as well."""
    writer = leave_run(folder.objects, STARTED, until="jobs")
    flood = [replace(writer.key, nonce="f" * 8, number=number) for number in range(16)]
    for key in flood:
        writer.put(key.text, b" " * MOST_BYTES)
    writer.after += MINUTE
    key = writer.append(closed=writer.closed())
    await local.polls(LOST)
    assert key.text in local.store.history().invalid
    for one in flood[1:]:
        folder.objects.delete(one.text)
    writer.put(flood[0].text, b"{}")
    await local.polls(LOST + 25 * HOUR)
    assert local.status(writer.run) is RunStatus.SUCCEEDED
    assert "Field required" in local.store.history().invalid[flood[0].text]


async def test_keys_that_are_none_are_passed_over(local: Home, folder: Bucket) -> None:
    """Whatever else lies in the index, or in a log."""
    writer = leave_run(folder.objects, STARTED)
    folder.objects.put(f"{INDEX}nonsense", b"")
    folder.objects.put(f"{INDEX}20261122T180000.000Z.began.main.x.y-z.0", b"")
    assert writer.batch is not None
    folder.objects.put(f"{batch_prefix(writer.batch)}nonsense.json", b"{}")
    said = await local.polls()
    assert (said.entries, said.invalid, said.failed) == (4, {}, ())


async def test_a_log_that_fails_is_read_again_and_stops_no_other(
    local: Home, folder: Bucket
) -> None:
    """Half an object is the store's fault, not an invalid entry; however far the index has moved on meanwhile."""
    broken = leave_run(folder.objects, STARTED)
    (key,) = [key for key in folder.objects.keys("batches/") if key.endswith(".2.json")]
    local.bucket.cut.add(key)
    good = leave_run(folder.objects, STARTED + MINUTE)
    said = await local.polls()
    assert [batch for batch, _ in said.failed] == [broken.batch]
    assert said.invalid == {}
    assert local.status(good.run) is RunStatus.SUCCEEDED
    cursor = local.store.cursor()
    local.store.note(replace(cursor, floor=cursor.recent[-1], recent=()), [])
    local.bucket.cut.clear()
    local.bucket.took()
    assert (await local.polls()).failed == ()
    assert local.bucket.took() == ["LIST index", "LIST batches", "GET batches"]
    assert local.status(broken.run) is RunStatus.SUCCEEDED


async def test_requests_wait_side_by_side_and_not_too_many(local: Home, folder: Bucket) -> None:
    """A first look into twenty runs, each of many entries."""
    for number in range(20):
        writer = leave_run(folder.objects, STARTED + number * SECOND, until="planned")
        for _ in range(20):
            writer.append(log=(writer.log[0],))
    await local.polls()
    assert 1 < local.bucket.most_at_once <= follow.AT_ONCE
    assert local.bucket.took().count("GET batches") == 20 * 22


async def test_a_year_is_read_in_portions(local: Home, folder: Bucket) -> None:
    """More batches than one poll looks into: the newest come first, and the next poll need not wait.

    Where a store lists the index alone, it waits like any other.
    """
    for number in range(follow.MOST_LOOKS + 3):
        leave_run(folder.objects, STARTED - number * HOUR, until="began")
    local.bucket.cut.update(folder.objects.keys("batches/"))
    with pytest.raises(StoreError, match=f"of {follow.MOST_LOOKS} with news"):
        await local.polls()
    local.bucket.cut.clear()
    said = await local.polls()
    assert (len(said.looked), said.more) == (follow.MOST_LOOKS, True)
    assert max(batch.at for batch in local.store.history().batches) == STARTED
    said = await local.polls()
    assert (said.entries, said.more) == (3, False)


async def test_a_server_that_fails_is_an_expected_failure(
    s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """A refused list ends the poll, and so do objects of which none can be read; the next one reads what this did not.

    One that is refused beside others that are not costs its batch alone; the run has come, and in a day it is lost.
    """
    bucket = Bucket.on_s3(s3_server, s3_bucket, endpoint=s3_proxy.url)
    home = Home(bucket)
    writer = leave_run(bucket.objects, STARTED)
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path="list-type=2")
    with pytest.raises(StoreError):
        await home.polls()
    s3_proxy.relent()
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path="batches/main")
    with pytest.raises(StoreError, match="refused"):
        await home.polls()
    s3_proxy.relent()
    await home.polls()
    assert home.status(writer.run) is RunStatus.SUCCEEDED
    other = leave_run(bucket.objects, STARTED + MINUTE)
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=other.run)
    for now, status in (
        (NOW, RunStatus.RUNNING),
        (NOW + MINUTE, RunStatus.RUNNING),
        (NOW + timedelta(days=1), RunStatus.LOST),
    ):
        assert [batch for batch, _ in (await home.polls(now)).failed] == [other.batch]
        assert home.status(other.run) is status
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path="batches/main")
    with pytest.raises(StoreError, match="refused"):
        await home.polls()
    s3_proxy.relent()
    await home.polls()
    assert home.status(other.run) is RunStatus.SUCCEEDED


async def test_a_store_that_hangs_costs_its_batch_alone(local: Home, folder: Bucket) -> None:
    """The others are read, and it is asked again by the next poll."""
    slow = leave_run(folder.objects, STARTED)
    good = leave_run(folder.objects, STARTED + MINUTE)
    assert slow.batch is not None
    local.bucket.hangs.add(slow.key.text.replace(".4.json", ".2.json"))
    said = await poll(local.bucket, local.store, NOW, seconds=3.0)
    assert [(batch, problem) for batch, problem in said.failed] == [
        (slow.batch, "the store took longer than 3 s")
    ]
    assert local.status(good.run) is RunStatus.SUCCEEDED
    local.bucket.hangs.clear()
    await local.polls()
    assert local.status(slow.run) is RunStatus.SUCCEEDED


def forged(count: int, at: datetime, every: timedelta = timedelta()) -> list[PointerKey]:
    """Pointers to so many logs that are not there, the last of them of a time."""
    key = EntryKey(Id("main", "g.0-of-2"), "20261122T180003Z-3f9a1c", "0" * 8, 0)
    return [
        PointerKey(
            at - number * every, "began", replace(key, batch=Id("main", f"g{number}.0-of-2"))
        )
        for number in range(count)
    ]


class Forged:
    """A store with nothing in it but pointers, in no order."""

    def __init__(self, pointers: list[PointerKey]) -> None:
        self.lists: list[str] = []
        self._keys = [pointer.text for pointer in pointers]

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """List the index; each log is empty."""
        self.lists.append(prefix)
        for key in self._keys if prefix == INDEX else ():
            if key > (after or ""):
                yield ObjectInfo(key, 0, STARTED)

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return nothing."""
        raise AssertionError(key)


@pytest.mark.parametrize("every", [SECOND, SECOND / 10], ids=["hours", "an-hour"])
async def test_a_flood_of_pointers_costs_a_bounded_number_of_requests(every: timedelta) -> None:
    """For each poll; all are looked for in time, and then no more: also where an hour has more than one page."""
    count = 2 * follow.MOST_POINTERS + 1500
    bucket, store = Forged(forged(count, STARTED, every)), Store.open(None, "bucket", NOW)
    said = await poll(bucket, store, NOW)
    assert said.more
    assert len(bucket.lists) == 1 + follow.MOST_LOOKS
    assert store.history().missing == follow.MOST_POINTERS
    for number in (1, 2):
        await poll(bucket, store, NOW + number * SECOND)
    assert store.page() == "", "the next listing looks back again"
    assert store.history().missing == count
    assert len(bucket.lists) <= 3 * (1 + follow.MOST_LOOKS)


@pytest.mark.long
@pytest.mark.timeout(900)
async def test_pointers_that_lead_nowhere_blind_nobody(local: Home, folder: Bucket) -> None:
    """However many somebody forged: what was looked for in vain makes room for a run that is new."""
    key = EntryKey(Id("main", "g.0-of-2"), "20261122T180003Z-3f9a1c", "0" * 8, 0)
    pointers = [
        PointerKey(STARTED - HOUR, "began", replace(key, number=number))
        for number in range(store_module.MOST_POINTERS)
    ]
    local.store.note(Cursor(), pointers)
    writer = leave_run(folder.objects, STARTED)
    local.bucket.took()
    await local.polls()
    assert local.bucket.took() == ["LIST batches"], "what was told of first is looked for first"
    await local.polls(NOW + SECOND)
    assert local.status(writer.run) is RunStatus.SUCCEEDED
    assert local.store.history().missing <= store_module.MOST_POINTERS


async def test_pointers_to_many_logs_that_are_not_there_delay_nobody(
    local: Home, folder: Bucket
) -> None:
    """Each poll looks for what it never looked for, before what it did not find; when all is asked, it waits again."""
    local.store.note(Cursor(), forged(2 * follow.MOST_LOOKS, NOW))
    writer = leave_run(folder.objects, STARTED)
    polls = [await local.polls(NOW + number * SECOND) for number in range(3)]
    assert [said.more for said in polls] == [True, True, False]
    assert local.status(writer.run) is RunStatus.SUCCEEDED


# Whatever becomes visible when.

LIMITED = timedelta(minutes=90)


class Lagging:
    """A store whose listings lag: each object is seen from some poll on."""

    def __init__(self, objects: dict[str, bytes], seen_from: dict[str, int]) -> None:
        self._objects = objects
        self._seen_from = seen_from
        self.poll = 0

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """List what is seen by now."""
        for number, (key, data) in enumerate(self._objects.items()):
            seen = key.startswith(prefix) and key > (after or "")
            if seen and self._seen_from[key] <= self.poll:
                yield ObjectInfo(key, len(data), STARTED + number * SECOND)

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Get what is seen by now."""
        return self._objects[key] if self._seen_from[key] <= self.poll else None


def two_attempts(folder: Path, closes: list[bool]) -> dict[str, bytes]:
    """Return what two runs of one batch leave, of which each may end or vanish."""
    objects = FolderObjects(folder)
    batch = Id.of_slot("main", STARTED)
    for number, closed in enumerate(closes):
        writer = RunWriter(objects, STARTED + number * MINUTE, batch)
        writer.append(began=writer.began(limit=LIMITED))
        writer.append(jobs=(writer.job("a", files={}),))
        writer.append(jobs=(writer.job("b", "failed" if number else "succeeded", files={}),))
        if closed:
            writer.append(closed=writer.closed())
    return {
        key: objects.get(key) for key in objects.stamps() if key.startswith(("index", "batches"))
    }


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.booleans(), min_size=1, max_size=2), st.data())
def test_all_readers_agree_in_the_end(
    tmp_path: Path, closes: list[bool], data: st.DataObject
) -> None:
    """Whatever each saw first: they know what somebody knows who read everything at once."""
    objects = two_attempts(tmp_path / str(uuid4()), closes)
    order = data.draw(st.permutations(list(objects)))
    objects = {key: objects[key] for key in order}
    seen_from = {key: data.draw(st.integers(0, 3)) for key in objects}
    said = asyncio.run(followed(Lagging(objects, seen_from)))
    whole = asyncio.run(followed(Lagging(objects, dict.fromkeys(objects, 0))))
    assert said == whole
    assert len(said.runs) == len(closes)


async def followed(bucket: Lagging) -> Batch:
    """Return what a reader knows in the end, who polls now and then."""
    store = Store.open(None, "bucket", NOW)
    deadline = STARTED + LIMITED + MINUTE
    moments = [STARTED + number * 10 * MINUTE for number in range(4)]
    for moment in (*moments, deadline + 6 * MINUTE, deadline + 21 * MINUTE):
        await poll(bucket, store, moment)
        bucket.poll += 1
    batch = store.batch(Id.of_slot("main", STARTED))
    assert batch is not None
    return replace(batch, looked=NOW)
