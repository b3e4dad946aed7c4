"""A small world for the protocol: a store that misbehaves, processes that die, clocks, and all of their orders.

A run of the world is determined by its choices. `explore` tries them one after the other: choice 0 is always what goes
well, every other one is a piece of trouble, and a run has at most so many of them.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from itertools import count
from random import Random
from typing import Any

from agent.base.errors import StoreError

BEGINNING = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
REQUEST_SECONDS = 0.25
"""Of one request: several arrive in one second, as S3 tells times."""
SHORTLY = 7.0
LATE = 1500.0
"""Seconds until a put arrives whose answer was an error."""
LAG = 9.0
"""Seconds for which a listing lacks what arrived; more than a claim waits."""
PATIENCE = 60.0
"""Seconds that a request may take."""
SUSPENDED = 1000.0
"""Seconds for which a process stands still; more than a claim may be silent."""
OUTAGE = 60.0
"""Seconds for which a process cannot reach the store; more than a put is tried."""


class Trouble(Enum):
    """What can happen to a request."""

    NONE = "went well"
    LOST_ANSWER = "applied, answer lost"
    FAILED = "not applied"
    LATE = "applied after its error was told"
    VERY_LATE = "applied long after its error was told"
    DIES_BEFORE = "process dies, not applied"
    DIES_AFTER = "process dies, applied"
    DIES_LATE = "process dies, applied later"
    LAGS = "listing lacks what is new"
    GAPS = "listing lacks some of what is new"
    SUSPENDED = "process stands still"
    OUTAGE = "nothing of this process is answered for a minute"
    NO_POINTERS = "no pointer of this process can be put from here on"


FAULTS = (Trouble.LOST_ANSWER, Trouble.FAILED, Trouble.LATE, Trouble.VERY_LATE)
DEATHS = (Trouble.DIES_BEFORE, Trouble.DIES_AFTER, Trouble.DIES_LATE)
OF_BOTH = frozenset({Trouble.FAILED, Trouble.DIES_BEFORE, Trouble.SUSPENDED, Trouble.OUTAGE})
OF_LISTINGS = OF_BOTH | {Trouble.LAGS, Trouble.GAPS}
OF_PUTS = OF_BOTH | {*FAULTS, *DEATHS}


class Choices:
    """The choices of one run of the world: those given, then what goes well, or what a generator says."""

    def __init__(self, given: Sequence[int], budget: int, random: Random | None = None) -> None:
        self._given = given
        self._random = random
        self._left = budget
        self.made: list[tuple[int, int]] = []

    def pick(self, options: int) -> int:
        """Return one of the options; all but 0 cost one of the budget."""
        if options < 2 or self._left == 0:
            return 0
        position = len(self.made)
        if position < len(self._given):
            choice = self._given[position]
        elif self._random is not None and self._random.random() < 0.06:
            choice = self._random.randrange(options)
        else:
            choice = 0
        self.made.append((choice, options))
        self._left -= choice != 0
        return choice


def following(made: list[tuple[int, int]]) -> list[int] | None:
    """Return the choices of the next run, depth first; None when all were made."""
    while made:
        choice, options = made.pop()
        if choice + 1 < options:
            return [*(one for one, _ in made), choice + 1]
    return None


@dataclass(frozen=True)
class Stored:
    """An object, with the time that listings show and the time at which it really arrived."""

    key: str
    data: bytes
    written: datetime
    at: float

    @property
    def bytes(self) -> int:
        """Its size."""
        return len(self.data)

    @property
    def etag(self) -> str:
        """The MD5 of what it holds."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


@dataclass
class Process:
    """Something that runs: it waits for one request or one moment at a time."""

    name: str
    skew: timedelta = timedelta(0)
    task: asyncio.Task[None] | None = None
    request: "Request | None" = None
    wakes: float | None = None
    future: asyncio.Future[Any] | None = None
    pointers_fail: bool = False
    away_until: float = -1.0
    dead: bool = False
    on_death: Callable[[], None] | None = None

    @property
    def blocked(self) -> bool:
        """Whether it waits for the world."""
        return self.task is None or self.task.done() or self.future is not None

    def waits_no_more(self) -> asyncio.Future[Any] | None:
        """Let it wait for nothing, and return what it waited for."""
        future = self.future
        self.request, self.wakes, self.future = None, None, None
        return future


