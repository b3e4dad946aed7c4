"""The story of a pull: look, fetch, verify, place, tell the hook, remove what is old."""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from agent.core.layout import IndexKey, manifest_key
from agent.core.manifest import IndexEntry, Manifest

from agent.base.errors import StoreError
from consumer.bucket import ReadOnlyBucket, TooLargeError
from consumer.history import READS_AT_ONCE, Committed, Unreadable, commit_of, index_keys, read_entry
from consumer.pull import hooks, plan
from consumer.pull.fetch import fetch_job
from consumer.pull.hooks import Hook
from consumer.pull.names import held_by, names_at_home
from consumer.pull.place import LOCK_SECONDS, Destination, PlaceError
from consumer.pull.plan import JobFiles, Part, Wishes
from consumer.pull.report import (
    Delayed,
    Event,
    Hooked,
    Note,
    Placed,
    Refused,
    Removed,
    Report,
    Watcher,
)
from consumer.pull.state import Owed, Refusal

ENTRIES_AHEAD = 64
"""Index entries that are read before the first of their runs is fetched."""
FAILURES = 2
"""Runs in a row that the bucket fails before it counts as unreachable: one may have an object that is not for us."""


Entry = Committed | Unreadable | StoreError | None
"""What an index key holds; None when nobody asked."""


async def pull_once(
    bucket: ReadOnlyBucket,
    dest: Destination,
    wishes: Wishes,
    watcher: Watcher,
    *,
    hook: Hook | None = None,
    lock_seconds: float = LOCK_SECONDS,
    remind: bool = True,
) -> Report:
    """Bring a folder up to date with a bucket.

    Args:
        bucket: Where runs come from.
        dest: Where they go.
        wishes: Which, and which stay.
        watcher: Is told of all that happens.
        hook: Is called for each job of each run.
        lock_seconds: How long to wait for another pull that works on the folder.
        remind: Whether to tell again of what was refused earlier.

    Raises:
        UsageError: Another pull holds the folder.
        PlaceError: The folder cannot be used.
    """

    def waiting(holder: str) -> None:
        text = f"another pull (process {holder}) works on {dest.path}; waiting {lock_seconds:g} s"
        watcher.told(Note(text))

    async with dest.locked(lock_seconds, waiting):
        return await _Session(bucket, dest, wishes, watcher, hook).pull(remind=remind)


class _UnreachableError(Exception):
    """The bucket failed more often than it is worth to go on."""


class _RefusedError(Exception):
    """A run is not what it says it is."""

    def __init__(self, problems: list[str], *, needed: int | None = None) -> None:
        super().__init__(*problems)
        self.problems = problems
        self.needed = needed


