"""A run: wake, fetch the release, do the jobs, hand the files over, go away. `run_once` is the whole story."""

import asyncio
import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial

from agent import __version__
from agent.base.durable import only_one
from agent.base.errors import (
    ExitCode,
    MayflyError,
    ReleaseError,
    SecretsError,
    StateError,
    UsageError,
)
from agent.base.redact import Redactor
from agent.base.statedisk import state_disk
from agent.base.stop import first
from agent.browser import Prewarm
from agent.config.jobsfile import Job
from agent.contract.releases import ReleaseEntry
from agent.core.layout import manifest_key
from agent.core.manifest import RunRecord
from agent.core.outcome import Outcome, run_status
from agent.core.results import JobResult, JobStatus, RunStatus, tally
from agent.core.shards import requested
from agent.jobs.context import JobContext
from agent.jobs.interface import Isolation
from agent.jobs.runner import run_jobs
from agent.jobs.worktree import WorkingTrees
from agent.machine.host import boot_phases
from agent.machine.instance import with_facts
from agent.notify.notifier import Notifier
from agent.release.memory import READ_SECONDS, Memory, Writer
from agent.release.obtain import Obtained
from agent.release.repository import channel_of
from agent.release.store import ReleaseStore
from agent.run.phases import Phases
from agent.run.update import Update, after_trial, run_again, with_origin
from agent.secrets.keyring import Keyring
from agent.steps.commit import commit, hand_over
from agent.steps.courier import Courier
from agent.steps.errands import Errands
from agent.steps.hurry import give_way
from agent.steps.opening import Call, browser_of, deadline_of, new_journal, orders_of
from agent.steps.recovery import end_leftovers, leave_spool
from agent.steps.slots import Settled
from agent.steps.spool import Spool, SpooledRun


async def run_once(call: Call) -> Outcome:
    """Run the newest release's jobs once, hand everything over, and tell what came of it.

    Raises:
        UsageError: Another run uses the same state directory, or the release has no such job.
        StateError: The state directory takes nothing, so that no run could begin.
    """
    with state_disk(call.places.state), only_one(call.places.state / "lock"):
        spool = Spool(call.places.state / "spool")
        waiting = spool.pending(call.run_logger.log)
        await end_leftovers(waiting, call.environ, call.run_logger.log)
        spooled = spool.begin(new_journal(call.places.state, spool.warnings))
        with call.run_logger.writing(spooled.log, run_id=spooled.run_id):
            orders = orders_of(call, spool, waiting, spooled)
            keyring = Keyring(call.settings, call.environ, call.run_logger.add_secrets)
            async with Errands(orders) as errands, browser_of(call, spooled, keyring) as browser:
                run = _Run(call, spool, spooled, errands, browser=browser, keyring=keyring)
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
                    outcome = run.leave(error)
                await run.clear_away(outcome)
            return await run.tell(outcome)


