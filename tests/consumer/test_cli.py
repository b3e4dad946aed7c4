"""`mayfly status`, `show`, `logs` and `cost` as commands: output, exit codes, and nothing hostile on the terminal."""

import json
import re
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from agent.base.console import aligned, columns_of, cut, printable
from agent.contract.entries import Planned
from agent.contract.facts import Cost, Schedule
from agent.contract.ids import Batch as Id
from agent.contract.ids import run_id
from agent.contract.layout import EntryKey, PointerKey
from consumer.cli.status import age
from consumer.spending import REQUESTS_MONTH
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RELEASE, RunWriter, leave_run
from tests.consumer.pulling import leave
from tests.consumer.terminal import at_terminal
from tests.parts.command import MAYFLY, call, completed, surroundings
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.ports import free_port
from tests.parts.program import Program
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until

EVIL = "gone\x1b[2J\x1b]0;owned\x07\r\n\u202emoc\x9b31m\u2028 \udce2"
NIGHTLY = Schedule(expression="cron(0 3 * * ? *)", timezone="Asia/Tokyo", grace_seconds=3600)
TOKYO = NIGHTLY.timezone
HOUR = timedelta(hours=1)
MOST_MEMORY = 300_000_000
"""Bytes of data, of which a command that prints little takes about a third."""
JOBS = {"books": "succeeded", "prices": "failed"}


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what commands remember in a folder of the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("HOME", str(tmp_path))


def ask(*arguments: str, environ: dict[str, str] | None = None) -> Result:
    """Call a command in an environment without anything of ours."""
    return call(*arguments, environ=environ or {})


def of_night(ago: timedelta) -> dict[str, object]:
    """Return what makes a run one of a schedule of each hour, which began some time ago."""
    began = (datetime.now(UTC) - ago).replace(microsecond=0)
    return {"started": began, "schedule": "nightly", "batch": Id.of_slot("nightly", began)}


def test_status_begins_with_the_answer(bucket: Bucket) -> None:
    """The verdict and the next run, what fails with the command that shows more, the newest runs."""
    objects = bucket.objects
    hourly = NIGHTLY.model_copy(update={"expression": "rate(1 hour)"})
    for ago in (3, 2, 1):
        leave_run(objects, jobs=JOBS, scheduled=hourly, message="no .price", **of_night(ago * HOUR))  # type: ignore[arg-type]
    result = ask("status", environ=bucket.environ)
    lines = result.output.splitlines()
    assert result.exit_code == 0
    assert re.fullmatch(r".*: 1 of 2 jobs, prices failed, 2 files\. Next: .*\.", lines[0])
    assert lines[2] == "prices: the page changed"
    assert re.match(r"    3 times in a row, since .*, no success is known", lines[3])
    assert lines[4] == "    no .price"
    run = lines[5].split()[2]
    assert lines[5] == f"    mayfly show {run} prices"
    assert re.fullmatch(rf"partial +\d\d-\d\d \d\d:\d\d +1 h +1/2 +4 +3m 00s +{run}", lines[8])
    assert len(lines) == 12
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in result.output


def test_status_for_cron(folder: Bucket) -> None:
    """`--check` is silent and exits 0 while all is well, else it says what is wrong and exits 3."""
    empty = ask("status", "--store", folder.environ["MAYFLY_STORE_URL"])
    assert (empty.exit_code, empty.output) == (0, "No run yet.\n\n")
    leave_run(folder.objects, datetime.now(UTC) - 2 * HOUR)
    fine = ask("status", "--check", environ=folder.environ)
    assert (fine.exit_code, fine.output) == (0, "")
    leave_run(folder.objects, datetime.now(UTC) - HOUR, {"quotes": "failed"})
    bad = ask("status", "--check", environ=folder.environ)
    assert bad.exit_code == 3
    assert "quotes: the page changed" in bad.output
    assert "RUN" not in bad.output


