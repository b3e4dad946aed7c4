"""The jobs of a run: planned, run, judged with their release, and handed to the delivery as they end."""

import asyncio
import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from agent.base.errors import SecretsError
from agent.base.progress import JobEnd
from agent.base.stop import StoppedError
from agent.batch.claim import StandBack, Work
from agent.batch.history import Past
from agent.browser import Prewarm
from agent.config.jobsfile import Job
from agent.contract.entries import MOST_PLANNED, LeftOut, Planned
from agent.contract.package import JobRecord
from agent.contract.results import JobStatus
from agent.delivery.delivery import Delivery
from agent.delivery.spool import Finished
from agent.jobs.context import JobContext
from agent.jobs.interface import Isolation
from agent.jobs.job import keeps_checkpoint
from agent.jobs.plan import chosen
from agent.jobs.runner import run_jobs
from agent.jobs.worktree import WorkingTrees
from agent.release.obtain import Obtained
from agent.release.store import Installed
from agent.release.trial import may_run_again
from agent.run.background import Background
from agent.run.context import RunContext
from agent.run.draft import Draft
from agent.run.phases import Phases
from agent.run.update import Update
from agent.secrets.keyring import Keyring


class JobsOfRun:
    """The jobs of a run.

    Attributes:
        jobs: Those that the run is asked for, in the order of the file.
        left_out: Jobs that another run of the batch has done, each with the reason.
        records: What became of each that ended here.
    """

    def __init__(
        self,
        context: RunContext,
        background: Background,
        delivery: Delivery,
        draft: Draft,
        phases: Phases,
    ) -> None:
        self._context = context
        self._background = background
        self._delivery = delivery
        self._draft = draft
        self._phases = phases
        self.jobs: tuple[Job, ...] = ()
        self.left_out: dict[str, str] = {}
        self.records: dict[str, JobRecord] = {}
        self._on_trial = False
        self._planned: Planned | None = None
        self._past: asyncio.Task[Past] | None = None

    @property
    def results(self) -> tuple[JobRecord, ...]:
        """What became of the jobs that ended."""
        return tuple(self.records.values())

    async def plan(self) -> None:
        """Announce the plan; again after a rollback, or when another run of the batch has done some of it."""
        due = self._due()
        others = {job.name for job in self.jobs}.difference(due)
        left_out = [
            LeftOut(name=name, reason=reason)
            for name, reason in self.left_out.items()
            if name in others
        ]
        planned = Planned(
            release=self._draft.record.release,
            count=len(due),
            jobs=tuple(due[:MOST_PLANNED]),
            left_out=tuple(left_out[:MOST_PLANNED]),
        )
        if planned != self._planned:
            self._planned = planned
            await self._delivery.plan(planned)
        await asyncio.to_thread(self._context.run.save, self._draft.record)

    def _due(self) -> list[str]:
        """Return the jobs that are not left out; one that ended here all the same is not."""
        return [
            job.name
            for job in self.jobs
            if job.name in self.records or job.name not in self.left_out
        ]

    async def run(
        self, obtained: Obtained, update: Update, browser: Prewarm, keyring: Keyring
    ) -> None:
        """Run them; each result is durable as soon as it is known, and committed soon after."""
        call, self._on_trial = self._context.call, obtained.on_trial
        await self.plan()
        call.progress.planned(tuple(self._due()))
        context = await self._job_context(obtained, browser, keyring)
        self._background.watch(self._on_batch_change)
        jitter = random.uniform(0, call.settings.limits.jitter)  # noqa: S311 -- no secret
        await call.stop.pause(jitter)
        with self._phases.measure("jobs"):
            await self._run_jobs(self.jobs, context)
            if obtained.on_trial:
                await self._end_trial(obtained, update, browser, context)
        if not obtained.on_trial:
            update.remember(obtained.release, self.results)
        past = self._past
        if past is not None and past.done() and not past.exception() and past.result().cut:
            self._draft.warn("the bucket holds too much to find what every job produced before")

    async def _run_jobs(self, jobs: tuple[Job, ...], context: JobContext) -> None:
        sessions = self._context.settings.browser.sessions
        await run_jobs(jobs, sessions, context, partial(self._ended, context))

    def _on_batch_change(self, decision: Work | StandBack) -> None:
        """Leave out what other runs of the batch have done meanwhile, or stop if one of them has the batch."""
        if isinstance(decision, StandBack):
            self._context.log.warning("batch.overtaken", reason=decision.reason)
            self._context.stop.request(decision.reason)
        else:
            self.left_out.update(decision.leave_out)

    async def _end_trial(
        self, obtained: Obtained, update: Update, browser: Prewarm, context: JobContext
    ) -> None:
        """Judge a new release; what it broke runs once more on the last good one, in this run."""

        async def rerun(other: Installed, names: tuple[str, ...]) -> list[JobRecord]:
            jobs = chosen(other.jobs.job, frozenset(names))
            # The new release may have forgotten that its jobs want any.
            secrets, unread = await self._secrets(jobs)
            again = replace(
                context,
                secrets=secrets,
                secrets_unread=unread,
                tree=other.tree,
                programs=other.programs,
                ref=other.ref,
                commit=other.commit,
            )
            if any(job.browser for job in jobs):
                again = replace(again, browser=await browser.settle(other.jobs.browser, jobs))
            await self._run_jobs(jobs, again)
            ran = [record for record in self.results if record.name in names]
            # What did not begin again is still what became of it on the new release.
            return [record for record in ran if record.commit == other.commit]

        self._on_trial = False
        record, reason = await update.end_trial(obtained, self.results, rerun)
        self._draft.note(release=record)
        if reason:
            self._draft.warn(f"{obtained.release.ref} failed its trial: {reason}")
        await self.plan()
        await self._delivery.release()

    async def _job_context(
        self, obtained: Obtained, browser: Prewarm, keyring: Keyring
    ) -> JobContext:
        context, release, background = self._context, obtained.release, self._background
        call, settings = context.call, context.settings
        supervisor = await browser.settle(release.jobs.browser, self.jobs)
        self._draft.warn(*browser.warnings)
        secrets, unread = await self._secrets(self.jobs)
        session = await asyncio.shield(background.session)
        self._past = background.outputs([job.name for job in self.jobs])
        return JobContext(
            run=context.run,
            batch=session.batch.name,
            at=session.at,
            tree=release.tree,
            programs=release.programs,
            ref=release.ref,
            commit=release.commit,
            browser=supervisor,
            isolation=await self.isolation(),
            delivery=self._delivery,
            bucket=background.bucket,
            history=background.history,
            past=self._past,
            secrets=secrets,
            secrets_unread=unread,
            limits=settings.limits,
            seconds_left=context.seconds_left,
            stop=call.stop,
            environ=call.environ,
            run_logger=call.run_logger,
            progress=call.progress,
            trees=WorkingTrees(context.run.trees),
            finished=self.left_out,
            timezone=settings.schedule.timezone if settings.schedule.expression else "",
            pace=settings.paths.pace or call.places.cache / "pace",
            login=keyring.docker,
        )

    async def isolation(self) -> Isolation:
        """Return how programs are kept apart, which the manifest tells once a program is about to start."""
        chosen = await asyncio.shield(self._background.isolation)
        if self._draft.record.isolation is None:
            self._draft.warn(*chosen.warnings)
            self._draft.note(isolation=chosen.record)
        return chosen.isolation

    async def _secrets(self, jobs: Iterable[Job]) -> tuple[Mapping[str, str], str]:
        """Return the secrets that some of these jobs want, and why they could not be read."""
        if not any(job.secrets for job in jobs):
            return {}, ""
        try:
            # A run that is to stop starts no job: its hand-off need not wait for the source.
            secrets = asyncio.shield(self._background.secrets)
            return await self._context.stop.in_time(secrets, self._context.seconds_left()), ""
        except (StoppedError, TimeoutError):
            return {}, "the run ends before its source answers"
        except SecretsError as error:
            self._context.log.error("secrets.unreadable", reason=error.with_remedy)
            self._draft.warn(error.with_remedy)
            return {}, error.with_remedy

    async def _ended(self, context: JobContext, job: Job, record: JobRecord) -> None:
        """Hand over a job that ended; a failure that the release may be to blame for waits for the trial's end."""
        if record.status is JobStatus.SKIPPED and record.name in self.records:
            return  # its rerun did not begin: what became of it before is committed as it is
        record = self._context.redactor.record(record)
        record = record.model_copy(update={"release": context.ref, "commit": context.commit})
        self.records[record.name] = record
        finished = Finished(
            job=record,
            outputs=await context.known_outputs(record),
            checkpoint=keeps_checkpoint(job, *(one.status for one in record.attempts)),
        )
        hold = self._on_trial and may_run_again(record)
        await self._delivery.ended(finished, hold=hold)
        succeeded = record.status is JobStatus.SUCCEEDED
        context.progress.ended(JobEnd(record.name, record.status.value, succeeded, record.seconds))
        self._context.log.info(
            "job.ended",
            job=record.name,
            status=record.status.value,
            cause=record.cause and record.cause.value,
            message=record.message,
            seconds=round(record.seconds, 3),
        )
