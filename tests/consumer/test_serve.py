"""The real `mayfly serve`: what it tells, what it refuses, how it ends."""

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from agent.contract.facts import Schedule
from agent.contract.layout import PointerKey
from consumer.store import Store
from tests.bucket.bucket import Bucket
from tests.bucket.entries import RunWriter, leave_run
from tests.consumer.serving import SECONDS, Serving, serving
from tests.parts.command import call, completed, mayfly, surroundings
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

NOON = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
FAILING = {"quotes": "failed", "notes": "succeeded"}
QUOTES = '{job_name="quotes",schedule="main"}'


def days_ago(days: float) -> datetime:
    """When a run began so long ago."""
    return NOON - timedelta(days=days)


def lint(service: Serving) -> str:
    """Return what Prometheus' own check has to say of the metrics."""
    text = service.get("/metrics").text
    done = completed([program("promtool"), "check", "metrics"], stdin=text)
    return done.stdout + done.stderr


@contextmanager
def held(service: Serving, count: int, request: str) -> Iterator[list[socket.socket]]:
    """Hold connections open that have sent a request, or the beginning of one, and read nothing."""
    port = int(service.url.rpartition(":")[2])
    with ExitStack() as stack:
        found = [
            stack.enter_context(socket.create_connection((LOOPBACK, port))) for _ in range(count)
        ]
        for one in found:
            one.sendall(request.encode())
        yield found


def leave_history(bucket: Bucket) -> list[RunWriter]:
    """Five days: two good, one lost, two bad for one of two jobs; return the runs, oldest first."""
    runs = [leave_run(bucket.objects, days_ago(days), ["quotes", "notes"]) for days in (5, 4)]
    runs.append(leave_run(bucket.objects, days_ago(3), ["quotes", "notes"], until="planned"))
    return runs + [leave_run(bucket.objects, days_ago(days), FAILING) for days in (2, 1)]


def test_metrics_tell_what_the_bucket_says(bucket: Bucket, tmp_path: Path) -> None:
    """One scrape has it all: failures with their cause, sizes, what was lost; the next one what came meanwhile."""
    leave_history(bucket)
    with serving(tmp_path / "home", bucket.environ) as service:
        found = service.metrics()
        text = service.get("/metrics").text
        assert lint(service) == ""
        run = RunWriter(bucket.objects, datetime.now(UTC) - timedelta(minutes=10))
        run.append(began=run.began())
        run.append(jobs=(run.job("quotes"),))
        service.looked()
        running = service.metrics()
        run.append(jobs=(run.job("notes"),), closed=run.closed())
        service.looked()
        closed = service.metrics()
    assert found[f"mayfly_job_consecutive_failures{QUOTES}"] == 3
    assert found[f"mayfly_job_failed_day_streak{QUOTES}"] == 3
    assert found[f"mayfly_job_failing_since_timestamp_seconds{QUOTES}"] == days_ago(3).timestamp()
    cause = '{cause="page_changed",job_name="quotes",schedule="main"}'
    assert found[f"mayfly_job_last_failure_cause{cause}"] == 1
    status = '{job_name="notes",schedule="main",status="succeeded"}'
    assert found[f"mayfly_job_last_status{status}"] == 1
    assert found['mayfly_job_last_files{job_name="notes",schedule="main"}'] == 2
    assert found['mayfly_run_last_status{schedule="main",status="partial"}'] == 1
    assert found['mayfly_run_jobs_done{schedule="main"}'] == 2
    assert found['mayfly_runs_lost{schedule="main"}'] == 1
    assert found['mayfly_schedule_known{schedule="main"}'] == 0
    assert found['mayfly_schedule_missed_runs{schedule="main"}'] == 0
    assert found["mayfly_bucket_up"] == 1
    assert found["mayfly_bucket_invalid_entries"] == 0
    assert found["mayfly_polls_total"] >= 1
    assert found["process_resident_memory_bytes"] > 0
    assert not [name for name in found if "cost" in name or "pull" in name or "group" in name]
    # Two services in one Prometheus do not mix, however they are scraped.
    ours = [line for line in text.splitlines() if line.startswith("mayfly_")]
    assert [line for line in ours if f'bucket="{bucket.reader().name}"' not in line] == []
    assert running['mayfly_run_last_status{schedule="main",status="running"}'] == 1
    assert running['mayfly_runs_running{schedule="main"}'] == 1
    assert running['mayfly_run_jobs_done{schedule="main"}'] == 1
    assert running[f"mayfly_job_consecutive_failures{QUOTES}"] == 0
    assert closed['mayfly_run_last_status{schedule="main",status="succeeded"}'] == 1
    assert closed['mayfly_runs_running{schedule="main"}'] == 0


