"""Work is committed as it finishes: a machine that vanishes takes with it what was running, and nothing else."""

import shutil
import signal
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from tests.bucket.bucket import Bucket, Run
from tests.bucket.entries import leave_run
from tests.bucket.sound import Broken, File, Looker, all_sound, examine
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, finish, job

JOBS = job("quick", "echo done | tee $MAYFLY_OUTPUT_DIR/file > $MAYFLY_STATE_DIR/seen") + job(
    "slow", "echo half > $MAYFLY_OUTPUT_DIR/half; until [ -e GATE ]; do sleep 0.1; done"
)
DONE = sha256(b"done\n").hexdigest()


def release(bench: Bench) -> None:
    """Publish a release whose second job goes on until its gate is there."""
    bench.release("v1", JOBS.replace("GATE", str(bench.folder / "gate")))


def committed(bucket: Bucket, job: str = "quick") -> Run:
    """Wait until a job is committed, and return its run."""
    wait_until(lambda: any(job in run.told for run in bucket.runs.values()), what=f"{job}'s commit")
    return bucket.newest


def whole(bucket: Bucket, run: Run) -> None:
    """Assert that everything which a run has said of its job is there, and that it has not closed."""
    seen = Looker(bucket.objects).look()
    assert examine(seen, [File(run.id, "quick", "file", DONE)]) == Broken(vanished=1)
    assert (run.status, run.statuses) == ("running", {"quick": "succeeded"})
    assert run.told["quick"]["state"]["key"] in bucket.states("quick")


def test_a_machine_that_vanishes_with_its_disk_loses_what_was_running(
    bench: Bench, bucket: Bucket
) -> None:
    """A job is there while another goes on: package, state, output, and the log as far as it went."""
    release(bench)
    with bench.running():
        run = committed(bucket)
        whole(bucket, run)
        assert run.planned is not None
        assert (run.planned["count"], run.planned["jobs"]) == (2, ["quick", "slow"])
    shutil.rmtree(bench.state)
    run = bucket.run(run.id)
    whole(bucket, run)
    assert run.file("quick", "file") == b"done\n"
    events = [event["event"] for event in run.log]
    assert events[0] == "run.started"
    assert "job.started" in events
    (bench.folder / "gate").touch()
    bench.run(code=0)
    assert bucket.run(run.id).status == "running"  # home calls it lost after its deadline
    assert bucket.newest.statuses == {"quick": "succeeded", "slow": "succeeded"}


def test_a_run_on_a_fresh_disk_leaves_out_what_an_interrupted_one_committed(
    bench: Bench, bucket: Bucket
) -> None:
    """Within `limits.catch_up` it is an attempt at the same batch; its own jobs are the rest."""
    release(bench)
    with bench.running() as process:
        committed(bucket)
        process.send_signal(signal.SIGTERM)
        first = finish(process, code=7)
    shutil.rmtree(bench.state)
    (bench.folder / "gate").touch()
    ran = bench.run(code=0, limits__catch_up="6h")
    assert all_sound(bucket) == [first.run_id, ran.run_id]
    cut, rest = bucket.runs.values()
    assert (cut.batch, cut.status, rest.status) == (rest.batch, "interrupted", "succeeded")
    assert rest.statuses == {"slow": "succeeded"}
    assert rest.planned is not None
    assert rest.planned["left_out"] == [{"name": "quick", "reason": f"succeeded in {cut.id}"}]
    again = bench.run(limits__catch_up="6h")
    assert bucket.run(again.run_id).batch != cut.batch


def test_a_run_goes_on_with_one_that_was_lost(bench: Bench, bucket: Bucket) -> None:
    """Its machine never said a last word, and its deadline is over; one of yesterday is left alone."""
    release(bench)
    (bench.folder / "gate").touch()
    for hours, batches in ((30, 2), (3, 1)):
        shutil.rmtree(bucket.root, ignore_errors=True)
        began = datetime.now(UTC) - timedelta(hours=hours)
        lost = leave_run(bucket.objects, began, ["quick"], until="jobs")
        ran = bench.run(code=0, limits__catch_up="6h")
        assert len({run.batch for run in bucket.runs.values()}) == batches
        assert ("quick" in bucket.run(ran.run_id).told) is (batches == 2)
        assert bucket.run(lost.run).status == "running"
