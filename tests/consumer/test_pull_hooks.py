"""`--exec`: once for each job of each run, again when it failed, and never for ever."""

import json
import shutil
import signal
import socket
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.consumer.pulling import NIGHTS, SMALL, installed, leave, pull_into, pulling
from tests.parts.ports import LOOPBACK
from tests.parts.waiting import wait_until


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder at home."""
    return tmp_path / "at home"


def calls(tmp_path: Path) -> list[str]:
    """What the hooks wrote, call by call."""
    path = tmp_path / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_a_hook_is_told_where_and_what(folder: Bucket, dest: Path, tmp_path: Path) -> None:
    """It runs when the job is in place, once, with everything in its environment.

    Its stdout goes to stderr: stdout is one JSON document.
    """
    run, log = leave(folder), tmp_path / "log"
    names = ["RUN_ID", "JOB", "PATH", "DEST", "STATUS", "PARTIAL", "FILES", "BYTES"]
    text = "|".join(f"$MAYFLY_{name}" for name in names)
    command = f'echo noise; ls "$MAYFLY_PATH"/* >/dev/null && echo "{text}" >> "{tmp_path}/calls"'
    with pulling(dest, folder.environ, "--exec", command, log=log) as process:
        assert process.wait(60) == 0
    hooks = json.loads(log.read_text())["hooks"]
    assert [(row["run"], row["job"]) for row in hooks] == [(run, "quotes"), (run, "notes")]
    assert log.with_suffix(".err").read_text().count("noise\n") == 2
    assert calls(tmp_path) == [
        f"{run}|quotes|{dest}/quotes/{run}|{dest}|succeeded|0|4|2304021",
        f"{run}|notes|{dest}/notes/{run}|{dest}|succeeded|0|1|8",
    ]
    assert pull_into(dest, folder, "--exec", command).rows("hooks") == []
    assert len(calls(tmp_path)) == 2


def test_a_failing_hook_is_told_and_called_again(
    folder: Bucket, dest: Path, tmp_path: Path
) -> None:
    """What failed is tried at the next pull, what succeeded is not, and a pull without --exec keeps what is owed."""
    run = leave(folder)
    fails = f'echo $MAYFLY_JOB >> "{tmp_path}/calls"; test $MAYFLY_JOB = notes || exit 9'
    pulled = pull_into(dest, folder, "--exec", fails)
    assert pulled.code == 3
    assert {row["job"]: row["problem"] for row in pulled.document["hooks"]} == {
        "quotes": "exit code 9",
        "notes": "",
    }
    assert pull_into(dest, folder).rows("hooks") == []
    assert pull_into(dest, folder, "--exec", "true", "--job", "notes").rows("hooks") == []
    assert (
        pull_into(dest, folder, "--run", run).code == 0
    )  # it is there, and its hook is still owed
    assert pull_into(dest, folder, "--exec", "true").rows("hooks") == [(run, "quotes")]
    assert calls(tmp_path) == ["quotes", "notes"]


def test_keep_never_removes_what_a_hook_has_not_taken(folder: Bucket, dest: Path) -> None:
    """A run whose hook failed outlives its turn."""
    runs = [leave(folder, night, SMALL) for night in NIGHTS[:3]]
    hook = f"test $MAYFLY_RUN_ID != {runs[0]}"
    options = ("--keep", "1", "--job", "quotes", "--exec")
    pull_into(dest, folder, *options, hook)
    assert installed(dest) == [(runs[0], "quotes"), (runs[2], "quotes")]
    pull_into(dest, folder, *options, "true")
    assert installed(dest) == [(runs[2], "quotes")]


def test_a_hook_for_what_a_person_removed_is_dropped(folder: Bucket, dest: Path) -> None:
    """There is nothing to call it with, and that is said once."""
    run = leave(folder, jobs=SMALL)
    pull_into(dest, folder, "--exec", "false")
    shutil.rmtree(dest / "quotes" / run)
    pulled = pull_into(dest, folder, "--exec", "true")
    assert (pulled.code, pulled.rows("hooks")) == (0, [])
    assert pulled.notes == [f"{run} quotes: removed before its hook succeeded"]
    assert pull_into(dest, folder, "--exec", "true").notes == []


def wait_for_end(pid: int) -> None:
    """Wait until a process has ended."""

    def has_ended() -> bool:
        try:
            status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        return status == "Z"

    wait_until(has_ended, what="the end of a process")


@pytest.mark.parametrize(
    ("end", "limit", "problem"),
    [("; wait", "3s", "it did not end within 3 s"), ("", "10m", "")],
    ids=["hangs", "ends"],
)
def test_a_hook_leaves_nothing_behind(
    folder: Bucket, dest: Path, tmp_path: Path, *, end: str, limit: str, problem: str
) -> None:
    """What it put into the background ends with it, or when its limit ends both."""
    leave(folder, jobs=SMALL)
    command = f'sleep 600 & echo $! >> "{tmp_path}/calls"{end}'
    pulled = pull_into(dest, folder, "--exec", command, "--exec-timeout", limit)
    assert [row["problem"] for row in pulled.document["hooks"]] == [problem]
    assert pulled.code == (3 if problem else 0)
    wait_for_end(int(calls(tmp_path)[0]))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_pull_ends_its_hook_and_owes_it(
    folder: Bucket, dest: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal ends the hook, the exit code says so, and the next pull calls it again; who waits has a report, too."""
    run = leave(folder, jobs=SMALL)
    command = f'echo $$ >> "{tmp_path}/calls"; exec sleep 600'
    with pulling(
        dest, folder.environ, "--exec", command, "--job", "quotes", log=tmp_path / "log"
    ) as process:
        wait_until(lambda: calls(tmp_path), what="the hook")
        waits, said = tmp_path / "waits", tmp_path / "waits.err"
        with pulling(dest, folder.environ, log=waits) as other:
            wait_until(lambda: "another pull" in said.read_text(), what="the other pull to wait")
            other.send_signal(number)
            assert other.wait(60) == 7
        told = json.loads(waits.read_text())
        assert (told["exit_code"], told["installed"]) == (7, [])
        process.send_signal(number)
        assert process.wait(60) == 7
    told = json.loads((tmp_path / "log").read_text())
    assert (told["exit_code"], [row["run"] for row in told["installed"]]) == (7, [run])
    wait_for_end(int(calls(tmp_path)[0]))
    again = pull_into(dest, folder, "--exec", "true", "--job", "quotes")
    assert (again.code, again.rows("hooks")) == (0, [(run, "quotes")])


