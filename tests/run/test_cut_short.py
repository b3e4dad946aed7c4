"""What of a run that is cut short is not lost: a job that ends in time, and the state of one that does not."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.metadata import Metadata
from tests.run.bench import Bench, finish

SHORT = """
    [[job]]
    name = "short"
    command = ["sh", "-c", "sleep 6; echo done > $MAYFLY_OUTPUT_DIR/file"]
"""
NEW = """
    [[job]]
    name = "new"
    command = ["sh", "-c", "sleep 60"]
"""
TWO = """
    [[job]]
    name = "a"
    command = ["sh", "-c", "echo 1 > $MAYFLY_OUTPUT_DIR/file"]

    [[job]]
    name = "b"
    command = ["sh", "-c", "cd $MAYFLY_OUTPUT_DIR; echo 1 > file; echo 2 > stuck"]
"""
CRAWL = """
    [[job]]
    name = "crawl"
    state = "checkpoint"
    timeout = "6s"
    command = ["sh", "-c", "cat $MAYFLY_STATE_DIR/page; echo 7 > $MAYFLY_STATE_DIR/page; sleep 60"]
"""


@pytest.mark.long
def test_a_job_goes_on_whose_past_says_that_it_ends_in_time(bench: Bench, ec2: Metadata) -> None:
    """EC2 takes the machine in two minutes; a job of which nobody knows how long it takes ends at once."""
    bench.release("v1.0", SHORT)
    assert bench.run().code == 0
    bench.release("v1.1", SHORT + NEW)
    with bench.running() as process:
        for job in ("short", "new"):
            bench.log.wait_for("job.started", job=job, seconds=60)
        ec2.notice = datetime.now(UTC) + timedelta(seconds=120)
        ran = finish(process)
    assert {job["name"]: job["status"] for job in ran.outcome["jobs"]} == {
        "short": "succeeded",
        "new": "interrupted",
    }
    assert ran.code == 7
    assert ran.events("spot.notice")[0]["timestamp"] < ran.events("job.ended")[-1]["timestamp"]


@pytest.mark.long
def test_the_state_of_a_job_that_timed_out_is_its_next_runs(bench: Bench) -> None:
    """With `state = "checkpoint"` a crawl of hours goes on where it was."""
    bench.release("v1.0", CRAWL)
    assert bench.run().job("crawl")["status"] == "timed_out"
    again = bench.run()
    assert [event["line"] for event in again.events("job.output")] == ["7"]


def test_a_job_finds_the_name_of_its_batch(bench: Bench) -> None:
    """It is the same for every attempt at a scheduled time."""
    bench.release("v1.0", '[[job]]\nname = "a"\ncommand = ["sh", "-c", "echo $MAYFLY_BATCH"]\n')
    ran = bench.run("--slot", "2026-11-22T03:00:00+09:00")
    assert [event["line"] for event in ran.events("job.output")] == ["20261121T180000Z"]


@pytest.mark.long
def test_without_its_disk_a_run_that_cannot_send_all_is_done_again(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """What arrived is committed; the job that lacks a file is interrupted, and the next run goes on with it."""
    bench.release("v1.0", TWO)
    bench.settings |= {"power.keeps_disk": "false", "limits.handoff": "15s"}
    s3_proxy.inject(Answer(503, "SlowDown"), method="PUT", path="/files/stuck")
    ran = bench.run()
    assert ran.code == 7, ran.stderr[-3000:]
    run = bucket_on_s3.run(ran.run_id)
    assert (run.status, run.statuses) == ("interrupted", {"a": "succeeded", "b": "interrupted"})
    assert bench.spool == []
    s3_proxy.heal()
    again = bench.run(limits__catch_up="6h")
    assert again.code == 0
    assert [job["name"] for job in again.outcome["jobs"]] == ["b"]
