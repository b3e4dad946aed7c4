"""How long a browser is waited for, and what is said of one that never comes."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from agent.base.errors import BrowserError
from agent.browser import Place, Remote, Supervisor, WatchSettings, supervise
from agent.browser.interface import Kind
from agent.browser.remote import RemoteBrowser
from agent.browser.session import LONGEST_ANSWER, NoSession, answers, close_all, wait_for_session
from agent.browser.supervisor import STARTS
from agent.config.settings import Browser
from tests.browser.conftest import QUICK, Events
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.stalled import refused, silent

READY = {"value": {"ready": True}}
MOMENT = 0.3
"""Seconds for what nothing tells of; with fewer the tests would show less, and not fail."""


@contextmanager
def endpoint(
    status: object, opened: object = None, code: int = 200, asked: list[bytes] | None = None
) -> Iterator[str]:
    """An endpoint that answers `/status` and requests for a session with these values; `asked` gets the latter."""
    requests = asked if asked is not None else []

    class Endpoint(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
            self._say(200, status)

        def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
            requests.append(self.read_body())
            self._say(code, opened)

        def do_DELETE(self) -> None:  # noqa: N802 -- the name is the library's
            self._say(200, {"value": None})

        def _say(self, number: int, value: object) -> None:
            self.answer(number, value if isinstance(value, bytes) else json.dumps(value).encode())

    with LoopbackHttp(Endpoint) as server:
        yield server.url


def remote(url: str, place: Place, events: Events, timeout: str = "1s") -> Supervisor:
    """The supervisor of a remote browser that is not waited for long."""
    settings = Browser.model_validate({"url": url, "timeout": timeout})
    return supervise(Remote(url), place, settings=settings, environ={}, log=events.log, pace=QUICK)


async def _reason(supervisor: Supervisor) -> str:
    async with supervisor, asyncio.timeout(60):
        with pytest.raises(BrowserError) as caught:
            await supervisor.ready()
        assert await supervisor.lost(0)
        assert supervisor.record() is None
    return str(caught.value)


async def test_an_endpoint_that_does_not_answer_is_given_up_in_time(
    place: Place, events: Events
) -> None:
    """Nothing listens, or it accepts and is silent: the error says where, without the password that the URL carries."""
    with refused() as address:
        reason = await _reason(remote(f"http://me:canary-secret@{address}", place, events))
    assert f"http://{address} opened no browser session within 1 s" in reason
    assert "cannot be reached" in reason
    assert "canary-secret" not in reason + json.dumps(events.seen)
    with silent() as address:
        assert "it does not answer" in await _reason(remote(f"http://{address}", place, events))


NO_JSON = "/status answers 200 and not WebDriver's JSON"
ODD = "its answer is not WebDriver's"


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        ({"value": {"ready": False}}, None, "it says that it is not ready"),
        *((text, None, NO_JSON) for text in (b"<html>hello</html>", b"[" * 10**5, b"[]")),
        # A Grid that is full, or has no node before somebody asks, queues what is asked all the same.
        ({"value": {"ready": False, "nodes": []}}, (500, {"value": {"message": "asked"}}), "asked"),
        (READY, (500, {"value": {"message": "no Chrome\nstack"}}), "no Chrome"),
        (READY, (500, {"value": {"error": "unknown error"}}), "unknown error"),
        (READY, (502, b"bad gateway"), "bad gateway"),
        (READY, (502, b""), "it gives no reason"),
        (READY, (200, {"value": None}), ODD),
        ({"value": "odd"}, (200, {"value": {"sessionId": "1"}}), ODD),
    ],
)
async def test_what_is_not_a_browser_is_told_apart(
    place: Place, events: Events, status: object, answer: tuple[int, object] | None, reason: str
) -> None:
    """A port that answers is not a browser: only a session that opened is, and the reason says what was missing.

    One that refuses sessions is given up long before its time is over.
    """
    code, opened = answer or (200, None)
    with endpoint(status, opened, code) as url:
        told = await _reason(remote(url, place, events, timeout="3s" if answer is None else "60s"))
    assert (reason if answer is None else f"opened no browser session: {reason}") in told


async def test_a_slash_at_the_end_of_a_url_does_no_harm(place: Place, events: Events) -> None:
    """People write both; jobs get it without."""
    capabilities = {"browserName": "firefox", "browserVersion": "155.0"}
    opened = {"value": {"sessionId": "1", "capabilities": capabilities}}
    with endpoint(READY, opened) as url:
        async with remote(f"{url}/", place, events) as supervisor:
            await supervisor.ready()
            assert supervisor.url == url
            record = supervisor.record()
    assert record is not None
    assert (record.name, record.kind, record.image) == ("firefox 155.0", "remote", None)
    assert not supervisor.shares_downloads


_FIREFOX = {"browserName": "firefox", "moz:firefoxOptions": {"prefs": {}}}
_CHROME = {"browserName": "chrome", "goog:chromeOptions": {"binary": "/usr/bin/chromium"}}


@pytest.mark.parametrize(
    ("status", "browser"),
    [
        ({"ready": True}, "chrome"),
        ({"ready": False, "nodes": []}, "chrome"),
        ({"ready": True, "nodes": [{"slots": [{"stereotype": _FIREFOX}]}]}, "firefox"),
        ({"ready": True, "nodes": [{"slots": [{"stereotype": _FIREFOX}, {}]}]}, "firefox"),
        (
            {
                "ready": True,
                "nodes": [{"slots": [{"stereotype": _FIREFOX}, {"stereotype": _CHROME}]}],
            },
            "chrome",
        ),
        ({"ready": True, "nodes": [{"slots": "odd"}, None]}, "chrome"),
    ],
)
async def test_a_grid_is_asked_for_a_browser_that_it_has(
    status: dict[str, object], browser: str
) -> None:
    """A Grid without a slot for the browser that is asked for queues the request until nobody waits any more."""
    capabilities = {"browserName": browser, "browserVersion": "155.0"}
    opened = {"value": {"sessionId": "1", "capabilities": capabilities}}
    asked: list[bytes] = []
    with endpoint({"value": status}, opened, asked=asked) as url:
        assert await wait_for_session(url, seconds=9, alive=_alive, shared=True)
    (always,) = (json.loads(body)["capabilities"]["alwaysMatch"] for body in asked)
    assert always["browserName"] == browser
    assert ("goog:chromeOptions" in always) == (browser == "chrome")


async def test_a_request_that_waits_in_a_grid_s_queue_is_told_from_a_grid_that_does_not_answer() -> (
    None
):
    """It answers, and has no slot for the request."""
    over = threading.Event()

    class Full(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
            slots = [{"stereotype": _FIREFOX}]
            value = {"ready": True, "nodes": [{"slots": slots}]}
            self.answer(200, json.dumps({"value": value}).encode())

        def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
            over.wait(30)

    with LoopbackHttp(Full) as server:
        try:
            with pytest.raises(NoSession, match="it answers, and did not open a firefox session"):
                await wait_for_session(server.url, seconds=1, alive=_alive)
        finally:
            over.set()


async def _alive() -> bool:
    return True


class _SendsNowhere(QuietHandler):
    """Redirects to what is no address."""

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        self.answer(302, headers={"Location": "http://["})


async def test_a_redirect_to_nowhere_is_no_defect(place: Place, events: Events) -> None:
    """It is not followed, and says no more than silence does."""
    with LoopbackHttp(_SendsNowhere) as server:
        assert "cannot be reached (ValueError)" in await _reason(remote(server.url, place, events))
    assert not events.named("browser.defect")


class _NeverEnds(QuietHandler):
    """Answers with a gigabyte, unless the client has had enough."""

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        self.begin(200, 2**30)
        with suppress(OSError):
            while self.owner["sent"] < 2**30:
                self.wfile.write(bytes(2**20))
                self.owner["sent"] += 2**20
        self.close_connection = True


async def test_of_an_answer_without_end_only_its_start_is_read() -> None:
    """A service of a stack may send anything: the agent's memory is not its to fill."""
    sent = {"sent": 0}
    with LoopbackHttp(_NeverEnds, owner=sent) as server:
        assert not await answers(server.url, seconds=60)
    assert LONGEST_ANSWER <= sent["sent"] < 2**29


