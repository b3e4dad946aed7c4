"""A browser session from the environment, closed and explained whatever happens in it."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

from scrapers.kit.causes import JobFailure
from scrapers.kit.job import Job
from scrapers.kit.stops import DeadlineReached, cleaning_up

if TYPE_CHECKING:  # importing Selenium takes 0.4 s, which a job without a browser does not owe
    from selenium.webdriver import ChromeOptions
    from selenium.webdriver.remote.remote_connection import RemoteConnection
    from selenium.webdriver.remote.webdriver import WebDriver

PAGE_LOAD_SECONDS = 30
SCRIPT_SECONDS = 30
COMMAND_SECONDS = 60.0
"""Limit of each command; above the page's own so that the browser can say first what was slow."""

NEW_SESSION_SECONDS = 120.0
"""Limit of opening a session; a busy Grid queues requests."""

QUIT_SECONDS = 5.0

FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,1600",
)


def browser_flags(user_id: int, *, watched: bool = False) -> tuple[str, ...]:
    """Return Chromium's flags for the browser of a user: its sandbox refuses to run as root.

    One that is `watched` has a window for a person (`mayfly rerun --watch`).
    """
    flags = tuple(flag for flag in FLAGS if not (watched and flag.startswith("--headless")))
    return (*flags, "--no-sandbox") if user_id == 0 else flags


@contextmanager
def browser_session(job: Job, *, downloads: bool = False) -> "Iterator[WebDriver]":
    """Open a session at the job's WebDriver URL; on failure gather evidence, and always close it.

    Args:
        job: Whose environment to use.
        downloads: Whether the job makes the browser download files; see `Downloads`.

    Raises:
        JobFailure: There is no WebDriver URL.
        Exception: Selenium's and urllib3's, when no session can be had; and what the block raises, unchanged.
    """
    driver = _open(job, downloads=downloads)
    try:
        yield driver
    except (Exception, DeadlineReached) as error:
        with cleaning_up():
            _explain(driver, job, error)
        raise
    finally:
        with cleaning_up():
            _close(driver, min(QUIT_SECONDS, 1 + job.seconds_left(QUIT_SECONDS)))


def _open(job: Job, *, downloads: bool) -> "WebDriver":
    from selenium import webdriver  # noqa: PLC0415 -- see above
    from selenium.webdriver.remote.client_config import ClientConfig  # noqa: PLC0415
    from urllib3 import Retry  # noqa: PLC0415

    if job.webdriver_url is None:
        raise JobFailure(
            "browser",
            "no browser: start chromedriver --port=9515 and set MAYFLY_WEBDRIVER_URL to it",
        )
    # Only connecting is tried twice: a command that was sent may have been carried out.
    connection = {"retries": Retry(total=1, connect=1, read=0, other=0, redirect=0)}
    config = ClientConfig(
        remote_server_addr=job.webdriver_url.rstrip("/"),
        init_args_for_pool_manager={"init_args_for_pool_manager": connection},
        timeout=cast(
            "int", job.seconds_left(NEW_SESSION_SECONDS)
        ),  # seconds of any kind, whatever its stub says
    )
    driver = webdriver.Remote(
        command_executor=config.remote_server_addr,
        options=_options(job, downloads=downloads),
        client_config=config,
    )
    config.timeout = cast("int", COMMAND_SECONDS)
    return driver


def _options(job: Job, *, downloads: bool) -> "ChromeOptions":
    from selenium import webdriver  # noqa: PLC0415

    options = webdriver.ChromeOptions()
    for flag in browser_flags(os.geteuid(), watched="MAYFLY_WATCH" in os.environ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.timeouts = {"pageLoad": PAGE_LOAD_SECONDS * 1000, "script": SCRIPT_SECONDS * 1000}
    if downloads and job.downloads_dir is not None:
        preferences = {  # every download lands in the folder, without a question
            "download.default_directory": str(job.downloads_dir),
            "download.prompt_for_download": False,
            "plugins.always_open_pdf_externally": True,
            "profile.default_content_setting_values.automatic_downloads": 1,
        }
        options.add_experimental_option("prefs", preferences)
    elif downloads:
        options.enable_downloads = True
    return options


def _explain(driver: "WebDriver", job: Job, error: BaseException) -> None:
    from scrapers.kit.evidence import BUDGET_SECONDS, gather  # noqa: PLC0415

    job.failed_page = (error, gather(driver, job.output_dir, job.seconds_left(BUDGET_SECONDS)))


def _close(driver: "WebDriver", seconds: float) -> None:
    cast("RemoteConnection", driver.command_executor).client_config.timeout = seconds
    try:
        driver.quit()
    except Exception as error:  # noqa: BLE001 -- a session that is gone already is closed enough
        print(f"browser session not closed: {type(error).__name__}", file=sys.stderr)
