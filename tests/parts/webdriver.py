"""The few WebDriver commands that tell whether a browser endpoint works, spoken over plain HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import requests

SESSION_SECONDS = 60
COMMAND_SECONDS = 30
# The Grid refuses JSON that does not say so in these words.
CONTENT_TYPE = {"Content-Type": "application/json; charset=utf-8"}


class Session:
    """An open browser session at a WebDriver endpoint."""

    def __init__(self, url: str, answer: dict[str, Any]) -> None:
        self.capabilities: dict[str, Any] = answer["capabilities"]
        self._url = f"{url}/session/{answer['sessionId']}"

    def visit(self, page: str) -> None:
        """Load a page."""
        _ask("POST", f"{self._url}/url", {"url": page})

    def run(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        return _ask("POST", f"{self._url}/execute/sync", {"script": script, "args": []})

    def close(self) -> None:
        """End the session, and the browser with it."""
        _ask("DELETE", self._url)


@contextmanager
def session(url: str, *, options: dict[str, Any] | None = None) -> Iterator[Session]:
    """A Chrome session at the endpoint `url`, with `goog:chromeOptions`, closed at the end of the block."""
    always: dict[str, Any] = {"browserName": "chrome"}
    if options is not None:
        always["goog:chromeOptions"] = options
    body = {"capabilities": {"alwaysMatch": always}}
    opened = Session(url, _ask("POST", f"{url}/session", body, seconds=SESSION_SECONDS))
    try:
        yield opened
    finally:
        opened.close()


def status(url: str) -> dict[str, Any] | None:
    """What the endpoint says of itself; None when it says nothing."""
    try:
        told: dict[str, Any] = _ask("GET", f"{url}/status", seconds=5)
    except (requests.RequestException, KeyError, ValueError):
        return None
    return told


def is_ready(url: str) -> bool:
    """Whether the endpoint says of itself that it can take a session."""
    return bool((status(url) or {}).get("ready"))


def _ask(
    method: str, url: str, body: dict[str, Any] | None = None, *, seconds: float = COMMAND_SECONDS
) -> Any:
    json = body if body is not None or method != "POST" else {}
    answer = requests.request(method, url, json=json, headers=CONTENT_TYPE, timeout=seconds)
    if not answer.ok:
        raise requests.HTTPError(f"{method} {url}: {answer.status_code} {answer.text[:1000]}")
    return answer.json()["value"]
