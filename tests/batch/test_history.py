"""What earlier batches say, and how much is asked for it."""

import asyncio
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.batch.fold import fold
from agent.batch.history import MOST_READ, History, JobState, Past
from agent.batch.log import LogReader, LogWriter
from agent.cli.rerun import Before
from agent.contract.entries import Ended, Object, Output
from agent.contract.ids import Batch, run_started
from agent.contract.layout import EntryKey, PointerKey, StateKey, parse_key
from agent.contract.results import JobStatus
from tests.batch.entries import A, B, began, closed, job, run_of
from tests.batch.memory import Clock, MemoryBucket

DAY = 86400.0
NOW = 400 * DAY
TONIGHT = Batch("main", "20280101T180000Z")


@pytest.fixture
def bucket() -> MemoryBucket:
    """An empty bucket, more than a year after the beginning of the tests' world."""
    return MemoryBucket(Clock(NOW))


def produced(run: str, name: str, *files: int, status: JobStatus = JobStatus.SUCCEEDED) -> Ended:
    """Return a job that ended, with what its last successes produced."""
    outputs = tuple(Output(files=number) for number in files)
    return job(run, name, status).model_copy(update={"outputs": outputs})


def left(run: str, name: str, status: JobStatus = JobStatus.SUCCEEDED, **more: Any) -> Ended:
    """Return a job that ended and left its state."""
    key = StateKey(name, run, status is not JobStatus.SUCCEEDED).text
    state = Object(key=key, bytes=3, sha256="1" * 64)
    return job(run, name, status).model_copy(update={"state": state, **more})


async def ran(
    bucket: MemoryBucket, run: str, days_ago: float, *entries: tuple[Ended, ...], batch: Any = None
) -> None:
    """Let a run have happened, with one entry for each portion of its jobs; states are there as well."""
    today, bucket.clock.seconds = bucket.clock.seconds, NOW - days_ago * DAY
    log = LogWriter(bucket, batch or Batch.of_run("main", run), run, "0" * 8, now=bucket.clock.now)
    await log.append(began=began(bucket.clock.seconds))
    for ended in entries:
        bucket.clock.seconds += 5
        for one in ended:
            if one.state:
                bucket.place(one.state.key, b"x")
        if ended:
            await log.append(jobs=ended)
    await log.append(closed=closed())
    bucket.clock.seconds = today
    bucket.forget()


def run_days_ago(name: str, days: float) -> str:
    """Return the id of a run that began so long ago."""
    return run_of(name, NOW - days * DAY)


def history(bucket: MemoryBucket, batch: Batch = TONIGHT) -> History:
    """Return what a run of today can look at."""
    return History(bucket, batch, bucket.clock.now())


def files(past: Past) -> dict[str, list[int]]:
    """Return the files of each job's past successes."""
    return {name: [one.files for one in outputs] for name, outputs in past.outputs.items()}


# Outputs.


async def test_the_newest_entry_has_the_last_outputs_of_a_job(bucket: MemoryBucket) -> None:
    """Each result carries those of its job's last successes, so that one is enough."""
    await ran(bucket, A, 2, (produced(A, "x", 1), produced(A, "y", 7)))
    await ran(bucket, B, 1, (produced(B, "x", 1, 2),), (produced(B, "z", 9),))
    past = await history(bucket).outputs(["x", "y"])
    assert files(past) == {"x": [1, 2], "y": [7]}
    assert not past.cut
    assert files(await history(bucket).outputs(["z", "nobody"])) == {"z": [9]}


async def test_a_daily_job_costs_one_listing(bucket: MemoryBucket) -> None:
    """And its last entries; who wants nothing asks nothing."""
    await ran(bucket, B, 1, *((produced(B, name, 1),) for name in "vwxyz"))
    await history(bucket).outputs("vwxyz")
    assert bucket.forget() == {"list": 1, "get": 6}
    assert files(await history(bucket).outputs([])) == {}
    assert bucket.forget() == {}


@pytest.mark.parametrize(("days", "lists"), [(1, 1), (7, 2), (30, 3), (41, 3)])
async def test_a_monthly_job_still_has_its_last_run(
    bucket: MemoryBucket, days: float, lists: int
) -> None:
    """Nobody looks into years."""
    run = run_days_ago("x", days)
    await ran(bucket, run, days, (produced(run, "x", 4),))
    past = await history(bucket).outputs(["x"])
    assert files(past) == ({} if days > 40 else {"x": [4]})
    assert bucket.asked["list"] == lists


