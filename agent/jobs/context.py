"""What the jobs of a run share."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from agent.base.engine import Login
from agent.base.errors import StoreError
from agent.base.logs import RunLogger
from agent.base.progress import Progress
from agent.base.rates import interval_of
from agent.base.stop import Stop, StoppedError
from agent.batch.history import History, JobState, Past
from agent.browser import Supervisor
from agent.bucket.store import Bucket
from agent.config.jobsfile import Job
from agent.config.settings import Limits
from agent.contract.entries import Output
from agent.contract.package import JobRecord
from agent.contract.results import JobStatus
from agent.delivery.delivery import Delivery
from agent.delivery.spool import SpooledRun
from agent.jobs.interface import Isolation
from agent.jobs.plan import LEAST_SECONDS
from agent.jobs.rate_limit import reserve
from agent.jobs.worktree import WorkingTrees
from agent.machine.spot import Deadlines, deadlines, ends_in_time

T = TypeVar("T")

OUTPUTS_SECONDS = 5.0
"""For the past of a job that has ended and is not judged by it."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """What the jobs of a run share.

    Attributes:
        run: The run in the spool.
        batch: Its batch's name, the same for every attempt.
        at: The time that the batch is for, whose day decides which jobs are due.
        tree: The release's files; the jobs' working directory is this folder or a copy of it.
        programs: `bin` of the release's environment, or None.
        ref: The release's ref.
        commit: Its commit.
        browser: Where sessions come from; None when no job wants one.
        isolation: How programs are started.
        delivery: Takes results to the bucket.
        bucket: Raises StoreError when awaited and there is none.
        history: Earlier batches; raises StoreError likewise.
        past: What the jobs produced in them; likewise.
        secrets: All job secrets, by name.
        limits: Bounds.
        seconds_left: Returns the seconds until every job must have ended.
        stop: A request to end early.
        environ: The agent's environment, of which jobs get PATH, LANG and TZ.
        run_logger: Log and redaction.
        progress: Who watches.
        trees: Lends the copies.
        timezone: In which days are meant where a job does not say; empty for the agent's.
        pace: Folder of the reservations at sites.
        secrets_unread: Why there are none; empty when their source was read, or no job asks for any.
        finished: Jobs that another run of the batch has done, each with the reason; it may grow.
        login: What opens a private registry.
    """

    run: SpooledRun
    batch: str
    at: datetime
    tree: Path
    programs: Path | None
    ref: str
    commit: str
    browser: Supervisor | None
    isolation: Isolation
    delivery: Delivery
    bucket: "asyncio.Future[Bucket]"
    history: "asyncio.Future[History]"
    past: "asyncio.Future[Past]"
    secrets: Mapping[str, str]
    limits: Limits
    seconds_left: Callable[[], float]
    stop: Stop
    environ: Mapping[str, str]
    run_logger: RunLogger
    progress: Progress
    trees: WorkingTrees
    timezone: str
    pace: Path
    secrets_unread: str
    finished: Mapping[str, str]
    login: Login

    async def grace(self) -> float:
        """Return the seconds from SIGTERM to SIGKILL: `limits.grace`, or less on a machine that is taken back."""
        if self.stop.gone is None:
            return self.limits.grace
        table = await self._deadlines(self.stop.gone, sorted(self.run.started_jobs()))
        return (table.jobs_end - now()).total_seconds()

    async def seconds_to_go_on(self, job: str, ran: float) -> float:
        """Return the seconds that a job may go on although its machine is taken back: 0 unless its past was short.

        It has run for `ran` seconds.
        """
        if self.stop.gone is None:
            return 0.0
        table = await self._deadlines(self.stop.gone, [job])
        left = (table.begin_by - now()).total_seconds()
        known = [each.seconds for each in self._known_past(job) if each.seconds is not None]
        return left if ends_in_time(known, ran, left) else 0.0

    async def _deadlines(self, gone: datetime, jobs: list[str]) -> Deadlines:
        """Return the deadlines on a machine that is taken back, with what these jobs still have to send."""
        pending = await self.delivery.waiting_bytes(jobs)
        return deadlines(gone, now(), pending=pending, grace=self.limits.grace)

    async def turn_of(self, job: Job) -> bool:
        """Wait for a job's reservation at each of its sites; False when the run stops, or no time is left after it.

        Raises:
            StateError: The folder of the reservations cannot be used.
        """
        for site, rate in sorted(job.rate.items()):
            left = self.seconds_left() - LEAST_SECONDS
            wait = await reserve(self.pace, site, interval_of(rate), within=left)
            if wait is None or (wait and await self.stop.pause(wait)):
                return False
        return True

    async def past_of(self, job: str) -> Sequence[Output]:
        """Return what a job produced when it last succeeded, newest last.

        Raises:
            StoreError: The bucket did not say, or not in time.
        """
        past = await self._from_bucket(asyncio.shield(self.past))
        return past.outputs.get(job, ())

    async def known_outputs(self, job: JobRecord) -> tuple[Output, ...]:
        """Return the earlier outputs of a job that ended, if they are known soon; its entry repeats them."""
        if job.status is JobStatus.SKIPPED:
            return ()
        await asyncio.wait([self.past], timeout=0 if self.stop.requested else OUTPUTS_SECONDS)
        return self._known_past(job.name)

    def _known_past(self, job: str) -> tuple[Output, ...]:
        """Return the earlier outputs of a job, if they are known by now."""
        past = self.past
        known = past.done() and not past.cancelled() and past.exception() is None
        return past.result().outputs.get(job, ()) if known else ()

    async def fetch_state(self, job: Job) -> None:
        """Copy a job's newest committed state, if there is one, into the spool.

        Raises:
            StoreError: The bucket did not say, or not in time.
            ValueError: It does not hold what its entry says.
        """
        await self._from_bucket(self._fetch_state(job))

    async def _from_bucket(self, answer: Awaitable[T]) -> T:
        seconds = self.seconds_left() / 4
        try:
            return await self.stop.in_time(answer, seconds)
        except TimeoutError as error:
            raise StoreError(f"the bucket did not answer within {seconds:.0f} s") from error
        except StoppedError as error:
            raise StoreError("the run was told to stop before the bucket answered") from error

    async def _fetch_state(self, job: Job) -> None:
        bucket, history = await asyncio.shield(self.bucket), await asyncio.shield(self.history)
        state = await history.newest_state(job.name, checkpoints=job.state == "checkpoint")
        if state is None:
            return
        target = self.run.restored_state(job.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_suffix(".part")
        with draft.open("wb") as stream:
            found = await bucket.download(state.key.text, stream, limit=self.limits.state * 2)
        if found:
            await asyncio.to_thread(_compare, draft, state)
            draft.replace(target)


def _compare(archive: Path, state: JobState) -> None:
    """Compare a state with what the batch's log says of it; an entry that has expired says nothing.

    Raises:
        ValueError: It is another.
    """
    if state.object is None:
        return
    with archive.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != state.object.sha256:
        raise ValueError(f"{state.key.text} is not what was committed")


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)
