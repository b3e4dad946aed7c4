"""Runs that are told to stop, and runs that are killed: what was finished arrives once, under the run's own id."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest

from agent.base.processes import marked
from tests.bucket.bucket import Bucket, Run
from tests.bucket.layout import ENTRIES, LOG, MANIFEST, RUNS, STATES
from tests.bucket.objects import PREFIX
from tests.bucket.sound import all_sound, sound
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import BlackHole, Delay, Fault, LoseAnswer, Throttle
from tests.parts.stalled import silent
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE, Bench, finish

JOBS = """
    [[job]]
    name = "quick"
    command = ["sh", "-c", "echo done > $MAYFLY_OUTPUT_DIR/file; echo 1 > $MAYFLY_STATE_DIR/seen"]

    [[job]]
    name = "slow"
    command = ["sh", "slow.sh"]

    [[job]]
    name = "later"
    needs = ["slow"]
    command = ["true"]
"""
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
    """Exit code 7: finished jobs are there, the one that ran is partial, the others are listed, who asked is named."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    with bench.running() as process:
        _under_way(bench)
        began = time.monotonic()
        process.send_signal(number)
        ran = finish(process)
    assert time.monotonic() - began < 20
    assert (ran.code, ran.outcome["status"]) == (7, "interrupted"), ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert manifest.record["interruption"] == number.name
    assert {job["name"]: job["status"] for job in manifest.jobs} == {
        "quick": "succeeded",
        "slow": "interrupted",
        "later": "interrupted",
    }
    assert manifest.results == {"quick/file", "slow/half"}
    assert bench.spool == []
    assert marked(f"MAYFLY_RUN_ID={ran.run_id}") == []


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
    driver = folder / "chromedriver"
    driver.write_text(
        f'#!/bin/sh\nmkdir {folder}/once && exec {real} "$@"\nexec sleep 300\n', "utf-8"
    )
    driver.chmod(0o755)
    bench.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    job = '[[job]]\nname = "a"\ncommand = ["python3", "a.py"]\nbrowser = true\nretries = 1'
    bench.release("v1", job, {"a.py": KILLS_THE_BROWSER})
    with bench.running(limits__isolation="process") as process:
        bench.log.wait_for("job.started", attempt=2)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert time.monotonic() - began < 20
    assert (ran.code, ran.job("a")["status"]) == (7, "interrupted"), ran.stderr
    sound(bucket, ran.run_id)


def test_a_run_that_is_told_to_stop_while_it_fetches_is_committed(
    bench: Bench, bucket: Bucket
) -> None:
    """There is no release yet, and no job; that it began and was stopped is known at home all the same."""
    with (
        silent() as address,
        bench.running(release__repository=f"http://{address}/scrapers.git") as process,
    ):
        bench.log.wait_for("run.started")
        process.send_signal(signal.SIGTERM)
        ran = finish(process)
    assert ran.code == 7, ran.stderr
    record = sound(bucket, ran.run_id).record
    assert (record["status"], record["release"], record["interruption"]) == (
        "interrupted",
        None,
        "SIGTERM",
    )


def test_told_twice_it_leaves_the_hand_off_to_the_next_run(bench: Bench, bucket: Bucket) -> None:
    """A second Ctrl-C ends it at once with exit code 6; the next run hands over what was finished."""
    deaf = "trap '' TERM\n" + SLOW.replace("    wait", "    while :; do sleep 1; done")
    bench.release("v1", JOBS, {"slow.sh": deaf})
    with bench.running(limits__grace="60s") as process:
        _under_way(bench)
        process.send_signal(signal.SIGINT)
        bench.log.wait_for("run.signal")
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        ran = finish(process)
    assert time.monotonic() - began < 20
    assert ran.code == 6, ran.stderr
    (left,) = bench.spool
    assert marked(f"MAYFLY_RUN_ID={left.name}") == []
    assert bucket.entries() == []
    bench.release("v2", '[[job]]\nname = "b"\ncommand = ["true"]\n')
    again = bench.run()
    assert again.code == 0, again.stderr
    assert all_sound(bucket) == [left.name, again.run_id]
    manifest = bucket.run(left.name)
    assert manifest.record["status"] == "interrupted"
    assert manifest.results == {"quick/file", "slow/half"}


def _recovered(bench: Bench, bucket: Bucket, dead: str, *, sealed: bool = False) -> Run:
    """Let the next run come and deliver the dead one; return its manifest, which was sealed before it died, or not."""
    bench.release("v9", '[[job]]\nname = "b"\ncommand = ["true"]\n')
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert all_sound(bucket) == [dead, ran.run_id]
    assert bench.spool == []
    assert marked(f"MAYFLY_RUN_ID={dead}") == []
    manifest = bucket.run(dead)
    assert manifest.record["recovered"] == (None if sealed else ran.run_id)
    return manifest


def _kill(process: "subprocess.Popen[str]") -> None:
    """What a power cut, the kernel or a spot instance's end does."""
    assert process.poll() is None
    process.kill()
    process.wait(30)


