"""Which release runs today: the newest, if it is verified, installed and checked; the last good one; the image's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from agent.base.errors import ReleaseError, ReleaseRefused
from agent.base.logs import Log
from agent.config.settings import Release
from agent.core.manifest import RefusedRelease, ReleaseRecord, Stale
from agent.release.checks import Checks
from agent.release.images import Images
from agent.release.means import Means
from agent.release.newest import Attempt
from agent.release.repository import Repository, parse_repository
from agent.release.selfcheck import SelfCheck
from agent.release.shelf import Installed, Shelf, linked_commit, on_disk

UNVERIFIED = (
    "releases are not verified: whoever can push to the repository has programs run here;"
    ' set release.allowed_signers, or release.trust = "none" to say that it is meant'
)


@dataclass(frozen=True, slots=True)
class Obtained:
    """The release to run.

    Attributes:
        release: It.
        stale: Why it is not the newest; None when it is.
        warnings: What a person should look at, such as a tag that was moved.
        on_trial: Whether it has not proved itself yet; then its trial is written down.
        record: What the manifest says of it.
    """

    release: Installed
    stale: Stale | None
    warnings: tuple[str, ...]
    on_trial: bool
    record: ReleaseRecord


async def obtain(
    settings: Release,
    shelf: Shelf,
    *,
    environ: Mapping[str, str],
    version: str,
    now: datetime,
    log: Log,
    self_check: SelfCheck | None = None,
    images: Images | None = None,
    machine: bool = False,
) -> Obtained:
    """Return the release to run, complete on disk and checked: the newest that can, or the last good one.

    Args:
        settings: Which repository, and what of it.
        shelf: Where releases are kept; nobody else may use it meanwhile.
        environ: The agent's environment, of which git and uv get what they need.
        version: This agent's version.
        now: The time (aware).
        log: Told of each step, with its seconds.
        self_check: How a new release's programs are tried; without one they are not.
        images: How the image that a new release pins is had; without it the browser will see to it.
        machine: Whether nobody watches, so that a repository that is not verified deserves a warning.

    Raises:
        ReleaseError: None can run, or the configuration names no repository.
    """
    checks = Checks(settings.jobs, version, environ)
    means = Means(
        settings, shelf, _repository(settings, environ), checks, self_check, images, now, log
    )
    attempt = Attempt(means)
    if machine and not attempt.trust.stated:
        attempt.warnings.append(UNVERIFIED)
    try:
        release = await attempt.newest()
    except ReleaseError as error:
        return await _stand_in(attempt, attempt.why or error)
    return _obtained(attempt, release, attempt.why)


async def stand_in_for(
    commit: str,
    settings: Release,
    shelf: Shelf,
    *,
    environ: Mapping[str, str],
    version: str,
    now: datetime,
    log: Log,
) -> Installed | None:
    """Return the release that takes over from one that failed; None when there is no other that can run.

    Args:
        commit: The one that failed.
        settings: As for `obtain`, like all others.
        shelf: Where releases are kept.
        environ: The agent's environment.
        version: This agent's version.
        now: The time (aware).
        log: Told why one cannot take over.
    """
    checks = Checks(settings.jobs, version, environ)
    means = Means(settings, shelf, _repository(settings, environ), checks, None, None, now, log)
    release, reasons = await _other(Attempt(means), besides=commit)
    for reason in reasons:
        log.warning("release.no_stand_in", reason=reason)
    return release


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


async def _stand_in(attempt: Attempt, why: ReleaseError) -> Obtained:
    """Return another release in the place of those that could not be had."""
    release, reasons = await _other(attempt)
    if release is not None:
        attempt.on_trial = False
        return _obtained(attempt, release, why)
    attempt.note(stale_since=attempt.record.memory.stale_since or attempt.means.now)
    others = [f"{each.ref}: {each.reason}" for each in attempt.refused[1:]]
    others += [reason for reason in reasons if not reason.endswith(str(why))]
    also = "".join(f"; {reason}" for reason in others)
    before = "" if reasons else ", and none did before"
    raise ReleaseError(
        f"no release can run{before}; {attempt.wanted}: {why}{also}", remedy=why.remedy
    ) from why


async def _other(
    attempt: Attempt, besides: str | None = None
) -> tuple[Installed | None, list[str]]:
    """Return the last good release, else the image's, and why those before it in this order cannot run."""
    shelf, reasons, seen = attempt.shelf, list[str](), {besides}
    for name, link in (("the last good one", shelf.good), ("the image's", shelf.baked)):
        commit = linked_commit(link)
        if commit is None or commit in seen:
            continue
        seen.add(commit)
        try:
            return await _trusted(attempt, commit), reasons
        except ReleaseError as error:
            reasons.append(f"{name}: {error}")
    return None, reasons


async def _trusted(attempt: Attempt, commit: str) -> Installed:
    """Return a release that ran before, if it still may.

    When the file that names the signers is gone, what was verified while it was there may go on.
    """
    release = on_disk(attempt.shelf, commit, attempt.means.checks)
    if attempt.trust.problem() is not None and release.verified_by is not None:
        return release
    if attempt.trust.signers is None:
        return replace(release, verified_by=None)
    await attempt.mirror.prepare()
    return await attempt.verified(release)


def _obtained(attempt: Attempt, release: Installed, why: ReleaseError | None) -> Obtained:
    """Return a release with what is told of it.

    Args:
        attempt: What was tried.
        release: What runs.
        why: Why it is not the newest; None when it is.
    """
    memory, now = attempt.record.memory, attempt.means.now
    stale = None if why is None else _stale(attempt, release, why)
    attempt.note(stale_since=stale and stale.since)
    refused = attempt.refused
    if not refused and isinstance(why, ReleaseRefused):  # before anything was offered
        refused = [
            RefusedRelease(
                ref=attempt.wanted, commit=attempt.commit, kind=why.kind, reason=str(why)
            )
        ]
    trust: Literal["signed", "none"] = "none" if attempt.trust.signers is None else "signed"
    record = ReleaseRecord(
        repository=release.repository,
        ref=release.ref,
        commit=release.commit,
        fetched=release.fetched,
        age_seconds=_age(release, now),
        trust=trust,
        verified_by=release.verified_by,
        reached=memory.reached,
        unreachable_since=memory.unreachable_since,
        stale=stale,
        refused=tuple(refused),
    )
    return Obtained(release, stale, tuple(attempt.warnings), attempt.on_trial, record)


def _stale(attempt: Attempt, release: Installed, why: ReleaseError) -> Stale:
    stale = Stale(
        wanted=attempt.wanted,
        reason=str(why),
        age_seconds=_age(release, attempt.means.now),
        since=attempt.record.memory.stale_since or attempt.means.now,
    )
    attempt.log.warning(
        "release.stale",
        wanted=stale.wanted,
        reason=stale.reason,
        ref=release.ref,
        commit=release.commit,
    )
    return stale


def _age(release: Installed, now: datetime) -> float:
    return max(0.0, (now - release.fetched).total_seconds())
