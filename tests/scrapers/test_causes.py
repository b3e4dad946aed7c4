import errno

import pytest
import requests
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from scrapers.kit.causes import (
    MESSAGE_LIMIT,
    Cause,
    JobFailure,
    PageFacts,
    cause_of_status,
    verdict,
    without_userinfo,
)
from scrapers.kit.run import exit_code
from scrapers.kit.stops import DeadlineReached, Interrupted
from selenium.common import exceptions as selenium

LOADED = PageFacts(
    url="https://shop.example/list", title="List", status=200, request_statuses=(200, 204)
)


def http_error(
    status: int, body: str = "", mediatype: str = "application/json"
) -> requests.HTTPError:
    """What `raise_for_status` raises."""
    response = requests.Response()
    response.status_code = status
    response._content = body.encode()
    response.headers["Content-Type"] = mediatype
    return requests.HTTPError(f"{status} for url", response=response)


def browser_error(text: str) -> selenium.WebDriverException:
    """What Selenium raises for what has no class of its own."""
    return selenium.WebDriverException(text)


REFUSED = urllib3.exceptions.MaxRetryError(urllib3.HTTPConnectionPool("127.0.0.1"), "/session")
ERRORS: dict[Cause, list[BaseException]] = {
    "page_changed": [
        selenium.NoSuchElementException("no such element: Unable to locate element"),
        selenium.TimeoutException("no price"),
        selenium.StaleElementReferenceException("stale element reference"),
        selenium.ElementClickInterceptedException("element click intercepted"),
        selenium.ElementNotInteractableException("element not interactable"),
        requests.JSONDecodeError("Expecting value", "<html>", 0),
        http_error(404),
    ],
    "site_unreachable": [
        browser_error("unknown error: net::ERR_CONNECTION_REFUSED"),
        browser_error("unknown error: net::ERR_NAME_NOT_RESOLVED"),
        selenium.TimeoutException("timeout: Timed out receiving message from renderer: 29.7"),
        requests.ConnectionError("refused"),
        requests.ReadTimeout("slow"),
        requests.exceptions.ChunkedEncodingError("cut"),
        http_error(502),
    ],
    "browser": [
        selenium.SessionNotCreatedException("session not created: Chrome failed to start"),
        selenium.InvalidSessionIdException("invalid session id"),
        selenium.NoSuchWindowException("no such window: target window already closed"),
        browser_error("disconnected: not connected to DevTools"),
        browser_error("tab crashed"),
        browser_error("chrome not reachable"),
        browser_error("unknown error: session deleted as the browser has closed"),
        urllib3.exceptions.ProtocolError("Connection aborted."),
        REFUSED,
    ],
    "blocked": [http_error(403), http_error(429), JobFailure("blocked", "the shop says no")],
    "timeout": [selenium.TimeoutException("script timeout"), DeadlineReached("out of time")],
    "interrupted": [Interrupted("told to stop")],
    "out_of_memory": [MemoryError()],
    "out_of_disk": [OSError(errno.ENOSPC, "No space left on device")],
    "error": [
        selenium.JavascriptException("javascript error: x is not defined"),
        requests.exceptions.InvalidURL("no host"),
        http_error(400),
        OSError(errno.EACCES, "Permission denied"),
        KeyError("price"),
    ],
}


@pytest.mark.parametrize(
    ("error", "cause"),
    [(error, cause) for cause, errors in ERRORS.items() for error in errors],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else value,
)
def test_cause_of_an_error_on_a_page_that_loaded(error: BaseException, cause: Cause) -> None:
    """The exception decides when the page itself gives no other reason."""
    assert verdict(error, LOADED).cause == cause
    assert verdict(error).cause == cause


