"""How jobs end: badly, late, never, or not at all. The run goes on, and says what happened."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.run.bench import Bench

ENDS = """
    [[job]]
    name = "fails"
    command = ["sh", "-c", "echo half > $MAYFLY_OUTPUT_DIR/half.txt; echo no such luck >&2; exit 3"]

    [[job]]
    name = "asks-again"
    command = ["sh", "-c", "echo $MAYFLY_ATTEMPT > $MAYFLY_OUTPUT_DIR/n; test $MAYFLY_ATTEMPT = 2 || exit 75"]

    [[job]]
    name = "never-content"
    command = ["sh", "-c", "exit 75"]

    [[job]]
    name = "again"
    command = ["false"]
    retries = 1

    [[job]]
    name = "cannot-start"
    command = ["./broken"]

    [[job]]
    name = "killed"
    command = ["sh", "-c", "kill -SEGV $$"]

    [[job]]
    name = "empty"
    command = ["sh", "-c", "exit 0"]
    expect = { min_files = 1 }

    [[job]]
    name = "too-little"
    command = ["sh", "-c", "echo x > $MAYFLY_OUTPUT_DIR/x"]
    expect = { min_bytes = "1KiB" }
"""


def test_every_end_has_its_status_and_cause(bench: Bench, bucket: Bucket) -> None:
    """Each way to end has its own status, cause, attempts and words; exit code 75 gets one more attempt."""
    bench.repo.write("broken", "#!/no/such/interpreter\n", executable=True)
    bench.release("v1", ENDS)
    ran = bench.run(limits__jobs="16")
    assert (ran.code, ran.outcome["status"]) == (3, "partial"), ran.stderr
    manifest = sound(bucket, ran.run_id)
    seen = {
        job["name"]: (job["status"], job["cause"], len(job["attempts"])) for job in manifest.jobs
    }
    assert seen == {
        "fails": ("failed", "error", 1),
        "asks-again": ("succeeded", None, 2),
        "never-content": ("failed", "error", 2),
        "again": ("failed", "error", 2),
        "cannot-start": ("failed", "release", 1),
        "killed": ("failed", "error", 1),
        "empty": ("empty", "expectation", 1),
        "too-little": ("empty", "expectation", 1),
    }
    assert manifest.job("fails")["message"] == "exit code 3: no such luck"
    assert manifest.job("fails")["attempts"][0]["exit_code"] == 3
    assert manifest.job("killed")["attempts"][0]["signal"] == 11
    assert "could not be started" in manifest.job("cannot-start")["message"]
    assert "expected at least 1" in manifest.job("empty")["message"]
    assert manifest.results == {"fails/half.txt", "too-little/x", "asks-again/n"}
    assert manifest.printed("fails") == b"no such luck\n"


def test_when_no_job_succeeds_the_run_failed(bench: Bench, bucket: Bucket) -> None:
    """The exit code is 8, and the run is committed all the same."""
    bench.release("v1", '[[job]]\nname = "a"\ncommand = ["false"]\n')
    ran = bench.run()
    assert (ran.code, ran.outcome["status"]) == (8, "failed")
    assert sound(bucket, ran.run_id).status == "failed"


HANGS = """
    [[job]]
    name = "hangs"
    timeout = "4s"
    command = ["sleep", "300"]

    [[job]]
    name = "deaf"
    timeout = "4s"
    command = ["sh", "-c", "trap '' TERM; echo half > $MAYFLY_OUTPUT_DIR/half; while :; do sleep 0.1; done"]

    [[job]]
    name = "polite"
    timeout = "4s"
    command = ["sh", "-c", "trap 'echo whole > $MAYFLY_OUTPUT_DIR/whole; exit 0' TERM; while :; do sleep 0.1; done"]

    [[job]]
    name = "closes"
    timeout = "4s"
    command = ["sh", "-c", "exec >&- 2>&-; sleep 300"]