@pytest.mark.parametrize("told", [True, False], ids=["its runs tell", "a person tells"])
def test_what_is_missed_is_told_by_a_schedule(
    folder: Bucket, tmp_path: Path, *, told: bool
) -> None:
    """A machine that did not come this hour; a bucket whose runs name no schedule needs to be told one."""
    said = Schedule(expression="cron(0 * * * ? *)", timezone="UTC", grace_seconds=60)
    leave_run(folder.objects, NOON - timedelta(hours=3), scheduled=said if told else None)
    given = () if told else ("--schedule", "0 * * * *", "--grace", "1m")
    with serving(tmp_path / "home", folder.environ, *given) as service:
        assert service.metrics()['mayfly_schedule_missed_runs{schedule="main"}'] >= 3
    with serving(tmp_path / "home", folder.environ, *given, "--ended-schedule", "main") as service:
        assert not [name for name in service.metrics() if 'schedule="main"' in name]


def test_a_clock_that_was_set_back_does_not_stop_the_judging(
    folder: Bucket, tmp_path: Path
) -> None:
    """Home's clock was a day ahead when the bucket was last read: what is due is judged by what it is now."""
    said = Schedule(expression="cron(0 * * * ? *)", timezone="UTC", grace_seconds=60)
    leave_run(folder.objects, NOON - timedelta(hours=3), scheduled=said)
    with serving(tmp_path / "home", folder.environ) as service:
        history = service.history
    identity = folder.reader().identity
    with closing(Store.open(history, identity, datetime.now(UTC))) as store:
        store.mark("polled", datetime.now(UTC) + timedelta(days=1))
    with serving(tmp_path / "home", folder.environ) as service:
        found = service.metrics()
        assert found["mayfly_bucket_last_read_timestamp_seconds"] <= time.time()
        assert found['mayfly_schedule_missed_runs{schedule="main"}'] < 10


def test_runs_of_the_real_agent_are_understood(tmp_path: Path) -> None:
    """From a jobs.toml to a metric and a page, with nothing between them that a test made up."""
    bench = Bench.make(tmp_path)
    bench.release(
        "v1.0.0",
        """
        [[job]]
        name = "fine"
        command = ["sh", "-c", "echo 1 > $MAYFLY_OUTPUT_DIR/a; echo '{\\"items\\": 3}' > $MAYFLY_RESULT_FILE"]

        [[job]]
        name = "links"
        command = ["sh", "-c", "cd $MAYFLY_OUTPUT_DIR; echo 1 > 'Episode #1'; ln -s / up; ln -s / on"]

        [[job]]
        name = "bad"
        command = ["sh", "bad.sh"]
        """,
        {
            "bad.sh": """
                mkdir "$MAYFLY_OUTPUT_DIR/.evidence"
                echo x > "$MAYFLY_OUTPUT_DIR/.evidence/y.txt"
                exit 3
            """
        },
    )
    run = bench.run()
    assert run.code == 3
    with serving(tmp_path / "home", {"MAYFLY_STORE_URL": bench.store}) as service:
        found = service.metrics()
        log = service.get(f"/runs/{run.run_id}/log/0.jsonl")
        page = service.get(f"/runs/{run.run_id}")
        bad = service.get(f"/runs/{run.run_id}/jobs/bad").text
        links = service.get(f"/runs/{run.run_id}/jobs/links").text
        package = f"/runs/{run.run_id}/jobs/links/datapackage.json"
        named = json.loads(service.get(package).body)["resources"]
        (path,) = (one["path"] for one in named if one.get("mayfly:path") == "Episode #1")
        odd = service.get(f"/runs/{run.run_id}/jobs/links/{quote(path)}")

    def of(name: str, job: str) -> float:
        return found[f'mayfly_job_{name}{{job_name="{job}",schedule="main"}}']

    assert (of("last_refused_files", "links"), of("last_refused_files", "fine")) == (2, 0)
    assert (of("last_files", "fine"), of("last_items", "fine")) == (1, 3)
    assert of("consecutive_failures", "bad") == 1
    assert any(name.startswith("mayfly_release_info{") for name in found)
    assert log.body.startswith(b"{")
    assert (page.status, odd.body) == (200, b"1\n")
    assert "y.txt" in bad
    assert "Episode #1" in links


