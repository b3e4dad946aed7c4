"""Prewarm: a browser is started on a guess while the release is fetched, and replaced if the release needs another."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self
from urllib.parse import urlsplit

from agent.browser.choice import Choice
from agent.browser.proxy import webdriver_proxy
from agent.browser.supervisor import Supervisor
from agent.config.jobsfile import Job, JobsFile, ReleaseBrowser, needs_browser
from agent.contract.facts import Browser

Choose = Callable[[str | None], Choice]
Supervise = Callable[[Choice], Supervisor]


LOOPBACK = "127.0.0.1"


class Prewarm:
    """The browser of one run; leaving the context stops it.

    Args:
        choose: Returns the browser to use, given the image that the release pins.
        supervise: Returns the supervisor of one.
        port: A port of the loopback address at which jobs find it as well; 0 for none.

    Attributes:
        warnings: What a person should know of it.
    """

    def __init__(self, choose: Choose, supervise: Supervise, *, port: int = 0) -> None:
        self.warnings: tuple[str, ...] = ()
        self._port = port
        self._proxy = AsyncExitStack()
        self._listens = False
        self._choose = choose
        self._supervise = supervise
        self._choice: Choice | None = None
        self._supervisor: Supervisor | None = None
        self._stopping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        await self._proxy.aclose()
        await asyncio.gather(*self._stopping)

    async def guess(self, last: JobsFile | None) -> None:
        """Start what the last good release used; without one, what most releases use."""
        if last is None or needs_browser(last):
            await self._start(self._choose(_image(last.browser if last else None)))

    async def settle(
        self, pinned: ReleaseBrowser | None, jobs: tuple[Job, ...]
    ) -> Supervisor | None:
        """Return the browser that the jobs need, started; None if none of them needs one."""
        if not any(job.browser for job in jobs):
            self._dismiss()
            return None
        choice = self._choose(_image(pinned))
        if choice != self._choice:
            self._dismiss()
            await self._start(choice)
        await self._open_proxy()
        return self._supervisor

    def leave(self) -> Browser | None:
        """Begin to stop the browser, and return the manifest's record of the one that the jobs had.

        The end of the context waits for it: half a second for a container, in which files can be sent.
        """
        record = self._supervisor.record() if self._supervisor else None
        self._dismiss()
        return record

    async def _start(self, choice: Choice) -> None:
        self._choice = choice
        self._supervisor = self._supervise(choice)
        await self._supervisor.__aenter__()

    async def _open_proxy(self) -> None:
        """Open the second address, unless the browser is there itself."""
        url = urlsplit(self._url())
        there = url.hostname in {LOOPBACK, "localhost"} and url.port == self._port
        if not self._port or there or self._listens:
            return
        try:
            await self._proxy.enter_async_context(webdriver_proxy(LOOPBACK, self._port, self._url))
            self._listens = True
        except OSError as error:
            where = f"http://localhost:{self._port}, for scrapers that look there"
            self.warnings = (f"the browser is not at {where}: {error.strerror} (browser.port)",)

    def _url(self) -> str:
        return self._supervisor.url if self._supervisor else ""

    def _dismiss(self) -> None:
        """Stop the present browser in the background."""
        if self._supervisor is not None:
            leaving = self._supervisor.__aexit__(None, None, None)
            self._stopping.append(asyncio.ensure_future(leaving))
        self._supervisor = self._choice = None


def _image(pinned: ReleaseBrowser | None) -> str | None:
    return pinned.image if pinned else None
