"""Who takes part: a machine that works on a batch, and a reader at home. Both use the real code for every decision.

What can be exchanged is in `Rules`: a test that breaks one shows that the model would have noticed.
"""

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from agent.base.errors import StoreError
from agent.batch import claim, follow
from agent.batch.catchup import Beginning
from agent.batch.claim import Claimant, LookAgain, StandBack, Work
from agent.batch.commit import in_entries
from agent.batch.fold import Arrived, Result, State, fold
from agent.batch.log import LogReader, LogWriter
from agent.batch.session import BatchSession, Settled
from agent.batch.which import Purpose
from agent.contract.entries import Began, Closed, Ended, Entry, Object, StoodBack, read_entry
from agent.contract.facts import Host
from agent.contract.ids import Batch, run_id
from agent.contract.layout import INDEX, EntryKey, JobKey, LogKey, PointerKey, parse_key
from agent.contract.results import JobCause, JobStatus, RunStatus
from tests.batch.entries import planned
from tests.batch.world import Process, View, World

JOBS = ("a", "b")
LOG_EVERY = 280.0
"""Seconds between two parts of a run's log."""


@dataclass(frozen=True)
class Rules:
    """The rules of the protocol, each of which a test can break."""

    fold: Callable[..., State] = fold
    writer: Callable[..., LogWriter] = LogWriter
    nonce: Callable[[int], str] = lambda number: f"{number:08x}"
    looks_after: bool = True
    decide: Callable[[State, Claimant], Work | StandBack | LookAgain] = claim.decide
    go_on: Callable[[State, Claimant], Work | StandBack | LookAgain] = claim.decide
    begins: Callable[[Beginning], Beginning] = lambda begins: begins
    package_first: bool = True
    cursor: Callable[[], follow.Cursor] = lambda: follow.Cursor(reach=3)
    next_look: Callable[..., datetime | None] = follow.next_look
    shown: Callable[..., RunStatus] = follow.shown


@dataclass
class Spooled:
    """A run on a disk: what a later process finishes."""

    run: str
    began: Began
    running: str = ""
    ended: dict[str, Ended] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)
    committed: bool = False


@dataclass(frozen=True)
class Started:
    """A job that was started, and when its run had last looked."""

    at: float
    run: str
    job: str
    looked: float


@dataclass
class Truth:
    """What really happened, for the invariants."""

    looked: dict[str, float] = field(default_factory=dict)
    started: list[Started] = field(default_factory=list)
    stopped: dict[str, float] = field(default_factory=dict)
    claimless: set[str] = field(default_factory=set)
    committed: set[tuple[str, str]] = field(default_factory=set)
    retried: set[str] = field(default_factory=set)
    batches: dict[str, Batch] = field(default_factory=dict)
    unscheduled: dict[str, float] = field(default_factory=dict)


