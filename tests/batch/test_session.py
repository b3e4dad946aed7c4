"""A run's part in its batch, moment by moment: on a bucket in memory, whose clock is everybody's."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.base.errors import StoreError
from agent.batch.catchup import PERSON
from agent.batch.claim import StandBack, Work
from agent.batch.fold import State, fold
from agent.batch.history import MOST_POINTERS
from agent.batch.log import LogReader, LogWriter, Opening
from agent.batch.session import BatchSession, Settled
from agent.batch.which import Purpose
from agent.contract.ids import Batch, Shard
from agent.contract.layout import INDEX, EntryKey, LogKey, PointerKey, parse_key
from agent.contract.results import JobStatus
from tests.batch.entries import SLOT, A, B, C, closed, job, jobs, run_of
from tests.batch.memory import SCHEDULED, MemoryBucket, TimeIsUpError, session

SHARD = Purpose(shard=Shard("monday", 1, 8), retried=True)
CATCH_UP = timedelta(hours=6)
MINUTE = 60.0


@pytest.fixture
def bucket() -> MemoryBucket:
    """An empty bucket."""
    return MemoryBucket()


async def settled(one: BatchSession) -> Settled:
    """Begin, and return how the run stands then."""
    await one.begin()
    return await one.settle()


async def works(one: BatchSession) -> BatchSession:
    """Begin a run that has nobody in its way."""
    assert (await settled(one)).decision == Work({})
    return one


async def state_of(bucket: MemoryBucket, batch: Batch = SLOT) -> State:
    """Return what a batch's log says."""
    return fold(batch, await LogReader(bucket, batch).look())


async def watched(bucket: MemoryBucket, one: BatchSession, seconds: float) -> list[Any]:
    """Return what a run is told while it works for some time."""
    told: list[Any] = []
    bucket.clock.until = bucket.clock.seconds + seconds
    with suppress(TimeIsUpError):
        await one.watch(told.append)
    bucket.clock.until = float("inf")
    return told


# The claim.


async def test_a_run_by_itself_asks_nobody(bucket: MemoryBucket) -> None:
    """Nobody else can be in its batch."""
    one = await works(session(bucket, A, Purpose()))
    assert bucket.asked == {"put": 2}
    assert bucket.clock.seconds == 0
    assert await watched(bucket, one, 3600) == []
    assert bucket.asked == {"put": 2}


async def test_a_batch_is_for_its_slot_else_for_when_its_first_run_began(
    bucket: MemoryBucket,
) -> None:
    """As home has it: a run that goes on after midnight is for the day before."""
    alone = await works(session(bucket, C, Purpose()))
    began = alone.at
    assert began == bucket.clock.now()
    first = session(bucket, A, SHARD)
    await settled(first)
    bucket.clock.seconds += 24 * 3600
    again, late = session(bucket, B, SHARD), session(bucket, run_of("late", 24 * 3600))
    await settled(again)
    await settled(late)
    assert again.at == first.at == began
    assert late.at == SLOT.slot


async def test_five_seconds_pass_between_beginning_and_second_look() -> None:
    """Of the answer, however long that took; what the release takes meanwhile counts."""
    bucket = MemoryBucket(slow=2.0)
    one = session(bucket, A)
    await one.begin()
    answered = bucket.clock.seconds
    await one.settle()
    assert bucket.clock.seconds >= answered + 5
    two = session(bucket, B)
    await two.begin()
    bucket.clock.seconds += 30
    before = bucket.clock.seconds
    await two.settle()
    assert bucket.clock.seconds - before <= 4 * bucket.slow


@pytest.mark.parametrize(
    ("status", "works_again"),
    [("succeeded", False), ("partial", False), ("failed", False), ("interrupted", True)],
)
async def test_a_batch_that_is_done_is_not_done_again(
    bucket: MemoryBucket, status: str, *, works_again: bool
) -> None:
    """A scheduler's retry; it is in the log all the same, as it cost money. Who asks for jobs by name gets them."""
    one = await works(session(bucket, A))
    await one.log.append(jobs=jobs(A, ["x"]), closed=closed(status))
    two = session(bucket, B)
    done = Work({"x": f"succeeded in {A}"}) if works_again else StandBack(f"run {A} has done it", A)
    assert (await settled(two)).decision == done
    assert B in (await state_of(bucket)).runs
    other_day = session(bucket, C, Purpose(slot=bucket.clock.now() + timedelta(days=1)))
    assert (await settled(other_day)).decision == Work({})
    if works_again:
        named = session(bucket, run_of("d", 3), Purpose(slot=SLOT.slot, by_name=True), dead={B})
        assert (await settled(named)).decision == Work({})


