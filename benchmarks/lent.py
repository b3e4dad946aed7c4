"""A lent machine's night in a virtual machine: from power-on to power-off, on an image in which v1.0 was baked.

`python -m benchmarks.lent [FOLDER]` boots an image as `make image` leaves it, by default the one that the tests boot.
Nobody logs in: what is reached is read off the console, and when the agent started off the manifest.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.cold import FIRST, FIRST_BROWSER, LAST_COMMIT, NEW, NEW_PACKAGES
from benchmarks.packages import Index
from benchmarks.results import Case, Findings, Sample, find, in_turn
from tests.machine.world import World, world
from tests.parts.machine import Disk, Machine, MachineError
from tests.parts.machine_disk import built_disk
from tests.parts.machine_release import BAKED, BAKED_JOBS, WHICH, publish

ROUNDS = int(os.environ.get("MAYFLY_BENCH_ROUNDS", "3"))
NIGHT_SECONDS = 1200.0
POLL_SECONDS = 0.05
INDEX = "10.0.2.13:80"
"""Where the machine finds the index of packages."""
AGENT, RUN, READY, ENDED = "to the agent", "to the run", "to the browser", "to the run's end"
BEFORE_THE_AGENT = ("kernel", "userspace")
"""Phases of the manifest, from the kernel's start to that of the agent's process."""

IMPORTS = f"""
[[job]]
name = "imports"
command = ["python", "-c", "import {", ".join(NEW_PACKAGES)}"]
timeout = "8m"
"""


def lent(disk: Disk) -> Findings:
    """Boot a new machine for each night; the releases are the same in each round."""
    numbers = count()
    with tempfile.TemporaryDirectory() as name, Index(NEW_PACKAGES) as index:
        folder = Path(name)
        locked = index.locked(folder / "lock", NEW_PACKAGES, seen_at=INDEX.removesuffix(":80"))

        def night(who: str, jobs: tuple[str, ...], more: Mapping[str, str]) -> Iterable[Sample]:
            number = next(numbers)
            place = folder / f"world-{number}"
            place.mkdir()
            with world(place) as around:
                if who != BAKED:
                    publish(around.repo, NEW, *jobs, **more)
                with around.machine(disk, folder / f"machine-{number}") as machine:
                    machine.services[INDEX] = index.port
                    return (Sample(who, reached(machine, around)),)

        turns: dict[str, Callable[[], Iterable[Sample]]] = {
            BAKED: partial(night, BAKED, (), {}),
            "v1.5 with the same lock": partial(night, "v1.5 with the same lock", BAKED_JOBS, {}),
            "v1.5 with 40 new packages": partial(
                night, "v1.5 with 40 new packages", (WHICH, IMPORTS), locked
            ),
        }
        samples = in_turn(turns, ROUNDS)
    notes = (
        "QEMU without hardware virtualization, two cores: every second here is several times one of a real machine.",
        (
            f"`{BAKED}` and the release with its lock have three jobs, one in a browser; the one with new packages has "
            "two, one of which imports all of them, and no browser; that of the release before is started on a guess."
        ),
    )
    case = Case("a new machine, from power-on to power-off", "virtual machine", samples)
    return Findings((case,), notes=notes)


def reached(
    machine: Machine, around: World, point_reached: Callable[[str], None] = lambda _: None
) -> dict[str, float]:
    """Boot it, and return seconds from power-on to each point, and to the power-off (`wall`).

    Nobody logs in. `point_reached` is called with each point when it is seen.

    Raises:
        MachineError: It stayed on, or its run did not succeed.
    """
    begun, seen, at = time.monotonic(), dict[str, float](), 0
    machine.boot()
    while machine.running:
        if time.monotonic() - begun > NIGHT_SECONDS:
            raise MachineError(f"it is still on\n{machine.tail()}")
        time.sleep(POLL_SECONDS)
        text = machine.console.read_text(errors="replace") if machine.console.exists() else ""
        whole = text.rpartition("\n")[0]
        for point in _points(whole[at:]):
            if point == LAST_COMMIT or point not in seen:
                seen[point] = time.monotonic() - begun
                point_reached(point)
        at = len(whole)
    wall = time.monotonic() - begun
    runs = around.closed()
    if [run.status for run in runs] != ["succeeded"]:
        said = [(run.status, run.record) for run in runs]
        raise MachineError(f"its runs: {json.dumps(said)[:2000]}\n{machine.tail()}")
    closed = runs[0].closed or {}
    before = [one["seconds"] for one in closed["phases"] if one["name"] in BEFORE_THE_AGENT]
    return {"wall": wall, AGENT: sum(before), **seen}


def _points(text: str) -> Iterator[str]:
    """Yield what lines of the run's log say was reached."""
    for line in text.splitlines():
        if '"event": "run.started"' in line:
            yield RUN
        elif '"event": "job.started"' in line:
            yield FIRST
            if '"job": "quotes"' in line:
                yield FIRST_BROWSER
        elif '"event": "browser.ready"' in line:
            yield READY
        elif '"event": "jobs.committed"' in line or '"event": "run.closed"' in line:
            yield LAST_COMMIT
        elif '"event": "run.ended"' in line:
            yield ENDED


def main() -> None:
    """Measure, and keep what was found."""
    with nullcontext(Disk.at(Path(sys.argv[1]))) if sys.argv[1:] else built_disk() as disk:
        result = find("lent", partial(lent, disk))
    for case in result.findings.cases:
        for sample in case.samples:
            row = ", ".join(f"{name} {value:.1f}" for name, value in sample.figures.items())
            print(f"{sample.who}: {row}")  # noqa: T201


if __name__ == "__main__":
    main()
