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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from tests.bucket.sound import Broken
from tests.faults.figures import Figures
from tests.faults.points import ON_THE_KEPT_DISK, POINTS, RECOVERY, SHARD_POINTS, Point
from tests.faults.scenario import LASTS, Scenario, Wiped
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
PARTS = {"kept": 1, "wiped": 4}
"""Computers among which the short form deals its points; in the long form each seed has one, for all of them."""


@dataclass(frozen=True)
class Case:
    """What became of a kill.

    Attributes:
        occurrence: At which passage of the point it was meant to be.
        runs: How many more it took until nothing waited.
        broken: What does not hold since.
    """

    seed: int
    point: Point
    occurrence: int
    killed: bool
    runs: int
    broken: Broken

    @property
    def wrong(self) -> str:
        """What is wrong, with how to see it again; empty where nothing is."""
        if self.killed and self.runs <= 2 and self.broken == Broken():
            return ""
        again = f"MAYFLY_CRASH_FROM={self.seed} MAYFLY_CRASH_SEEDS=1"
        return f"{again} MAYFLY_CRASH_POINT={self.point.name!r}: {self}"


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
    parts = 1 if SEEDS or ONLY else min(PARTS[disk], len(points))
    began = time.monotonic()

    def chain(computer: tuple[int, int]) -> tuple[list[Case], Wiped]:
        seed, part = computer
        lasts = LASTS if disk == "wiped" and seed % 2 == 1 else 3.0 if seed % 5 == 0 else 0.0
        scenario = Scenario.make(
            tmp_path / f"{seed}-{part}",
            f"{seed} {disk}",
            s3_server if seed % 3 == 0 else None,
            early=lasts,
            shard=kind == "shard",
        )
        mine = points[part::parts]
        return _chain(scenario, seed, mine, wiped=disk == "wiped"), scenario.wiped

    with ThreadPoolExecutor(AT_ONCE[disk]) as pool:
        done = list(pool.map(chain, product(seeds, range(parts))))
    cases = [case for cases, _ in done for case in cases]
    _report(kind, disk, points, cases)
    read, seconds = sum(log.read for _, log in done), time.monotonic() - began
    each = seconds / max(len(cases), 1)
    sys.stdout.write(f"\n{seconds:.0f} s, {each:.1f} s for each case; {read} lines of lost logs\n")
    wrong = [case.wrong for case in cases if case.wrong]
    wrong += [f"{log}" for _, log in done if log.unreadable]
    assert not wrong, "\n".join(wrong)


def _chain(scenario: Scenario, seed: int, points: Sequence[Point], *, wiped: bool) -> list[Case]:
    """Break one computer at each of the points in turn."""
    counts = scenario.bench.folder / "counts.json"
    scenario.release()
    assert not scenario.crashing("none", 0, counts)
    passed: dict[str, int] = json.loads(counts.read_text())
    cases = []
    before = Broken()
    for point in points:
        chance = random.Random(f"{seed} {point.name}")
        occurrence = chance.randint(1, passed.get(point.where, 1))
        killed = _kill_at(scenario, point, occurrence)
        if wiped:
            scenario.wipe()
        runs = scenario.converge()
        seen = scenario.examine()
        # What was wrong already is the earlier point's.
        case = Case(seed, point, occurrence, killed, runs, seen - before)
        if case.wrong:
            sys.stdout.write(f"{case.wrong}\n")
        cases.append(case)
        before = seen
    return cases


def _kill_at(scenario: Scenario, point: Point, occurrence: int) -> bool:
    """Have a run killed at a point, the first time it is passed where it is not passed so often."""
    for number in dict.fromkeys((occurrence, 1)):
        scenario.release()
        if point.where.startswith(RECOVERY):
            scenario.crashing(DIES, 1)
        if scenario.crashing(point.where, number):
            return True
    return False


def _report(kind: str, disk: str, points: Sequence[Point], cases: Sequence[Case]) -> None:
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
    for point in points:
        mine = [case for case in cases if case.point == point]
        if any(case.wrong for case in mine):
            figures.row(point.name, *_cells(mine))
    figures.row(f"all {len(points)} points", *_cells(cases))
    figures.write()


def _cells(cases: Sequence[Case]) -> tuple[int | str, ...]:
    broken = sum((case.broken for case in cases), Broken())
    converged = sum(case.runs <= 2 for case in cases)
    share = f"{100 * converged / max(len(cases), 1):g} %"
    wrong = broken.missing + broken.different
    extra = broken.unlisted + broken.vanished
    most = max((case.runs for case in cases), default=0)
    return (len(cases), broken.lost, broken.twice, wrong, extra, share, f"<= {most}")
