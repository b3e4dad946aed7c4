"""A run: wake, fetch the release, do the jobs, hand the files over, go away. `run_once` is the whole story."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent import __version__
from agent.core.errors import MayflyError, ReleaseError, SecretsError, UsageError
from agent.core.faults import suggest
from agent.core.ids import run_id
from agent.core.jobsfile import Job, JobsFile
from agent.core.journal import Journal
from agent.core.layout import manifest_key, started_key
from agent.core.locate import Locations
from agent.core.manifest import ReleaseRecord, RunRecord, StartedMarker
from agent.core.outcome import ExitCode, Outcome, proves_release, run_status
from agent.core.plan import chosen
from agent.core.repository import TRACK
from agent.core.results import JobResult, JobStatus, RunStatus, tally
from agent.core.settings import Settings
from agent.steps.browser import EarlyBrowser, Place, early
from agent.steps.commit import commit, hand_over
from agent.steps.courier import Courier
from agent.steps.durable import only_one
from agent.steps.errands import Errands, Orders
from agent.steps.host import host_record
from agent.steps.jobs.crew import run_jobs
from agent.steps.jobs.process import ProcessIsolation
from agent.steps.jobs.shop import Shop
from agent.steps.logs import Journalist
from agent.steps.notify import Notifier
from agent.steps.phases import Phases
from agent.steps.progress import Progress
from agent.steps.recovery import end_leftovers
from agent.steps.release import Obtained, Shelf, good_commit, last_good, obtain, promote
from agent.steps.spool import Spool, SpooledRun
from agent.steps.stop import Stop, first

WITHDRAW_SECONDS = 5.0
"""For taking back the word that a run began; when that fails, it looks like a run that vanished."""


@dataclass(frozen=True, slots=True)
class Call:
    """What a run is asked to do, and with what.

    Attributes:
        settings: The configuration.
        places: Where state, cache and the default bucket are.
        environ: The environment, of which programs get what they need.
        stop: The wish to end early.
        journalist: Where the log goes.
        progress: Who watches.
        only: Names of the jobs to run; empty for all.
    """

    settings: Settings
    places: Locations
    environ: Mapping[str, str]
    stop: Stop
    journalist: Journalist
    progress: Progress
    only: frozenset[str] = frozenset()


async def run_once(call: Call) -> Outcome:
    """Run the newest release's jobs once, hand everything over, and tell what came of it.

    Raises:
        UsageError: Another run uses the same state directory, or the release has no such job.
    """
    with only_one(call.places.state / "lock"):
        spool = Spool(call.places.state / "spool")
        waiting = spool.pending(call.journalist.log)
        await end_leftovers(waiting, call.environ, call.journalist.log)
        spooled = spool.begin(_journal())
        with call.journalist.writing(spooled.log, run_id=spooled.run_id):
            orders = _orders(call, spool, waiting, spooled)
            async with Errands(orders) as errands, _browser(call, spooled) as browser:
                run = _Run(call, spooled, errands, browser)
                await run.announce()
                release = await run.fetch_release()
                if release is not None:
                    await run.check_request(release)
                    await run.do_jobs(release)
                await run.conclude()
                outcome = await run.hand_over()
            return await run.tell(outcome)


class _Run:
    """The parts of the story, in its order, and what they leave for each other."""

    def __init__(
        self, call: Call, spooled: SpooledRun, errands: Errands, browser: EarlyBrowser
    ) -> None:
        self._call = call
        self._settings = call.settings
        self._spooled = spooled
        self._errands = errands
        self._browser = browser
        self._log = call.journalist.log
        self._phases = Phases(call.progress)
        self._notifier = Notifier(call.settings.notify, spooled.run_id, self._log)
        self._shelf = Shelf.at(call.places.state, call.places.cache)
        self._courier = Courier(
            spooled,
            errands.bucket,
            concurrency=call.settings.store.concurrency,
            # A job whose secrets are not known is not started, so that what is known is enough.
            redactor=lambda: call.journalist.redactor,
            log=self._log,
            progress=call.progress,
        )

    async def announce(self) -> None:
        """Tell whoever wants to know that the run began; begin what the release will probably need."""
        self._log.info(
            "run.started",
            agent=__version__,
            deadline=_deadline(self._spooled, self._settings).isoformat(),
        )
        self._notifier.started()
        await self._browser.guess(self._last_jobs())

    def _last_jobs(self) -> JobsFile | None:
        try:
            known = last_good(
                self._shelf,
                jobs=self._settings.release.jobs,
                version=__version__,
                environ=self._call.environ,
            )
        except ReleaseError:
            return None
        return known.jobs if known else None

    async def fetch_release(self) -> Obtained | None:
        """Get the newest release, or the last good one; None when none can run, or the run was told to stop."""
        fetching = asyncio.create_task(
            obtain(
                self._settings.release,
                self._shelf,
                environ=self._call.environ,
                version=__version__,
                now=datetime.now(UTC),
                log=self._log,
            )
        )
        with self._phases.measure("release"):
            stopped = self._call.stop.wait()
            await first(asyncio.wait([fetching]), stopped, seconds=self._settings.job_seconds)
            if not fetching.done():
                fetching.cancel()
            try:
                obtained = await fetching
            except ReleaseError as error:
                self._log.error("release.none", reason=str(error))
                self._warn(f"no release could run: {error}")
                return None
            except asyncio.CancelledError:
                if not fetching.cancelled():
                    raise  # it is us who were cancelled
                if not self._call.stop.requested:
                    self._warn(
                        "no release could run: none was ready before the run's time was over"
                    )
                return None
        release = obtained.release
        self._note(
            release=ReleaseRecord(
                repository=release.repository,
                ref=release.ref,
                commit=release.commit,
                fetched=release.fetched,
                stale=obtained.stale,
            ),
            warnings=(*self._record.warnings, *obtained.warnings),
        )
        return obtained

    async def check_request(self, obtained: Obtained) -> None:
        """Refuse to run jobs that the release does not have. Such a run leaves no trace: it is nobody's failed day.

        Raises:
            UsageError: It has not all of them.
        """
        release = obtained.release
        known = [job.name for job in release.jobs.job]
        unknown = sorted(self._call.only.difference(known))
        if not unknown:
            return
        with suppress(MayflyError, TimeoutError):
            async with asyncio.timeout(WITHDRAW_SECONDS):
                await asyncio.shield(self._errands.conditional)
                bucket = await asyncio.shield(self._errands.bucket)
                await bucket.delete([started_key(self._record.run_id)])
        await asyncio.to_thread(self._spooled.discard, self._log)
        raise UsageError(
            f'{release.ref} has no job "{unknown[0]}"', remedy=suggest(unknown[0], known)
        )

    async def do_jobs(self, obtained: Obtained) -> None:
        """Run the release's jobs; each result is durable as soon as it is known."""
        release = obtained.release
        jobs = chosen(release.jobs.job, self._call.only)
        names = tuple(job.name for job in jobs)
        self._spooled.save(self._spooled.journal.model_copy(update={"planned": names}))
        self._call.progress.planned(names)
        shop = await self._shop(obtained, jobs)
        with self._phases.measure("jobs"):
            await run_jobs(jobs, self._settings.browser.sessions, shop, self._ended)
        if proves_release(self._record.jobs) or good_commit(self._shelf) is None:
            promote(self._shelf, release)

    async def _shop(self, obtained: Obtained, jobs: tuple[Job, ...]) -> Shop:
        release = obtained.release
        return Shop(
            run=self._spooled,
            tree=release.tree,
            programs=release.programs,
            browser=await self._browser.settle(release.jobs.browser, jobs),
            isolation=ProcessIsolation(),
            courier=self._courier,
            bucket=self._errands.bucket,
            ledger=self._errands.ledger(with_past=any(job.expect.drop is not None for job in jobs)),
            secrets=await self._secrets(jobs),
            limits=self._settings.limits,
            deadline=self._record.started + timedelta(seconds=self._settings.job_seconds),
            stop=self._call.stop,
            environ=self._call.environ,
            journalist=self._call.journalist,
            progress=self._call.progress,
        )

    async def _secrets(self, jobs: tuple[Job, ...]) -> Mapping[str, str]:
        if not any(job.secrets for job in jobs):
            return {}
        try:
            return await self._errands.secrets
        except SecretsError as error:
            self._log.error("secrets.unreadable", reason=str(error))
            self._warn(str(error))
            return {}

    def _ended(self, result: JobResult) -> None:
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
        """Stop the browser and write down how the run ended; from here on only the hand-off is missing."""
        with self._phases.measure("browser-stop"):
            browser = await self._browser.close()
        stopped = self._call.stop.reason if self._call.stop.requested else None
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
            browser=browser,
            interruption=stopped,
            phases=self._phases.so_far(),
            conditional_writes=_result_of(self._errands.conditional),
            concluded=True,
        )
        self._log.info(
            "run.concluded", status=self._record.status.value, jobs=tally(self._record.jobs)
        )

    async def hand_over(self) -> Outcome:
        """Deliver the run; what cannot be delivered stays in the spool for the next one."""
        reason = ""
        left = (_deadline(self._spooled, self._settings) - datetime.now(UTC)).total_seconds()
        seconds = min(self._settings.limits.handoff, max(left, self._settings.handoff_seconds))
        with self._phases.measure("hand-off"):
            try:
                async with asyncio.timeout(seconds):
                    bucket = await asyncio.shield(self._errands.bucket)
                    await asyncio.shield(self._errands.earlier)
                    await hand_over(self._spooled, self._courier, bucket, self._log)
                    key = await commit(self._spooled, bucket, datetime.now(UTC))
                    self._log.info("run.committed", index=key, bucket=bucket.name)
                await asyncio.to_thread(self._spooled.discard, self._log)
            except TimeoutError:
                reason = f"the hand-off took longer than {seconds:.0f} s"
            except (MayflyError, OSError) as error:
                reason = str(error)
        if reason:
            self._log.error("handoff.postponed", reason=reason, spool=str(self._spooled.root))
        return Outcome(
            status=self._record.status,
            jobs=self._record.jobs,
            released=self._record.release is not None or self._record.interruption is not None,
            delivered=not reason,
            undelivered=reason,
            run_id=self._record.run_id,
            interruption=self._record.interruption or "",
            warnings=self._record.warnings,
            manifest="" if reason else f"{bucket.name}/{manifest_key(self._record.run_id)}",
        )

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

    def _note(self, *, concluded: bool = False, **changes: object) -> None:
        journal = self._spooled.journal.with_run(**changes)
        self._spooled.save(journal.model_copy(update={"concluded": concluded}))


