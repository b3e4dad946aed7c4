"""`mayfly status` and `mayfly verify` as commands: output, exit codes, and nothing hostile on the terminal."""

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from agent.base.console import aligned, columns_of, cut, printable
from agent.core.ids import run_id
from agent.core.results import JobCause, JobResult, JobStatus
from consumer.archive.follow import look
from consumer.archive.writer import Writer
from consumer.cli.status import status
from consumer.cli.verify import SHOWN_PROBLEMS, verify
from tests.bucket.bucket import Bucket
from tests.bucket.layout import begun_key, file_key
from tests.bucket.leaving import FILES, RUN, leave_begun, leave_run, record
from tests.parts.command import call
from tests.parts.ports import free_port

EVIL = "gone\x1b[2J\x1b]0;owned\x07\r\n\u202emoc\x9b31m\u2028 \udce2"


def ask(command: click.Command, *arguments: str, environ: dict[str, str] | None = None) -> Result:
    """Call a command in an environment without anything of ours."""
    return call(str(command.name), *arguments, environ={"TZ": "Asia/Tokyo", **(environ or {})})


def failed(name: str, message: str, cause: JobCause = JobCause.PAGE_CHANGED) -> JobResult:
    """A job that failed."""
    return JobResult(name=name, status=JobStatus.FAILED, cause=cause, message=message)


def test_status_shows_runs_and_why_jobs_failed(bucket: Bucket) -> None:
    """One line a run and one for each job that did not succeed; jobs that were not due are no failures."""
    jobs = (
        JobResult(name="quotes", status=JobStatus.SUCCEEDED),
        failed("notes", "no element .note"),
        JobResult(name="weekly", status=JobStatus.SKIPPED, message="it runs on sun"),
    )
    # Of an hour ago: on a later day the job that was not due would be missed.
    run = run_id(datetime.now(UTC) - timedelta(hours=1), b"abc")
    leave_run(bucket, run, jobs=jobs, stale=True)
    result = ask(status, environ=bucket.environ)
    assert result.exit_code == 0
    assert "partial" in result.output
    assert re.search(r"1/2 +5 +2\.3 MB +3m 05s +v1\.2 \(stale\) +" + run, result.output)
    assert "    notes failed (page_changed): no element .note\n" in result.output
    assert "weekly" not in result.output
    assert "\x1b" not in result.output


def test_status_tells_of_a_success_that_is_incomplete(bucket: Bucket) -> None:
    """In the table below its run, and first, among what does not go well now."""
    job = JobResult(name="quotes", status=JobStatus.SUCCEEDED, refused_files=2, message="2 links")
    leave_run(bucket, run_id(datetime.now(UTC) - timedelta(hours=1), b"abc"), jobs=(job,))
    result = ask(status, environ=bucket.environ)
    assert "partial" in result.output
    assert "    quotes incomplete: 2 links\n" in result.output
    assert "quotes: incomplete: 2 links, last success" in result.output
    document = json.loads(ask(status, "--json", environ=bucket.environ).output)
    assert document["runs"][0]["jobs"][0]["refused_files"] == 2
    assert document["jobs"][0]["refused_files"] == 2


def test_status_as_json_has_all_the_bucket_says(bucket: Bucket) -> None:
    """Programs get every field of the index entry, under one document, in ASCII."""
    leave_run(bucket, jobs=(failed("notes", "\u304a\u304b\u3057\u3044"),))
    result = ask(status, "--json", environ=bucket.environ)
    document = json.loads(result.output)
    assert result.output.isascii()
    assert document["runs"][0]["state"] == "committed"
    assert document["runs"][0]["jobs"][0]["message"] == "\u304a\u304b\u3057\u3044"


def test_status_tells_vanished_running_and_unreadable_runs(folder: Bucket) -> None:
    """What is not committed is shown with what is known of it, for people and for programs."""
    now = datetime.now(UTC)
    leave_begun(folder, RUN)
    running = run_id(now, b"\x01\x02\x03")
    leave_begun(folder, running, deadline=now + timedelta(hours=1))
    folder.put_begun("20251122T064205Z-000000", b"?")
    result = ask(status, environ=folder.environ)
    lines = result.output.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        "running",
        "on",
        "vanished",
        "began",
        "unreadable",
        f"{begun_key('20251122T064205Z-000000')}:",
    ]
    document = json.loads(ask(status, "--json", environ=folder.environ).output)
    assert [run["state"] for run in document["runs"]] == ["running", "vanished", "unreadable"]


