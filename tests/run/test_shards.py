"""Shards of a batch as separate processes: each value once, whoever dies, and whatever the engine starts twice."""

import shutil
from collections.abc import Iterator

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import all_sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import IgnoreConditions
from tests.parts.waiting import wait_until
from tests.run.bench import Bench
from tests.run.fleet import Fleet, succeeded

VALUES = 24
SHARDS = 3
JOBS = f"""
    [[job]]
    name = "shop"
    command = ["sh", "shop.sh"]
    matrix = {{ shop = [{", ".join(f'"{number}"' for number in range(VALUES))}] }}
"""
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
    visits, gate = bench.folder / "visits", bench.folder / "gate"
    visits.touch()
    bench.release("v1", JOBS, {"shop.sh": SHOP.format(visits=visits, gate=gate)})
    fleet = Fleet(bench, "night-1", SHARDS)
    yield fleet
    fleet.end()


def visits(bench: Bench) -> list[str]:
    """Return which jobs have visited the site, in order."""
    lines = (bench.folder / "visits").read_text().splitlines()
    return [line.split()[0] for line in lines]


def close_gate(bench: Bench) -> None:
    """Let every run's third job hang."""
    (bench.folder / "gate").touch()


def open_gate(bench: Bench) -> None:
    """Let jobs go on that begin from now on."""
    (bench.folder / "gate").unlink()


def test_a_group_of_shards_does_everything_once(fleet: Fleet, bucket: Bucket) -> None:
    """Three processes share the values; each commits a run of its own that says which part it is."""
    members = [fleet.start(shard) for shard in range(SHARDS)]
    assert [member.wait() for member in members] == [0, 0, 0]
    assert sorted(visits(fleet.bench)) == sorted(NAMES)
    assert succeeded(bucket) == dict.fromkeys(NAMES, 1)
    assert len(all_sound(bucket)) == SHARDS
    parts = sorted((each["group"], each["shard"], each["shards"]) for each in bucket.entries())
    assert parts == [("night-1", shard, SHARDS) for shard in range(SHARDS)]
    for entry in bucket.entries():
        run = bucket.run(entry["run_id"]).record
        assert (run["group"], run["shards"]) == ("night-1", SHARDS)
        assert {job["family"] for job in [*run["jobs"], *entry["jobs"]]} == {"shop"}
        marker = bucket.begun()[entry["run_id"]]
        assert (marker["group"], marker["shard"]) == ("night-1", run["shard"])


def test_a_shard_that_lost_its_disk_begins_again(fleet: Fleet, bucket: Bucket) -> None:
    """Killed without a word, it had committed nothing: the engine's next attempt does all of it, once in the index."""
    close_gate(fleet.bench)
    first = fleet.start(1)
    wait_until(lambda: first.tells("job.ended", 2), what="two jobs")
    first.kill()
    shutil.rmtree(first.folder / "state")
    open_gate(fleet.bench)
    members = [fleet.start(shard) for shard in range(SHARDS)]
    assert [member.wait() for member in members] == [0, 0, 0]
    assert succeeded(bucket) == dict.fromkeys(NAMES, 1)


def test_an_evicted_shard_repeats_only_what_was_missing(fleet: Fleet, bucket: Bucket) -> None:
    """It had time to commit what was finished; the next attempt, on another disk, leaves that out and says why."""
    close_gate(fleet.bench)
    first = fleet.start(1)
    wait_until(lambda: first.tells("job.started", 3), what="three jobs")
    first.told_to_stop()
    assert first.wait() == 7
    shutil.rmtree(first.folder / "state")
    open_gate(fleet.bench)
    before = visits(fleet.bench)
    assert fleet.start(1).wait() == 0
    cut, rest = bucket.entries()
    assert (cut["status"], rest["status"]) == ("interrupted", "succeeded")
    done = [job for job in rest["jobs"] if job["status"] == "skipped"]
    assert {job["message"] for job in done} == {
        f"succeeded in {cut['run_id']}, which was interrupted"
    }
    assert sorted(job["name"] for job in done) == sorted(before[:2])
    assert set(before[:2]).isdisjoint(visits(fleet.bench)[3:])
    assert set(succeeded(bucket).values()) == {1}