async def test_outputs_are_of_the_schedule_also_of_a_failure(bucket: MemoryBucket) -> None:
    """A job that fails for two months does not forget what is usual; an hourly run of it produces less."""
    await ran(bucket, A, 2, (produced(A, "x", 3, 3, status=JobStatus.FAILED),))
    await ran(bucket, B, 1, (produced(B, "x", 5),), batch=Batch.of_run("hourly", B))
    assert files(await history(bucket).outputs(["x"])) == {"x": [3, 3]}


async def test_a_shard_finds_its_own_part_first(bucket: MemoryBucket) -> None:
    """The same shard of another group has the same jobs; where their number changed, any is looked at."""
    for shard in range(20):
        run = run_days_ago(str(shard), 1)
        own = Batch.of_shard("main", "monday", shard, 20)
        await ran(bucket, run, 1, (produced(run, f"job-{shard}", shard),), batch=own)
    past = await history(bucket, Batch.of_shard("main", "tuesday", 3, 20)).outputs(["job-3"])
    assert files(past) == {"job-3": [3]}
    assert bucket.forget()["get"] <= 16
    other = await history(bucket, Batch.of_shard("main", "tuesday", 3, 21)).outputs(["job-19"])
    assert files(other) == {"job-19": [19]}


async def test_a_look_ends(bucket: MemoryBucket) -> None:
    """A job that nobody knows costs no more than so many requests, and the run is told that there may be more."""
    await ran(bucket, A, 1, *((produced(A, f"j{number}", 1),) for number in range(200)))
    past = await history(bucket).outputs(["unknown"])
    assert past.cut
    assert bucket.asked["get"] == MOST_READ + 1
    assert sum(bucket.asked.values()) < 70


async def test_what_cannot_be_read_is_passed_over(bucket: MemoryBucket) -> None:
    """Damage, and a pointer to what never came."""
    await ran(bucket, A, 2, (produced(A, "x", 1),))
    for number, content in enumerate((b"{", None)):
        key = EntryKey(Batch.of_run("main", B), B, "0" * 8, number)
        bucket.place(PointerKey(bucket.clock.now(), "jobs", key).text)
        if content:
            bucket.place(key.text, content)
    assert files(await history(bucket).outputs(["x"])) == {"x": [1]}


# State.


async def state(bucket: MemoryBucket) -> str | None:
    """Return the run whose state a job gets."""
    found = await history(bucket).newest_state("x")
    return found.key.run if found else None


OLD, NEW = (run_days_ago(str(days), days) for days in (3, 1))


async def test_a_job_gets_the_newest_state_with_what_its_entry_says_of_it(
    bucket: MemoryBucket,
) -> None:
    """So that what is read can be compared."""
    assert await history(bucket).newest_state("x") is None
    assert bucket.forget() == {"list": 1}
    await ran(bucket, OLD, 3, (left(OLD, "x"),))
    await ran(bucket, NEW, 1, (left(NEW, "x"),))
    found = await history(bucket).newest_state("x")
    assert found == JobState(StateKey("x", NEW), left(NEW, "x").state)


async def test_what_a_wrong_clock_has_dated_later_comes_last(bucket: MemoryBucket) -> None:
    """It would be the newest for years."""
    ahead = run_days_ago("ahead", -3000)
    await ran(bucket, ahead, 2, (left(ahead, "x"),))
    await ran(bucket, NEW, 1, (left(NEW, "x"),))
    assert await state(bucket) == NEW


async def test_a_state_outlives_everything_that_says_where_it_is_from(bucket: MemoryBucket) -> None:
    """A lifecycle rule deletes runs, logs and pointers, and never the newest state."""
    old = run_days_ago("old", 90)
    bucket.place(StateKey("x", old).text, b"x", ago=90 * DAY)
    assert await history(bucket).newest_state("x") == JobState(StateKey("x", old), None)


async def test_of_years_of_states_the_newest_are_listed(bucket: MemoryBucket) -> None:
    """A page for all of a year and more, or for those of the last weeks."""
    for number in range(3000):
        bucket.place(StateKey("x", run_of(str(number), number * DAY / 10)).text, b"x")
    await ran(bucket, NEW, 1, (left(NEW, "x"),))
    assert await state(bucket) == NEW
    # Of all states, of the job's, of the newest; the index, the batch.
    assert bucket.forget()["list"] == 5
    assert await history(bucket).newest_state("y") is None
    assert bucket.asked == {"list": 2}


async def test_jobs_of_one_run_share_what_was_looked_up(bucket: MemoryBucket) -> None:
    """One listing for the states of all, and two for the run that they are of."""
    await ran(bucket, NEW, 1, tuple(left(NEW, name) for name in "vwxyz"))
    one = history(bucket)
    for name in "vwxyz":
        assert await one.newest_state(name) is not None
    assert bucket.asked == {"list": 3, "get": 3}


