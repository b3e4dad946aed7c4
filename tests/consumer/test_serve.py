"""The real `mayfly serve`: what it tells, what it refuses, how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.core.ids import run_id
from agent.core.results import JobCause, JobResult, JobStatus
from tests.bucket.bucket import Bucket
from tests.bucket.layout import LOG
from tests.bucket.leaving import leave_begun, leave_run
from tests.consumer.serving import SECONDS, Serving, serving
from tests.parts.faultproxy import FaultProxy
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import Bench

PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)


def days_ago(days: float, number: int = 1) -> str:
    """The id of a run that began so long ago."""
    began = datetime.now(UTC) - timedelta(days=days)
    return run_id(began, bytes([number, 0, 1]))


def job(
    name: str = "quotes", *, cause: JobCause | None = None, items: int | None = None
) -> JobResult:
    """A job that succeeded, or failed for a cause."""
    status = JobStatus.FAILED if cause else JobStatus.SUCCEEDED
    return JobResult(
        name=name, status=status, cause=cause, message="no .quote" if cause else "", items=items
    )


def leave_history(bucket: Bucket) -> list[str]:
    """Five days: two good, one vanished, two bad for one of two jobs; return the committed runs, oldest first."""
    runs = [days_ago(days) for days in (5, 4, 2, 1)]
    for number, run in enumerate(runs):
        bad = JobCause.PAGE_CHANGED if number > 1 else None
        leave_run(bucket, run, jobs=(job(cause=bad), job("notes", items=7)), stale=number > 1)
    leave_begun(bucket, days_ago(3))
    return runs


def test_metrics_tell_what_the_bucket_says(bucket: Bucket, tmp_path: Path) -> None:
    """One scrape has it all: failures with their cause, sizes, what vanished, what is stale."""
    leave_history(bucket)
    with serving(tmp_path / "home", bucket.environ) as service:
        found = service.metrics()
    quotes = '{job_name="quotes"}'
    assert found[f"mayfly_job_consecutive_failures{quotes}"] == 2
    assert found[f"mayfly_job_failed_day_streak{quotes}"] == 2
    assert found[f"mayfly_job_missed_day_streak{quotes}"] == 0
    assert found['mayfly_job_last_failure_cause{cause="page_changed",job_name="quotes"}'] == 1
    assert found['mayfly_job_last_failure_cause{cause="blocked",job_name="quotes"}'] == 0
    assert found['mayfly_job_last_status{job_name="notes",status="succeeded"}'] == 1
    assert found['mayfly_job_last_items{job_name="notes"}'] == 7
    assert f"mayfly_job_last_items{quotes}" not in found
    assert found['mayfly_run_last_status{status="partial"}'] == 1
    assert found["mayfly_run_last_duration_seconds"] == 185
    assert found["mayfly_runs_vanished"] == 1
    assert found["mayfly_release_stale"] == 1
    assert 2 * 86400 <= found["mayfly_release_stale_seconds"] < 2 * 86400 + 600
    assert found["mayfly_bucket_up"] == 1
    assert found["mayfly_bucket_refused_entries"] == 0
    assert not [name for name in found if "cost" in name or "pull" in name or "loki" in name]


def test_metrics_are_as_prometheus_wants_them(folder: Bucket, tmp_path: Path) -> None:
    """`promtool check metrics` finds nothing to say."""
    leave_history(folder)
    with serving(tmp_path / "home", folder.environ) as service:
        text = service.get("/metrics").body
    checked = subprocess.run(
        [program("promtool"), "check", "metrics"],
        input=text,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (checked.returncode, checked.stderr, checked.stdout) == (0, b"", b"")


def test_the_real_prometheus_scrapes_it(folder: Bucket, tmp_path: Path) -> None:
    """Prometheus finds the target up, and answers questions about it."""
    leave_history(folder)
    port = free_port()
    config, data = tmp_path / "prometheus.yml", tmp_path / "data"
    with serving(tmp_path / "home", folder.environ) as service:
        target = json.dumps([service.url.removeprefix("http://")])
        config.write_text(
            "scrape_configs:\n- {job_name: mayfly, scrape_interval: 1s, static_configs: "
            f"[{{targets: {target}}}]}}\n"
        )
        prometheus = Program(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address={LOOPBACK}:{port}",
            ],
            log=tmp_path / "prometheus.log",
        )
        there = Serving(f"http://{LOOPBACK}:{port}", data, prometheus.log, prometheus)

        def answer(query: str) -> list[tuple[dict[str, str], float]]:
            try:
                found = json.loads(there.get(f"/api/v1/query?query={query}").body)
            except (OSError, ValueError):  # not yet there, or still reading its log
                return []
            rows = found.get("data", {}).get("result", [])
            return [(row["metric"], float(row["value"][1])) for row in rows]

        try:
            prometheus.start(lambda: bool(answer("mayfly_build_info")), seconds=60)
            failing = answer("mayfly_job_failed_day_streak%3E0")
            up = answer("up")
        finally:
            prometheus.stop()
    assert [(labels["job_name"], labels["job"], value) for labels, value in failing] == [
        ("quotes", "mayfly", 2)
    ]
    assert [value for _, value in up] == [1]


def test_a_new_run_is_told_of_and_a_success_heals(bucket: Bucket, tmp_path: Path) -> None:
    """What is committed while the service runs is seen by the next look."""
    leave_history(bucket)
    with serving(tmp_path / "home", bucket.environ) as service:
        leave_run(bucket, days_ago(0.01), jobs=(job(), job("notes")))
        service.looked()
        found = service.metrics()
    assert found['mayfly_job_consecutive_failures{job_name="quotes"}'] == 0
    assert found['mayfly_job_failed_day_streak{job_name="quotes"}'] == 0
    assert found['mayfly_run_last_status{status="succeeded"}'] == 1
    assert found["mayfly_release_stale"] == 0


def test_runs_of_the_real_agent_are_understood(tmp_path: Path) -> None:
    """From a jobs.toml to a metric, with nothing between them that a test made up."""
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
        log = service.get(f"/runs/{run.run_id}/files/{LOG}")
        evidence = service.get(f"/runs/{run.run_id}/files/_run/evidence/bad/files/y.txt")
        front = service.get("/").body.decode()
        page = service.get(f"/runs/{run.run_id}").body.decode()
    assert found['mayfly_job_last_refused_files{job_name="links"}'] == 2
    assert found['mayfly_job_last_refused_files{job_name="fine"}'] == 0
    assert found['mayfly_job_last_status{job_name="links",status="succeeded"}'] == 1
    for text in (front, page):
        assert "2 files could not be handed over, such as on (a link)" in text
        assert '<span class="badge partial">incomplete</span>' in text
    assert ">links/Episode #1</a>" in page
    assert found['mayfly_job_last_files{job_name="fine"}'] == 1
    assert found['mayfly_job_last_items{job_name="fine"}'] == 3
    assert found['mayfly_job_consecutive_failures{job_name="bad"}'] == 1
    assert any(name.startswith("mayfly_release_info{") for name in found)
    assert b"run.started" in log.body or log.body.startswith(b"{")
    assert (evidence.status, evidence.body) == (200, b"x\n")


def test_forged_entries_are_a_metric_and_no_traceback(folder: Bucket, tmp_path: Path) -> None:
    """Garbage beside a good run costs that garbage."""
    leave_run(folder, days_ago(1), jobs=(job(),))
    for number in range(5):
        folder.put_entry(days_ago(2, number), b"\xff" * number, at=datetime.now(UTC))
    with serving(tmp_path / "home", folder.environ) as service:
        found = service.metrics()
        assert len(service.events("entry.refused")) == 5
        log = service.log.read_text()
    assert found["mayfly_bucket_refused_entries"] == 5
    assert found['mayfly_job_last_status{job_name="quotes",status="succeeded"}'] == 1
    assert "Traceback" not in log


def test_a_bucket_that_is_gone_is_told(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    """Metrics go on from the history; health says what is wrong, after the time it was given."""
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    leave_history(bucket)
    options = ("--unhealthy-after", "2s")
    with FaultProxy(s3_server) as proxy:
        environ = {**bucket.environ, "MAYFLY_STORE_ENDPOINT": proxy.url}
        with serving(tmp_path / "home", environ, *options) as service:
            assert service.get("/healthz").status == 200
    with serving(tmp_path / "home", environ, *options, wait=False) as service:
        wait_until(lambda: service.get("/healthz").status == 503, seconds=SECONDS, what="503")
        reason = service.get("/healthz").text
        found = service.metrics()
    assert reason.startswith("the bucket was not read")
    assert found["mayfly_bucket_up"] == 0
    assert found['mayfly_job_failed_day_streak{job_name="quotes"}'] == 2


def test_a_folder_that_is_gone_is_told(folder: Bucket, tmp_path: Path) -> None:
    """A bucket on a disk that was taken away is not one without news; when it is back, all is well."""
    leave_history(folder)
    there, away = tmp_path / "bucket with spaces", tmp_path / "away"
    with serving(tmp_path / "home", folder.environ, "--unhealthy-after", "2s") as service:
        there.rename(away)
        wait_until(lambda: service.get("/healthz").status == 503, seconds=SECONDS, what="503")
        assert "there is no bucket in" in service.get("/healthz").text
        assert service.metrics()["mayfly_bucket_up"] == 0
        away.rename(there)
        wait_until(lambda: service.get("/healthz").status == 200, seconds=SECONDS, what="200")
        assert service.metrics()["mayfly_bucket_up"] == 1


def test_a_history_that_is_lost_while_it_serves_is_made_again(
    folder: Bucket, tmp_path: Path
) -> None:
    """The next looks fill it from the bucket; what somebody else puts in its place is left alone, and told."""
    leave_history(folder)
    with serving(tmp_path / "home", folder.environ) as service:

        def remove() -> None:
            service.history.unlink()
            service.looked()
            wait_until(
                lambda: (
                    service.metrics().get('mayfly_job_failed_day_streak{job_name="quotes"}') == 2
                ),
                seconds=SECONDS,
                what="the history",
            )

        def told() -> bool:
            return any("not a history of Mayfly" in one for one in service.events("bucket.failed"))

        remove()
        (tmp_path / "notes").write_text("somebody's")
        (tmp_path / "notes").replace(service.history)
        wait_until(told, seconds=SECONDS, what="the refusal")
        assert service.history.read_text() == "somebody's"
        remove()
        assert "Traceback" not in service.log.read_text()


def test_a_service_beside_another_takes_nothing_from_it(tmp_path: Path) -> None:
    """Without `--history` each bucket has a file of its own; a second service of one bucket is refused."""
    one, two = Bucket.in_folder(tmp_path / "one"), Bucket.in_folder(tmp_path / "two")
    leave_run(one, days_ago(1), jobs=(job("first"),))
    leave_run(two, days_ago(1), jobs=(job("second"),))
    state = {"MAYFLY_PATHS_STATE": str(tmp_path / "state")}

    def told(service: Serving, name: str) -> bool:
        return f'mayfly_job_last_files{{job_name="{name}"}}' in service.metrics()

    with (
        serving(tmp_path / "a", one.environ | state, history=False) as first,
        serving(tmp_path / "b", two.environ | state, history=False) as second,
    ):
        for _ in range(2):
            first.looked()
            second.looked()
        assert told(first, "first")
        assert told(second, "second")
        assert len(list((tmp_path / "state" / "home").glob("*.sqlite"))) == 2
        assert [len(service.events("history.begins_anew")) for service in (first, second)] == [1, 1]
        done = subprocess.run(
            [sys.executable, "-m", "agent", "serve", "--listen", f"{LOOPBACK}:{free_port()}"],
            env={**os.environ, "MAYFLY_CONFIG": os.devnull, **one.environ, **state},
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
    assert done.returncode == 2
    assert "another `mayfly serve` writes the history" in done.stderr


def test_a_history_that_is_being_filled_tells_of_no_jobs(tmp_path: Path) -> None:
    """Before the first look has ended, what is known is of years ago; nothing of it is told."""
    bucket = Bucket.in_folder(tmp_path / "bucket")
    nowhere = {
        "MAYFLY_STORE_URL": "s3://none/x",
        "MAYFLY_STORE_ENDPOINT": f"http://{LOOPBACK}:{free_port()}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    leave_history(bucket)
    with serving(tmp_path / "home", nowhere, wait=False) as service:
        found = service.metrics()
    assert found["mayfly_bucket_up"] == 0
    assert "mayfly_bucket_last_read_timestamp_seconds" not in found
    assert not [name for name in found if name.startswith(("mayfly_job", "mayfly_run"))]


def test_a_pull_runs_beside_it(bucket: Bucket, tmp_path: Path) -> None:
    """Files come home, refused runs are counted, and both are metrics."""
    run, bad = days_ago(2), days_ago(1)
    leave_run(bucket, run)
    leave_run(bucket, bad)
    bucket.put_file(bad, "quotes/page 1.json", b"??")
    dest = tmp_path / "dest"
    with serving(tmp_path / "home", bucket.environ, "--pull", str(dest)) as service:
        wait_until(
            lambda: "mayfly_pull_refused_runs" in service.metrics(), seconds=SECONDS, what="a pull"
        )
        found = service.metrics()
        assert (dest / "quotes" / "latest" / "page 1.json").read_bytes() == b"[]"
    assert found["mayfly_pull_refused_runs"] == 1
    assert (dest / "notes" / bad).is_dir()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_and_in_order(
    folder: Bucket, tmp_path: Path, number: signal.Signals
) -> None:
    """A signal ends it within seconds, with clients that hold connections open."""
    leave_history(folder)
    with serving(tmp_path / "home", folder.environ) as service:
        port = int(service.url.rpartition(":")[2])
        with socket.create_connection((LOOPBACK, port)) as idle:
            idle.sendall(b"GET / HTTP/1.1\r\n")
            began = time.monotonic()
            os.kill(service.program.pid, number)
            wait_until(lambda: not service.program.running, seconds=10, what="its end")
            assert time.monotonic() - began < 5
        assert service.events("serve.stopped")


def test_many_idle_connections_do_not_keep_metrics_away(folder: Bucket, tmp_path: Path) -> None:
    """Connections that say nothing, and readers that take nothing, cost no thread."""
    run = days_ago(1)
    leave_run(folder, run, files={"quotes/large": bytes(30_000_000)})
    with serving(tmp_path / "home", folder.environ) as service:
        port = int(service.url.rpartition(":")[2])
        held = [socket.create_connection((LOOPBACK, port)) for _ in range(40)]
        for one in held[:20]:
            one.sendall(b"GET /metr")
        for one in held[20:]:
            one.sendall(f"GET /runs/{run}/files/quotes/large HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        time.sleep(0.5)  # until the server has accepted what it can
        began = time.monotonic()
        assert service.get("/metrics").status == 200
        assert time.monotonic() - began < 5
        for one in held:
            one.close()


def test_an_address_that_is_taken_is_a_usage_error(folder: Bucket, tmp_path: Path) -> None:
    """And so is one that is none, or a zone that is nowhere."""
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = f"{LOOPBACK}:{taken.getsockname()[1]}"
        for options, says in (
            (["--listen", address], "cannot listen"),
            (["--listen", "nine"], "no address"),
            (["--timezone", "Mars/Phobos"], "no time zone"),
            (["--interval", "0.1s"], "--interval takes"),
        ):
            command = [
                sys.executable,
                "-m",
                "agent",
                "serve",
                "--history",
                str(tmp_path / "h"),
                *options,
            ]
            done = subprocess.run(
                [*command, "--store", folder.environ["MAYFLY_STORE_URL"]],
                capture_output=True,
                timeout=60,
                check=False,
                text=True,
            )
            assert (done.returncode, done.stdout) == (2, "")
            assert says in done.stderr
    assert not list(tmp_path.glob("h*"))
