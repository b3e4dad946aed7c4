"""Commands, options, exit codes, and what a terminal shows."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import COMMANDS
from tests.parts.command import call, completed, script
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

TWO_FAULTS = '[release]\nrepositry = "x"\n[limits]\nrun = "soon"\n'
JOBS = '[[job]]\nname = "fine"\ncommand = ["true"]\n'
BAD_JOBS = '[[job]]\nname = "B"\ncommand = []\n'
REPOSITORY = ("--set", "release.repository=/srv/scrapers.git", "--set", "STATE")
MIXED = """
    [[job]]
    name = "good"
    command = ["sh", "-c", "echo 1 > $MAYFLY_OUTPUT_DIR/file; echo '{\\"items\\": 3}' > $MAYFLY_RESULT_FILE"]

    [[job]]
    name = "bad"
    command = ["sh", "-c", "sleep 1; echo went wrong; exit 3"]
    retries = 1

    [[job]]
    name = "later"
    command = ["true"]
    needs = ["bad"]
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A computer with a release of three jobs, of which one fails."""
    bench = Bench.make(tmp_path)
    bench.release("v1", MIXED)
    return bench


def test_help_names_every_command_and_imports_none() -> None:
    """The first thing a person types is quick."""
    result = call("--help")
    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)
    program = (
        "import sys, agent.cli; sys.exit('pydantic' in sys.modules or 'obstore' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_a_run_begins_without_what_it_may_never_need() -> None:
    """A machine that is billed by the second imports these when it comes to them."""
    program = (
        "import sys, agent.cli.run, agent.run; "
        "print(*{'rich', 'requests', 'boto3', 'tenacity', 'apprise'} & set(sys.modules))"
    )
    done = completed([sys.executable, "-c", program])
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr


def test_check_tells_all_faults_of_both_files(tmp_path: Path) -> None:
    """File, key and remedy of each; exit code 4."""
    (tmp_path / "agent.toml").write_text(TWO_FAULTS)
    (tmp_path / "jobs.toml").write_text(BAD_JOBS)
    config = str(tmp_path / "agent.toml")
    result = call("check", "--config", config, str(tmp_path))
    assert result.exit_code == 4
    for words in ("repositry", 'did you mean "repository"?', "limits.run", "job[B].name"):
        assert words in result.stdout
    assert "job[B].command: must not be empty" in result.stdout
    listed = json.loads(call("check", "--config", config, str(tmp_path), "--json").stdout)
    assert {fault["key"] for fault in listed["faults"]} == {
        "release.repositry",
        "limits.run",
        "job[B].name",
        "job[B].command",
    }


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot be read"), (b"\xff\xfe", "not a text file"), (b"[[job]", "not valid TOML")],
)
def test_check_of_what_is_no_jobs_file(tmp_path: Path, content: bytes | None, says: str) -> None:
    """A file that is not there, or is something else, is a fault like any other."""
    path = tmp_path / "jobs.toml"
    if content is not None:
        path.write_bytes(content)
    result = call("check", str(path))
    assert (result.exit_code, says in result.stdout) == (4, True)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 12345\n"
SHELL_JOBS = (
    '[[job]]\nname = "a"\ncommand = ["./a.sh"]\n'
    '[[job]]\nname = "b"\ncommand = ["bash", "b.sh"]\n'
    '[[job]]\nname = "c"\ncommand = ["./gone.sh"]\n'
)
ON = '[[job]]\nname = "a"\ncommand = ["true"]\non = "mon"\n'


@pytest.mark.parametrize(
    ("files", "code", "says"),
    [
        (
            {"jobs.toml": JOBS, "requirements.txt": "idna==3.10\n"},
            0,
            "note: requirements.txt has no",
        ),
        ({"jobs.toml": JOBS, "requirements.txt": "\ufffe"}, 0, "no hashes"),
        ({"jobs.toml": JOBS, "poetry.lock": "[["}, 4, "poetry.lock cannot be installed: not valid"),
        (
            {"jobs.toml": '[[job]]\nname = "a"\nimage = "x"\n', "poetry.lock": "[["},
            *(0, "no faults"),
        ),
        ({"jobs.toml": JOBS, "app/uv.lock": ""}, 0, "note: app/uv.lock is not read"),
        (
            {"jobs.toml": JOBS, "uv.lock": 'requires-python = ">=3.99"\n'},
            *(0, "note: uv.lock asks for Python >=3.99"),
        ),
        ({"jobs.toml": JOBS, "data.bin": POINTER}, 0, "note: data.bin: stored with Git LFS"),
        (
            {"jobs.toml": JOBS, ".gitattributes": "*.bin filter=lfs diff=lfs\n"},
            *(0, "note: .gitattributes: *.bin: stored with Git LFS"),
        ),
        (
            {"jobs.toml": SHELL_JOBS, "a.sh": "#!/bin/sh\r\n", "b.sh": "#!/bin/sh\n"},
            *(4, 'job[a].command: the lines of "./a.sh" end in CRLF'),
        ),
        (
            {"jobs.toml": SHELL_JOBS, "a.sh": "#!/bin/sh\n", "b.sh": "echo\r\n"},
            *(4, 'job[b].command: the lines of "b.sh" end in CRLF'),
        ),
        ({"jobs.toml": SHELL_JOBS}, 4, 'job[c].command: "./gone.sh" is not an executable file'),
        (
            {"jobs.toml": ON},
            0,
            "note: job a: the days of `on` are those of schedule.timezone",
        ),
    ],
)
def test_check_says_what_the_machine_will_say(
    tmp_path: Path, files: dict[str, str], code: int, says: str
) -> None:
    """What keeps a release from running is a fault; what a person should know is a note."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(text.encode())
        (tmp_path / name).chmod(0o755)
    result = call("check", str(tmp_path))
    assert result.exit_code == code
    assert says in result.output


