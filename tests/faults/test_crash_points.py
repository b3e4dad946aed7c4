"""kill -9 of the real `mayfly run` at every named step, and run again: nothing lost, nothing twice, nothing wrong.

In two forms: the disk is kept, and all that was finished is in the bucket after the next run; or it is wiped between
the kill and the next run, and all is there that had ended ten seconds before.

`MAYFLY_CRASH_SEEDS=25` for all points with 25 seeds each. A single case again:
`MAYFLY_CRASH_FROM=7 MAYFLY_CRASH_SEEDS=1 MAYFLY_CRASH_POINT='entry put: after' pytest ... -k 'run and kept'`.
"""

import json
import os
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bucket.sound import Broken
from tests.faults.figures import Figures
from tests.faults.points import ON_THE_KEPT_DISK, POINTS, RECOVERY, SHARD_POINTS, Point
from tests.faults.scenario import LASTS, Scenario
from tests.parts.seaweed import S3Server

SEEDS = int(os.environ.get("MAYFLY_CRASH_SEEDS", "0"))
FIRST = int(os.environ.get("MAYFLY_CRASH_FROM", "1"))
ONLY = os.environ.get("MAYFLY_CRASH_POINT", "")
LONG = 25
"""Seeds of which the figures are kept."""
EVERY = 1 if SEEDS else 5
"""The short form takes every fifth point."""
HOURS = 6 * 3600
DIES = "agent.delivery.spool:SpooledRun.end:leave"
"""Where the run is killed whose recovery is killed."""
AT_ONCE = {"kept": 2, "wiped": 6}
"""Computers at once; those whose disk is wiped mostly wait for a job."""


@dataclass
class Tally:
    """What became of a point's cases."""

    cases: int = 0
    broken: Broken = field(default_factory=Broken)
    converged: int = 0
    most: int = 0
    not_reached: int = 0
    read: int = 0


@pytest.mark.timeout(HOURS)
@pytest.mark.parametrize("disk", ["kept", "wiped"])
@pytest.mark.parametrize("kind", ["run", "shard"])
@pytest.mark.long
def test_killed_at_every_point(tmp_path: Path, s3_server: S3Server, kind: str, disk: str) -> None:
    """Each time the next run, or the one after it, has all that must be there in the bucket, once, as it was."""
    seeds = range(FIRST, FIRST + max(SEEDS, 1))
    every = SHARD_POINTS if kind == "shard" else POINTS
    if disk == "wiped":
        every = tuple(point for point in every if not point.where.startswith(ON_THE_KEPT_DISK))
    points = [point for point in every if ONLY in point.name][:: 1 if ONLY else EVERY]
    began = time.monotonic()
    tallies: defaultdict[str, Tally] = defaultdict(Tally)

    def chain(seed: int) -> list[str]:
        in_s3 = seed % 3 == 0
        lasts = LASTS if disk == "wiped" and seed % 2 == 1 else 3.0 if seed % 5 == 0 else 0.0
        scenario = Scenario.make(
            tmp_path / str(seed),
            f"{seed} {disk}",
            s3_server if in_s3 else None,
            early=lasts,
            shard=kind == "shard",
        )
        lines = _chain(scenario, seed, points, tallies, wiped=disk == "wiped")
        log = scenario.wiped
        tallies["log"].read += log.read
        return [*lines, *([f"seed {seed}: {log}"] if log.unreadable else [])]

    with ThreadPoolExecutor(AT_ONCE[disk]) as pool:
        wrong = [line for lines in pool.map(chain, seeds) for line in lines]
    _report(kind, disk, tallies, points, time.monotonic() - began)
    assert not wrong, "\n".join(wrong)


def _chain(
    scenario: Scenario,
    seed: int,
    points: Sequence[Point],
    tallies: dict[str, Tally],
    *,
    wiped: bool,
) -> list[str]:
    """Break one computer at each of the points in turn; return what was wrong, with how to see it again."""
    counts = scenario.bench.folder / "counts.json"
    scenario.release()
    assert not scenario.crashing("none", 0, counts)
    passed: dict[str, int] = json.loads(counts.read_text())
    wrong = []
    before = Broken()
    for point in points:
        chance = random.Random(f"{seed} {point.name}")
        occurrence = chance.randint(1, passed.get(point.where, 1))
        tally = tallies[point.name]
        killed = _kill_at(scenario, point, occurrence)
        if wiped:
            scenario.wipe()
        runs = scenario.converge()
        seen = scenario.examine()
        tally.cases += 1
        tally.not_reached += not killed
        tally.converged += runs <= 2
        tally.most = max(tally.most, runs)
        # What was wrong already is the earlier point's.
        tally.broken += seen - before
        if seen != before or runs > 2 or not killed:
            wrong.append(
                f"MAYFLY_CRASH_FROM={seed} MAYFLY_CRASH_SEEDS=1 MAYFLY_CRASH_POINT={point.name!r}: "
                f"occurrence {occurrence}, killed {killed}, runs {runs}, {seen - before}"
            )
            sys.stdout.write(f"{wrong[-1]}\n")
        before = seen
    return wrong


def _kill_at(scenario: Scenario, point: Point, occurrence: int) -> bool:
    """Have a run killed at a point, the first time it is passed where it is not passed so often."""
    for number in dict.fromkeys((occurrence, 1)):
        scenario.release()
        if point.where.startswith(RECOVERY):
            scenario.crashing(DIES, 1)
        if scenario.crashing(point.where, number):
            return True
    return False


def _report(
    kind: str, disk: str, tallies: dict[str, Tally], points: Sequence[Point], seconds: float
) -> None:
    tables = {("run", "kept"): "1", ("shard", "kept"): "1b", ("run", "wiped"): "1c"}
    figures = Figures(
        point=tables.get((kind, disk), "1d"),
        title=f"kill -9 at the named steps of a {kind}, its disk {disk}",
        command=f"MAYFLY_CRASH_SEEDS={SEEDS or 1} pytest tests/faults/test_crash_points.py -s",
        columns=(
            *("killed at", "cases", "finished files lost", "committed twice"),
            *("objects missing or different", "unlisted or vanished", "converged", "runs it took"),
        ),
        seed=FIRST,
        long=SEEDS >= LONG and not ONLY,
    )
    whole = Tally()
    for point in points:
        tally = tallies[point.name]
        if tally.broken != Broken() or tally.converged < tally.cases or tally.not_reached:
            figures.row(point.name, *_cells(tally))
        whole.cases += tally.cases
        whole.broken += tally.broken
        whole.converged += tally.converged
        whole.most = max(whole.most, tally.most)
    figures.row(f"all {len(points)} points", *_cells(whole))
    figures.write()
    each = seconds / max(whole.cases, 1)
    read = tallies["log"].read
    sys.stdout.write(f"\n{seconds:.0f} s, {each:.1f} s for each case; {read} lines of lost logs\n")


def _cells(tally: Tally) -> tuple[int | str, ...]:
    broken = tally.broken
    share = f"{100 * tally.converged / max(tally.cases, 1):g} %"
    wrong = broken.missing + broken.different
    extra = broken.unlisted + broken.vanished
    return (tally.cases, broken.lost, broken.twice, wrong, extra, share, f"<= {tally.most}")
