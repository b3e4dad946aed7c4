"""The protocol of a batch's log, explored: the real decisions and the real log, over a store that misbehaves.

Each scenario is run with every single piece of trouble at every request, and with a sample of several. What is promised
is in `Verdict`; what happens without one of the rules is in `BROKEN`: the model notices each.

`MAYFLY_BATCH_MODEL=1` is the long form: all pairs, and more of the sample (`-o timeout=0`); `MAYFLY_BATCH_SEED`
draws another one.
"""

import os
import time
from collections import Counter
from copy import copy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import pairwise, product
from typing import Any

import pytest

from agent.batch.fold import Arrived, Result, State
from agent.contract.entries import Entry
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, JobKey, LogKey, PointerKey, parse_key
from agent.contract.results import COMPLETE, RunStatus
from tests.batch.actors import Home, Machine, Rules, Started, Truth, arrived_of, entry_of, object_of
from tests.batch.broken import BROKEN
from tests.batch.world import (
    BEGINNING,
    DEATHS,
    FAULTS,
    LAG,
    Choices,
    Stored,
    Trouble,
    World,
    explore,
)

LONG = os.environ.get("MAYFLY_BATCH_MODEL") == "1"
SLOT = Batch.of_slot("main", BEGINNING)
SHARD = Batch.of_shard("main", "nightly", 0, 2)
MINUTE = 60.0
LOOKS = (5.0, 20.0, 45.0, 90.0, *(MINUTE * n for n in (7, 13, 18, 33, 38, 70)))
"""Seconds at which home looks; deadlines are at twelve minutes, five and twenty minutes before looks of it."""
SECOND_LOOKS = (12.0, 50.0, *(MINUTE * n for n in (9, 17, 19, 35, 55)))
"""The same of a second reader, whose clock is off by as much the other way."""
DAYS = 2 * 86400.0
DEADLINE = 12 * MINUTE
PAIRS = 2 if LONG else 1
MOST = 1_000_000
SAMPLES = 2000 if LONG else 10
SEED = int(os.environ.get("MAYFLY_BATCH_SEED", "1"))

STORE = frozenset({*FAULTS, *DEATHS})
Meaning = dict[str, Any]
Machines = list[tuple[float, dict[str, Any]]]
"""When each machine is started, and what is special about it."""


@dataclass(frozen=True)
class Scenario:
    """Who takes part, and what can happen to them."""

    batch: Batch
    machines: Machines
    troubles: frozenset[Trouble]
    preempt: bool = False
    home_skew: timedelta = timedelta(0)
    second_reader: bool = False


def _two(gap: float, **options: Any) -> Machines:
    ahead, behind = timedelta(minutes=4), timedelta(minutes=-4)
    return [(0.0, {"skew": ahead, **options}), (gap, {"skew": behind, **options})]


def _then_unscheduled(gap: float) -> Machines:
    gone = {"keeps_disk": False, "comes_back": False}
    return [(0.0, gone), (gap, {**gone, "unscheduled": True})]


SCENARIOS = {
    "one machine, its disk kept": Scenario(SLOT, [(0.0, {})], STORE | {Trouble.NO_POINTERS}),
    "one machine, its disk wiped": Scenario(
        SLOT, [(0.0, {"keeps_disk": False})], STORE | {Trouble.NO_POINTERS}
    ),
    "one machine that does not come back": Scenario(
        SLOT,
        [(0.0, {"comes_back": False})],
        frozenset({*DEATHS, Trouble.NO_POINTERS, Trouble.OUTAGE}),
    ),
    "two machines at once": Scenario(
        SLOT, _two(0.0, keeps_disk=False), STORE, preempt=LONG, home_skew=timedelta(minutes=-3)
    ),
    "two machines at once, disks kept": Scenario(
        SLOT, _two(1.0), STORE | {Trouble.NO_POINTERS}, home_skew=timedelta(minutes=3)
    ),
    "two machines, one after the other": Scenario(
        SLOT, _two(50.0, keeps_disk=False), STORE | {Trouble.OUTAGE}
    ),
    "two machines and two readers": Scenario(
        SLOT,
        _two(2.0, keeps_disk=False),
        STORE | {Trouble.NO_POINTERS, Trouble.LAGS, Trouble.GAPS},
        home_skew=timedelta(minutes=2),
        second_reader=True,
    ),
    "two machines, listings that lag": Scenario(
        SLOT, _two(2.0), frozenset({Trouble.LAGS, Trouble.GAPS, Trouble.DIES_AFTER})
    ),
    "two machines that stand still": Scenario(
        SLOT,
        _two(700.0, job_seconds=400.0, limit=timedelta(hours=1)),
        frozenset({Trouble.SUSPENDED, Trouble.DIES_AFTER}),
    ),
    "a long job, and a second machine": Scenario(
        SLOT,
        _two(720.0, job_seconds=900.0, limit=timedelta(hours=1)),
        frozenset({Trouble.FAILED, Trouble.DIES_BEFORE}),
    ),
    "a slot's machine, and one that nobody scheduled": Scenario(
        SLOT, _then_unscheduled(1100.0), STORE | {Trouble.OUTAGE}
    ),
    "a slot's machine at work, and one that nobody scheduled": Scenario(
        SLOT, _then_unscheduled(15.0), STORE
    ),
    "a shard and its twin, clocks that jump": Scenario(
        SHARD,
        _two(3.0, retried=True, keeps_disk=False, jump=timedelta(minutes=-7)),
        STORE,
        preempt=LONG,
    ),
}


