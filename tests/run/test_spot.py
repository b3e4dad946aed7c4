"""EC2 takes the machine back: what is finished is in the bucket before it is gone, and the rest is named.

`MAYFLY_TEST_SEEDS=50` for fifty random moments of a run, and for 200 MB on a link of 20 Mbit/s; without it two moments
and a tenth of that.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import all_sound, sound
from tests.parts.metadata import Metadata
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, Ran, finish, job
from tests.run.fleet import succeeded

SEEDS = int(os.environ.get("MAYFLY_TEST_SEEDS", "2"))
LONG = SEEDS >= 50
NOTICE = timedelta(seconds=120)
LINK = Path(__file__).parents[2] / "benchmarks" / "link.py"
MBIT, MEGABYTES = 20, 200 if LONG else 20
SOON = 30.0
"""Seconds until a notice must have been seen: polls are five seconds apart, the rest is for a busy machine."""

QUICK = "echo done > $MAYFLY_OUTPUT_DIR/file; echo 1 > $MAYFLY_STATE_DIR/seen"
STEADY = "for n in 1 2 3 4; do sleep 0.5; echo $n > $MAYFLY_OUTPUT_DIR/$n; done"
SLOW = "echo half > $MAYFLY_OUTPUT_DIR/half; sleep 12; echo > $MAYFLY_OUTPUT_DIR/end"
JOBS = job("quick", QUICK) + job("steady", STEADY) + job("slow", SLOW)


def release_with_gate(bench: Bench) -> Path:
    """Publish the jobs, the slow one of which goes on until its gate is there; return the gate."""
    gate = bench.folder / "gate"
    bench.release("v1.0", JOBS.replace("sleep 12", f"until [ -e {gate} ]; do sleep 0.1; done"))
    return gate


def taken(ec2: Metadata) -> float:
    """Let EC2 say that it takes the machine in two minutes; return the time (Unix seconds)."""
    now = datetime.now(UTC)
    ec2.notice = now + NOTICE
    return now.timestamp()


def at(event: dict[str, Any]) -> float:
    """Return when an event was logged (Unix seconds)."""
    return datetime.fromisoformat(event["timestamp"]).timestamp()


def interrupted(
    bench: Bench, ec2: Metadata, *, after: float = 0.0, once: str = ""
) -> tuple[Ran, float, float]:
    """Run, and let the notice come after a time, or once a job has ended.

    Returns:
        The run; seconds until the notice was seen (-1: the run was over before) and until it closed.
    """
    with bench.running() as process:
        if once:
            bench.log.wait_for("job.ended", job=once)
        time.sleep(after)  # the moment is what is tried
        since = taken(ec2)
        ran = finish(process)
    ec2.notice = None
    seen = [at(each) - since for each in ran.events("spot.notice")]
    closed = [at(each) - since for each in ran.events("run.closed")]
    assert closed, ran.stderr[-3000:]
    return ran, seen[0] if seen else -1.0, closed[0]


@pytest.mark.parametrize("seed", range(SEEDS))
@pytest.mark.long
def test_a_notice_at_any_moment(bench: Bench, bucket: Bucket, ec2: Metadata, seed: int) -> None:
    """It is seen soon; what was finished is committed well inside the two minutes; the run says why it ended."""
    bench.release("v1.0", JOBS)
    after = random.Random(seed).uniform(0.3, 14.0)
    ran, seen, committed = interrupted(bench, ec2, after=after)
    print(f"seed {seed}: notice {after:.1f} s after the start, {seen=:.2f} s, {committed=:.2f} s")
    assert seen < SOON
    assert committed < 60
    run = sound(bucket, ran.run_id)
    for each in ran.events("job.ended"):
        assert run.statuses[each["job"]] == each["status"]
    # A notice that comes when every job is over interrupts nothing; one before the release finds no jobs.
    cut = run.status == "interrupted"
    assert cut != (run.statuses.get("slow") == "succeeded")
    assert run.closed is not None
    assert (ran.code, run.closed["pending"], bench.spool) == (7 if cut else 0, [], [])
    if cut:
        assert run.record["interruption"].startswith("spot: EC2 will terminate the machine at 20")
    bench.run(code=0, limits__catch_up="6h")
    # After a run that was not cut the next one is a batch by itself.
    assert succeeded(bucket) == dict.fromkeys(("quick", "steady", "slow"), 1 if cut else 2)
    all_sound(bucket)


ENDING = """
    finish() {{
        touch {folder}/ending
        until test -e {folder}/go; do sleep 0.05; done
        echo all > $MAYFLY_OUTPUT_DIR/all
        exit 0
    }}
    trap finish TERM
    echo ready
    while :; do sleep 0.05; done
