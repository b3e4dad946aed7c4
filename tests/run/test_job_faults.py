"""How jobs end: badly, late, never, or not at all. The run goes on, and says what happened."""

import json
import os
import re
import time
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.bucket.sound import sound
from tests.parts.command import script
from tests.run.bench import Bench, job

WRITES = "echo {text} > $MAYFLY_OUTPUT_DIR/{name}"
ENDS: dict[str, tuple[str | list[str], dict[str, object]]] = {
    "fails": (WRITES.format(text="half", name="half") + "; echo no such luck >&2; exit 3", {}),
    "asks-again": (
        WRITES.format(text="$MAYFLY_ATTEMPT", name="n") + "; test $MAYFLY_ATTEMPT = 2 || exit 75",
        {},
    ),
    "never-content": ("exit 75", {}),
    "again": ("false", {"retries": 1}),
    "cannot-start": (["./broken"], {}),
    "cannot-start-limited": (["./broken"], {"memory": "100MiB"}),
    "killed": ("kill -SEGV $$", {}),
    "empty": ("exit 0", {"expect": {"min_files": 1}}),
    "too-little": (WRITES.format(text="x", name="x"), {"expect": {"min_bytes": "1KiB"}}),
    "greedy": (["python3", "-c", "x = bytearray(300 * 2**20)"], {"memory": "100MiB"}),
    "modest": (["python3", "-c", "x = bytearray(30 * 2**20)"], {"memory": "100MiB"}),
    "limited-at-once": ("ulimit -d > $MAYFLY_OUTPUT_DIR/limit", {"memory": "100MiB"}),
}


def test_every_end_has_its_status_and_cause(bench: Bench, bucket: Bucket) -> None:
    """Each way to end has its own status, cause, attempts and words; exit code 75 gets one more attempt."""
    bench.repo.write("broken", "#!/no/such/interpreter\n", executable=True)
    bench.release("v1", "".join(job(name, how, **keys) for name, (how, keys) in ENDS.items()))
    ran = bench.run(code=3, limits__jobs="16")
    assert ran.outcome["status"] == "partial"
    run = sound(bucket, ran.run_id)
    seen = {job["name"]: (job["status"], job["cause"], len(job["attempts"])) for job in run.jobs}
    assert seen == {
        "fails": ("failed", "error", 1),
        "asks-again": ("succeeded", None, 2),
        "never-content": ("failed", "error", 2),
        "again": ("failed", "error", 2),
        "cannot-start": ("failed", "release", 1),
        "cannot-start-limited": ("failed", "release", 1),
        "killed": ("failed", "error", 1),
        "empty": ("empty", "expectation", 1),
        "too-little": ("empty", "expectation", 1),
        "greedy": ("failed", "out_of_memory", 1),
        "modest": ("succeeded", None, 1),
        "limited-at-once": ("succeeded", None, 1),
    }
    assert run.job("fails")["message"] == "exit code 3: no such luck"
    assert run.job("fails")["attempts"][0]["exit_code"] == 3
    assert run.job("killed")["attempts"][0]["signal"] == 11
    told = re.compile(r"\./broken could not be started: .*No such file or directory: '.*/broken'")
    for name in ("cannot-start", "cannot-start-limited"):
        assert told.fullmatch(run.job(name)["message"])
    assert "expected at least 1" in run.job("empty")["message"]
    assert run.results == {"fails/half", "too-little/x", "asks-again/n", "limited-at-once/limit"}
    assert run.files["limited-at-once/limit"] == b"102400\n", "KiB, before its first instruction"
    assert run.printed("fails") == b"no such luck\n"


FOREVER = "while :; do sleep 0.1; done"
HANGS: dict[str, tuple[str | list[str], tuple[int | None, int | None]]] = {
    "hangs": (["sleep", "300"], (None, 15)),
    "deaf": (f"trap '' TERM; echo half > $MAYFLY_OUTPUT_DIR/half; {FOREVER}", (None, 9)),
    "polite": (
        f"trap 'echo whole > $MAYFLY_OUTPUT_DIR/whole; exit 0' TERM; {FOREVER}",
        (0, None),
    ),
    "closes": ("exec >&- 2>&-; sleep 300", (None, 15)),
}
"""Jobs that do not end, and how they end at their limit: with which exit code or signal."""