def test_status_tells_of_a_machine_that_did_not_come(folder: Bucket) -> None:
    """By the schedule of its runs, whatever zone this computer has; or by the one that a person says."""
    began = datetime.now(UTC) - timedelta(days=3)
    leave_run(folder.objects, began, scheduled=NIGHTLY)
    for zone in ("UTC", "Pacific/Auckland"):
        result = ask("status", "--check", environ={**folder.environ, "TZ": zone})
        assert result.exit_code == 3
        assert re.match(r"No run since .*; expected .* 03:00\. Next: .* 03:00\.", result.output)
        assert "No machine came, " in result.output
        assert "mayfly doctor --aws" in result.output


def test_status_tells_of_groups_of_shards(folder: Bucket) -> None:
    """How many are done, and which are missing, counted as `--shard` does."""
    began = datetime.now(UTC) - 9 * HOUR
    for shard in (0, 1, 3):
        leave_run(folder.objects, began, batch=Id.of_shard("main", "big", shard, 4))
    leave_run(folder.objects, began - HOUR, batch=Id.of_shard("main", "new", 0, 1))
    output = ask("status", environ=folder.environ).output
    assert "group big: partial, 3 of 4 shards done; missing 3\n" in output
    assert "Missing shards: 3" in output
    assert "group new" not in output


def test_status_by_a_schedule_of_a_person(folder: Bucket) -> None:
    """Runs that name no schedule are judged by `--schedule`."""
    leave_run(folder.objects, datetime.now(UTC) - timedelta(days=3))
    quiet = ask("status", "--check", environ=folder.environ)
    told = ask("status", "--check", "--schedule", "0 4 * * *", environ=folder.environ)
    assert (quiet.exit_code, told.exit_code) == (0, 3)
    assert "expected" in told.output


def test_a_pointer_to_a_run_to_come_says_nothing_of_a_day(folder: Bucket) -> None:
    """Of a batch of which nothing else is known: the day is missed as it was, and is judged."""
    daily = ("--schedule", "0 4 * * *")
    leave_run(folder.objects, datetime.now(UTC) - timedelta(days=3))
    before = ask("status", *daily, environ=folder.environ).output
    slot = datetime.now(UTC).replace(hour=4, minute=0, second=0, microsecond=0) - timedelta(days=1)
    to_come = run_id(slot + timedelta(days=30), b"any")
    entry = EntryKey(Id.of_slot("main", slot), to_come, "0" * 8, 0)
    folder.objects.put(PointerKey(datetime.now(UTC), "began", entry).text, b"")
    assert "expected" in before
    assert ask("status", *daily, environ=folder.environ).output == before


def test_status_as_json(bucket: Bucket) -> None:
    """Programs get one document, in ASCII; the exit code is as without."""
    leave_run(bucket.objects, datetime.now(UTC) - HOUR, JOBS, message="\u304a\u304b\u3057\u3044")
    result = ask("status", "--json", "--check", environ=bucket.environ)
    assert result.exit_code == 3
    assert result.output.isascii()
    document = json.loads(result.output)
    assert document["fine"] is False
    assert document["troubles"][0]["message"] == "\u304a\u304b\u3057\u3044"
    assert document["runs"][0]["status"] == "partial"


def test_status_reads_the_bucket_once(folder: Bucket) -> None:
    """What was read stays, also where a lifecycle rule has deleted it; a history that is named is used."""
    leave_run(folder.objects, datetime.now(UTC) - HOUR)
    first = ask("status", environ=folder.environ).output
    for name in ("batches", "index"):
        shutil.rmtree(folder.root / name)
    assert ask("status", environ=folder.environ).output == first
    other = str(folder.root.parent / "other" / "history")
    assert "No run yet." in ask("status", "--history", other, environ=folder.environ).output
    assert Path(other).is_file()


