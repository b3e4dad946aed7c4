"""Runs that are told to stop, and runs that are killed: what was finished arrives once, under the run's own id."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote_plus

import pytest

from agent.base.processes import marked
from tests.bucket.bucket import Bucket, Run
from tests.bucket.layout import DESCRIPTOR, RUNS, STATES, file_key
from tests.bucket.objects import PREFIX
from tests.bucket.sound import all_sound, sound
from tests.parts.command import script
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import BlackHole, Delay, Fault, LoseAnswer, Throttle
from tests.parts.stalled import silent
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE, Bench, finish, job

QUICK = "echo done > $MAYFLY_OUTPUT_DIR/file; echo 1 > $MAYFLY_STATE_DIR/seen"
JOBS = job("quick", QUICK) + job("slow", ["sh", "slow.sh"]) + job("later", "true", needs=["slow"])
SLOW = """
    echo half > "$MAYFLY_OUTPUT_DIR/half"
    echo x > "$MAYFLY_OUTPUT_DIR/unfinished.part"
    sleep 300 &
    setsid sleep 300 &
    echo waiting
    wait
"""


def _under_way(bench: Bench) -> None:
    """Wait until the quick job has ended and the slow one has written its file."""
    bench.log.wait_for("job.ended", job="quick")
    bench.log.wait_for("job.output", line="waiting")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_stop_hands_over_what_it_has(
    bench: Bench, bucket: Bucket, number: signal.Signals
) -> None:
    """Exit code 7: finished jobs are there, the one that ran is interrupted, others are listed, who asked is named."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    with bench.running() as process:
        _under_way(bench)
        process.send_signal(number)
        ran = finish(process, code=7)
    assert ran.outcome["status"] == "interrupted"
    run = sound(bucket, ran.run_id)
    assert (run.status, run.record["interruption"]) == ("interrupted", number.name)
    assert run.statuses == {"quick": "succeeded", "slow": "interrupted", "later": "skipped"}
    assert run.job("later")["cause"] == "interrupted"
    assert run.results == {"quick/file", "slow/half"}
    assert bench.spool == []
    assert marked(f"MAYFLY_RUN_ID={ran.run_id}") == []


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_run_that_was_started_to_outlive_its_terminal_does(
    bench: Bench, number: signal.Signals
) -> None:
    """As `nohup mayfly run &` starts it: the signal was ignored before, and stays so."""
    bench.release("v1", job("only", "echo waiting; sleep 3"))
    ignoring = f"trap '' {number.name.removeprefix('SIG')}; exec \"$@\""
    with bench.started(["sh", "-c", ignoring, "sh", *bench.command()]) as process:
        bench.log.wait_for("job.output", line="waiting")
        process.send_signal(number)
        finish(process, code=0)


KILLS_THE_BROWSER = """
    import os, signal, sys, time
    from pathlib import Path
    if os.environ["MAYFLY_ATTEMPT"] == "1":
        mine = f"MAYFLY_RUN_ID={os.environ['MAYFLY_RUN_ID']}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(process / "exe").endswith("chromedriver") and mine in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:
                continue
        sys.exit(1)
    time.sleep(300)
"""


def test_a_job_that_waits_for_its_browser_hears_that_the_run_is_told_to_stop(
    bench: Bench, bucket: Bucket
) -> None:
    """A driver that was killed comes back slowly: of the two minutes of a spot notice none is spent on it."""
    bench.with_browser()
    real = shutil.which("chromedriver")
    folder = bench.folder / "bin"
    folder.mkdir()
    once = f'#!/bin/sh\nmkdir {folder}/once && exec {real} "$@"\nexec sleep 300\n'
    script(folder / "chromedriver", once)
    bench.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    a = job("a", ["python3", "a.py"], browser=True, retries=1)
    bench.release("v1", a, {"a.py": KILLS_THE_BROWSER})
    # Longer than `finish` waits.
    with bench.running(limits__isolation="process", browser__timeout="10m") as process:
        bench.log.wait_for("job.started", attempt=2)
        process.send_signal(signal.SIGTERM)
        ran = finish(process, code=7)
    assert ran.job("a")["status"] == "interrupted"
    sound(bucket, ran.run_id)


@contextmanager
def _without_a_release(bench: Bench) -> Iterator["subprocess.Popen[str]"]:
    """A run whose release never comes."""
    with (
        silent() as address,
        bench.running(release__repository=f"http://{address}/scrapers.git") as process,
    ):
        yield process


def test_a_run_that_is_told_to_stop_while_it_fetches_is_committed(
    bench: Bench, bucket: Bucket
) -> None:
    """There is no release yet, and no job; that it began and was stopped is known at home all the same."""
    with _without_a_release(bench) as process:
        bench.log.wait_for("run.started")
        process.send_signal(signal.SIGTERM)
        ran = finish(process, code=7)
    record = sound(bucket, ran.run_id).record
    told = (record["status"], record["release"], record["interruption"])
    assert told == ("interrupted", None, "SIGTERM")


