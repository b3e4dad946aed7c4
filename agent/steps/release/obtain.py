"""Which release runs today: the newest that can be fetched, installed and checked, else the last good one."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from agent.core.errors import ProcessTimeout, ReleaseError
from agent.core.manifest import Stale
from agent.core.repository import TRACK, Repository, Trouble, Wanted, choose, parse_repository
from agent.core.settings import Release
from agent.steps import processes
from agent.steps.logs import Log
from agent.steps.release import environment
from agent.steps.release.checks import Checks, read_jobs
from agent.steps.release.git import GitError
from agent.steps.release.mirror import Mirror
from agent.steps.release.passing import mark, mark_text
from agent.steps.release.seen import Seen
from agent.steps.release.shelf import (
    ENVIRONMENT,
    TREE,
    Installed,
    Marker,
    Shelf,
    last_good,
    load,
    read_marker,
    remove,
    seal,
    sweep,
    write_marker,
)

SYNC_SECONDS = 120.0
"""What writing a new release's files to the disk may take; a small cloud disk does 125 MB/s."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """The release to run.

    Attributes:
        release: It.
        stale: Why it is not the newest; None when it is.
        warnings: What a person should look at, such as a tag that was moved.
    """

    release: Installed
    stale: Stale | None
    warnings: tuple[str, ...]


async def obtain(
    settings: Release,
    shelf: Shelf,
    *,
    environ: Mapping[str, str],
    version: str,
    now: datetime,
    log: Log,
) -> Obtained:
    """Return the release to run, complete on disk and checked: the newest, or the last good one with the reason.

    Args:
        settings: Which repository, and what of it.
        shelf: Where releases are kept; nobody else may use it meanwhile.
        environ: The agent's environment, of which git and uv get what they need.
        version: This agent's version.
        now: The time (aware).
        log: Told of each step, with its seconds.

    Raises:
        ReleaseError: Neither can run, or the configuration names no repository.
    """
    repository = _repository(settings, environ)
    checks = Checks(settings.jobs, version, environ)
    attempt = _Attempt(settings, shelf, repository, checks=checks, now=now, log=log)
    try:
        release = await attempt.newest()
    except ReleaseError as error:
        return _last_good(attempt, error)
    return Obtained(release, None, tuple(attempt.warnings))


def _repository(settings: Release, environ: Mapping[str, str]) -> Repository:
    if settings.repository is None:
        raise ReleaseError(
            "no repository is configured",
            remedy="set release.repository, or see it work first: mayfly demo",
        )
    try:
        return parse_repository(settings.repository, environ.get("HOME"))
    except ValueError as error:
        raise ReleaseError(
            f"release.repository {error}",
            remedy='write for example "https://example.com/me/scrapers.git"',
        ) from error


def _last_good(attempt: "_Attempt", why: ReleaseError) -> Obtained:
    """Return the last good release in the place of the one that could not be had."""
    checks = attempt.checks
    try:
        good = last_good(
            attempt.shelf, jobs=checks.jobs, version=checks.version, environ=checks.environ
        )
    except ReleaseError as error:
        also = "" if str(error) == str(why) else f"; the last good one: {error}"
        raise ReleaseError(
            f"no release can run; {attempt.wanted}: {why}{also}", remedy=why.remedy
        ) from why
    if good is None:
        raise ReleaseError(
            f"no release can run, and none did before; {attempt.wanted}: {why}", remedy=why.remedy
        ) from why
    age = max(0.0, (attempt.now - good.fetched).total_seconds())
    stale = Stale(wanted=attempt.wanted, reason=str(why), age_seconds=age)
    attempt.log.warning(
        "release.stale", wanted=stale.wanted, reason=stale.reason, ref=good.ref, commit=good.commit
    )
    return Obtained(good, stale, tuple(attempt.warnings))


class _Attempt:
    """One attempt at the newest release.

    Attributes:
        wanted: What is wanted, as precisely as is known by now.
        warnings: What a person should look at.
    """

    def __init__(
        self,
        settings: Release,
        shelf: Shelf,
        repository: Repository,
        *,
        checks: Checks,
        now: datetime,
        log: Log,
    ) -> None:
        self.settings, self.shelf, self.repository = settings, shelf, repository
        self.checks, self.now, self.log = checks, now, log
        self.wanted = settings.branch or settings.track or TRACK
        self.warnings: list[str] = []
        self._seen = Seen.read(shelf.releases / "seen.json")
        self._mirror = Mirror(
            shelf.mirror,
            repository,
            environ=checks.environ,
            seconds=settings.timeout,
            log=log,
        )

    async def newest(self) -> Installed:
        """Return the newest release, which is fetched and installed when it is not on disk yet.

        Raises:
            ReleaseError: It cannot be had, or cannot run.
        """
        # A killed agent's git and uv outlive it, and would write into what is made now.
        await processes.kill_marked(mark_text(self.shelf.mirror))
        for name in await sweep(self.shelf):
            self.log.info("release.swept", name=name)
        await self._mirror.prepare()
        until = asyncio.get_running_loop().time() + self.settings.timeout
        wanted = await self._look(until)
        self._warn_if_moved(wanted)
        release = await self._present(wanted) or await self._bring(wanted, until)
        if wanted.is_tag:
            self._seen.remember(self.repository.url, wanted.name, release.commit)
        return release

    async def _look(self, until: float) -> Wanted:
        """Ask the repository which release is the newest."""
        started = time.monotonic()
        branch = self.settings.branch
        refs = await self._mirror.refs(branch, until=until)
        wanted = choose(refs, self.settings.track, branch)
        if wanted is None:
            raise ReleaseError(
                f'{self.repository.url} has no {"branch" if branch else "tag that matches"} "{self.wanted}"',
                remedy="push one, or set release.track or release.branch to what is there",
            )
        self.wanted = wanted.name
        self.log.info(
            "release.wanted", ref=wanted.name, commit=wanted.commit, seconds=_since(started)
        )
        return wanted

    def _warn_if_moved(self, wanted: Wanted) -> None:
        before = self._seen.commit(self.repository.url, wanted.name) if wanted.is_tag else None
        if before is not None and before != wanted.commit:
            self.warnings.append(
                f"the tag {wanted.name} was moved: it was commit {before[:12]}, and is {wanted.commit[:12]} now"
            )
            self.log.warning(
                "release.tag_moved", ref=wanted.name, before=before, commit=wanted.commit
            )

    async def _present(self, wanted: Wanted) -> Installed | None:
        """Return the wanted release if it is complete on disk, under the name it is wanted by now."""
        root = self.shelf.root(wanted.commit)
        marker = read_marker(root)
        if marker is None:
            return None
        named = marker.model_copy(update={"ref": wanted.name, "repository": self.repository.url})
        if named != marker:
            write_marker(root, named)
        return load(root, named, self.checks)

    async def _bring(self, wanted: Wanted, until: float) -> Installed:
        """Fetch and install the wanted release; a damaged mirror is made anew, once."""
        try:
            return await self._fetch_and_install(wanted, until)
        except GitError as error:
            if error.trouble is not Trouble.OTHER:
                raise
            self.log.warning("release.mirror_damaged", reason=str(error))
        await self._mirror.discard()
        await self._mirror.prepare()
        return await self._fetch_and_install(wanted, until)

    async def _fetch_and_install(self, wanted: Wanted, until: float) -> Installed:
        started = time.monotonic()
        commit = await self._mirror.fetch(wanted, until=until)
        self.log.info("release.fetched", ref=wanted.name, commit=commit, seconds=_since(started))
        if commit != wanted.commit:  # it was moved since we looked
            wanted = replace(wanted, commit=commit)
            present = await self._present(wanted)
            if present is not None:
                return present
        return await self._install(wanted)

    async def _install(self, wanted: Wanted) -> Installed:
        """Export a fetched release, make its environment, check it, and only then declare it complete."""
        started = time.monotonic()
        root = self.shelf.root(wanted.commit)
        if root.exists():
            await remove(root)
        await self._export(wanted.commit, root)
        read_jobs(root / TREE, self.checks)  # before an environment is made for nothing
        has_environment = await environment.install(
            root / TREE,
            root / ENVIRONMENT,
            cache=self.shelf.cache,
            environ=self.checks.environ,
            mark=mark(self.shelf.mirror),
            seconds=self.settings.install_timeout,
            log=self.log,
        )
        marker = Marker(
            commit=wanted.commit,
            ref=wanted.name,
            repository=self.repository.url,
            fetched=self.now,
            environment=has_environment,
        )
        release = load(root, marker, self.checks)
        await seal(root)
        await _to_disk(root, self.checks.environ)
        write_marker(root, marker)
        self.log.info(
            "release.installed", ref=wanted.name, commit=wanted.commit, seconds=_since(started)
        )
        return release

    async def _export(self, commit: str, root: Path) -> None:
        started = time.monotonic()
        entries = await self._mirror.entries(commit)
        await self._mirror.export(entries, root / TREE)
        self.log.info(
            "release.exported",
            commit=commit,
            files=len(entries),
            bytes=sum(entry.bytes for entry in entries),
            seconds=_since(started),
        )


async def _to_disk(root: Path, environ: Mapping[str, str]) -> None:
    """Have the whole file system written: one call, where thousands of files would need one each."""
    try:
        done = await processes.run(
            ("sync", "--file-system", str(root)), environ=environ, seconds=SYNC_SECONDS
        )
    except (ProcessTimeout, OSError) as error:
        raise ReleaseError(f"it could not be written to the disk: {error}") from error
    if done.code != 0:
        raise ReleaseError(f"it could not be written to the disk: {done.complaint}")


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