def test_show_tells_what_happened(bucket: Bucket) -> None:
    """Facts, jobs, why one failed, and the end of the log; of a job its attempts, files, and what it printed.

    `latest` is the last run.
    """
    shot = {"screenshot.png": b"\x89PNG\r\n\x1a\n"}
    message = "no .price\nat line 3"
    began = datetime.now(UTC) - HOUR
    writer = leave_run(bucket.objects, began, JOBS, message=message, evidence=shot)
    for name in ("latest", writer.run):
        result = ask("show", name, environ=bucket.environ)
        assert result.exit_code == 0
        assert result.output.startswith(f"{writer.run}: partly succeeded\n")
        assert re.search(r"^Host +ip-10-0-0-7$", result.output, re.MULTILINE)
        assert re.search(r"^prices +failed +2 +21 B +3\.5s$", result.output, re.MULTILINE)
        assert "prices: the page changed\n    no .price at line 3\n" in result.output
        assert result.output.rstrip().endswith("info    run")
    document = json.loads(ask("show", "latest", "--json", environ=bucket.environ).output)
    assert (document["id"], document["status"]) == (writer.run, "partial")
    job = ask("show", "latest", "prices", environ=bucket.environ)
    assert job.exit_code == 0
    for text in ("prices: failed", "no .price", "exit code 1", "ページ.csv", "said something"):
        assert text in job.output
    assert "evidence/attempt-1/screenshot.png" in job.output
    assert "mayfly pull FOLDER --job prices --partial" in job.output
    document = json.loads(ask("show", "latest", "prices", "--json", environ=bucket.environ).output)
    assert document["package"]["mayfly:job"]["name"] == "prices"


def test_show_of_a_run_that_never_ended(folder: Bucket) -> None:
    """A lost run, and one of which nothing but its pointer arrived: how far it came, and where to look."""
    leave_run(folder.objects, datetime.now(UTC) - 5 * HOUR, JOBS, until="planned")
    lost = ask("show", "latest", environ=folder.environ)
    assert ": lost\n" in lost.output
    assert "journalctl -u mayfly" in lost.output
    assert re.search(r"^prices +lost$", lost.output, re.MULTILINE)
    gone = ask("show", "latest", "prices", environ=folder.environ)
    assert gone.exit_code == 2
    assert "prices has no result" in gone.stderr
    leave_run(folder.objects, datetime.now(UTC) - 4 * HOUR, until="pointer")
    assert ask("status", environ=folder.environ).exit_code == 0


def test_what_is_shown_fits_a_terminal(folder: Bucket) -> None:
    """In 80 columns, also of long messages; a pipe gets them whole."""
    long = "no element matches " + "table > tr " * 30
    leave_run(folder.objects, datetime.now(UTC) - HOUR, JOBS, message=long)
    for arguments in (["status"], ["show", "latest"], ["show", "latest", "prices"], ["cost"]):
        code, text = at_terminal(*arguments, environ=folder.environ)
        assert code == 0
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text.decode())
        assert max(columns_of(line) for line in plain.splitlines()) <= 80, arguments


def test_logs_prints_events_and_what_a_job_printed(bucket: Bucket) -> None:
    """All of a run's log, filtered by level; of a job what it printed itself."""
    writer = RunWriter(bucket.objects, datetime.now(UTC) - HOUR)
    writer.append(began=writer.began())
    said = b'{"timestamp":"2026-11-26T03:00:00Z","level":"%s","event":"%s","job":"quotes","run_id":"r"}\n'
    first, second = (writer.log_part(said % pair) for pair in ((b"info", b"a"), (b"error", b"b")))
    writer.append(log=(first, second))
    writer.append(jobs=(writer.job("quotes"),))
    writer.append(closed=writer.closed())
    zone = ("--timezone", "Asia/Tokyo")
    everything = ask("logs", "latest", *zone, environ=bucket.environ).output
    assert everything == "12:00:00 info    quotes a\n12:00:00 error   quotes b\n"
    errors = ask("logs", "latest", "--level", "warning", *zone, environ=bucket.environ).output
    assert errors == "12:00:00 error   quotes b\n"
    raw = ask("logs", "latest", "--json", environ=bucket.environ).output
    assert [json.loads(line)["event"] for line in raw.splitlines()] == ["a", "b"]
    printed = ask("logs", "latest", "quotes", environ=bucket.environ).output
    assert printed == "said something\n"


def test_what_a_job_printed_has_no_events_to_choose_from(folder: Bucket) -> None:
    """Options for them are refused, not passed over."""
    run = leave(folder)
    for options in (["--json"], ["--level", "error"]):
        wrong = call("logs", run, "quotes", *options, environ=folder.environ)
        assert (wrong.exit_code, f"{options[0]} is for events" in wrong.stderr) == (2, True)