def test_a_pull_that_is_stopped_while_the_bucket_is_silent_has_a_report(
    dest: Path, tmp_path: Path
) -> None:
    """It may wait for minutes for a store that took the question: whoever stops it then reads that nothing came."""
    store = {
        "MAYFLY_STORE_URL": "s3://any",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    with socket.create_server((LOOPBACK, 0)) as silent:
        silent.settimeout(60)
        store["MAYFLY_STORE_ENDPOINT"] = f"http://{LOOPBACK}:{silent.getsockname()[1]}"
        with pulling(dest, store, log=tmp_path / "log") as process:
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(60)
                assert connection.recv(65536).startswith(b"GET ")
                process.send_signal(signal.SIGTERM)
                assert process.wait(60) == 7
    told = json.loads((tmp_path / "log").read_text())
    assert (told["exit_code"], told["installed"]) == (7, [])


def test_a_killed_pull_owes_the_hook(folder: Bucket, dest: Path, tmp_path: Path) -> None:
    """After SIGKILL between placing and the hook's end, the hook is called once more, and then never again."""
    leave(folder, jobs=SMALL)
    command = f'echo x >> "{tmp_path}/calls"; kill -9 $PPID'
    with pulling(
        dest, folder.environ, "--exec", command, "--job", "quotes", log=tmp_path / "log"
    ) as process:
        assert process.wait(60) == -signal.SIGKILL
    for _ in range(2):
        pull_into(dest, folder, "--job", "quotes", "--exec", f'echo y >> "{tmp_path}/calls"')
    assert calls(tmp_path) == ["x", "y"]
