"""Logs reach Loki once, and what Loki does to us stays between Loki and us."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.ids import run_id
from consumer.serve.ship import BATCH_LINES, LINE_BYTES, PUSH, loki_at, pushes
from tests.bucket.bucket import Bucket
from tests.bucket.layout import LOG
from tests.bucket.leaving import leave_run
from tests.consumer.serving import SECONDS, Serving, serving
from tests.parts.recorder import Recorder
from tests.parts.waiting import wait_until

MOMENT = datetime(2026, 11, 22, 6, 45, tzinfo=UTC)
LINES = (
    b'{"timestamp": "2026-11-22T06:42:05.123456Z", "level": "info", "event": "run.started"}\n'
    b'{"timestamp": "2026-11-22T06:42:06Z", "level": "error", "event": "job.failed", "job": "quotes"}\n'
)


def recent_run(number: int = 1, *, days: float = 0.01) -> str:
    """The id of a run that began a while ago."""
    return run_id(datetime.now(UTC) - timedelta(days=days), bytes([number, 0, 2]))


def shipped(service: Serving) -> bool:
    """Whether no log waits any more."""
    return service.metrics().get("mayfly_loki_pending_runs") == 0


def test_a_push_has_few_labels_and_exact_times() -> None:
    """Labels are app and level; run and job are structured metadata; times are nanoseconds in strings."""
    (push,) = pushes("r", LINES, MOMENT)
    assert [stream["stream"] for stream in push["streams"]] == [
        {"app": "mayfly", "level": "error"},
        {"app": "mayfly", "level": "info"},
    ]
    ((stamp, line, metadata),) = push["streams"][1]["values"]
    assert stamp == "1795329725123456000"
    assert json.loads(line)["event"] == "run.started"
    assert metadata == {"run_id": "r"}
    assert push["streams"][0]["values"][0][2] == {"run_id": "r", "job_name": "quotes"}


def test_batches_are_bounded_and_lose_nothing() -> None:
    """Ten thousand lines are ten pushes; a line of a megabyte is cut."""
    text = b'{"event": "x"}\n' * (10 * BATCH_LINES) + b"y" * 10**6
    found = list(pushes("r", text, MOMENT))
    sizes = [sum(len(stream["values"]) for stream in push["streams"]) for push in found]
    assert sizes == [BATCH_LINES] * 10 + [1]
    assert len(found[-1]["streams"][0]["values"][0][1]) == LINE_BYTES


@given(st.binary(max_size=300))
def test_whatever_a_log_holds_is_pushed_as_text(text: bytes) -> None:
    """Lines that are no JSON go as they are, with the time of those before them and few labels."""
    for push in pushes("r", text, MOMENT):
        json.dumps(push)
        for stream in push["streams"]:
            assert stream["stream"].keys() == {"app", "level"}
            assert all(stamp.isdigit() for stamp, _, _ in stream["values"])


@pytest.mark.parametrize(
    ("environ", "header", "value"),
    [
        (
            {"LOKI_USERNAME": "me", "LOKI_PASSWORD": "it"},
            "Authorization",
            "Basic " + base64.b64encode(b"me:it").decode(),
        ),
        ({"LOKI_BEARER_TOKEN": "abc"}, "Authorization", "Bearer abc"),
        ({"LOKI_ORG_ID": "home"}, "X-Scope-OrgID", "home"),
    ],
)
def test_credentials_come_from_the_environment(
    environ: dict[str, str], header: str, value: str
) -> None:
    """The variables are those of Loki's own client, and the push endpoint need not be spelled out."""
    loki = loki_at("http://loki:3100/", environ)
    assert loki.url == f"http://loki:3100{PUSH}"
    assert loki.headers[header] == value
    assert loki_at(loki.url, {}).url == loki.url
    assert "Authorization" not in loki_at("http://loki:3100", {}).headers


def test_each_log_is_pushed_once(folder: Bucket, recorder: Recorder, tmp_path: Path) -> None:
    """Two runs are two pushes, also after a restart; what is too old for Loki is passed over."""
    expected = {recent_run(1), recent_run(2)}
    for run in (*expected, recent_run(3, days=30)):
        leave_run(folder, run)
    options = ("--loki", recorder.url)
    environ = {**folder.environ, "LOKI_BEARER_TOKEN": "canary-7f"}
    for _ in range(2):
        with serving(tmp_path / "home", environ, *options) as service:
            wait_until(lambda: shipped(service), seconds=SECONDS, what="the logs")
            service.looked()
    sent = recorder.requests
    assert [request.path for request in sent] == [PUSH, PUSH]
    assert {request.headers["authorization"] for request in sent} == {"Bearer canary-7f"}
    runs = {json.loads(one.body)["streams"][0]["values"][0][2]["run_id"] for one in sent}
    assert runs == expected
    assert "canary-7f" not in service.log.read_text()


def test_a_loki_that_fails_disturbs_nothing_and_gets_the_log_later(
    folder: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """While it answers 500 the service goes on; when it is back it gets what waited."""
    recorder.status = 500
    leave_run(folder, recent_run())
    with serving(tmp_path / "home", folder.environ, "--loki", recorder.url) as service:
        recorder.wait_for(2, seconds=SECONDS)
        assert service.metrics()["mayfly_loki_pending_runs"] == 1
        assert service.get("/healthz").status == 200
        recorder.status = 204
        wait_until(lambda: shipped(service), seconds=60, what="the log")
        assert "mayfly_loki_last_success_timestamp_seconds" in service.metrics()


def test_a_log_that_loki_refuses_does_not_stop_the_next(
    folder: Bucket, recorder: Recorder, tmp_path: Path
) -> None:
    """A 400 is final for that run; a log that is not as declared is passed over."""
    recorder.status = 400
    leave_run(folder, recent_run(1))
    lying = recent_run(2)
    leave_run(folder, lying)
    folder.put_file(lying, LOG, b"not what was declared")
    with serving(tmp_path / "home", folder.environ, "--loki", recorder.url) as service:
        wait_until(lambda: shipped(service), seconds=SECONDS, what="the end of it")
        assert len(service.events("loki.refused")) == 1
        assert len(service.events("loki.passed_over")) == 1
    assert len(recorder.requests) == 1