def test_killed_while_it_fetches(bench: Bench, bucket: Bucket) -> None:
    """A run without a release is handed over as interrupted, with no jobs."""
    with (
        silent() as address,
        bench.running(release__repository=f"http://{address}/scrapers.git") as process,
    ):
        bench.log.wait_for("run.started")
        time.sleep(0.3)  # git waits for an answer by then
        _kill(process)
    manifest = _recovered(bench, bucket, bench.spool[0].name)
    assert manifest.record["status"] == "interrupted"
    assert manifest.jobs == []


def test_killed_while_the_browser_starts(bench: Bench, bucket: Bucket) -> None:
    """No chromedriver and no browser of the dead run is left, and its jobs are listed as not begun."""
    bench.with_browser()
    bench.release("v1", '[[job]]\nname = "a"\nbrowser = true\ncommand = ["true"]\n')
    with bench.running() as process:
        bench.log.wait_for("browser.starting")
        dead = bench.spool[0].name
        wait_until(lambda: marked(f"MAYFLY_RUN_ID={dead}"), what="a process of the browser")
        wait_until(
            lambda: json.loads((bench.spool[0] / "run.json").read_bytes())["planned"],
            what="the plan",
        )
        _kill(process)
    bench.settings["browser.url"] = NOWHERE
    job = _recovered(bench, bucket, dead).job("a")
    assert (job["status"], job["cause"]) == ("interrupted", "interrupted")
    assert "before it started" in job["message"]


@pytest.mark.parametrize("early", [False, True])
def test_killed_while_jobs_run(bench: Bench, bucket: Bucket, early: bool) -> None:
    """Before or after early uploads: the finished job's files arrive as such, the other's as partial."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    with bench.running() as process:
        _under_way(bench)
        if early:
            wait_until(
                lambda: any("slow/half" in bucket.paths(run) for run in bucket.begun()),
                what="an early upload",
            )
        dead = bench.spool[0].name
        _kill(process)
    assert marked(f"MAYFLY_RUN_ID={dead}") != []
    manifest = _recovered(bench, bucket, dead)
    assert manifest.results == {"quick/file", "slow/half"}
    assert manifest.record["status"] == "interrupted"
    assert "while it ran" in manifest.job("slow")["message"]
    assert "before it started" in manifest.job("later")["message"]
    assert manifest.job("quick")["state"] in bucket.states("quick")


def test_killed_again_and_again(bench: Bench, bucket: Bucket) -> None:
    """Runs that died one after the other are handed over oldest first by the first one that lives."""
    bench.release("v1", JOBS, {"slow.sh": SLOW})
    dead = []
    for _ in range(2):
        with bench.running(store__url="s3://nowhere", store__endpoint=NOWHERE) as process:
            _under_way(bench)
            dead.append(bench.spool[-1].name)
            _kill(process)
    bench.release("v2", '[[job]]\nname = "b"\ncommand = ["true"]\n')
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert all_sound(bucket) == [*dead, ran.run_id]


HAND_OFF = """
    [[job]]
    name = "a"
    command = ["sh", "a.sh"]
"""
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
    s3_proxy.inject(BlackHole(), method="PUT", path="/slow/half")
    with bench.running() as process:
        wait_until(lambda: s3_proxy.count("PUT", "/slow/half") > 0, what="an early upload")
        dead = bench.spool[0].name
        _kill(process)
    s3_proxy.heal()
    manifest = _recovered(bench, bucket_on_s3, dead)
    assert manifest.results == {"quick/file", "slow/half"}


@pytest.mark.parametrize(
    ("fault", "request_"),
    [
        (BlackHole(), "PUT /a/4"),
        (Throttle(400_000), "PUT /a/big"),
        (BlackHole(), f"HEAD /{STATES}"),
        (BlackHole(), f"PUT /{LOG}"),
        (BlackHole(), f"GET prefix={quote_plus(PREFIX)}%2F{RUNS[:-1]}"),
        (BlackHole(), f"PUT /{MANIFEST}"),
        (BlackHole(), f"PUT /{ENTRIES}"),
        (LoseAnswer(), f"PUT /{ENTRIES}"),
    ],
    ids=lambda value: str(value).partition("(")[0],
)
def test_killed_at_a_point_of_the_hand_off(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy, fault: Fault, request_: str
) -> None:
    """Wherever it was, the next run hands over the rest: all files, one manifest, one index entry."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    method, path = request_.split()
    s3_proxy.inject(fault, method=method, path=path)
    with bench.running() as process:
        wait_until(lambda: bool(bench.spool), what="a run")
        dead = bench.spool[0].name
        if isinstance(fault, Throttle):
            bench.log.wait_for("run.concluded")
            time.sleep(1)  # some of the files are under way by then
        else:
            wait_until(lambda: s3_proxy.count(method, path) > 0, what=f"{method} {path}")
        _kill(process)
    s3_proxy.heal()
    sealed = path in {f"/{MANIFEST}", f"/{ENTRIES}"}
    manifest = _recovered(bench, bucket_on_s3, dead, sealed=sealed)
    assert manifest.record["status"] == "succeeded"
    assert set(manifest.results) == {f"a/{name}" for name in (*"123456", "big")}
    assert any(dead in key for key in bucket_on_s3.states())


