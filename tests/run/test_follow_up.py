"""What could not be sent in time, from the spool to the bucket, step by step and with a death after each."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from agent.core.journal import Journal
from agent.core.manifest import HostRecord, RunRecord
from agent.core.results import JobResult, JobStatus, RunStatus
from agent.steps.commit import commit, hand_over
from agent.steps.courier import Courier, parcels_of
from agent.steps.recovery import deliver_pending, leave_spool
from agent.steps.seal import Seen
from agent.steps.spool import Spool, SpooledRun

from agent.base.logs import Log
from agent.base.progress import NullProgress
from agent.base.redact import Redactor
from agent.base.stop import Stop
from agent.bucket.address import LocalBucket
from agent.bucket.store import Bucket
from tests.bucket.bucket import Bucket as Delivered
from tests.bucket.layout import state_key
from tests.bucket.sound import all_sound

RUN = "20261122T180030Z-aaaaaa"
START = datetime(2026, 11, 22, 18, 0, 30, tzinfo=UTC)
LOG: Log = structlog.get_logger()


def spooled(spool: Spool) -> SpooledRun:
    """Return a run that is concluded: two jobs succeeded, with two files and a memory each."""
    names = ("one", "two")
    jobs = tuple(
        JobResult(name=name, status=JobStatus.SUCCEEDED, state=state_key(name, RUN))
        for name in names
    )
    record = RunRecord(
        run_id=RUN,
        status=RunStatus.SUCCEEDED,
        started=START,
        finished=START + timedelta(minutes=1),
        agent="1",
        host=HostRecord(name="h", system="s"),
        jobs=jobs,
    )
    spool.root.mkdir(parents=True, exist_ok=True)
    run = spool.begin(Journal(run=record, planned=names, concluded=True))
    run.log.write_text("{}\n")
    for name in names:
        space = run.workspace(name, 1)
        space.make()
        (space.output / "small").write_text(name)
        (space.output / "large").write_bytes(name.encode() * 1000)
        run.saved_state(name).write_bytes(b"memory of " + name.encode())
    return run


def courier_of(run: SpooledRun, bucket: Bucket) -> Courier:
    """Return a courier to a bucket that is open."""
    opened: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    opened.set_result(bucket)
    return Courier(
        run, opened, concurrency=4, redactor=lambda: Redactor({}), log=LOG, progress=NullProgress()
    )


def taken(seconds: float) -> Stop:
    """Return the wish to end of a machine that is gone in so many seconds."""
    stop = Stop()
    stop.request(
        "spot: EC2 will stop the machine", gone=datetime.now(UTC) + timedelta(seconds=seconds)
    )
    return stop


async def deliver(spool: Spool, bucket: Bucket) -> int:
    """Do what the next run does with the spool."""
    opened: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    opened.set_result(bucket)
    return await deliver_pending(
        spool,
        spool.pending(LOG),
        opened,
        finder="20261123T180000Z-ffffff",
        concurrency=4,
        redactor=lambda: Redactor({}),
        log=LOG,
    )


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    """A bucket in a folder."""
    return Bucket.open(LocalBucket(tmp_path / "bucket"), None)


@pytest.fixture
def delivered(tmp_path: Path) -> Delivered:
    """The same, as a consumer reads it."""
    return Delivered.in_folder(tmp_path / "bucket")


async def test_with_enough_time_there_is_no_follow_up(
    tmp_path: Path, bucket: Bucket, delivered: Delivered
) -> None:
    """Everything arrives, memories too, and the run is what it would have been."""
    spool = Spool(tmp_path / "spool")
    run = spooled(spool)
    await hand_over(run, courier_of(run, bucket), bucket, LOG, taken(100))
    await commit(run, bucket, datetime.now(UTC))
    assert leave_spool(run, LOG)
    assert spool.pending(LOG) == []
    assert all_sound(delivered) == [RUN]
    assert delivered.states("one") == [state_key("one", RUN)]
    assert delivered.run(RUN).record["status"] == "succeeded"


async def test_a_notice_in_the_middle_of_the_hand_off_hurries_it(
    tmp_path: Path, bucket: Bucket, delivered: Delivered
) -> None:
    """A hand-off that nothing pressed becomes one that is pressed; with no time left, all files are late."""
    spool = Spool(tmp_path / "spool")
    run, stop = spooled(spool), Stop()
    waiting: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
    stuck = Courier(
        run, waiting, concurrency=4, redactor=lambda: Redactor({}), log=LOG, progress=NullProgress()
    )
    handing = asyncio.create_task(hand_over(run, stuck, bucket, LOG, stop))
    await asyncio.sleep(0.2)  # it waits for the bucket by then
    assert not handing.done()
    stop.request("spot", gone=datetime.now(UTC) + timedelta(seconds=30.5))
    await asyncio.sleep(1)  # the time for this hand-off is over by then
    waiting.set_result(bucket)
    await asyncio.wait_for(handing, 30)
    assert len(run.journal.run.unsent) == 4
    await commit(run, bucket, datetime.now(UTC))
    assert all_sound(delivered) == [RUN]


async def test_a_file_that_grew_after_it_was_sent_is_late(
    tmp_path: Path, bucket: Bucket, delivered: Delivered
) -> None:
    """What the bucket has of it is not what the job left: the follow-up has it whole, and no manifest half of it."""
    spool = Spool(tmp_path / "spool")
    run = spooled(spool)
    output = run.workspace("one", 1).output
    await courier_of(run, bucket).send(parcels_of("one", output, Seen()))
    with (output / "small").open("a") as stream:
        stream.write(" and more")
    await hand_over(run, courier_of(run, bucket), bucket, LOG, taken(20))  # no time is left
    assert sorted(file.path for file in run.journal.run.unsent if file.job == "one") == [
        "one/small"
    ]
    await commit(run, bucket, datetime.now(UTC))
    assert "one/small" not in delivered.paths(RUN)
    assert not leave_spool(run, LOG)
    await hand_over(run, courier_of(run, bucket), bucket, LOG)
    await commit(run, bucket, datetime.now(UTC))
    assert delivered.file(run.run_id, "one/small") == b"one and more"
    assert len(all_sound(delivered)) == 2


Decision = Callable[[SpooledRun, Bucket], Awaitable[object]]


async def _seal(run: SpooledRun, bucket: Bucket) -> None:
    await hand_over(run, courier_of(run, bucket), bucket, LOG, taken(20))


async def _commit(run: SpooledRun, bucket: Bucket) -> None:
    await commit(run, bucket, datetime.now(UTC))


async def _half_become(run: SpooledRun, _: Bucket) -> None:
    run.receipts.remove()
    run.log.write_text('{"event": "run.continued"}\n')


async def _become(run: SpooledRun, _: Bucket) -> None:
    assert not leave_spool(run, LOG)


async def _seal_follow_up(run: SpooledRun, bucket: Bucket) -> None:
    await hand_over(run, courier_of(run, bucket), bucket, LOG)


STEPS: tuple[Decision, ...] = (_seal, _commit, _half_become, _become, _seal_follow_up, _commit)


@pytest.mark.parametrize("done", range(1, len(STEPS) + 1))
async def test_a_death_after_any_step(
    tmp_path: Path, bucket: Bucket, delivered: Delivered, done: int
) -> None:
    """The next run commits both: the run without its late files, and the one that continues it with them."""
    spool = Spool(tmp_path / "spool")
    run = spooled(spool)
    early = run.output("one")
    assert early is not None
    for step in STEPS[:done]:
        await step(run, bucket)
    if done >= 4:
        # The name of the folder is no promise: a death before its renaming leaves the old one.
        shutil.move(run.root, spool.root / RUN)
    assert await deliver(spool, bucket) == 1
    assert spool.pending(LOG) == []
    first, second = all_sound(delivered)
    assert first == RUN
    before, after = delivered.run(first), delivered.run(second)
    assert before.results == {}
    late = {each["path"] for each in before.record["unsent"]}
    assert late == {"one/large", "one/small", "two/large", "two/small"}
    assert after.results == dict.fromkeys(sorted(late), False)
    assert before.job("one")["status"] == "interrupted"
    assert before.job("one")["state"] is None
    assert after.job("one")["state"] == state_key("one", second)
    assert delivered.states("one") == [state_key("one", second)]
    assert delivered.objects.get(state_key("one", second)) == b"memory of one"
    assert after.record["continues"] == RUN
    statuses = (delivered.entry(first)["status"], delivered.entry(second)["status"])
    assert statuses == ("interrupted", "succeeded")
    assert delivered.log(second)[0]["event"] == "run.continued"


async def test_what_was_sent_early_stays(
    tmp_path: Path, bucket: Bucket, delivered: Delivered
) -> None:
    """Files that left while the job ran are in the run, as partial ones; only the others are late."""
    spool = Spool(tmp_path / "spool")
    run = spooled(spool)
    courier = courier_of(run, bucket)
    root = run.output("one")
    assert root is not None
    async with courier.following("one", root):
        await asyncio.sleep(3)  # files that do not change are sent by then
    await hand_over(run, courier, bucket, LOG, taken(20))
    await commit(run, bucket, datetime.now(UTC))
    assert delivered.run(RUN).results == {"one/large", "one/small"}
    assert {each.job for each in run.journal.run.unsent} == {"two"}
    assert not leave_spool(run, LOG)
    assert await deliver(spool, bucket) == 1
    assert len(all_sound(delivered)) == 2