@dataclass
class Machine:
    """A machine, or a container, that is started for a batch, and once more after it died."""

    world: World
    rules: Rules
    truth: Truth
    batch: Batch
    name: str
    skew: timedelta = timedelta(0)
    retried: bool = False
    unscheduled: bool = False
    keeps_disk: bool = True
    comes_back: bool = True
    jump: timedelta = timedelta(0)
    job_seconds: float = 20.0
    limit: timedelta = timedelta(minutes=12)
    spool: list[Spooled] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    starts: int = 0

    def boot(self) -> None:
        """Start a process; when it dies, another one follows."""
        self.starts += 1
        if not self.keeps_disk:
            self.spool.clear()
        process = Process(f"{self.name}{self.starts}", self.skew)
        process.on_death = self._died
        self.world.start(process, self._story(process))

    def _died(self) -> None:
        for spooled in self.spool:
            self.truth.stopped.setdefault(spooled.run, self.world.now)
        if self.comes_back and self.starts < 2:
            self.world.at(60.0, self.boot)

    async def _story(self, process: Process) -> None:
        view = View(self.world, process)
        dead = frozenset(one.run for one in self.spool if not one.committed)
        for left in list(self.spool):
            if not left.committed:
                await self._recover(process, view, left)
        began = self.world.clock(process)
        unique = f"{self.name}{self.starts}".encode()
        run = run_id(began, hashlib.sha256(unique).digest())
        spooled = Spooled(run, self._beginning(process, began))
        self.spool.append(spooled)
        await _Work(self, process, view, spooled, dead).story()

    def _beginning(self, process: Process, now: datetime) -> Began:
        boot = Host(name=self.name, instance_id=f"i-{self.name}", boot_id=process.name)
        return Began(started=now, deadline=now + self.limit, host=boot, agent="1", channel="main")

    async def _recover(self, process: Process, view: View, left: Spooled) -> None:
        """Finish a run that an earlier process left: the same bytes once more, under an entry of its own."""
        writer = self.new_writer(process, view, left.run, self.batch)
        ended = dict(left.ended)
        if left.running and not left.last:
            ended[left.running] = job_of(left.run, left.running, JobStatus.INTERRUPTED)
        try:
            for job in ended.values():
                await put_job(view, job)
            end = Closed(status=RunStatus.INTERRUPTED, finished=self.world.clock(process))
            last = left.last or {"closed": end}
            await writer.append(began=left.began, jobs=tuple(ended.values()), **last)
        except StoreError:
            return
        self.truth.committed |= {(left.run, name) for name, job in ended.items() if job.succeeded}
        left.committed = True

    def new_writer(self, process: Process, view: View, run: str, batch: Batch) -> LogWriter:
        """Return a writer with a nonce of its own."""
        return self.rules.writer(
            view,
            batch,
            run,
            self.rules.nonce(int.from_bytes(process.name.encode()[:2]) * 16 + next(self.numbers)),
            now=lambda: self.world.clock(process),
            pause=lambda seconds: self.world.sleep(process, seconds),
        )


@dataclass
class _Work:
    """One run."""

    machine: Machine
    process: Process
    view: View
    spooled: Spooled
    dead: frozenset[str]

    def __post_init__(self) -> None:
        machine = self.machine
        self.world, self.rules, self.truth = machine.world, machine.rules, machine.truth
        self.run = self.spooled.run
        self.session = _Session(self)
        self.logs = 0
        if self.machine.unscheduled:
            self.truth.unscheduled[self.run] = self.world.now
        if self.machine.retried:
            self.truth.retried.add(self.run)

    async def story(self) -> None:
        """Claim the batch, do the jobs that are left, close."""
        await self.session.begin()
        self.truth.batches[self.run] = self.session.batch
        settled = await self.session.settle()
        if settled.warning:
            self.truth.claimless.add(self.run)
        if isinstance(settled.decision, StandBack):
            back = settled.decision
            await self._finish(stood_back=StoodBack(reason=back.reason, run=back.run))
            return
        self.session.works = True
        names = tuple(name for name in JOBS if name not in settled.decision.leave_out)
        await self._try(planned=planned(*names))
        again: Work | StandBack | LookAgain = settled.decision
        for name in names:
            again = await self._look_while_working()
            if isinstance(again, StandBack):
                break
            if isinstance(again, LookAgain) or name not in again.leave_out:
                await self._job(name)
        await self._close(interrupted=isinstance(again, StandBack))

    async def _look_while_working(self) -> Work | StandBack | LookAgain:
        with suppress(StoreError):
            return await self.session.look()
        return LookAgain()

    async def _job(self, name: str) -> None:
        looked = self.truth.looked.get(self.run, -1.0)
        self.truth.started.append(Started(self.world.now, self.run, name, looked))
        self.spooled.running = name
        left = self.machine.job_seconds
        while left > LOG_EVERY:
            await self.world.sleep(self.process, LOG_EVERY)
            await put_log_part(self.view, self.run, self.logs)
            left, self.logs = left - LOG_EVERY, self.logs + 1
        await self.world.sleep(self.process, left)
        self.process.skew += self.machine.jump
        job = job_of(self.run, name, JobStatus.SUCCEEDED)
        self.spooled.ended[name] = job
        self.spooled.running = ""
        await self._commit(job)

    async def _commit(self, job: Ended) -> None:
        for portion in in_entries([job]):
            if self.rules.package_first and not await _succeeds(put_job(self.view, job)):
                return
            if await self._try(jobs=portion):
                self.truth.committed.add((self.run, job.name))
            if not self.rules.package_first:
                await put_job(self.view, job)

    async def _close(self, *, interrupted: bool) -> None:
        for job in self.spooled.ended.values():
            if (self.run, job.name) not in self.truth.committed:
                await self._commit(job)
        sent = all((self.run, name) in self.truth.committed for name in self.spooled.ended)
        status = RunStatus.INTERRUPTED if interrupted or not sent else RunStatus.SUCCEEDED
        await self._finish(closed=Closed(status=status, finished=self.world.clock(self.process)))

    async def _finish(self, **last: Any) -> None:
        self.truth.stopped[self.run] = self.world.now
        self.spooled.last = last
        done = await self._try(**last)
        for _ in range(3):
            if not done:
                await self.world.sleep(self.process, 30.0)
                done = await _succeeds(self.session.log.flush())
        self.spooled.committed = done

    async def _try(self, **parts: Any) -> bool:
        """Append an entry; tell whether everything up to it is committed."""
        return await _succeeds(self.session.log.append(**parts))