def test_what_a_job_printed_keeps_its_spaces(folder: Bucket) -> None:
    """A traceback and a table are read by them; what means something to a terminal goes all the same."""
    printed = b"Traceback:\n  File x\n    a  b\n\tc\x1b[2J  d\n"
    leave_run(folder.objects, datetime.now(UTC) - HOUR, printed=printed)
    shown = ask("logs", "latest", "quotes", environ=folder.environ).output
    assert shown == "Traceback:\n  File x\n    a  b\n        c\N{REPLACEMENT CHARACTER}[2J  d\n"


def test_logs_prints_a_large_log_in_little_memory(folder: Bucket) -> None:
    """Of what a job printed, some is held at a time: neither all of it, nor a line without an end."""
    lines = b"".join(b"%07d \xe5\x90\x8d\n" % number for number in range(1_000_000))
    printed = lines + b"x" * 4_000_000 + b"\nthe end"
    leave_run(folder.objects, datetime.now(UTC) - HOUR, printed=printed)
    command = ["prlimit", f"--data={MOST_MEMORY}", *MAYFLY, "logs", "latest", "quotes"]
    environ = surroundings(folder.environ)
    done = subprocess.run(command, env=environ, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.replace(b"x\n", b"x") == printed.replace(b"x\n", b"x") + b"\n"


def test_logs_follows_a_run_until_it_ends(folder: Bucket, tmp_path: Path) -> None:
    """Parts are printed as they arrive, and the command ends with the run."""
    writer = RunWriter(folder.objects, datetime.now(UTC) - timedelta(minutes=1))
    writer.append(began=writer.began())
    writer.append(planned=Planned(release=RELEASE, count=1, jobs=("quotes",)))
    writer.append(log=(writer.log_part(b'{"event":"one"}\n'),))
    out = tmp_path / "out"
    command = [*MAYFLY, "logs", writer.run, "--follow", "--interval", "1s"]
    program = Program(command, log=out, environ=folder.environ)
    program.start(lambda: "one" in out.read_text(), seconds=30)
    writer.append(log=(writer.log_part(b'{"event":"two"}\n'),))
    wait_for(out, "two")
    writer.append(jobs=(writer.job("quotes"),))
    writer.append(closed=writer.closed())
    wait_until(lambda: not program.running, seconds=30, what="the end of the command")
    assert out.read_text().count("one") == 1


def wait_for(out: Path, text: str, times: int = 1) -> None:
    """Wait until a program has said something so many times."""
    wait_until(lambda: out.read_text().count(text) >= times, seconds=30, what=text)


def test_logs_follows_a_run_while_the_bucket_fails(
    s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """It warns, and what could not be read comes when it can be."""
    writer = RunWriter(
        Bucket.on_s3(s3_server, s3_bucket).objects, datetime.now(UTC) - timedelta(minutes=1)
    )
    writer.append(began=writer.began())
    writer.append(log=(writer.log_part(b'{"event":"one"}\n'),))
    out = tmp_path / "out"
    command = [*MAYFLY, "logs", writer.run, "--follow", "--interval", "1s"]
    environ = Bucket.on_s3(s3_server, s3_bucket, endpoint=s3_proxy.url).environ
    program = Program(command, log=out, environ=environ)
    program.start(lambda: "one" in out.read_text(), seconds=30)
    for path, event in (("list-type=2", "two"), ("/log/", "three")):
        s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=path)
        warned = out.read_text().count("warning")
        writer.append(log=(writer.log_part(f'{{"event":"{event}"}}\n'.encode()),))
        wait_for(out, "warning", warned + 1)
        assert event not in out.read_text()
        s3_proxy.relent()
        wait_for(out, event)
    writer.append(closed=writer.closed())
    wait_until(lambda: not program.running, seconds=30, what="the end of the command")


def test_objects_that_cannot_be_read_are_an_unreachable_bucket(
    s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """Exit code 6 and no answer, whether something was read before or not; of some that can be read, a warning."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": s3_proxy.url}
    refused = Answer(403, "AccessDenied")
    for hours in (3, 2):
        started = (datetime.now(UTC) - hours * HOUR).replace(microsecond=0)
        run = leave_run(bucket.objects, started).run
        s3_proxy.inject(refused, method="GET", path="batches/main")
        for command in (("status", "--check"), ("status",), ("cost",), ("show", run)):
            result = ask(*command, environ=environ)
            assert (result.exit_code, result.stdout) == (6, ""), command
            assert "no log could be read" in result.stderr
        s3_proxy.relent()
        assert ask("status", "--check", environ=environ).exit_code == 0
    run = leave_run(bucket.objects, started + HOUR).run
    s3_proxy.inject(refused, method="GET", path=run)
    result = ask("status", environ=environ)
    assert result.exit_code == 0
    assert f"warning: main/{run}" in result.stderr


def test_cost_of_a_month(bucket: Bucket) -> None:
    """Each run, the sums, a machine that is never off beside them, and what looking costs."""
    writer = RunWriter(bucket.objects, datetime.now(UTC) - timedelta(seconds=30))
    writer.append(began=writer.began())
    writer.append(planned=Planned(release=RELEASE, count=1, jobs=("quotes",)))
    writer.append(jobs=(writer.job("quotes"),))
    spent = Cost(
        total_usd=0.0123,
        billed_seconds=600,
        market="spot",
        rate_usd_hour=0.0182,
        rate_source="spot-history",
        instance_usd=0.01,
        address_usd=0.0023,
        standing_usd_month=0.5,
    )
    writer.append(closed=writer.closed(cost=spent))
    # Of the month in which it began: another one may begin before the command does.
    month = ("cost", "--timezone", "UTC", "--month", f"{writer.started:%Y-%m}")
    result = ask(*month, environ=bucket.environ)
    assert result.exit_code == 0
    assert re.search(
        rf"10\.0 min +spot +0\.0182 +0\.0100 +0\.0023 +0\.0123 +{writer.run}", result.output
    )
    assert re.search(r"^runs +0\.01 USD$", result.output, re.MULTILINE)
    assert "a machine that is never off" in result.output
    assert "43,200 LIST requests a month" in result.output
    document = json.loads(ask(*month, "--json", environ=bucket.environ).output)
    assert document["runs"][0]["usd"] == 0.0123
    assert document["poll_requests_month"] == REQUESTS_MONTH
    other = ask("cost", "--month", "2025-01", "--json", environ=bucket.environ)
    assert json.loads(other.output)["runs"] == []


def test_nothing_hostile_reaches_the_terminal(folder: Bucket) -> None:
    """Escape sequences, line breaks and overrides of the direction in any text are gone, in each command."""
    evil = EVIL.encode("utf-8", "ignore").decode()
    writer = RunWriter(folder.objects, datetime.now(UTC) - HOUR)
    began = writer.began()
    host = began.host.model_copy(update={"name": evil, "instance_type": evil})
    writer.append(began=began.model_copy(update={"host": host}))
    release = RELEASE.model_copy(update={"ref": evil})
    writer.append(planned=Planned(release=release, count=1, jobs=("quotes",)))
    writer.append(log=(writer.log_part(json.dumps({"event": evil, evil: evil}).encode()),))
    writer.append(jobs=(writer.job("quotes", "failed", message=evil * 9, files={evil: b"x"}),))
    writer.append(closed=writer.closed(interruption=evil, warnings=(evil,)))
    for arguments in (
        ["status"],
        ["show", "latest"],
        ["show", "latest", "quotes"],
        ["logs", "latest"],
    ):
        result = ask(*arguments, environ=folder.environ)
        assert result.exit_code == 0, result.stderr
        assert not set(result.output) & set("\x1b\x07\r\u202e\x9b\u2028"), arguments
        assert "gone" in result.output


@pytest.mark.parametrize(
    ("arguments", "environ", "code", "says"),
    [
        (["show"], {}, 2, "Missing argument"),
        (["logs", "latest", "--interval", "0.1s"], {}, 2, "--interval takes 1 seconds or more"),
        (["cost", "--month", "november"], {}, 2, "'november' is no month"),
        (["status", "--limit", "0"], {}, 2, "--limit"),
        (["status", "--timezone", "Mars"], {}, 2, "there is no time zone 'Mars'"),
        (["status", "--schedule", "soon"], {}, 2, "--schedule '10 4 * * *'"),
        (["status", "--schedule", ""], {}, 2, "--schedule '10 4 * * *'"),
        (["status", "--schedule", "* " * 200], {}, 2, "at most 300 characters"),
        (["status", "--store", "/nowhere/at/all"], {}, 6, "no bucket in /nowhere/at/all"),
        (["status", "--store", "ftp://x"], {}, 4, "--store: store.url"),
        (["status", "--config", "/nowhere.toml"], {}, 4, "no such file"),
        (["status"], {"MAYFLY_CONFIG": "/nowhere.toml"}, 4, "no such file"),
        (["status", "--set", "store.ulr=x"], {}, 4, 'did you mean "store.url"?'),
        (["status"], {"MAYFLY_STORE_URLL": "x"}, 4, 'did you mean "MAYFLY_STORE_URL"?'),
        (
            ["status", "--store", "s3://b/p"],
            {"MAYFLY_STORE_CREDENTIALS": "ssm:/x"},
            4,
            "not used at home",
        ),
        (
            ["status", "--store", "s3://bucket"],
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
    arguments: list[str], environ: dict[str, str], code: int, says: str
) -> None:
    """Usage, configuration and an unreachable bucket have exit codes of their own, and nothing on stdout."""
    result = ask(*arguments, environ=environ)
    assert (result.exit_code, result.stdout) == (code, "")
    assert says in result.stderr


def test_a_run_job_or_history_that_there_is_not(folder: Bucket, tmp_path: Path) -> None:
    """The answer says where the names are; a file that is no history is not touched."""
    leave_run(folder.objects, datetime.now(UTC) - HOUR)
    other = tmp_path / "letter.txt"
    other.write_text("dear")
    for arguments, says in (
        (["show", "20260101T000000Z-000000"], "`mayfly status -n 100` lists runs"),
        (
            ["show", "20260101T000000Z-000000"],
            "began no run has none here, and said why on its console",
        ),
        (["logs", "nonsense"], "no run 'nonsense' is known"),
        (["verify", "20260101T000000Z-000000"], "`latest` is the last one"),
        (["verify", "latest", "nothing"], "its jobs: quotes"),
        (["show", "latest", "nothing"], "its jobs: quotes"),
        (["status", "--history", str(other)], "--history"),
    ):
        result = ask(*arguments, environ=folder.environ)
        assert result.exit_code == 2
        assert says in result.stderr
    assert other.read_text() == "dear"


def test_all_faults_of_a_configuration_are_reported_at_once(tmp_path: Path) -> None:
    """A file with two faults and a wrong variable make three lines."""
    config = tmp_path / "agent.toml"
    config.write_text('[store]\nurll = "x"\n[limits]\nrun = "soon"\n')
    result = ask("status", "--config", str(config), environ={"MAYFLY_LIMITS_X": "1"})
    assert result.exit_code == 4
    assert result.stderr.count("error: ") == 3


def test_a_laptop_without_configuration_looks_into_its_own_bucket(tmp_path: Path) -> None:
    """The default bucket is where `mayfly run` would have put it."""
    root = tmp_path / "state" / "mayfly" / "bucket"
    root.mkdir(parents=True)
    writer = leave_run(Bucket.in_folder(root).objects, datetime.now(UTC) - HOUR)
    assert writer.run in ask("status").output


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_colours_are_for_terminals_that_want_them(folder: Bucket, no_colour: str) -> None:
    """A terminal gets colours, unless NO_COLOR is set."""
    leave_run(folder.objects, datetime.now(UTC) - HOUR)
    environ = {**folder.environ, "NO_COLOR": no_colour}
    text = at_terminal("status", environ=environ)[1].decode()
    assert ("\x1b[32msucceeded\x1b[0m" in text) is not bool(no_colour)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (200_000, "2 d"), (-5, "0 s")],
)
def test_ages(seconds: int, text: str) -> None:
    """In the largest unit; what is to come is now."""
    now = datetime.now(UTC)
    assert age(now - timedelta(seconds=seconds), now) == text


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


def test_without_its_packages_the_service_says_what_to_install() -> None:
    """Before it reads or writes anything."""
    program = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['mayfly', 'serve']; "
        "from agent.cli import main; main()"
    )
    done = completed([sys.executable, "-c", program])
    assert (done.returncode, "uv sync --inexact --extra home" in done.stderr) == (2, True)
