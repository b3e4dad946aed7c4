"""Reads earlier batches: which one a run goes on with, which a person means, what jobs produced and left as state.

Each search is bounded, in days and in requests: what is older counts as absent.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from agent.base.errors import StoreError
from agent.batch.catchup import Beginning, catch_up
from agent.batch.fold import State, fold
from agent.batch.follow import LOOK_BACK
from agent.batch.log import GETS_AT_ONCE, LogReader, Source
from agent.batch.named import CLOCKS, Search
from agent.contract.entries import MOST_BYTES, Entry, Object, Output, read_entry
from agent.contract.ids import Batch, Shard, run_started
from agent.contract.layout import (
    INDEX,
    STATE,
    EntryKey,
    PointerKey,
    StateKey,
    index_start,
    parse_key,
)

SPANS = (timedelta(hours=36), timedelta(days=8), timedelta(days=40))
"""How far back is searched, while something is missing: to the last run of a daily, a weekly, a monthly job."""
WINDOW = SPANS[-1]
MOST_POINTERS = 20_000
"""In one listing of the index: twenty LISTs."""
MOST_READ = 64
"""Entries that are read, and one more for each job that is searched for."""
NEWEST_BATCHES = 3
"""Batches that are read to find one to go on with: the newest may have only runs that stood back."""
MOST_CANDIDATES = 8
"""States of one job that are checked: all but the last are of runs that died before their commit."""
ONE_ANSWER = 1000

WITHOUT_RESULTS = frozenset({"stood_back", "began", "planned", "log"})


@dataclass(frozen=True, slots=True)
class Past:
    """What jobs produced in earlier batches.

    Attributes:
        outputs: Of each job's last successes, the newest last.
        cut: Whether the look ended before everything was found or read.
    """

    outputs: Mapping[str, tuple[Output, ...]]
    cut: bool = False


@dataclass(frozen=True, slots=True)
class JobState:
    """What a job left for its next run.

    Attributes:
        key: Where it is.
        object: What its entry says of it; None when that has expired.
    """

    key: StateKey
    object: Object | None


async def batch_to_go_on_with(bucket: Source, schedule: str, begins: Beginning) -> Batch | None:
    """Return the batch that a run goes on with that nobody scheduled; None when it is a batch by itself.

    Raises:
        StoreError: The bucket failed, or holds so much of that time that the newest was not seen.
    """
    since = begins.now - begins.window - LOOK_BACK
    seen = [key async for key in _pointers(bucket, since)]
    if len(seen) == MOST_POINTERS:
        raise StoreError(f"the index has more than {MOST_POINTERS} entries since {since:%H:%M}")
    found = [key for key in seen if key.entry.batch.schedule == schedule]
    stood_back = {key.entry.run for key in found if key.kind == "stood_back"}
    newest: dict[Batch, str] = {}
    for entry in (key.entry for key in found):
        if entry.batch.shard is None and entry.run not in stood_back:
            newest[entry.batch] = max(newest.get(entry.batch, ""), entry.run)
    batches = sorted(newest, key=lambda batch: newest[batch], reverse=True)[:NEWEST_BATCHES]
    states = [fold(batch, await LogReader(bucket, batch).look()) for batch in batches]
    state = catch_up(states, begins)
    return state.batch if state else None


async def find_run(bucket: Source, name: str, now: datetime, where: str) -> tuple[Batch, str]:
    """Return the batch and the id of the run that a person means; `where` is the bucket's name for people.

    Raises:
        UsageError: No pointer tells of it.
        StoreError: The index cannot be listed.
    """
    search = Search(name, now)
    if search.possible:
        async for item in bucket.list(INDEX, after=search.after):
            if search.add(item.key):
                break
    return search.found(where)


class History:
    """Reads what was before a run that began at `now`, in its batch's schedule; it asks for nothing twice."""

    def __init__(self, bucket: Source, batch: Batch, now: datetime) -> None:
        self._bucket = bucket
        self._batch = batch
        self._now = now
        self._batches: dict[str, Batch] = {}
        self._states: dict[Batch, State] = {}
        self._kept: list[StateKey] | None = None
        self._turn = asyncio.Lock()

    async def outputs(self, jobs: Collection[str]) -> Past:
        """Return what jobs produced when they last succeeded, from the newest entries that say so.

        Raises:
            StoreError: The bucket failed.
        """
        found: dict[str, tuple[Output, ...]] = {}
        read: set[EntryKey] = set()
        for span in SPANS:
            if set(jobs) <= set(found):
                break
            pointers = [key async for key in self._seen(self._now - span)]
            new = [entry for entry in self._with_results(pointers) if entry not in read]
            entries = new[: MOST_READ + len(jobs) - len(read)]
            start, at_once = 0, 1
            while start < len(entries) and not set(jobs) <= set(found):
                some = entries[start : start + at_once]
                for entry in await asyncio.gather(*map(self._read, some)):
                    _gather(entry, jobs, found)
                read.update(some)
                # The newest names all jobs of a small run.
                start, at_once = start + len(some), min(2 * at_once, GETS_AT_ONCE)
            if len(entries) < len(new) or len(pointers) == MOST_POINTERS:
                return Past(found, cut=not set(jobs) <= set(found))
        return Past(found)

    async def newest_state(self, job: str, *, checkpoints: bool = False) -> JobState | None:
        """Return the newest state of a job that was committed, and whose success counts.

        A state that no entry names is passed over: the files that it speaks of never arrived. With `checkpoints`, what
        an attempt left that did not succeed counts as well.

        Raises:
            StoreError: The bucket failed.
        """
        passed: set[StateKey] = set()
        async for keys in self._listed(job):
            wanted = [
                key for key in keys if key not in passed and (checkpoints or not key.checkpoint)
            ]
            for key in sorted(wanted, key=self._age, reverse=True)[:MOST_CANDIDATES]:
                passed.add(key)
                state = await self._committed(key)
                if state is not None:
                    return state
        return None

    def _age(self, key: StateKey) -> tuple[bool, str, bool]:
        """Return by what states are ordered: one that a wrong clock dated to come is used if there is no other."""
        return run_started(key.run) <= self._now + CLOCKS, key.run, not key.checkpoint

    async def _listed(self, job: str) -> AsyncIterator[list[StateKey]]:
        """Yield a job's states: one answer may hold those of all jobs; of years of them first the newest."""
        async with self._turn:
            if self._kept is None:
                self._kept = await self._keys(STATE, None, ONE_ANSWER)
        if len(self._kept) < ONE_ANSWER:
            yield [key for key in self._kept if key.job == job]
            return
        prefix = f"{STATE}{job}/"
        keys = await self._keys(prefix, None, ONE_ANSWER)
        if len(keys) == ONE_ANSWER:
            since = f"{prefix}{self._now - WINDOW:%Y%m%d}"
            yield await self._keys(prefix, since, MOST_POINTERS)
            keys = await self._keys(prefix, None, MOST_POINTERS)
        yield keys

    async def _keys(self, prefix: str, after: str | None, most: int) -> list[StateKey]:
        keys: list[StateKey] = []
        async for item in self._bucket.list(prefix, after=after):
            key = parse_key(item.key)
            if isinstance(key, StateKey):
                keys.append(key)
            if len(keys) == most:
                break
        return keys

    async def _committed(self, key: StateKey) -> JobState | None:
        async with self._turn:
            state = await self._state_of(key.run)
        if state is None or key.run not in state.runs:
            expired = run_started(key.run) < self._now - WINDOW and not key.checkpoint
            return JobState(key, None) if expired else None
        counts = state.successes.get(key.job)
        result = state.runs[key.run].results.get(key.job) if key.checkpoint else counts
        if key.checkpoint and counts is not None:
            return None  # the job was done after all
        left = result.job.state if result and result.run == key.run else None
        return JobState(key, left) if left and left.key == key.text else None

    async def _state_of(self, run: str) -> State | None:
        """Return what is known of the batch of a run; its first pointer was put when it began."""
        if run not in self._batches:
            async for key in self._seen(run_started(run) - LOOK_BACK):
                if key.entry.run == run:
                    break
        batch = self._batches.get(run)
        if batch is not None and batch not in self._states:
            self._states[batch] = fold(batch, await LogReader(self._bucket, batch).look())
        return self._states[batch] if batch is not None else None

    async def _seen(self, since: datetime) -> AsyncIterator[PointerKey]:
        async for key in _pointers(self._bucket, since):
            self._batches[key.entry.run] = key.entry.batch
            yield key

    def _with_results(self, pointers: list[PointerKey]) -> list[EntryKey]:
        """Return the entries of the schedule that may have results, the newest first; of a shard, its own before."""
        own = self._batch.shard
        wanted = [
            key
            for key in pointers
            if key.entry.batch.schedule == self._batch.schedule and key.kind not in WITHOUT_RESULTS
        ]
        wanted.sort(
            key=lambda key: (_same_part(key.entry.batch.shard, own), key.time), reverse=True
        )
        return list(dict.fromkeys(key.entry for key in wanted))

    async def _read(self, key: EntryKey) -> Entry | None:
        content = await self._bucket.get(key.text, limit=MOST_BYTES)
        entry = read_entry(key, content) if content is not None else None
        return entry if isinstance(entry, Entry) else None


def _same_part(shard: Shard | None, own: Shard | None) -> bool:
    return shard == own if shard is None or own is None else shard[1:] == own[1:]


def _gather(
    entry: Entry | None, jobs: Collection[str], found: dict[str, tuple[Output, ...]]
) -> None:
    for job in entry.jobs if entry else ():
        if job.name in jobs and job.outputs:
            found.setdefault(job.name, job.outputs)


async def _pointers(bucket: Source, since: datetime) -> AsyncIterator[PointerKey]:
    """Yield the pointers since a moment, in the store's order; a folder has none."""
    count = 0
    async for item in bucket.list(INDEX, after=index_start(since)):
        key = parse_key(item.key)
        if isinstance(key, PointerKey):
            yield key
        count += 1
        if count == MOST_POINTERS:
            break
