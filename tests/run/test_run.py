"""What a run does when nothing is wrong outside of it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from agent.base.logs import RunLogger
from agent.base.progress import NullProgress
from agent.base.stop import Stop
from agent.config.locate import Locations
from agent.config.settings import Settings
from agent.delivery.spool import Spool
from agent.run.call import Call
from agent.run.context import RunContext
from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.run.bench import Bench, job

TWO = job("first", ["sh", "first.sh"]) + job(
    "second", "echo two > $MAYFLY_OUTPUT_DIR/two.txt", needs=["first"]
)
FIRST = """
    mkdir -p "$MAYFLY_OUTPUT_DIR/deep/er"
    printf one > "$MAYFLY_OUTPUT_DIR/deep/er/ö 日本 (1) #x%41+?&.txt"
    : > "$MAYFLY_OUTPUT_DIR/empty"
    printf x > "$MAYFLY_OUTPUT_DIR/.hidden"
    printf x > "$MAYFLY_OUTPUT_DIR/half.part"
"""


def test_a_run_delivers_its_files_and_its_manifest(bench: Bench, bucket: Bucket) -> None:
    """Files with any decent name arrive with their bytes, and the manifest tells their hashes."""
    bench.with_browser()
    bench.release("v1.0.0", TWO, {"first.sh": FIRST})
    ran = bench.run(code=0)
    assert ran.outcome["status"] == "succeeded"
    run = sound(bucket, ran.run_id)
    assert run.files == {
        "first/deep/er/ö 日本 (1) #x%41+?&.txt": b"one",
        "first/empty": b"",
        "second/two.txt": b"two\n",
    }
    assert (run.status, {*run.statuses.values()}) == ("succeeded", {"succeeded"})
    assert run.log[0]["event"] == "run.started"
    assert bench.spool == []


def test_a_clock_that_is_set_takes_no_time_from_the_jobs(tmp_path: Path) -> None:
    """A machine whose clock was a day behind until its network was up has its whole run before it."""
    places = Locations(tmp_path, tmp_path / "cache", tmp_path / "bucket")
    call = Call(Settings(), places, {}, Stop(), RunLogger(), NullProgress())
    context = RunContext.begin(call, Spool(tmp_path / "spool"), ())
    behind = context.began.model_copy(update={"started": context.began.started - timedelta(days=1)})
    left = replace(context, began=behind).seconds_left()
    assert call.settings.job_seconds - 60 < left <= call.settings.job_seconds
