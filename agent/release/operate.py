"""What an operator does about releases: look, pin one, go back to one. The caller holds the lock of the state."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import UsageError
from agent.config.faults import suggest
from agent.release.record import Remembered
from agent.release.shelf import (
    Marker,
    Shelf,
    good_commit,
    linked_commit,
    point_good,
    read_marker,
)
from agent.release.trial import Bad, Memory, Pin
from agent.release.trust import Floor

SHORTEST_COMMIT = 7


@dataclass(frozen=True, slots=True)
class Row:
    """A release that is on disk, or that was found bad.

    Attributes:
        commit: Its commit.
        ref: Under which it was last wanted.
        marker: What is on disk of it; None when nothing is.
        good: Whether it is the last good one.
        baked: Whether it came with the machine's image.
        pinned: Whether an operator wants it and no other.
        on_trial: Whether a run with it was cut off before its trial ended.
        bad: Why it does not run any more; None when it may.
    """

    commit: str
    ref: str
    marker: Marker | None
    good: bool
    baked: bool
    pinned: bool
    on_trial: bool
    bad: Bad | None


def overview(shelf: Shelf) -> tuple[list[Row], Memory]:
    """Return all releases that are known, the newest on disk first, and what is remembered."""
    memory = Remembered.read(shelf.record).memory
    places = [place for place in shelf.releases.glob("*") if place.is_dir()]
    markers = {place.name: marker for place in places if (marker := read_marker(place))}
    commits = sorted(markers, key=lambda commit: markers[commit].fetched, reverse=True)
    commits += [commit for commit in memory.bad if commit not in markers]
    return [_row(shelf, memory, commit, markers.get(commit)) for commit in commits], memory


def _row(shelf: Shelf, memory: Memory, commit: str, marker: Marker | None) -> Row:
    bad = memory.bad.get(commit)
    pin = memory.pin
    return Row(
        commit=commit,
        ref=marker.ref if marker else bad.ref if bad else "",
        marker=marker,
        good=commit == good_commit(shelf),
        baked=commit == linked_commit(shelf.baked),
        pinned=pin is not None and pin.commit == commit,
        on_trial=memory.trial is not None and memory.trial.commit == commit,
        bad=bad,
    )


def find(rows: Sequence[Row], name: str) -> Row | None:
    """Return the release of a tag, a branch, or the beginning of a commit; None when none is known by it."""
    by_ref = [row for row in rows if row.ref == name]
    if by_ref:
        return by_ref[0]
    if len(name) < SHORTEST_COMMIT:
        return None
    by_commit = [row for row in rows if row.commit.startswith(name)]
    return by_commit[0] if len(by_commit) == 1 else None


def pin(shelf: Shelf, name: str, now: datetime) -> Pin:
    """Have one release run and no other, until it is unpinned; one that is not on disk is fetched by the next run.

    Raises:
        UsageError: A commit was named that is not on disk.
        ReleaseError: The disk does not take it.
    """
    rows, memory = overview(shelf)
    row = find(rows, name)
    pinned = Pin(ref=row.ref if row else name, commit=row.commit if row else None, since=now)
    record = Remembered.read(shelf.record)
    bad = {commit: mark for commit, mark in memory.bad.items() if commit != pinned.commit}
    record.keep(record.memory.model_copy(update={"pin": pinned, "bad": bad, "lost": None}))
    return pinned


def unpin(shelf: Shelf) -> Pin | None:
    """Have the newest release run again; return what was pinned.

    Raises:
        ReleaseError: The disk does not take it.
    """
    record = Remembered.read(shelf.record)
    was = record.memory.pin
    record.keep(record.memory.model_copy(update={"pin": None, "lost": None}))
    return was


def rollback(shelf: Shelf, to: str | None, *, version: str, now: datetime) -> tuple[Row, Row]:
    """Make an earlier good release the good one, and have the present one not run again until a newer one comes.

    This is the way down: the floor under the versions is lowered to what runs now.

    Args:
        shelf: Where releases are.
        to: Which one; None for the one before.
        version: This agent's version.
        now: The time (aware).

    Returns:
        The release that was left, and the one that runs now.

    Raises:
        UsageError: There is none to leave, or none to go back to.
        ReleaseError: The disk does not take it.
    """
    rows, _ = overview(shelf)
    left = next((row for row in rows if row.good), None)
    if left is None:
        raise UsageError("no release was found good here yet, so there is none to go back from")
    target = _target(rows, shelf, left, to)
    if target.marker is None:
        raise UsageError(f"{target.ref} is not on disk any more", remedy="mayfly release pin it")
    record = Remembered.read(shelf.record)
    bad = Bad(
        ref=left.ref,
        reason="an operator went back from it",
        since=now,
        agent=version,
        by="operator",
    )
    memory = record.memory.with_bad(left.commit, bad).with_good(target.commit)
    floor = Floor(ref=target.ref, commit=target.commit, time=target.marker.time)
    floors = {**memory.floors, target.marker.line: floor}
    # First the mark: killed between the two, the release that was left stays the last good one, and nothing is lost.
    changes = {"floors": floors, "pin": None, "passed": None, "lost": None}
    record.keep(memory.model_copy(update=changes))
    point_good(shelf, shelf.root(target.commit), target.ref)
    return left, target


def _target(rows: Sequence[Row], shelf: Shelf, left: Row, to: str | None) -> Row:
    if to is not None:
        found = find(rows, to)
        if found is None or found.commit == left.commit:
            known = [row.ref for row in rows if row.marker and row.commit != left.commit]
            raise UsageError(f'no other release "{to}" is on disk', remedy=suggest(to, known))
        return found
    memory = Remembered.read(shelf.record).memory
    there = {row.commit: row for row in rows if row.marker is not None}
    for commit in memory.previous_good(left.commit):
        if commit in there:
            return there[commit]
    baked = next((row for row in rows if row.baked and row.commit != left.commit), None)
    if baked is None:
        raise UsageError("no earlier good release is on disk", remedy="mayfly release list")
    return baked