def test_check_knows_the_releases_folder_from_the_jobs_files_name(tmp_path: Path) -> None:
    """`release.jobs` may be in a folder: programs and locks are looked for as the machine does."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "run.sh").touch(0o755)
    (tmp_path / "sub" / "jobs.toml").write_text('[[job]]\nname = "a"\ncommand = ["./run.sh"]\n')
    option = ("--set", "release.jobs=sub/jobs.toml")
    for named in (tmp_path, tmp_path / "sub" / "jobs.toml"):
        right = call("check", *option, str(named))
        assert (right.exit_code, "no faults" in right.stdout) == (0, True)
    assert call("check", str(tmp_path / "sub")).exit_code == 4


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run",), 4, "release.repository: is not set (or try `mayfly demo`)"),
        (("bogus",), 2, "No such command"),
        (("demo", "--scrapers", ".", "--dir", "DIR"), 2, "no scrapers in"),
        (("release", "pin", "", *REPOSITORY), 2, "ref: String should have at least 1 character"),
        (("release", "pin", "v1", "--reason", "x" * 2001, *REPOSITORY), 2, "reason: String should"),
        (("release", "pin", "v1", "--reason", "\udcff", *REPOSITORY), 2, "reason: Input should"),
    ],
    ids=["no repository", "no command", "no checkout", "no name", "long reason", "not UTF-8"],
)
def test_a_command_that_cannot_work_says_what_to_do(
    tmp_path: Path, arguments: tuple[str, ...], code: int, says: str
) -> None:
    """File, key and remedy, or what is missing."""
    places = {
        ".": str(tmp_path),
        "DIR": str(tmp_path / "demo"),
        "STATE": f"paths.state={tmp_path / 'state'}",
    }
    result = call(*(places.get(word, word) for word in arguments))
    assert (result.exit_code, says in result.stderr) == (code, True), result.stderr


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        ("check >&-", 0, ""),
        ("check --set limits.jobs=x 2>&-", 4, ""),
        ("secrets set A --set secrets.source=ssm:/x <&-", 2, "error: the value is empty"),
        ("secrets rm A --set secrets.source=ssm:/x <&-", 2, "error: no terminal to confirm it"),
        ("check >/dev/full", 1, "error: the output cannot be written: No space left on device"),
        ("status >/dev/full --store .", 1, "error: the output cannot be written"),
        (
            "run >/dev/full --set release.repository=/none --set paths.state=.",
            5,
            "the outcome cannot",
        ),
        ("run 2>&- >&- --set release.repository=/none --set paths.state=.", 5, ""),
        (
            "run --set release.repository=/none --set paths.state=. | true; exit ${PIPESTATUS[0]}",
            5,
            "",
        ),
    ],
)
def test_streams_that_are_closed_or_full_are_no_defect(
    line: str, code: int, says: str, tmp_path: Path
) -> None:
    """Each is told in a line, and what came of a run is its exit code."""
    program = f'"{sys.executable}" -m agent {line}'
    ours = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "MAYFLY_CONFIG": os.devnull}
    result = completed(("bash", "-c", program), at=tmp_path, environ=ours)
    shown = result.stderr
    assert (result.returncode, says in shown, "Traceback" in shown) == (code, True, False), shown


@pytest.mark.parametrize("command", ["check", "status"])
def test_a_working_directory_that_is_gone_is_told(command: str, tmp_path: Path) -> None:
    """By the agent's commands and by those at home."""
    (tmp_path / "gone").mkdir()
    line = f'rmdir "$PWD" && exec "{sys.executable}" -m agent {command}'
    ours = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    result = completed(("sh", "-c", line), at=tmp_path / "gone", environ=ours)
    assert (result.returncode, "working directory" in result.stderr) == (2, True), result.stderr