"""


def test_a_job_past_its_time_is_stopped(bench: Bench, bucket: Bucket) -> None:
    """SIGTERM at the limit, SIGKILL after the grace period; what was written is delivered."""
    bench.release("v1", HANGS)
    # Seconds in which a busy machine starts a shell, and lets it hear a signal.
    ran = bench.run(limits__grace="4s", limits__jobs="8")
    assert ran.code == 8, ran.stderr
    manifest = sound(bucket, ran.run_id)
    assert {job["status"] for job in manifest.jobs} == {"timed_out"}
    assert {job["cause"] for job in manifest.jobs} == {"timeout"}
    ends = {
        job["name"]: (job["attempts"][0].get("exit_code"), job["attempts"][0].get("signal"))
        for job in manifest.jobs
    }
    assert ends == {
        "hangs": (None, 15),
        "deaf": (None, 9),
        "polite": (0, None),
        "closes": (None, 15),
    }
    assert manifest.results == {"deaf/half", "polite/whole"}


FLOOD = """
    import os, re, sys
    for _ in range(100 * 2**20 // 2**16):
        os.write(2, LINE * (2**16 // len(LINE)))
    os.write(2, b"\\nthe end\\n")
    peak = re.search(r"VmHWM:\\s+(\\d+) kB", open(f"/proc/{os.getppid()}/status").read())
    open(os.environ["MAYFLY_OUTPUT_DIR"] + "/peak", "w").write(peak[1])
    sys.exit(1)
"""


@pytest.mark.parametrize("line", ["x\n", "x"])
def test_a_flood_on_stderr_is_bounded(bench: Bench, bucket: Bucket, line: str) -> None:
    """100 MB of output leave a log of the set size with its first and its last lines, in little memory."""
    flood = f"    LINE = {line.encode()!r}{FLOOD}"
    bench.release("v1", '[[job]]\nname = "a"\ncommand = ["python3", "a.py"]\n', {"a.py": flood})
    secrets = bench.folder / "secrets.env"
    secrets.touch(0o600)
    secrets.write_text("TOKEN=never-in-any-log\n")
    ran = bench.run(secrets__source=str(secrets))
    job = sound(bucket, ran.run_id).job("a")
    assert job["attempts"][0]["output_bytes"] > 99 * 2**20
    assert job["message"] == "exit code 1: the end"
    run = bucket.run(ran.run_id)
    captured = run.printed("a")
    assert len(captured) < 4.1 * 2**20
    assert captured.startswith(line.encode() * 10)
    assert captured.endswith(b"the end\n")
    assert b"bytes left out" in captured
    assert len(json.dumps(run.log)) < 2 * 2**20
    assert int(run.files["a/peak"]) < 200_000, "kB of the agent"


CHILDREN = """
    exec 2>/dev/null
    sleep 297 & echo $! >> "$MAYFLY_OUTPUT_DIR/pids"
    setsid sleep 298 & echo $! >> "$MAYFLY_OUTPUT_DIR/pids"
    (setsid sh -c 'sleep 299 & echo $! >> "$MAYFLY_OUTPUT_DIR/pids"; exit' &)
    (env -i "PATH=$PATH" "OUT=$MAYFLY_OUTPUT_DIR" setsid sh -c 'echo $$ >> "$OUT/pids"; exec sleep 300' &)
    (nohup setsid sh -c 'trap "" TERM HUP INT; echo $$ >> "$MAYFLY_OUTPUT_DIR/pids"; while :; do sleep 1; done' &)
    while test "$(wc -l < "$MAYFLY_OUTPUT_DIR/pids")" != 5; do sleep 0.05; done
"""


@pytest.mark.parametrize(("ending", "timeout"), [("exit 0", "1m"), ("sleep 300", "5s")])
def test_nothing_that_a_job_started_survives_the_run(
    bench: Bench, bucket: Bucket, ending: str, timeout: str
) -> None:
    """Children in the background, in sessions of their own, orphaned, and without any environment are gone."""
    jobs = f'[[job]]\nname = "a"\ncommand = ["sh", "a.sh"]\ntimeout = "{timeout}"\n'
    bench.release("v1", jobs, {"a.sh": CHILDREN + ending + "\n"})
    ran = bench.run(limits__grace="1s")
    assert ran.code == (0 if ending == "exit 0" else 8), ran.stderr
    pids = [int(line) for line in bucket.run(ran.run_id).files["a/pids"].split()]
    assert len(pids) == 5
    assert [pid for pid in pids if _alive(pid)] == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


MEMORY = """
    [[job]]
    name = "greedy"
    memory = "100MiB"
    command = ["python3", "-c", "x = bytearray(300 * 2**20)"]

    [[job]]
    name = "modest"
    memory = "100MiB"
    command = ["python3", "-c", "x = bytearray(30 * 2**20)"]
"""


def test_a_memory_limit_is_kept(bench: Bench) -> None:
    """A job that wants more than its limit fails with the cause `out_of_memory`; one below it does not notice."""
    bench.release("v1", MEMORY)
    ran = bench.run()
    assert (ran.job("greedy")["status"], ran.job("greedy")["cause"]) == ("failed", "out_of_memory")
    assert ran.job("modest")["status"] == "succeeded"


LATE = """
    [[job]]
    name = "long"
    command = ["sh", "-c", "echo $MAYFLY_DEADLINE > $MAYFLY_OUTPUT_DIR/deadline; sleep 300"]

    [[job]]
    name = "waits"
    command = ["true"]
"""


def test_the_run_s_limit_stops_its_jobs_in_time_for_the_hand_off(
    bench: Bench, bucket: Bucket
) -> None:
    """Jobs end when three quarters of the run are over; what has not begun by then is skipped, not forgotten."""
    bench.release("v1", LATE)
    began = time.time()
    ran = bench.run(limits__run="12s", limits__jobs="1", limits__grace="1s")
    manifest = sound(bucket, ran.run_id)
    assert (ran.code, manifest.job("long")["status"]) == (8, "timed_out")
    waits = manifest.job("waits")
    assert (waits["status"], waits["cause"]) == ("skipped", "timeout")
    assert "the run's time was over" in waits["message"]
    deadline = int(bucket.run(ran.run_id).files["long/deadline"])
    assert began + 8 <= deadline <= time.time()


SYSTEMD_RUN = """#!/bin/sh
while [ "$1" != "--" ]; do shift; done
shift
echo $$ > {pid}
exec "$@"
"""
SYSTEMCTL = """#!/bin/sh
case "$1" in
kill) kill "-${{2#--signal=SIG}}" "$(cat {pid})" ;;
stop) kill -KILL "$(cat {pid})" ;;
esac
exit 1
"""


FORGOTTEN = """
    [[job]]
    name = "slow"
    command = ["sleep", "60"]
    timeout = "1s"

    [[job]]
    name = "brief"
    command = ["sh", "-c", "exit 3"]
"""


def test_what_a_job_did_is_told_although_systemd_has_forgotten_how_it_ended(
    bench: Bench, bucket: Bucket
) -> None:
    """One was ended for its limit, and one ended by itself: neither is one that could not be started."""
    tools, pid = bench.folder / "tools", bench.folder / "pid"
    tools.mkdir()
    for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
        (tools / name).write_text(text.format(pid=pid))
        (tools / name).chmod(0o755)
    bench.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    bench.release("v1", FORGOTTEN)
    found = bucket.run(bench.run(limits__isolation="systemd", limits__jobs="1").run_id)
    job = found.job("slow")
    assert (job["status"], job["cause"]) == ("timed_out", "timeout")
    assert job["message"] == "still running after 1.0s"
    job = found.job("brief")
    assert (job["status"], job["cause"]) == ("failed", "error")
    assert job["message"] == "it ran, and systemd has forgotten how it ended"