def test_a_run_that_waits_for_its_secrets_hears_that_it_is_told_to_stop(
    bench: Bench, bucket: Bucket
) -> None:
    """Their source is asked for two minutes: of those of a spot notice none is spent on it."""
    bench.release("v1", job("only", "true", secrets=["TOKEN"]))
    bench.settings |= {"secrets.source": "ssm:/mayfly/jobs"}
    with silent() as address:
        keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "eu-north-1"}
        bench.environ |= {**keys, "AWS_ENDPOINT_URL_SSM": f"http://{address}"}
        with bench.running() as process:
            bench.log.wait_for("batch.claimed")
            time.sleep(2)
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            ran = finish(process, code=7)
    assert time.monotonic() - began < 20
    assert ran.job("only")["cause"] == "interrupted"
    sound(bucket, ran.run_id)


def test_told_twice_it_leaves_the_hand_off_to_the_next_run(bench: Bench, bucket: Bucket) -> None:
    """A second Ctrl-C ends it at once with exit code 6; the next run hands over what was finished."""
    deaf = "trap '' TERM\n" + SLOW.replace("    wait", "    while :; do sleep 1; done")
    bench.release("v1", JOBS, {"slow.sh": deaf})
    # Longer than `finish` waits.
    with bench.running(limits__grace="10m") as process:
        _under_way(bench)
        process.send_signal(signal.SIGINT)
        bench.log.wait_for("run.signal")
        process.send_signal(signal.SIGINT)
        finish(process, code=6)
    (left,) = bench.spool
    assert marked(f"MAYFLY_RUN_ID={left.name}") == []
    assert bucket.run(left.name).status == "running"
    run = _recovered(bench, bucket, left.name)
    assert run.status == "interrupted"
    assert run.results == {"quick/file", "slow/half"}


def _recovered(bench: Bench, bucket: Bucket, dead: str, *, sealed: bool = False) -> Run:
    """Let the next run close the dead one, whose end was sealed before it died, or not; return the dead one."""
    bench.release("v9", job("b", "true"))
    ran = bench.run(code=0)
    assert all_sound(bucket) == [dead, ran.run_id]
    assert bench.spool == []
    assert marked(f"MAYFLY_RUN_ID={dead}") == []
    run = bucket.run(dead)
    assert run.closed is not None
    assert run.closed.get("recovered_by") == (None if sealed else ran.run_id)
    return run


def _kill(process: "subprocess.Popen[str]") -> None:
    """What a power cut, the kernel or a spot instance's end does."""
    assert process.poll() is None
    process.kill()
    process.wait(30)


def test_killed_while_it_fetches_and_the_browser_starts(bench: Bench, bucket: Bucket) -> None:
    """A run without a release is handed over as interrupted, with no jobs; its chromedriver and browser are gone."""
    bench.with_browser()
    with _without_a_release(bench) as process:
        bench.log.wait_for("browser.starting")
        # A run that died before it is nobody's: the next one forgets it.
        bench.log.wait_for("batch.begun")
        dead = bench.spool[0].name
        wait_until(lambda: marked(f"MAYFLY_RUN_ID={dead}"), what="a process of the browser")
        time.sleep(0.3)  # git waits for an answer by then
        _kill(process)
    bench.settings["browser.url"] = NOWHERE
    run = _recovered(bench, bucket, dead)
    assert (run.status, run.told) == ("interrupted", {})


def test_killed_while_jobs_run(bench: Bench, bucket: Bucket) -> None:
    """After early uploads, too, what had ended is as it was; what ran is interrupted, with the files it had."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    with bench.running() as process:
        _under_way(bench)
        dead = bench.spool[0].name
        early = file_key(dead, "slow", "half")
        wait_until(lambda: bucket.objects.keys(early), what="an early upload")
        _kill(process)
    assert marked(f"MAYFLY_RUN_ID={dead}") != []
    run = _recovered(bench, bucket, dead)
    assert run.results == {"quick/file", "slow/half"}
    assert (run.status, run.statuses) == (
        "interrupted",
        {"quick": "succeeded", "slow": "interrupted"},
    )
    assert "while it ran" in run.job("slow")["message"]
    assert run.job("quick")["state"]["key"] in bucket.states("quick")


def test_killed_again_and_again(bench: Bench, bucket: Bucket) -> None:
    """Runs that died before anything was sent are handed over oldest first by the first one that lives."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    dead = []
    for _ in range(2):
        with bench.running(store__url="s3://nowhere", store__endpoint=NOWHERE) as process:
            _under_way(bench)
            dead.append(bench.spool[-1].name)
            _kill(process)
    bench.release("v2", job("b", "true"))
    ran = bench.run(code=0)
    assert all_sound(bucket) == [*dead, ran.run_id]
    assert all(bucket.run(run).results == {"quick/file", "slow/half"} for run in dead)


HAND_OFF = job("a", ["sh", "a.sh"])
MANY = """
    cd "$MAYFLY_OUTPUT_DIR"
    echo x | tee 1 2 3 4 5 6 "$MAYFLY_STATE_DIR/seen"
    head -c 3000000 /dev/zero > big
"""


