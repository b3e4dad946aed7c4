"""What an operator does about releases, from any computer with the bucket's keys: list, pin, go back."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from agent.base.errors import StoreError, StoreRefused, UsageError
from agent.base.logs import Log
from agent.config.faults import suggest
from agent.config.settings import Settings
from agent.contract.ids import run_id
from agent.contract.releases import Bad, Fact, Good, Pin, Version
from agent.release.known import Known
from agent.release.memory import Memory, Writer
from agent.release.repository import channel_of
from agent.release.store import Marker, ReleaseStore, read_marker

SHORTEST_COMMIT = 7
ATTEMPTS = 3
"""Writes of one decision, if another operator's decision replaces it each time."""
APART_SECONDS = 1.0
"""Pause between two writes: a store's times have whole seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """A release that is known in the bucket, or is on this disk.

    Attributes:
        ref: Under which it was last wanted.
        good: Whether it is the last good one.
        proved: When it was last found good, and by whom; None if it never was.
        bad: Why, since when and by whom it does not run any more; None if it may.
        died: How many runs with it were cut off.
        image: Whether it is the image's of this machine.
        marker: Its marker; None if it is not on this disk.
    """

    commit: str
    ref: str
    good: bool
    proved: Fact | None
    bad: Fact | None
    pinned: bool
    died: int
    image: bool
    marker: Marker | None


def operators_memory(
    settings: Settings, by: str, log: Log, lasting: timedelta = timedelta(0)
) -> Memory:
    """Return what is known of the releases that a configuration follows, without a copy on this disk.

    `by` is who learns. After the time `lasting`, a trial that did not end has died.
    """
    now = datetime.now(UTC)
    writer = Writer(run_id(now, os.urandom(3)), by[:300], now + lasting)
    channel = channel_of(settings.release)
    return Memory(channel, writer, copy=None, now=lambda: datetime.now(UTC), log=log)


def overview(known: Known, release_store: ReleaseStore, version: str, now: datetime) -> list[Row]:
    """Return all known releases, the latest facts first, then those that only this disk has."""
    refs: dict[str, str] = {}
    proved: dict[str, Fact] = {}
    for fact in sorted(known.facts, key=lambda fact: (fact.at, fact.written), reverse=True):
        for part in (fact.good, fact.bad, fact.trial):
            if part is not None:
                refs.setdefault(part.commit, part.ref)
        if fact.good:
            proved.setdefault(fact.good.commit, fact)
    places = [place for place in release_store.releases.glob("*") if place.is_dir()]
    markers = {place.name: marker for place in places if (marker := read_marker(place))}
    for commit, marker in markers.items():
        refs.setdefault(commit, marker.ref)
    last = next(iter(known.good(version)), None)
    baked = release_store.image_commit
    return [
        Row(
            commit=commit,
            ref=ref,
            good=last is not None and last.commit == commit,
            proved=proved.get(commit),
            bad=next((one for one in known.bad if one.bad and one.bad.commit == commit), None),
            pinned=known.pin is not None and known.pin.commit == commit,
            died=known.cut_off(commit, now, ())[1],
            image=commit == baked,
            marker=markers.get(commit),
        )
        for commit, ref in refs.items()
    ]


def find(rows: Sequence[Row], name: str) -> Row | None:
    """Return the release of a tag, a branch, or the beginning of a commit; None if none is known by it."""
    by_ref = [row for row in rows if row.ref == name]
    if by_ref:
        return by_ref[0]
    if len(name) < SHORTEST_COMMIT:
        return None
    by_commit = [row for row in rows if row.commit.startswith(name)]
    return by_commit[0] if len(by_commit) == 1 else None


async def pin(memory: Memory, rows: Sequence[Row], name: str, reason: str) -> Pin:
    """Pin a release until it is unpinned; the next run looks for one that is not known.

    Raises:
        UsageError: Name or reason are no text that an entry may have.
        StoreError: It cannot be written.
    """
    row = find(rows, name)
    pinned = _decision(row.ref if row else name, row.commit if row else None, reason)
    await _decide(memory, {"pin": pinned}, lambda known: known.pin == pinned)
    return pinned


async def unpin(memory: Memory, reason: str) -> Pin | None:
    """Follow the newest release again; return what was pinned.

    Raises:
        UsageError: The reason is no text that an entry may have.
        StoreError: It cannot be written.
    """
    was = memory.known.pin
    if was is not None or memory.problems:
        await _decide(
            memory, {"pin": _decision(None, None, reason)}, lambda known: known.pin is None
        )
    return was


def _decision(ref: str | None, commit: str | None, reason: str) -> Pin:
    try:
        return Pin(ref=ref, commit=commit, reason=reason)
    except ValidationError as error:
        faults = (f"{each['loc'][0]}: {each['msg']}" for each in error.errors())
        raise UsageError("; ".join(faults), remedy="write less, and text in UTF-8") from error


async def rollback(
    memory: Memory, rows: Sequence[Row], to: str | None, *, version: str, reason: str
) -> tuple[Good, Good]:
    """Make an earlier good release the last good one, and have the present one not run again until a newer one comes.

    The minimum version is lowered to the release that runs now. `to` names it; None is the one before. `version` is
    this agent's.

    Returns:
        The release that was left, and the one that runs now.

    Raises:
        UsageError: There is none to leave, or none to go back to; or the reason is no text that an entry may have.
        StoreError: It cannot be written.
    """
    good = memory.known.good(version)
    if not good:
        raise UsageError("no release was found good yet, so there is none to go back from")
    left, target = good[0], _target(good, rows, to)
    unpinned = _decision(None, None, reason)
    because = f": {reason}" if reason else ""
    bad = Bad(
        commit=left.commit,
        ref=left.ref,
        reason=f"an operator went back from it{because}"[:500],
        agent=version,
        operator=True,
    )
    lowest = Version.model_validate({name: getattr(target, name) for name in Version.model_fields})
    parts = {"bad": bad, "good": target, "lowest": lowest, "pin": unpinned}
    await _decide(
        memory, parts, lambda known: left not in known.good(version) and known.pin is None
    )
    return left, target


def _target(good: Sequence[Good], rows: Sequence[Row], to: str | None) -> Good:
    if to is None:
        if len(good) == 1:
            raise UsageError("no earlier good release is known", remedy="mayfly release pin one")
        return good[1]
    row = find(rows, to)
    if row is None or row.commit == good[0].commit:
        names = [row.ref for row in rows if row.proved and row.commit != good[0].commit]
        raise UsageError(f'no other release "{to}" is known', remedy=suggest(to, names))
    if row.proved is None or row.proved.good is None:
        raise UsageError(f"{row.ref} was never found good", remedy=f"mayfly release pin {row.ref}")
    return row.proved.good


async def _decide(
    memory: Memory, parts: Mapping[str, object], holds: Callable[[Known], bool]
) -> None:
    """Write a decision, and write it again if another operator's decision came after it."""
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(APART_SECONDS)
        try:
            await memory.write(**parts)
        except StoreRefused as error:
            raise StoreRefused(
                f"these keys only read the bucket, so nothing was changed: {error}",
                remedy="use keys that may write below releases/, such as the machine's",
            ) from error
        await memory.refresh()
        if holds(memory.known):
            return
    raise StoreError("somebody else decides about releases too", remedy="mayfly release list")