async def test_leaving_does_not_wait_for_an_endpoint_that_is_silent(
    place: Place, events: Events
) -> None:
    """A probe under way is left behind, whatever its own limit."""
    with silent() as address:
        async with asyncio.timeout(60):
            async with remote(f"http://{address}", place, events, timeout="10m"):
                await asyncio.sleep(0.3)  # a probe is under way by then


async def test_a_stopped_keeper_says_so(place: Place, events: Events) -> None:
    """A job that asks after the end is told, and not kept waiting; leaving again is harmless."""
    with refused() as address:
        supervisor = remote(f"http://{address}", place, events)
        async with supervisor:
            pass
        with pytest.raises(BrowserError, match="has been stopped"):
            await supervisor.ready()
        await supervisor.__aexit__(None, None, None)


class _Dying(RemoteBrowser):
    """A backend whose browser ends by itself each time it is started."""

    starts = 0

    async def start(self) -> None:
        self.starts += 1

    async def running(self) -> bool:
        return False

    async def last_words(self) -> str:
        return "out of memory"


async def test_a_browser_that_dies_at_each_start_is_given_up(events: Events) -> None:
    """It is started once more, and its last words are in the error."""
    with refused() as address:
        dying = _Dying(f"http://{address}")
        async with Supervisor(dying, timeout=60, log=events.log) as supervisor:
            with pytest.raises(BrowserError, match=r"ended before .* it said: out of memory"):
                await supervisor.ready()
    assert dying.starts == STARTS