async def _succeeds(step: Awaitable[None]) -> bool:
    try:
        await step
    except StoreError:
        return False
    return True


class _Session(BatchSession):
    """The real session, on the world's clocks, with rules that can be broken; it notes when its run looked."""

    def __init__(self, work: _Work) -> None:
        machine, process = work.machine, work.process
        self.work = work
        self.works = False
        self.asked = -1.0
        self.seen_first = State(machine.batch)
        super().__init__(
            work.view,
            work.run,
            "",
            purpose_of(machine),
            work.spooled.began,
            now=lambda: work.world.clock(process),
            dead=work.dead,
            catch_up=timedelta(hours=6),
            pause=lambda seconds: work.world.sleep(process, seconds),
            clock=lambda: work.world.now,
        )

    async def begin(self) -> None:
        """Look before, if the rule is to look no more after."""
        if not self.work.rules.looks_after:
            with suppress(StoreError):
                self.seen_first = await self._state()
        await super().begin()

    async def settle(self) -> Settled:
        """Look after the beginning, if that is the rule."""
        if self.work.rules.looks_after:
            return await super().settle()
        return Settled(_first_look(self.seen_first))

    async def look(self) -> Work | StandBack | LookAgain:
        """Note when that was."""
        decision = await super().look()
        self.work.truth.looked[self.work.run] = self.asked
        return decision

    def _beginning(self) -> Beginning:
        return self.work.rules.begins(super()._beginning())

    async def _state(self) -> State:
        self.asked = self.work.world.now
        return self.work.rules.fold(self.batch, await self._reader.look())

    def _decide(self, state: State, claimant: Claimant) -> Work | StandBack | LookAgain:
        rules = self.work.rules
        return (rules.go_on if self.works else rules.decide)(state, claimant)

    def _of_others(self, work: Work, state: State) -> Work:
        return Work({job: why for job, why in work.leave_out.items() if job in state.successes})

    def _writer(self, batch: Batch) -> LogWriter:
        return self.work.machine.new_writer(self.work.process, self.work.view, self.work.run, batch)


def purpose_of(machine: Machine) -> Purpose:
    """Return what a machine is started for."""
    batch = machine.batch
    if machine.unscheduled:
        return Purpose(batch.schedule)
    return Purpose(batch.schedule, batch.slot, batch.shard, machine.retried)


def _first_look(state: State) -> Work | StandBack:
    """Decide as somebody would who looks once: whoever is in the log works already."""
    others = [run for run in state.runs.values() if not run.closed and not run.stood_back]
    return StandBack("somebody works", others[0].id) if others else Work(state.finished)


def content_of(run: str, name: str) -> bytes:
    """Return the one file of a job."""
    return f"{run} {name}".encode()


