"""The real Selenium Grid as local Java processes, with the machine's own Chromium."""

import json
from pathlib import Path
from typing import Self

from tests.parts.command import script
from tests.parts.missing import MissingPartError, program
from tests.parts.ports import LOOPBACK, free_ports
from tests.parts.program import Program
from tests.parts.selenium_jar import selenium_jar
from tests.parts.waiting import wait_until
from tests.parts.webdriver import is_ready, status

START_SECONDS = 60
# Root has no sandbox, tests have no display, and the browser must not call its vendor.
CHROMIUM_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium_wrapper(folder: Path) -> Path:
    """Write a program that starts Chromium as tests need it; for chromedriver's option `binary`."""
    flags = " ".join(CHROMIUM_FLAGS)
    return script(folder / "chromium", f'#!/bin/sh\nexec {browser()} {flags} "$@"\n')


def browser() -> str:
    """The path of Chromium, or of Chrome where Chromium is missing."""
    try:
        return program("chromium")
    except MissingPartError:
        return program("google-chrome")


class Hub:
    """A Grid of a hub and nodes, each a process of its own, as a context manager.

    Attributes:
        url: Its address for WebDriver clients.
    """

    def __init__(self, folder: Path, *, nodes: int = 2, sessions: int = 1) -> None:
        """Start nothing yet.

        Args:
            folder: For logs, and for what the browsers leave.
            nodes: How many.
            sessions: Of each node, at once.
        """
        ports = free_ports(3 + nodes)
        self.url = f"http://{LOOPBACK}:{ports[0]}"
        bus = [
            *("--publish-events", f"tcp://{LOOPBACK}:{ports[1]}"),
            *("--subscribe-events", f"tcp://{LOOPBACK}:{ports[2]}"),
        ]
        self._nodes, self._sessions = nodes, sessions
        hub = ["hub", "--host", LOOPBACK, "--port", str(ports[0]), *bus]
        self._programs = [_java(folder / "hub", hub, "-Xmx256m")]
        for number, port in enumerate(ports[3:]):
            place = folder / f"node-{number}"
            node = [
                *("node", "--host", LOOPBACK, "--port", str(port), "--hub", self.url, *bus),
                *_chrome(place, sessions),
            ]
            self._programs.append(_java(place, node, "-Xmx192m"))

    def __enter__(self) -> Self:
        hub, *nodes = self._programs
        try:
            hub.start(lambda: status(self.url) is not None, seconds=START_SECONDS)
            for node in nodes:
                node.start(lambda: True, seconds=START_SECONDS)
            wait_until(self._complete, seconds=START_SECONDS, what="the nodes")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._stop()

    def _complete(self) -> bool:
        known = status(self.url) or {}
        slots = [slot for node in known.get("nodes", []) for slot in node["slots"]]
        return len(slots) == self._nodes * self._sessions and bool(known["ready"])

    def _stop(self) -> None:
        for each in reversed(self._programs):
            each.stop()


def _java(folder: Path, arguments: list[str], heap: str) -> Program:
    # Chromium leaves profiles and crash reports in both.
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    return Program(
        [program("java"), heap, "-jar", str(selenium_jar()), *arguments],
        log=folder / "grid.log",
        environ={"TMPDIR": str(temporary), "HOME": str(temporary)},
    )


def _chrome(folder: Path, sessions: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    stereotype = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": str(chromium_wrapper(folder))},
    }
    return [
        *("--selenium-manager", "false", "--detect-drivers", "false"),
        *("--max-sessions", str(sessions), "--override-max-sessions", "true"),
        *("--session-timeout", "60", "--enable-managed-downloads", "true"),
        *("--driver-configuration", "display-name=chrome", f"max-sessions={sessions}"),
        f"stereotype={json.dumps(stereotype)}",
        f"webdriver-executable={program('chromedriver')}",
    ]


class Grid:
    """A standalone Grid with two sessions, as a context manager.

    Attributes:
        url: Its address for WebDriver clients.
    """

    def __init__(self, folder: Path) -> None:
        port, publish, subscribe = free_ports(3)
        self.url = f"http://{LOOPBACK}:{port}"
        command = [
            *("standalone", "--host", LOOPBACK, "--port", str(port)),
            *("--publish-events", f"tcp://{LOOPBACK}:{publish}"),
            *("--subscribe-events", f"tcp://{LOOPBACK}:{subscribe}"),
            *_chrome(folder, 2),
        ]
        self._program = _java(folder, command, "-Xmx256m")

    def __enter__(self) -> Self:
        self._program.start(lambda: is_ready(self.url), seconds=START_SECONDS)
        return self

    def __exit__(self, *raised: object) -> None:
        self._program.stop()
