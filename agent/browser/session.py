"""WebDriver over plain HTTP, as far as needed to know whether a browser works."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from agent.base.errors import BrowserError
from agent.base.redact import without_credentials
from agent.base.threads import in_thread

CONNECT_SECONDS = 3.0
STATUS_SECONDS = 5.0
CLOSE_SECONDS = 10.0
POLL_SECONDS = 0.1
LIFE_SECONDS = 1.0
"""Pause between two checks that a browser which is not ready still exists."""

REFUSALS = 4
"""Sessions that an endpoint may refuse before it is abandoned: it is up, and another request would not help."""

LONGEST_ANSWER = 8 * 1024**2
"""Bytes that are read of an answer: the status of a Grid of some thousand slots. A service of a stack is anybody's."""

BAD_REQUEST = 400

# The Grid refuses a body that does not say so in these words.
_HEADERS = {"Content-Type": "application/json; charset=utf-8"}

_CHROME = "chrome"
# Chromium has no sandbox for root; the page that this session shows is empty.
_OPTIONS = {_CHROME: {"goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox"]}}}

T = TypeVar("T")


class NoSession(BrowserError):  # noqa: N818 -- the name states the fact
    """The browser was launched, and no session opened."""


class BrowserDied(NoSession):
    """It ended before a session opened."""


class _NotYet(Exception):  # noqa: N818 -- the name states the fact
    """The endpoint cannot be reached, or is not ready."""


class _Silent(_NotYet):
    """No answer in time."""


class _Answer(NamedTuple):
    """An answer's status and body."""

    status: int
    body: bytes

    @property
    def value(self) -> Any:
        """WebDriver's value.

        Raises:
            ValueError: It is not WebDriver's.
        """
        try:
            return json.loads(self.body)["value"]
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError("it is not WebDriver's") from error


class _Refused(Exception):  # noqa: N818 -- the name states the fact
    """The endpoint answered and did not open a session."""


async def answers(url: str, *, seconds: float = STATUS_SECONDS) -> bool:
    """Tell whether an endpoint answers `/status` at all.

    A Grid whose slots are all taken is not ready; that is an answer.
    """
    try:
        await _within(seconds, lambda: _status(url, seconds))
    except _NotYet:
        return False
    return True


async def wait_for_session(
    url: str, *, seconds: float, alive: Callable[[], Awaitable[bool]], shared: bool = False
) -> str:
    """Wait until an endpoint has opened a session, close that, and return browser and version.

    Args:
        url: The WebDriver URL.
        seconds: Limit of the whole.
        alive: Whether the browser still exists; asked now and then.
        shared: Whether others use it as well. A Grid without a free slot is not ready, and queues the request all the
            same; one that grows with its queue has no slot before a request.

    Raises:
        BrowserDied: It does not exist any more.
        NoSession: None opened in that time, or it was refused `REFUSALS` times.
    """
    looked = time.monotonic()
    until = looked + seconds
    refusals, said = 0, ""
    while True:
        left = max(until - time.monotonic(), 0.1)
        try:
            return await _try_session(url, left, shared=shared)
        except (_NotYet, _Refused) as error:
            refusals += isinstance(error, _Refused)
            if not said or not isinstance(error, _Silent) or left >= STATUS_SECONDS:
                # Else the limit cut the attempt short, and an earlier one says more.
                said = str(error)
            now = time.monotonic()
            last = refusals == REFUSALS or now >= until
            if last or now - looked >= LIFE_SECONDS:
                looked = now
                if not await alive():
                    raise BrowserDied("the browser ended before a session had opened") from error
            if last:
                limit = "" if refusals == REFUSALS else f" within {round(seconds, 1):g} s"
                where = without_credentials(url)
                raise NoSession(f"{where} opened no browser session{limit}: {said}") from error
        await asyncio.sleep(POLL_SECONDS)


async def close_all(url: str, *, seconds: float = CLOSE_SECONDS) -> int:
    """Close every session of an endpoint; return how many there were, 0 without an answer in that time."""
    until = time.monotonic() + seconds
    try:
        return await _within(seconds, lambda: _close_all(url, seconds, until))
    except _NotYet:
        return 0


def _close_all(url: str, seconds: float, until: float) -> int:
    sessions = _open_sessions(url, seconds)
    if time.monotonic() >= until:  # nobody waits any more, and a session may be the next job's
        return 0
    for session in sessions:
        _ask("DELETE", f"{url}/session/{quote(session, safe='')}", seconds)
    return len(sessions)