def object_of(key: str, data: bytes) -> Object:
    """Return what an entry says of an object."""
    return Object(key=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def package_of(run: str, name: str, status: str) -> bytes:
    """Return a job's package; its form is of no interest here."""
    return f"{run} {name} {status} {hashlib.sha256(content_of(run, name)).hexdigest()}".encode()


def job_of(run: str, name: str, status: JobStatus) -> Ended:
    """Return a job that ended."""
    cause = None if status is JobStatus.SUCCEEDED else JobCause.INTERRUPTED
    package = object_of(JobKey(run, name).text, package_of(run, name, status.value))
    return Ended(name=name, status=status, cause=cause, package=package)


async def put_job(view: View, job: Ended) -> None:
    """Put a job's file, then its package; each may be put again."""
    assert job.package is not None
    key = parse_key(job.package.key)
    assert isinstance(key, JobKey)
    file = replace(key, path="files/page.html")
    await put_surely(view, file.text, content_of(key.run, key.job))
    await put_surely(view, key.text, package_of(key.run, key.job, job.status.value))


async def put_surely(view: View, key: str, data: bytes) -> None:
    """Put an object; a few failures in a row are nothing."""
    for _ in range(3):
        if await _succeeds(view.put_once(key, data)):
            return
    await view.put_once(key, data)


async def put_log_part(view: View, run: str, number: int) -> None:
    """Put a part of a run's log: a sign of life. A part that is missing is put with the next."""
    with suppress(StoreError):
        await put_surely(view, LogKey(run, number).text, b"{}\n")


@dataclass(eq=False)
class Home:
    """A reader that follows the index, and remembers what it has shown."""

    world: World
    rules: Rules
    skew: timedelta = timedelta(0)
    cursor: follow.Cursor = field(default_factory=follow.Cursor)
    readers: dict[Batch, LogReader] = field(default_factory=dict)
    pointers: dict[str, PointerKey] = field(default_factory=dict)
    looked: dict[Batch, datetime] = field(default_factory=dict)
    states: dict[Batch, State] = field(default_factory=dict)
    shown: list[tuple[float, str, RunStatus]] = field(default_factory=list)
    counted: list[Result] = field(default_factory=list)

    def start(self, *moments: float) -> None:
        """Look at these moments."""
        self.cursor = self.rules.cursor()
        self.process = Process("home", self.skew)
        self.view = View(self.world, self.process)
        self.world.start(self.process, self._story(moments))

    def go_on(self, *moments: float) -> None:
        """Look at these moments too, in a new process that knows what the old one knew."""
        self.process = Process("home", self.skew)
        self.view.move_to(self.process)
        self.world.start(self.process, self._story(moments))

    async def _story(self, moments: Iterable[float]) -> None:
        for moment in moments:
            if moment > self.world.now:
                await self.world.sleep(self.process, moment - self.world.now)
            try:
                await self.look()
            except StoreError:
                continue

    async def look(self) -> None:
        """List the index, and the logs that have news or should have some."""
        now = self.world.clock(self.process)
        listed = [item async for item in self.view.list(INDEX, after=self.cursor.start(now))]
        found = [key for item in listed if isinstance(key := parse_key(item.key), PointerKey)]
        self.pointers |= {key.text: key for key in found}
        held = {one.key for reader in self.readers.values() for one in reader.seen}
        batches = {key.entry.batch for key in found if key.entry not in held}
        for batch, state in self.states.items():
            due = self.rules.next_look(state.runs.values(), self.looked[batch])
            if due is not None and due <= now:
                batches.add(batch)
        for batch in sorted(batches, key=lambda batch: batch.name):
            await self._look_into(batch, now)
        self.cursor = self.cursor.advance(found, now)

    async def _look_into(self, batch: Batch, now: datetime) -> None:
        asked = self.world.now
        reader = self.readers.setdefault(batch, LogReader(self.view, batch))
        pointers = [key for key in self.pointers.values() if key.entry.batch == batch]
        state = self.rules.fold(batch, await reader.look(), pointers)
        self.states[batch], self.looked[batch] = state, now
        self.shown += [(asked, run.id, self.rules.shown(run, now)) for run in state.runs.values()]
        self.counted += state.successes.values()


def arrived_of(world: World, batch: Batch) -> list[Arrived]:
    """Return everything that is in a batch's log, as a reader sees it that has seen everything."""
    return [
        Arrived(key, stored.written, read_entry(key, stored.data))
        for stored in world.objects.values()
        if isinstance(key := parse_key(stored.key), EntryKey) and key.batch == batch
    ]


def entry_of(data: bytes) -> Entry:
    """Return an entry, read without any of the code under test but its model."""
    return Entry.model_validate_json(data)
