"""What the bucket says of recent runs. Whatever stands in it was written by others: garbage becomes a value."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeGuard

from agent.core.ids import commit_stamp, is_run_id, run_id, run_started
from agent.core.layout import (
    INDEX,
    STARTED,
    IndexKey,
    manifest_key,
    parse_index_key,
    started_key,
)
from agent.core.manifest import IndexEntry, StartedMarker
from pydantic import ValidationError

from consumer.bucket import ReadOnlyBucket, TooLargeError

MAX_ENTRY_BYTES = 8 * 1024**2
"""About 10,000 jobs with messages of full length."""
MAX_MARKER_BYTES = 64 * 1024
READS_AT_ONCE = 8

GONE = "it is gone"
"""The problem of an object that was listed and is not there."""

MOST = 2**63
"""Counts and sizes at or above this are not of this world: S3 holds no such object."""
CLOCKS = timedelta(days=1)
"""How far ahead of ours the clock of a machine may be."""
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
"""Times outside are forged or broken; they also break conversions to local time."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A run with a sound index entry."""

    key: IndexKey
    entry: IndexEntry

    @property
    def run(self) -> str:
        """Its id."""
        return self.key.run


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An index entry or a started marker that says nothing credible.

    Attributes:
        key: Where it is.
        run: The run that its key names.
        problem: What is wrong with it.
    """

    key: str
    run: str
    problem: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that began and is not committed.

    Attributes:
        marker: What it said when it began.
        vanished: It is past its deadline: it died, or its machine did. Otherwise it is under way.
    """

    marker: StartedMarker
    vanished: bool

    @property
    def run(self) -> str:
        """Its id."""
        return self.marker.run_id


class GarbageError(Exception):
    """What an object holds is nothing that an agent wrote."""


Row = Committed | Unreadable | Begun


async def index_keys(bucket: ReadOnlyBucket, after: str | None = None) -> list[IndexKey]:
    """Return the commit of each run whose key sorts after `after`, oldest first.

    A run that committed under two keys counts by the older: a second commit is a no-op. Keys of another form are no
    index entries.

    Raises:
        StoreError: The bucket cannot be listed.
    """
    found = [parse_index_key(info.key) async for info in bucket.list(INDEX, after=after)]
    first: dict[str, IndexKey] = {}
    for key in sorted((key for key in found if key), key=lambda key: key.key):
        first.setdefault(key.run, key)
    return list(first.values())


async def read_entry(bucket: ReadOnlyBucket, key: IndexKey) -> Committed | Unreadable:
    """Return what an index key holds.

    Raises:
        StoreError: The bucket cannot be read.
    """
    try:
        entry = IndexEntry.model_validate_json(await _read(bucket, key.key, MAX_ENTRY_BYTES))
    except (ValidationError, GarbageError) as error:
        return Unreadable(key.key, key.run, reason(error))
    problem = entry_problem(entry, key.run)
    return Unreadable(key.key, key.run, problem) if problem else Committed(key, entry)


def entry_problem(entry: IndexEntry, run: str) -> str | None:
    """Return why an index entry cannot be what the run's agent wrote, or None when it can."""
    jobs = entry.jobs
    whole = [entry.files, entry.bytes, entry.manifest.bytes]
    whole += [
        number
        for job in jobs
        for number in (job.files, job.bytes, job.items or 0, job.refused_files)
    ]
    rules = (
        (entry.run_id != run, "it is about another run"),
        (entry.manifest.key != manifest_key(run), "its manifest is not the run's"),
        (not _plausible(entry.started, entry.finished), "its times are impossible"),
        (not all(0 <= number < MOST for number in whole), "its numbers are impossible"),
        (not all(0 <= job.seconds < MOST for job in jobs), "its durations are impossible"),
        (len({job.name for job in jobs}) != len(jobs), "it lists a job twice"),
    )
    return next((problem for broken, problem in rules if broken), None)


def marker_problem(marker: StartedMarker, run: str) -> str | None:
    """Return why a started marker cannot be what the run's agent wrote, or None when it can."""
    if marker.run_id != run:
        return "it is about another run"
    if not _plausible(marker.started, marker.deadline):
        return "its times are impossible"
    return None