async def test_a_shard_that_is_tried_again_works_at_once(bucket: MemoryBucket) -> None:
    """Without a wait, whoever else is there; it leaves out what was committed."""
    one = await works(session(bucket, A, SHARD))
    assert bucket.forget() == {"put": 2, "list": 1}
    assert bucket.clock.seconds == 0
    await one.log.append(jobs=(*jobs(A, ["x"]), job(A, "y", JobStatus.FAILED)))
    two = session(bucket, B, SHARD)
    assert (await settled(two)).decision == Work({"x": f"succeeded in {A}"})
    await one.log.append(closed=closed())
    three = session(bucket, C, SHARD)
    assert (await settled(three)).decision == Work({"x": f"succeeded in {A}"})


async def test_a_machine_of_a_fleet_claims_its_shard(bucket: MemoryBucket) -> None:
    """No engine starts it again, and a second fleet for the slot would be paid for nothing."""
    part = Purpose(slot=SLOT.slot, shard=Shard("20261122T180000Z", 1, 2))
    await works(session(bucket, A, part))
    assert isinstance((await settled(session(bucket, B, part))).decision, StandBack)
    other = Purpose(slot=SLOT.slot, shard=Shard("20261122T180000Z", 0, 2))
    assert (await settled(session(bucket, C, other))).decision == Work({})


@pytest.mark.parametrize(
    ("after", "more", "takes_over"),
    [
        (60, {}, False),
        (60, {"dead": {A}}, True),  # the disk was kept, and its lock is this process'
        (60, {"boot": "two"}, True),  # the disk was wiped, the machine is the same
        (60, {"boot": "one"}, False),
        (11 * MINUTE, {}, True),  # another machine
        (66 * MINUTE, {}, True),
    ],
)
async def test_who_died_is_taken_over_from(
    bucket: MemoryBucket, after: float, more: dict[str, Any], *, takes_over: bool
) -> None:
    """And what it committed is left out."""
    one = await works(session(bucket, A, boot="one"))
    await one.log.append(jobs=jobs(A, ["x"]))
    bucket.clock.seconds += after
    decision = (await settled(session(bucket, B, **more))).decision
    assert isinstance(decision, Work) is takes_over
    assert decision == Work({"x": f"succeeded in {A}"}) or not takes_over


async def test_a_long_job_is_no_silence(bucket: MemoryBucket) -> None:
    """Parts of its log are listed where nothing else is heard of a run, and only there."""
    await works(session(bucket, A))
    for number in range(3):
        bucket.clock.seconds += 5 * MINUTE
        bucket.place(LogKey(A, number).text, b"{}\n")
    bucket.forget()
    decision = (await settled(session(bucket, B))).decision
    assert decision == StandBack(f"run {A} on host works for it", A)
    assert [key for kind, key in bucket.keys if key.startswith("runs/")] == [f"runs/{A}/log/"]


# What stores do.


async def test_a_listing_that_lags_is_waited_for() -> None:
    """By less than five seconds it hides nobody; where it hides the run itself, it may hide others too."""
    bucket = MemoryBucket(lag=4.0)
    one, two = session(bucket, A), session(bucket, B)
    await one.begin()
    await two.begin()
    assert isinstance((await one.settle()).decision, Work)
    assert isinstance((await two.settle()).decision, StandBack)
    bucket.lag = 20.0
    three = session(bucket, C, Purpose(slot=bucket.clock.now() + timedelta(days=1)))
    before = bucket.clock.seconds
    assert (await settled(three)).decision == Work({})
    assert bucket.clock.seconds - before >= 20


async def test_two_that_could_not_see_each_other_find_out(bucket: MemoryBucket) -> None:
    """With the first look while they work; the first goes on."""
    one = await works(session(bucket, A))
    hidden = {key: bucket.objects.pop(key) for key in list(bucket.objects)}
    two = await works(session(bucket, B))
    bucket.objects |= hidden
    assert await watched(bucket, two, 10 * MINUTE) == [
        StandBack(f"run {A} on host works for it", A)
    ]
    await two.log.append(jobs=jobs(B, ["x"]), closed=closed("interrupted"))
    assert await watched(bucket, one, 10 * MINUTE) == [Work({"x": f"succeeded in {B}"})]