@dataclass(frozen=True)
class Request:
    """A request that is under way."""

    kind: str
    key: str
    data: bytes = b""
    after: str | None = None
    since: float = 0.0


@dataclass
class World:
    """The store, the time, and everything that runs."""

    choices: Choices
    troubles: frozenset[Trouble]
    preempt: bool = True
    now: float = 0.0
    objects: dict[str, Stored] = field(default_factory=dict)
    history: list[Stored] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=count)
    happened: Counter[Trouble] = field(default_factory=Counter)
    on_applied: Callable[[Stored], None] = lambda _: None

    def clock(self, process: Process) -> datetime:
        """Return the time on a process' own clock."""
        return self.moment() + process.skew

    def moment(self, at: float | None = None) -> datetime:
        """Return a time of the store."""
        return BEGINNING + timedelta(seconds=self.now if at is None else at)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self.timers.append((self.now + seconds, next(self.numbers), action))

    def start(self, process: Process, work: Coroutine[Any, Any, None]) -> None:
        """Start a process."""
        process.task = asyncio.get_running_loop().create_task(work)
        self.processes.append(process)

    async def ask(self, process: Process, request: Request) -> Any:
        """Wait for the answer to a request."""
        process.request = request
        return await self._wait(process)

    async def sleep(self, process: Process, seconds: float) -> None:
        """Wait for a time."""
        process.wakes = self.now + seconds
        await self._wait(process)

    async def _wait(self, process: Process) -> Any:
        process.future = asyncio.get_running_loop().create_future()
        try:
            return await process.future
        except asyncio.CancelledError:
            self._given_up(process)
            raise

    def _given_up(self, process: Process) -> None:
        """Let a put that somebody waits for no longer arrive all the same."""
        request = process.request
        process.waits_no_more()
        if request is not None and request.kind == "put" and not process.dead:
            self.at(SHORTLY, lambda: self.apply(request.key, request.data))

    async def run(self) -> None:
        """Let everything happen, until nothing is under way."""
        while True:
            await self._settle()
            asking = [one for one in self.processes if one.request is not None]
            moments = [one.wakes for one in self.processes if one.wakes is not None]
            moments += [moment for moment, _, _ in self.timers]
            if not asking and not moments:
                break
            self._step(asking, min(moments, default=None))
        for process in self.processes:
            if process.task is not None and not process.dead:
                process.task.result()

    async def _settle(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)
            if all(process.blocked for process in self.processes):
                return
        raise AssertionError("a process waits for something that is not of this world")

    def _step(self, asking: list[Process], moment: float | None) -> None:
        """Let the next thing happen: by default the oldest request; else another one, or time passes before it."""
        if not asking:
            self._pass_time(moment or self.now)
            return
        asking.sort(key=lambda one: one.request.since if one.request else 0.0)
        options = len(asking) + (moment is not None) if self.preempt else 1
        choice = self.choices.pick(options)
        if choice == len(asking) and moment is not None:
            # A request that is under way for minutes is as good as a process that stands still.
            self.happened[Trouble.SUSPENDED] += moment - self.now > PATIENCE
            self._pass_time(moment)
            return
        self._serve(asking[choice])
        self._pass_time(self.now + REQUEST_SECONDS)

    def _pass_time(self, until: float) -> None:
        self.now = max(self.now, until)
        for timer in sorted(self.timers):
            if timer[0] <= self.now:
                self.timers.remove(timer)
                timer[2]()
        for process in self.processes:
            if process.wakes is not None and process.wakes <= self.now:
                self._answer(process, None)

    def _serve(self, process: Process) -> None:
        request = process.request
        assert request is not None
        trouble = self._trouble(process, request)
        self.happened[trouble] += 1
        if trouble is Trouble.SUSPENDED:
            process.request, future = None, process.future
            self.at(SUSPENDED, lambda: self._resume(process, request, future))
            return
        if trouble is Trouble.NO_POINTERS:
            process.pointers_fail = True
        if trouble is Trouble.OUTAGE:
            process.away_until = self.now + OUTAGE
        if request.kind == "put":
            self._put(request, trouble)
        if trouble in DEATHS:
            self._kill(process)
        elif trouble in {Trouble.NONE, Trouble.LAGS, Trouble.GAPS}:
            self._answer(
                process, self._listed(request, trouble) if request.kind == "list" else None
            )
        else:
            self._fail(process, request)

    def _resume(
        self, process: Process, request: Request, future: "asyncio.Future[Any] | None"
    ) -> None:
        if not process.dead and process.future is future:
            process.request = request

    def _trouble(self, process: Process, request: Request) -> Trouble:
        if process.away_until > self.now:
            return Trouble.FAILED
        possible = OF_PUTS if request.kind == "put" else OF_LISTINGS
        if request.key.startswith("index/") and request.kind == "put":
            if process.pointers_fail:
                return Trouble.FAILED
            possible = possible | {Trouble.NO_POINTERS}
        wanted = [one for one in Trouble if one in possible & self.troubles]
        return (Trouble.NONE, *wanted)[self.choices.pick(len(wanted) + 1)]

    def _put(self, request: Request, trouble: Trouble) -> None:
        if trouble in {Trouble.NONE, Trouble.LOST_ANSWER, Trouble.DIES_AFTER}:
            self.apply(request.key, request.data)
        elif trouble in {Trouble.LATE, Trouble.VERY_LATE, Trouble.DIES_LATE}:
            seconds = LATE if trouble is Trouble.VERY_LATE else SHORTLY
            self.at(seconds, lambda: self.apply(request.key, request.data))

    def _listed(self, request: Request, trouble: Trouble) -> list[Stored]:
        """Return what a listing shows: all objects, those that are not new, or every other of the new ones."""
        new = [one for one in self.objects.values() if one.at > self.now - LAG]
        hidden = {Trouble.LAGS: new, Trouble.GAPS: new[::2]}.get(trouble, [])
        after = request.after or ""
        shown = (one for one in self.objects.values() if one not in hidden)
        listed = [one for one in shown if one.key.startswith(request.key) and one.key > after]
        return sorted(listed, key=lambda one: one.key)

    def apply(self, key: str, data: bytes) -> None:
        """Let a put arrive."""
        stored = Stored(key, data, self.moment().replace(microsecond=0), self.now)
        self.objects[key] = stored
        self.history.append(stored)
        self.on_applied(stored)

    def _answer(self, process: Process, value: Any) -> None:
        future = process.waits_no_more()
        if future is not None and not future.done():
            future.set_result(value)

    def _fail(self, process: Process, request: Request) -> None:
        future = process.waits_no_more()
        if future is not None:
            future.set_exception(StoreError(f"could not {request.kind} {request.key}"))

    def _kill(self, process: Process) -> None:
        process.dead = True
        process.waits_no_more()
        assert process.task is not None
        process.task.cancel()
        if process.on_death is not None:
            process.on_death()


