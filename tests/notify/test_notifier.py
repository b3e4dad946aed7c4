"""Pings and chat messages: what is sent, what counts as arrived, and that nothing of it can hurt a run."""

import asyncio
import sys
import threading
import time
import uuid
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.base.logs import RunLogger
from agent.config.settings import Notify
from agent.contract.entries import Ended
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.notify.notifier import PING_SECONDS, Notifier
from agent.notify.outcome import Outcome
from tests.notify.conftest import Events
from tests.parts.command import completed
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.recorder import Recorder

RUN = "20261122T064205Z-3f9a1c"
SECRET = "f3b9c0de-0000-4000-8000-5eca0fc0ffee"

DONE = Outcome(RunStatus.SUCCEEDED, (Ended(name="a", status=JobStatus.SUCCEEDED),))
PARTIAL = Outcome(
    RunStatus.PARTIAL,
    (
        Ended(name="a", status=JobStatus.SUCCEEDED),
        Ended(
            name="b", status=JobStatus.FAILED, cause=JobCause.BLOCKED, message="403 \u7981\u6b62"
        ),
    ),
)


def notifier(recorder: Recorder, run_logger: RunLogger) -> Notifier:
    """A notifier whose watchdog is the recorder."""
    return Notifier(Notify(healthchecks=f"{recorder.url}/{SECRET}"), RUN, run_logger.log)


async def test_start_and_end_of_a_run_belong_together(
    recorder: Recorder, run_logger: RunLogger
) -> None:
    """Start and end are pinged in this order with the same UUID, also when both are asked for at once."""
    telling = notifier(recorder, run_logger)
    telling.started()
    await telling.ended(DONE)
    paths = [urlsplit(request.path) for request in recorder.requests]
    assert [path.path for path in paths] == [f"/{SECRET}/start", f"/{SECRET}"]
    rids = {parse_qs(path.query)["rid"][0] for path in paths}
    assert len(rids) == 1
    assert str(uuid.UUID(rids.pop()))


@pytest.mark.parametrize("ending", ["", "/", "#mine", "/?tag=a#mine"])
async def test_a_failure_is_told_as_one_however_the_url_ends(
    ending: str, recorder: Recorder, run_logger: RunLogger
) -> None:
    """The exit code is in the path that the server gets."""
    settings = Notify(healthchecks=f"{recorder.url}/{SECRET}{ending}")
    await Notifier(settings, RUN, run_logger.log).ended(PARTIAL)
    (request,) = recorder.requests
    assert urlsplit(request.path).path == f"/{SECRET}/3"


@pytest.mark.parametrize(
    ("outcome", "signal", "says"),
    [
        (PARTIAL, "/3", ["1 of 2 jobs", "b failed (blocked): 403 \u7981\u6b62"]),
        (Outcome(RunStatus.SUCCEEDED, delivered=False, undelivered="no network"), "/6", []),
    ],
)
async def test_the_end_is_pinged_with_the_exit_code(
    recorder: Recorder, run_logger: RunLogger, outcome: Outcome, signal: str, says: list[str]
) -> None:
    """The suffix is the exit code of the process; the body names the jobs that did not succeed, and why."""
    await notifier(recorder, run_logger).ended(outcome)
    (request,) = recorder.requests
    assert urlsplit(request.path).path == f"/{SECRET}{signal}"
    assert all(words in request.body.decode() for words in says)