@pytest.mark.parametrize("failing", ["list", "get", "put"])
async def test_without_the_bucket_a_run_works_and_says_so(
    bucket: MemoryBucket, failing: str
) -> None:
    """A lost day is worse than two runs of one; as soon as the bucket answers, it looks."""
    other = await works(session(bucket, A))
    bucket.fails = {failing}
    one = session(bucket, B)
    outcome = await settled(one)
    assert outcome.decision == Work({})
    assert "another run may work for 20261122T180000Z" in outcome.warning
    assert f"could not {failing}" in outcome.warning
    assert bucket.clock.seconds < 180
    assert await watched(bucket, one, 5 * MINUTE) == []
    bucket.fails = set()
    bucket.place(LogKey(A, 0).text, b"{}\n")
    assert await watched(bucket, one, MINUTE) == [StandBack(f"run {A} on host works for it", A)]
    assert (other.log.pending, one.log.pending) == (0, 0)


@pytest.mark.parametrize("hanging", [{"list"}, {"put"}, {"list", "get", "put"}])
async def test_a_bucket_that_never_answers_is_not_waited_for(hanging: set[str]) -> None:
    """The beginning waits, before everything else that the run has to say."""
    bucket = MemoryBucket(hangs=set(hanging))
    one = session(bucket, A, seconds=0.4)
    task = asyncio.create_task(_time_passes(bucket))
    outcome = await settled(one)
    task.cancel()
    assert outcome.decision == Work({})
    assert "no answer within" in outcome.warning
    bucket.hangs = set()
    await one.log.append(closed=closed())
    kinds = [key.kind for text in bucket.objects if isinstance(key := parse_key(text), PointerKey)]
    assert kinds[0] == "began"
    assert (await state_of(bucket)).done_by is not None


async def _time_passes(bucket: MemoryBucket) -> None:
    while True:
        await asyncio.sleep(0.01)
        bucket.clock.seconds += 0.01


async def test_who_has_no_request_to_serve_or_cannot_say_so_stands_back(
    bucket: MemoryBucket,
) -> None:
    """A request that makes no sense closes without another run, and does not end the batch; silence is no error."""
    one = await works(session(bucket, A))
    assert await one.stand_back('v1 has no job "x"')
    assert (await state_of(bucket)).done_by is None
    await works(session(bucket, B))
    two = session(bucket, C)
    assert isinstance((await settled(two)).decision, StandBack)
    bucket.fails = {"put"}
    assert not await two.stand_back("x", B)


async def test_a_bucket_that_is_still_being_opened_is_waited_for(bucket: MemoryBucket) -> None:
    """Its keys come late after a boot; one that cannot be opened keeps nobody from work, and the warning says why."""

    async def opened(error: StoreError | None = None) -> MemoryBucket:
        await asyncio.sleep(0.05)
        if error:
            raise error
        return bucket

    one = session(bucket, A, of=Opening(asyncio.create_task(opened())))
    assert (await settled(one)).decision == Work({})
    assert A in (await state_of(bucket)).runs
    refused = asyncio.create_task(opened(StoreError("no credentials: nobody has any")))
    outcome = await settled(session(bucket, B, of=Opening(refused)))
    assert outcome.decision == Work({})
    assert "nobody has any" in outcome.warning


# While it works.


async def test_who_was_silent_is_overtaken_and_told(bucket: MemoryBucket) -> None:
    """A machine that stood still for twelve minutes looks as soon as it goes on."""
    one = await works(session(bucket, A))
    bucket.clock.seconds += 12 * MINUTE
    two = await works(session(bucket, B))
    assert await watched(bucket, one, 16) == [StandBack(f"run {B} on host works for it", B)]
    await one.log.append(jobs=jobs(A, ["x"]), closed=closed("interrupted"))
    assert await watched(bucket, two, 6 * MINUTE) == [Work({"x": f"succeeded in {A}"})]


async def test_twins_hear_of_each_others_jobs_and_a_job_counts_once(bucket: MemoryBucket) -> None:
    """A shard and its replacement, both alive: what the other has done is left out, what it did itself is not news."""
    one = await works(session(bucket, A, SHARD))
    two = await works(session(bucket, B, SHARD))
    await one.log.append(jobs=jobs(A, ["x"]))
    await two.log.append(jobs=jobs(B, ["x", "y"]))
    assert await watched(bucket, one, 11 * MINUTE) == [Work({"y": f"succeeded in {B}"})]
    assert await watched(bucket, two, 11 * MINUTE) == [Work({"x": f"succeeded in {A}"})]
    counted = (await state_of(bucket, SHARD.batch(A))).successes
    assert {name: result.run for name, result in counted.items()} == {"x": A, "y": B}


