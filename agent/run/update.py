"""The release's part in a run: it is obtained, tried, judged, and what it replaced is cleared away."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from agent.base.errors import ReleaseError
from agent.base.logs import Log
from agent.base.stop import Stop, first
from agent.browser import Keeper
from agent.config.jobsfile import Job, JobsFile, ReleaseBrowser
from agent.config.settings import Settings
from agent.core.manifest import RefusedRelease, ReleaseRecord, RolledBack, Stale
from agent.core.results import JobResult
from agent.jobs.context import Shop
from agent.jobs.interface import Isolation
from agent.jobs.plan import chosen
from agent.jobs.runner import run_jobs
from agent.release.checks import Checks
from agent.release.images import Images
from agent.release.obtain import Obtained, obtain, stand_in_for
from agent.release.prune import Broom
from agent.release.record import Remembered
from agent.release.selfcheck import SelfCheck
from agent.release.shelf import Installed, Shelf, last_good, promote
from agent.release.trial import (
    Bad,
    Decision,
    Judgement,
    again,
    guilty_of,
    judge,
    with_passed,
)

Rerun = Callable[[Installed, tuple[str, ...]], Awaitable[None]]
"""Runs jobs once more, on another release."""
Results = Callable[[], Sequence[JobResult]]
"""Returns what became of the run's jobs, as far as is known; of a job that ran once more, the last time."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a trial ended.

    Attributes:
        judgement: What becomes of the release.
        taken_over: The release that took over, and did the rest; None when none did.
        again: The jobs that ran once more on another release, whoever is to blame.
    """

    judgement: Judgement
    taken_over: Installed | None = None
    again: tuple[str, ...] = ()


class Update:
    """What a run does about its release.

    Attributes:
        shelf: Where releases are.
    """

    def __init__(
        self,
        settings: Settings,
        shelf: Shelf,
        *,
        version: str,
        environ: Mapping[str, str],
        machine: bool,
        log: Log,
    ) -> None:
        """Do nothing yet.

        Args:
            settings: The configuration.
            shelf: Where releases are.
            version: The agent's version.
            environ: The agent's environment.
            machine: Whether nobody watches.
            log: Bound to the run.
        """
        self.shelf = shelf
        self._settings = settings
        self._version = version
        self._environ = environ
        self._machine = machine
        self._log = log

    def last_jobs(self) -> JobsFile | None:
        """Return the jobs of the last good release, for a guess at what this run will need."""
        try:
            known = last_good(
                self.shelf,
                jobs=self._settings.release.jobs,
                version=self._version,
                environ=self._environ,
            )
        except ReleaseError:
            return None
        return known.jobs if known else None

    async def obtain(
        self, stop: Stop, run_id: str, isolation: Callable[[], Awaitable[Isolation]]
    ) -> Obtained | None:
        """Return the release to run; None when the run was told to stop meanwhile.

        Args:
            stop: The wish to end early.
            run_id: The run.
            isolation: How a new release's programs are tried.

        Raises:
            ReleaseError: None can run, or none was ready before the jobs' time was over.
        """
        seconds = self._settings.release.check_timeout
        check = SelfCheck(isolation, run_id, self._environ, self._log, seconds)
        fetching = asyncio.create_task(
            obtain(
                self._settings.release,
                self.shelf,
                environ=self._environ,
                version=self._version,
                now=datetime.now(UTC),
                log=self._log,
                self_check=check,
                images=self._images(),
                machine=self._machine,
            )
        )
        await first(asyncio.wait([fetching]), stop.wait(), seconds=self._settings.job_seconds)
        if not fetching.done():
            fetching.cancel()
        try:
            return await fetching
        except asyncio.CancelledError as error:
            if not fetching.cancelled():
                raise  # it is us who were cancelled
            self.withdraw()
            if stop.requested:
                return None
            raise ReleaseError("none was ready before the run's time was over") from error

    def withdraw(self) -> None:
        """End a trial that did not begin: the run is over, in order, and says nothing about the release."""
        self._keep(Remembered.read(self.shelf.record), trial=None)

    async def tidy(self, record: ReleaseRecord) -> None:
        """Clear away what no run needs any more; only after the commit, and for a bounded time.

        Args:
            record: The release that ran.
        """
        checks = Checks(self._settings.release.jobs, self._version, self._environ)
        await Broom(
            shelf=self.shelf,
            checks=checks,
            images=self._images(),
            budget=self._settings.limits.disk,
            environ=self._environ,
            log=self._log,
        ).sweep(record.commit, grown=record.trial is not None or bool(record.refused))

    def _images(self) -> Images:
        return Images(self._settings.browser, self._environ, self._log)

    async def end_trial(
        self, release: Installed, results: Results, rerun: Rerun, seconds_left: float
    ) -> Verdict:
        """Judge a release on trial by what became of its jobs; what is doubtful, the last good release is asked.

        Args:
            release: The release on trial.
            results: What became of its jobs.
            rerun: Runs jobs once more.
            seconds_left: Until every job must have ended; 0 when nothing may begin any more.
        """
        first = tuple(results())
        guilty = guilty_of(first)
        other = await self._stand_in(release)
        if other is None:
            self._promote(release, first)  # there is nothing to fall back to, whatever it is worth
            return Verdict(Judgement(Decision.PROMOTE))
        if guilty:
            self._mark(release, judge(first, (), guilty).reason)
        passed = Remembered.read(self.shelf.record).memory.passed
        names = again(first, other.jobs.job, passed, seconds_left)
        if names:
            self._log.warning("release.asks_last_good", ref=other.ref, jobs=names)
            await rerun(other, names)
        second = [result for result in results() if result.name in names]
        judgement = judge(first, second, guilty)
        self._apply(judgement, release, first)
        failed = judgement.decision is Decision.BAD
        return Verdict(judgement, other if failed and names else None, names)

    def remember(self, release: Installed, results: Sequence[JobResult]) -> None:
        """Remember what the last good release does well."""
        record = Remembered.read(self.shelf.record)
        try:
            record.keep(with_passed(record.memory, release.commit, results))
        except ReleaseError as error:
            self._log.warning("release.not_remembered", reason=str(error))

    async def _stand_in(self, release: Installed) -> Installed | None:
        return await stand_in_for(
            release.commit,
            self._settings.release,
            self.shelf,
            environ=self._environ,
            version=self._version,
            now=datetime.now(UTC),
            log=self._log,
        )

    def _apply(
        self, judgement: Judgement, release: Installed, results: Sequence[JobResult]
    ) -> None:
        self._log.info(
            "release.judged",
            ref=release.ref,
            commit=release.commit,
            decision=judgement.decision.value,
            reason=judgement.reason,
        )
        match judgement.decision:
            case Decision.PROMOTE:
                self._promote(release, results)
            case Decision.BAD:
                self._mark(release, judgement.reason)
            case Decision.UNDECIDED:
                record = Remembered.read(self.shelf.record)
                self._keep(record, trial=None)

    def _promote(self, release: Installed, results: Sequence[JobResult]) -> None:
        try:
            promote(self.shelf, release)
        except ReleaseError as error:
            self._log.error("release.not_promoted", reason=str(error))
            return
        self.remember(release, results)

    def _mark(self, release: Installed, reason: str) -> None:
        now = datetime.now(UTC)
        record = Remembered.read(self.shelf.record)
        bad = Bad(ref=release.ref, reason=reason[:500], since=now, agent=self._version)
        marked = record.memory.with_bad(release.commit, bad)
        self._keep(record, bad=marked.bad, trial=None, stale_since=record.memory.stale_since or now)

    def _keep(self, record: Remembered, **changes: object) -> None:
        try:
            record.keep(record.memory.model_copy(update=changes))
        except ReleaseError as error:
            self._log.error("release.not_remembered", reason=str(error))


def after_trial(
    record: ReleaseRecord, release: Installed, verdict: Verdict, now: datetime
) -> ReleaseRecord:
    """Return what the manifest says of the release after its trial.

    Args:
        record: What it said before.
        release: The release on trial.
        verdict: How the trial ended.
        now: The time (aware).
    """
    judgement, other = verdict.judgement, verdict.taken_over
    tried = record.model_copy(update={"trial": judgement.decision.value})
    if judgement.decision is not Decision.BAD:
        return tried
    refused = RefusedRelease(
        ref=release.ref, commit=release.commit, kind="trial", reason=judgement.reason
    )
    tried = tried.model_copy(update={"refused": (*record.refused, refused)})
    if other is None:
        return tried
    age = max(0.0, (now - other.fetched).total_seconds())
    before = record.stale  # the release on trial was not the newest either
    return tried.model_copy(
        update={
            "repository": other.repository,
            "ref": other.ref,
            "commit": other.commit,
            "fetched": other.fetched,
            "age_seconds": age,
            "verified_by": other.verified_by,
            "stale": Stale(
                wanted=before.wanted if before else release.ref,
                reason=before.reason if before else f"it failed its trial: {judgement.reason}",
                age_seconds=age,
                since=(before and before.since) or now,
            ),
            "rolled_back_from": RolledBack(
                ref=release.ref,
                commit=release.commit,
                reason=judgement.reason,
                jobs=verdict.again,
            ),
        }
    )


async def run_again(
    release: Installed,
    names: tuple[str, ...],
    *,
    shop: Shop,
    settle: Callable[[ReleaseBrowser | None, tuple[Job, ...]], Awaitable[Keeper | None]],
    sessions: int,
    before: Sequence[JobResult],
    ended: Callable[[JobResult], None],
) -> None:
    """Run jobs once more, on another release than the one they failed on.

    Args:
        release: The other release.
        names: The jobs.
        shop: What the jobs shared the first time.
        settle: Returns the browser that jobs need.
        sessions: Browser sessions at once.
        before: What became of the jobs the first time.
        ended: Told of each result, in which both times are one.
    """
    jobs = chosen(release.jobs.job, frozenset(names))
    then = {result.name: result for result in before}
    again = replace(shop, tree=release.tree, programs=release.programs)
    if any(job.browser for job in jobs):
        again = replace(again, browser=await settle(release.jobs.browser, jobs))
    await run_jobs(
        jobs,
        sessions,
        again,
        lambda result: ended(once_more(then.get(result.name), result, release)),
    )


def with_origin(
    results: Sequence[JobResult], verdict: Verdict, release: Installed
) -> tuple[JobResult, ...]:
    """Return the results with the commit that made each, where it is not that of the run's release."""
    if verdict.taken_over is None:
        return tuple(results)
    return tuple(
        result.model_copy(
            update={"release": None if result.name in verdict.again else release.commit}
        )
        for result in results
    )


def once_more(before: JobResult | None, result: JobResult, release: Installed) -> JobResult:
    """Return the result of a job that ran once more on another release: both stories in one."""
    note = f"ran once more, on {release.ref}"
    if before is None:
        return result.model_copy(update={"release": release.commit})
    return result.model_copy(
        update={
            "attempts": (*before.attempts, *result.attempts),
            "started": before.started or result.started,
            "release": release.commit,
            "notes": (*before.notes, *result.notes, note),
        }
    )
