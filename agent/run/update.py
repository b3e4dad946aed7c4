"""The release's part in a run: it is obtained, tried, judged, and what it replaced is cleared away."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from agent import __version__
from agent.base.errors import ReleaseError
from agent.base.stop import StoppedError
from agent.batch.log import Store
from agent.config.jobsfile import JobsFile
from agent.contract.facts import RefusedRelease, Release, RolledBack, Stale
from agent.contract.package import JobRecord
from agent.contract.releases import MOST_NAMED, Bad, Good, Passed, ReleaseEntry
from agent.jobs.interface import Isolation
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
    doubts,
    guilty_of,
    in_doubt,
    judge,
    judge_alone,
    passed_by,
    proves_release,
)
from agent.run.context import RunContext
from agent.secrets.keyring import Keyring

Rerun = Callable[[Installed, tuple[str, ...]], Awaitable[Sequence[JobRecord]]]
"""Runs jobs once more, on another release, and returns what became of them."""


class Update:
    """What a run does about its release."""

    def __init__(self, context: RunContext, keyring: Keyring) -> None:
        call = context.call
        self._context = context
        self._keyring = keyring
        self._settings = call.settings
        self._environ = call.environ
        self._log = context.log
        self._releases = ReleaseStore.at(call.places.state, call.places.cache)
        began = context.began
        quiet = any(hint.shard for hint in call.shard.hints)
        self._memory = Memory(
            began.channel,
            Writer(context.run.run, began.host.name, began.deadline, quiet=quiet),
            copy=self._releases.copy,
            place=call.settings.store.url or str(call.places.bucket),
            now=lambda: datetime.now(UTC),
            log=context.log,
            seconds=min(READ_SECONDS, call.settings.job_seconds / 4),
            redact=self._redacted,
        )

    def _redacted(self, entry: ReleaseEntry) -> ReleaseEntry:
        return self._context.redactor.record(entry)

    def last_jobs(self) -> JobsFile | None:
        """Return the jobs of the last good release on this disk, for a guess at what this run will need."""
        try:
            checks = Checks(self._settings.release.jobs, __version__, self._environ)
            known = last_here(self._releases, self._good, checks)
        except ReleaseError:
            return None
        return known.jobs if known else None

    @property
    def _good(self) -> tuple[Good, ...]:
        return self._memory.known.good(__version__)

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
        """End a trial that was not judged: the run is over, in order, and says nothing about the release."""
        self._memory.end_trials()
        await self._memory.send()

    async def close(self) -> tuple[str, ...]:
        """Send what was learnt and is not in the bucket yet; return what a person should look at."""
        await self._memory.send(last=True)
        return tuple(self._memory.problems)

    async def tidy(self, record: Release) -> None:
        """Clear away what no run needs any more, but the release that ran; after the commit, for a bounded time."""
        await self._memory.compact()
        grown = record.trial is not None or bool(record.refused)
        budget = self._settings.limits.disk
        await prune(self._obtaining, record.commit, budget=budget, grown=grown)

    async def end_trial(
        self, obtained: Obtained, first: Sequence[JobRecord], rerun: Rerun
    ) -> tuple[Release, str]:
        """Judge a release by its jobs; those whose failure it may have caused run again on the last good one.

        Returns:
            What the manifest says of the release from now on, and why it failed its trial, if it did.
        """
        release = obtained.release
        other: Installed | None = None
        names: tuple[str, ...] = ()
        second: Sequence[JobRecord] = ()
        if has_fallback(self._releases, self._good, release.commit):
            guilty = guilty_of(first)
            if guilty:
                self._mark(release, judge(first, (), guilty).reason)
                await self._memory.send()
            other, names = await self._to_ask(release, first)
            if other and names:
                self._log.warning("release.asks_last_good", ref=other.ref, jobs=names)
                second = await rerun(other, names)
            judgement = judge(first, second, guilty, self._doubts(release, first, other))
        else:
            judgement = judge_alone(first)
        await self._apply(judgement, release, first)
        record = after_trial(obtained.record, release, judgement)
        if other and names and judgement.decision is Decision.BAD:
            record = taken_over(record, release, other, names)
        return record, judgement.reason

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

    def _doubts(
        self, release: Installed, results: Sequence[JobRecord], other: Installed | None
    ) -> set[str]:
        """Return the jobs of which the last good release is to tell, also if there was no time, or it is not here."""
        if other is not None:
            commit, jobs = other.commit, [job.name for job in other.jobs.job]
            return doubts(results, jobs, self._memory.known.passed(commit))
        last = next((good for good in self._good if good.commit != release.commit), None)
        if last is None:
            return doubts(results, None, None)
        return doubts(results, last.jobs, self._memory.known.passed(last.commit))

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


def after_trial(record: Release, release: Installed, judgement: Judgement) -> Release:
    """Return what the manifest says of a release that was tried; `record` is what it said before."""
    changes: dict[str, object] = {"trial": judgement.decision.value}
    if judgement.decision is Decision.BAD:
        refused = RefusedRelease(
            ref=release.ref, commit=release.commit, kind="trial", reason=judgement.reason
        )
        changes["refused"] = (*record.refused, refused)
    return record.model_copy(update=changes)


def taken_over(
    record: Release, release: Installed, other: Installed, again: tuple[str, ...]
) -> Release:
    """Return what the manifest says once another release has taken over, on which jobs ran again."""
    now, before = datetime.now(UTC), record.stale  # the release on trial was not the newest either
    reason = record.refused[-1].reason
    stale = Stale(
        wanted=before.wanted if before else release.ref,
        reason=before.reason if before else f"it failed its trial: {reason}",
        age_seconds=other.age_seconds(now),
        since=(before and before.since) or now,
    )
    return record.model_copy(
        update={
            "repository": other.marker.repository,
            "ref": other.ref,
            "commit": other.commit,
            "fetched": other.marker.fetched,
            "verified_by": other.marker.verified_by,
            "stale": stale,
            "rolled_back_from": RolledBack(
                ref=release.ref, commit=release.commit, reason=reason, jobs=again[:MOST_NAMED]
            ),
        }
    )