def _journal() -> Journal:
    started = datetime.now(UTC)
    return Journal(
        run=RunRecord(
            run_id=run_id(started, os.urandom(3)),
            status=RunStatus.INTERRUPTED,  # until it is known better
            started=started,
            finished=started,
            agent=__version__,
            host=host_record(),
        )
    )


def _orders(call: Call, spool: Spool, waiting: list[SpooledRun], spooled: SpooledRun) -> Orders:
    record = spooled.journal.run
    release = call.settings.release
    marker = StartedMarker(
        run_id=record.run_id,
        started=record.started,
        deadline=_deadline(spooled, call.settings),
        host=record.host.name,
        release_wanted=release.branch or release.track or TRACK,
    )
    return Orders(
        settings=call.settings,
        places=call.places,
        environ=call.environ,
        journalist=call.journalist,
        spool=spool,
        waiting=waiting,
        marker=marker,
    )


def _browser(call: Call, spooled: SpooledRun) -> EarlyBrowser:
    place = Place(spooled.run_id, spooled.browser, spooled.downloads)
    return early(
        place, settings=call.settings.browser, environ=call.environ, log=call.journalist.log
    )


def _deadline(spooled: SpooledRun, settings: Settings) -> datetime:
    return spooled.journal.run.started + timedelta(seconds=settings.limits.run)


def _result_of(task: "asyncio.Task[bool | None]") -> bool | None:
    """Return what an errand found out, if it has."""
    return task.result() if task.done() and not task.cancelled() else None
