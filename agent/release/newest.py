"""One attempt at the newest release that can run: look, judge, fetch, verify, install, put on trial."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from agent.base import processes
from agent.base.errors import ReleaseError, ReleaseRefused
from agent.config.jobsfile import family_of
from agent.contract.facts import RefusedRelease
from agent.contract.releases import Bad, Good, Pin, Seen, TrialStage
from agent.release.allow_list import mark_text
from agent.release.checks import missing_jobs
from agent.release.context import ReleaseContext, refusing, since
from agent.release.git import GitError
from agent.release.install import install
from agent.release.repository import (
    TRACK,
    Trouble,
    Wanted,
    can_be_asked_for,
    candidates,
)
from agent.release.store import (
    Installed,
    Marker,
    decoded,
    encoded,
    has_fallback,
    linked_commit,
    load,
    on_disk,
    read_marker,
    sweep,
    write_marker,
)
from agent.release.trial import MAX_INSTALLS, MAX_STARTS, own_fault
from agent.release.trust import (
    Claim,
    Floor,
    Signed,
    claim_of,
    floor_problem,
    forced_back_problem,
    highest,
    to_try,
)
from agent.release.verify import Trust

MOST_TRIED = 5
"""Releases that one run tries, the newest included: each may cost a fetch and an installation."""
_DOUBTFUL = frozenset({"bad", "check", "trial"})
"""Refusals that count only as long as something else can run."""

MOST_TEXT = 2000
"""Characters of a reason."""


def refusal_of(ref: str, commit: str | None, error: ReleaseRefused) -> RefusedRelease:
    """Return what the plan and the manifest say of a release that was refused."""
    reason = error.with_remedy[:MOST_TEXT]
    return RefusedRelease(ref=ref, commit=commit, kind=error.kind, reason=reason)


class Attempt:
    """One attempt at the newest release that can run.

    Attributes:
        wanted: What is wanted, as precisely as is known by now.
        commit: Its commit, once the repository has named it.
        warnings: What a person should look at.
        refused: What was offered and did not run, the newest first.
        why: Why the newest does not run; None when it does, or as long as that is not known.
        memory: What is known of releases.
        reached: When the repository answered last.
        on_trial: Whether what was returned has not proved itself yet.
    """

    def __init__(self, context: ReleaseContext) -> None:
        self.context = context
        self.settings, self.release_store, self.log = (
            context.settings,
            context.release_store,
            context.log,
        )
        self.wanted = context.settings.branch or context.settings.track or TRACK
        self.commit: str | None = None
        self.warnings: list[str] = []
        self.refused: list[RefusedRelease] = []
        self.why: ReleaseRefused | None = None
        self.on_trial = False
        self.memory, self._version = context.memory, context.checks.version
        self.reached = self.memory.known.contact.reached
        self.trust = Trust.of(context.settings)
        self.mirror = context.mirror()
        self._tried = Wanted(self.wanted, "", "")
        self._more_offered = False

    async def newest(self) -> Installed:
        """Return the newest release that can run; it is fetched and installed when it is not on disk yet.

        Raises:
            ReleaseRefused: None of those that are offered may run.
            ReleaseError: None can be had, or can run.
        """
        # A killed agent's git and uv outlive it, and would write into what is made now.
        await processes.kill_marked(mark_text(self.release_store.mirror))
        for name in await sweep(self.release_store):
            self.log.info("release.swept", name=name)
        await self.mirror.prepare()
        self.trust.insist()
        pinned = await self._pinned_and_known()
        return await (self._ready_pinned(pinned) if pinned else self._from_repository())

    @property
    def _pin(self) -> Pin | None:
        return self.memory.known.pin

    @property
    def good(self) -> tuple[Good, ...]:
        """The releases that proved themselves, the last one first."""
        return self.memory.known.good(self._version)

    def _proved(self, commit: str) -> bool:
        return commit == self.last or any(good.commit == commit for good in self.good)

    @property
    def last(self) -> str | None:
        """The commit that runs when nothing newer can: the last good one, else the image's."""
        return self.good[0].commit if self.good else linked_commit(self.release_store.baked)

    async def _pinned_and_known(self) -> Installed | None:
        """Return the release that an operator pinned, when it is on disk, or its commit proved itself before."""
        pin = self._pin
        if pin is None or pin.ref is None:
            return None
        self.wanted, self.commit = pin.ref, pin.commit
        if pin.commit is not None and read_marker(self.release_store.root(pin.commit)) is not None:
            release = on_disk(self.release_store, pin.commit, self.context.checks)
            self._refuse_below_image(release.ref, release.line, is_tag=release.is_tag)
            return await self.verified(release)
        good = next((one for one in self.good if one.commit == pin.commit), None)
        try:
            return None if good is None else await self.restore(good)
        except GitError:
            self._note_unreachable()
            raise

    async def _from_repository(self) -> Installed:
        try:
            offered = await self._look()
            return await self._first_that_can_run(to_try(offered, self.floor(), self.context.line))
        except GitError:
            self._note_unreachable()
            raise

    def _note_unreachable(self) -> None:
        since = self.memory.known.contact.unreachable_since
        self.memory.contact(unreachable_since=since or self.context.now)

    async def _look(self) -> tuple[Wanted, ...]:
        """Ask the repository which releases it offers; the newest is what is wanted."""
        started = time.monotonic()
        pin = self._pin
        branch = None if pin else self.settings.branch
        refs = await self.mirror.refs(branch, until=self._fetch_until())
        self.reached = self.context.now
        self.memory.contact(reached=self.reached, unreachable_since=None)
        # A tag's name has no signs that mean something in a pattern.
        offered = candidates(refs, pin.ref if pin else self.settings.track, branch)
        if not offered:
            raise ReleaseError(
                f'{self.context.repository.url} has no {"branch" if branch else "tag that matches"} "{self.wanted}"',
                remedy="push one, or set release.track or release.branch to what is there",
            )
        self.wanted, self.commit = offered[0].name, offered[0].commit
        self.log.info("release.wanted", ref=self.wanted, commit=self.commit, seconds=since(started))
        return offered

    def _fetch_until(self) -> float:
        return asyncio.get_running_loop().time() + self.settings.timeout

    async def _first_that_can_run(self, offered: Sequence[Wanted]) -> Installed:
        """Return the newest of some releases that can run.

        Raises:
            ReleaseRefused: None can; the reason is that of the newest.
            ReleaseError: The newest cannot be had.
        """
        until = self._fetch_until() + self.settings.install_timeout
        self._more_offered = len(offered) > 1
        for number, wanted in enumerate(offered):
            if number == MOST_TRIED or (number and asyncio.get_running_loop().time() > until):
                self._warn_of_untried(offered[number:])
                break
            try:
                return await self._take(wanted)
            except ReleaseRefused as error:
                self._refuse(self._tried, error)
            except ReleaseError as error:
                if self.why is None:
                    raise
                self.log.warning("release.not_had", ref=wanted.name, reason=str(error))
                self.warnings.append(f"{wanted.name} could not be had in its place: {error}")
                break
            if self._left_by_operator(wanted.commit):
                break  # what runs in its place was decided by a person
        return await self._for_want_of_another(offered)

    async def _for_want_of_another(self, offered: Sequence[Wanted]) -> Installed:
        """Return the newest release that was refused for what it may do wrong, when there is nothing else at all."""
        self._more_offered = False
        refused = next((each for each in self.refused if each.kind in _DOUBTFUL), None)
        wanted = next((each for each in offered if refused and each.name == refused.ref), None)
        if refused is None or wanted is None or self._has_other(wanted.commit):
            if self.why is None:
                raise AssertionError("what does not run was refused")
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
        release = await self._present(wanted) or await self._bring(wanted, self._fetch_until())
        ready = await self._ready(release)
        url = self.context.repository.url
        if wanted.is_tag and self.memory.known.tag(url, wanted.name) != release.commit:
            self.memory.learn(seen=Seen(repository=url, tag=wanted.name, commit=release.commit))
        return ready

    async def _ready(self, release: Installed) -> Installed:
        if not self._proved(release.commit):
            await self._put_on_trial(release)
        return release

    async def _ready_pinned(self, release: Installed) -> Installed:
        try:
            return await self._ready(release)
        except ReleaseRefused as error:
            self._refuse(Wanted(release.ref, "", release.commit), error)
            raise

    def _refuse(self, wanted: Wanted, error: ReleaseRefused) -> None:
        """Note why a release does not run; and that it is bad, when that is so of its own."""
        self.log.warning(
            "release.refused",
            ref=wanted.name,
            commit=wanted.commit,
            kind=error.kind,
            reason=error.with_remedy,
        )
        self.why = self.why or error
        self.refused.append(refusal_of(wanted.name, wanted.commit, error))
        if own_fault(error.kind, str(error)):
            bad = Bad(
                commit=wanted.commit, ref=wanted.name, reason=str(error)[:500], agent=self._version
            )
            self.memory.learn(bad=bad)
        self.memory.end_trials()

    def _left_by_operator(self, commit: str) -> bool:
        held = (fact.bad for fact in self.memory.known.bad if fact.bad)
        return any(bad.operator and bad.commit == commit for bad in held)

    def _warn_of_untried(self, untried: Sequence[Wanted]) -> None:
        first, count = untried[0].name, len(untried)
        self.log.warning("release.untried", ref=first, releases=count)
        self.warnings.append(f"{count} older releases were not tried, the newest of them {first}")

    def _judge(self, wanted: Wanted) -> None:
        """Refuse what must not even be fetched.

        Raises:
            ReleaseRefused: It was found bad, was moved, or is a step back.
        """
        line, is_tag = self.context.line, wanted.is_tag
        if self._pin is not None:
            self._look_at_move(wanted, self._pin.commit)
            self._refuse_below_image(wanted.name, line, is_tag=is_tag)
            return
        seen = self.memory.known.tag(self.context.repository.url, wanted.name) if is_tag else None
        self._look_at_move(wanted, seen)
        bad = self._why_bad(wanted)
        if bad is not None and self._has_other(wanted.commit):
            raise ReleaseRefused("bad", bad, remedy="publish a newer one")
        if bad is not None:
            self.warnings.append(f"{wanted.name} runs for want of another release, although {bad}")
        problem = floor_problem(self.floor(), line, wanted.name, is_tag=is_tag)
        if problem is None:
            return
        if self.trust.signers is not None:
            raise ReleaseRefused(
                "downgrade",
                f"{wanted.name} is the newest that is offered, and {problem}",
                remedy="publish a newer one, or mayfly release pin it",
            )
        self.warnings.append(f"{wanted.name} is the newest that is offered, and {problem}")

    def _why_bad(self, wanted: Wanted) -> str | None:
        found = self.memory.known.why_bad(wanted.commit, wanted.name, self._version)
        if found is None:
            return None
        bad, since = found
        return f"it was found bad on {since:%Y-%m-%d %H:%M} UTC: {bad.reason}"

    def _refuse_below_image(self, ref: str, line: str, *, is_tag: bool) -> None:
        """Refuse what is older than the release of the machine's image: no pin goes below that.

        Raises:
            ReleaseRefused: It is.
        """
        problem = floor_problem(self._image_floor(line), line, ref, is_tag=is_tag)
        if problem is not None:
            raise ReleaseRefused(
                "downgrade",
                f"{ref} is older than the release of the machine's image, which no pin goes below",
                remedy="pin a newer one, or use an image with an older release",
            )

    def _look_at_move(self, wanted: Wanted, before: str | None) -> None:
        """Refuse a tag that is another commit now; where nothing is verified, only tell of it."""
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
        return has_fallback(self.release_store, self.good, commit)

    def floor(self) -> Floor | None:
        """Return the newest release of this line that was found good, at least the image's."""
        line, tag = self.context.line, self.settings.branch is None
        floors = (self.memory.known.lowest(line, tag=tag), self._image_floor(line))
        return highest(floors, line, is_tag=tag)

    def _image_floor(self, line: str) -> Floor | None:
        commit = linked_commit(self.release_store.baked)
        marker = read_marker(self.release_store.root(commit)) if commit else None
        if marker is None or marker.line != line:
            return None
        return Floor(ref=marker.ref, commit=marker.commit, time=marker.time)

    async def _present(self, wanted: Wanted) -> Installed | None:
        """Return the wanted release if it is complete on disk, under the name it is wanted by now, and verified."""
        root = self.release_store.root(wanted.commit)
        marker = read_marker(root)
        if marker is None:
            return None
        same = marker.ref == wanted.name and marker.repository == self.context.repository.url
        if self.trust.signers is not None and not (same and marker.signed):
            return None  # what is signed has to be fetched first
        named = marker.model_copy(
            update={
                "ref": wanted.name,
                "repository": self.context.repository.url,
                "line": self.context.line,
                "tag": wanted.is_tag,
            }
        )
        self._refuse_step_back(wanted, named)
        if named != marker:
            write_marker(root, named)
        with refusing("content"):
            release = load(root, named, self.context.checks)
        return await self.verified(release)

    async def _bring(self, wanted: Wanted, until: float) -> Installed:
        """Fetch and install the wanted release; a damaged mirror is made anew, once.

        Raises:
            ReleaseRefused: It may not run, or git does not take it into a new mirror either.
            ReleaseError: It cannot be had.
        """
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
        self.log.info("release.fetched", ref=wanted.name, commit=commit, seconds=since(started))
        if commit != wanted.commit:  # it was moved since we looked
            self._tried = wanted = replace(wanted, commit=commit)
            self._judge(wanted)
        marker = await self._marker(wanted)
        there = read_marker(self.release_store.root(commit))
        if there is not None:
            kept = {"fetched": there.fetched, "environment": there.environment}
            write_marker(self.release_store.root(commit), marker.model_copy(update=kept))
            release = await self._present(wanted)
            if release is not None:
                return release
        return await self._install(wanted, marker)

    async def _marker(self, wanted: Wanted) -> Marker:
        """Verify what was fetched, and return what will be written down of it."""
        signed: Signed | None = None
        claim = Claim(wanted.commit, wanted.name, 0)
        if self.trust.signers is not None:
            signed = await self.mirror.signed(wanted)
            claim = claim_of(signed)
        signer = await self.trust.verified(signed, wanted.name, wanted.commit, self.mirror)
        if signer is not None:
            self.log.info("release.verified", ref=wanted.name, **signer.model_dump())
        return Marker(
            commit=wanted.commit,
            ref=wanted.name,
            repository=self.context.repository.url,
            fetched=self.context.now,
            environment=False,
            line=self.context.line,
            tag=wanted.is_tag,
            time=claim.time,
            signed=encoded(signed),
            verified_by=signer,
        )

    async def verified(self, release: Installed) -> Installed:
        """Return a release on disk with its signer, as far as one is asked for.

        Raises:
            ReleaseRefused: Nobody who may has signed it.
        """
        signer = await self.trust.verified(release.signed, release.ref, release.commit, self.mirror)
        return replace(release, verified_by=signer)

    async def _install(self, wanted: Wanted, marker: Marker) -> Installed:
        """Install what was fetched, and count how often that was cut off."""
        self._refuse_step_back(wanted, marker)
        if self._proved(wanted.commit):
            return await install(self.context, self.mirror, wanted, marker)
        cut_off, _ = self._cut_off(wanted.commit)
        if cut_off >= MAX_INSTALLS and self._has_other(wanted.commit):
            problem = f"installing it was cut off {cut_off} times"
            raise ReleaseRefused("install", problem, remedy="publish a newer one")
        self.memory.trial(wanted.commit, wanted.name, TrialStage.INSTALLING)
        await self.memory.send()
        try:
            return await install(self.context, self.mirror, wanted, marker)
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
            ReleaseError: It cannot be had.
        """
        if read_marker(self.release_store.root(good.commit)) is not None:
            return await self.trusted(good.commit)
        self._refuse_below_image(good.ref, good.line, is_tag=good.tag)
        await self.mirror.prepare()
        self.trust.insist()
        wanted = Wanted(good.ref, good.commit, good.commit)
        await self._fetch_again(good)
        signed = decoded(good.signed, tag=good.tag) if good.signed else None
        signer = await self.trust.verified(signed, good.ref, good.commit, self.mirror)
        self.log.info("release.restored", ref=good.ref, commit=good.commit)
        marker = Marker(
            commit=good.commit,
            ref=good.ref,
            repository=self.context.repository.url,
            fetched=good.fetched,
            environment=False,
            line=good.line,
            tag=good.tag,
            time=good.time,
            signed=good.signed,
            verified_by=signer,
        )
        return await install(self.context, self.mirror, wanted, marker)

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
        release = on_disk(self.release_store, commit, self.context.checks)
        if self.trust.problem() is not None and release.verified_by is not None:
            return release
        if self.trust.signers is None:
            return replace(release, verified_by=None)
        await self.mirror.prepare()
        return await self.verified(release)

    def _refuse_step_back(self, wanted: Wanted, marker: Marker) -> None:
        if self.trust.signers is None or wanted.is_tag:
            return
        claim = Claim(wanted.commit, "", marker.time)
        floor = self._image_floor(marker.line) if self._pin else self.floor()
        problem = forced_back_problem(floor, wanted.name, claim)
        if problem is not None:
            raise ReleaseRefused(
                "downgrade", problem, remedy="commit what is wanted once more, on top"
            )

    async def _put_on_trial(self, release: Installed) -> None:
        """Write down that a release begins, and look whether it can; what comes of it is known after its jobs.

        Raises:
            ReleaseRefused: It cannot, or it was begun too often.
        """
        has_other = self._has_other(release.commit)
        if self._has_fallback(release.commit) and self._pin is None:
            self._refuse_lost_jobs(release)
            await self._have_image(release)
        _, died = self._cut_off(release.commit)
        if died >= MAX_STARTS and has_other:
            problem = f"it was started {died} times, and no run came to its end"
            raise ReleaseRefused("trial", problem, remedy="publish a newer one")
        self.memory.trial(release.commit, release.ref, TrialStage.STARTED)
        await self.memory.send()
        if self.context.self_check is not None and has_other:
            await self.context.self_check.pass_or_refuse(release)
        self.on_trial = True
        self.log.info("release.on_trial", ref=release.ref, commit=release.commit)

    async def _have_image(self, release: Installed) -> None:
        """Have the browser's image that a new release pins, or refuse the release until it can be had."""
        images = self.context.images
        image = images.pinned(release.jobs) if images is not None else None
        if images is not None and image is not None and await images.have(image):
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
        if self.good:
            return self.good[0].jobs or ()
        commit = linked_commit(self.release_store.baked)
        with suppress(ReleaseError):
            if commit is not None:
                return tuple(
                    map(
                        family_of, on_disk(self.release_store, commit, self.context.checks).jobs.job
                    )
                )
        return ()