def test_check_shows_no_control_characters_of_a_jobs_file(tmp_path: Path) -> None:
    """Whoever looks at a stranger's release keeps the terminal as it was."""
    (tmp_path / "jobs.toml").write_text('"\\u001b]0;owned\\u0007" = 1\n' + JOBS)
    result = call("check", str(tmp_path))
    assert (result.exit_code, "owned" in result.stdout, "\x1b" in result.stdout) == (4, True, False)


def test_no_command_shows_control_characters_of_a_pin(tmp_path: Path) -> None:
    """Whoever may write to the bucket may not write to the terminal of those who look at it."""
    here = ("--set", f"paths.state={tmp_path}", "--set", "release.repository=/srv/scrapers.git")
    for arguments in (("pin", "owned\x1b]0;x\x07"), ("list",), ("unpin",)):
        result = call("release", *arguments, *here)
        shown = result.stdout
        assert (result.exit_code, "owned" in shown, "\x1b" in shown) == (0, True, False), shown


def test_the_demo_writes_only_into_a_folder_of_its_own(tmp_path: Path) -> None:
    """A folder with a person's work in it is refused with a remedy, before anything in it is touched."""
    work = {"scrapers/jobs.toml": "# not committed yet\n", "scrapers/mine/notes.md": "kept\n"}
    for path, text in work.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    result = call("demo", "--dir", str(tmp_path))
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.relative_to(tmp_path)) for path in found} == set(work)
    assert all((tmp_path / path).read_text() == text for path, text in work.items())
    assert result.exit_code == 2
    assert str(tmp_path) in result.stderr
    assert "mayfly demo --dir DIR" in result.stderr


def test_doctor_tries_everything_and_says_what_to_do(bench: Bench, tmp_path: Path) -> None:
    """A set-up that works passes; a repository that is gone fails with a remedy, and nothing else does.

    Every check says what it found, or why it is not needed.
    """
    options = ["--store", str(tmp_path / "bucket"), "--set", f"paths.state={tmp_path / 'state'}"]
    good = call("doctor", *options, "--set", f"release.repository={bench.repo.bare}")
    assert good.exit_code == 0, good.stdout
    assert re.search(r"ok +browser session +chrome", good.stdout)
    assert re.search(r"ok +store +file://", good.stdout)
    bad = call("doctor", *options, "--json", "--set", f"release.repository={tmp_path}/gone")
    assert bad.exit_code == 4
    findings = json.loads(bad.stdout)
    assert all(found["detail"] for found in findings)
    failed = [found for found in findings if found["state"] == "failed"]
    assert [found["check"] for found in failed] == ["git repository"]
    assert failed[0]["remedy"]


