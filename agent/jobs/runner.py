"""All jobs of a run: who starts when is decided by `agent.jobs.plan`, this carries it out."""

import asyncio
import errno
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from agent.base.zones import zone_of
from agent.config.jobsfile import Job
from agent.contract.package import JobRecord
from agent.contract.results import JobCause
from agent.jobs.context import JobContext
from agent.jobs.job import failed, interrupted, run_job, skipped
from agent.jobs.plan import Decision, SchedulerState, day_problem, next_step

LEAST_SECONDS = 1.0
"""Less than this before the deadline nothing is started any more."""


async def run_jobs(
    jobs: Sequence[Job], sessions: int, context: JobContext, done: Callable[[JobRecord], None]
) -> None:
    """Run all jobs; each result is handed to `done` as soon as it is known, once."""
    crew = _Crew(jobs, sessions, context, done)
    try:
        await crew.work()
    finally:
        await crew.dismiss()


class _Crew:
    def __init__(
        self,
        jobs: Sequence[Job],
        sessions: int,
        context: JobContext,
        done: Callable[[JobRecord], None],
    ) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._sessions = sessions
        self._shop = context
        self._done = done
        self._ended: dict[str, JobRecord] = {}
        self._running: dict[str, asyncio.Task[JobRecord]] = {}
        self._browser = asyncio.create_task(self._browser_settled())

    async def work(self) -> None:
        self._skip_finished()
        self._skip_other_days()
        while len(self._ended) < len(self._jobs):
            for name in (step := next_step(self._board())).start:
                self._running[name] = asyncio.create_task(self._run(self._jobs[name]))
            if step.skip:
                self._skip(step)
            elif self._running or not self._browser.done():
                await self._something_ends()

    async def _run(self, job: Job) -> JobRecord:
        """Run a job; what goes wrong in the agent meanwhile, such as a full disk, costs this job and no other."""
        try:
            return await run_job(job, self._shop)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            cause = JobCause.OUT_OF_DISK if full else JobCause.ERROR
            return failed(job, self._shop, str(error), cause)
        except Exception as error:  # a defect of ours must not take the other jobs along
            self._shop.run_logger.log.exception("job.defect", job=job.name)
            return failed(job, self._shop, f"the agent failed: {error!r}", JobCause.ERROR)

    async def dismiss(self) -> None:
        """End what still runs, for a run that is being torn down."""
        tasks = [self._browser, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _board(self) -> SchedulerState:
        return SchedulerState(
            jobs=tuple(self._jobs.values()),
            ended={name: result.status for name, result in self._ended.items()},
            running=frozenset(self._running),
            parallel=self._shop.limits.jobs,
            # While the browser still starts, the others have the machine.
            sessions=self._sessions if self._browser.done() else 0,
            stopping=self._stopping(),
            finished=frozenset(self._shop.finished),
        )

    def _stopping(self) -> str:
        if self._shop.stop.requested:
            return f"not started: {self._shop.stop.reason}"
        if self._shop.seconds_left() < LEAST_SECONDS:
            return "not started: the run's time was over"
        return ""

    async def _browser_settled(self) -> None:
        """Wait until the browser is ready or cannot be; a job that needs it is told why by its own attempt."""
        if self._shop.browser is not None:
            await asyncio.gather(self._shop.browser.ready(), return_exceptions=True)

    async def _something_ends(self) -> None:
        waits = {*self._running.values()} | ({self._browser} if not self._browser.done() else set())
        stopping = asyncio.create_task(self._shop.stop.wait())
        await asyncio.wait(
            waits | ({stopping} if not self._shop.stop.requested else set()),
            timeout=max(self._shop.seconds_left(), LEAST_SECONDS),
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        for name, task in list(self._running.items()):
            if task.done():
                del self._running[name]
                self._end(task.result())

    def _skip(self, step: Decision) -> None:
        for name, reason in step.skip:
            job = self._jobs[name]
            if self._shop.stop.requested:
                self._end(interrupted(job, self._shop, reason))
            elif self._stopping():
                self._end(skipped(job, self._shop, reason, JobCause.TIMEOUT))
            else:
                self._end(skipped(job, self._shop, reason, self._cause_before(job)))

    def _cause_before(self, job: Job) -> JobCause | None:
        """Return why a job's needs did not succeed; None when they were merely not due today."""
        causes = (self._ended[need].cause for need in job.needs if need in self._ended)
        return next((cause for cause in causes if cause is not None), None)

    def _skip_finished(self) -> None:
        for name, job in self._jobs.items():
            if name in self._shop.finished:
                self._end(skipped(job, self._shop, self._shop.finished[name]))

    def _skip_other_days(self) -> None:
        for name, job in self._jobs.items():
            if name in self._ended:
                continue
            if problem := day_problem(job, datetime.now(UTC).astimezone(_zone(job, self._shop))):
                self._end(skipped(job, self._shop, problem))

    def _end(self, result: JobRecord) -> None:
        self._ended[result.name] = result
        self._done(result)


def _zone(job: Job, context: JobContext) -> ZoneInfo | None:
    """Return the time zone in which a job's days are meant: its own TZ, the agent's, or None for the machine's."""
    name = job.env.get("TZ") or context.environ.get("TZ")
    return zone_of(name) if name else None