class _Broken(RemoteBrowser):
    """A backend with a defect."""

    async def start(self) -> None:
        raise ZeroDivisionError


async def test_a_defect_keeps_no_job_waiting(events: Events) -> None:
    """What nobody expected is logged with its traceback, and jobs get an error instead of silence."""
    async with Supervisor(_Broken("http://127.0.0.1:1"), timeout=60, log=events.log) as supervisor:
        with pytest.raises(BrowserError, match="ZeroDivisionError"):
            await supervisor.ready()
    assert "Traceback" in events.named("browser.defect")[0]["exception"]


@dataclass
class SlowGrid:
    """A Grid of the run's own whose status may take its time.

    Attributes:
        open: Its sessions; an answer has those of the moment at which it is given.
        closed: Those that somebody has closed.
        quick: Cleared: from now on a status is not answered at once; set: those that wait are.
        asked: Set when a status waits.
    """

    open: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    quick: threading.Event = field(default_factory=threading.Event)
    asked: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Yield its URL."""
        grid = self
        self.quick.set()
        capabilities = {"browserName": "chrome", "browserVersion": "152.0"}

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                while not grid.quick.wait(0.02):
                    grid.asked.set()
                    self.wfile.write(b" ")  # so that no limit on silence ends the request
                slots = [{"session": {"sessionId": name}} for name in grid.open]
                value = {"ready": True, "nodes": [{"slots": slots}]}
                self.wfile.write(json.dumps({"value": value}).encode())
                self.close_connection = True

            def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
                self.read_body()
                opened = {"value": {"sessionId": "probe", "capabilities": capabilities}}
                self.answer(200, json.dumps(opened).encode())

            def do_DELETE(self) -> None:  # noqa: N802 -- the name is the library's
                grid.closed.append(self.path.rpartition("/")[2])
                self.answer(200, json.dumps({"value": None}).encode())

        with LoopbackHttp(Handler) as server:
            try:
                yield server.url
            finally:
                self.quick.set()


class _OwnGrid(RemoteBrowser):
    """A Grid whose sessions are all the run's."""

    kind: Kind = "container"


@pytest.mark.timeout(60)
async def test_the_session_of_a_job_that_begins_is_not_closed_with_those_that_were_left(
    events: Events,
) -> None:
    """While no job uses the browser, sessions are closed; the next job's must not be among them."""
    grid = SlowGrid()
    with grid.serve() as url:
        unwatched = WatchSettings(interval=3600)
        async with Supervisor(_OwnGrid(url), timeout=30, log=events.log, pace=unwatched) as browser:
            await browser.ready()
            grid.closed.clear()
            over = asyncio.Event()

            async def job() -> None:
                async with browser.used():
                    grid.open.append("next")
                    await over.wait()

            async with browser.used():
                grid.open.append("left")
                grid.quick.clear()
                other: asyncio.Task[None] | None = None

                async def begins() -> None:
                    nonlocal other
                    await asyncio.to_thread(grid.asked.wait, 30)
                    other = asyncio.create_task(job())
                    await asyncio.wait({other}, timeout=MOMENT)
                    grid.quick.set()

                beginning = asyncio.create_task(begins())
            await beginning
            assert grid.closed == ["left"]
            over.set()
            assert other is not None
            await other


@pytest.mark.timeout(60)
async def test_sessions_that_are_listed_too_late_are_left_alone() -> None:
    """Nobody waits for the listing any more, and the sessions in it may be another job's."""
    grid = SlowGrid(open=["next"])
    with grid.serve() as url:
        grid.quick.clear()
        before = threading.active_count()
        assert await close_all(url, seconds=MOMENT) == 0
        assert await asyncio.to_thread(grid.asked.wait, 30)
        assert threading.active_count() > before  # the request goes on
        grid.quick.set()
        await asyncio.sleep(MOMENT)  # it has its answer, and would close what is in it
        assert grid.closed == []
