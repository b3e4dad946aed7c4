"""The story of a pull: what is wanted and not there is fetched, verified, installed and told to the hook."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from agent.base.errors import StoreError, UsageError
from agent.batch.named import run_named
from agent.contract.entries import Invalid
from agent.contract.ids import Batch as Id
from agent.contract.layout import DESCRIPTOR, JobKey, run_prefix
from agent.contract.package import Package
from consumer.bucket import ReadOnlyBucket, TooLargeError
from consumer.diff import Side, changes_of, compare, package_in
from consumer.entries import disagreements, read_package
from consumer.groups import Group, Outcome, groups_of
from consumer.groups import State as Standing
from consumer.judge import Rules, judge
from consumer.model import Batch, History, history_of
from consumer.pull import hooks, plan
from consumer.pull.fetch import all_ended, fetch_job
from consumer.pull.folder import LOCK_SECONDS, Destination, FolderError
from consumer.pull.hooks import Hook
from consumer.pull.plan import Item, Key, Rejection, Result, Wish
from consumer.pull.report import (
    LEFTOVERS,
    Delayed,
    Event,
    Failed,
    Hooked,
    Installed,
    Note,
    Rejected,
    Removed,
    Report,
    Watcher,
)
from consumer.pull.state import NAME, State
from consumer.store import Store

PACKAGES_AHEAD = 32
"""Packages that are read before the first of their jobs is fetched."""
PACKAGES_BYTES = 16 * 1024**2
"""Of these together, unless one alone has more."""
FAILURES = 2
"""Jobs in a row that the bucket fails before it counts as unreachable: one may have an object that is not for us."""
MOST_PROBLEMS = 20
"""Of a rejected job: the first few tell it all."""
MOST_NAMES = 20
"""Of jobs that a person may have meant."""


class UnknownError(UsageError):
    """A job or a run is wanted that nobody knows."""


async def pull(
    bucket: ReadOnlyBucket,
    store: Store,
    destination: Destination,
    wish: Wish,
    watcher: Watcher,
    *,
    hook: Hook | None = None,
    batches: Collection[Id] | None = None,
    untidy: Collection[str] = (),
    unread: Mapping[Id, str] | None = None,
    lock_seconds: float = LOCK_SECONDS,
    stopped: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Bring a folder up to date with what is known of a bucket; the caller polls.

    Args:
        bucket: Where files come from.
        store: What is known of the bucket.
        destination: Where they go.
        wish: What is wanted.
        watcher: Is told of all that happens.
        hook: Is called for each job of each run.
        batches: Those to look at: of the last poll, and what the last report says that waits. None looks at all,
            and tells again what was told before.
        untidy: What the last report says of that.
        unread: Batches about which the bucket did not say everything, with the reason.
        lock_seconds: How long to wait for another pull that works on the folder.
        stopped: Is told what came of a pull that is cancelled.

    Raises:
        UnknownError: A job or a run is wanted that nobody knows (only when all is looked at).
        UsageError: Another pull holds the folder.
        FolderError: The folder cannot be used.
        HistoryError: The store cannot be used.
    """

    def waiting(holder: str) -> None:
        text = f"another pull (process {holder}) works on {destination.path}; waiting {lock_seconds:g} s"
        watcher.told(Note(text))

    events: list[Event] = []
    try:
        async with destination.locked(lock_seconds, waiting):
            with State.open(destination.own_file(NAME)) as (state, problem):
                now = datetime.now(UTC)
                session = _Session(
                    bucket, store, destination, state, wish, watcher, hook, now, events
                )
                if problem:
                    session.tell(Note(problem, fault=True, folder=True))
                return await session.pull(batches, untidy, unread or {})
    except asyncio.CancelledError:
        stopped(Report(tuple(events), stopped=True))
        raise


class _RejectedError(Exception):
    """A job is not what it says it is."""

    def __init__(self, problems: Sequence[str], *, needed: int | None = None) -> None:
        super().__init__(*problems)
        self.problems = tuple(problem[:500] for problem in problems[:MOST_PROBLEMS])
        if len(problems) > MOST_PROBLEMS:
            self.problems += (f"and {len(problems) - MOST_PROBLEMS} more",)
        self.needed = needed


class _StopError(Exception):
    """Nothing more can be fetched: the bucket failed too often, or the folder takes nothing any more."""

    def __init__(self, reason: str, *, bucket: bool) -> None:
        super().__init__(reason)
        self.bucket = bucket


