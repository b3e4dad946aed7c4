"""A run: wake, fetch the release, do the jobs, deliver each as it ends, go away. `run_once` is the whole story."""

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from agent import __version__
from agent.base.durable import only_one
from agent.base.errors import (
    ExitCode,
    MayflyError,
    ReleaseError,
    SecretsError,
    StateError,
    StoreError,
    UsageError,
)
from agent.base.progress import JobEnd
from agent.base.redact import Redactor
from agent.base.statedisk import state_disk
from agent.base.stop import first
from agent.batch.claim import StandBack, Work
from agent.batch.shards import Shard
from agent.browser import Place, Prewarm, early
from agent.config.jobsfile import Job
from agent.contract.entries import LONGEST_RUN, MOST_PLANNED, Began, Ended, LeftOut, Planned
from agent.contract.facts import Schedule
from agent.contract.ids import run_id
from agent.contract.layout import ManifestKey
from agent.contract.manifest import RunRecord
from agent.contract.package import JobRecord
from agent.contract.releases import ReleaseEntry
from agent.contract.results import JobCause, JobStatus, RunStatus
from agent.delivery.delivery import Delivery
from agent.delivery.sealing import lost, status_of, tally, without_package
from agent.delivery.spool import Finished, Spool, SpooledRun
from agent.jobs.context import JobContext
from agent.jobs.interface import Isolation
from agent.jobs.job import keeps_checkpoint
from agent.jobs.runner import run_jobs
from agent.jobs.selection import requested
from agent.jobs.worktree import WorkingTrees
from agent.machine.host import boot_phases, host_record, refused_boots
from agent.machine.spot import deadlines
from agent.notify.notifier import Notifier
from agent.notify.outcome import Outcome
from agent.release.memory import READ_SECONDS, Memory, Writer
from agent.release.obtain import Obtained
from agent.release.repository import channel_of
from agent.release.store import ReleaseStore
from agent.release.trial import may_run_again
from agent.run.background import Background
from agent.run.call import Call
from agent.run.leftovers import end_leftovers
from agent.run.phases import Phases
from agent.run.update import Update, after_trial, on_trial, run_again
from agent.secrets.keyring import Keyring

CLOSE_SECONDS = 30.0
"""Of the hand-off, for a last commit and the run's end when not everything could be sent."""
EARLIER_SECONDS = 86400.0
"""Longer than any run: the run's own limit ends the wait."""
MOST_WARNINGS = 100
MOST_TEXT = 2000


async def run_once(call: Call) -> Outcome:
    """Run the newest release's jobs once, deliver each as it ends, and tell what came of it.

    Raises:
        UsageError: Another run uses the same state directory, or the release has no such job.
        StateError: The state directory takes nothing, so that no run could begin.
    """
    with state_disk(call.places.state), only_one(call.places.state / "lock"):
        spool = Spool(call.places.state / "spool")
        waiting = spool.pending(call.run_logger.log)
        await end_leftovers([run.run for run in waiting], call.environ, call.run_logger.log)
        began = beginning(call)
        spooled = spool.begin(run_id(began.started, os.urandom(3)))
        with call.run_logger.writing(spooled.log, run_id=spooled.run):
            keyring = Keyring(call.settings, call.environ, call.run_logger.add_secrets)
            async with (
                Background(call, spool, waiting, spooled.run, began) as background,
                delivery_of(call, spooled, background) as delivery,
                browser_of(call, spooled, keyring) as browser,
            ):
                run = _Run(
                    call, spool, spooled, began, Helpers(background, delivery, browser, keyring)
                )
                try:
                    with state_disk(call.places.state):
                        await run.announce()
                        release = await run.fetch_release()
                        if await run.stands_back():
                            return await run.leave_to_the_other()
                        if release is not None:
                            await run.check_request(release)
                            await run.do_jobs(release)
                        await run.conclude()
                    outcome = await run.hand_over()
                except StateError as error:
                    outcome = await run.leave(error)
                await run.clear_away(outcome)
            return await run.tell(outcome)