def test_status_says_which_jobs_do_not_go_well(folder: Bucket) -> None:
    """Below the runs: since when a job fails, by the days of this computer, for people and for programs."""
    now = datetime.now(UTC)
    for days in (4, 3, 2, 1):
        jobs = (JobResult(name="fine", status=JobStatus.SUCCEEDED), failed("quotes", "gone"))
        run = run_id(now - timedelta(days=days), bytes([days, 2, 3]))
        leave_run(folder, run, jobs=jobs if days < 4 else (), files={})
    result = ask(status, environ=folder.environ)
    (line,) = [line for line in result.output.splitlines() if line.startswith("quotes:")]
    assert line.startswith("quotes: failed 3 days in a row, last success 20")
    document = json.loads(ask(status, "--json", environ=folder.environ).output)
    found = {job["name"]: job["failed_days"] for job in document["jobs"]}
    assert (found["fine"], found["quotes"]) == (0, 3)


def test_status_reads_the_history_of_the_service(folder: Bucket, tmp_path: Path) -> None:
    """With `--history` the bucket is not asked, and the answer is the same."""
    leave_run(folder, RUN, jobs=(failed("quotes", "gone"),))
    bucket = folder.reader()
    history = tmp_path / "history.sqlite"
    writer = Writer(history, bucket.name)
    asyncio.run(look(bucket, writer, datetime.now(UTC)))
    writer.close()
    there = ask(status, environ=folder.environ).output
    here = ask(status, "--history", str(history), environ={"MAYFLY_STORE_URL": "s3://nowhere"})
    assert here.output == there
    history.write_text("no database")
    broken = ask(status, "--history", str(history))
    assert broken.exit_code == 2
    assert "history" in broken.stderr


def test_an_empty_bucket_is_no_failure(folder: Bucket) -> None:
    """A bucket without runs says so and exits 0."""
    result = ask(status, "--store", folder.environ["MAYFLY_STORE_URL"])
    assert result.exit_code == 0
    assert "no runs yet" in result.output


def test_nothing_hostile_reaches_the_terminal(folder: Bucket) -> None:
    """Escape sequences, line breaks and overrides of the direction in any text are gone."""
    leave_run(folder, jobs=(failed("notes", "x"),))
    (job,) = folder.entry(RUN)["jobs"]
    evil = EVIL.encode("utf-8", "ignore").decode()
    folder.amend(RUN, release=evil, jobs=[job | {"name": evil, "message": evil * 50}])
    result = ask(status, environ=folder.environ)
    assert result.exit_code == 0
    assert not set(result.output) & set("\x1b\x07\r\u202e\x9b\u2028")
    assert len(result.output.splitlines()) == 4


def test_verify_of_a_sound_run_exits_0(bucket: Bucket) -> None:
    """`latest` and the id itself name the same run."""
    leave_run(bucket)
    for name in (RUN, "latest"):
        result = ask(verify, name, environ=bucket.environ)
        assert (result.exit_code, result.stderr) == (0, "")
        assert f"{RUN}: fine; {len(FILES) + 1} files" in result.output


def test_verify_of_a_broken_run_exits_3_and_lists_the_problems(bucket: Bucket) -> None:
    """Each problem is a line with its kind and path; `--json` has the same."""
    leave_run(bucket)
    bucket.remove_file(RUN, "quotes/empty")
    result = ask(verify, RUN, environ=bucket.environ)
    assert result.exit_code == 3
    assert "missing  quotes/empty  it is not there" in result.output
    assert "1 problem;" in result.output
    document = json.loads(ask(verify, RUN, "--json", environ=bucket.environ).output)
    assert document["problems"] == [
        {"kind": "missing", "path": "quotes/empty", "detail": "it is not there"}
    ]
    assert document["ok"] is False


def test_very_many_problems_are_cut_for_people(folder: Bucket) -> None:
    """A person sees the first ones and how many more there are."""
    leave_run(folder, files={})
    for number in range(SHOWN_PROBLEMS + 7):
        folder.put_file(RUN, f"x/{number}", b"")
    result = ask(verify, RUN, environ=folder.environ)
    assert "... and 7 more" in result.output
    assert result.output.count("\nextra") == SHOWN_PROBLEMS - 1


def test_verify_takes_a_folder_or_its_manifest(folder: Bucket, tmp_path: Path) -> None:
    """A run that was copied somewhere is verified there, without any bucket."""
    leave_run(folder)
    root = folder.root / file_key(RUN, "").rstrip("/")
    for name in (str(root), f"{root}/datapackage.json", root.as_uri()):
        assert ask(verify, name).exit_code == 0


