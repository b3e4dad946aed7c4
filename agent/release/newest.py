"""One attempt at the newest release that can run: look, judge, fetch, verify, install, put on trial."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from agent.base import processes
from agent.base.errors import ReleaseError, ReleaseRefused
from agent.core.manifest import RefusedRelease
from agent.release.checks import missing_jobs
from agent.release.git import GitError
from agent.release.install import install
from agent.release.means import Means, refusing, since
from agent.release.passing import mark_text
from agent.release.record import Remembered
from agent.release.repository import TRACK, Trouble, Wanted, candidates
from agent.release.shelf import (
    TREE,
    Installed,
    Marker,
    encoded,
    good_commit,
    linked_commit,
    load,
    on_disk,
    read_marker,
    sweep,
    write_marker,
)
from agent.release.trial import Bad, bad_reason, installing, own_fault, starting
from agent.release.trust import (
    Claim,
    Floor,
    Signed,
    claim_of,
    floor_problem,
    forced_back_problem,
    raised,
    to_try,
)
from agent.release.verify import Trust

MOST_TRIED = 5
"""Releases that one run tries, the newest included: each may cost a fetch and an installation."""
_DOUBTFUL = frozenset({"bad", "check", "trial"})
"""Refusals that count only as long as something else can run."""


class Attempt:
    """One attempt at the newest release that can run.

    Attributes:
        wanted: What is wanted, as precisely as is known by now.
        commit: Its commit, once the repository has named it.
        warnings: What a person should look at.
        refused: What was offered and did not run, the newest first.
        why: Why the newest does not run; None when it does, or as long as that is not known.
        record: What is remembered about releases.
        on_trial: Whether what was returned has not proved itself yet.
    """

    def __init__(self, means: Means) -> None:
        self.means = means
        self.settings, self.shelf, self.log = means.settings, means.shelf, means.log
        self.wanted = means.settings.branch or means.settings.track or TRACK
        self.commit: str | None = None
        self.warnings: list[str] = []
        self.refused: list[RefusedRelease] = []
        self.why: ReleaseRefused | None = None
        self.on_trial = False
        self.record = Remembered.read(means.shelf.record)
        self.trust = Trust.of(means.settings)
        self.mirror = means.mirror()
        self._tried = Wanted(self.wanted, "", "")
        self._more_offered = False

    async def newest(self) -> Installed:
        """Return the newest release that can run; it is fetched and installed when it is not on disk yet.

        Raises:
            ReleaseRefused: None of those that are offered may run.
            ReleaseError: None can be had, or can run.
        """
        self._warn_of_damage()
        # A killed agent's git and uv outlive it, and would write into what is made now.
        await processes.kill_marked(mark_text(self.shelf.mirror))
        for name in await sweep(self.shelf):
            self.log.info("release.swept", name=name)
        await self.mirror.prepare()
        self.trust.insist()
        pinned = await self._pinned_on_disk()
        return await (self._ready_pinned(pinned) if pinned else self._from_repository())

    def _warn_of_damage(self) -> None:
        """Tell of what is remembered no more, which is nothing to begin anew with in silence."""
        memory = self.record.memory
        if memory.lost is not None:
            self.log.error("release.record_lost", reason=memory.lost)
            self.warnings.append(memory.lost)
            self.note(lost=memory.lost)
        if memory.good and good_commit(self.shelf) is None:
            text = f"{self.shelf.good} is gone or damaged, so that the last good release is not known any more"
            self.log.error("release.good_lost", reason=text)
            self.warnings.append(text)

    async def _pinned_on_disk(self) -> Installed | None:
        """Return the release that an operator pinned, when it is on disk: nobody has to be asked for it."""
        pin = self.record.memory.pin
        if pin is None:
            return None
        self.wanted, self.commit = pin.ref, pin.commit
        if pin.commit is None or read_marker(self.shelf.root(pin.commit)) is None:
            return None
        release = on_disk(self.shelf, pin.commit, self.means.checks)
        return await self.verified(release)

    async def _from_repository(self) -> Installed:
        try:
            offered = await self._look()
            return await self._first_that_can_run(to_try(offered, self.floor(), self.means.line))
        except GitError:
            if self.record.memory.unreachable_since is None:
                self.note(unreachable_since=self.means.now)
            raise

    async def _look(self) -> tuple[Wanted, ...]:
        """Ask the repository which releases it offers; the newest is what is wanted."""
        started = time.monotonic()
        pin = self.record.memory.pin
        branch = None if pin else self.settings.branch
        refs = await self.mirror.refs(branch, until=self._fetch_until())
        self.note(reached=self.means.now, unreachable_since=None)
        # A tag's name has no signs that mean something in a pattern.
        offered = candidates(refs, pin.ref if pin else self.settings.track, branch)
        if not offered:
            raise ReleaseError(
                f'{self.means.repository.url} has no {"branch" if branch else "tag that matches"} "{self.wanted}"',
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
        if wanted.is_tag:
            url = self.means.repository.url
            self.record.keep(self.record.memory.with_tag(url, wanted.name, release.commit))
        return ready

    async def _ready(self, release: Installed) -> Installed:
        if release.commit != good_commit(self.shelf):
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
            reason=str(error),
        )
        self.why = self.why or error
        self.refused.append(
            RefusedRelease(
                ref=wanted.name, commit=wanted.commit, kind=error.kind, reason=str(error)
            )
        )
        if own_fault(error.kind, str(error)):
            bad = Bad(
                ref=wanted.name,
                reason=str(error)[:500],
                since=self.means.now,
                agent=self.means.checks.version,
            )
            marked = self.record.memory.with_bad(wanted.commit, bad)
            self.note(bad=marked.bad, trial=marked.trial)

    def _left_by_operator(self, commit: str) -> bool:
        bad = self.record.memory.bad.get(commit)
        return bad is not None and bad.by == "operator"

    def _warn_of_untried(self, untried: Sequence[Wanted]) -> None:
        first, count = untried[0].name, len(untried)
        self.log.warning("release.untried", ref=first, releases=count)
        self.warnings.append(f"{count} older releases were not tried, the newest of them {first}")

    def _judge(self, wanted: Wanted) -> None:
        """Refuse what must not even be fetched.

        Raises:
            ReleaseRefused: It was found bad, was moved, or is a step back.
        """
        memory = self.record.memory
        if memory.pin is not None:
            return
        self._look_at_move(wanted)
        bad = bad_reason(memory, wanted.commit, wanted.name, self.means.checks.version)
        if bad is not None and self._has_other(wanted.commit):
            raise ReleaseRefused("bad", bad, remedy="publish a newer one")
        if bad is not None:
            self.warnings.append(f"{wanted.name} runs for want of another release, although {bad}")
        problem = floor_problem(self.floor(), self.means.line, wanted.name, is_tag=wanted.is_tag)
        if problem is None:
            return
        if self.trust.signers is not None:
            raise ReleaseRefused(
                "downgrade",
                f"{wanted.name} is the newest that is offered, and {problem}",
                remedy="publish a newer one, or mayfly release pin on the machine",
            )
        self.warnings.append(f"{wanted.name} is the newest that is offered, and {problem}")

    def _look_at_move(self, wanted: Wanted) -> None:
        """Refuse a tag that is another commit now; where nothing is verified, only tell of it."""
        url = self.means.repository.url
        before = self.record.memory.tags.get(url, {}).get(wanted.name) if wanted.is_tag else None
        if before is None or before == wanted.commit:
            return
        text = f"the tag {wanted.name} was moved: it was commit {before[:12]}, and is {wanted.commit[:12]} now"
        self.log.warning("release.tag_moved", ref=wanted.name, before=before, commit=wanted.commit)
        if self.trust.signers is not None:
            raise ReleaseRefused("moved", text, remedy="give what is new a new tag")
        self.warnings.append(text)

    def _has_other(self, commit: str) -> bool:
        """Tell whether something else can run: another release on disk, or one that is offered and not tried yet."""
        return self._more_offered or self._has_other_on_disk(commit)

    def _has_other_on_disk(self, commit: str) -> bool:
        links = (self.shelf.good, self.shelf.baked)
        return any(linked_commit(link) not in {None, commit} for link in links)

    def floor(self) -> Floor | None:
        """Return the newest release of this line that was found good, also when the memory of it is lost."""
        floors = self.record.memory.floors
        commit = good_commit(self.shelf)
        marker = read_marker(self.shelf.root(commit)) if commit else None
        if marker is not None and marker.line == self.means.line and marker.line not in floors:
            good = Floor(ref=marker.ref, commit=marker.commit, time=marker.time)
            floors = raised(floors, self.means.line, good, is_tag=marker.tag)
        return floors.get(self.means.line)

    async def _present(self, wanted: Wanted) -> Installed | None:
        """Return the wanted release if it is complete on disk, under the name it is wanted by now, and verified."""
        root = self.shelf.root(wanted.commit)
        marker = read_marker(root)
        if marker is None:
            return None
        same = marker.ref == wanted.name and marker.repository == self.means.repository.url
        if self.trust.signers is not None and not (same and marker.signed):
            return None  # what is signed has to be fetched first
        named = marker.model_copy(
            update={
                "ref": wanted.name,
                "repository": self.means.repository.url,
                "line": self.means.line,
                "tag": wanted.is_tag,
            }
        )
        self._refuse_step_back(wanted, named)
        if named != marker:
            write_marker(root, named)
        with refusing("content"):
            release = load(root, named, self.means.checks)
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
        there = read_marker(self.shelf.root(commit))
        if there is not None:
            kept = {"fetched": there.fetched, "environment": there.environment}
            write_marker(self.shelf.root(commit), marker.model_copy(update=kept))
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
            repository=self.means.repository.url,
            fetched=self.means.now,
            environment=False,
            line=self.means.line,
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
        memory, problem = installing(self.record.memory, wanted.commit, wanted.name, self.means.now)
        if problem is not None and self._has_other(wanted.commit):
            raise ReleaseRefused("install", problem, remedy="publish a newer one")
        self.record.keep(memory)
        try:
            return await install(self.means, self.mirror, wanted, marker)
        except ReleaseError:
            self.note(trial=None)  # it ended in order: nothing was cut off
            raise

    def _refuse_step_back(self, wanted: Wanted, marker: Marker) -> None:
        if self.trust.signers is None or wanted.is_tag or self.record.memory.pin is not None:
            return
        claim = Claim(wanted.commit, "", marker.time)
        problem = forced_back_problem(self.floor(), wanted.name, claim)
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
        if self._has_other_on_disk(release.commit) and self.record.memory.pin is None:
            self._refuse_lost_jobs(release)
            await self._have_image(release)
        memory, problem = starting(self.record.memory, release.commit, release.ref, self.means.now)
        if problem is not None and has_other:
            raise ReleaseRefused("trial", problem, remedy="publish a newer one")
        self.record.keep(memory)
        if self.means.self_check is not None and has_other:
            await self.means.self_check.pass_or_refuse(release)
        self.on_trial = True
        self.log.info("release.on_trial", ref=release.ref, commit=release.commit)

    async def _have_image(self, release: Installed) -> None:
        """Have the browser's image that a new release pins, or refuse the release until it can be had."""
        images = self.means.images
        image = images.pinned(release.jobs) if images is not None else None
        if images is not None and image is not None and await images.have(image):
            self.note(images=(*self.record.memory.images, image))

    def _refuse_lost_jobs(self, release: Installed) -> None:
        commit = good_commit(self.shelf)
        good = self.shelf.root(commit) / TREE if commit else None
        lost = missing_jobs(good, release.tree, release.jobs, self.means.checks) if good else []
        if lost:
            raise ReleaseRefused(
                "check",
                f"it has no job {', '.join(lost)} any more",
                remedy=f'if that is meant, write retired = ["{lost[0]}"] at the top of {self.settings.jobs}',
            )

    def note(self, **changes: object) -> None:
        """Change what is remembered; what only helps a person to understand is not worth a failure."""
        try:
            self.record.keep(self.record.memory.model_copy(update=changes))
        except ReleaseError as error:
            self.log.warning("release.not_remembered", reason=str(error))