def test_forged_entries_are_a_metric_and_no_traceback(folder: Bucket, tmp_path: Path) -> None:
    """Garbage beside a good run costs that garbage."""
    leave_run(folder.objects, days_ago(1))
    for number in range(5):
        forged = RunWriter(folder.objects, days_ago(2), nonce=f"{number:08x}")
        key = forged.key
        forged.put(PointerKey(forged.now, "began", key).text, b"")
        forged.put(key.text, b"\xff" * number)
    with serving(tmp_path / "home", folder.environ) as service:
        found = service.metrics()
        assert len(service.events("entry.invalid")) == 5
        log = service.log.read_text()
    assert found["mayfly_bucket_invalid_entries"] == 5
    assert found[f"mayfly_job_consecutive_failures{QUOTES}"] == 0
    assert "Traceback" not in log


def test_a_bucket_that_is_gone_is_told(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    """Metrics go on from the history; health says what is wrong, after the time it was given.

    Without a history that was filled, what is known is of years ago, and nothing of it is told.
    """
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    leave_history(bucket)
    options = ("--unhealthy-after", "2s")
    with FaultProxy(s3_server) as proxy:
        environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": proxy.url}
        with serving(tmp_path / "home", environ) as service:
            assert service.get("/healthz").status == 200
    with serving(tmp_path / "home", environ, *options, wait=False) as service:
        wait_until(lambda: service.get("/healthz").status == 503, seconds=SECONDS, what="503")
        reason = service.get("/healthz").text
        found = service.metrics()
    assert reason.startswith("the bucket was not read")
    assert found["mayfly_bucket_up"] == 0
    assert found[f"mayfly_job_failed_day_streak{QUOTES}"] == 3
    with serving(tmp_path / "new", environ, wait=False) as service:
        found = service.metrics()
    assert found["mayfly_bucket_up"] == 0
    assert "mayfly_bucket_last_read_timestamp_seconds" not in found
    assert not [name for name in found if name.startswith(("mayfly_job", "mayfly_run"))]


def test_objects_that_cannot_be_read_are_told(
    s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Keys that may list and not read have read nothing; a run of which alone the objects are refused has come."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": s3_proxy.url}
    said = Schedule(expression="cron(0 * * * ? *)", timezone="UTC", grace_seconds=60)
    leave_run(bucket.objects, NOON - timedelta(hours=1), scheduled=said)
    s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path="batches/main")
    with serving(tmp_path / "home", environ, "--unhealthy-after", "2s", wait=False) as service:
        wait_until(lambda: service.get("/healthz").status == 503, seconds=SECONDS, what="503")
        assert "no log could be read" in service.get("/healthz").text
        found = service.metrics()
        assert (found["mayfly_bucket_up"], found["mayfly_poll_failures_total"] > 0) == (0, True)
        assert "mayfly_bucket_last_read_timestamp_seconds" not in found
        s3_proxy.relent()
        service.looked()
        refused = RunWriter(bucket.objects, NOON).run
        s3_proxy.inject(Answer(403, "AccessDenied"), method="GET", path=refused)
        assert leave_run(bucket.objects, NOON, scheduled=said).run == refused
        wait_until(lambda: service.events("batch.failed"), seconds=SECONDS, what="a complaint")

        def runs() -> list[float]:
            """Whether the bucket is read, how many runs are under way, and how many were missed."""
            found = service.metrics()
            names = ("runs_running", "schedule_missed_runs")
            of_main = [found[f'mayfly_{name}{{schedule="main"}}'] for name in names]
            return [found["mayfly_bucket_up"], *of_main]

        wait_until(lambda: runs() == [1, 1, 0], seconds=SECONDS, what="the run to be known")


