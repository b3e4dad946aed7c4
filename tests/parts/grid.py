"""The real Selenium Grid as a local Java process, with the machine's own Chromium."""

import json
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.parts.missing import MissingPartError, program
from tests.parts.ports import LOOPBACK, free_ports
from tests.parts.program import Program
from tests.parts.selenium_jar import selenium_jar
from tests.parts.webdriver import is_ready

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
    wrapper = folder / "chromium"
    flags = " ".join(CHROMIUM_FLAGS)
    wrapper.write_text(f'#!/bin/sh\nexec {browser()} {flags} "$@"\n')
    wrapper.chmod(0o755)
    return wrapper


def browser() -> str:
    """The path of Chromium, or of Chrome where Chromium is missing.

    Raises:
        MissingPartError: Neither is installed.
    """
    try:
        return program("chromium")
    except MissingPartError:
        return program("google-chrome")


class Grid:
    """A standalone Grid, as a context manager.

    Attributes:
        url: Its address for WebDriver clients.
    """

    def __init__(self, folder: Path, *, sessions: int = 2, session_timeout: int = 60) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, publish, subscribe = free_ports(3)
        self.url = f"http://{LOOPBACK}:{port}"
        stereotype = {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": str(chromium_wrapper(folder))},
        }
        command = [
            *(program("java"), "-Xmx256m", "-jar", str(selenium_jar()), "standalone"),
            *("--host", LOOPBACK, "--port", str(port)),
            *("--publish-events", f"tcp://{LOOPBACK}:{publish}"),
            *("--subscribe-events", f"tcp://{LOOPBACK}:{subscribe}"),
            *("--selenium-manager", "false", "--detect-drivers", "false"),
            *("--max-sessions", str(sessions), "--override-max-sessions", "true"),
            *("--session-timeout", str(session_timeout), "--enable-managed-downloads", "true"),
            *("--driver-configuration", "display-name=chrome", f"max-sessions={sessions}"),
            f"stereotype={json.dumps(stereotype)}",
            f"webdriver-executable={program('chromedriver')}",
        ]
        # Chromium leaves profiles and crash reports in both.
        temporary = folder / "tmp"
        temporary.mkdir(exist_ok=True)
        self._program = Program(
            command,
            log=folder / "grid.log",
            environ={"TMPDIR": str(temporary), "HOME": str(temporary)},
        )

    def __enter__(self) -> Self:
        self._program.start(lambda: is_ready(self.url), seconds=START_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._program.stop()