def test_killed_during_an_early_upload(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """A file that was on its way while its job still ran arrives with the rest."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    s3_proxy.inject(BlackHole(), method="PUT", path="/slow/files/half")
    with bench.running() as process:
        wait_until(lambda: s3_proxy.count("PUT", "/slow/files/half") > 0, what="an early upload")
        dead = bench.spool[0].name
        _kill(process)
    s3_proxy.heal()
    assert _recovered(bench, bucket_on_s3, dead).results == {"quick/file", "slow/half"}


@pytest.mark.parametrize(
    ("fault", "request_", "ended"),
    [
        (BlackHole(), "PUT /index/", False),
        (BlackHole(), "PUT /batches/", False),
        (BlackHole(), "PUT /a/files/4", True),
        (Throttle(100_000), "PUT /a/files/big", True),
        (BlackHole(), f"PUT /{STATES}", True),
        (BlackHole(), f"GET prefix={quote_plus(PREFIX)}%2F{RUNS[:-1]}", True),
        (BlackHole(), f"PUT /jobs/a/{DESCRIPTOR}", True),
        (BlackHole(), "PUT .jobs.", True),
        (BlackHole(), "PUT .closed.", True),
        (LoseAnswer(), "PUT .closed.", True),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_killed_at_a_point_of_the_delivery(
    bench: Bench,
    bucket_on_s3: Bucket,
    s3_proxy: FaultProxy,
    fault: Fault,
    request_: str,
    *,
    ended: bool,
) -> None:
    """Wherever it was, the next run delivers the rest, and says the same again where something was said."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    method, path = request_.split()
    s3_proxy.inject(fault, times=1, method=method, path=path)
    # A run that is told the same again would be over before the kill, on a machine where this process waits for a core.
    s3_proxy.inject(BlackHole(), method=method, path=path)
    with bench.running() as process:
        wait_until(lambda: bool(bench.spool), what="a run")
        dead = bench.spool[0].name
        if isinstance(fault, Throttle):
            bench.log.wait_for("job.ended")
            time.sleep(1)  # some of the files are under way by then
        else:
            wait_until(lambda: s3_proxy.count(method, path) > 0, what=request_)
        _kill(process)
    s3_proxy.heal()
    run = _recovered(bench, bucket_on_s3, dead, sealed=path == ".closed.")
    if not ended:
        assert (run.status, run.told) == ("interrupted", {})
        return
    assert run.status == "succeeded"
    assert run.results == {f"a/{name}" for name in (*"123456", "big")}
    assert run.job("a")["state"]["key"] in bucket_on_s3.states()


@pytest.mark.long
def test_a_slow_store_and_random_kills(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Runs killed at four times, each delivering some of those before: every one that began arrives, and sound."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    s3_proxy.inject(Delay(0.05))
    started: set[str] = set()
    begun: set[str] = set()
    for seconds in (0.8, 1.2, 1.6, 2.0):
        with bench.running():
            time.sleep(seconds)  # the moment is what is tried
        started |= {event["run_id"] for event in bench.log.events("run.started")}
        begun |= {event["run_id"] for event in bench.log.events("batch.begun")}
    s3_proxy.heal()
    ran = bench.run(code=0)
    # One that died before it had a batch is nobody's; one that died between that and its log's line has one.
    assert begun | {ran.run_id} <= set(all_sound(bucket_on_s3)) <= started | {ran.run_id}
    assert bench.spool == []
    assert list((bench.state / "spool").iterdir()) == []


@pytest.mark.long
def test_a_damaged_run_does_not_keep_others_from_the_bucket(bench: Bench, bucket: Bucket) -> None:
    """It is put aside whole, and the run that found it says so; what waited behind it arrives."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    store, bench.store = bench.store, "file:///dev/null/nowhere"
    cut, unknown, whole = (bench.run(code=6).run_id for _ in range(3))
    bench.store = store
    spool = bench.state / "spool"
    database = spool / cut / "run.sqlite"
    database.write_bytes(database.read_bytes()[:6000])
    # It was put aside once before, and came back from a backup.
    (spool / unknown / "run.sqlite").write_bytes(b"\0" * 100)
    (spool / "broken" / unknown).mkdir(parents=True)
    (spool / "broken" / unknown / "kept").touch()
    found = bench.run(code=0)
    assert all_sound(bucket) == [whole, found.run_id]
    told = {event["of"]: event["folder"] for event in found.events("spool.put_aside")}
    assert told.keys() == {cut, unknown}
    for run, folder in told.items():
        (warning,) = _warnings_of(bucket, found.run_id, run)
        assert folder in warning
        assert len(list(Path(folder, "jobs").rglob("big"))) == 1
    again = bench.run(code=0)
    assert [_warnings_of(bucket, again.run_id, run) for run in told] == [[], []]


def _warnings_of(bucket: Bucket, run: str, about: str) -> list[str]:
    return [warning for warning in bucket.run(run).warnings if about in warning]