class _Session:
    def __init__(
        self,
        bucket: ReadOnlyBucket,
        dest: Destination,
        wishes: Wishes,
        watcher: Watcher,
        hook: Hook | None,
    ) -> None:
        self._bucket = bucket
        self._dest = dest
        self._wishes = wishes
        self._watcher = watcher
        self._hook = hook
        self._events: list[Event] = []
        self._called: set[tuple[str, str]] = set()
        self._parts: dict[IndexKey, Part] = {}
        self._failures = 0
        self._after: str | None = None
        self._now = datetime.now(UTC)
        self._state, problem = dest.load()
        self._stored = self._state
        if problem:
            self._tell(Note(problem, fault=True))
        self._name = plan.selection_name(wishes)
        self._before = self._state.selections.get(self._name)
        self._selection = plan.continued(self._before, wishes.since, whole=not bucket.checks_clocks)
        self._anew = not self._selection.cursor
        self._refused_before = tuple(one for one in self._state.refused if wishes.wants(one.job))

    async def pull(self, *, remind: bool) -> Report:
        """Do it."""
        unreachable = ""
        await self._call_hooks()
        try:
            keys = await self._keys()
            self._sweep(keys)
            known = frozenset(self._selection.waiting)
            await self._deal_with_all(keys)
            await self._deal_with_groups(known)
            self._forget_gone()
        except (StoreError, _UnreachableError) as error:
            unreachable = str(error)
        self._tidy()
        if remind:
            self._tell_again()
        self._save()
        return Report(tuple(self._events), unreachable)

    # What there is to do.

    async def _keys(self) -> list[IndexKey]:
        """Return the index keys to look at, oldest first, with one LIST."""
        again = [one for one in self._refused_before if self._is_tried_again(one)]
        self._after = plan.list_after(self._selection)
        listed = await index_keys(self._bucket, self._after)
        self._state = self._state.without_refusals(again)
        self._selection = plan.waiting_for(self._selection, (one.key for one in again))
        return plan.to_look_at(listed, self._selection)

    def _is_tried_again(self, refusal: Refusal) -> bool:
        fits_now = refusal.needed is not None and refusal.needed <= self._wishes.max_bytes
        return self._wishes.again or fits_now

    async def _deal_with_all(self, keys: Sequence[IndexKey]) -> None:
        for first in range(0, len(keys), ENTRIES_AHEAD):
            for key, row in await self._read(keys[first : first + ENTRIES_AHEAD]):
                await self._deal_with(key, row)

    async def _deal_with_groups(self, known: Collection[str]) -> None:
        """Fetch the groups that are complete now; the entries of their runs are read once more."""
        self._selection = plan.with_complete(self._selection, self._parts.values())
        self._save()
        held = plan.held(self._parts, self._selection)
        await self._deal_with_all([key for key in self._parts if key not in held])
        for key in plan.waited_enough(held, self._now):
            self._refuse(key, None, [plan.NEVER_COMPLETE])
            self._selection = plan.settled(self._selection, [key], self._now)
        for line in plan.waiting_lines(held, known):
            self._tell(Note(line))

    def _holds(self, key: IndexKey, row: Entry) -> bool:
        """Tell whether a run has to wait for its group; then it is remembered as one of it."""
        if not self._wishes.complete_groups or not isinstance(row, Committed):
            return False
        shard, problems = plan.held_as(key, row.entry, self._selection)
        if problems:
            raise _RefusedError(problems)
        if shard is not None:
            self._parts[key] = (shard, row.entry.status)
        return shard is not None

    async def _read(self, keys: Sequence[IndexKey]) -> list[tuple[IndexKey, Entry]]:
        gate = asyncio.Semaphore(READS_AT_ONCE)

        async def read(key: IndexKey) -> tuple[IndexKey, Entry]:
            if self._is_too_early(key) and not self._wishes.complete_groups:
                return key, None
            async with gate:
                try:
                    return key, await read_entry(self._bucket, key)
                except StoreError as error:
                    return key, error

        return await asyncio.gather(*(read(key) for key in keys))

    def _is_too_early(self, key: IndexKey) -> bool:
        return plan.too_early(key, self._wishes.since)

    # One run.

    async def _deal_with(self, key: IndexKey, row: Entry) -> None:
        """Fetch a run, or say why not; other runs do not suffer from it."""
        try:
            if self._holds(key, row):
                self._selection = plan.deferred(self._selection, key, self._now)
                return
            if row is None or self._is_too_early(key):
                self._selection = plan.passed_over(self._selection, self._wishes.since)
            else:
                await self._take(key, row)
            self._failures = 0
        except _RefusedError as refusal:
            self._refuse(key, None, refusal.problems, needed=refusal.needed)
        except (StoreError, PlaceError) as error:
            self._selection = plan.deferred(self._selection, key, self._now)
            store = isinstance(error, StoreError)
            self._tell(Delayed(key.run, str(error), store))
            self._failures += store
            if self._failures >= FAILURES:
                raise _UnreachableError(str(error)) from error
            return
        self._selection = plan.settled(self._selection, [key], self._now)

    async def _take(self, key: IndexKey, row: Committed | Unreadable | StoreError) -> None:
        if problem := plan.date_problem(key):
            raise _RefusedError([problem])
        if isinstance(row, StoreError):
            raise row
        if plan.may_be_second(key, self._after):
            first = await commit_of(self._bucket, key.run)
            if first is not None and first.key < key.key:
                return
        if isinstance(row, Unreadable):
            raise _RefusedError([f"its index entry is unreadable: {row.problem}"])
        if problems := plan.entry_problems(row.entry):
            raise _RefusedError(problems)
        wanted = plan.wanted_jobs(row.entry, self._wishes)
        if not all(self._is_done(job.name, key.run) for job in wanted):
            manifest = await self._manifest(key.run, row.entry)
            await self._take_jobs(key, plan.jobs_of(manifest, self._wishes))

    def _is_done(self, job: str, run: str) -> bool:
        """Tell whether a job of a run is in place; or was, as far as can be told when all is looked at anew."""
        return self._dest.has(job, run) or (
            self._anew and plan.would_go(run, self._dest.runs(job), self._wishes.keep, self._now)
        )

    async def _manifest(self, run: str, entry: IndexEntry) -> Manifest:
        try:
            text = await self._bucket.get(manifest_key(run), limit=entry.manifest.bytes)
        except TooLargeError as error:
            raise _RefusedError(["its manifest is larger than the index entry says"]) from error
        if text is None:
            raise _RefusedError(["its manifest is not in the bucket"])
        manifest, problems = await asyncio.to_thread(plan.read_manifest, text, entry)
        if manifest is None:
            raise _RefusedError(problems)
        return manifest

    async def _take_jobs(self, key: IndexKey, jobs: list[JobFiles]) -> None:
        jobs = [job for job in jobs if not self._is_done(job.name, key.run)]
        size = sum(job.bytes for job in jobs)
        if size > self._wishes.max_bytes:
            problem = f"it declares {size} bytes, more than the {self._wishes.max_bytes} allowed"
            raise _RefusedError([problem], needed=size)
        if not self._dest.room_for(size):
            raise PlaceError(f"{size} bytes, and no room for them in {self._dest.path}")
        self._watcher.expects(key.run, sum(len(job.files) for job in jobs), size)
        for wanted in jobs:
            job = self._named(key.run, wanted)
            pairs = plan.alike(job)
            meeting = await asyncio.to_thread(self._dest.meeting, pairs) if pairs else []
            problems = plan.collisions(meeting) or await fetch_job(
                self._bucket, self._dest, key.run, job, self._watcher.received
            )
            if problems:
                self._refuse(key, job.name, problems)
            else:
                self._place(key.run, job)
                await self._call_hooks()
                self._prune(job.name)
        self._dest.finish(key.run)

    def _named(self, run: str, job: JobFiles) -> JobFiles:
        """Give files their own names again, where the folder's disk can hold them."""
        if all(file.original is None for file in job.files):
            return job
        with self._dest.staging(run, job.name) as folder:
            return replace(job, names=names_at_home(job, held_by(folder)))

    def _place(self, run: str, job: JobFiles) -> None:
        """Make a job of a run visible. What it brings with it is remembered before, so that a kill loses nothing."""
        size = job.bytes
        owed = Owed(
            run=run,
            job=job.name,
            status=job.status.value,
            files=len(job.files),
            bytes=size,
            partial=job.partial,
        )
        if self._hook is not None:
            self._state = self._state.owing(owed)
        if job.partial:
            self._state = self._state.with_partial(run, job.name)
        self._save()
        self._dest.publish(run, job.name)
        self._point(job.name)
        path = str(self._dest.folder_of(job.name, run))
        self._tell(Placed(run, job.name, path, len(job.files), size, job.status.value, job.partial))

    def _refuse(
        self, key: IndexKey, job: str | None, problems: list[str], *, needed: int | None = None
    ) -> None:
        refusal = Refusal(
            key=key.key, run=key.run, job=job, problems=tuple(problems), needed=needed
        )
        self._state = self._state.with_refusals([refusal])
        self._tell(Refused(key.run, job, refusal.problems))

    # What follows from it.

    async def _call_hooks(self) -> None:
        """Call the hook for all that is owed, in place, and was not tried in this pull."""
        for hook, owed in self._due():
            try:
                if not self._dest.has(owed.job, owed.run):
                    continue
                self._called.add((owed.run, owed.job))
                folder = self._dest.folder_of(owed.job, owed.run)
                problem = await hooks.call(hook, owed, folder)
                if not problem:
                    self._state = self._state.paid(owed.run, owed.job)
                    self._save()
            except PlaceError as error:
                problem = str(error)
            self._tell(Hooked(owed.run, owed.job, problem))

    def _due(self) -> list[tuple[Hook, Owed]]:
        hook = self._hook
        return [
            (hook, owed)
            for owed in self._state.owed
            if hook is not None
            and self._wishes.wants(owed.job)
            and (owed.run, owed.job) not in self._called
        ]

    def _forget_gone(self) -> None:
        """Drop the hooks of runs that a person has removed meanwhile: there is nothing to call them with."""
        waiting = " ".join(self._selection.waiting)
        for owed in self._state.owed:
            if self._wishes.wants(owed.job) and owed.run not in waiting:
                try:
                    gone = not self._dest.has(owed.job, owed.run)
                except PlaceError:
                    continue  # told where it is in the way
                if gone:
                    self._state = self._state.paid(owed.run, owed.job)
                    self._tell(Note(f"{owed.run} {owed.job}: removed before its hook succeeded"))

    def _sweep(self, keys: Iterable[IndexKey]) -> None:
        try:
            self._dest.sweep(frozenset(key.run for key in keys))
        except PlaceError as error:
            self._tell(Note(str(error), fault=True))

    def _tidy(self) -> None:
        """Let each `latest` lead to the latest, also after a pull that was killed, and remove what is old."""
        for job in self._dest.jobs():
            if self._wishes.wants(job):
                try:
                    self._point(job)
                    self._prune(job)
                except PlaceError as error:
                    self._tell(Note(str(error), fault=True))

    def _point(self, job: str) -> None:
        partial = {item.run for item in self._state.partial if item.job == job}
        run = plan.latest_of(self._dest.runs(job), partial, self._now)
        if run is not None and self._dest.latest(job) != run:
            self._dest.point(job, run)

    def _prune(self, job: str) -> None:
        if self._wishes.keep is None:
            return
        owed = {one.run for one in self._state.owed if one.job == job}
        protected = owed | {self._dest.latest(job) or ""}
        gone = plan.to_remove(self._dest.runs(job), self._wishes.keep, protected, self._now)
        for run in gone:
            self._dest.remove(job, run)
            self._tell(Removed(run, job))
        self._state = self._state.without(job, gone)

    def _tell_again(self) -> None:
        new = {(one.run, one.job) for one in self._events if isinstance(one, Refused)}
        for one in self._refused_before:
            if one in self._state.refused and (one.run, one.job) not in new:
                self._tell(Refused(one.run, one.job, one.problems, again=True))

    # What is remembered.

    def _save(self) -> None:
        if self._selection != self._before:
            self._state = self._state.with_selection(self._name, self._selection)
            self._before = self._selection
        if self._state != self._stored:
            self._dest.save(self._state)
            self._stored = self._state

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._watcher.told(event)