def _open_sessions(url: str, seconds: float) -> list[str]:
    """Return the sessions in a Grid's status, or in a chromedriver's own list."""
    try:
        nodes = _status(url, seconds).get("nodes")
        if nodes is None:
            return [str(each["id"]) for each in _ask("GET", f"{url}/sessions", seconds).value]
        slots = [slot for node in nodes for slot in node["slots"]]
        return [str(slot["session"]["sessionId"]) for slot in slots if slot.get("session")]
    except (ValueError, KeyError, TypeError) as error:
        raise _NotYet("it does not tell its sessions") from error


async def _within(
    seconds: float, work: Callable[[], T], *, silence: str = "it does not answer"
) -> T:
    """Run a request within a limit for the whole; its own limit is for each piece of an answer."""
    try:
        return await in_thread(work, seconds=seconds)
    except (TimeoutError, _Silent) as error:
        raise _Silent(silence) from error


async def _try_session(url: str, seconds: float, *, shared: bool) -> str:
    until = time.monotonic() + seconds
    limit = min(seconds, STATUS_SECONDS)
    status = await _within(limit, lambda: _status(url, limit))
    if not status.get("ready", True) and not (shared and "nodes" in status):
        raise _NotYet("it says that it is not ready")
    browser = _offered(status)
    # Not limited further: a Grid would open the session of a request that we have given up.
    left = max(until - time.monotonic(), 0.1)
    silence = f"it answers, and did not open a {browser} session"
    return await _within(left, lambda: _open_session(url, left, browser), silence=silence)


def _offered(status: dict[str, Any]) -> str:
    """Return the name of a browser that an endpoint has: a Grid keeps who asks for another one waiting."""
    try:
        slots = [slot for node in status["nodes"] for slot in node["slots"]]
        names = [str(slot["stereotype"]["browserName"]) for slot in slots if "stereotype" in slot]
    except (KeyError, TypeError):  # a chromedriver, or no Grid that we know
        return _CHROME
    return _CHROME if _CHROME in names or not names else names[0]


def _open_session(url: str, seconds: float, browser: str) -> str:
    """Open a session, close it, and return the browser's name and version."""
    always = {"browserName": browser, **_OPTIONS.get(browser, {})}
    opened = _ask("POST", f"{url}/session", seconds, {"capabilities": {"alwaysMatch": always}})
    if opened.status >= BAD_REQUEST:
        raise _Refused(_reason(opened))
    try:
        value = opened.value
        session, capabilities = str(value["sessionId"]), value["capabilities"]
        name = f"{capabilities['browserName']} {capabilities['browserVersion']}"
    except (ValueError, KeyError, TypeError) as error:
        raise _Refused("its answer is not WebDriver's") from error
    with suppress(_NotYet):  # it opened, which is the question; it ends with the browser
        _ask("DELETE", f"{url}/session/{session}", CLOSE_SECONDS)
    return name


def _status(url: str, seconds: float) -> dict[str, Any]:
    answer = _ask("GET", f"{url}/status", seconds)
    try:
        value = answer.value
    except ValueError as error:
        raise _NotYet(f"/status answers {answer.status} and not WebDriver's JSON") from error
    return value if isinstance(value, dict) else {}


def _ask(method: str, url: str, seconds: float, body: object = None) -> _Answer:
    import requests  # noqa: PLC0415 -- 0.2 s
    from urllib3.exceptions import HTTPError, ReadTimeoutError  # noqa: PLC0415

    with requests.Session() as client:
        client.trust_env = False  # no proxy: jobs reach a browser without one as well
        try:
            with client.request(
                method,
                url,
                json=body,
                headers=_HEADERS,
                timeout=(min(CONNECT_SECONDS, seconds), seconds),
                allow_redirects=False,
                stream=True,
            ) as answer:
                read = answer.raw.read(LONGEST_ANSWER, decode_content=True)
                return _Answer(answer.status_code, read)
        except (requests.Timeout, ReadTimeoutError) as error:
            raise _Silent("it does not answer") from error
        # ValueError: requests takes an address apart even if it does not follow it.
        except (requests.RequestException, HTTPError, ValueError) as error:
            raise _NotYet(f"it cannot be reached ({type(error).__name__})") from error


def _reason(answer: _Answer) -> str:
    """Return the first line of a WebDriver error; its stack trace does not help a person."""
    try:
        text = str(answer.value.get("message") or answer.value.get("error"))
    except (ValueError, AttributeError):
        text = answer.body.decode(errors="replace")
    lines = text.strip().splitlines() or ["it gives no reason"]
    return lines[0][:300]