async def test_a_run_looks_every_five_minutes(bucket: MemoryBucket) -> None:
    """No more often, as each look is paid for; after one that failed, twice a minute."""
    one = await works(session(bucket, A))
    bucket.forget()
    assert await watched(bucket, one, 3600) == []
    assert bucket.forget() == {"list": 12}
    bucket.fails = {"list"}
    await watched(bucket, one, 10 * MINUTE)
    assert 9 <= bucket.forget()["list"] <= 20
    bucket.fails = {"put"}
    with pytest.raises(StoreError):
        await one.log.append(jobs=jobs(A, ["x"]))
    bucket.fails = set()
    await watched(bucket, one, MINUTE)
    assert "x" in (await state_of(bucket)).successes, "a look puts what waits"
    bucket.forget()
    bucket.slow = 6 * MINUTE
    await watched(bucket, one, 3600)
    assert bucket.asked["list"] >= 9, "a look is as old as its question"


async def test_a_clock_that_stands_still_with_the_machine_is_not_alone(
    bucket: MemoryBucket,
) -> None:
    """A virtual machine that was paused for an hour counts no second of it on one clock, and all on the other."""
    one = session(bucket, A, clock=lambda: 0.0)
    await one.begin()
    assert (await one.look()) == Work({})
    bucket.clock.seconds += 3600
    bucket.forget()
    await watched(bucket, one, 16)
    assert bucket.asked["list"] == 1


# A run that nobody scheduled.


async def cut_off(
    bucket: MemoryBucket, run: str = A, purpose: Purpose = SCHEDULED, **end: Any
) -> None:
    """Let a run finish one job and be interrupted; without an end it vanishes."""
    one = await works(session(bucket, run, purpose))
    await one.log.append(jobs=jobs(run, ["x"]))
    if end:
        await one.log.append(closed=closed(**end))


LATER = run_of("later", 9000)


@pytest.mark.parametrize("first", [SCHEDULED, Purpose()], ids=["a slot", "a run by itself"])
@pytest.mark.parametrize(
    ("end", "after", "goes_on"),
    [
        ({"status": "interrupted", "interruption": "spot notice"}, MINUTE, True),
        ({"status": "interrupted", "interruption": PERSON}, MINUTE, False),
        ({"status": "interrupted"}, 7 * 3600.0, False),
        ({"status": "succeeded"}, MINUTE, False),
        ({"status": "failed"}, MINUTE, False),
        ({}, MINUTE, False),  # it works still
        ({"dead": {A}}, MINUTE, True),  # the disk was kept, so that it is known to be dead
        ({}, 70 * MINUTE, True),  # lost
    ],
)
async def test_a_run_goes_on_with_what_was_cut_off(
    bucket: MemoryBucket, first: Purpose, end: dict[str, Any], after: float, *, goes_on: bool
) -> None:
    """In that batch's log, and for its slot; else it is a batch by itself."""
    dead = end.get("dead", set())
    await cut_off(bucket, A, first, **({} if dead else end))
    bucket.clock.seconds += after
    one = session(bucket, LATER, Purpose(), catch_up=CATCH_UP, dead=dead)
    outcome = await settled(one)
    assert outcome == Settled(Work({"x": f"succeeded in {A}"} if goes_on else {}))
    assert one.batch == (first.batch(A) if goes_on else Purpose().batch(LATER))
    said = (await state_of(bucket, one.batch)).runs[LATER].began
    assert said is not None
    assert said.slot == (first.slot if goes_on else None)


@pytest.mark.parametrize(
    ("first", "purpose", "more"),
    [
        (SCHEDULED, Purpose(), {"catch_up": timedelta(0)}),
        (SCHEDULED, Purpose(), {"channel": "beta"}),
        (SCHEDULED, Purpose(by_name=True), {}),
        (SCHEDULED, Purpose("other"), {}),
        (SCHEDULED, Purpose(slot=SLOT.slot and SLOT.slot + timedelta(days=1)), {}),
        (SHARD, Purpose(), {}),
    ],
    ids=["no catch-up", "another channel", "by name", "another schedule", "next slot", "a shard"],
)
async def test_who_does_not_go_on(
    bucket: MemoryBucket, first: Purpose, purpose: Purpose, more: dict[str, Any]
) -> None:
    """With what another batch has left; a shard is started again by its engine."""
    await cut_off(bucket, A, first, status="interrupted")
    one = session(bucket, LATER, purpose, **{"catch_up": CATCH_UP} | more)
    assert (await settled(one)).decision == Work({})
    assert one.batch == purpose.batch(LATER)