def test_a_job_past_its_time_is_stopped(bench: Bench, bucket: Bucket) -> None:
    """SIGTERM at the limit, SIGKILL after the grace period; what was written is delivered; no success, no good run."""
    bench.release("v1", "".join(job(name, how, timeout="4s") for name, (how, _) in HANGS.items()))
    # Seconds in which a busy machine starts a shell, and lets it hear a signal.
    ran = bench.run(code=8, limits__grace="4s", limits__jobs="8")
    run = sound(bucket, ran.run_id)
    assert (ran.outcome["status"], run.status) == ("failed", "failed")
    assert {(job["status"], job["cause"]) for job in run.jobs} == {("timed_out", "timeout")}
    attempts = {job["name"]: job["attempts"][0] for job in run.jobs}
    ends = {name: (one.get("exit_code"), one.get("signal")) for name, one in attempts.items()}
    assert ends == {name: end for name, (_, end) in HANGS.items()}
    assert run.results == {"deaf/half", "polite/whole"}


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
    bench.release(
        "v1", job("a", ["python3", "a.py"]), {"a.py": f"    LINE = {line.encode()!r}{FLOOD}"}
    )
    bench.secrets("TOKEN=never-in-any-log\n")
    run = sound(bucket, bench.run().run_id)
    told = run.job("a")
    assert told["attempts"][0]["output_bytes"] > 99 * 2**20
    assert told["message"] == "exit code 1: the end"
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
    jobs = job("a", ["sh", "a.sh"], timeout=timeout)
    bench.release("v1", jobs, {"a.sh": CHILDREN + ending + "\n"})
    ran = bench.run(code=0 if ending == "exit 0" else 8, limits__grace="1s")
    pids = [int(line) for line in bucket.run(ran.run_id).files["a/pids"].split()]
    assert len(pids) == 5
    assert [pid for pid in pids if _alive(pid)] == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


LATE = "echo $MAYFLY_DEADLINE > $MAYFLY_OUTPUT_DIR/deadline; sleep 300"


def test_the_run_s_limit_stops_its_jobs_in_time_for_the_hand_off(
    bench: Bench, bucket: Bucket
) -> None:
    """Jobs end when three quarters of the run are over; what has not begun by then is skipped, not forgotten."""
    bench.release("v1", job("long", LATE) + job("waits", "true"))
    began = time.time()
    ran = bench.run(code=8, limits__run="12s", limits__jobs="1", limits__grace="1s")
    run = sound(bucket, ran.run_id)
    assert run.job("long")["status"] == "timed_out"
    waits = run.job("waits")
    assert (waits["status"], waits["cause"]) == ("skipped", "timeout")
    assert "the run's time was over" in waits["message"]
    assert began + 8 <= int(run.files["long/deadline"]) <= time.time()


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


def test_what_a_job_did_is_told_although_systemd_has_forgotten_how_it_ended(
    bench: Bench, bucket: Bucket
) -> None:
    """One was ended for its limit, and one ended by itself: neither is one that could not be started."""
    tools, pid = bench.folder / "tools", bench.folder / "pid"
    tools.mkdir()
    for name, text in (("systemd-run", SYSTEMD_RUN), ("systemctl", SYSTEMCTL)):
        script(tools / name, text.format(pid=pid))
    bench.environ["PATH"] = f"{tools}:{os.environ['PATH']}"
    bench.release("v1", job("slow", ["sleep", "60"], timeout="1s") + job("brief", "exit 3"))
    run = bucket.run(bench.run(limits__isolation="systemd", limits__jobs="1").run_id)
    told = {
        name: tuple(run.job(name)[key] for key in ("status", "cause", "message"))
        for name in ("slow", "brief")
    }
    forgotten = "it ran, and systemd has forgotten how it ended"
    assert told == {
        "slow": ("timed_out", "timeout", "still running after 1.0s"),
        "brief": ("failed", "error", forgotten),
    }


ORPHANS = """
cd $HOME; for n in 1 2 3; do (sh -c 'echo $$ >> pids' &); done
until [ $(wc -l <pids) = 3 ]; do sleep 0.05; done
for pid in $(cat pids); do while [ -d /proc/$pid ]; do sleep 0.05; done; done
"""


def test_orphans_that_have_ended_leave_the_process_table_at_once(bench: Bench) -> None:
    """The agent is their parent; a job of many would fill the table until the run's end."""
    bench.release("v1", job("forks", ORPHANS, timeout="20s"))
    bench.run(code=0, limits__isolation="process")