@pytest.mark.parametrize(
    ("command", "arguments", "environ", "code", "says"),
    [
        (verify, ["nonsense"], {}, 2, "nonsense is no run"),
        (verify, [], {}, 2, "Missing argument"),
        (verify, ["latest", "--store", "."], {}, 2, "no run was ever committed"),
        (status, ["--limit", "0"], {}, 2, "--limit"),
        (status, ["--store", "/nowhere/at/all"], {}, 6, "no bucket in /nowhere/at/all"),
        (status, ["--store", "ftp://x"], {}, 4, "--store: store.url"),
        (status, ["--config", "/nowhere.toml"], {}, 4, "no such file"),
        (status, [], {"MAYFLY_CONFIG": "/nowhere.toml"}, 4, "no such file"),
        (status, ["--set", "store.ulr=x"], {}, 4, 'did you mean "store.url"?'),
        (status, [], {"MAYFLY_STORE_URLL": "x"}, 4, 'did you mean "MAYFLY_STORE_URL"?'),
        (
            status,
            ["--store", "s3://b/p"],
            {"MAYFLY_STORE_CREDENTIALS": "ssm:/x"},
            4,
            "not used at home",
        ),
        (
            status,
            ["--store", "s3://bucket"],
            {
                "MAYFLY_STORE_ENDPOINT": f"http://127.0.0.1:{free_port()}",
                "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
                "AWS_CONFIG_FILE": "/nowhere",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            6,
            "no credentials",
        ),
    ],
)
def test_what_cannot_work_says_why_and_exits_with_its_code(
    command: click.Command, arguments: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    """Usage, configuration and an unreachable bucket have exit codes of their own, and nothing on stdout."""
    result = ask(command, *arguments, environ={"HOME": "/nowhere", **environ})
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_all_faults_of_a_configuration_are_reported_at_once(tmp_path: Path) -> None:
    """A file with two faults and a wrong variable make three lines."""
    config = tmp_path / "agent.toml"
    config.write_text('[store]\nurll = "x"\n[limits]\nrun = "soon"\n')
    result = ask(status, "--config", str(config), environ={"MAYFLY_LIMITS_X": "1"})
    assert result.exit_code == 4
    assert result.stderr.count("error: ") == 3


def test_a_laptop_without_configuration_looks_into_its_own_bucket(tmp_path: Path) -> None:
    """The default bucket is where `mayfly run` would have put it."""
    state = tmp_path / ".local" / "state"
    leave_run(Bucket.in_folder(state / "mayfly" / "bucket"))
    result = ask(status, environ={"HOME": str(tmp_path), "XDG_STATE_HOME": str(state)})
    assert RUN in result.output


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colours_are_for_terminals_that_want_them(folder: Bucket, no_colour: str) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    leave_run(folder)
    ours, theirs = pty.openpty()
    environ = {**os.environ, **folder.environ, "NO_COLOR": no_colour}
    program = "from agent.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "status"],
        stdout=theirs,
        env=environ,
        timeout=60,
        check=True,
    )
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0
    assert ("\x1b[32msucceeded\x1b[0m" in text) is not bool(no_colour)


@given(st.text())
def test_printable_text_is_one_quiet_line(text: str) -> None:
    """No text, whatever is in it, moves a cursor, and doing it twice changes nothing."""
    shown = printable(text)
    assert shown == printable(shown)
    assert not any(ord(character) < 32 or 0x7F <= ord(character) < 0xA0 for character in shown)
    shown.encode()


@given(st.text(), st.integers(1, 30))
def test_text_is_cut_to_the_columns_there_are(text: str, columns: int) -> None:
    """Wide characters count twice, and what fits is not cut."""
    shown = cut(printable(text), columns)
    assert columns_of(shown) <= columns
    assert shown == printable(text) or shown.endswith("\u2026")


def test_columns_stand_below_each_other_in_any_script() -> None:
    """Japanese and emoji in a cell do not shift the next column."""
    lines = aligned([("a", "1"), ("\u65e5\u672c", "22"), ("\U0001f98b", "3")], frozenset({1}))
    assert lines == ["a      1", "\u65e5\u672c  22", "\U0001f98b     3"]


def test_a_commit_key_with_an_impossible_stamp_is_no_trap(folder: Bucket) -> None:
    """A run id that is no date, committed by somebody, is listed and verified like any other garbage."""
    run = "20269999T999999Z-abcdef"
    folder.put_entry(run, b"{}", at=record(RUN).finished)
    assert "unreadable" in ask(status, environ=folder.environ).output
    assert ask(verify, "latest", environ=folder.environ).exit_code == 3
