"""The container engine for the browser: its failures are the browser's, and there are other ways to have one."""

from typing import ClassVar

from agent.base.engine import Engine
from agent.base.errors import BrowserError, MayflyError

WITHOUT = "or install chromium and chromedriver, or set browser.url to a running WebDriver endpoint"


class Docker(Engine):
    """`docker`, whose failures are raised as BrowserError."""

    failure: ClassVar[type[MayflyError]] = BrowserError
    instead: ClassVar[str] = f", {WITHOUT}"
