"""A run: wake, fetch the release, do the jobs, deliver each as it ends, go away. `run_once` is the whole story."""

import asyncio

from agent import __version__
from agent.base.disk import state_disk
from agent.base.durable import only_one
from agent.base.errors import ExitCode, ReleaseError, StateError, UsageError
from agent.batch.claim import StandBack
from agent.browser import Place, Prewarm, early
from agent.contract.results import RunStatus
from agent.delivery.delivery import Delivery
from agent.delivery.spool import Spool
from agent.jobs.isolation.choice import chromedriver_for_jobs
from agent.jobs.selection import requested
from agent.machine.host import boot_phases
from agent.notify.notifier import Notifier
from agent.notify.outcome import Outcome
from agent.release.obtain import Obtained
from agent.release.trial import Decision
from agent.run.background import Background
from agent.run.call import Call
from agent.run.context import RunContext
from agent.run.draft import MOST_TEXT, Draft
from agent.run.ending import Ending
from agent.run.leftovers import end_leftovers
from agent.run.phases import Phases
from agent.run.update import Update
from agent.run.work import JobsOfRun
from agent.secrets.keyring import Keyring


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
        context = RunContext.begin(call, spool, waiting)
        with call.run_logger.writing(context.run.log, run_id=context.run.run):
            keyring = Keyring(call.settings, call.environ, call.run_logger.add_secrets)
            async with (
                Background(context) as background,
                delivery_of(context, background) as delivery,
                browser_of(context, keyring) as browser,
            ):
                run = _Run(context, background, delivery, browser, keyring)
                try:
                    with state_disk(call.places.state):
                        await run.announce()
                        release = await run.fetch_release()
                        if (other := await run.stands_back()) is not None:
                            return await run.leave_to_the_other(other)
                        if release is not None:
                            await run.check_request(release)
                        run.works()
                        if release is not None:
                            await run.do_jobs(release)
                        await run.conclude()
                    outcome = await run.hand_over()
                except StateError as error:
                    outcome = await run.leave(error)
                await run.clear_away(outcome)
            return await run.tell(outcome)


def delivery_of(context: RunContext, background: Background) -> Delivery:
    """Return the run's delivery."""
    return Delivery(
        context.run,
        background.bucket,
        concurrency=context.settings.store.concurrency,
        # A job whose secrets are not known is not started, so that what is known is enough.
        redactor=lambda: context.redactor,
        log=context.log,
        progress=context.call.progress.sent,
    )


def browser_of(context: RunContext, keyring: Keyring) -> Prewarm:
    """Return the run's browser, which nobody has asked for yet."""
    run = context.run
    return early(
        Place(run.run, run.browser, run.downloads),
        settings=context.settings.browser,
        chromedriver=chromedriver_for_jobs(context.settings.limits, context.call.environ),
        environ=context.call.environ,
        log=context.log,
        login=keyring.docker,
    )


