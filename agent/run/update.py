"""The release's part in a run: it is obtained, tried, judged, and what it replaced is cleared away."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from agent import __version__
from agent.base.errors import ReleaseError
from agent.base.stop import StoppedError
from agent.batch.log import Store
from agent.browser import Supervisor
from agent.config.jobsfile import Job, JobsFile, ReleaseBrowser
from agent.contract.facts import RefusedRelease, Release, RolledBack, Stale
from agent.contract.package import JobRecord
from agent.contract.releases import Bad, Good, Passed, ReleaseEntry
from agent.jobs.context import JobContext
from agent.jobs.interface import Isolation
from agent.jobs.plan import chosen
from agent.jobs.runner import run_jobs
from agent.release.checks import Checks
from agent.release.context import ReleaseContext
from agent.release.memory import READ_SECONDS, Memory, Writer
from agent.release.obtain import Obtained, obtain, stand_in_for
from agent.release.prune import prune
from agent.release.store import Installed, ReleaseStore, good_of, has_fallback, last_here
from agent.release.trial import (
    Decision,
    Judgement,
    again,
    guilty_of,
    in_doubt,
    judge,
    judge_alone,
    passed_by,
    proves_release,
)
from agent.run.context import RunContext
from agent.secrets.keyring import Keyring

Rerun = Callable[[Installed, tuple[str, ...]], Awaitable[None]]
"""Runs jobs once more, on another release."""
Results = Callable[[], Sequence[JobRecord]]
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
    """What a run does about its release."""

    def __init__(self, context: RunContext, keyring: Keyring) -> None:
        """Make the part of a run.

        Args:
            context: The run.
            keyring: What opens what is private.
        """
        call = context.call
        self._context = context
        self._keyring = keyring
        self._settings = call.settings
        self._environ = call.environ
        self._log = context.log
        self._releases = ReleaseStore.at(call.places.state, call.places.cache)
        self._memory = self._memory_of(context)

    def _memory_of(self, context: RunContext) -> Memory:
        """Return what is known of releases, as this disk has it."""
        began, settings = context.began, context.settings
        quiet = any(hint.shard for hint in context.call.shard.hints)
        return Memory(
            began.channel,
            Writer(context.run.run, began.host.name, began.deadline, quiet=quiet),
            copy=self._releases.copy,
            place=settings.store.url or str(context.call.places.bucket),
            now=lambda: datetime.now(UTC),
            log=context.log,
            seconds=min(READ_SECONDS, settings.job_seconds / 4),
            redact=self._redacted,
        )

    def _redacted(self, entry: ReleaseEntry) -> ReleaseEntry:
        return self._context.redactor.record(entry)

    def last_jobs(self) -> JobsFile | None:
        """Return the jobs of the last good release on this disk, for a guess at what this run will need."""
        try:
            known = last_here(self._releases, self._good, self._checks)
        except ReleaseError:
            return None
        return known.jobs if known else None

    @property
    def _good(self) -> tuple[Good, ...]:
        return self._memory.known.good(__version__)

    @property
    def _checks(self) -> Checks:
        return Checks(self._settings.release.jobs, __version__, self._environ)

    async def obtain(
        self, isolation: Callable[[], Awaitable[Isolation]], bucket: Awaitable[Store]
    ) -> Obtained | None:
        """Return the release to run; None when the run was told to stop meanwhile.

        Args:
            isolation: How a new release's programs are tried.
            bucket: Where what is known of releases is.

        Raises:
            ReleaseError: None can run, or none was ready before the jobs' time was over.
        """
        context = self._context
        try:
            return await context.stop.in_time(
                self._obtain(isolation, bucket), context.seconds_left()
            )
        except StoppedError:
            await self.withdraw()
            return None
        except TimeoutError as error:
            await self.withdraw()
            raise ReleaseError("none was ready before the run's time was over") from error

    async def _obtain(
        self, isolation: Callable[[], Awaitable[Isolation]], bucket: Awaitable[Store]
    ) -> Obtained:
        await self._memory.open(bucket)
        return await obtain(replace(self._obtaining, isolation=isolation))

    @property
    def _obtaining(self) -> ReleaseContext:
        return ReleaseContext(
            settings=self._settings.release,
            release_store=self._releases,
            memory=self._memory,
            environ=self._environ,
            version=__version__,
            now=datetime.now(UTC),
            log=self._log,
            browser=self._settings.browser,
            keyring=self._keyring,
            machine=self._context.call.machine,
        )

    async def withdraw(self) -> None:
        """End a trial that did not begin: the run is over, in order, and says nothing about the release."""
        self._memory.end_trials()
        await self._memory.send()

    async def close(self) -> tuple[str, ...]:
        """Send what was learnt and is not in the bucket yet; return what a person should look at."""
        await self._memory.send(last=True)
        return tuple(self._memory.problems)

    async def tidy(self, record: Release) -> None:
        """Clear away what no run needs any more; only after the commit, and for a bounded time.

        Args:
            record: The release that ran.
        """
        await self._memory.compact()
        grown = record.trial is not None or bool(record.refused)
        budget = self._settings.limits.disk
        await prune(self._obtaining, record.commit, budget=budget, grown=grown)

    async def end_trial(self, release: Installed, results: Results, rerun: Rerun) -> Verdict:
        """Judge a release on trial by its jobs; those whose failure it may have caused run again on the last good one.

        Args:
            release: The release on trial.
            results: What became of its jobs.
            rerun: Runs jobs once more.
        """
        first = tuple(results())
        guilty = guilty_of(first)
        if not has_fallback(self._releases, self._good, release.commit):
            judgement = judge_alone(first)
            await self._apply(judgement, release, first)
            return Verdict(judgement)
        if guilty:
            self._mark(release, judge(first, (), guilty).reason)
            await self._memory.send()
        other, names = await self._to_ask(release, first)
        if other and names:
            self._log.warning("release.asks_last_good", ref=other.ref, jobs=names)
            await rerun(other, names)
        second = [result for result in results() if result.name in names]
        judgement = judge(first, second, guilty)
        await self._apply(judgement, release, first)
        failed = judgement.decision is Decision.BAD
        return Verdict(judgement, other if failed and names else None, names)

    async def _to_ask(
        self, release: Installed, results: Sequence[JobRecord]
    ) -> tuple[Installed | None, tuple[str, ...]]:
        """Return the release on which failed jobs run again, to know whose fault it is, and these jobs.

        It may have to be fetched, so that this is done only if something failed.
        """
        context = self._context
        seconds = context.seconds_left()
        if context.stop.requested or seconds < 1 or not any(map(in_doubt, results)):
            return None, ()
        try:
            other = await context.stop.in_time(
                stand_in_for(release.commit, self._obtaining), seconds
            )
        except (TimeoutError, StoppedError):
            self._log.warning("release.no_stand_in", reason="there was no time to fetch it")
            return None, ()
        if other is None:
            return None, ()
        passed = self._memory.known.passed(other.commit)
        return other, again(results, other.jobs.job, passed, context.seconds_left())

    def remember(self, release: Installed, results: Sequence[JobRecord]) -> None:
        """Remember what the last good release does well; and the image's, once it has shown that it runs."""
        known = self._memory.known
        if release.commit not in {good.commit for good in self._good}:
            if known.pin is None and not self._good and proves_release(results):
                self._memory.learn(good=good_of(release))
            else:
                return
        before = known.passed(release.commit)
        jobs = passed_by(before, results)
        if jobs != before:
            self._memory.learn(passed=Passed(commit=release.commit, jobs=jobs))

    async def _apply(
        self, judgement: Judgement, release: Installed, results: Sequence[JobRecord]
    ) -> None:
        self._log.info(
            "release.judged",
            ref=release.ref,
            commit=release.commit,
            decision=judgement.decision.value,
            reason=judgement.reason,
        )
        if judgement.decision is Decision.PROMOTE:
            await self._promote(release, results)
        elif judgement.decision is Decision.BAD:
            self._mark(release, judgement.reason)
        self._memory.end_trials()
        await self._memory.send()

    async def _promote(self, release: Installed, results: Sequence[JobRecord]) -> None:
        await self._memory.look_again()
        bad = self._memory.known.why_bad(release.commit, release.ref, __version__)
        if bad is not None:
            self._log.warning("release.bad_elsewhere", ref=release.ref, reason=bad[0].reason)
            return
        self._memory.learn(good=good_of(release))
        self.remember(release, results)

    def _mark(self, release: Installed, reason: str) -> None:
        bad = Bad(commit=release.commit, ref=release.ref, reason=reason[:500], agent=__version__)
        self._memory.learn(bad=bad)
        since = self._memory.known.contact.stale_since or datetime.now(UTC)
        self._memory.contact(stale_since=since)


