"""Which release runs today: the newest, if it is verified, installed and checked; the last good one; the image's."""

from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import ReleaseError, ReleaseRefused
from agent.contract import facts
from agent.release.advice import advice
from agent.release.context import ReleaseContext
from agent.release.newest import MOST_TEXT, Attempt, refusal_of
from agent.release.store import Installed, linked_commit, read_marker

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
    stale: facts.Stale | None
    warnings: tuple[str, ...]
    on_trial: bool
    record: facts.Release


async def obtain(context: ReleaseContext, *, machine: bool = False) -> Obtained:
    """Return the release to run, complete on disk and checked: the newest that can, or the last good one.

    Args:
        context: What it takes. Nobody else may use the release store meanwhile; what is learnt is added to the memory,
            and sent where a kill must not lose it.
        machine: Whether nobody watches, so that a repository that is not verified deserves a warning.

    Raises:
        ReleaseError: None can run.
    """
    attempt = Attempt(context)
    attempt.warnings += context.memory.problems
    if machine and not attempt.trust.stated:
        attempt.warnings.append(UNVERIFIED)
    try:
        release = await attempt.newest()
    except ReleaseError as error:
        return await _stand_in(attempt, attempt.why or error)
    return _obtained(attempt, release, attempt.why)


async def stand_in_for(commit: str, context: ReleaseContext) -> Installed | None:
    """Return the release that takes over from one that failed; None when there is no other that can run.

    Args:
        commit: The one that failed.
        context: What it takes.
    """
    release, reasons = await _other(Attempt(context), besides=commit)
    for reason in reasons:
        context.log.warning("release.no_stand_in", reason=reason)
    return release


async def _stand_in(attempt: Attempt, why: ReleaseError) -> Obtained:
    """Return another release in the place of those that could not be had."""
    release, reasons = await _other(attempt)
    if release is not None:
        attempt.on_trial = False
        return _obtained(attempt, release, why)
    attempt.memory.contact(stale_since=_stale_since(attempt))
    told = [f"{each.ref} was rejected ({each.reason})" for each in attempt.refused]
    told = told or [f"{attempt.wanted}: {why}"]
    told += [reason for reason in reasons if not reason.endswith(str(why))]
    before = "" if reasons else ", and there is no earlier one"
    remedy = "" if attempt.refused else why.remedy
    raise ReleaseError(f"no usable release: {'; '.join(told)}{before}", remedy=remedy) from why


async def _other(
    attempt: Attempt, besides: str | None = None
) -> tuple[Installed | None, list[str]]:
    """Return an earlier good release, else the image's, and why those before it in this order cannot run.

    The last good one is fetched from git, if it has to be. Where it cannot be had, an older one will do that is on the
    disk; where it must not run, none that is older.
    """
    reasons, asked = list[str](), False
    for good in attempt.good:
        here = read_marker(attempt.release_store.root(good.commit)) is not None
        if good.commit == besides or (asked and not here):
            continue
        asked = asked or not here
        try:
            return await attempt.restore(good), reasons
        except ReleaseError as error:
            reasons.append(f"{good.ref}, which was good before: {error}")
            if isinstance(error, ReleaseRefused):
                break
    baked = linked_commit(attempt.release_store.baked)
    if baked is not None and baked not in {besides, *(good.commit for good in attempt.good)}:
        try:
            return await attempt.trusted(baked), reasons
        except ReleaseError as error:
            reasons.append(f"the image's: {error}")
    return None, reasons


def _obtained(attempt: Attempt, release: Installed, why: ReleaseError | None) -> Obtained:
    """Return a release with what is told of it.

    Args:
        attempt: What was tried.
        release: What runs.
        why: Why it is not the newest; None when it is.
    """
    stale = None if why is None else _stale(attempt, release, why)
    attempt.memory.contact(stale_since=stale.since if stale else None)
    refused = attempt.refused
    if not refused and isinstance(why, ReleaseRefused):  # before anything was offered
        refused = [refusal_of(attempt.wanted, attempt.commit, why)]
    record = facts.Release(
        repository=release.repository,
        ref=release.ref,
        commit=release.commit,
        fetched=release.fetched,
        trust="none" if attempt.trust.signers is None else "signed",
        verified_by=release.verified_by,
        reached=attempt.reached,
        unreachable_since=attempt.memory.known.contact.unreachable_since,
        stale=stale,
        refused=tuple(refused),
    )
    told = advice(release.tree, release.jobs, attempt.settings.jobs)
    return Obtained(release, stale, (*attempt.warnings, *told), attempt.on_trial, record)


def _stale(attempt: Attempt, release: Installed, why: ReleaseError) -> facts.Stale:
    stale = facts.Stale(
        wanted=attempt.wanted,
        reason=why.with_remedy[:MOST_TEXT],
        age_seconds=_age(release, attempt.context.now),
        since=_stale_since(attempt),
    )
    attempt.log.warning(
        "release.stale",
        wanted=stale.wanted,
        reason=stale.reason,
        ref=release.ref,
        commit=release.commit,
    )
    return stale


def _stale_since(attempt: Attempt) -> datetime:
    return attempt.memory.known.contact.stale_since or attempt.context.now


def _age(release: Installed, now: datetime) -> float:
    return max(0.0, (now - release.fetched).total_seconds())