class _Run:
    """The parts of the story, in its order."""

    def __init__(
        self,
        context: RunContext,
        background: Background,
        delivery: Delivery,
        browser: Prewarm,
        keyring: Keyring,
    ) -> None:
        self._context = context
        self._call = context.call
        self._log = context.log
        self._background = background
        self._delivery = delivery
        self._browser = browser
        self._keyring = keyring
        self._draft = draft = Draft(context)
        self._phases = phases = Phases(context.call.progress)
        self._work = JobsOfRun(context, background, delivery, draft, phases)
        self._ending = Ending(context, background, delivery, draft, self._work)
        self._update = Update(context, keyring)
        self._notifier = Notifier(context.settings.notify, context.run.run, self._log)

    async def announce(self) -> None:
        """Log the start, claim the batch, and start the browser that the release will probably need."""
        deadline = self._context.began.deadline.isoformat()
        self._log.info("run.started", agent=__version__, deadline=deadline)
        self._background.claim(self._delivery.begin)
        await self._browser.guess(await asyncio.to_thread(self._update.last_jobs))

    async def fetch_release(self) -> Obtained | None:
        """Get the newest release, or the last good one; None when none can run, or the run was told to stop."""
        for fault in self._call.refused:
            self._log.error("configuration.refused", reason=str(fault))
            self._draft.warn(f"nothing ran: {fault}")
        if self._call.refused:
            return None
        with self._phases.measure("release"):
            try:
                obtained = await self._update.obtain(
                    self._work.isolation, asyncio.shield(self._background.bucket)
                )
            except ReleaseError as error:
                self._log.error("release.none", reason=error.with_remedy)
                self._draft.warn(error.with_remedy)
                return None
        if obtained is not None:
            trial = {"trial": Decision.UNDECIDED.value} if obtained.on_trial else {}
            self._draft.warn(*obtained.warnings)
            self._draft.note(release=obtained.record.model_copy(update=trial))
        return obtained

    async def stands_back(self) -> StandBack | None:
        """Wait until it is settled whether this run or another works for the batch; None where it is this one."""
        settled = await self._background.decision(self._context.settings.job_seconds)
        self._draft.warn(settled.warning)
        if isinstance(settled.decision, StandBack):
            return settled.decision
        self._work.left_out.update(settled.decision.leave_out)
        return None

    async def leave_to_the_other(self, decision: StandBack) -> Outcome:
        """Go off, because another run has the batch, or has done it; what waits of earlier runs is delivered."""
        await self._withdraw(decision.reason, decision.run)
        self._log.info("run.stood_back", reason=decision.reason)
        seconds = self._context.settings.limits.handoff
        await asyncio.wait([self._background.earlier], timeout=seconds)
        run = self._context.run.run
        return Outcome(RunStatus.STOOD_BACK, run_id=run, stood_back=decision.reason)

    async def _withdraw(self, reason: str, run: str | None = None) -> None:
        """Close the run as one that did nothing, and take it out of the spool."""
        await self._update.withdraw()
        session = await asyncio.shield(self._background.session)
        await session.stand_back(self._context.redactor.text(reason)[:MOST_TEXT], run)
        await self._ending.discard()

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
            self._work.jobs = requested(
                release.jobs.job, self._call.only, session.batch.shard, release.ref
            )
        except UsageError as error:
            await self._withdraw(error.with_remedy)
            raise

    def works(self) -> None:
        """Ping the watchdog's start: a run that stands back, or is refused, pings no end either."""
        self._notifier.started()

    async def do_jobs(self, obtained: Obtained) -> None:
        """Run the release's jobs; each result is durable as soon as it is known, and committed soon after."""
        await self._work.run(obtained, self._update, self._browser, self._keyring)

    async def conclude(self) -> None:
        """Stop the browser and note how the run went; after this only the delivery of the rest is missing."""
        self._draft.warn(*await self._update.close())
        browser, stop = self._browser.leave(), self._context.stop
        with self._phases.measure("conclude"):
            boot, cost = await asyncio.gather(
                boot_phases(self._call.environ, run=self._context.began.started),
                self._background.cost(taken_back=stop.gone is not None),
            )
        self._draft.note(
            browser=browser,
            cost=cost,
            host=self._background.host,
            phases=(*boot, *self._phases.so_far()),
            interruption=stop.reason if stop.requested else None,
        )
        self._ending.conclude()
        await self._work.plan()

    async def hand_over(self) -> Outcome:
        """Deliver the rest and close the run; what cannot be delivered stays in the spool for the next one."""
        with self._phases.measure("hand-off"):
            return await self._ending.hand_over()

    async def leave(self, error: StateError) -> Outcome:
        """Leave the run's delivery to the next run: the state directory takes nothing more."""
        await self._update.withdraw()  # the disk is not the release's fault
        return self._ending.outcome(error.with_remedy)

    async def clear_away(self, outcome: Outcome) -> None:
        """Remove old releases and what they brought; never before the run is in the bucket."""
        release = self._draft.record.release
        if outcome.delivered and release and not self._context.stop.requested:
            await self._update.tidy(release)

    async def tell(self, outcome: Outcome) -> Outcome:
        """Notify people and the watchdog, and log how the run ended."""
        await self._notifier.ended(outcome)
        tell = self._log.info if outcome.exit_code == ExitCode.DONE else self._log.warning
        tell(
            "run.ended",
            status=outcome.status.value,
            exit_code=int(outcome.exit_code),
            delivered=outcome.delivered,
        )
        return outcome
