"""kill -9 of the real `mayfly run` while it takes a new release: the old or the new one, never a mixture, never none.

`MAYFLY_TEST_SEEDS=20` for the whole matrix; a few seeds are enough for every day.
"""

import json
import os
import random
import signal
import time

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import all_sound
from tests.run.bench import Bench

SEEDS = range(int(os.environ.get("MAYFLY_TEST_SEEDS", "3")))
JOB = """
[[job]]
name = "only"
command = ["sh", "job.sh"]
"""
SCRIPT = 'sleep 0.3; cat a.txt b.txt > "$MAYFLY_OUTPUT_DIR/file"\n'


def release(bench: Bench, version: str, *, script: str = SCRIPT) -> str:
    """Publish a release whose two files say which it is."""
    files = {"job.sh": script, "a.txt": f"{version} ", "b.txt": f"{version}\n"}
    return bench.release(version, JOB, files)


def killed(bench: Bench, seconds: float) -> bool:
    """Start a run, kill it after a time, and tell whether it was still under way."""
    with bench.running() as process:
        time.sleep(seconds)  # the moment is what is tried
        process.send_signal(signal.SIGKILL)
        return process.wait(20) == -signal.SIGKILL


def wait_for_the_job(bench: Bench) -> None:
    """Return when the run that is under way has started its job."""
    bench.log.wait_for("job.started")


def good(bench: Bench) -> str:
    """Return the last good release's version, after a look that it is whole."""
    root = bench.good
    version = json.loads((root / "release.json").read_text())["ref"]
    assert (root / "tree" / "a.txt").read_text().strip() == version
    assert (root / "tree" / "b.txt").read_text().strip() == version
    return str(version)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("works", [True, False], ids=["good", "bad"])
def test_killed_at_any_time_of_an_update(
    bench: Bench, bucket: Bucket, seed: int, *, works: bool
) -> None:
    """After the kill the next run delivers the day's file, whole, of the one version or the other; then it settles."""
    release(bench, "v1.0")
    assert bench.run().code == 0
    usual = time.monotonic()
    assert bench.run().code == 0
    usual = time.monotonic() - usual
    release(bench, "v2.0", script=SCRIPT if works else "exit 3\n")
    killed(bench, random.Random(seed).uniform(0.1, 1.2) * usual)
    assert good(bench) in ({"v1.0", "v2.0"} if works else {"v1.0"})
    wanted = b"v2.0 v2.0\n" if works else b"v1.0 v1.0\n"
    ran = bench.run()
    assert ran.code == 0, ran.stderr[-3000:]
    assert bucket.run(ran.run_id).results == {"only/file"}
    assert bucket.run(ran.run_id).files["only/file"] == wanted
    assert good(bench) == ("v2.0" if works else "v1.0")
    assert bench.spool == []
    all_sound(bucket)


def test_a_release_that_takes_the_machine_down_is_left_after_three_times(
    bench: Bench, bucket: Bucket
) -> None:
    """Each time the trial was written down before; the fourth run takes the last good release, and says why."""
    release(bench, "v1.0")
    assert bench.run().code == 0
    release(bench, "v2.0", script="sleep 60\n")
    for _ in range(3):
        with bench.running() as process:
            wait_for_the_job(bench)
            process.send_signal(signal.SIGKILL)
            process.wait(20)
    ran = bench.run()
    assert ran.code == 0, ran.stderr[-3000:]
    record = bucket.run(ran.run_id).release
    assert record["ref"] == "v1.0"
    assert record["refused"][0]["kind"] == "trial"
    assert "started 3 times" in record["refused"][0]["reason"]
    assert bucket.run(ran.run_id).files["only/file"] == b"v1.0 v1.0\n"


def test_runs_that_end_in_order_do_not_count_against_a_release(
    bench: Bench, bucket: Bucket
) -> None:
    """A machine that is told to stop in the middle, again and again, finishes the trial when it is left alone."""
    release(bench, "v1.0")
    assert bench.run().code == 0
    release(bench, "v2.0", script=f"sleep 0.5\n{SCRIPT}")
    for _ in range(4):
        with bench.running() as process:
            wait_for_the_job(bench)
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    ran = bench.run()
    assert bucket.run(ran.run_id).release["ref"] == "v2.0"