@dataclass
class Verdict:
    """Watches a run of the world, and says what is wrong with it."""

    scenario: Scenario
    world: World
    rules: Rules
    truth: Truth
    home: Home
    entries: list[tuple[Stored, EntryKey, Entry]] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def _lagged(self) -> bool:
        return bool({Trouble.LAGS, Trouble.GAPS} & set(self.world.happened))

    def applied(self, stored: Stored) -> None:
        """Check an object at the moment at which it arrives."""
        before = [one for one in self.world.history[:-1] if one.key == stored.key]
        assert all(one.data == stored.data for one in before), f"{stored.key} was changed"
        key = parse_key(stored.key)
        assert key is not None, f"{stored.key} is not a key of the contract"
        if not isinstance(key, EntryKey):
            return
        entry = entry_of(stored.data)
        self.entries.append((stored, key, entry))
        beginnings = [one for _, _, one in self.entries if one.run == entry.run and one.began]
        assert beginnings, "something of a run came before its beginning"
        for job in entry.jobs:
            assert job.package is not None
            package = self.world.objects.get(job.package.key)
            assert package is not None, f"an entry names {job.package.key}, which is not there"
            assert object_of(package.key, package.data) == job.package
            assert JobKey(entry.run, job.name, "files/page.html").text in self.world.objects

    @property
    def batches(self) -> set[Batch]:
        """The batches that somebody worked for, or that an entry is of."""
        return {*self.truth.batches.values(), *(key.batch for _, key, _ in self.entries)}

    def of(self, batch: Batch) -> "Verdict":
        """Return the verdict's part that is about one batch."""
        entries = [one for one in self.entries if one[1].batch == batch]
        runs = {run for run, own in self.truth.batches.items() if own == batch}
        runs |= {key.run for _, key, _ in entries}
        truth = replace(
            self.truth,
            started=[one for one in self.truth.started if one.run in runs],
            committed={one for one in self.truth.committed if one[0] in runs},
        )
        home = copy(self.home)
        home.counted = [one for one in self.home.counted if one.run in runs]
        home.shown = [one for one in self.home.shown if one[1] in runs]
        scenario = replace(self.scenario, batch=batch)
        return replace(self, scenario=scenario, truth=truth, home=home, entries=entries)

    def went_on(self) -> None:
        """Check with which batch those went on that nobody scheduled: one that was lost, and none that is alive."""
        for run, at in self.truth.unscheduled.items():
            batch = self.truth.batches.get(run)
            earlier = self._earlier_run(at)
            if batch is None or earlier is None:
                continue
            alive = self.truth.stopped.get(earlier, 1e9) > at
            done = any(
                entry.run == earlier and entry.closed and entry.closed.status in COMPLETE
                for stored, _, entry in self.entries
                if stored.at < at
            )
            goes_on = batch == self.scenario.batch
            assert not (goes_on and (alive or done)), f"{run} goes on with what is done, or alive"
            missed = any(self.world.happened[one] for one in (Trouble.FAILED, Trouble.OUTAGE))
            lost = not alive and not done and at > DEADLINE
            assert goes_on or missed or not lost, f"{run} does not go on with what was lost"
            self.tally["went on with a batch"] += goes_on

    def _earlier_run(self, at: float) -> str | None:
        """Return the run of the scenario's batch that had begun by then."""
        for stored, key, entry in self.entries:
            if key.batch == self.scenario.batch and entry.began and stored.at < at:
                return key.run
        return None

    def judge(self, log: list[Arrived]) -> None:
        """Check the whole, when nothing is under way any more and home has seen everything."""
        pointers = self._pointers()
        state = self.rules.fold(self.scenario.batch, log, pointers)
        now = self.world.moment()
        self._jobs_are_kept(state)
        self._each_counts_once(state, log)
        self._home_agrees(state)
        self._lost_is_lost()
        self._starts()
        for reader in (log[::-1], sorted(log, key=lambda one: one.key.text), [*log, *log]):
            assert self.rules.fold(self.scenario.batch, reader, pointers) == state
        for run in state.runs.values():
            assert not (run.stood_back and run.results), "a run that stood back has results"
            self.tally[f"runs {run.status(now).value}"] += 1
        self.tally["jobs done twice"] += sum(len(run.results) for run in state.runs.values()) - len(
            {name for run in state.runs.values() for name in run.results}
        )

    def _jobs_are_kept(self, state: State) -> None:
        arrived = {
            (entry.run, job.name)
            for _, _, entry in self.entries
            for job in entry.jobs
            if job.succeeded
        }
        assert self.truth.committed <= arrived, (
            "an entry was told to be committed, and is not there"
        )
        for run, job in arrived:
            assert job in state.successes, f"{job} of {run} was committed and is lost"
            assert state.runs[run].results[job].job.succeeded, f"{job} of {run} is lost"

    def _each_counts_once(self, state: State, log: list[Arrived]) -> None:
        first: dict[str, tuple[Any, ...]] = {}
        for stored, key, entry in self.entries:
            for job in entry.jobs:
                order = (stored.written, key.text, entry.run)
                if job.succeeded:
                    first[job.name] = min(first.get(job.name, order), order)
        counts = {job: result.run for job, result in state.successes.items()}
        wanted = {job: order[2] for job, order in first.items()}
        assert counts == wanted, "another success counts than the first to arrive"
        if not self._lagged:
            self._count_never_changes(self.home.counted)

    def _count_never_changes(self, counted: list[Result]) -> None:
        """Check that what once counts counts for ever, but for two that arrived in the same second."""
        for job in {one.job.name for one in counted}:
            mine = [one for one in counted if one.job.name == job]
            for one, other in pairwise(mine):
                assert one.run == other.run or one.at == other.at, f"another {job} counts"

    def _home_agrees(self, state: State) -> None:
        """Check that home sees what there is; it cannot know of a run that never had a pointer put."""
        home = self.home.states.get(self.scenario.batch, State(self.scenario.batch))
        told = {key.entry.run for key in self._pointers()}
        unknown = set(state.runs) - set(home.runs)
        happened = self.world.happened
        cut_off = {Trouble.NO_POINTERS, Trouble.OUTAGE} & set(happened)
        assert not unknown & told, "home has never heard of a run"
        assert not unknown or cut_off or sum(happened[one] for one in FAULTS) > 3, (
            "home has never heard of a run"
        )
        seen, there = self._meaning(home), self._meaning(state)
        assert seen["runs"].items() <= there["runs"].items(), "home has another picture of a run"
        assert seen == there or unknown, "home has another picture"
        self.tally["runs that home cannot know"] += len(unknown)

    def _pointers(self) -> list[PointerKey]:
        return [
            key
            for text in self.world.objects
            if isinstance(key := parse_key(text), PointerKey)
            and key.entry.batch == self.scenario.batch
        ]

    def _meaning(self, state: State) -> Meaning:
        now = self.world.moment()
        done = state.done_by
        return {
            "done": done.id if done else None,
            "counts": {job: one.run for job, one in state.successes.items()},
            "runs": {
                run.id: (run.status(now), {job: one.job for job, one in run.results.items()})
                for run in state.runs.values()
            },
        }

    def _lost_is_lost(self) -> None:
        """Check that home called nobody lost whose end it could have seen."""
        lag = LAG if self._lagged else 0.0
        ended = {
            entry.run: stored.at
            for stored, _, entry in reversed(self.entries)
            if entry.closed or entry.stood_back
        }
        for asked, run, status in self.home.shown:
            if status is RunStatus.LOST:
                self.tally["lost, as home shows"] += 1
                assert ended.get(run, 1e9) > asked - lag, f"{run} is called lost, and had ended"
                alive = self.truth.stopped.get(run, 1e9) > asked
                assert not alive or self.world.happened[Trouble.SUSPENDED], (
                    f"{run} is called lost, and works"
                )

    def _starts(self) -> None:
        """Check that no job was started without a right to, again after its success, or beside another run."""
        for start in self.truth.started:
            if start.run not in self.truth.claimless:
                self._wanted(start)
            if start.run not in self.truth.retried:
                self._nobody_else(start)

    def _wanted(self, start: Started) -> None:
        """Check that neither the job nor the batch was done when the run last looked."""
        retried = start.run in self.truth.retried
        for stored, _, entry in self.entries:
            if stored.at <= self._surely_seen(start):
                again = any(job.name == start.job and job.succeeded for job in entry.jobs)
                assert not again, f"{start.job} was started again, after its success"
                done = entry.closed is not None and entry.closed.status in COMPLETE
                assert retried or not done, "a batch that is done is worked again"

    def _nobody_else(self, start: Started) -> None:
        """Check that no other run works, or that this one could not know."""
        for other in {one.run for one in self.truth.started if one.at <= start.at} - {start.run}:
            alive = self.truth.stopped.get(other, 1e9) > start.at
            if not alive or self._right(start.run, other):
                continue
            known = self._began(other) <= self._surely_seen(start)
            claimless = {other, start.run} & self.truth.claimless
            excused = self._lagged or self.world.happened[Trouble.SUSPENDED] or claimless
            assert excused, f"{start.run} and {other} work at the same time"
            assert not known, f"{start.run} works, and knows that {other} works at the same time"

    def _right(self, run: str, other: str) -> bool:
        """Tell whether a run has the better claim by the store's time: it was first, or the other silent, not it."""
        runs = {run: self._order(run), other: self._order(other)}
        first, second = sorted(runs, key=lambda one: runs[one])
        return run == (second if self._silent(first, before=second) else first)

    def _surely_seen(self, start: Started) -> float:
        """Return until when what arrived was in the last listing that a run had seen."""
        return start.looked - LAG if self._lagged else start.looked

    def _order(self, run: str) -> tuple[Any, ...]:
        return min(
            (one.written, key.text)
            for one, key, entry in self.entries
            if entry.run == run and entry.began
        )

    def _began(self, run: str) -> float:
        return min(
            (one.at for one, _, entry in self.entries if entry.run == run and entry.began),
            default=1e9,
        )

    def _silent(self, run: str, *, before: str) -> bool:
        """Tell whether a run had given no sign of life for ten minutes when another began."""
        began = self._began(before)
        signs = [
            stored.at
            for stored in self.world.history
            if isinstance(key := parse_key(stored.key), EntryKey | LogKey) and key.run == run
        ]
        return max((sign for sign in signs if sign <= began), default=began) < began - 10 * MINUTE


