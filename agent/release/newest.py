"""One attempt at the newest release that can run: look, judge, fetch, verify, install, put on trial."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from agent.base import processes
from agent.base.engine import no_login
from agent.base.errors import ReleaseError, ReleaseRefused
from agent.config.jobsfile import family_of
from agent.contract.facts import RefusedRelease
from agent.contract.releases import Bad, Good, Pin, Seen, TrialStage, Version
from agent.release.checks import missing_jobs
from agent.release.context import ReleaseContext, refusing, since
from agent.release.git import MARK, Git, GitError
from agent.release.images import have_image, pinned_image
from agent.release.install import install
from agent.release.mirror import Mirror
from agent.release.repository import (
    Trouble,
    Wanted,
    can_be_asked_for,
    candidates,
    channel_of,
    configured_repository,
)
from agent.release.selfcheck import self_check
from agent.release.store import (
    Installed,
    Marker,
    good_of,
    has_fallback,
    load,
    on_disk,
    sweep,
    write_marker,
)
from agent.release.trial import MAX_INSTALLS, MAX_STARTS, own_fault
from agent.release.trust import (
    claim_of,
    forced_back_problem,
    highest,
    line_of,
    minimum_problem,
    to_try,
)
from agent.release.verify import Trust

MOST_TRIED = 5
"""Releases that one run tries, with the newest: each may cost a fetch and an installation."""
_DOUBTFUL = frozenset({"bad", "check", "trial"})
"""Refusals that count only while something else can run."""

MOST_TEXT = 2000
"""Characters of a reason."""


def refusal_of(ref: str, commit: str | None, error: ReleaseRefused) -> RefusedRelease:
    """Return what the plan and the manifest say of a rejected release."""
    reason = error.with_remedy[:MOST_TEXT]
    return RefusedRelease(ref=ref, commit=commit, kind=error.kind, reason=reason)


class Attempt:
    """One attempt at the newest release that can run.

    Attributes:
        wanted: The release that is wanted, as precisely as it is known so far.
        commit: Its commit, once the repository has named it.
        warnings: What a person should look at.
        refused: Releases that were offered and rejected, the newest first.
        why: Why the newest does not run; None if it does, or is not known yet.
        reached: When the repository answered last.
        on_trial: Whether the returned release has not proved itself yet.

    Raises:
        ReleaseError: The configuration names no repository.
    """

    def __init__(self, context: ReleaseContext) -> None:
        self.context = context
        self.settings, self.memory, self.log = context.settings, context.memory, context.log
        self._store, self._version = context.release_store, context.version
        self.trust = Trust(self.settings.allowed_signers)
        repository = configured_repository(self.settings, context.environ)
        self._url = repository.url
        self.wanted = channel_of(self.settings)
        self._line = line_of(self._url, self.settings.branch, self.wanted)
        login = context.keyring.git if context.keyring else None
        git = Git(
            *(self._store.mirror, repository, context.environ),
            seconds=self.settings.timeout,
            log=self.log,
            login=login,
        )
        self.mirror = Mirror(git)
        self.commit: str | None = None
        self.warnings: list[str] = []
        self.refused: list[RefusedRelease] = []
        self.why: ReleaseRefused | None = None
        self.on_trial = False
        self.reached = self.memory.known.contact.reached
        self._tried = Wanted(self.wanted, "", "")
        self._more_offered = False

    async def newest(self) -> Installed:
        """Return the newest release that can run; it is fetched and installed if it is not on the disk.

        Raises:
            ReleaseRefused: None of those that are offered may run.
            ReleaseError: None is available, or none can run.
        """
        # A killed agent's git and uv outlive it, and would write into what is made now.
        await processes.kill_marked(f"{MARK}={self._store.mirror}")
        await sweep(self._store, self.log)
        await self.mirror.prepare()
        self.trust.insist()
        try:
            offered = await self._look()
            return await self._first_that_can_run(to_try(offered, self._minimum()))
        except GitError as error:
            if error.trouble is not Trouble.STUCK:  # that says nothing about the server
                since = self.memory.known.contact.unreachable_since
                self.memory.contact(unreachable_since=since or self.context.now)
            raise

    @property
    def _pin(self) -> Pin | None:
        return self.memory.known.pin

    @property
    def good(self) -> tuple[Good, ...]:
        """The releases that proved themselves, the last one first."""
        return self.memory.known.good(self._version)

    def _good_of(self, commit: str) -> Good | None:
        return next((good for good in self.good if good.commit == commit), None)

    def _proved(self, commit: str) -> bool:
        last = () if self.good else (self._store.image_commit,)
        return commit in {*last, *(good.commit for good in self.good)}

    def stays_last_good(self, release: Installed) -> None:
        """Note that the newest release is the last good one, if another of its line took its place.

        A machine that began earlier, or was offline, promotes an older release after a newer one.
        """
        known = self.good
        former = {good.commit for good in known[1:]}
        if self._pin is None and release.commit in former and known[0].line == self._line:
            self.memory.learn(good=good_of(release))

    async def _look(self) -> tuple[Wanted, ...]:
        """Return the releases that are offered: the repository's, or the pinned one; the newest is what is wanted."""
        started = time.monotonic()
        pin, branch = self._pin, self.settings.branch
        if pin and pin.ref:
            self.wanted, self.commit = pin.ref, pin.commit
            if pin.commit and pin.ref == branch:  # no ref leads to it
                return (Wanted(pin.ref, pin.commit, pin.commit),)
            if pin.commit and (self._store.marker(pin.commit) or self._good_of(pin.commit)):
                return (Wanted(pin.ref, f"refs/tags/{pin.ref}", pin.commit),)
            branch = None
        refs = await self.mirror.refs(branch, until=self._fetch_until())
        self._answered()
        # A tag's name has no wildcards, so that it is a pattern for itself alone.
        offered = candidates(refs, pin.ref if pin else self.settings.track, branch)
        if not offered:
            raise ReleaseError(
                f'{self._url} has no {"branch" if branch else "tag that matches"} "{self.wanted}"',
                remedy="push one, or set release.track or release.branch to what is there",
            )
        self.wanted, self.commit = offered[0].name, offered[0].commit
        self.log.info("release.wanted", ref=self.wanted, commit=self.commit, seconds=since(started))
        return offered

    def _answered(self) -> None:
        self.reached = self.context.now
        self.memory.contact(reached=self.reached, unreachable_since=None)

    def _fetch_until(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.timeout

    async def _first_that_can_run(self, offered: Sequence[Wanted]) -> Installed:
        """Return the newest of some releases that can run."""
        until = self._fetch_until() + self.settings.install_timeout
        self._more_offered = len(offered) > 1
        for number, wanted in enumerate(offered):
            if number == MOST_TRIED or (number and asyncio.get_running_loop().time() > until):
                left, first = len(offered) - number, wanted.name
                self.log.warning("release.untried", ref=first, releases=left)
                self.warnings.append(
                    f"{left} older releases were not tried, the newest of them {first}"
                )
                break
            try:
                return await self._take(wanted)
            except ReleaseRefused as error:
                self._refuse(self._tried, error)
            except ReleaseError as error:
                if self.why is None:
                    raise
                self.log.warning("release.unavailable", ref=wanted.name, reason=str(error))
                self.warnings.append(f"{wanted.name} could not be fetched in its place: {error}")
                break
            if self._left_by_operator(wanted.commit):
                break  # what runs in its place was decided by a person
        return await self._last_resort(offered)

    async def _last_resort(self, offered: Sequence[Wanted]) -> Installed:
        """Return the newest release whose rejection counts only while another can run, if no other can."""
        self._more_offered = False
        refused = next((each for each in self.refused if each.kind in _DOUBTFUL), None)
        wanted = next((each for each in offered if refused and each.name == refused.ref), None)
        if refused is None or wanted is None or self._has_other(wanted.commit):
            if self.why is None:
                raise AssertionError("a release that does not run was rejected")
            raise self.why
        release = await self._take(wanted)
        self.refused.remove(refused)
        if wanted == offered[0]:
            self.why = None
        return release

    async def _take(self, wanted: Wanted) -> Installed:
        """Return a release that is offered, ready to run."""
        self._tried = wanted
        self._judge(wanted)
        good = self._good_of(wanted.commit) if self._pin else None
        release = await self._present(wanted)
        if release is None and good and self._store.marker(wanted.commit) is None:
            release = await self.restore(good)  # the pinned one, which proved itself before
        release = release or await self._bring(wanted, self._fetch_until())
        await self._put_on_trial(release)
        pinned = self._pin is not None and self._pin.commit is not None
        before = self.memory.known.tag(self._url, wanted.name)
        if wanted.is_tag and not pinned and before != release.commit:
            seen = Seen(repository=self._url, tag=wanted.name, commit=release.commit)
            self.memory.learn(seen=seen)
        return release

    def _refuse(self, wanted: Wanted, error: ReleaseRefused) -> None:
        """Note why a release does not run, and that it is bad if the fault is certainly its own."""
        refused = refusal_of(wanted.name, wanted.commit, error)
        self.log.warning("release.refused", **refused.model_dump())
        self.why = self.why or error
        self.refused.append(refused)
        if own_fault(error.kind, str(error)):
            bad = Bad(
                commit=wanted.commit, ref=wanted.name, reason=str(error)[:500], agent=self._version
            )
            self.memory.learn(bad=bad)
        self.memory.end_trials()

    def _left_by_operator(self, commit: str) -> bool:
        held = (fact.bad for fact in self.memory.known.bad if fact.bad)
        return any(bad.operator and bad.commit == commit for bad in held)

    def _judge(self, wanted: Wanted) -> None:
        """Reject what must not even be fetched."""
        known, is_tag = self.memory.known, wanted.is_tag
        seen = known.tag(self._url, wanted.name) if is_tag else None
        if self._pin is not None:
            self._look_at_move(wanted, self._pin.commit or seen)
            if is_tag:  # a commit's time is known once it is fetched
                self._refuse_below_image(self._version_of(wanted))
            return
        self._look_at_move(wanted, seen)
        found = known.why_bad(wanted.commit, wanted.name, self._version)
        if found is not None:
            bad = f"it was found bad on {found[1]:%Y-%m-%d %H:%M} UTC: {found[0].reason}"
            if self._has_other(wanted.commit):
                raise ReleaseRefused("bad", bad, remedy="publish a newer one")
            self.warnings.append(
                f"{wanted.name} runs because there is no other release, although {bad}"
            )
        problem = minimum_problem(self._minimum(), wanted.name, is_tag=is_tag)
        if problem is None:
            return
        text = f"{wanted.name} is the newest that is offered, and {problem}"
        if self.trust.signers is not None:
            remedy = "publish a newer one, or mayfly release pin it"
            raise ReleaseRefused("downgrade", text, remedy=remedy)
        self.warnings.append(text)

    def _version_of(self, wanted: Wanted) -> Version:
        return Version(
            line=self._line, tag=wanted.is_tag, ref=wanted.name, commit=wanted.commit, time=0
        )

    def _refuse_below_image(self, version: Version) -> None:
        """Reject what is older than the release of the machine's image: no pin and no fact goes below that."""
        minimum = highest(
            self._image_minimum(line, tag=version.tag) for line in {version.line, self._line}
        )
        problem = minimum_problem(minimum, version.ref, is_tag=version.tag)
        if self.trust.signers is not None and not version.tag:
            problem = forced_back_problem(minimum, version)
        if problem is not None:
            raise ReleaseRefused(
                "downgrade",
                f"{version.ref} is older than the release of the machine's image, which no pin goes below",
                remedy="pin a newer one, or use an image with an older release",
            )

    def _look_at_move(self, wanted: Wanted, before: str | None) -> None:
        """Reject a tag that is another commit now; where nothing is verified, only warn."""
        if before is None or before == wanted.commit:
            return
        text = f"the tag {wanted.name} was moved: it was commit {before[:12]}, and is {wanted.commit[:12]} now"
        self.log.warning("release.tag_moved", ref=wanted.name, before=before, commit=wanted.commit)
        if self.trust.signers is not None:
            raise ReleaseRefused("moved", text, remedy="give what is new a new tag")
        self.warnings.append(text)

    def _has_other(self, commit: str) -> bool:
        """Tell whether something else can run: one that proved itself, or one that is offered and not tried yet."""
        return self._more_offered or self._has_fallback(commit)

    def _has_fallback(self, commit: str) -> bool:
        return has_fallback(self._store, self.good, commit)

    def _minimum(self) -> Version | None:
        """Return the minimum version: the newest of this line that was found good, at least the image's."""
        tag = self.settings.branch is None
        known = self.memory.known.lowest(self._line, tag=tag)
        return highest((known, self._image_minimum(self._line, tag=tag)))

    def _image_minimum(self, line: str, *, tag: bool) -> Version | None:
        marker = self._store.marker(self._store.image_commit)
        return marker if marker and (marker.line, marker.tag) == (line, tag) else None

    async def _present(self, wanted: Wanted) -> Installed | None:
        """Return the wanted release if it is complete on disk and verified; its marker gets its present name."""
        root, marker = self._store.root(wanted.commit), self._store.marker(wanted.commit)
        if marker is None:
            return None
        same = marker.ref == wanted.name and marker.repository == self._url
        if self.trust.signers is not None and not (same and marker.signed):
            return None  # what is signed has to be fetched first
        version = self._version_of(wanted).model_copy(update={"time": marker.time})
        named = marker.model_copy(update={**dict(version), "repository": self._url})
        self._refuse_step_back(named)
        if named != marker:
            write_marker(root, named)
        with refusing("content"):
            release = await asyncio.to_thread(load, root, named, self.context.checks)
        return await self._verified(release)

    async def _bring(self, wanted: Wanted, until: float) -> Installed:
        """Fetch and install the wanted release; a damaged mirror is made anew, once."""
        try:
            return await self._fetch_and_install(wanted, until)
        except GitError as error:
            if error.trouble is not Trouble.OTHER:
                raise
            self.log.warning("release.mirror_damaged", reason=str(error))
        await self.mirror.discard()
        await self.mirror.prepare()
        try:
            return await self._fetch_and_install(wanted, until)
        except GitError as error:
            if error.trouble is not Trouble.OTHER:
                raise
            raise ReleaseRefused("content", str(error), remedy=error.remedy) from error

    async def _fetch_and_install(self, wanted: Wanted, until: float) -> Installed:
        started = time.monotonic()
        commit = await self.mirror.fetch(wanted, until=until)
        self._answered()
        self.log.info("release.fetched", ref=wanted.name, commit=commit, seconds=since(started))
        if commit != wanted.commit:  # it was moved since we looked
            self._tried = wanted = replace(wanted, commit=commit)
            self._judge(wanted)
        marker = await self._marker(wanted)
        there = self._store.marker(commit)
        if there is not None:
            kept = {"fetched": there.fetched, "environment": there.environment}
            write_marker(self._store.root(commit), marker.model_copy(update=kept))
            release = await self._present(wanted)
            if release is not None:
                return release
        return await self._install(marker)

    async def _marker(self, wanted: Wanted) -> Marker:
        """Verify what was fetched, and return its marker."""
        signed, version = None, self._version_of(wanted)
        if self.trust.signers is not None:
            signed = await self.mirror.signed(wanted)
            version = version.model_copy(update={"time": claim_of(signed).time})
        signer = await self.trust.verified(signed, version, self.mirror)
        if signer is not None:
            self.log.info("release.verified", ref=wanted.name, **signer.model_dump())
        return Marker(
            **dict(version),
            repository=self._url,
            fetched=self.context.now,
            signed=signed.text if signed else None,
            environment=False,
            verified_by=signer,
        )

    async def _verified(self, release: Installed) -> Installed:
        """Return a release on disk with its signer."""
        marker = release.marker
        signer = await self.trust.verified(marker.signed_object, marker, self.mirror)
        return replace(release, marker=marker.model_copy(update={"verified_by": signer}))

    async def _install(self, marker: Marker) -> Installed:
        """Install what was fetched, and count how often that was cut off."""
        self._refuse_step_back(marker)
        if self._proved(marker.commit):
            return await install(self.context, self.mirror, marker)
        cut_off, _ = self._cut_off(marker.commit)
        if cut_off >= MAX_INSTALLS and self._has_other(marker.commit):
            problem = f"installing it was cut off {cut_off} times"
            raise ReleaseRefused("install", problem, remedy="publish a newer one")
        self.memory.trial(marker.commit, marker.ref, TrialStage.INSTALLING)
        await self.memory.send()
        try:
            return await install(self.context, self.mirror, marker)
        except ReleaseError:
            self.memory.end_trials()  # it ended in order: nothing was cut off
            raise

    def _cut_off(self, commit: str) -> tuple[int, int]:
        return self.memory.known.cut_off(commit, self.context.now, self.memory.dead)

    async def restore(self, good: Good) -> Installed:
        """Return a release that proved itself: from the disk, else from git by its commit.

        What was signed is known, so that it can be verified although its tag was moved or removed.

        Raises:
            ReleaseRefused: Nobody who may has signed it, or it is older than the image's.
            ReleaseError: It is not available.
        """
        if self._store.marker(good.commit) is not None:
            return await self.trusted(good.commit)
        # Its own fields alone: what a newer writer says besides may have a meaning in a marker.
        known = {name: getattr(good, name) for name in Good.model_fields}
        marker = Marker.model_validate(
            {**known, "repository": self._url, "jobs": None, "environment": False}
        )
        if signed := marker.signed_object:  # its own time, whatever the bucket says
            marker = marker.model_copy(update={"time": claim_of(signed).time})
        if marker.tag != (self.settings.branch is None):
            raise ReleaseError("it is of another kind than the releases that are followed")
        self._refuse_below_image(marker)
        await self.mirror.prepare()
        self.trust.insist()
        await self._fetch_again(good)
        signer = await self.trust.verified(marker.signed_object, marker, self.mirror)
        self.log.info("release.restored", ref=good.ref, commit=good.commit)
        return await install(
            self.context, self.mirror, marker.model_copy(update={"verified_by": signer})
        )

    async def _fetch_again(self, good: Good) -> None:
        """Fetch the commit of a release; from a server that does not give commits by name, under the ref it had."""
        until = self._fetch_until()
        try:
            await self.mirror.fetch(Wanted(good.ref, good.commit, good.commit), until=until)
        except GitError as error:
            if error.trouble is Trouble.UNREACHABLE or not can_be_asked_for(good.ref):
                raise
            ref = f"refs/{'tags' if good.tag else 'heads'}/{good.ref}"
            commit = await self.mirror.fetch(Wanted(good.ref, ref, good.commit), until=until)
            if commit != good.commit:
                raise ReleaseError(f"{good.ref} is another commit now, and {error}") from error

    async def trusted(self, commit: str) -> Installed:
        """Return a release on disk that ran before, if it still may.

        When the file that names the signers is gone, what was verified while it was there may go on.

        Raises:
            ReleaseError: It may not, or is damaged.
        """
        release = await asyncio.to_thread(on_disk, self._store, commit, self.context.checks)
        if self.trust.problem() is not None and release.marker.verified_by is not None:
            return release
        if self.trust.signers is not None:
            await self.mirror.prepare()
        return await self._verified(release)

    def _refuse_step_back(self, marker: Marker) -> None:
        """Reject a branch that was forced back to an older commit."""
        if self.trust.signers is None or marker.tag:
            return
        minimum = self._image_minimum(marker.line, tag=False) if self._pin else self._minimum()
        problem = forced_back_problem(minimum, marker)
        if problem is not None:
            raise ReleaseRefused(
                "downgrade", problem, remedy="commit what is wanted once more, on top"
            )

    async def _put_on_trial(self, release: Installed) -> None:
        """Record that a release that has not proved itself begins, and check whether it can."""
        if self._proved(release.commit):
            return
        has_other = self._has_other(release.commit)
        if self._has_fallback(release.commit) and self._pin is None:
            await asyncio.to_thread(self._refuse_lost_jobs, release)
            await self._have_image(release)
        _, died = self._cut_off(release.commit)
        if died >= MAX_STARTS and has_other:
            problem = f"it was started {died} times, and no run came to its end"
            raise ReleaseRefused("trial", problem, remedy="publish a newer one")
        self.memory.trial(release.commit, release.ref, TrialStage.STARTED)
        await self.memory.send()
        if self.context.isolation is not None and has_other:
            await self_check(release, self.context, self.context.isolation)
        self.on_trial = True
        self.log.info("release.on_trial", ref=release.ref, commit=release.commit)

    async def _have_image(self, release: Installed) -> None:
        """Pull the browser's image that a new release pins, or reject the release until that succeeds."""
        context = self.context
        if context.browser is None:
            return
        image = pinned_image(release.jobs, context.browser)
        login = context.keyring.docker if context.keyring else no_login
        if image and await have_image(
            image, context.environ, self.log, login, context.pull_seconds
        ):
            self.memory.keep_images((*self.memory.images, image))

    def _refuse_lost_jobs(self, release: Installed) -> None:
        lost = missing_jobs(self._jobs_before(), release.jobs)
        if lost:
            raise ReleaseRefused(
                "check",
                f"it has no job {', '.join(lost)} any more",
                remedy=f'if that is meant, write retired = ["{lost[0]}"] at the top of {self.settings.jobs}',
            )

    def _jobs_before(self) -> tuple[str, ...]:
        """Return the jobs of the last good release, or of the image's."""
        last = self.good[0] if self.good else None
        if last and last.jobs is not None:
            return last.jobs
        with suppress(ReleaseError):
            if commit := last.commit if last else self._store.image_commit:
                jobs = on_disk(self._store, commit, self.context.checks).jobs
                return tuple(map(family_of, jobs.job))
        return ()