def test_a_shard_that_was_done_does_nothing(fleet: Fleet, bucket: Bucket) -> None:
    """An engine that starts a completed shard again gets its success, and no page is fetched twice."""
    assert [fleet.start(0).wait(), fleet.start(0).wait()] == [0, 0]
    seen = visits(fleet.bench)
    assert len(seen) == len(set(seen))
    assert set(succeeded(bucket).values()) == {1}
    assert len(all_sound(bucket)) == 2


def test_another_group_does_everything_again(fleet: Fleet, bucket: Bucket) -> None:
    """The next night is another batch."""
    fleet.shards = 1
    assert fleet.start(0).wait() == 0
    fleet.group = "night-2"
    assert fleet.start(0).wait() == 0
    assert succeeded(bucket) == dict.fromkeys(NAMES, 2)


@pytest.mark.parametrize("honest", [True, False])
def test_a_twin_commits_nothing_twice(
    fleet: Fleet, bucket_on_s3: Bucket, s3_proxy: FaultProxy, *, honest: bool
) -> None:
    """Two live processes of one shard do the work twice, and one of them commits; the other says so and fails.

    Where the store ignores conditions they look and wait instead.
    """
    if not honest:
        s3_proxy.inject(IgnoreConditions(), method="PUT")
    close_gate(fleet.bench)
    twins = [fleet.start(1), fleet.start(1)]
    wait_until(lambda: all(twin.tells("job.started", 3) for twin in twins), what="both at work")
    for twin in twins:
        twin.told_to_stop()
    codes = sorted(twin.wait() for twin in twins)
    assert codes == [6, 7]
    assert len(all_sound(bucket_on_s3)) == 1
    assert sum(succeeded(bucket_on_s3).values()) == 2
    lost = next(twin for twin in twins if twin.tells("handoff.postponed"))
    reason = next(each for each in lost.log.events() if each["event"] == "handoff.postponed")[
        "reason"
    ]
    assert "another run of this shard committed first" in reason
    open_gate(fleet.bench)
    # The engine starts the one that failed again, and it does what neither had done.
    assert fleet.start(1).wait() == 0
    assert set(succeeded(bucket_on_s3).values()) == {1}
    assert len(bucket_on_s3.run(bucket_on_s3.entries()[-1]["run_id"]).results) > 0


def test_a_run_that_died_inside_its_commit_is_published_by_the_next(
    fleet: Fleet, bucket: Bucket
) -> None:
    """It had the number of its commit and no index entry: everything it did is there, so that it counts."""
    assert fleet.start(2).wait() == 0
    (entry,) = bucket.entries()
    bucket.remove_entry(entry["run_id"])
    seen = visits(fleet.bench)
    again = fleet.start(2)
    assert again.wait() == 0
    assert again.tells("shard.published")
    assert visits(fleet.bench) == seen
    assert entry in bucket.entries()
    assert len(all_sound(bucket)) == 2
    assert set(succeeded(bucket).values()) == {1}


def test_what_nobody_can_deal_is_refused(fleet: Fleet, bucket: Bucket) -> None:
    """Contradictions, and jobs that need a whole matrix, end the run before it leaves a trace."""
    bench = fleet.bench
    ran = bench.run("--shard", "2/8")
    assert (ran.code, "a shard needs a group" in ran.stderr) == (2, True)
    ran = bench.run("--shard", "9/8", "--group", "g")
    assert (ran.code, "--shard" in ran.stderr) == (2, True)
    bench.environ |= {"JOB_COMPLETION_INDEX": "3", "MAYFLY_SHARDS": "8"}
    ran = bench.run("--shard", "2/8", "--group", "g")
    assert ran.code == 2
    assert "--shard says 1 and JOB_COMPLETION_INDEX says 3" in ran.stderr
    needy = '[[job]]\nname = "sum"\ncommand = ["true"]\nneeds = ["shop"]\n'
    bench.release("v2", f"{JOBS}\n    " + needy.replace("\n", "\n    "), {"shop.sh": "true"})
    ran = bench.run("--group", "g")
    assert ran.code == 2
    assert "a value of a matrix" in ran.stderr
    assert bucket.entries() == []
    assert bucket.begun() == {}
    assert bench.spool == []