"""


def test_the_signal_of_a_shutdown_after_a_notice_ends_no_hand_off(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """EC2's shutdown of the machine is the first signal, not a second: what a job writes in its grace is delivered."""
    script = {"ending.sh": ENDING.format(folder=bench.folder)}
    bench.release("v1", job("ending", ["sh", "ending.sh"]), script)
    with bench.running(limits__grace="60s") as process:
        bench.log.wait_for("job.output", line="ready")
        taken(ec2)
        wait_until((bench.folder / "ending").exists, seconds=60, what="the job's SIGTERM")
        process.send_signal(signal.SIGTERM)
        bench.log.wait_for("run.signal")
        (bench.folder / "go").touch()
        ran = finish(process, code=7)
    assert ran.outcome["delivered"]
    assert bucket.run(ran.run_id).files["ending/all"] == b"all\n"


@pytest.mark.long
def test_a_slow_service_does_not_delay_the_look(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """With half a second for each answer the notice is seen in time; a recommendation is noted, and stops nothing."""
    release_with_gate(bench)
    ec2.delay, ec2.rebalance = 0.5, True
    with bench.running() as process:
        bench.log.wait_for("spot.rebalance_recommended")
        bench.log.wait_for("job.ended", job="steady")
        since = taken(ec2)
        ran = finish(process)
    assert len(ran.events("spot.rebalance_recommended")) == 1
    assert 0 <= at(ran.events("spot.notice")[0]) - since < SOON
    run = bucket.run(ran.run_id)
    assert run.statuses == {"quick": "succeeded", "steady": "succeeded", "slow": "interrupted"}


@pytest.mark.long
def test_another_slot_is_another_day_and_a_run_by_name_is_its_own(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """Neither goes on with an interrupted run, and nothing is left to catch up with after one that was not."""
    gate = release_with_gate(bench)
    bench.settings["limits.catch_up"] = "6h"
    with bench.running("--slot", "2026-11-22T18:00:00Z") as process:
        bench.log.wait_for("job.ended", job="steady")
        taken(ec2)
        finish(process, code=7)
    ec2.notice = None
    gate.touch()
    assert bench.run("--job", "quick").job("quick")["status"] == "succeeded"
    assert bench.run().job("steady")["status"] == "succeeded"
    other = bench.run("--slot", "2026-11-23T18:00:00Z")
    assert [job["status"] for job in other.outcome["jobs"]] == ["succeeded"] * 3
    assert len({run.batch for run in bucket.runs.values()}) == 4
    all_sound(bucket)


@pytest.fixture
def narrow(bench: Bench, s3_server: S3Server, s3_bucket: str) -> Iterator[Bucket]:
    """The bench's bucket at the end of a link that all connections share."""
    command = [sys.executable, "-S", "-E", str(LINK), str(s3_server.port), "20", str(MBIT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as link:
        assert link.stdout is not None
        endpoint = f"http://127.0.0.1:{int(link.stdout.readline())}"
        bench.deliver_to(Bucket.on_s3(s3_server, s3_bucket, endpoint=endpoint))
        yield bench.bucket
        link.kill()


BIG = """
    import os, pathlib, time
    out = pathlib.Path(os.environ["MAYFLY_OUTPUT_DIR"])
    for number, size in enumerate(map(int, os.environ["SIZES"].split())):
        (out / f"{number}.part").write_bytes(os.urandom(size * 1000))
    for part in sorted(out.glob("*.part")):
        part.rename(part.with_suffix(".bin"))
"""


def big_release(bench: Bench, sizes: list[int]) -> None:
    """Publish a release whose jobs leave a small file, and files of so many kB each, all at once."""
    big = job("zbig", [sys.executable, "big.py"], env={"SIZES": " ".join(map(str, sizes))})
    jobs = job("small", "echo small > $MAYFLY_OUTPUT_DIR/file") + big
    bench.release("v1.0", jobs, {"big.py": BIG})


WHOLE = {"small/file", *(f"zbig/{number}.bin" for number in range(5))}


@pytest.mark.timeout(900)
@pytest.mark.long
def test_what_waits_on_a_narrow_link_is_sent_or_follows(
    bench: Bench, narrow: Bucket, ec2: Metadata
) -> None:
    """200 MB on 20 Mbit/s (long): closed inside the two minutes, and after the next run nothing is missing."""
    bench.settings["limits.catch_up"] = "6h"
    big_release(bench, [MEGABYTES * 1000 // 40] * 40)
    ran, seen, closed = interrupted(bench, ec2, once="zbig")
    sound(narrow, ran.run_id)
    print(f"{MEGABYTES} MB on {MBIT} Mbit/s: {seen=:.1f} s, {closed=:.1f} s")
    assert closed < 110
    bench.run(code=0)
    assert bench.spool == []
    all_sound(narrow)
    assert narrow.run(ran.run_id).results == {"small/file", *(f"zbig/{n}.bin" for n in range(40))}


@pytest.mark.parametrize("keeps_disk", [True, False])
@pytest.mark.timeout(900)
@pytest.mark.long
def test_what_cannot_be_sent_in_time_follows_or_is_named(
    bench: Bench, narrow: Bucket, ec2: Metadata, *, keeps_disk: bool
) -> None:
    """More than the link carries: small files are there; the rest follows from the disk, or is told as cut short."""
    ec2.said["meta-data/spot/instance-action"] = None
    bench.settings |= {"limits.catch_up": "6h", "power.keeps_disk": str(keeps_disk).lower()}
    big_release(bench, [40, 40, *[MBIT * 1500] * 3])
    with bench.running() as process:
        bench.log.wait_for("job.ended", count=2)
        # A notice of which most of the time is over: what the agent would find after a busy start.
        soon = datetime.now(UTC) + timedelta(seconds=45)
        ec2.said["meta-data/spot/instance-action"] = json.dumps(
            {"action": "stop", "time": f"{soon:%Y-%m-%dT%H:%M:%SZ}"}
        )
        ran = finish(process)
    del ec2.said["meta-data/spot/instance-action"]
    assert at(ran.events("run.closed")[0]) < soon.timestamp() - 5
    run = sound(narrow, ran.run_id)
    assert run.told["small"]["status"] == "succeeded"
    assert run.closed is not None
    if keeps_disk:
        assert (ran.code, run.closed["pending"], len(bench.spool)) == (6, ["zbig"], 1)
    else:
        assert (ran.code, run.status, bench.spool) == (7, "interrupted", []), ran.stderr[-3000:]
        assert run.told["zbig"]["status"] == "interrupted"
        assert "could not be sent in time" in run.told["zbig"]["message"]
        assert {"small/file", "zbig/0.bin", "zbig/1.bin"} <= run.results < WHOLE
    again = bench.run(code=0)
    assert bench.spool == []
    all_sound(narrow)
    if keeps_disk:
        assert narrow.run(ran.run_id).results == WHOLE
    else:
        assert narrow.run(again.run_id).results == WHOLE - {"small/file"}
        assert succeeded(narrow) == {"small": 1, "zbig": 1}
