"""Shards of a batch as separate processes: each value once, whoever dies, and whatever the engine starts twice."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket, Run
from tests.bucket.sound import all_sound
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, job
from tests.run.fleet import Fleet, succeeded

VALUES = 24
SHARDS = 3
JOBS = job("shop", ["sh", "shop.sh"], matrix={"shop": [str(number) for number in range(VALUES)]})
SHOP = """
    echo "$MAYFLY_MATRIX_SHOP" > "$MAYFLY_OUTPUT_DIR/page"
    echo "$MAYFLY_JOB $MAYFLY_RUN_ID" >> "{visits}"
    [ ! -e "{gate}" ] || [ "$(grep -c "$MAYFLY_RUN_ID" "{visits}")" -lt 3 ] || sleep 300
"""
"""The site counts its visitors; while its gate is closed, the third of a run waits there."""

NAMES = {f"shop-{number}" for number in range(VALUES)}


@pytest.fixture
def fleet(bench: Bench) -> Iterator[Fleet]:
    """Three shards of one group, on a laptop's bucket."""
    bench.settings |= {"limits.jobs": "1"}
    (seen := bench.folder / "visits").touch()
    bench.release("v1", JOBS, {"shop.sh": SHOP.format(visits=seen, gate=gate(bench))})
    fleet = Fleet(bench, "night-1", SHARDS)
    yield fleet
    fleet.end()


def visits(bench: Bench) -> list[str]:
    """Return which jobs have visited the site, in order."""
    lines = (bench.folder / "visits").read_text().splitlines()
    return [line.split()[0] for line in lines]


def gate(bench: Bench) -> Path:
    """Return the file that closes the gate: while it is there, every run's third job hangs."""
    return bench.folder / "gate"


def left_out(run: Run) -> dict[str, str]:
    """Return which jobs a run's plan leaves out, and why."""
    assert run.planned is not None
    return {each["name"]: each["reason"] for each in run.planned["left_out"]}


def test_a_group_of_shards_does_everything_once(fleet: Fleet, bucket: Bucket) -> None:
    """Three processes share the values; each is a batch of its own that says which part it is.

    An engine that starts a completed shard again gets its success, and no page is fetched twice.
    """
    members = [fleet.start(shard) for shard in range(SHARDS)]
    assert [member.wait() for member in members] == [0, 0, 0]
    assert sorted(visits(fleet.bench)) == sorted(NAMES)
    assert succeeded(bucket) == dict.fromkeys(NAMES, 1)
    assert len(all_sound(bucket)) == SHARDS
    runs = {run.batch: run for run in bucket.runs.values()}
    for shard in range(SHARDS):
        run = runs[f"main/night-1.{shard}-of-{SHARDS}"]
        part = (run.began["group"], run.began["shard"], run.began["shards"])
        assert part == ("night-1", shard, SHARDS)
        assert {job["family"] for job in run.jobs} == {"shop"}
    assert fleet.start(0).wait() == 0
    assert len(visits(fleet.bench)) == VALUES
    assert succeeded(bucket) == dict.fromkeys(NAMES, 1)
    assert len(all_sound(bucket)) == SHARDS + 1


def test_a_shard_that_is_killed_with_its_disk_loses_what_was_running(
    fleet: Fleet, bucket: Bucket
) -> None:
    """What had ended some seconds before is there: the engine's next attempt, on another disk, leaves it out."""
    gate(fleet.bench).touch()
    first = fleet.start(1)
    wait_until(lambda: len(succeeded(bucket)) == 2, what="two jobs in the bucket")
    wait_until(lambda: first.tells("job.started", 3), what="a third one")
    first.kill()
    shutil.rmtree(first.folder / "state")
    done = visits(fleet.bench)[:2]
    gate(fleet.bench).unlink()
    assert [fleet.start(shard).wait() for shard in range(SHARDS)] == [0, 0, 0]
    assert succeeded(bucket) == dict.fromkeys(NAMES, 1)
    assert set(done).isdisjoint(visits(fleet.bench)[3:])
    lost, again = (run for run in bucket.runs.values() if run.began["shard"] == 1)
    assert (lost.status, again.status) == ("running", "succeeded")
    assert left_out(again) == dict.fromkeys(done, f"succeeded in {lost.id}")
    assert lost.log[0]["event"] == "run.started"


def test_an_evicted_shard_repeats_only_what_was_missing(fleet: Fleet, bucket: Bucket) -> None:
    """It had time to commit what was finished, and to close; the next attempt says what it leaves out, and why."""
    gate(fleet.bench).touch()
    first = fleet.start(1)
    wait_until(lambda: first.tells("job.started", 3), what="three jobs")
    first.told_to_stop()
    assert first.wait() == 7
    shutil.rmtree(first.folder / "state")
    gate(fleet.bench).unlink()
    before = visits(fleet.bench)
    assert fleet.start(1).wait() == 0
    all_sound(bucket)
    cut, rest = bucket.runs.values()
    assert (cut.status, rest.status) == ("interrupted", "succeeded")
    assert left_out(rest) == dict.fromkeys(before[:2], f"succeeded in {cut.id}")
    assert set(before[:2]).isdisjoint(visits(fleet.bench)[3:])
    assert set(succeeded(bucket).values()) == {1}


def test_two_live_twins_do_a_job_twice_and_it_counts_once(fleet: Fleet, bucket: Bucket) -> None:
    """Neither stands back, both commit what they did, and whoever comes after them leaves out all of it."""
    gate(fleet.bench).touch()
    twins = [fleet.start(1), fleet.start(1)]
    wait_until(lambda: all(twin.tells("job.started", 3) for twin in twins), what="both at work")
    for twin in twins:
        twin.told_to_stop()
    assert [twin.wait() for twin in twins] == [7, 7]
    assert len(all_sound(bucket)) == 2
    done = set(succeeded(bucket))
    gate(fleet.bench).unlink()
    before = len(visits(fleet.bench))
    assert fleet.start(1).wait() == 0
    assert done.isdisjoint(visits(fleet.bench)[before:])
    told = left_out(bucket.newest)
    assert told.keys() == done
    for name, reason in told.items():
        assert reason in {f"succeeded in {run.id}" for run in bucket.working if name in run.told}


def test_another_group_does_everything_again(fleet: Fleet, bucket: Bucket) -> None:
    """The next night is another batch."""
    fleet.shards = 1
    assert fleet.start(0).wait() == 0
    fleet.group = "night-2"
    assert fleet.start(0).wait() == 0
    assert succeeded(bucket) == dict.fromkeys(NAMES, 2)


def test_what_nobody_can_deal_is_refused(fleet: Fleet, bucket: Bucket) -> None:
    """Contradictions, and jobs that need a whole matrix, end the run before it does anything."""
    bench = fleet.bench
    group = ("--group", "g")
    assert "a shard needs a group" in bench.run("--shard", "2/8", code=2).stderr
    assert "--shard" in bench.run("--shard", "9/8", *group, code=2).stderr
    bench.environ |= {"JOB_COMPLETION_INDEX": "3", "MAYFLY_SHARDS": "8"}
    ran = bench.run("--shard", "2/8", *group, code=2)
    assert "--shard says 1 and JOB_COMPLETION_INDEX says 3" in ran.stderr
    bench.release("v2", JOBS + job("sum", "true", needs=["shop"]), {"shop.sh": "true"})
    assert "a value of a matrix" in bench.run(*group, code=2).stderr
    assert {run.status for run in bucket.runs.values()} == {"stood_back"}
    assert all_sound(bucket) == []
    assert bench.spool == []