@pytest.mark.parametrize(
    ("page", "cause"),
    [
        (PageFacts(status=403), "blocked"),
        (PageFacts(status=429), "blocked"),
        (PageFacts(status=200, request_statuses=(200, 429)), "blocked"),
        (PageFacts(status=200, challenge=True), "blocked"),
        (PageFacts(status=200, title="Attention Required!"), "blocked"),
        (PageFacts(status=200, text="Please verify you are human to go on."), "blocked"),
        (PageFacts(status=200, text="私はロボットではありません"), "blocked"),
        (PageFacts(status=503), "site_unreachable"),
        (PageFacts(status=200, request_statuses=(500,)), "site_unreachable"),
        (
            PageFacts(status=200, network_errors=("https://a/b net::ERR_FAILED",)),
            "site_unreachable",
        ),
        (PageFacts(url="chrome-error://chromewebdata/"), "site_unreachable"),
        (PageFacts(status=200, text="This form is protected by reCAPTCHA."), "page_changed"),
        (PageFacts(status=404), "page_changed"),
        (PageFacts(), "page_changed"),
    ],
)
def test_page_explains_a_missing_element(page: PageFacts, cause: Cause) -> None:
    """A refusal, a challenge or a server's error is why the element is missing; otherwise the page changed."""
    assert verdict(selenium.NoSuchElementException("no such element"), page).cause == cause


def test_lost_session_is_not_blamed_on_the_page() -> None:
    """A browser that died on a page that refused is still a browser that died."""
    lost = selenium.InvalidSessionIdException("invalid session id")
    assert verdict(lost, PageFacts(status=403)).cause == "browser"


def test_what_an_author_wrapped_is_found() -> None:
    """An error raised from one that has a cause has the same cause."""
    outer = RuntimeError("could not read the list")
    outer.__cause__ = selenium.NoSuchElementException("no such element: .price")
    assert verdict(outer) == verdict(outer.__cause__)
    ring = RuntimeError("a")
    ring.__cause__ = ring
    assert verdict(ring).cause == "error"


def test_message_says_what_where_and_how_the_page_answered() -> None:
    """The message has the first line of the error, the address and the title, and no password."""
    page = PageFacts(url="https://shop.example/list", title="List", status=200)
    error = selenium.NoSuchElementException("no such element: .price\n  (Session info: chrome)")
    shown = verdict(error, page).message
    assert (
        shown
        == 'NoSuchElementException: no such element: .price at https://shop.example/list "List" (HTTP 200)'
    )
    assert verdict(JobFailure("blocked", "refused by https://me:hush@shop.example/")).message == (
        "refused by https://shop.example/"
    )


def test_message_quotes_an_api_but_not_a_page() -> None:
    """What an API says about its refusal helps; the beginning of an HTML page does not."""
    assert "RATE_LIMIT" in verdict(http_error(429, '{"code": "RATE_LIMIT_EXCEEDED"}')).message
    assert "doctype" not in verdict(http_error(503, "<!doctype html>", "text/html")).message


@given(st.text(), st.text())
def test_message_is_bounded_and_one_line(text: str, title: str) -> None:
    """Whatever a browser says, the message fits an alert."""
    shown = verdict(selenium.WebDriverException(text), PageFacts(url="u", title=title)).message
    assert len(shown) <= MESSAGE_LIMIT


@given(st.from_regex(r"[a-z0-9]{1,8}(:[a-z0-9]{1,8})?", fullmatch=True))
def test_userinfo_is_removed(userinfo: str) -> None:
    """An address loses its user name and password and nothing else; an address with an @ in its path loses nothing."""
    assert without_userinfo(f"GET https://{userinfo}@h.example/a?b") == "GET https://h.example/a?b"
    assert without_userinfo("https://h.example/@mayfly") == "https://h.example/@mayfly"


@given(st.integers(100, 599))
def test_every_status_has_a_defined_meaning(status: int) -> None:
    """Success and redirects never name a cause; server errors are always worth a retry."""
    cause = cause_of_status(status)
    assert (cause is None) or status >= 400
    assert status < 500 or (cause is not None and exit_code(cause) == 75)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        *(("site_unreachable", 75), ("browser", 75), ("interrupted", 143)),
        *(("page_changed", 1), ("blocked", 1), ("error", 1)),
    ],
)
def test_exit_code(cause: Cause, code: int) -> None:
    """Only what may pass by itself asks for a retry."""
    assert exit_code(cause) == code


def test_unknown_cause_is_refused_where_it_is_written() -> None:
    """A misspelt cause fails at its author, not in an alert."""
    with pytest.raises(ValueError, match="page_change'"):
        JobFailure("page_change", "x")  # type: ignore[arg-type]