def beginning(call: Call) -> Began:
    """Return how a run begins now, as far as it is known at once."""
    schedule, started = call.settings.schedule, datetime.now(UTC)
    due = Schedule(
        expression=schedule.expression or "",
        timezone=schedule.timezone,
        grace_seconds=schedule.grace,
    )
    return Began(
        started=started,
        deadline=started + min(timedelta(seconds=call.settings.limits.run), LONGEST_RUN),
        host=host_record(state=call.places.state),
        agent=__version__,
        channel=channel_of(call.settings.release),
        schedule=due if schedule.expression else None,
    )


def delivery_of(call: Call, spooled: SpooledRun, background: Background) -> Delivery:
    """Return the run's delivery."""
    return Delivery(
        spooled,
        background.bucket,
        concurrency=call.settings.store.concurrency,
        # A job whose secrets are not known is not started, so that what is known is enough.
        redactor=lambda: call.run_logger.redactor,
        log=call.run_logger.log,
        progress=call.progress.sent,
    )


def browser_of(call: Call, spooled: SpooledRun, keyring: Keyring) -> Prewarm:
    """Return the run's browser, which nobody has asked for yet."""
    return early(
        Place(spooled.run, spooled.browser, spooled.downloads),
        settings=call.settings.browser,
        environ=call.environ,
        log=call.run_logger.log,
        login=keyring.docker,
    )


@dataclass(frozen=True, slots=True)
class Helpers:
    """What goes on beside a run, or opens what is private."""

    background: Background
    delivery: Delivery
    browser: Prewarm
    keyring: Keyring


