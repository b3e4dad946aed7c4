"""What a person wants to see of a browser job that failed: the screen, the page, the console.

Everything is bounded in time and size, and nothing here raises: the original error is what matters.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from selenium.webdriver.remote.command import Command
from selenium.webdriver.remote.remote_connection import RemoteConnection
from selenium.webdriver.remote.webdriver import WebDriver

from scrapers.kit.causes import PageFacts, without_userinfo

Answer = TypeVar("Answer")

FOLDER = ".evidence"
"""Below the output folder: the leading dot says that it is no result."""

BUDGET_SECONDS = 8.0
"""For all of it; a healthy browser takes half a second."""

COMMAND_SECONDS = 4.0
"""For each question to the browser, so that a hung one costs no more than the budget and one question."""

SCREENSHOT_LIMIT = 5_000_000
PAGE_LIMIT = 2_000_000
CONSOLE_LIMIT = 250_000
"""Bytes of each file. A larger screenshot is left out, a larger page or console is cut."""

_FACTS = """
const page = performance.getEntriesByType('navigation')[0];
const fetched = performance.getEntriesByType('resource').filter(entry =>
  ['fetch', 'xmlhttprequest'].includes(entry.initiatorType) && entry.name.startsWith(location.origin + '/'));
const challenge = "iframe[src*='captcha'], iframe[src*='challenges.cloudflare.com'], " +
  "form[action*='captcha'], form[id*='captcha'], form[id*='challenge']";
return {
  url: location.href, title: document.title, status: page ? page.responseStatus : 0,
  request_statuses: fetched.slice(-50).map(entry => entry.responseStatus),
  text: document.body ? document.body.innerText.slice(0, 20000) : '',
  challenge: document.querySelector(challenge) !== null,
};
"""

_INPUT = re.compile(r"""<input\b(?:[^>"']|"[^"]*"|'[^']*')*>""", re.IGNORECASE)
_PASSWORD = re.compile(
    r"""\b(?:type|name|id|autocomplete)\s*=\s*["']?[^"'\s>]*passw""", re.IGNORECASE
)
_VALUE = re.compile(r"""\svalue\s*=\s*(?:"[^"]*"|'[^']*'|[^\s>"']+)""", re.IGNORECASE)


def without_passwords(html: str) -> str:
    """Return a page's source without what was typed into its password inputs."""

    def strip(tag: re.Match[str]) -> str:
        return _VALUE.sub("", tag.group()) if _PASSWORD.search(tag.group()) else tag.group()

    return _INPUT.sub(strip, html)


def same_site_network_errors(url: str, console: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the console's `net::ERR_...` messages about the site of `url`: those of advertisements say nothing."""
    site = "/".join(url.split("/", 3)[:3]) + "/"
    messages = (str(entry.get("message", "")) for entry in console)
    return tuple(text[:300] for text in messages if text.startswith(site) and "net::ERR_" in text)


def gather(driver: WebDriver, output_dir: Path, budget: float = BUDGET_SECONDS) -> PageFacts:
    """Write the evidence below `output_dir` and return what the page says, within about `budget` seconds."""
    folder = output_dir / FOLDER
    ends = time.monotonic() + budget
    cast("RemoteConnection", driver.command_executor).client_config.timeout = min(
        COMMAND_SECONDS, budget
    )

    def ask(question: Callable[[], Answer], otherwise: Answer) -> Answer:
        if time.monotonic() > ends:
            return otherwise
        try:
            return question()
        except Exception as error:  # noqa: BLE001 -- whatever it is, the job's own error is the one to report
            print(f"evidence incomplete: {type(error).__name__}", file=sys.stderr)
            return otherwise

    facts: Mapping[str, Any] = ask(lambda: driver.execute_script(_FACTS), {}) or {}
    console: list[Mapping[str, Any]] = ask(lambda: _console(driver), [])
    ask(lambda: folder.mkdir(parents=True, exist_ok=True), None)
    ask(lambda: _write_screenshot(driver, folder / "screenshot.png"), None)
    ask(lambda: _write_page(driver, folder / "page.html"), None)
    ask(lambda: _write_console(console, folder / "console.log"), None)
    url = str(facts.get("url", ""))
    return PageFacts(
        url=without_userinfo(url),
        title=str(facts.get("title", ""))[:200],
        status=int(facts.get("status") or 0),
        request_statuses=tuple(int(status) for status in facts.get("request_statuses", ())),
        text=str(facts.get("text", "")),
        challenge=bool(facts.get("challenge")),
        network_errors=same_site_network_errors(url, console),
    )


def _console(driver: WebDriver) -> list[Mapping[str, Any]]:
    # The remote driver has no method for it, but the endpoint of Chromium and of a Grid is the same.
    entries = driver.execute(Command.GET_LOG, {"type": "browser"})["value"]
    return [entry for entry in entries if isinstance(entry, dict)]


def _write_screenshot(driver: WebDriver, path: Path) -> None:
    image = driver.get_screenshot_as_png()
    if len(image) <= SCREENSHOT_LIMIT:
        path.write_bytes(image)


def _write_page(driver: WebDriver, path: Path) -> None:
    page = without_passwords(driver.page_source).encode()[:PAGE_LIMIT]
    path.write_text(page.decode(errors="ignore"), "utf-8")


def _write_console(console: list[Mapping[str, Any]], path: Path) -> None:
    lines: list[str] = []
    size = 0
    for entry in console:
        shortened = {
            key: str(value)[:2000] if key == "message" else value for key, value in entry.items()
        }
        lines.append(json.dumps(shortened, ensure_ascii=False) + "\n")
        size += len(lines[-1].encode())
        if size > CONSOLE_LIMIT:
            lines.pop()
            break
    path.write_text("".join(lines), "utf-8")