async def play(scenario: Scenario, rules: Rules, choices: Choices, tally: Counter[str]) -> None:
    """Let one run of the world happen, and judge it."""
    world = World(choices, scenario.troubles, preempt=scenario.preempt)
    truth = Truth()
    homes = {Home(world, rules, scenario.home_skew): LOOKS}
    if scenario.second_reader:
        homes[Home(world, rules, -scenario.home_skew)] = SECOND_LOOKS
    home, *_ = homes
    verdict = Verdict(scenario, world, rules, truth, home, tally=tally)
    world.on_applied = verdict.applied
    for name, (moment, options) in zip("mn", scenario.machines, strict=False):
        machine = Machine(world, rules, truth, scenario.batch, name, **options)
        world.at(moment, machine.boot)
    for reader, looks in homes.items():
        reader.start(*looks)
    await world.run()
    world.troubles = frozenset()
    world.preempt = False
    tally.update(
        trouble.value for trouble in world.happened.elements() if trouble is not Trouble.NONE
    )
    tally["requests"] += sum(world.happened.values())
    for reader in homes:
        reader.go_on(world.now + DAYS)
    await world.run()
    for reader, batch in product(homes, verdict.batches):
        replace(verdict, home=reader).of(batch).judge(arrived_of(world, batch))
    verdict.went_on()