class View:
    """The store, as one process sees it: the `Bucket` that the real code is given."""

    def __init__(self, world: World, process: Process) -> None:
        self._world = world
        self._process = process

    def move_to(self, process: Process) -> None:
        """Be the view of another process, which goes on with what this one knew."""
        self._process = process

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[Stored]:
        """Yield what a listing shows at this moment."""
        request = Request("list", prefix, after=after, since=self._world.now)
        for one in await self._world.ask(self._process, request):
            yield one

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object: it never changes, so that the moment does not matter."""
        stored = self._world.objects.get(key)
        return stored.data if stored else None

    async def put_once(self, key: str, data: bytes) -> None:
        """Put an object."""
        await self._world.ask(self._process, Request("put", key, data, since=self._world.now))


def explore(
    play: Callable[[Choices], Coroutine[Any, Any, None]], budget: int, most: int, seed: int | None
) -> Iterator[list[int]]:
    """Run the world with every combination of at most `budget` choices, or with `most` random ones; yield them."""
    with asyncio.Runner() as runner:
        given: list[int] | None = []
        for number in range(most):
            random = None if seed is None else Random(f"{seed}-{number}")
            choices = Choices(given or [], budget, random)
            try:
                runner.run(play(choices))
            except BaseException as error:
                error.add_note(f"choices: {[choice for choice, _ in choices.made]}")
                raise
            yield [choice for choice, _ in choices.made]
            if seed is None:
                given = following(choices.made)
                if given is None:
                    return