def test_killed_right_after_the_commit(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """The next run finds the entry, adds none, and forgets the run."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    s3_proxy.inject(BlackHole(), method="GET", path=f"/{ENTRIES}2")
    with bench.running() as process:
        wait_until(lambda: s3_proxy.count("PUT", f"/{ENTRIES}") > 0, what="the commit")
        dead = bench.spool[0].name
        _kill(process)
    assert list(bucket_on_s3.committed()) == [dead]
    s3_proxy.heal()
    bench.release("v9", '[[job]]\nname = "b"\ncommand = ["true"]\n')
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert all_sound(bucket_on_s3) == [dead, ran.run_id]
    assert bucket_on_s3.run(dead).record["recovered"] is None
    assert bench.spool == []


@pytest.mark.long
def test_a_slow_store_and_random_kills(
    bench: Bench, bucket_on_s3: Bucket, s3_proxy: FaultProxy
) -> None:
    """Runs killed at four times, each delivering some of those before: every one arrives once, and sound."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    s3_proxy.inject(Delay(0.05))
    begun: list[str] = []
    for seconds in (0.8, 1.2, 1.6, 2.0):
        with bench.running() as process:
            time.sleep(seconds)  # the moment is what is tried
            begun += [path.name for path in bench.spool if path.name not in begun]
            process.kill()
            process.wait(30)
    s3_proxy.heal()
    ran = bench.run()
    assert ran.code == 0, ran.stderr
    assert sorted(all_sound(bucket_on_s3)) == sorted({*begun, ran.run_id})
    assert bench.spool == []
    assert list((bench.state / "spool").iterdir()) == []


def _no_manifest(run: Path) -> None:
    journal = json.loads((run / "run.json").read_bytes())
    (run / "run.json").write_text(json.dumps(journal | {"concluded": True, "sealed": True}))


def _empty_manifest(run: Path) -> None:
    _no_manifest(run)
    (run / "datapackage.json").touch()
    (run / "index.json").write_bytes(b"\0" * 100)


def _another_manifest(run: Path) -> None:
    _no_manifest(run)
    reference = {"key": f"runs/{run.name}/datapackage.json", "bytes": 2, "sha256": "0" * 64}
    now = "2026-11-22T06:00:00Z"
    entry: dict[str, Any] = {"run_id": run.name, "status": "succeeded", "jobs": []}
    entry |= {"started": now, "finished": now, "files": 0, "bytes": 0, "manifest": reference}
    (run / "datapackage.json").write_text("{}")
    (run / "index.json").write_text(json.dumps(entry))


def _no_table(run: Path) -> None:
    for file in run.glob("sent.sqlite*"):
        file.unlink()
    (run / "sent.sqlite").mkdir()


def _no_journal(run: Path) -> None:
    """It was put aside once before, and came back from a backup."""
    (run / "run.json").write_bytes(b"\0" * 100)
    (run.parent / "broken" / run.name).mkdir(parents=True)
    (run.parent / "broken" / run.name / "kept").touch()


@pytest.mark.parametrize(
    "damage",
    [_no_manifest, _empty_manifest, _another_manifest, _no_table, _no_journal],
    ids=lambda damage: damage.__name__.strip("_"),
)
def test_a_damaged_run_does_not_keep_others_from_the_bucket(
    bench: Bench, bucket: Bucket, damage: Callable[[Path], None]
) -> None:
    """It is put aside whole, and the run that found it says so; what waited behind it arrives."""
    bench.release("v1", HAND_OFF, {"a.sh": MANY})
    waiting = []
    store, bench.store = bench.store, "file:///dev/null/nowhere"
    for _ in range(2):
        ran = bench.run()
        assert ran.code == 6, ran.stderr
        waiting.append(ran.run_id)
    bench.store = store
    damage(bench.state / "spool" / waiting[0])
    found = bench.run()
    assert found.code == 0, found.stderr
    assert all_sound(bucket) == [waiting[1], found.run_id]
    (warning,) = _warnings_of(bucket, found.run_id, waiting[0])
    (told,) = found.events("spool.put_aside")
    assert told["of"] == waiting[0]
    assert told["folder"] in warning
    assert len(list(Path(told["folder"], "jobs").rglob("big"))) == 1
    again = bench.run()
    assert again.code == 0, again.stderr
    assert _warnings_of(bucket, again.run_id, waiting[0]) == []


def _warnings_of(bucket: Bucket, run: str, about: str) -> list[str]:
    warnings: list[str] = bucket.run(run).record["warnings"]
    return [warning for warning in warnings if about in warning]
