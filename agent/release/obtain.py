"""Which release runs today: the newest, if it is verified, installed and checked; the last good one; the image's."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import ReleaseError, ReleaseRefused
from agent.contract import facts
from agent.release.advice import advice
from agent.release.context import ReleaseContext
from agent.release.newest import MOST_TEXT, Attempt, refusal_of
from agent.release.store import Installed

UNVERIFIED = (
    "releases are not verified: whoever can push to the repository has programs run here;"
    ' set release.allowed_signers, or release.trust = "none" to say that it is meant'
)
_FORBIDDEN = frozenset({"unverified", "downgrade"})
"""Refusals that say that a release must not run; by the others it cannot, here and now."""
_FAILED = frozenset({"content", "install"})
"""Refusals that a second attempt in the same run would only repeat."""


@dataclass(frozen=True, slots=True)
class Obtained:
    """The release to run.

    Attributes:
        stale: Why it is not the newest; None if it is.
        warnings: What a person should look at, such as a tag that was moved.
        on_trial: Whether it has not proved itself yet; then its trial is recorded.
        record: What the manifest says of it.
    """

    release: Installed
    stale: facts.Stale | None
    warnings: tuple[str, ...]
    on_trial: bool
    record: facts.Release


async def obtain(context: ReleaseContext) -> Obtained:
    """Return the release to run, complete on disk and checked: the newest that can, or the last good one.

    Raises:
        ReleaseError: None can run, or the configuration names no repository.
    """
    attempt = Attempt(context)
    attempt.warnings += context.memory.problems
    if context.machine and not context.settings.trust_is_stated:
        attempt.warnings.append(UNVERIFIED)
    try:
        release = await attempt.newest()
    except ReleaseError as error:
        return await _stand_in(attempt, attempt.why or error)
    if attempt.why is None:
        attempt.stays_last_good(release)
    return await _obtained(attempt, release, attempt.why)


async def stand_in_for(commit: str, context: ReleaseContext) -> Installed | None:
    """Return the release that takes over from one that failed; None if no other can run."""
    release, reasons = await _other(Attempt(context), besides=commit)
    for reason in reasons:
        context.log.warning("release.no_stand_in", reason=reason)
    return release


async def _stand_in(attempt: Attempt, why: ReleaseError) -> Obtained:
    """Return another release in place of those that cannot run."""
    release, reasons = await _other(attempt)
    if release is not None:
        attempt.on_trial = False
        return await _obtained(attempt, release, why)
    attempt.memory.contact(stale_since=_stale_since(attempt))
    all_reasons = [f"{each.ref} was rejected ({each.reason})" for each in attempt.refused]
    all_reasons = all_reasons or [f"{attempt.wanted}: {why}"]
    all_reasons += [reason for reason in reasons if not reason.endswith(str(why))]
    before = "" if reasons or attempt.good else ", and there is no earlier one"
    remedy = "" if attempt.refused else why.remedy
    raise ReleaseError(
        f"no usable release: {'; '.join(all_reasons)}{before}", remedy=remedy
    ) from why


async def _other(
    attempt: Attempt, besides: str | None = None
) -> tuple[Installed | None, list[str]]:
    """Return an earlier good release, else the image's, and why those before it in this order cannot run.

    The last good one is fetched from git if it is not on the disk. If it is not available, an older one on the disk
    will do; if it must not run, none but the image's may.
    """
    reasons, store = list[str](), attempt.context.release_store
    # An index that hangs is not waited for once more.
    failed = {each.commit for each in attempt.refused if each.kind in _FAILED}
    asked = any(good.commit in failed for good in attempt.good)
    tried = {besides, *failed}
    for good in attempt.good:
        here = store.marker(good.commit) is not None
        if good.commit in tried or (asked and not here):
            continue
        asked = asked or not here
        tried.add(good.commit)
        try:
            return await attempt.restore(good), reasons
        except ReleaseError as error:
            reasons.append(f"{good.ref}, which was good before: {error}")
            if isinstance(error, ReleaseRefused) and error.kind in _FORBIDDEN:
                break
    baked = store.image_commit
    if baked is not None and baked not in tried:
        try:
            return await attempt.trusted(baked), reasons
        except ReleaseError as error:
            reasons.append(f"the image's: {error}")
    return None, reasons


async def _obtained(attempt: Attempt, release: Installed, why: ReleaseError | None) -> Obtained:
    """Return the release that runs; `why` says why it is not the newest."""
    stale = None if why is None else _stale(attempt, release, why)
    attempt.memory.contact(stale_since=stale.since if stale else None)
    refused = attempt.refused
    if not refused and isinstance(why, ReleaseRefused):  # before anything was offered
        refused = [refusal_of(attempt.wanted, attempt.commit, why)]
    marker = release.marker
    record = facts.Release(
        repository=marker.repository,
        ref=marker.ref,
        commit=marker.commit,
        fetched=marker.fetched,
        trust="none" if attempt.trust.signers is None else "signed",
        verified_by=marker.verified_by,
        reached=attempt.reached,
        unreachable_since=attempt.memory.known.contact.unreachable_since,
        stale=stale,
        refused=tuple(refused),
    )
    notes = await asyncio.to_thread(
        advice, release.tree, release.jobs, attempt.context.settings.jobs
    )
    return Obtained(release, stale, (*attempt.warnings, *notes), attempt.on_trial, record)


def _stale(attempt: Attempt, release: Installed, why: ReleaseError) -> facts.Stale:
    stale = facts.Stale(
        wanted=attempt.wanted,
        reason=why.with_remedy[:MOST_TEXT],
        age_seconds=release.age_seconds(attempt.context.now),
        since=_stale_since(attempt),
    )
    attempt.context.log.warning(
        "release.stale",
        wanted=stale.wanted,
        reason=stale.reason,
        ref=release.ref,
        commit=release.commit,
    )
    return stale


def _stale_since(attempt: Attempt) -> datetime:
    return attempt.memory.known.contact.stale_since or attempt.context.now