class _Run:
    """The parts of the story, in its order, and what they leave for each other."""

    def __init__(
        self,
        call: Call,
        spool: Spool,
        spooled: SpooledRun,
        began: Began,
        helpers: Helpers,
    ) -> None:
        self._call = call
        self._settings = call.settings
        self._spool = spool
        self._spooled = spooled
        self._began = began
        self._background = helpers.background
        self._delivery = helpers.delivery
        self._browser = helpers.browser
        self._keyring = keyring = helpers.keyring
        self._log = call.run_logger.log
        self._phases = Phases(call.progress)
        self._notifier = Notifier(call.settings.notify, spooled.run, self._log)
        self._jobs: tuple[Job, ...] = ()
        self._records: dict[str, JobRecord] = {}
        self._left_out: dict[str, str] = {}
        self._on_trial = False
        self._planned: Planned | None = None
        self._results_at_end: tuple[Ended, ...] = ()
        self._manifest = ""
        self._closed = False
        refused = refused_boots(call.places.state)
        self._record = RunRecord(
            run=spooled.run,
            schedule=call.settings.schedule.name,
            batch=spooled.run,
            status=RunStatus.INTERRUPTED,  # until it is known better
            started=began.started,
            finished=began.started,
            agent=began.agent,
            host=began.host,
            scheduled=began.schedule,
            channel=began.channel,
            warnings=(*spool.warnings, refused) if refused else spool.warnings,
        )
        release_store = ReleaseStore.at(call.places.state, call.places.cache)
        self._update = Update(
            call.settings,
            release_store,
            self._memory(release_store),
            version=__version__,
            environ=call.environ,
            machine=call.machine,
            log=self._log,
            keyring=keyring,
        )

    def _memory(self, release_store: ReleaseStore) -> Memory:
        """Return what is known of releases, as this disk has it."""
        settings, began = self._settings, self._began
        quiet = any(word.shard for word in self._call.asked.words)
        return Memory(
            began.channel,
            Writer(self._spooled.run, began.host.name, began.deadline, quiet=quiet),
            copy=release_store.copy,
            place=settings.store.url or str(self._call.places.bucket),
            now=lambda: datetime.now(UTC),
            log=self._log,
            seconds=min(READ_SECONDS, settings.job_seconds / 4),
            redact=self._redacted,
        )

    def _redacted(self, entry: ReleaseEntry) -> ReleaseEntry:
        return self._redactor.record(entry)

    async def announce(self) -> None:
        """Tell whoever wants to know that the run began; begin what the release will probably need."""
        deadline = self._began.deadline.isoformat()
        self._log.info("run.started", agent=__version__, deadline=deadline)
        self._background.claim(self._delivery.begin)
        self._background.settled.add_done_callback(self._claimed)
        await self._browser.guess(self._update.last_jobs())

    def _claimed(self, _: object) -> None:
        """Tell the watchdog that the run began, once it is known that it will go on: it would wait for the end."""
        settled = self._background.settled
        if settled.cancelled() or settled.exception() is not None:
            return
        if not isinstance(settled.result().decision, StandBack):
            self._notifier.started()

    async def fetch_release(self) -> Obtained | None:
        """Get the newest release, or the last good one; None when none can run, or the run was told to stop."""
        for fault in self._call.refused:
            self._log.error("configuration.refused", reason=str(fault))
            self._warn(f"nothing ran: {fault}")
        if self._call.refused:
            return None
        with self._phases.measure("release"):
            try:
                obtained = await self._update.obtain(
                    self._call.stop,
                    self._spooled.run,
                    self._isolation,
                    asyncio.shield(self._background.bucket),
                )
            except ReleaseError as error:
                self._log.error("release.none", reason=error.with_remedy)
                self._warn(error.with_remedy)
                return None
        if obtained is not None:
            self._warn(*obtained.warnings)
            self._note(release=on_trial(obtained.record) if obtained.on_trial else obtained.record)
        return obtained

    async def stands_back(self) -> bool:
        """Wait until it is settled whether this run or another works for the batch."""
        settled = await self._background.decision(self._call.stop, self._settings.job_seconds)
        if settled.warning:
            self._warn(settled.warning)
        if isinstance(settled.decision, StandBack):
            return True
        self._left_out.update(settled.decision.leave_out)
        return False

    async def leave_to_the_other(self) -> Outcome:
        """Go off, because another run has the batch, or has done it; what waits of earlier runs is delivered."""
        decision = self._background.settled.result().decision
        assert isinstance(decision, StandBack)  # noqa: S101 -- see `stands_back`
        await self._withdraw(decision.reason, decision.run)
        self._log.info("run.stood_back", reason=decision.reason)
        await asyncio.wait([self._background.earlier], timeout=self._settings.limits.handoff)
        return Outcome(RunStatus.STOOD_BACK, run_id=self._spooled.run, stood_back=decision.reason)

    async def _withdraw(self, reason: str, run: str | None = None) -> None:
        """Say that the run does nothing, and forget it."""
        await self._update.withdraw()
        session = await asyncio.shield(self._background.session)
        await session.stand_back(self._redactor.text(reason)[:MOST_TEXT], run)
        await self._discard()

    async def check_request(self, obtained: Obtained) -> None:
        """Refuse to run jobs that the release does not have, or a shard that nobody can name.

        Such a run stands back: it is nobody's failed day.

        Raises:
            UsageError: It has not all of them, or they cannot be dealt to shards.
        """
        release = obtained.release
        session = await asyncio.shield(self._background.session)
        try:
            if self._background.refusal is not None:
                raise self._background.refusal
            part = session.batch.shard
            shard = Shard(*part) if part else None
            self._jobs = requested(release.jobs.job, self._call.only, shard, release.ref)
        except UsageError as error:
            await self._withdraw(error.with_remedy)
            raise

    async def do_jobs(self, obtained: Obtained) -> None:
        """Run the release's jobs; each result is durable as soon as it is known, and committed soon after."""
        release, self._on_trial = obtained.release, obtained.on_trial
        await self._plan()
        self._call.progress.planned(tuple(self._due()))
        context = await self._context(obtained)
        self._background.watch(self._told)
        await self._call.stop.pause(random.uniform(0, self._settings.limits.jitter))  # noqa: S311 -- no secret
        with self._phases.measure("jobs"):
            ended = partial(self._ended, context)
            await run_jobs(self._jobs, self._settings.browser.sessions, context, ended)
            if obtained.on_trial:
                await self._end_trial(obtained, context)
        if not obtained.on_trial:
            self._update.remember(release, self._results())

    def _told(self, decision: Work | StandBack) -> None:
        """Take notice of what other runs of the batch did meanwhile."""
        if isinstance(decision, StandBack):
            self._log.warning("batch.overtaken", reason=decision.reason)
            self._call.stop.request(decision.reason)
        else:
            self._left_out.update(decision.leave_out)

    def _due(self) -> list[str]:
        """Return the jobs that are not left out; one that ended here all the same is not."""
        return [
            job.name
            for job in self._jobs
            if job.name in self._records or job.name not in self._left_out
        ]

    async def _plan(self) -> None:
        """Tell what the run is going to do; again after a rollback, or when others did something meanwhile."""
        due = self._due()
        names = {job.name for job in self._jobs}.difference(due)
        left_out = [
            LeftOut(name=name, reason=reason)
            for name, reason in self._left_out.items()
            if name in names
        ]
        planned = Planned(
            release=self._record.release,
            count=len(due),
            jobs=tuple(due[:MOST_PLANNED]),
            left_out=tuple(left_out[:MOST_PLANNED]),
        )
        if planned != self._planned:
            self._planned = planned
            await self._delivery.plan(planned)
        await asyncio.to_thread(self._spooled.save, self._record)

    async def _end_trial(self, obtained: Obtained, context: JobContext) -> None:
        """Judge a new release; what it broke runs once more on the last good one, in this run."""
        release = obtained.release
        rerun = partial(
            run_again,
            context=context,
            settle=self._browser.settle,
            sessions=self._settings.browser.sessions,
            ended=self._ended,
        )
        left = 0.0 if self._call.stop.requested else context.seconds_left()
        self._on_trial = False
        verdict = await self._update.end_trial(release, self._results, rerun, left)
        self._note(release=after_trial(obtained.record, release, verdict, datetime.now(UTC)))
        if verdict.judgement.reason:
            self._warn(f"{release.ref} failed its trial: {verdict.judgement.reason}")
        await self._plan()
        await self._delivery.release()

    async def _context(self, obtained: Obtained) -> JobContext:
        release, background = obtained.release, self._background
        browser = await self._browser.settle(release.jobs.browser, self._jobs)
        self._warn(*self._browser.warnings)
        secrets, unread = await self._secrets()
        session = await asyncio.shield(background.session)
        schedule = self._settings.schedule
        return JobContext(
            run=self._spooled,
            batch=session.batch.name,
            tree=release.tree,
            programs=release.programs,
            ref=release.ref,
            commit=release.commit,
            browser=browser,
            isolation=await self._isolation(),
            delivery=self._delivery,
            bucket=background.bucket,
            history=background.history,
            past=background.outputs([job.name for job in self._jobs]),
            secrets=secrets,
            secrets_unread=unread,
            limits=self._settings.limits,
            deadline=self._began.started + timedelta(seconds=self._settings.job_seconds),
            stop=self._call.stop,
            environ=self._call.environ,
            run_logger=self._call.run_logger,
            progress=self._call.progress,
            trees=WorkingTrees(self._spooled.trees),
            finished=self._left_out,
            timezone=schedule.timezone if schedule.expression else "",
            pace=self._settings.paths.pace or self._call.places.cache / "pace",
            login=self._keyring.docker,
        )

    async def _isolation(self) -> Isolation:
        chosen = await asyncio.shield(self._background.isolation)
        if self._record.isolation is None:
            self._warn(*chosen.warnings)
            self._note(isolation=chosen.record)
        return chosen.isolation

    async def _secrets(self) -> tuple[dict[str, str], str]:
        """Return the jobs' secrets, and why they could not be read."""
        if not any(job.secrets for job in self._jobs):
            return {}, ""
        try:
            return await self._background.secrets, ""
        except SecretsError as error:
            self._log.error("secrets.unreadable", reason=error.with_remedy)
            self._warn(error.with_remedy)
            return {}, error.with_remedy

    async def _ended(self, context: JobContext, job: Job, record: JobRecord) -> None:
        record = self._redactor.record(record)
        record = record.model_copy(update={"release": context.ref, "commit": context.commit})
        finished = Finished(
            job=record,
            outputs=await context.known_outputs(record),
            checkpoint=keeps_checkpoint(job, record.status),
        )
        self._records[record.name] = record
        hold = self._on_trial and may_run_again(record)
        await self._delivery.ended(finished, hold=hold)
        self._call.progress.ended(
            JobEnd(
                record.name,
                record.status.value,
                record.status is JobStatus.SUCCEEDED,
                len(record.attempts),
                record.seconds,
            )
        )
        self._log.info(
            "job.ended",
            job=record.name,
            status=record.status.value,
            cause=record.cause and record.cause.value,
            message=record.message,
            seconds=round(record.seconds, 3),
        )

    def _results(self) -> Sequence[JobRecord]:
        return tuple(self._records.values())

    async def conclude(self) -> None:
        """Let the browser go and note how the run went; from here on only the rest of the delivery is missing."""
        for problem in await self._update.close():
            self._warn(problem)
        browser = self._browser.leave()
        with self._phases.measure("conclude"):
            boot, cost = await asyncio.gather(
                boot_phases(self._call.environ, run=self._began.started),
                self._background.cost(taken_back=self._call.stop.gone is not None),
            )
        stop = self._call.stop
        self._note(
            browser=browser,
            cost=cost,
            host=self._background.host,
            phases=(*boot, *self._phases.so_far()),
            interruption=stop.reason if stop.requested else None,
        )
        self._note(status=self._status(tuple(map(without_package, self._results()))))
        await self._plan()

    async def hand_over(self) -> Outcome:
        """Deliver the rest and close the run; what cannot be delivered stays in the spool for the next one."""
        reason = ""
        left = (self._began.deadline - datetime.now(UTC)).total_seconds()
        seconds = min(self._settings.limits.handoff, max(left, self._settings.handoff_seconds))
        with self._phases.measure("hand-off"):
            try:
                with state_disk(self._call.places.state):
                    async with asyncio.timeout(seconds):
                        reason = await self._deliver(seconds)
            except TimeoutError:
                reason = f"the hand-off took longer than {seconds:.0f} s{self._why()}"
            except MayflyError as error:
                reason = error.with_remedy
        if self._closed and (not reason or not self._call.keeps_disk):
            await self._discard()
        return await self._outcome(reason)

    async def _deliver(self, seconds: float) -> str:
        """Commit what is left and close the run; return what could not be sent, and why."""
        bucket = await asyncio.shield(self._background.bucket)
        session = await asyncio.shield(self._background.session)
        batch = session.batch
        await self._give_way()
        pending = await self._flush(max(seconds - CLOSE_SECONDS, seconds / 2))
        self._results_at_end = await self._told_of(pending)
        self._warn(*self._spool.warnings)
        self._note(
            schedule=batch.schedule,
            batch=batch.name,
            slot=self._call.slot if isinstance(self._call.slot, datetime) else batch.slot,
            status=self._status(self._results_at_end),
            finished=datetime.now(UTC),
        )
        jobs = tally(self._results_at_end)
        self._log.info("run.concluded", status=self._record.status.value, jobs=jobs)
        keeps = self._call.keeps_disk
        closed = await self._delivery.close(self._record, pending, keeps_disk=keeps)
        self._closed = True
        self._manifest = f"{bucket.name}/{ManifestKey(self._spooled.run).text}"
        self._log.info("run.closed", status=closed.status.value, bucket=bucket.name)
        if not pending:
            return ""
        return f"{len(pending)} jobs could not be sent, such as {pending[0]}{self._why()}"

    def _why(self) -> str:
        """Return what kept the run from the bucket, as the end of a sentence."""
        unopened = self._background.unopened
        reason = f"no credentials: {unopened}" if unopened else self._delivery.trouble
        return f": {reason}" if reason else ""

    async def _give_way(self) -> None:
        """Wait for the delivery of earlier runs, or end it when the machine is taken back: the link is for this run."""
        earlier, stop = self._background.earlier, self._call.stop
        await first(asyncio.wait([earlier]), stop.taken(), seconds=EARLIER_SECONDS)
        if stop.gone is None:
            earlier.result()
        else:
            earlier.cancel()

    async def _flush(self, seconds: float) -> list[str]:
        """Commit what ended; on a machine that is taken back, as much as the time allows, the smallest first."""
        stop, keeps = self._call.stop, self._call.keeps_disk
        whole = asyncio.create_task(self._delivery.flush(seconds, keeps_disk=keeps))
        try:
            await first(asyncio.wait([whole]), stop.taken(), seconds=EARLIER_SECONDS)
            if whole.done():
                return whole.result()
        finally:
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
        if stop.gone is None:
            raise StoreError("the hand-off took longer than any run may")
        now = datetime.now(UTC)
        send_by = deadlines(stop.gone, now, pending=0, grace=0.0).send_by
        left = max(1.0, (send_by - now).total_seconds())
        return await self._delivery.flush(left, hurried=True, keeps_disk=keeps)

    async def _told_of(self, pending: Sequence[str]) -> tuple[Ended, ...]:
        """Return what became of the jobs, in the order of the plan; what goes with the disk counts as interrupted."""
        ended = {job.name: job for job in await self._delivery.results()}
        if not self._call.keeps_disk:
            ended |= {name: lost(ended[name]) for name in pending}
        order = {job.name: number for number, job in enumerate(self._jobs)}
        return tuple(sorted(ended.values(), key=lambda job: order.get(job.name, len(order))))

    def _status(self, results: Sequence[Ended]) -> RunStatus:
        cut_short = self._record.interruption is not None and (
            self._record.release is None
            or any(job.cause is JobCause.INTERRUPTED for job in results)
        )
        released = self._record.release is not None or cut_short
        return status_of(results, interrupted=cut_short, released=released)

    async def _discard(self) -> None:
        """Take the run out of the spool; where the disk refuses, the next run finds it closed."""
        await self._delivery.end()
        try:
            # A machine that goes off now is not kept on to delete files.
            remove = not self._settings.power.goes_off(machine=self._call.machine)
            await asyncio.to_thread(lambda: self._spooled.discard(self._log, remove=remove))
        except OSError as error:
            self._log.warning("spool.not_removed", reason=str(error))

    async def leave(self, error: StateError) -> Outcome:
        """Leave the run to the next one, because what it does cannot be written down any more."""
        return await self._outcome(error.with_remedy)

    async def _outcome(self, reason: str) -> Outcome:
        reason, record = self._redactor.text(reason), self._record
        if reason:
            self._log.error("handoff.postponed", reason=reason, spool=str(self._spooled.root))
        return Outcome(
            status=record.status,
            jobs=self._results_at_end or tuple(map(without_package, self._results())),
            released=record.release is not None or record.interruption is not None,
            configured=not self._call.refused,
            delivered=not reason,
            undelivered=reason,
            run_id=record.run,
            interruption=record.interruption or "",
            warnings=record.warnings,
            manifest=self._manifest,
        )

    async def clear_away(self, outcome: Outcome) -> None:
        """Remove old releases and what they brought; never before the run is in the bucket."""
        if outcome.delivered and self._record.release and not self._call.stop.requested:
            await self._update.tidy(self._record.release)

    async def tell(self, outcome: Outcome) -> Outcome:
        """Tell the watchers how it ended, and close the log with the same words."""
        await self._notifier.ended(outcome)
        tell = self._log.info if outcome.exit_code == ExitCode.DONE else self._log.warning
        tell(
            "run.ended",
            status=outcome.status.value,
            exit_code=int(outcome.exit_code),
            delivered=outcome.delivered,
        )
        return outcome

    def _warn(self, *texts: str) -> None:
        known = self._record.warnings
        new = [text for text in dict.fromkeys(texts) if text not in known]
        self._note(warnings=(*known, *(text[:MOST_TEXT] for text in new))[:MOST_WARNINGS])

    @property
    def _redactor(self) -> Redactor:
        return self._call.run_logger.redactor

    def _note(self, **changes: Any) -> None:
        clean = {name: self._redactor.field(name, value) for name, value in changes.items()}
        self._record = self._record.model_copy(update=clean)
