"""Readers that are killed beside an agent that is killed: whoever looks at the folder at home sees whole runs only.

`MAYFLY_READER_KILLS=20` for the whole; by default the agent is killed twice.
"""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.bucket.sound import all_sound
from tests.faults.figures import Figures
from tests.faults.readers import Inspector, KilledPuller
from tests.faults.world import World, seeds
from tests.parts.faultproxy import FaultProxy

KILLS = int(os.environ.get("MAYFLY_READER_KILLS", "2"))
SEED = int(os.environ.get("MAYFLY_READER_SEED", "1"))


@pytest.mark.timeout(3600)
@pytest.mark.long
def test_readers_beside_kills(tmp_path: Path, s3_proxy: FaultProxy) -> None:
    """Runs and pulls are killed at random moments: nothing partial or wrong is visible, and at the end all is there."""
    world = World.make(tmp_path / "world", s3_proxy)
    began = time.monotonic()
    assert world.bench.run().code == 0
    usual = time.monotonic() - began
    dest, killed, problems = tmp_path / "home", 0, []
    with (
        Inspector(dest, world.bucket) as inspector,
        KilledPuller(
            dest, world.bucket.environ, tmp_path / "pull.log", seeds(SEED, 1)[0][1]
        ) as puller,
    ):
        for seed, rng in seeds(SEED, KILLS):
            world.seed(seed)
            with world.bench.running() as process:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(rng.uniform(0.2, 1.1) * usual)
                process.send_signal(signal.SIGKILL)
                killed += process.wait(20) == -signal.SIGKILL
            again = world.bench.run()
            problems += [f"seed {seed}: {text}" for text in world.problems(again, seed)]
            if world.bench.spool:
                problems.append(f"seed {seed}: the spool holds {world.bench.spool}")
    figures = Figures(
        point="5b",
        title="Readers that are killed, beside an agent that is killed",
        command=f"MAYFLY_READER_KILLS={KILLS} pytest tests/faults/test_readers.py -s",
        columns=("agents killed", "pulls killed", "looks", "runs seen", "partial or wrong reads"),
        seed=SEED,
        long=KILLS >= 20,
    )
    figures.row(killed, puller.kills, inspector.looks, len(inspector.seen), len(inspector.wrong))
    figures.write()
    assert [*problems, *inspector.wrong, *puller.problems] == []
    good = [run for run in all_sound(world.bucket) if _succeeded(world, run)]
    assert {run for _, run in inspector.seen} == set(good)


def _succeeded(world: World, run: str) -> bool:
    """Tell whether the job of a run succeeded: of others nothing is pulled."""
    return "succeeded" in world.bucket.run(run).statuses.values()