def _plausible(first: datetime, second: datetime) -> bool:
    if first.tzinfo is None or second.tzinfo is None:
        return False
    # An hour for clocks that were set while the run went on.
    return EARLIEST < first < LATEST and EARLIEST < second < LATEST


async def recent(bucket: ReadOnlyBucket, *, now: datetime, limit: int) -> list[Row]:
    """Return the `limit` newest runs by their start, newest first: committed, under way, vanished and unreadable.

    Raises:
        StoreError: The bucket cannot be read.
    """
    # In this order: a run that commits between the two looks is then seen as committed.
    begun = await _begun(bucket)
    commits = {key.run: key for key in await index_keys(bucket)}
    newest = sorted(commits.keys() | begun, reverse=True)[:limit]
    gate = asyncio.Semaphore(READS_AT_ONCE)

    async def row(run: str) -> Row:
        async with gate:
            if run in commits:
                return await read_entry(bucket, commits[run])
            return await read_marker(bucket, run, now)

    rows = await asyncio.gather(*(row(run) for run in newest))
    # A marker that was taken back since the listing: its run stood back, and is none.
    return [row for row in rows if not (_is_marker(row) and row.problem == GONE)]


def _is_marker(row: Row) -> TypeGuard[Unreadable]:
    return isinstance(row, Unreadable) and row.key.startswith(STARTED)


async def latest(bucket: ReadOnlyBucket, now: datetime) -> IndexKey | None:
    """Return the commit of the run that began last; None when nothing was ever committed.

    Raises:
        StoreError: The bucket cannot be listed.
    """
    keys = await index_keys(bucket)
    return max(keys, key=lambda key: by_start(key.run, now), default=None)


def by_start(run: str, now: datetime) -> tuple[bool, str]:
    """Return the place of a run by its start; one that a wrong clock dated to come is before all others."""
    return run <= run_id(now + CLOCKS, b"\xff\xff\xff"), run


async def commit_of(bucket: ReadOnlyBucket, run: str) -> IndexKey | None:
    """Return a run's commit, or None. Only the part of the index that may hold it is listed.

    Args:
        bucket: The bucket.
        run: A run id.

    Raises:
        StoreError: The bucket cannot be listed.
    """
    try:
        # A commit is later than the run's start, but for a clock that was set back meanwhile.
        after = f"{INDEX}{commit_stamp(run_started(run) - timedelta(days=1))}"
    except (ValueError, OverflowError):  # the form of a run id, and no date
        return None
    keys = await index_keys(bucket, after)
    return next((key for key in keys if key.run == run), None)


async def _begun(bucket: ReadOnlyBucket) -> set[str]:
    runs = set()
    async for info in bucket.list(STARTED):
        name = info.key.removeprefix(STARTED).removesuffix(".json")
        if is_run_id(name) and info.key == started_key(name):
            runs.add(name)
    return runs


async def read_marker(bucket: ReadOnlyBucket, run: str, now: datetime) -> Begun | Unreadable:
    """Return what the started marker of a run says.

    Raises:
        StoreError: The bucket cannot be read.
    """
    key = started_key(run)
    try:
        marker = StartedMarker.model_validate_json(await _read(bucket, key, MAX_MARKER_BYTES))
    except (ValidationError, GarbageError) as error:
        return Unreadable(key, run, reason(error))
    problem = marker_problem(marker, run)
    if problem:
        return Unreadable(key, run, problem)
    return Begun(marker, vanished=marker.deadline < now)


async def _read(bucket: ReadOnlyBucket, key: str, limit: int) -> bytes:
    try:
        content = await bucket.get(key, limit=limit)
    except TooLargeError as error:
        raise GarbageError("it is too large") from error
    if content is None:
        raise GarbageError(GONE)
    return content


def reason(error: ValidationError | GarbageError) -> str:
    """Return why something cannot be read, on one line."""
    if isinstance(error, GarbageError):
        return str(error)
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else first["msg"]