class _SaysNotFound(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
        """Answer as Healthchecks does for a UUID it does not know."""
        self.read_body()
        self.answer(200, b"OK (not found)")


async def test_a_check_that_does_not_exist_is_not_a_success(
    recorder: Recorder, run_logger: RunLogger, events: Events
) -> None:
    """A 404, or a 200 that says so in its body only, is logged without the address, and is not retried."""
    recorder.status = 404
    await notifier(recorder, run_logger).ended(DONE)
    assert len(recorder.requests) == 1
    with LoopbackHttp(_SaysNotFound) as server:
        settings = Notify(healthchecks=f"{server.url}/{SECRET}")
        await Notifier(settings, RUN, run_logger.log).ended(DONE)
    first, second = events.named("notify.ping_lost")
    assert (first["level"], "404" in first["reason"]) == ("warning", True)
    assert "(not found)" in second["reason"]
    assert SECRET not in str(events)


class _CutShort(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
        """Promise more than there is."""
        self.read_body()
        self.send_response(200)
        self.send_header("Content-Length", "100")
        self.end_headers()
        self.close_connection = True


class _SendsNowhere(QuietHandler):
    def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
        """Redirect to what is no address."""
        self.read_body()
        self.answer(302, headers={"Location": "http://["})


@pytest.mark.long
async def test_an_answer_that_no_library_understands_fails_no_run(
    run_logger: RunLogger, events: Events
) -> None:
    """It is a warning like any other lost ping; the end is pinged although the start was lost."""
    with LoopbackHttp(_CutShort) as one, LoopbackHttp(_SendsNowhere) as other:
        for server in (one, other):
            settings = Notify(healthchecks=f"{server.url}/{SECRET}")
            telling = Notifier(settings, RUN, run_logger.log)
            telling.started()
            await telling.ended(DONE)
    assert [event["signal"] for event in events.named("notify.ping_lost")] == ["/start", ""] * 2
    assert SECRET not in str(events)


async def test_a_server_with_a_hiccup_is_asked_again(
    recorder: Recorder, run_logger: RunLogger, events: Events
) -> None:
    """A 500 is retried until it goes away."""
    recorder.status = 500

    async def recover() -> None:
        await asyncio.to_thread(recorder.wait_for, 1)
        recorder.status = 200

    await asyncio.gather(recover(), notifier(recorder, run_logger).ended(DONE))
    assert len(recorder.requests) >= 2
    assert not events


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.long
async def test_a_watchdog_that_is_away_costs_a_bounded_time(
    recorder: Recorder, run_logger: RunLogger, events: Events, silent: bool
) -> None:
    """A server that never answers, or is not there, ends in one warning without the address."""
    recorder.delay = 60
    url = recorder.url if silent else f"http://{LOOPBACK}:{free_port()}"
    settings = Notify(healthchecks=f"{url}/{SECRET}")
    began = time.monotonic()
    await Notifier(settings, RUN, run_logger.log).ended(DONE)
    assert time.monotonic() - began < PING_SECONDS + 30
    assert len(events) == 1
    assert SECRET not in str(events)


async def test_people_hear_of_failures_only(
    recorder: Recorder, run_logger: RunLogger, events: Events
) -> None:
    """An unknown kind of URL and a dead service are warnings by number; the last service is told all the same."""
    urls = (
        f"nonsense://{SECRET}",
        f"json://{LOOPBACK}:{free_port()}/{SECRET}",
        recorder.url.replace("http://", "json://"),
    )
    telling = Notifier(Notify(apprise=urls), RUN, run_logger.log)
    await telling.ended(DONE)
    assert (recorder.requests, events) == ([], [])
    await telling.ended(PARTIAL)
    (request,) = recorder.requests
    assert b"mayfly: partial, 1 of 2 jobs" in request.body
    assert [event["number"] for event in events.named("notify.apprise_lost")] == [1, 2]
    assert SECRET not in str(events)


def test_without_the_extra_a_warning_says_what_to_install() -> None:
    """An agent without Apprise logs the remedy and exits as if nothing had been asked."""
    program = """
import asyncio, sys
sys.modules["apprise"] = None  # what an import finds when the extra is not installed
from agent.base.logs import RunLogger, json_sink
from agent.config.settings import Notify
from agent.contract.results import RunStatus
from agent.notify.notifier import Notifier
from agent.notify.outcome import Outcome
notifier = Notifier(Notify(apprise=("json://x",)), "run", RunLogger(json_sink(sys.stdout)).log)
asyncio.run(notifier.ended(Outcome(RunStatus.FAILED)))
"""
    done = completed([sys.executable, "-c", program])
    assert (done.returncode, "uv sync --inexact --extra apprise" in done.stdout) == (0, True)
    assert done.stderr == ""


@pytest.mark.long
async def test_a_machine_that_can_begin_no_thread_pings_nobody_and_goes_on(
    run_logger: RunLogger, events: Events
) -> None:
    """Want of memory or of processes is a lost ping like any other."""
    before = threading.stack_size(1 << 45)  # more than any machine has
    try:
        await Notifier(Notify(healthchecks="http://127.0.0.1:1/x"), RUN, run_logger.log).ended(DONE)
    finally:
        threading.stack_size(before)
    (lost,) = events.named("notify.ping_lost")
    assert lost["reason"] == "RuntimeError"