@dataclass
class _Session:
    bucket: ReadOnlyBucket
    store: Store
    destination: Destination
    state: State
    wish: Wish
    watcher: Watcher
    hook: Hook | None
    now: datetime
    events: list[Event]
    pending: list[Result] = field(default_factory=list)
    refused: set[Id] = field(default_factory=set)
    called: set[Key] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    untidy: set[str] = field(default_factory=set)
    newest: dict[tuple[str, str], str] = field(default_factory=dict)
    failures: int = 0

    def tell(self, event: Event) -> None:
        """Report something."""
        self.events.append(event)
        self.watcher.told(event)

    async def pull(
        self, news: Collection[Id] | None, untidy: Collection[str], unread: Mapping[Id, str]
    ) -> Report:
        """Do it."""
        self._settle()
        history = await asyncio.to_thread(self._load, news)
        if news is None:
            self._check_names(history)
            self._name_runs(history)
        for item in self.state.owed():
            await self._call_hook(item)
        batches = await asyncio.to_thread(self._whole_groups, history.batches)
        todo = await asyncio.to_thread(self._todo, batches, whole=news is None)
        if news is None or LEFTOVERS in untidy:
            runs = {one.run for one in todo}
            sweep = all_ended(asyncio.to_thread(self.destination.sweep, runs))
            await self._try_to(sweep, LEFTOVERS)
        for one in todo:
            of = (one.batch.schedule, one.job.name)
            self.newest[of] = max(one.run, self.newest.get(of, ""))
        unreachable = await self._take_all(todo)
        self._settle()
        failures = await asyncio.to_thread(self._failures_in, history, everything=news is None)
        # What a batch that could not be read brought, nobody knows: not even that it failed.
        lost = {run.id for batch, run in history.runs if batch.id in unread}
        failures = [one for one in failures if one.run not in lost]
        self._tell_problems(history, failures, again=news is None)
        for batch, reason in unread.items():
            self.tell(Delayed(batch.name, "", reason, store=True))
        touched = {one.job.name for one in todo} | {job for job, _ in self.called}
        touched |= {*untidy} - {LEFTOVERS}
        for job in self.destination.jobs() if news is None else sorted(touched):
            if self.wish.wants(job):  # also after a pull that was killed
                self.untidy.discard(job)
                await self._try_to(self._point(job), job)
                await self._try_to(self._prune(job), job)
        waiting = self.refused | {one.batch for one in self.pending}
        return Report(
            tuple(self.events),
            unreachable,
            frozenset(waiting),
            frozenset(self.untidy),
            frozenset(self.state.rejected()),
            pending=len(self.pending),
        )

    # What there is to do.

    def _load(self, news: Collection[Id] | None) -> History:
        if news is None:
            return self.store.history()
        found = [self.store.batch(batch) for batch in news]
        return history_of(batch for batch in found if batch is not None)

    def _check_names(self, history: History) -> None:
        jobs = {name for _, run in history.runs for name in run.names}
        jobs |= set(self.destination.jobs())
        if jobs and not self.wish.jobs <= jobs:
            wrong, known = sorted(self.wish.jobs - jobs), sorted(jobs)
            more = f" and {len(known) - MOST_NAMES} more" if len(known) > MOST_NAMES else ""
            raise UnknownError(
                f"no job is called {', '.join(wrong)}",
                remedy=f"there are {', '.join(known[:MOST_NAMES])}{more}",
            )

    def _name_runs(self, history: History) -> None:
        """Put the id of the run that is meant in the place of `latest`."""
        known = {run.id: run.stood_back is not None for _, run in history.runs}
        try:
            runs = frozenset(run_named(one, known, self.bucket.name) for one in self.wish.runs)
        except UsageError as error:
            raise UnknownError(str(error), remedy=error.remedy) from error
        self.wish = replace(self.wish, runs=runs)

    def _whole_groups(self, batches: Sequence[Batch]) -> list[Batch]:
        """Return what need not wait for other shards of its group; of a group that is complete, all shards."""
        if not self.wish.complete_groups:
            return list(batches)
        loaded = {batch.id: batch for batch in batches}
        found = [batch for batch in batches if not batch.group]
        for schedule, name, shards in sorted(
            {(batch.id.schedule, *batch.group) for batch in batches if batch.group}
        ):
            ids = [Id.of_shard(schedule, name, shard, shards) for shard in range(shards)]
            members = [loaded.get(one) or self.store.batch(one) for one in ids]
            group = Group(schedule, name, shards, tuple(filter(None, members)))
            if group.done == shards:
                found += group.batches
            else:
                text = f"group {name}: {group.done} of {shards} shards are done; its jobs wait"
                self.tell(Note(text, fault=group.is_late(self.now)))
        return found

    def _todo(self, batches: Sequence[Batch], *, whole: bool) -> list[Result]:
        """Return what is wanted, not at home, and may be fetched."""
        results = plan.wanted(batches, self.wish)
        items = self.state.items(None if whole else {one.batch for one in results})
        lacking = plan.lacking(results, items, self.state.rejected(), self.wish)
        if self.wish.keep is None:
            return lacking
        begun = {job: self.state.begun(job) for job in {one.job.name for one in lacking}}
        beside: dict[str, set[str]] = {job: set() for job in begun}
        for job, runs in beside.items():
            with suppress(FolderError):  # told where a run of it is fetched
                runs.update(self.destination.runs(job))
        if self.hook is None:  # which wants to see also what goes at once
            for one in lacking:
                beside[one.job.name].add(one.run)
        return plan.worth_keeping(lacking, begun, beside, self.wish.keep, self.now)

    # Jobs.

    async def _take_all(self, todo: Sequence[Result]) -> str:
        """Fetch all of these, as far as that goes; return why the bucket cannot be read."""
        tried = 0
        try:
            for portion in plan.portions(todo, PACKAGES_AHEAD, PACKAGES_BYTES):
                texts = await asyncio.gather(*(self._package(one) for one in portion))
                for one, text in zip(portion, texts, strict=True):
                    tried += 1
                    await self._try(one, text)
        except _StopError as error:
            more = todo[tried:]
            self.pending += more
            if error.bucket:
                return str(error)
            if more:
                waits = f"{len(more)} more jobs wait for the same"
                self.tell(Note(waits, fault=True, folder=True))
        return ""

    async def _package(self, one: Result) -> bytes | StoreError | None:
        try:
            return await self.bucket.get(one.committed.key, limit=one.committed.bytes)
        except StoreError as error:
            return error

    async def _try(self, one: Result, text: bytes | StoreError | None) -> None:
        """Fetch a job, or say why not; others do not suffer from it.

        Raises:
            _StopError: They would.
        """
        job, run = one.key
        try:
            if job in self.blocked:
                self.pending.append(one)
            else:
                await self._take(one, text)
            self.failures = 0
        except _RejectedError as error:
            self.state.reject(Rejection(job, run, error.problems, error.needed))
            self.tell(Rejected(run, job, error.problems))
        except StoreError as error:
            self.pending.append(one)
            self.tell(Delayed(run, job, str(error), store=True))
            self.failures += 1
            if self.failures >= FAILURES:
                raise _StopError(str(error), bucket=True) from error
        except FolderError as error:
            self.pending.append(one)
            self.blocked.add(job)
            self.tell(Delayed(run, job, str(error)))
            if error.whole:
                raise _StopError(str(error), bucket=False) from error

    async def _take(self, one: Result, text: bytes | StoreError | None) -> None:
        """Fetch a job and install it.

        Raises:
            _RejectedError: It is not what it says.
            StoreError: The bucket failed.
            FolderError: The folder did.
        """
        job, run = one.key
        if self.destination.has(job, run):
            if one.key not in self.state.items([one.batch]):
                self._adopt(one)
            return
        if text is None and await self._is_expired(one):
            return
        package, sealed = await self._read(one, text)
        size = sum(resource.bytes for resource in package.resources)
        if size > self.wish.max_bytes:
            problem = f"it declares {size} bytes, more than the {self.wish.max_bytes} allowed"
            raise _RejectedError([problem], needed=size)
        # What an earlier pull staged has its room already; what is wrong of it is removed before more comes.
        staged = await asyncio.to_thread(self.destination.staged_bytes, job, run)
        self.destination.check_room(max(0, size - staged))
        # The job first: a narrow terminal has no room for the end.
        self.watcher.expects(f"{job} {run}: {len(package.resources)} files", size)
        problems = await fetch_job(
            self.bucket,
            self.destination,
            JobKey(run, job),
            sealed,
            package.resources,
            received=self.watcher.received,
        )
        if problems:
            raise _RejectedError(problems)
        await self._install(one.item)

    async def _read(self, one: Result, text: bytes | StoreError | None) -> tuple[Package, bytes]:
        if isinstance(text, TooLargeError):
            raise _RejectedError(["its package is larger than its entry says"])
        if isinstance(text, StoreError):
            raise text
        if text is None:
            raise _RejectedError(["its package is not in the bucket"])
        key = JobKey(one.run, one.job.name)
        package = await asyncio.to_thread(read_package, key, one.committed, text)
        if isinstance(package, Invalid):
            raise _RejectedError([f"its package cannot be used: {package.reason}"])
        if problems := disagreements(one.job, package):
            raise _RejectedError(problems)
        return package, text

    def _adopt(self, one: Result) -> None:
        """Take what is in place for installed, when it is: the state was lost, or a backup was put back."""
        if not self.destination.is_package(*one.key, one.committed):
            raise FolderError(f"{self.destination.folder_of(*one.key)} is in the way")
        self.state.install(one.item, owed=False, visible=True)

    async def _is_expired(self, one: Result) -> bool:
        """Tell whether a lifecycle rule removed the run, and remember that."""
        async for _ in self.bucket.list(run_prefix(one.run)):
            return False
        await asyncio.to_thread(self.store.expire, one.batch, one.run)
        self.state.forget(one.run)
        self.tell(Note(f"{one.run} {one.job.name}: expired, its files are no longer in the bucket"))
        return True

    async def _install(self, item: Item) -> None:
        """Make a staged job visible. It is remembered before, with its hook, so that a kill loses nothing."""
        self.state.install(item, owed=self.hook is not None, visible=False)
        self.destination.install(*item.key)
        path = str(self.destination.folder_of(*item.key))
        changes = ""
        try:
            # Of years that come home at once, the last alone is news; a hook hears of each.
            newest = self.newest[item.batch.schedule, item.job]
            if self.hook is not None or item.run == newest:
                changes = await asyncio.to_thread(self._changes, item)
        finally:  # a stop as well: whoever looks into the folder sees the job
            self.tell(
                Installed(item.run, item.job, path, item.files, item.bytes, item.status, changes)
            )
            await self._try_to(self._point(item.job), item.job)
        await self._call_hook(item, changes)
        await self._try_to(self._prune(item.job), item.job)

    # What follows from it.

    async def _call_hook(self, item: Item, changes: str | None = None) -> None:
        """Call the hook for a job that is owed one; it is told what changed, which an earlier pull may have found."""
        if self.hook is None or not self.wish.wants(item.job):
            return
        self.called.add(item.key)
        try:
            if self.destination.has(*item.key):
                folder = self.destination.folder_of(*item.key)
                if changes is None:
                    changes = await asyncio.to_thread(self._changes, item)
                problem = await hooks.call(self.hook, item, folder, changes)
                self.tell(Hooked(item.run, item.job, problem))
            else:
                problem = ""
                self.tell(Note(f"{item.run} {item.job}: removed before its hook succeeded"))
            if not problem:
                self.state.paid(*item.key)
        except FolderError as error:
            problem = str(error)
            self.tell(Hooked(item.run, item.job, problem))
        if problem:
            self.refused.add(item.batch)

    def _changes(self, item: Item) -> str:
        """Find how a job differs from the success before it that is in place, and keep it; return the sum.

        It is empty when there is none before: that is a baseline, and no news. A job of another schedule may have the
        same name, and share the folder; it is another job.
        """
        schedule = item.batch.schedule
        kept = self.store.changes(schedule, item.job)
        if kept and kept.run == item.run:
            return str(kept.sum)
        good = {
            one.run
            for one in self.state.items_of(item.job).values()
            if one.succeeded and one.run < item.run and one.batch.schedule == schedule
        }
        before = max(good & {*self.destination.runs(item.job)}, default=None)
        if before is None or not item.succeeded:
            return ""
        folders = [self.destination.folder_of(item.job, run) for run in (before, item.run)]
        try:
            old, new = map(Side.of_folder, folders)
            found = compare(old, new, temporary=self.destination.temporary())
        except (ValueError, OSError):  # somebody changed what was pulled
            return ""
        changes = changes_of(found, before, item.run)
        self.store.note_changes(schedule, item.job, changes)
        return str(changes.sum)

    def _settle(self) -> None:
        """Find out what became visible of that which was about to."""
        found: dict[bool, list[Key]] = {True: [], False: []}
        for key in self.state.unsure():
            with suppress(FolderError):  # nobody can tell, until what is in the way is gone
                found[self.destination.has(*key)].append(key)
        self.state.settle(visible=found[True], gone=found[False])

    async def _try_to(self, step: Awaitable[None], job: str) -> None:
        """Do what nothing else waits for; when the folder does not let us, that is told once, and the job is untidy."""
        try:
            await step
        except FolderError as error:
            self.untidy.add(job)
            note = Note(str(error), fault=True, folder=True)
            if note not in self.events:
                self.tell(note)

    async def _point(self, job: str) -> None:
        """Let `latest` lead to the last run that succeeded."""
        there, now = self.destination.runs(job), self.destination.latest(job)
        items = self.state.items_of(job)
        good = {run for run in there if (job, run) in items and items[job, run].succeeded}
        if now and now in there:  # the state may be lost, and with it what that was
            good.add(now)
        run = plan.latest_of(good, self.now)
        if run is not None and run != now:
            self.destination.point(job, run)

    async def _prune(self, job: str) -> None:
        """Remove what is old, and was installed by a pull."""
        if self.wish.keep is None:
            return
        items = self.state.items_of(job)
        there = [run for run in self.destination.runs(job) if (job, run) in items]
        protected = {item.run for item in self.state.owed(job)}
        protected.update(self.wish.runs, filter(None, [self.destination.latest(job)]))
        for run in plan.to_remove(there, self.wish.keep, protected, self.now):
            if other := await asyncio.to_thread(self._other_in, job, run):
                if self._is_news("", f"{job}/{run}"):
                    self.tell(Note(f"{run} {job}: not removed, {other}"))
                continue
            # Thousands of files take seconds; nobody else has the folder before they are gone.
            await all_ended(asyncio.to_thread(self.destination.remove, job, run))
            self.tell(Removed(run, job))

    def _other_in(self, job: str, run: str) -> str:
        """Tell what is in the place of an installed job and was not installed; empty when there is nothing."""
        folder = self.destination.folder_of(job, run)
        try:
            package = package_in(folder)
        except (ValueError, OSError):
            return f"nobody can tell what of {folder} was pulled: its package cannot be read"
        named = {DESCRIPTOR, *(resource.path for resource in package.resources)}
        others = (path for path in self.destination.paths(job, run) if path not in named)
        other = next(others, "")
        return f"{folder / other} was not pulled" if other else ""

    # What else there is to say.

    def _tell_problems(self, history: History, failures: Sequence[Outcome], *, again: bool) -> None:
        """Tell of what cannot be used, and of jobs that brought nothing: what is new, or all of it."""
        told = {(one.job, one.run) for one in self.events if isinstance(one, Rejected)}
        for key, rejection in self.state.rejected().items() if again else ():
            if key not in told and self._wants(*key):
                self.tell(Rejected(rejection.run, rejection.job, rejection.problems, again=True))
        for name, reason in list(history.invalid.items())[-MOST_PROBLEMS:]:
            if self._is_news("", name) or again:
                self.tell(Note(f"{name} cannot be used: {reason}", fault=True))
        for one in failures:
            if self._wants(one.name, one.run):
                new = self._is_news(one.name, one.run)
                why = ": ".join(filter(None, (one.cause and one.cause.value, one.message)))
                if new or again:
                    self.tell(Failed(one.run, one.name, why or "it failed", again=not new))

    def _failures_in(self, history: History, *, everything: bool) -> list[Outcome]:
        if everything:
            judged = judge(history, Rules(self.now))
            return [one.failure for one in judged.jobs if one.failure]
        groups = (group for groups in groups_of(history).values() for group in groups)
        outcomes = (one for group in groups for one in group.outcomes((), self.now).values())
        return [one for one in outcomes if one.state is Standing.FAILED]

    def _wants(self, job: str, run: str) -> bool:
        return self.wish.wants(job) and (not run or self.wish.wants_run(run))

    def _is_news(self, job: str, run: str) -> bool:
        try:
            return self.state.tell(job, run)
        except FolderError:  # told where it matters
            return True