def on_a_terminal(bench: Bench, *, interrupt: bool = False, **environ: str) -> tuple[int, str]:
    """Do a run with a terminal for stdout and stderr; return its exit code and all that was shown."""
    ours, theirs = pty.openpty()
    command = [word for word in bench.command() if word != "--json"]
    process = subprocess.Popen(
        command,
        env={**bench.environment(), "TERM": "xterm-256color", "COLUMNS": "120", **environ},
        cwd=bench.folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    if interrupt:
        wait_until(lambda: _finished_and_running(bench), what="one job to end, and one to run")
        process.send_signal(signal.SIGINT)
    shown = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # Linux's way of saying that the other end is closed
            break
        if not chunk:
            break
        shown += chunk
    os.close(ours)
    return process.wait(60), shown.decode()


def _finished_and_running(bench: Bench) -> bool:
    spool = bench.state / "spool"
    lines = [line for log in spool.glob("*/log.jsonl") for line in log.read_text().splitlines()]
    ended = any('"job.ended"' in line and '"good"' in line for line in lines)
    return ended and any(spool.glob("*/jobs/bad/1/output.log"))


def test_a_terminal_sees_progress_and_then_a_table(bench: Bench) -> None:
    """Jobs appear while they run, warnings stand above, the table comes last."""
    code, shown = on_a_terminal(bench)
    assert code == 3
    for words in ("running", "attempt 2", "waiting", "✓", "✗"):
        assert words in shown, words
    table = shown[shown.rindex("status") :]
    assert re.search(r"good +ok +1 +2 B", table)
    assert re.search(r"bad +failed +0 .*error: exit code 3: went wrong", table)
    assert re.search(r"later +skipped", table)
    assert "partial (exit code 3)" in table
    assert "\x1b[3" in shown


def test_a_terminal_without_colours_has_none(bench: Bench) -> None:
    """NO_COLOR is respected, in the view, the log and the table."""
    _, shown = on_a_terminal(bench, NO_COLOR="1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", shown)


def test_a_dumb_terminal_gets_lines(bench: Bench) -> None:
    """Where nothing can be drawn, the log is written as aligned lines."""
    _, shown = on_a_terminal(bench, TERM="dumb", NO_COLOR="1")
    assert re.search(r"\[info *\] job.started", shown)


def test_ctrl_c_hands_over_what_is_finished(bench: Bench) -> None:
    """A person who interrupts sees the table, and the finished job's file is in the bucket."""
    bench.release("v2", MIXED.replace("sleep 1", "sleep 30"))
    code, shown = on_a_terminal(bench, interrupt=True)
    assert code == 7
    assert re.search(r"good +ok +1", shown)
    assert re.search(r"bad +interrupted", shown)
    assert [run.results for run in bench.bucket.working] == [{"good/file"}]


def switches(bench: Bench, **scripts: str) -> Path:
    """Put programs on the PATH in the place of those that would switch this machine off; return their record."""
    folder, record = bench.folder / "switches", bench.folder / "switched"
    folder.mkdir()
    record.touch()
    for name, does in scripts.items():
        script(folder / name, f'#!/bin/sh\necho {name} "$@" >> {record}\n{does}\n')
    bench.environ["PATH"] = f"{folder}:{Path(sys.executable).parent}:/usr/bin:/bin"
    return record


@pytest.mark.parametrize(
    ("after", "systemctl", "asked"),
    [
        ("poweroff", "exit 0", ["systemctl poweroff --no-block"]),
        ("poweroff", "exit 1", ["systemctl poweroff --no-block", "shutdown -P now"]),
        ("nothing", "exit 0", []),
    ],
)
def test_the_machine_is_switched_off_after_the_run_where_it_is_to_be(
    bench: Bench, after: str, systemctl: str, asked: list[str]
) -> None:
    """Whatever the jobs did; a second way is tried when the first refuses. The exit code stays the run's."""
    record = switches(bench, systemctl=systemctl, shutdown="exit 0")
    assert bench.run(power__after=after).code == 3
    assert record.read_text().splitlines() == asked