async def test_hundreds_of_uncommitted_states_are_not_all_looked_at(bucket: MemoryBucket) -> None:
    """A job that dies each time before its commit."""
    for number in range(100):
        bucket.place(StateKey("x", run_days_ago(str(number), 1 + number / 50)).text, b"x")
    assert await state(bucket) is None
    assert bucket.asked["list"] <= 10
    assert bucket.asked["get"] == 0


async def test_a_year_is_a_few_requests(bucket: MemoryBucket) -> None:
    """What a run asks does not grow with what there was before."""
    for day in range(366, 0, -1):
        run = run_days_ago(str(day), day)
        await ran(bucket, run, day, (left(run, "x", outputs=(Output(files=3),)),))
    one = history(bucket)
    assert files(await one.outputs(["x"])) == {"x": [3]}
    assert (await one.newest_state("x")) is not None
    assert bucket.asked["list"] <= 3
    assert bucket.asked["get"] <= 6


KINDS = ("kept", "nothing kept", "checkpoint", "uncommitted", "uncommitted checkpoint", "vanished")
RUNS = st.lists(
    st.tuples(st.floats(0.1, 30), st.sampled_from(KINDS), st.sampled_from(["own", "1", "2"])),
    max_size=6,
)


@given(RUNS, st.booleans())
@example([(3, "kept", "own"), (2, "uncommitted", "own"), (1, "vanished", "own")], False)
@example([(2, "kept", "1"), (1, "kept", "1")], False)  # twins
@example([(3, "kept", "own"), (2, "checkpoint", "1")], True)
@example([(2, "checkpoint", "1"), (1, "kept", "1"), (0.5, "checkpoint", "1")], True)
def test_a_job_gets_what_a_reader_of_everything_would_give_it(
    runs: list[tuple[float, str, str]], checkpoints: bool
) -> None:
    """Whatever was committed, by whom, in which batch: no look back finds anything else."""
    asyncio.run(_gets_the_same(runs, checkpoints=checkpoints))


async def _gets_the_same(runs: list[tuple[float, str, str]], *, checkpoints: bool) -> None:
    bucket = MemoryBucket(Clock(NOW))
    batches: dict[str, Batch] = {}
    for number, (days, kind, where) in enumerate(runs):
        run = run_days_ago(str(number), days)
        batch = Batch.of_run("main", run)
        if where != "own":
            batch = Batch.of_slot("main", bucket.clock.now().replace(day=int(where)))
        batches[run] = batch
        status = JobStatus.TIMED_OUT if "checkpoint" in kind else JobStatus.SUCCEEDED
        if "uncommitted" in kind:
            left_over = StateKey("x", run, status is not JobStatus.SUCCEEDED)
            bucket.place(left_over.text, b"x", ago=days * DAY)
        committed = {
            "kept": (left(run, "x"),),
            "checkpoint": (left(run, "x", status),),
            "nothing kept": (job(run, "x"),),
        }
        await ran(bucket, run, days, committed.get(kind, ()), batch=batch)
    wanted = [
        key.run
        for text in bucket.objects
        if isinstance(key := parse_key(text), StateKey)
        and (checkpoints or not key.checkpoint)
        and await _counts(bucket, key, batches[key.run])
    ]
    found = await history(bucket).newest_state("x", checkpoints=checkpoints)
    assert (found.key.run if found else None) == max(wanted, default=None)


async def _counts(bucket: MemoryBucket, key: StateKey, batch: Batch) -> bool:
    state = fold(batch, await LogReader(bucket, batch).look())
    success = state.successes.get("x")
    if success is not None:
        return not key.checkpoint and success.run == key.run and success.job.state is not None
    result = state.runs[key.run].results.get("x")
    return result is not None and result.job.state is not None and result.job.state.key == key.text


async def test_a_rerun_has_the_checkpoint_that_its_run_went_on_with(bucket: MemoryBucket) -> None:
    """That the run then succeeded with it, in the same batch, is not yet known to its rerun."""
    slot = Batch("main", "20280101T000000Z")
    first, second = run_days_ago("1", 1), run_days_ago("2", 0.9)
    checkpoint = left(first, "crawl", JobStatus.INTERRUPTED)
    await ran(bucket, first, 1, (checkpoint,), batch=slot)
    await ran(bucket, second, 0.9, (left(second, "crawl"),), batch=slot)
    before = History(Before(bucket, second), slot, run_started(second))
    state = await before.newest_state("crawl", checkpoints=True)
    assert state == JobState(StateKey("crawl", first, checkpoint=True), checkpoint.state)