def check(
    scenario: Scenario, rules: Rules, *, budget: int, most: int, seed: int | None = None
) -> Counter[str]:
    """Explore a scenario."""
    tally: Counter[str] = Counter()

    async def once(choices: Choices) -> None:
        await play(scenario, rules, choices, tally)

    for choices in explore(once, budget, most, seed):
        tally["worlds"] += 1
        tally[f"worlds with {sum(map(bool, choices))} pieces of trouble"] += 1
    return tally


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_protocol_keeps_its_promises(name: str) -> None:
    """With any one piece of trouble anywhere, and with several: nothing is lost, changed, or counted twice."""
    began = time.monotonic()
    tally = check(SCENARIOS[name], Rules(), budget=PAIRS, most=MOST)
    tally += check(SCENARIOS[name], Rules(), budget=6, most=SAMPLES, seed=SEED)
    print(f"\n{name}: {time.monotonic() - began:.1f} s, {dict(sorted(tally.items()))}")


@pytest.mark.parametrize("name", BROKEN)
def test_the_model_notices_a_broken_rule(name: str) -> None:
    """Each rule is there for something: without it, a promise breaks in a scenario that it keeps else."""
    scenario, rules, promise = BROKEN[name]
    with pytest.raises(AssertionError, match=promise):
        check(SCENARIOS[scenario], rules, budget=1, most=MOST)
