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
from tests.run.bench import Bench, job

SEEDS = range(int(os.environ.get("MAYFLY_TEST_SEEDS", "3")))
JOB = job("only", ["sh", "job.sh"])
SCRIPT = 'sleep 0.3; cat a.txt b.txt > "$MAYFLY_OUTPUT_DIR/file"\n'


def release(bench: Bench, version: str, *, script: str = SCRIPT) -> str:
    """Publish a release whose two files say which it is."""
    files = {"job.sh": script, "a.txt": f"{version} ", "b.txt": f"{version}\n"}
    return bench.release(version, JOB, files)


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
    bench.run(code=0)
    usual = time.monotonic()
    bench.run(code=0)
    usual = time.monotonic() - usual
    release(bench, "v2.0", script=SCRIPT if works else "exit 3\n")
    with bench.running():
        time.sleep(random.Random(seed).uniform(0.1, 1.2) * usual)  # the moment is what is tried
    assert good(bench) in ({"v1.0", "v2.0"} if works else {"v1.0"})
    wanted = b"v2.0 v2.0\n" if works else b"v1.0 v1.0\n"
    ran = bench.run(code=0)
    assert bucket.run(ran.run_id).files == {"only/file": wanted}
    assert good(bench) == ("v2.0" if works else "v1.0")
    assert bench.spool == []
    all_sound(bucket)


def test_a_release_that_takes_the_machine_down_is_left_after_three_times(
    bench: Bench, bucket: Bucket
) -> None:
    """Each time the trial was written down before; runs that end in order, here on a signal, do not count."""
    release(bench, "v1.0")
    bench.run(code=0)
    release(bench, "v2.0", script="sleep 60\n")
    for number in (*[signal.SIGTERM] * 4, *[signal.SIGKILL] * 3):
        with bench.running() as process:
            bench.log.wait_for("job.started")
            process.send_signal(number)
            process.wait(60)
        wanted = [event["ref"] for event in bench.log.events("release.on_trial")]
        assert wanted == ["v2.0"], number
    run = bucket.run(bench.run(code=0).run_id)
    assert run.release["ref"] == "v1.0"
    assert run.release["refused"][0]["kind"] == "trial"
    assert "started 3 times" in run.release["refused"][0]["reason"]
    assert run.files["only/file"] == b"v1.0 v1.0\n"
