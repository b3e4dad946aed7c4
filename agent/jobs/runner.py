"""Runs all jobs; `agent.jobs.plan` decides which starts when."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from zoneinfo import ZoneInfo

from agent.base.disk import FULL
from agent.base.zones import zone_of
from agent.config.jobsfile import Job
from agent.contract.package import JobRecord
from agent.contract.results import JobCause, JobStatus
from agent.jobs.context import JobContext
from agent.jobs.job import run_job, unstarted
from agent.jobs.plan import LEAST_SECONDS, Decision, SchedulerState, day_problem, next_step

Done = Callable[[Job, JobRecord], Awaitable[None]]
"""Called with a job and its record."""


async def run_jobs(jobs: Sequence[Job], sessions: int, context: JobContext, done: Done) -> None:
    """Run the jobs that no other run has done; call `done` once for each, as soon as it has ended."""
    runner = _Runner(jobs, sessions, context, done)
    try:
        await runner.work()
    finally:
        await runner.cancel()


class _Runner:
    def __init__(self, jobs: Sequence[Job], sessions: int, context: JobContext, done: Done) -> None:
        self._jobs = {job.name: job for job in jobs}
        self._sessions = sessions
        self._context = context
        self._done = done
        self._ended: dict[str, JobRecord] = {}
        self._running: dict[str, asyncio.Task[JobRecord]] = {}
        self._browser = asyncio.create_task(self._browser_settled())

    async def work(self) -> None:
        await self._skip_other_days()
        while (
            self._running or self._jobs.keys() - self._ended.keys() - self._context.finished.keys()
        ):
            for name in (step := next_step(self._state())).start:
                self._running[name] = asyncio.create_task(self._run(self._jobs[name]))
            if step.skip:
                await self._skip(step)
            else:
                await self._something_ends()

    async def _run(self, job: Job) -> JobRecord:
        record = await self._record_of(job)
        await self._done(job, record)
        return record

    async def _record_of(self, job: Job) -> JobRecord:
        """Run a job; an error of the agent, such as a full disk, fails this job and no other."""
        try:
            return await run_job(job, self._context)
        except OSError as error:
            cause = JobCause.OUT_OF_DISK if error.errno in FULL else JobCause.ERROR
            text = str(error) or repr(error)
        except Exception as error:  # a defect of ours must not take the other jobs along
            self._context.run_logger.log.exception("job.defect", job=job.name)
            text, cause = f"the agent failed: {error!r}", JobCause.ERROR
        return unstarted(job, self._context, JobStatus.FAILED, text, cause)

    async def cancel(self) -> None:
        """Cancel what still runs."""
        tasks = [self._browser, *self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _state(self) -> SchedulerState:
        return SchedulerState(
            jobs=tuple(self._jobs.values()),
            ended={name: result.status for name, result in self._ended.items()},
            running=frozenset(self._running),
            parallel=self._context.limits.jobs,
            # While the browser still starts, the others have the machine.
            sessions=self._sessions if self._browser.done() else 0,
            stopping=self._stopping(),
            finished=frozenset(self._context.finished),
        )

    def _stopping(self) -> str:
        if self._context.stop.requested:
            return f"not started: {self._context.stop.reason}"
        if self._context.seconds_left() < LEAST_SECONDS:
            return "not started: the run's time was over"
        return ""

    async def _browser_settled(self) -> None:
        """Wait until the browser is ready, or has failed: the attempt of a job that needs it says why."""
        if self._context.browser is not None:
            await asyncio.gather(self._context.browser.ready(), return_exceptions=True)

    async def _something_ends(self) -> None:
        waits = {*self._running.values()} | ({self._browser} if not self._browser.done() else set())
        stopping = asyncio.create_task(self._context.stop.wait())
        await asyncio.wait(
            waits | ({stopping} if not self._context.stop.requested else set()),
            timeout=max(self._context.seconds_left(), LEAST_SECONDS),
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopping.cancel()
        for name, task in list(self._running.items()):
            if task.done():
                del self._running[name]
                self._ended[name] = task.result()

    async def _skip(self, step: Decision) -> None:
        for name, reason in step.skip:
            job = self._jobs[name]
            cause = self._cause_before(job)
            if self._context.stop.requested:
                cause = JobCause.INTERRUPTED
            elif self._stopping():
                cause = JobCause.TIMEOUT
            await self._end(job, reason, cause)

    def _cause_before(self, job: Job) -> JobCause | None:
        """Return the cause of a failed need; None when the needs were not due today."""
        causes = (self._ended[need].cause for need in job.needs if need in self._ended)
        return next((cause for cause in causes if cause is not None), None)

    async def _skip_other_days(self) -> None:
        for name, job in self._jobs.items():
            at = self._context.at.astimezone(_zone(job, self._context))
            if name not in self._context.finished and (problem := day_problem(job, at)):
                await self._end(job, problem)

    async def _end(self, job: Job, reason: str, cause: JobCause | None = None) -> None:
        record = unstarted(job, self._context, JobStatus.SKIPPED, reason, cause)
        self._ended[job.name] = record
        await self._done(job, record)


def _zone(job: Job, context: JobContext) -> ZoneInfo | None:
    """Return the zone of a job's days: its own TZ, else the schedule's, else the agent's; None for the machine's."""
    name = job.env.get("TZ") or context.timezone or context.environ.get("TZ")
    return zone_of(name) if name else None
