"""What the jobs of a run share."""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, TypeVar

from agent.base.engine import Login, no_login
from agent.base.errors import StoreError
from agent.base.logs import RunLogger
from agent.base.progress import Progress
from agent.base.rates import interval_of
from agent.base.stop import Stop, first
from agent.bucket.store import Bucket
from agent.config.jobsfile import Job
from agent.config.settings import Limits
from agent.jobs.interface import Isolation
from agent.jobs.rate_limit import reserve
from agent.jobs.verdict import Past
from agent.jobs.worktree import WorkingTrees
from agent.steps import hurry
from agent.steps.courier import Courier
from agent.steps.ledger import Ledger, newest_state
from agent.steps.spool import SpooledRun

T = TypeVar("T")


class Sessions(Protocol):
    """The browser as jobs see it (`agent.browser.Supervisor`)."""

    @property
    def url(self) -> str:
        """The WebDriver URL, the same for the whole run."""

    @property
    def shares_downloads(self) -> bool:
        """Whether the browser writes into the run's own downloads folder."""

    @property
    def generation(self) -> int:
        """Rises whenever the browser died: a job that sees it rise has lost its session."""

    def used(self) -> AbstractAsyncContextManager[None]:
        """Tell that a job uses it during the block; what the last one leaves open is closed."""

    async def lost(self, generation: int) -> bool:
        """Tell whether the browser of `generation` is gone, or does not answer now."""

    async def ready(self) -> None:
        """Wait, bounded, until a session can be opened.

        Raises:
            BrowserError: None can.
        """


@dataclass(frozen=True, slots=True)
class JobContext:
    """Everything a job needs that is not its own.

    Attributes:
        run: The run in the spool.
        tree: The release's files: the jobs' working directory, or what that is a copy of.
        programs: `bin` of the release's environment, or None.
        browser: Where sessions come from; None when no job wants one.
        isolation: How programs are started.
        courier: Takes results to the bucket while a job runs.
        bucket: Raises StoreError when awaited and there is none.
        ledger: The recent past; raises StoreError likewise.
        secrets: All job secrets, by name.
        secrets_unread: Why there are none; empty when their source was read, or no job asks for any.
        limits: Bounds.
        deadline: When every job must have ended.
        stop: The wish to end early.
        environ: The agent's environment, of which jobs get PATH, LANG and TZ.
        run_logger: Log and redaction.
        progress: Who watches.
        trees: Lends the copies.
        pace: Where turns at sites are kept; None takes none.
        finished: Jobs that need not run because an earlier run has done them, each with the reason.
        login: What opens a private registry.
    """

    run: SpooledRun
    tree: Path
    programs: Path | None
    browser: Sessions | None
    isolation: Isolation
    courier: Courier
    bucket: "asyncio.Future[Bucket]"
    ledger: "asyncio.Future[Ledger]"
    secrets: Mapping[str, str]
    limits: Limits
    deadline: datetime
    stop: Stop
    environ: Mapping[str, str]
    run_logger: RunLogger
    progress: Progress
    trees: WorkingTrees
    pace: Path | None = None
    secrets_unread: str = ""
    finished: Mapping[str, str] = field(default_factory=dict)
    login: Login = no_login

    def seconds_left(self) -> float:
        """Return the seconds until every job must have ended."""
        return (self.deadline - now()).total_seconds()

    async def grace(self) -> float:
        """Return the seconds from SIGTERM to SIGKILL."""
        return await hurry.grace(self.run, self.stop, self.limits.grace)

    async def turn_of(self, job: Job) -> bool:
        """Wait for a job's reservation at each of its sites; False when the run stops or its time is over before that.

        Raises:
            StateError: Turns cannot be kept.
        """
        if self.pace is None:
            return True
        for site, rate in sorted(job.rate.items()):
            left = self.seconds_left()
            wait = await reserve(self.pace, site, interval_of(rate), within=left)
            if wait is None or (wait and await self.stop.pause(wait)):
                return False
        return True

    async def past_of(self, job: str) -> list[Past]:
        """Return what a job produced in recent runs, newest first.

        Raises:
            StoreError: The bucket did not say, or not in time.
        """
        return (await self._in_time(asyncio.shield(self.ledger))).past.get(job, [])

    async def fetch_state(self, job: str) -> bool:
        """Copy a job's newest committed memory into the spool; False when there is none yet.

        Raises:
            StoreError: The bucket did not say, or not in time.
        """
        return await self._in_time(self._fetch_state(job))

    async def _in_time(self, answer: Awaitable[T]) -> T:
        """Wait for the bucket, but not for more than a quarter of the jobs' time, nor once the run is told to stop."""
        seconds = self.seconds_left() / 4
        task = asyncio.ensure_future(answer)
        try:
            if await first(asyncio.wait([task]), self.stop.wait(), seconds=seconds) != 0:
                raise StoreError(f"the bucket did not answer within {seconds:.0f} s")
            return task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _fetch_state(self, job: str) -> bool:
        bucket, ledger = await asyncio.shield(self.bucket), await asyncio.shield(self.ledger)
        key = await newest_state(bucket, ledger, job, now())
        if key is None:
            return False
        target = self.run.restored_state(job)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".part")
        with draft.open("wb") as stream:
            found = await bucket.download(key, stream, limit=self.limits.state * 2)
        if found:
            draft.replace(target)
        return found


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
