"""Why a job failed, told from the exception and from the page it happened on. Nothing here has effects."""

import errno
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import requests
import urllib3
from selenium.common import exceptions as selenium

from scrapers.kit.stops import DeadlineReached, Stopped

Cause = Literal[
    "page_changed",
    "blocked",
    "site_unreachable",
    "browser",
    "timeout",
    "out_of_memory",
    "out_of_disk",
    "interrupted",
    "error",
]

WORTH_A_RETRY: frozenset[Cause] = frozenset({"site_unreachable", "browser"})
"""What may be over in a minute. A changed page will not be, and asking again of a site that blocks makes it worse."""

MESSAGE_LIMIT = 1000
"""Characters of a message: it ends up in an alert."""

_BLOCKED_STATUSES = frozenset({403, 429, 451})
_GONE_STATUSES = frozenset({404, 410})
_SERVER_ERROR = 500

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

_BY_TYPE: tuple[tuple[type[BaseException], Cause], ...] = (
    (DeadlineReached, "timeout"),
    (Stopped, "interrupted"),
    (MemoryError, "out_of_memory"),
    # requests wraps its own: a bare one comes from the connection to the WebDriver.
    (urllib3.exceptions.HTTPError, "browser"),
)

_STRUCTURE = (
    selenium.ElementClickInterceptedException,
    selenium.ElementNotInteractableException,
    selenium.MoveTargetOutOfBoundsException,
    selenium.NoAlertPresentException,
    selenium.NoSuchElementException,
    selenium.NoSuchFrameException,
    selenium.NoSuchShadowRootException,
    selenium.StaleElementReferenceException,
    selenium.TimeoutException,
    selenium.UnexpectedAlertPresentException,
    selenium.UnexpectedTagNameException,
)
"""What Selenium raises when a page that loaded is not built as the job expects."""

_LOST = (
    selenium.InvalidSessionIdException,
    selenium.NoSuchWindowException,
    selenium.SessionNotCreatedException,
)

_CHALLENGES = re.compile(
    r"are you a robot|not a robot|verify (that )?you are (a )?human|unusual traffic|automated (queries|requests)"
    r"|(solve|complete|enter) (the|this) captcha|checking your browser|attention required|access denied"
    r"|ロボットではありません|アクセスが拒否されました|アクセスが集中",
    re.IGNORECASE,
)
"""Sentences of pages that stand in for the real one. Not the bare word captcha: footers of ordinary pages have it."""

_LOST_SESSION = re.compile(
    r"disconnected|crashed|not reachable|session deleted|invalid session id|session not (created|found)"
    r"|no such window|window already closed|unable to (connect to renderer|find session|communicate)"
    r"|chrome (failed to start|instance exited)|could not start a new session",
    re.IGNORECASE,
)
_PAGE_LOAD = re.compile(
    r"timed out receiving message from renderer|page load|net::ERR_", re.IGNORECASE
)


_USERINFO = re.compile(r"://[^/?#\s]*@")


class JobFailure(Exception):  # noqa: N818 -- raised by authors: the name states the fact
    """A failure whose cause the job itself knows."""

    def __init__(self, cause: Cause, message: str) -> None:
        if cause not in get_args(Cause):
            raise ValueError(f"{cause!r} is not a cause; causes are {', '.join(get_args(Cause))}")
        super().__init__(message)
        self.cause: Cause = cause


@dataclass(frozen=True, slots=True)
class PageFacts:
    """What the browser showed when something failed.

    Attributes:
        url: Its address, without a password.
        title: Its title.
        status: HTTP status of the page; 0 when unknown.
        request_statuses: HTTP statuses of what its scripts fetched from the same site.
        text: The beginning of its visible text.
        challenge: Whether it has a form or frame that asks for proof of being human.
        network_errors: `net::ERR_...` lines of its console that concern the same site.
    """

    url: str = ""
    title: str = ""
    status: int = 0
    request_statuses: tuple[int, ...] = ()
    text: str = ""
    challenge: bool = False
    network_errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A cause, and one sentence about it for a person."""

    cause: Cause
    message: str


def verdict(error: BaseException, page: PageFacts | None = None) -> Verdict:
    """Return why a job failed with `error`, on `page` if a browser was showing one."""
    for link in _chain(error):
        cause = _cause(link, page)
        if cause != "error":
            return Verdict(cause, _message(link, page))
    return Verdict("error", _message(error, page))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it was raised from, in case an author wrapped one that says more."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__


def _cause(error: BaseException, page: PageFacts | None) -> Cause:
    if isinstance(error, JobFailure):
        return error.cause
    if isinstance(error, requests.RequestException):
        return _cause_of_request(error)
    if isinstance(error, selenium.WebDriverException):
        return _cause_of_selenium(error, page)
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "out_of_disk"
    return next((cause for kind, cause in _BY_TYPE if isinstance(error, kind)), "error")


def _cause_of_request(error: requests.RequestException) -> Cause:
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return cause_of_status(error.response.status_code) or "error"
    if isinstance(error, requests.JSONDecodeError):
        return "page_changed"
    reaching = (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    )
    return "site_unreachable" if isinstance(error, reaching) else "error"


def cause_of_status(status: int) -> Cause | None:
    """Return what an HTTP status says about a failure, or None when it says nothing."""
    if status in _BLOCKED_STATUSES:
        return "blocked"
    if status >= _SERVER_ERROR:
        return "site_unreachable"
    return "page_changed" if status in _GONE_STATUSES else None


def _cause_of_selenium(error: selenium.WebDriverException, page: PageFacts | None) -> Cause:
    message = error.msg or ""
    if isinstance(error, _LOST) or _LOST_SESSION.search(message):
        return "browser"
    if page is not None and (cause := _cause_of_page(page)):
        return cause
    if _PAGE_LOAD.search(message):
        return "site_unreachable"
    if "script timeout" in message:
        return "timeout"
    return "page_changed" if isinstance(error, _STRUCTURE) else "error"


def _cause_of_page(page: PageFacts) -> Cause | None:
    """Return what the page itself says: a refusal, a challenge or a server's error explains a missing element."""
    statuses = (page.status, *page.request_statuses)
    challenged = page.challenge or _CHALLENGES.search(f"{page.title}\n{page.text}") is not None
    if challenged or _BLOCKED_STATUSES.intersection(statuses):
        return "blocked"
    broken_line = page.url.startswith("chrome-error:") or bool(page.network_errors)
    if broken_line or any(status >= _SERVER_ERROR for status in statuses):
        return "site_unreachable"
    return None


def _message(error: BaseException, page: PageFacts | None) -> str:
    text = (error.msg or "") if isinstance(error, selenium.WebDriverException) else str(error)
    text = text.strip().partition("\n")[0].strip()
    name = type(error).__name__
    parts = (
        [text] if isinstance(error, JobFailure | Stopped) else [f"{name}: {text}" if text else name]
    )
    if isinstance(error, requests.HTTPError) and error.response is not None:
        html = "html" in error.response.headers.get("Content-Type", "")
        parts += [] if html else [f"said: {' '.join(error.response.text[:200].split())}"]
    if page is not None and page.url:
        shown = f'at {page.url} "{page.title}"' if page.title else f"at {page.url}"
        parts.append(f"{shown} (HTTP {page.status})" if page.status else shown)
    return without_userinfo(" ".join(parts))[:MESSAGE_LIMIT]


def without_userinfo(text: str) -> str:
    """Return `text` with user names and passwords taken out of the addresses in it."""
    return _USERINFO.sub("://", text)
