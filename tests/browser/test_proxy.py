"""The second address of a browser: who may come in, what is rewritten, and that sessions work through it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from agent.browser import Place, webdriver_proxy
from agent.browser.proxy import MOST_CONNECTIONS, Refused, passed_on
from tests.browser.conftest import Events, supervisor_of
from tests.browser.rigs import Rig
from tests.parts.loopback_http import LoopbackHttp, QuietHandler, basic
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.webdriver import session

TARGET = "http://127.0.0.1:9515"


def head(path: str = "/status", host: str = "localhost:4444", **fields: str) -> bytes:
    """A request's head."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", *(f"{k}: {v}" for k, v in fields.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


@pytest.mark.parametrize(
    ("asked", "passed"),
    [
        *(("/wd/hub/session", "/session"), ("/wd/hub", "/")),
        *(("/session/1/url", "/session/1/url"), ("/status", "/status")),
    ],
)
def test_the_root_of_old_servers_is_taken_off(asked: str, passed: str) -> None:
    """Both spellings reach the browser, under the name it answers to."""
    lines = passed_on(head(asked, "selenium:4444"), TARGET).head.split(b"\r\n")
    assert lines[0] == f"GET {passed} HTTP/1.1".encode()
    assert b"Host: 127.0.0.1:9515" in lines
    prefixed = passed_on(head(asked), f"http://me:word@grid:4444{'/wd/hub'}").head
    assert prefixed.startswith(f"GET /wd/hub{passed} ".encode())
    assert b"Host: grid:4444\r\n" in prefixed


def test_the_login_of_a_grid_is_sent_in_the_place_of_a_client_that_does_not_know_it() -> None:
    """A container has the address of this machine alone: a Grid with a password would refuse it."""
    grid = "https://me:a%40b@grid.example/wd/hub"
    sent = passed_on(head(), grid).head
    assert f"\r\nAuthorization: {basic('me', 'a@b')}\r\n".encode() in sent
    own = passed_on(head(Authorization="Bearer own"), grid).head
    assert own.count(b"Authorization") == own.count(b"Authorization: Bearer own") == 1
    assert b"Authorization" not in passed_on(head(), TARGET).head


@pytest.mark.parametrize(
    "request_",
    [
        head(host="rebound.example:4444"),
        head(host=""),
        head(Origin="https://page.example"),
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    ],
)
def test_pages_and_nonsense_are_refused(request_: bytes) -> None:
    """A page says where it comes from, and a name that was led here is not ours."""
    with pytest.raises(Refused):
        passed_on(request_, TARGET)


def test_which_upgrades_are_passed_on() -> None:
    """A WebSocket's, whose clients in Python name themselves as origin.

    Java's client would rather speak HTTP 2 with each first request: a browser that ignores that would keep the
    connection.
    """
    websocket = head(Origin="http://localhost:4444", Connection="Upgrade", Upgrade="websocket")
    assert passed_on(websocket, TARGET).upgrade
    request = passed_on(head(Connection="Upgrade, HTTP2-Settings", Upgrade="h2c"), TARGET)
    assert not request.upgrade
    assert b"h2c" not in request.head
    assert b"\r\nConnection: close\r\n" in request.head


@given(st.binary(max_size=200))
def test_any_bytes_are_passed_on_or_refused(text: bytes) -> None:
    """Nothing else happens to what a stranger sends."""
    with suppress(Refused):
        passed_on(text + b"\r\n\r\n", TARGET)


@asynccontextmanager
async def opened(target: str) -> AsyncIterator[str]:
    """A webdriver_proxy on a free port, by its URL."""
    port = free_port()
    async with webdriver_proxy(LOOPBACK, port, lambda: target):
        yield f"http://localhost:{port}"


async def test_sessions_work_through_it(rig: Rig, place: Place, events: Events) -> None:
    """With each kind of browser, under the address that scrapers of old have in their code."""
    async with supervisor_of(rig, place, events) as supervisor:
        await supervisor.ready()
        async with opened(supervisor.url) as url:
            await asyncio.to_thread(_use, f"{url}/wd/hub")
            await asyncio.to_thread(_use, url)


def _use(url: str) -> None:
    with session(url) as browser:
        browser.visit("data:text/html,<title>through</title>" + "x" * 100_000)
        assert browser.run("return document.title") == "through"


class _Keeps(QuietHandler):
    """A server that keeps the connection, whatever it is asked."""

    def do_POST(self) -> None:  # noqa: N802 -- the name is the library's
        self.answer(200, self.read_body())
        self.close_connection = False


async def test_what_follows_a_request_is_not_passed_on() -> None:
    """Only the first request of a connection was checked; a page's may come behind one."""
    length = {"Content-Length": "2"}
    with LoopbackHttp(_Keeps) as server:
        async with opened(server.url) as url:
            reader, writer = await asyncio.open_connection(LOOPBACK, urlsplit(url).port)
            writer.write(head(**length).replace(b"GET", b"POST"))
            await asyncio.sleep(0.1)  # a body may come later than its head
            writer.write(b"ab")
            first = await reader.readuntil(b"ab")
            writer.write(head(Origin="https://page.example", **length).replace(b"GET", b"POST"))
            writer.write(b"cd")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):  # for an answer that must not come
                    first += await reader.read()
            writer.close()
    assert first.count(b"HTTP/1.1 200") == 1


async def test_without_a_browser_it_says_so_in_webdriver_s_words() -> None:
    """A scraper that comes too early gets an error it can show."""
    async with opened(f"http://{LOOPBACK}:{free_port()}") as url:
        answer = await asyncio.to_thread(requests.get, f"{url}/status", timeout=10)
    assert answer.status_code == 502
    assert "there is no browser at" in answer.json()["value"]["message"]


async def test_a_job_cannot_take_all_descriptors_of_the_agent() -> None:
    """Of connections beyond the limit each has an answer and is closed; when others have ended there is room again."""
    async with opened(f"http://{LOOPBACK}:{free_port()}") as url, AsyncExitStack() as held:
        port = urlsplit(url).port
        for _ in range(MOST_CONNECTIONS):
            _, idle = await asyncio.open_connection(LOOPBACK, port)
            held.callback(idle.close)

        async def status() -> int:
            return (await asyncio.to_thread(requests.get, f"{url}/status", timeout=10)).status_code

        assert await status() == 503
        idle.close()
        async with asyncio.timeout(30):
            while (last := await status()) == 503:
                pass  # until the proxy has seen that one is closed
    assert last == 502, "there is no browser behind this one"


@pytest.mark.parametrize(("source", "answers"), [("127.0.0.1", True), ("127.0.1.1", False)])
async def test_who_is_outside_of_the_peers_gets_no_answer(source: str, answers: bool) -> None:
    """Every container of the machine reaches the address that one container's network has for it."""
    port, peers = free_port(), ("fd00::/64", "127.0.0.0/24")
    async with webdriver_proxy(LOOPBACK, port, lambda: TARGET, peers=peers):
        reader, writer = await asyncio.open_connection(LOOPBACK, port, local_addr=(source, 0))
        answer = b""
        with suppress(ConnectionError):
            writer.write(head(host="rebound.example:4444"))
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 403 ") is answers
    assert bool(answer) is answers


async def test_an_address_that_is_taken_is_an_error() -> None:
    """Whoever opens it decides what that means."""
    with socket.socket() as stranger:
        stranger.bind((LOOPBACK, 0))
        stranger.listen()
        with pytest.raises(OSError, match="in use"):
            async with webdriver_proxy(LOOPBACK, stranger.getsockname()[1], lambda: TARGET):
                pass
