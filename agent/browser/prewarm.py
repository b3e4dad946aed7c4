"""A browser that is started on a guess, while the release is still fetched, and corrected once the release is known."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from agent.browser.choice import Choice
from agent.browser.proxy import door
from agent.browser.supervisor import Supervisor
from agent.config.jobsfile import Job, JobsFile, ReleaseBrowser, needs_browser
from agent.contract.facts import Browser

Choose = Callable[[str | None], Choice]
Keep = Callable[[Choice], Supervisor]


LOOPBACK = "127.0.0.1"


class Prewarm:
    """The browser of one run; leaving the context stops it.

    Attributes:
        warnings: What a person should know of it.
    """

    def __init__(self, choose: Choose, keep: Keep, *, port: int = 0) -> None:
        """Make no browser yet.

        Args:
            choose: Returns which browser to use, given the image that the release pins.
            keep: Returns the keeper of one.
            port: A port of the loopback address at which jobs find it as well; 0 for none.
        """
        self.warnings: tuple[str, ...] = ()
        self._port = port
        self._door = AsyncExitStack()
        self._choose = choose
        self._keep = keep
        self._choice: Choice | None = None
        self._keeper: Supervisor | None = None
        self._stopping: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.leave()
        await self._door.aclose()
        await asyncio.gather(*self._stopping)

    async def guess(self, last: JobsFile | None) -> None:
        """Start what the last good release used; without one, what most releases use."""
        if last is None or needs_browser(last):
            await self._start(self._choose(_image(last.browser if last else None)))

    async def settle(
        self, pinned: ReleaseBrowser | None, jobs: tuple[Job, ...]
    ) -> Supervisor | None:
        """Return the browser that the jobs need, started; None when none of them needs one."""
        if not any(job.browser for job in jobs):
            self._dismiss()
            return None
        choice = self._choose(_image(pinned))
        if choice != self._choice:
            self._dismiss()
            await self._start(choice)
        await self._open_door()
        return self._keeper

    def leave(self) -> Browser | None:
        """Begin to stop whatever runs, and return what the manifest says of the browser that the jobs had.

        The end of the context waits for it: half a second for a container, in which files can be sent.
        """
        record = self._keeper.record() if self._keeper else None
        self._dismiss()
        return record

    async def _start(self, choice: Choice) -> None:
        self._choice = choice
        self._keeper = self._keep(choice)
        await self._keeper.__aenter__()

    async def _open_door(self) -> None:
        """Offer the browser where older scrapers look for it, unless it is there itself."""
        url = urlsplit(self._url())
        there = url.hostname in {LOOPBACK, "localhost"} and url.port == self._port
        if not self._port or there:
            return
        try:
            await self._door.enter_async_context(door(LOOPBACK, self._port, self._url))
        except OSError as error:
            where = f"http://localhost:{self._port}, for scrapers that look there"
            self.warnings = (f"the browser is not at {where}: {error.strerror} (browser.port)",)

    def _url(self) -> str:
        return self._keeper.url if self._keeper else ""

    def _dismiss(self) -> None:
        """Stop the present browser beside what comes next."""
        if self._keeper is not None:
            leaving = self._keeper.__aexit__(None, None, None)
            self._stopping.append(asyncio.ensure_future(leaving))
        self._keeper = self._choice = None


def _image(pinned: ReleaseBrowser | None) -> str | None:
    return pinned.image if pinned else None
