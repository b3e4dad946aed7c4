"""What of a run that is cut short is not lost: a job that ends in time, and the state of one that does not."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.metadata import Metadata
from tests.run.bench import Bench, Ran, finish, job

SHORT = job("short", "sleep 6; echo done > $MAYFLY_OUTPUT_DIR/file")


@pytest.mark.long
def test_a_job_goes_on_whose_past_says_that_it_ends_in_time(
    bench: Bench, bucket: Bucket, ec2: Metadata
) -> None:
    """EC2 takes the machine in two minutes; a job of which nobody knows how long it takes ends at once."""
    bench.release("v1.0", SHORT)
    bench.run(code=0)
    for tag, jobs, code, statuses in (
        ("v1.1", SHORT, 0, {"short": "succeeded"}),
        ("v1.2", SHORT + job("new", "sleep 60"), 7, {"short": "succeeded", "new": "interrupted"}),
    ):
        bench.release(tag, jobs)
        with bench.running() as process:
            for name in statuses:
                bench.log.wait_for("job.started", job=name)
            ec2.notice = datetime.now(UTC) + timedelta(seconds=120)
            ran = finish(process, code)
        ec2.notice = None
        run = sound(bucket, ran.run_id)
        assert run.statuses == statuses
        assert run.status == ("interrupted" if code else "succeeded")
        assert run.record["interruption"].startswith("spot: ")
        notice, ended = ran.events("spot.notice")[0], ran.events("job.ended")[-1]
        assert notice["timestamp"] < ended["timestamp"]


@pytest.mark.long
def test_the_state_of_a_job_that_timed_out_is_its_next_runs(bench: Bench) -> None:
    """With `state = "checkpoint"` a crawl of hours goes on where it was."""
    crawl = "cat $MAYFLY_STATE_DIR/page; echo 7 > $MAYFLY_STATE_DIR/page; sleep 60"
    bench.release("v1.0", job("crawl", crawl, state="checkpoint", timeout="6s"))
    assert bench.run().job("crawl")["status"] == "timed_out"
    again = bench.run()
    assert [event["line"] for event in again.events("job.output")] == ["7"]


@pytest.mark.long
def test_a_retry_and_the_next_run_go_on_from_the_attempt_that_timed_out(bench: Bench) -> None:
    """What a retry adds is kept if it is cut as well; one that fails leaves what was kept before it."""
    crawl = """
        cat "$MAYFLY_STATE_DIR/page"
        echo "$MAYFLY_RUN_ID $MAYFLY_ATTEMPT" >> "$MAYFLY_STATE_DIR/page"
        [ "$MAYFLY_ATTEMPT" = 1 ] || exit 1
        sleep 60
    """
    bench.release("v1.0", job("crawl", crawl, state="checkpoint", timeout="6s", retries=1))
    first = bench.run()
    assert first.job("crawl")["status"] == "failed"
    kept = f"{first.run_id} 1"
    assert _lines(first) == [kept]
    again = bench.run()
    assert _lines(again) == [kept, kept, f"{again.run_id} 1"]


@pytest.mark.long
def test_a_retry_that_succeeds_without_a_state_leaves_no_checkpoint(bench: Bench) -> None:
    """Who has finished clears the state; what was kept of an attempt before is not what a success left."""
    crawl = """
        cat "$MAYFLY_STATE_DIR/page"
        echo > "$MAYFLY_OUTPUT_DIR/file"
        [ "$MAYFLY_ATTEMPT" = 1 ] || exec rm "$MAYFLY_STATE_DIR/page"
        echo 7 > "$MAYFLY_STATE_DIR/page"
        sleep 60
    """
    bench.release("v1.0", job("crawl", crawl, state="checkpoint", timeout="6s", retries=1))
    first = bench.run()
    assert (first.job("crawl")["status"], _lines(first)) == ("succeeded", ["7"])
    assert _lines(bench.run()) == ["7"]


@pytest.mark.long
def test_a_checkpoint_that_its_job_removed_does_not_come_back(bench: Bench) -> None:
    """A crawl that went on, ended and emptied its folder begins at its first page the next time."""
    crawl = """if [ -e $MAYFLY_STATE_DIR/page ]; then echo goes on; rm $MAYFLY_STATE_DIR/page
    else echo begins; echo 7 > $MAYFLY_STATE_DIR/page; sleep 60; fi"""
    bench.release("v1.0", job("crawl", crawl, state="checkpoint", timeout="6s"))
    nights = [bench.run("--slot", f"2026-11-2{day}T18:00:00Z") for day in (1, 2, 3)]
    assert [ran.job("crawl")["status"] for ran in nights] == ["timed_out", "succeeded", "timed_out"]
    assert [ran.events("job.output")[0]["line"] for ran in nights] == [
        "begins",
        "goes on",
        "begins",
    ]


@pytest.mark.long
def test_without_its_disk_a_run_that_cannot_send_all_is_done_again(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """What arrived is committed; the job that lacks a file is interrupted, and the next run goes on with it."""
    two = "cd $MAYFLY_OUTPUT_DIR; echo 1 > file; echo 2 > stuck"
    bench.release("v1.0", job("a", "echo 1 > $MAYFLY_OUTPUT_DIR/file") + job("b", two))
    bench.settings |= {"power.keeps_disk": "false", "limits.handoff": "15s"}
    s3_proxy.inject(Answer(503, "SlowDown"), method="PUT", path="/files/stuck")
    ran = bench.run(code=7)
    run = bucket_on_s3.run(ran.run_id)
    assert (run.status, run.statuses) == ("interrupted", {"a": "succeeded", "b": "interrupted"})
    assert bench.spool == []
    s3_proxy.heal()
    again = bench.run(code=0, limits__catch_up="6h")
    assert [job["name"] for job in again.outcome["jobs"]] == ["b"]


def _lines(ran: Ran) -> list[str]:
    """Return what the jobs printed on their standard output."""
    lines = (str(event["line"]) for event in ran.events("job.output"))
    return [line for line in lines if "No such file" not in line]