def on_trial(record: Release) -> Release:
    """Return what the plan says of a release that has not proved itself yet."""
    return record.model_copy(update={"trial": Decision.UNDECIDED.value})


def after_trial(record: Release, release: Installed, verdict: Verdict, now: datetime) -> Release:
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
    age = max(0.0, (now - other.marker.fetched).total_seconds())
    before = record.stale  # the release on trial was not the newest either
    return tried.model_copy(
        update={
            "repository": other.marker.repository,
            "ref": other.ref,
            "commit": other.commit,
            "fetched": other.marker.fetched,
            "verified_by": other.marker.verified_by,
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
    context: JobContext,
    settle: Callable[[ReleaseBrowser | None, tuple[Job, ...]], Awaitable[Supervisor | None]],
    sessions: int,
    ended: Callable[[JobContext, Job, JobRecord], Awaitable[None]],
) -> None:
    """Run jobs once more, on another release than the one they failed on.

    Args:
        release: The other release.
        names: The jobs.
        context: What the jobs shared the first time.
        settle: Returns the browser that jobs need.
        sessions: Browser sessions at once.
        ended: Told of each result.
    """
    jobs = chosen(release.jobs.job, frozenset(names))
    again = replace(
        context,
        tree=release.tree,
        programs=release.programs,
        ref=release.ref,
        commit=release.commit,
    )
    if any(job.browser for job in jobs):
        again = replace(again, browser=await settle(release.jobs.browser, jobs))
    await run_jobs(jobs, sessions, again, partial(ended, again))