class _Run:
    """The parts of the story, in its order, and what they leave for each other."""

    def __init__(
        self,
        call: Call,
        spool: Spool,
        spooled: SpooledRun,
        errands: Errands,
        *,
        browser: Prewarm,
        keyring: Keyring,
    ) -> None:
        self._call = call
        self._spool = spool
        self._settings = call.settings
        self._spooled = spooled
        self._errands = errands
        self._browser = browser
        self._keyring = keyring
        self._jobs: tuple[Job, ...] = ()
        self._log = call.run_logger.log
        self._phases = Phases(call.progress)
        self._notifier = Notifier(call.settings.notify, spooled.run_id, self._log)
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
        self._courier = Courier(
            spooled,
            errands.bucket,
            concurrency=call.settings.store.concurrency,
            # A job whose secrets are not known is not started, so that what is known is enough.
            redactor=lambda: self._redactor,
            log=self._log,
            progress=call.progress,
        )

    def _memory(self, release_store: ReleaseStore) -> Memory:
        """Return what is known of releases, as this disk has it."""
        settings, places, record = self._settings, self._call.places, self._record
        quiet = any(word.shard for word in self._call.asked.words)
        deadline = deadline_of(self._spooled, settings)
        return Memory(
            channel_of(settings.release),
            Writer(record.run_id, record.host.name, deadline, quiet=quiet),
            copy=release_store.copy,
            place=settings.store.url or str(places.bucket),
            now=lambda: datetime.now(UTC),
            log=self._log,
            seconds=min(READ_SECONDS, settings.job_seconds / 4),
            redact=self._redacted,
        )

    def _redacted(self, entry: ReleaseEntry) -> ReleaseEntry:
        return self._redactor.record(entry)

    async def announce(self) -> None:
        """Tell whoever wants to know that the run began; begin what the release will probably need."""
        self._log.info(
            "run.started",
            agent=__version__,
            deadline=deadline_of(self._spooled, self._settings).isoformat(),
        )
        self._errands.place.add_done_callback(self._placed)
        await self._browser.guess(self._update.last_jobs())

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
                    self._record.run_id,
                    self._isolation,
                    asyncio.shield(self._errands.bucket),
                )
            except ReleaseError as error:
                self._log.error("release.none", reason=error.with_remedy)
                self._warn(error.with_remedy)
                return None
        if obtained is not None:
            warnings = (*self._record.warnings, *obtained.warnings)
            self._note(release=obtained.record, warnings=warnings)
        return obtained

    def _placed(self, place: "asyncio.Task[Settled]") -> None:
        """Tell the watchdog that the run began, once it is known that it will go on: it would wait for the end."""
        if not place.cancelled() and not place.result().why_not:
            self._notifier.started()

    async def stands_back(self) -> bool:
        """Wait until it is settled whether this run or another machine's works for the slot, if it has one."""
        waiting = asyncio.wait([self._errands.place])
        await first(waiting, self._call.stop.wait(), seconds=self._settings.job_seconds)
        settled = self._place
        if settled.warning:
            self._warn(settled.warning)
        host = with_facts(self._record.host, self._errands.facts_so_far)
        self._note(slot=settled.slot, host=host)
        return bool(settled.why_not)

    async def leave_to_the_other(self) -> Outcome:
        """Go off, because another machine has the slot: this run leaves no trace, and what waits is delivered."""
        await self._update.withdraw()
        await self._errands.withdraw()
        await self._discard()
        self._log.info("run.stood_back", reason=self._place.why_not)
        await asyncio.wait([self._errands.earlier], timeout=self._settings.limits.handoff)
        return Outcome(
            RunStatus.SUCCEEDED, run_id=self._record.run_id, stood_back=self._place.why_not
        )

    @property
    def _place(self) -> Settled:
        """How the run stands to its slot; while that is not known, it works."""
        place = self._errands.place
        return place.result() if place.done() and not place.cancelled() else Settled()

    async def check_request(self, obtained: Obtained) -> None:
        """Refuse to run jobs that the release does not have, or a shard that nobody can name.

        Such a run leaves no trace: it is nobody's failed day.

        Raises:
            UsageError: It has not all of them, or they cannot be dealt to shards.
        """
        release = obtained.release
        try:
            shard = await asyncio.shield(self._errands.shard)
            self._jobs = requested(release.jobs.job, self._call.only, shard, release.ref)
        except UsageError:
            await self._update.withdraw()
            await self._errands.withdraw()
            await asyncio.to_thread(self._spooled.discard, self._log)
            raise
        if shard is not None:
            self._note(group=shard.group, shard=shard.shard, shards=shard.shards)

    async def do_jobs(self, obtained: Obtained) -> None:
        """Run the release's jobs; each result is durable as soon as it is known."""
        release = obtained.release
        jobs, names = self._jobs, tuple(job.name for job in self._jobs)
        standing = await self._errands.standing(self._call.stop, self._settings.job_seconds)
        self._spooled.save(self._spooled.journal.with_plan(jobs, standing.place))
        self._call.progress.planned(names)
        context = await self._shop(obtained, jobs, standing.finished)
        await self._call.stop.pause(random.uniform(0, self._settings.limits.jitter))  # noqa: S311 -- no secret
        with self._phases.measure("jobs"):
            await run_jobs(jobs, self._settings.browser.sessions, context, self._ended)
            if obtained.on_trial:
                await self._end_trial(obtained, context)
        if not obtained.on_trial:
            self._update.remember(release, self._record.jobs)

    async def _end_trial(self, obtained: Obtained, context: JobContext) -> None:
        """Judge a new release; what it broke runs once more on the last good one, in this run."""
        release = obtained.release
        rerun = partial(
            run_again,
            context=context,
            settle=self._browser.settle,
            sessions=self._settings.browser.sessions,
            before=self._record.jobs,
            ended=self._ended,
        )
        left = 0.0 if self._call.stop.requested else context.seconds_left()
        verdict = await self._update.end_trial(release, lambda: self._record.jobs, rerun, left)
        record = after_trial(obtained.record, release, verdict, datetime.now(UTC))
        self._note(release=record, jobs=with_origin(self._record.jobs, verdict, release))
        if verdict.judgement.reason:
            self._warn(f"{release.ref} failed its trial: {verdict.judgement.reason}")

    async def _shop(
        self, obtained: Obtained, jobs: tuple[Job, ...], finished: Mapping[str, str]
    ) -> JobContext:
        release = obtained.release
        browser = await self._browser.settle(release.jobs.browser, jobs)
        self._note(warnings=(*self._record.warnings, *self._browser.warnings))
        secrets, unread = await self._secrets(jobs)
        return JobContext(
            run=self._spooled,
            tree=release.tree,
            programs=release.programs,
            browser=browser,
            isolation=await self._isolation(),
            courier=self._courier,
            bucket=self._errands.bucket,
            ledger=self._errands.ledger(with_past=any(job.expect.drop is not None for job in jobs)),
            secrets=secrets,
            secrets_unread=unread,
            limits=self._settings.limits,
            deadline=self._record.started + timedelta(seconds=self._settings.job_seconds),
            stop=self._call.stop,
            environ=self._call.environ,
            run_logger=self._call.run_logger,
            progress=self._call.progress,
            trees=WorkingTrees(self._spooled.trees),
            finished=finished,
            pace=self._settings.paths.pace or self._call.places.cache / "pace",
            login=self._keyring.docker,
        )

    async def _isolation(self) -> Isolation:
        chosen = await asyncio.shield(self._errands.isolation)
        if self._record.isolation is None:
            self._note(isolation=chosen.record, warnings=(*self._record.warnings, *chosen.warnings))
        return chosen.isolation

    async def _secrets(self, jobs: tuple[Job, ...]) -> tuple[Mapping[str, str], str]:
        """Return the jobs' secrets, and why they could not be read."""
        if not any(job.secrets for job in jobs):
            return {}, ""
        try:
            return await self._errands.secrets, ""
        except SecretsError as error:
            self._log.error("secrets.unreadable", reason=error.with_remedy)
            self._warn(error.with_remedy)
            return {}, error.with_remedy

    def _ended(self, result: JobResult) -> None:
        result = self._redactor.record(result)
        self._spooled.save(self._spooled.journal.with_result(result))
        self._call.progress.ended(result)
        self._log.info(
            "job.ended",
            job=result.name,
            status=result.status.value,
            cause=result.cause and result.cause.value,
            message=result.message,
            files=result.files,
            bytes=result.bytes,
            seconds=round(result.seconds, 3),
        )

    async def conclude(self) -> None:
        """Let the browser go and write down how the run ended; from here on only the hand-off is missing."""
        for problem in await self._update.close():
            if problem not in self._record.warnings:
                self._warn(problem)
        browser = self._browser.leave()
        with self._phases.measure("conclude"):
            stopped = self._call.stop.reason if self._call.stop.requested else None
            boot, cost = await asyncio.gather(
                boot_phases(self._call.environ, run=self._record.started),
                self._errands.cost(taken_back=self._call.stop.gone is not None),
            )
        cut_short = stopped is not None and (
            self._record.release is None
            or any(job.status is JobStatus.INTERRUPTED for job in self._record.jobs)
        )
        self._note(
            status=run_status(
                self._record.jobs,
                interrupted=cut_short,
                released=self._record.release is not None or cut_short,
            ),
            finished=datetime.now(UTC),
            host=with_facts(self._record.host, self._errands.facts_so_far),
            browser=browser,
            cost=cost,
            interruption=stopped,
            phases=(*boot, *self._phases.so_far()),
            conditional_writes=self._errands.conditional_writes,
            concluded=True,
        )
        self._log.info(
            "run.concluded", status=self._record.status.value, jobs=tally(self._record.jobs)
        )

    async def hand_over(self) -> Outcome:
        """Deliver the run; what cannot be delivered stays in the spool for the next one."""
        reason = where = ""
        left = (deadline_of(self._spooled, self._settings) - datetime.now(UTC)).total_seconds()
        seconds = min(self._settings.limits.handoff, max(left, self._settings.handoff_seconds))
        with self._phases.measure("hand-off"):
            try:
                with state_disk(self._call.places.state):
                    async with asyncio.timeout(seconds):
                        where = await self._deliver()
            except TimeoutError:
                reason = f"the hand-off took longer than {seconds:.0f} s"
                if self._errands.unopened:
                    reason += f": no credentials: {self._errands.unopened}"
            except MayflyError as error:
                reason = error.with_remedy
        outcome = self._outcome(reason, where)
        if not reason:
            await self._discard()
        return outcome

    async def _deliver(self) -> str:
        """Send what is left and commit; return the bucket's name."""
        bucket = await asyncio.shield(self._errands.bucket)
        await give_way(self._errands.earlier, self._call.stop)
        self._warn_of_damaged_runs()
        await hand_over(self._spooled, self._courier, bucket, self._log, self._call.stop)
        # A short run concludes before the bucket has answered to its announcement.
        self._note(concluded=True, conditional_writes=self._errands.conditional_writes)
        key = await commit(self._spooled, bucket, datetime.now(UTC))
        self._log.info("run.committed", index=key, bucket=bucket.name)
        return bucket.name

    def _warn_of_damaged_runs(self) -> None:
        """Tell of earlier runs that turned out to be damaged while they were handed over."""
        known = self._record.warnings
        new = (warning for warning in self._spool.warnings if warning not in known)
        self._note(concluded=True, warnings=(*known, *new))

    async def _discard(self) -> None:
        """Take the committed run out of the spool; where the disk refuses, the next run finds it committed."""
        try:
            # A machine that goes off now is not kept on to delete files.
            remove = not self._settings.power.goes_off(machine=self._call.machine)
            await asyncio.to_thread(leave_spool, self._spooled, self._log, remove=remove)
        except OSError as error:
            self._log.warning("spool.not_removed", reason=str(error))

    def leave(self, error: StateError) -> Outcome:
        """Leave the run to the next one, because what it does cannot be written down any more."""
        return self._outcome(error.with_remedy, "")

    def _outcome(self, reason: str, bucket: str) -> Outcome:
        reason = self._redactor.text(reason)
        if reason:
            self._log.error("handoff.postponed", reason=reason, spool=str(self._spooled.root))
        return Outcome(
            status=self._record.status,
            jobs=self._record.jobs,
            released=self._record.release is not None or self._record.interruption is not None,
            configured=not self._call.refused,
            delivered=not reason,
            undelivered=reason,
            run_id=self._record.run_id,
            interruption=self._record.interruption or "",
            warnings=self._record.warnings,
            manifest="" if reason else f"{bucket}/{manifest_key(self._record.run_id)}",
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

    @property
    def _record(self) -> RunRecord:
        return self._spooled.journal.run

    def _warn(self, text: str) -> None:
        self._note(warnings=(*self._record.warnings, text))

    @property
    def _redactor(self) -> Redactor:
        return self._call.run_logger.redactor

    def _note(self, *, concluded: bool = False, **changes: object) -> None:
        before = self._spooled.journal
        clean = {name: self._redactor.field(name, value) for name, value in changes.items()}
        journal = before.with_run(**clean).model_copy(update={"concluded": concluded})
        if journal != before:  # each time costs the disk two syncs
            self._spooled.save(journal)
