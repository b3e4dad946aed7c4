"""From power-on to the first job and from there to the power-off, in a virtual machine, stage by stage.

`python -m benchmarks.machine [NAME=FOLDER...]` boots images in turn, each in a folder as `make image` leaves it.
By default it is the image that the tests boot.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import count, pairwise
from pathlib import Path

from benchmarks.results import Case, Findings, Sample, find, in_turn
from tests.machine.world import World, world
from tests.parts.machine import Disk, Machine
from tests.parts.machine_disk import built_disk
from tests.parts.machine_release import WHICH, publish
from tests.parts.waiting import wait_until

ROUNDS = int(os.environ.get("MAYFLY_BENCH_ROUNDS", "5"))
RUN_SECONDS, OFF_SECONDS = 600, 120
MICROSECONDS = 1e6

BESIDE_OTHER_WORK = (
    "Where the load is above 2, other work made it longer: compare stages, not days."
)

STAGES = ("kernel", "userspace", "network", "agent", "run", "job")
"""What is reached, one after the other: the kernel runs, systemd runs, an address is there, the unit's program starts,
the run has begun, its first job starts. Beside them the container engine, where something started it."""


def first_boot(disk: Disk, around: World, folder: Path) -> tuple[dict[str, float], str]:
    """Boot a machine that has never booted; return when each stage was reached, and systemd's own report.

    Seconds from power-on; `off` is from the moment when a run's end would ask for the power-off. Nobody logs in before
    the run is committed.
    """
    with around.machine(disk, folder) as machine:
        begun = time.monotonic()
        machine.boot(append="mayfly.maintain=20m")
        wait_until(lambda: bool(around.closed()), seconds=RUN_SECONDS, what="the run to end")
        machine.wait_up()
        started = _started(machine) - begun
        reached = {name: stamp + started for name, stamp in _stamps(machine).items()}
        chain = machine.ssh(
            "systemd-analyze critical-chain --no-pager mayfly.service; systemd-analyze blame --no-pager | head -n 25"
        )
        # The power may be off before the answer comes.
        leave = "rm -f /run/mayfly/lease; systemctl --no-block start mayfly-off.service"
        asked = time.monotonic()
        machine.ssh(leave, check=False)
        machine.wait_off(OFF_SECONDS)
        return reached | {"off": time.monotonic() - asked}, chain.stdout


def _started(machine: Machine) -> float:
    """Return when the machine's kernel started, on this machine's clock: as the quickest answer of three says."""
    answers = []
    for _ in range(3):
        asked = time.monotonic()
        uptime = float(machine.ssh("cat /proc/uptime").stdout.split()[0])
        answers.append((time.monotonic() - asked, asked - uptime))
    took, started = min(answers)
    return started + took / 2


def _stamps(machine: Machine) -> dict[str, float]:
    """Return seconds from the kernel's start."""
    show = "systemctl show --value --property"
    said = machine.ssh(
        f"{show}=UserspaceTimestampMonotonic; {show}=ActiveEnterTimestampMonotonic network-online.target;"
        f"{show}=ExecMainStartTimestampMonotonic mayfly.service;"
        f"{show}=ActiveEnterTimestampMonotonic docker.service"
    ).stdout.split()
    names = ("userspace", "network", "agent", "engine")
    # Zero stands for never.
    stamps = {
        name: int(text) / MICROSECONDS
        for name, text in zip(names, said, strict=True)
        if int(text) > 0
    }
    lines = machine.ssh("journalctl --boot --unit mayfly.service --output json").stdout.splitlines()
    for entry in map(json.loads, lines):
        stage = _stage(entry)
        if stage is not None:
            stamps.setdefault(stage, int(entry["__MONOTONIC_TIMESTAMP"]) / MICROSECONDS)
    return {"kernel": 0.0, **stamps}


def _stage(entry: Mapping[str, object]) -> str | None:
    message = str(entry.get("MESSAGE", ""))
    for stage, event in (("run", "run.started"), ("job", "job.started")):
        if f'"{event}"' in message:
            return stage
    return None


def _block(title: str, text: str) -> str:
    """Return a note with a program's own words below it."""
    lines = ["```text", *text.strip().splitlines(), "```"]
    return "\n".join([title, "", *(f"  {line}".rstrip() for line in lines)])


def measure(disks: Mapping[str, Disk]) -> Findings:
    """Boot each image several times, in turn."""
    numbers = count()
    notes = [
        "QEMU without hardware virtualization, two cores: every second here is several times one of a real machine.",
        "The guest's clock is asked over SSH, which takes up to two seconds: by half of them may all stamps be wrong.",
        BESIDE_OTHER_WORK,
    ]
    chains: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)

        def sample(who: str, disk: Disk) -> Sample:
            reached, chain = first_boot(disk, around, place / f"machine-{next(numbers)}")
            print(f"\n{who}: {reached}\n{chain}", file=sys.stderr, flush=True)  # noqa: T201
            chains[who] = chain
            took = {
                f"to {stage}": reached[stage] for stage in (*STAGES, "engine") if stage in reached
            }
            took |= {f"{one}-{two}": reached[two] - reached[one] for one, two in pairwise(STAGES)}
            return Sample(who, {"wall": reached["job"], **took, "power-off": reached["off"]})

        with world(place) as around:
            publish(around.repo, "v1.1.0", WHICH)
            turns = {who: (lambda w=who, d=disk: (sample(w, d),)) for who, disk in disks.items()}
            samples = in_turn(turns, ROUNDS)
    notes += [
        _block(f"`systemd` about the last boot, {who}:", text) for who, text in chains.items()
    ]
    case = Case("first boot, from power-on to the first job", "virtual machine", samples)
    return Findings((case,), notes=tuple(notes))


def main() -> None:
    """Measure, and keep what was found."""
    named = dict(word.split("=", 1) for word in sys.argv[1:])
    with ExitStack() as stack:
        disks = {who: Disk.at(Path(folder)) for who, folder in named.items()}
        if not disks:
            disks = {"image": stack.enter_context(built_disk())}
        result = find("machine", lambda: measure(disks))
    for case in result.findings.cases:
        figures = dict.fromkeys(name for sample in case.samples for name in sample.figures)
        for who in case.everybody:
            row = ", ".join(
                f"{figure} {case.median(who, figure):.1f}"
                for figure in figures
                if case.values(who, figure)
            )
            print(f"{who}: {row}")  # noqa: T201


if __name__ == "__main__":
    main()