@pytest.mark.parametrize(
    ("others", "told", "goes_on"),
    [(5, True, True), (1, False, True), (0, True, False)],
    ids=["stood back", "stood back, without a pointer that says so", "done"],
)
async def test_only_the_newest_batch_is_gone_on_with(
    bucket: MemoryBucket, others: int, *, told: bool, goes_on: bool
) -> None:
    """What came after it and was done decides; who stood back was nobody's batch, whatever it was for."""
    await cut_off(bucket, status="interrupted")
    bucket.clock.seconds += MINUTE
    for number in range(others):
        run = run_of(f"odd {number}", bucket.clock.seconds)
        odd = await works(session(bucket, run, Purpose()))
        await odd.stand_back('v1 has no job "x"')
    if not goes_on:
        done = await works(session(bucket, B, Purpose()))
        await done.log.append(closed=closed())
    for key in [key for key in bucket.objects if ".stood_back." in key and not told]:
        del bucket.objects[key]
    one = session(bucket, LATER, Purpose(), catch_up=CATCH_UP)
    await one.begin()
    assert one.batch == (SLOT if goes_on else Purpose().batch(LATER))


async def test_of_two_that_would_go_on_one_works(bucket: MemoryBucket) -> None:
    """They began in the same moment: it is a batch like any other."""
    await cut_off(bucket, status="interrupted")
    two = [session(bucket, run, Purpose(), catch_up=CATCH_UP) for run in (B, C)]
    await asyncio.gather(*(one.begin() for one in two))
    assert [one.batch for one in two] == [SLOT, SLOT]
    decisions = [(await one.settle()).decision for one in two]
    assert decisions[0] == Work({"x": f"succeeded in {A}"})
    assert decisions[1] == StandBack(f"run {B} on host works for it", B)


async def test_without_the_index_a_run_does_everything_and_says_so() -> None:
    """It is a batch by itself then."""
    bucket = MemoryBucket(fails={"list"})
    outcome = await settled(session(bucket, LATER, Purpose(), catch_up=CATCH_UP))
    assert outcome.decision == Work({})
    assert outcome.warning == f"what earlier runs finished is not known: could not list {INDEX}"


async def test_who_cannot_see_the_newest_batch_goes_on_with_none(bucket: MemoryBucket) -> None:
    """A thousand shards of another schedule have filled the index meanwhile."""
    await cut_off(bucket, status="interrupted")
    for number in range(MOST_POINTERS):
        other = EntryKey(Batch.of_shard("other", "g", number, MOST_POINTERS), B, "0" * 8, 0)
        bucket.place(PointerKey(bucket.clock.now(), "jobs", other).text)
    one = session(bucket, LATER, Purpose(), catch_up=CATCH_UP)
    outcome = await settled(one)
    assert one.batch == Purpose().batch(LATER)
    assert "more than 20000 entries" in outcome.warning
    assert bucket.asked["list"] < 30


# Many.


async def test_of_fifty_machines_for_one_slot_one_works(bucket: MemoryBucket) -> None:
    """A schedule that went wrong costs each of them a few requests, and no log of another is listed."""
    many = [session(bucket, run_of(str(number), number)) for number in range(50)]
    for one in many:
        await one.begin()
    bucket.forget()
    decisions = [(await one.settle()).decision for one in many]
    assert Counter(type(one) for one in decisions) == {StandBack: 49, Work: 1}
    assert bucket.asked["list"] == 50


@given(
    st.lists(st.tuples(st.floats(0, 850), st.booleans()), min_size=2, max_size=5),
    st.floats(0, 4.9),
)
def test_one_works_at_a_time(starts: list[tuple[float, bool]], lag: float) -> None:
    """Machines begin when they like and die or work on; nobody who works is beside another who lives."""
    asyncio.run(_one_at_a_time(starts, lag))


async def _one_at_a_time(starts: Iterable[tuple[float, bool]], lag: float) -> None:
    bucket = MemoryBucket(lag=lag)
    alive: list[str] = []
    logs: dict[str, LogWriter] = {}
    for number, (gap, dies) in enumerate(starts):
        for _ in range(int(gap // 300)):
            bucket.clock.seconds += 300
            for run in alive:
                await logs[run].append(jobs=jobs(run, [f"j{int(bucket.clock.seconds)}"]))
        bucket.clock.seconds += gap % 300
        run = run_of(str(number), bucket.clock.seconds)
        one = session(bucket, run)
        if isinstance((await settled(one)).decision, Work):
            assert not alive
            alive = [] if dies else [run]
            logs[run] = one.log