def test_a_folder_that_is_gone_is_told(folder: Bucket, tmp_path: Path) -> None:
    """A bucket on a disk that was taken away is not one without news; when it is back, all is well."""
    leave_history(folder)
    there, away = tmp_path / "bucket with spaces", tmp_path / "away"
    with serving(tmp_path / "home", folder.environ, "--unhealthy-after", "2s") as service:
        there.rename(away)
        # A busy machine may not have read it for two seconds, before that.
        gone = "there is no bucket in"
        wait_until(lambda: gone in service.get("/healthz").text, seconds=SECONDS, what="503")
        assert service.get("/healthz").status == 503
        found = service.metrics()
        assert (found["mayfly_bucket_up"], found["mayfly_poll_failures_total"] > 0) == (0, True)
        away.rename(there)
        wait_until(lambda: service.get("/healthz").status == 200, seconds=SECONDS, what="200")
        assert service.metrics()["mayfly_bucket_up"] == 1


def test_a_history_that_is_lost_while_it_serves_is_made_again(
    folder: Bucket, tmp_path: Path
) -> None:
    """The next polls fill it from the bucket; what somebody else puts in its place is left alone, and told."""
    leave_history(folder)
    with serving(tmp_path / "home", folder.environ) as service:

        def made_again() -> None:
            wait_until(
                lambda: (
                    service.history.exists()
                    and service.metrics().get(f"mayfly_job_failed_day_streak{QUOTES}") == 3
                    and service.metrics()["mayfly_history_up"] == 1
                ),
                seconds=SECONDS,
                what="the history",
            )

        def told() -> bool:
            return any("not a history of Mayfly" in one for one in service.events("poll.failed"))

        service.history.unlink()
        made_again()
        service.history.unlink()
        (tmp_path / "notes").write_text("somebody's")
        (tmp_path / "notes").replace(service.history)
        wait_until(told, seconds=SECONDS, what="the refusal")
        assert service.metrics()["mayfly_history_up"] == 0
        assert service.history.read_text() == "somebody's"
        service.history.unlink()
        made_again()
        assert "Traceback" not in service.log.read_text()


