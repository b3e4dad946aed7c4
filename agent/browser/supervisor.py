"""The supervisor of a run's browser: starts it, knows when it is ready, restarts it when it dies, stops it."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

from agent.base.errors import BrowserError
from agent.base.logs import Log
from agent.browser import session
from agent.browser.interface import Backend
from agent.contract.facts import Browser

STARTS = 2
"""Launches of one attempt, if the browser ends before a session has opened."""

LAUNCH_SECONDS = 60.0
"""Limit of a launch, which backends hold to with limits of their own."""


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """How a running browser is watched.

    Attributes:
        interval: Seconds between two polls.
        answer: Seconds that an answer may take.
        misses: Polls without an answer after which a browser that still exists counts as dead.
        pause: Seconds between two attempts to restart it.
    """

    interval: float = 2.0
    answer: float = session.STATUS_SECONDS
    misses: int = 3
    pause: float = 5.0


class Supervisor:
    """One run's browser, as an asynchronous context manager that starts it in the background.

    Entering returns at once; leaving stops the browser, also in the middle of its start. A session must open within
    `timeout` seconds of a launch.

    Attributes:
        generation: How often it has died. A job whose generation was another one at its end lost its browser.
    """

    def __init__(
        self, backend: Backend, *, timeout: float, log: Log, pace: WatchSettings | None = None
    ) -> None:
        self.generation = 0
        self._backend = backend
        self._timeout = timeout
        self._log = log.bind(browser=backend.kind)
        self._pace = pace or WatchSettings()
        self._name: str | None = None
        self._restarts = 0
        self._users = 0
        self._closing = asyncio.Lock()
        self._settled = asyncio.Event()
        self._error: BrowserError | None = None
        self._look_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="browser")
        return self

    async def __aexit__(self, *_: object) -> None:
        await _to_its_end(self._close())

    @property
    def url(self) -> str:
        """Its WebDriver URL, for jobs; call `ready` first."""
        return self._backend.url

    @property
    def shares_downloads(self) -> bool:
        """Whether jobs find the browser's downloads in the run's downloads folder."""
        return self._backend.shares_downloads

    async def ready(self) -> None:
        """Return when a session can be opened; at once while the browser is well.

        Raises:
            BrowserError: It is not available, or not in time.
        """
        limit = self._backend.preparation + STARTS * LAUNCH_SECONDS + self._timeout
        try:
            async with asyncio.timeout(limit):
                await self._settled.wait()
        except TimeoutError as error:
            raise BrowserError(f"the browser was not ready after {limit:g} s") from error
        if self._error is not None:
            raise BrowserError(str(self._error), remedy=self._error.remedy) from self._error

    async def lost(self, generation: int) -> bool:
        """Tell whether the browser of `generation` is gone, or does not answer now.

        A job that fails because its browser died is faster than the next poll; so this polls.
        """
        if generation != self.generation or not self._settled.is_set() or self._error is not None:
            return True
        if await session.answers(self.url, seconds=self._pace.answer):
            return generation != self.generation
        self._look_now.set()
        return True

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Note that a job uses it during the block.

        A killed job leaves its session open, which would keep a slot from the next one. Which job has a session is
        unknown, so all are closed when no job is left, except those of somebody else's Grid. A job that begins
        meanwhile waits for that: its session would be closed too.
        """
        async with self._closing:
            self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            async with self._closing:
                await self._close_sessions()

    async def _close_sessions(self) -> None:
        if self._users or self._backend.kind == "remote" or not self._settled.is_set():
            return
        closed = await session.close_all(self.url)
        if closed:
            self._log.info("browser.closed_sessions", sessions=closed)

    def record(self) -> Browser | None:
        """Return the manifest's record; None if no session ever opened."""
        if self._name is None:
            return None
        return Browser(
            kind=self._backend.kind,
            name=self._name,
            image=self._backend.image,
            digest=self._backend.digest,
            restarts=self._restarts,
        )

    async def _keep(self) -> None:
        try:
            await self._backend.prepare()
            await self._bring_up()
            while True:
                self._settle(None)
                reason = await self._until_dead()
                self._settled.clear()
                self.generation += 1
                self._log.warning(
                    "browser.died", reason=reason, said=await self._backend.last_words()
                )
                await self._bring_back()
        except BrowserError as error:
            self._log.error("browser.failed", reason=str(error), remedy=error.remedy)
            await self._backend.stop()
            self._settle(error)
        except Exception as error:  # noqa: BLE001 -- a defect of ours must not leave jobs waiting
            self._log.exception("browser.defect")
            self._settle(BrowserError(f"the browser's supervisor failed: {error!r}"))

    def _settle(self, error: BrowserError | None) -> None:
        self._error = error
        self._settled.set()

    async def _bring_up(self) -> None:
        """Launch it and wait until a session opens; once more if it ends in between."""
        began = time.monotonic()
        for number in range(1, STARTS + 1):
            self._log.info("browser.starting")
            try:
                await self._launch()
                self._name = await session.wait_for_session(
                    self._backend.url,
                    seconds=began + self._timeout - time.monotonic(),
                    alive=self._backend.running,
                    shared=self._backend.kind == "remote",
                )
            except session.NoSession as error:
                said = await self._backend.last_words()
                await self._backend.stop()
                if number == STARTS or not isinstance(error, session.BrowserDied):
                    raise BrowserError(
                        f"{error}" + (f"; it said: {said}" if said else "")
                    ) from error
                self._log.warning("browser.died_early", said=said)
            else:
                break
        seconds = round(time.monotonic() - began, 2)
        self._log.info("browser.ready", name=self._name, seconds=seconds)

    async def _launch(self) -> None:
        try:
            await self._backend.start()
        except OSError as error:  # of a disk that is full, and may have room for the next launch
            raise BrowserError(f"the browser could not be started: {error}") from error

    async def _bring_back(self) -> None:
        """Restart it, as often as it takes. Meanwhile jobs learn why they get no browser."""
        while True:
            await self._backend.stop()
            try:
                await self._bring_up()
            except BrowserError as error:
                self._log.error("browser.not_restarted", reason=str(error))
                self._settle(error)
                await asyncio.sleep(self._pace.pause)
            else:
                self._restarts += 1
                return

    async def _until_dead(self) -> str:
        """Return when it is dead, with the reason."""
        misses = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pace.interval):
                    await self._look_now.wait()
            self._look_now.clear()
            if await session.answers(self.url, seconds=self._pace.answer):
                misses = 0
                continue
            misses += 1
            if not await self._backend.running():
                return "it ended"
            if misses >= self._pace.misses:
                return f"it did not answer {misses} times"

    async def _close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._backend.stop()
        self._settle(BrowserError("the browser has been stopped"))
        self._log.info("browser.stopped", restarts=self._restarts)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for bounded work even when cancelled meanwhile, and pass the cancellation on afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
    task.result()
