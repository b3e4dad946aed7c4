"""Store faults between the real `mayfly run` and a real S3 server, while readers pull every 50 ms.

Each trial draws from its seed what the job writes, which requests meet the fault and when it ends: while the run still
tries, or not before the run has given up and the next one delivers it. `MAYFLY_STORE_FAULT_RUNS=20` for the whole
matrix (by default one run for a few of the faults), `MAYFLY_STORE_FAULT_SEED` to begin with another seed.
"""

import os
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from random import Random
from statistics import median

import pytest

from tests.bucket.layout import DESCRIPTOR, ENTRIES, POINTERS, STATES
from tests.faults.figures import Figures
from tests.faults.readers import Inspector, Puller
from tests.faults.world import World, seeds
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import (
    Answer,
    Delay,
    Fault,
    HalfClose,
    LoseAnswer,
    ResetDownload,
    ResetUpload,
    Throttle,
)
from tests.run.bench import Ran

RUNS = int(os.environ.get("MAYFLY_STORE_FAULT_RUNS", "0"))
SEED = int(os.environ.get("MAYFLY_STORE_FAULT_SEED", "1"))
LONG = RUNS >= 20
LASTING_SECONDS = 100.0
"""A fault that outlives the run; it ends with it."""

ANYWHERE = (
    *("", "", "/many/", "/log/", f"/{DESCRIPTOR}"),
    *(f"/{ENTRIES}", f"/{STATES}", f"/{POINTERS}"),
)
COMMAND = f"MAYFLY_STORE_FAULT_RUNS={RUNS} pytest tests/faults/test_store.py -s"

FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "latency, 0.4 s for each request": (Delay(0.4), ("",)),
    "bandwidth, 40 kB/s for each request": (Throttle(40_000), ("",)),
    "reset in the middle of an upload": (ResetUpload(100), ANYWHERE),
    "reset in the middle of an answer": (ResetDownload(100), ANYWHERE),
    "half-closed without an answer": (HalfClose(), ANYWHERE),
    "answer lost, of any request": (LoseAnswer(), ANYWHERE),
    "answer lost, of the commit": (LoseAnswer(), (f"/{ENTRIES}",)),
    "500": (Answer(500), ANYWHERE),
    "503 SlowDown": (Answer(503, "SlowDown"), ANYWHERE),
    "403 AccessDenied": (Answer(403, "AccessDenied"), ANYWHERE),
    "400 ExpiredToken": (Answer(400, "ExpiredToken"), ANYWHERE),
    "403 RequestTimeTooSkewed": (Answer(403, "RequestTimeTooSkewed"), ANYWHERE),
}

EVERY_DAY = ("reset in the middle of an upload", "answer lost, of the commit", "503 SlowDown")


@dataclass
class Tally:
    """What was seen of one fault."""

    hits: int = 0
    same: int = 0
    later: int = 0
    recovery: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def row(self) -> tuple[int, int, int, int, int, int, str]:
        """Return what the table of figures says of it."""
        duplicates = sum("twice" in problem for problem in self.problems)
        took = f"{median(self.recovery):.1f} / {max(self.recovery):.1f}"
        return (
            self.same + self.later,
            self.hits,
            self.same,
            self.later,
            duplicates,
            len(self.problems) - duplicates,
            took,
        )


def moment(ran: Ran, run: str) -> float | None:
    """Return when a run was closed with all its jobs, by the log of the run that did it; None when that did not."""
    for event in ran.log:
        own = event["event"] == "run.closed" and event["run_id"] == run and ran.code == 0
        if own or (event["event"] == "recovery.closed" and event["of"] == run):
            return datetime.fromisoformat(event["timestamp"]).timestamp()
    return None


def trial(
    world: World, fault: Fault, places: tuple[str, ...], seed: int, rng: Random, *, tally: Tally
) -> None:
    """Make one run with a fault, and another where that one could not deliver."""
    lasting = rng.random() < 0.3
    world.seed(seed)
    method = rng.choice(["PUT", "PUT", ""])
    world.proxy.inject(fault, method=method, path=rng.choice(places))
    ended: list[float] = []
    over, before, holds = threading.Event(), world.proxy.met, rng.uniform(0.1, 2.5)

    def end() -> None:
        # Only what is stuck for ever has to be shaken off.
        world.proxy.heal() if isinstance(fault, HalfClose) else world.proxy.relent()
        ended.append(time.time())

    def end_in_time() -> None:
        """End the fault some time after a first request has met it, or with the run."""
        while world.proxy.met == before and not over.wait(0.02):
            continue
        over.wait(LASTING_SECONDS if lasting else holds)
        end()

    ending = threading.Thread(target=end_in_time)
    ending.start()
    try:
        ran = world.bench.run(limits__handoff="3s" if lasting else "60s")
    finally:
        over.set()
        ending.join()
    tally.hits += world.proxy.met - before
    committed = moment(ran, ran.run_id)
    tally.same += committed is not None
    if ran.code not in (0, 6):
        tally.problems.append(f"seed {seed}: exit code {ran.code}: {ran.stderr[-2000:]}")
        return
    if committed is None:
        again = world.bench.run()
        committed = moment(again, ran.run_id)
        tally.later += 1
        tally.problems += [f"seed {seed}: {text}" for text in world.problems(again, seed)]
    if committed is not None:
        tally.recovery.append(max(0.0, committed - ended[0]))
    tally.problems += [f"seed {seed}: {text}" for text in world.problems(ran, seed)]
    if world.bench.spool:
        tally.problems.append(f"seed {seed}: the spool holds {world.bench.spool}")


@pytest.mark.timeout(7200)
@pytest.mark.long
def test_faults_of_a_store(tmp_path: Path, s3_proxy: FaultProxy) -> None:
    """Nothing is committed twice or lost, the same run or the next delivers it, and no reader sees anything wrong."""
    store = Figures(
        point="4",
        title="Store faults through a proxy",
        command=COMMAND,
        columns=(
            *("fault", "runs", "requests hit", "delivered by the same run", "by the next"),
            *("duplicates", "lost", "from the fault's end to the commit, s (median / longest)"),
        ),
        seed=SEED,
        long=LONG,
    )
    readers = Figures(
        point="5",
        title="A pull every 50 ms through the same faults",
        command=COMMAND,
        columns=("fault", "pulls", "looks", "runs seen", "partial or wrong reads"),
        seed=SEED,
        long=LONG,
    )
    problems: list[str] = []
    for number, (name, (fault, places)) in enumerate(FAULTS.items()):
        if not RUNS and name not in EVERY_DAY:
            continue
        world = World.make(tmp_path / str(number), s3_proxy)
        dest = tmp_path / str(number) / "home"
        whole = Tally()
        with (
            Inspector(dest, world.bucket) as inspector,
            Puller(dest, world.bucket) as puller,
        ):
            for seed, rng in seeds(SEED + 1000 * number, RUNS or 1):
                trial(world, fault, places, seed, rng, tally=whole)
        store.row(name, *whole.row())
        readers.row(name, puller.pulls, inspector.looks, len(inspector.seen), len(inspector.wrong))
        problems += [f"{name}: {text}" for text in whole.problems]
        problems += [f"{name}: {text}" for text in (*inspector.wrong, *puller.defects)]
        if len(inspector.seen) != len(world.bucket.runs):
            problems.append(f"{name}: the reader saw {len(inspector.seen)} runs of what is there")
        problems += [f"{name}: {text}" for text in puller.rejected]
    store.write()
    readers.write()
    assert problems == []