def test_a_history_that_was_busy_is_still_shared(folder: Bucket, tmp_path: Path) -> None:
    """After a failed poll `mayfly status` beside it takes the write-ahead log of the service from no one."""
    leave_history(folder)

    def polled(history: Path) -> datetime:
        """Ask as another process would: this one closing the file must not take the service's locks."""
        query = "SELECT value FROM about WHERE name = 'polled'"
        ask = f"import sqlite3, sys; print(*sqlite3.connect(sys.argv[1]).execute({query!r}).fetchone())"
        done = completed([sys.executable, "-c", ask, str(history)])
        return datetime.fromisoformat(done.stdout.strip())

    with serving(tmp_path / "home", folder.environ) as service:
        with closing(sqlite3.connect(service.history, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            wait_until(lambda: service.events("poll.failed"), seconds=SECONDS, what="a complaint")
            found = service.metrics()
            assert (found["mayfly_bucket_up"], found["mayfly_history_up"]) == (1, 0)
            other.execute("ROLLBACK")
        wait_until(lambda: service.events("poll.works"), seconds=SECONDS, what="the next poll")
        log = service.history.with_name(f"{service.history.name}-wal")
        for _ in range(2):
            around = surroundings(folder.environ)
            done = mayfly("status", "--history", str(service.history), environ=around)
            assert done.returncode in (0, 3), done.stderr
            before = datetime.now(UTC)
            assert log.exists()
            service.looked()
            assert polled(service.history) > before
        assert service.metrics()["mayfly_history_up"] == 1


def test_each_bucket_has_a_history_of_its_own(tmp_path: Path) -> None:
    """Without `--history` two services beside each other take nothing from one another."""
    one, two = Bucket.in_folder(tmp_path / "one"), Bucket.in_folder(tmp_path / "two")
    leave_run(one.objects, days_ago(1), ["first"])
    leave_run(two.objects, days_ago(1), ["second"])
    state = {"MAYFLY_PATHS_STATE": str(tmp_path / "state")}

    def jobs(service: Serving) -> list[str]:
        names = (re.search(r'job_name="(\w+)"', name) for name in service.metrics())
        return sorted({found[1] for found in names if found})

    with (
        serving(tmp_path / "a", one.environ | state, history=False) as first,
        serving(tmp_path / "b", two.environ | state, history=False) as second,
    ):
        assert (jobs(first), jobs(second)) == (["first"], ["second"])
        assert len(list((tmp_path / "state" / "home").glob("*.history"))) == 2


def test_with_a_pull_one_list_is_all_that_is_asked_when_nothing_is_new(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    """One poll serves both; a new run costs what it is made of, once."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    leave_run(bucket.objects, days_ago(1), {"quotes": "succeeded", "notes": "failed"})
    dest = tmp_path / "dest"
    with FaultProxy(s3_server) as proxy:
        environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": proxy.url}
        with serving(tmp_path / "home", environ, "--pull", str(dest)) as service:
            wait_until((dest / "quotes" / "latest").exists, seconds=SECONDS, what="the pull")
            service.looked()
            polls, asked = service.metrics()["mayfly_polls_total"], len(proxy.seen)
            service.looked()
            since = proxy.seen[asked:]
            found = service.metrics()
            assert {one.method for one in since} == {"GET"}
            assert all("list-type=2" in one.path for one in since)
            # Of a poll that is under way the LIST has been asked for, and it is not counted yet.
            assert len(since) <= found["mayfly_polls_total"] - polls + 1
    assert found["mayfly_pulled_jobs_total"] == 1
    assert found["mayfly_pulled_bytes_total"] == 21
    assert found['mayfly_pull_problems{problem="disk"}'] == 0


def test_what_is_wrong_with_a_pull_is_a_metric_from_the_start(
    folder: Bucket, tmp_path: Path
) -> None:
    """A hook that fails, and a file that is not what was committed, each by its kind; all as Prometheus wants it."""
    run = leave_run(folder.objects, days_ago(1), ["quotes", "notes"]).run
    folder.objects.put(f"runs/{run}/jobs/notes/files/page 1.json", b"??")
    options = ("--pull", str(tmp_path / "dest"), "--exec", "exit 3")
    with serving(tmp_path / "home", folder.environ, *options) as service:
        wait_until(
            lambda: service.metrics().get("mayfly_hook_failures_total", 0) > 1,
            seconds=SECONDS,
            what="the hook to fail again",
        )
        found = service.metrics()
        assert lint(service) == ""
        page = service.get("/").text
        began = found["mayfly_pull_last_success_timestamp_seconds"]
    assert found['mayfly_pull_problems{problem="hook"}'] == 1
    assert found['mayfly_pull_problems{problem="invalid"}'] == 1
    assert found['mayfly_pull_problems{problem="disk"}'] == 0
    assert "hook" in page
    # It never ended well, so it stands still since the service began; also after a restart.
    with serving(tmp_path / "home", folder.environ, *options) as service:
        again = service.metrics()["mayfly_pull_last_success_timestamp_seconds"]
    assert again == began


def test_what_was_seen_to_is_no_problem_any_more(folder: Bucket, tmp_path: Path) -> None:
    """Who removes what a hook refuses, or puts the right folder in the place of a wrong one, has solved it."""
    run = leave_run(folder.objects, days_ago(1), ["quotes", "notes"]).run
    dest = tmp_path / "dest"
    wrong = dest / "notes" / run
    (wrong / "mine").mkdir(parents=True)

    def problems(service: Serving) -> list[float]:
        found = service.metrics()
        return [
            found.get(f'mayfly_pull_problems{{problem="{one}"}}', -1) for one in ("disk", "hook")
        ]

    with serving(
        tmp_path / "home", folder.environ, "--pull", str(dest), "--exec", "exit 3"
    ) as service:
        wait_until(lambda: problems(service) == [1, 1], seconds=SECONDS, what="both problems")
        shutil.rmtree(dest / "quotes" / run)
        wrong.rename(tmp_path / "mine")
        shutil.copytree(tmp_path / "bucket with spaces" / "runs" / run / "jobs" / "notes", wrong)
        wait_until(lambda: problems(service) == [0, 0], seconds=SECONDS, what="no problem")


def test_what_another_pull_took_is_rejected_no_more(folder: Bucket, tmp_path: Path) -> None:
    """Who had the store mend a file calls `mayfly pull --again`, as the alert says, and the service hears of it."""
    run, dest = leave_run(folder.objects, days_ago(1), ["quotes", "notes"]).run, tmp_path / "dest"
    good = {}
    for job in ("quotes", "notes"):
        file = f"runs/{run}/jobs/{job}/files/page 1.json"
        good[file] = folder.objects.get(file)
        folder.objects.put(file, b"??")

    def is_told(service: Serving) -> bool:
        told = service.metrics().get('mayfly_pull_problems{problem="invalid"}')
        return told == len(good)

    with serving(tmp_path / "home", folder.environ, "--pull", str(dest)) as service:
        while good:
            wait_until(lambda: is_told(service), seconds=SECONDS, what="what is rejected")
            folder.objects.put(*good.popitem())
            again = call("pull", str(dest), "--again", environ=folder.environ)
            assert again.exit_code == (3 if good else 0), again.output
        wait_until(lambda: is_told(service), seconds=SECONDS, what="no problem")


def test_what_the_folder_refuses_is_tried_again(folder: Bucket, tmp_path: Path) -> None:
    """A folder in the place of `latest`, and an old run that cannot be removed, are problems until they are no more."""
    for days in (3, 2):
        leave_run(folder.objects, days_ago(days), ["quotes"])
    dest = tmp_path / "dest"
    latest, trash = dest / "quotes" / "latest", dest / ".mayfly" / "trash"
    latest.mkdir(parents=True)
    trash.parent.mkdir()
    trash.write_text("in the way")

    def disk(service: Serving) -> float:
        return service.metrics().get('mayfly_pull_problems{problem="disk"}', -1)

    options = ("--pull", str(dest), "--keep", "1")
    with serving(tmp_path / "home", folder.environ, *options) as service:
        wait_until(lambda: disk(service) == 1, seconds=SECONDS, what="the problem")
        began = service.metrics()["mayfly_pull_last_success_timestamp_seconds"]
        latest.rmdir()
        wait_until(latest.is_symlink, seconds=SECONDS, what="the link")
        newest = latest.resolve()
        leave_run(folder.objects, days_ago(1), ["quotes"])
        wait_until(lambda: latest.resolve() != newest, seconds=SECONDS, what="the next run")
        pulls = service.metrics()["mayfly_pulls_total"]
        wait_until(
            lambda: service.metrics()["mayfly_pulls_total"] > pulls + 1,
            seconds=SECONDS,
            what="a pull without news",
        )
        assert disk(service) == 1
        assert service.metrics()["mayfly_pull_last_success_timestamp_seconds"] == began
        trash.unlink()
        wait_until(lambda: disk(service) == 0, seconds=SECONDS, what="no problem")
        assert len(list(latest.parent.iterdir())) == 2, "the last run, and the link"


def test_the_page_counts_what_is_not_at_home(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path
) -> None:
    """All that waits for a store that fails, and not only the jobs with which a pull found that out."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    leave_run(bucket.objects, days_ago(1), [f"job-{number}" for number in range(6)])
    with FaultProxy(s3_server) as proxy:
        proxy.inject(Answer(403, "AccessDenied"), method="GET", path="/files/")
        environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": proxy.url}
        with serving(tmp_path / "home", environ, "--pull", str(tmp_path / "dest")) as service:

            def pending() -> int | None:
                pull = json.loads(service.get("/status.json").text)["health"]["pull"]
                return int(pull["pending"]) if pull["ended"] else None

            wait_until(lambda: pending() is not None, seconds=SECONDS, what="a pull")
            assert pending() == 6
            assert "6 packages not at home" in service.get("/").text
            proxy.heal()
            wait_until(lambda: pending() == 0, seconds=SECONDS, what="the jobs to come home")


def test_logs_that_cannot_be_printed_end_nothing_else(folder: Bucket, tmp_path: Path) -> None:
    """On a full disk, or when nobody reads them any more, the service goes on and says so."""
    full = ("sh", "-c", 'exec "$@" > /dev/full', "sh")
    with serving(tmp_path / "home", folder.environ, "--print-logs", before=full) as service:
        leave_run(folder.objects, datetime.now(UTC) - timedelta(minutes=10))
        wait_until(lambda: service.events("log.skipped"), seconds=SECONDS, what="a complaint")
        service.looked()
    assert "No space left" in service.events("log.skipped")[0]


def test_logs_of_runs_are_printed_once_as_they_arrive(folder: Bucket, tmp_path: Path) -> None:
    """For whatever collects what programs print: new parts, with the run; not those of long ago, and none twice."""
    old = leave_run(folder.objects, days_ago(3))
    leave_run(folder.objects, datetime.now(UTC) - timedelta(minutes=10))
    with serving(tmp_path / "home", folder.environ, "--print-logs") as service:
        run = RunWriter(folder.objects, datetime.now(UTC) - timedelta(minutes=5))
        text = b'{"event": "job.started", "job": "quotes", "run_id": "r"}\nno json \xff\n'
        run.append(began=run.began(), log=(run.log_part(text),))
        service.looked()
    with serving(tmp_path / "home", folder.environ, "--print-logs") as service:
        service.looked()
        lines = [json.loads(line) for line in service.log.read_text().splitlines()]
    mine = [line for line in lines if line.get("run") == run.run]
    assert mine == [
        {"event": "job.started", "job": "quotes", "run": run.run},
        {"event": "no json \ufffd", "run": run.run},
    ]
    assert not [line for line in lines if line.get("run") == old.run]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_and_in_order(
    folder: Bucket, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal ends it within seconds, with clients that hold connections open."""
    leave_history(folder)
    with serving(tmp_path / "home", folder.environ) as service:
        with held(service, 1, "GET / HTTP/1.1\r\n"):
            os.kill(service.program.pid, number)
            wait_until(lambda: not service.program.running, seconds=30, what="its end")
        assert service.events("serve.stopped")


@pytest.mark.long
def test_connections_that_drip_or_take_nothing_do_not_keep_metrics_away(
    folder: Bucket, tmp_path: Path
) -> None:
    """Headers that never end, and readers that take nothing; who drips is let go of."""
    run = leave_run(folder.objects, days_ago(1), files={"large": bytes(20_000_000)}).run
    path = f"/runs/{run}/jobs/quotes/files/large"
    with (
        serving(tmp_path / "home", folder.environ) as service,
        held(service, 30, "GET /metr") as dripping,
        held(service, 30, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n") as reading,
    ):
        assert service.get("/metrics").status == 200
        assert service.get(f"/runs/{run}").status == 200

        def is_let_go() -> bool:
            try:
                dripping[0].sendall(b"i")
            except OSError:
                return True
            return False

        wait_until(is_let_go, seconds=60, what="the connection that drips to be closed")
        for one in (*dripping, *reading):
            one.close()
        # Nobody who went away holds a turn.
        large = service.get(path)
        assert (large.status, len(large.body)) == (200, 20_000_000)


def test_its_memory_is_bounded_while_somebody_reads(folder: Bucket, tmp_path: Path) -> None:
    """Forty readers of a large file that take nothing hold no more than a few pieces each."""
    run = leave_run(folder.objects, days_ago(1), files={"large": bytes(60_000_000)}).run
    target = f"GET /runs/{run}/jobs/quotes/files/large HTTP/1.1\r\nHost: x\r\n\r\n"
    with serving(tmp_path / "home", folder.environ) as service:
        before = service.metrics()["process_resident_memory_bytes"]
        with held(service, 40, target):
            time.sleep(2)  # for all of them to be answered as far as they will be
            after = service.metrics()["process_resident_memory_bytes"]
    assert after - before < 100_000_000


def test_pages_of_somebody_else_cannot_use_its_address(folder: Bucket, tmp_path: Path) -> None:
    """A name that he registered and points here is refused; addresses, names at home, and names one gives are not."""
    leave_history(folder)
    allow = ("--allow-host", "mayfly.example.org")
    with serving(tmp_path / "home", folder.environ, *allow) as service:

        def status(host: str, path: str = "/healthz") -> int:
            with held(service, 1, f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n") as (one,):
                return int(one.recv(100).split()[1])

        own = ("127.0.0.1", "localhost:9464", "[::1]:9464", "mayfly", "a.b.svc")
        for ours in (*own, "MAYFLY.example.org:80"):
            assert status(ours) == 200, ours
        for other in ("evil.example", "mayfly.example.org.evil.example", "127.0.0.1.evil.example"):
            assert [status(other, path) for path in ("/healthz", "/", "/metrics")] == [421] * 3


def test_usage_errors_are_told_before_anything_is_written(folder: Bucket, tmp_path: Path) -> None:
    """An address that is taken or is none, a zone that is nowhere, a schedule that nobody understands."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        for options, says in (
            (["--listen", address], "cannot listen"),
            (["--listen", "nine"], "invalid address"),
            (["--timezone", "Mars/Phobos"], "no time zone"),
            (["--schedule", "every day"], "cannot be read"),
            (["--interval", "0.1s"], "--interval takes"),
        ):
            done = call("serve", "--history", str(tmp_path / "h"), *options, environ=folder.environ)
            assert (done.exit_code, done.stdout) == (2, "")
            assert says in done.stderr
    assert not list(tmp_path.glob("h*"))
