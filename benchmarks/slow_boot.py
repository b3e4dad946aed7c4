"""A new machine's night on a disk that is slow where it is read, as a new EBS volume is where it is read first.

`python -m benchmarks.slow_boot [FOLDER] [MEGABYTES...]` boots an image as `make image` leaves it, by default the one
that the tests boot, from a disk that serves so many megabytes a second, and twenty reads for each of them (0, 20, 10
and 5; 0 is a disk without a limit). What was read once is in the machine's memory. Kernel and initrd do not come from
that disk.
"""

import re
import sys
import tempfile
from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from benchmarks.cold import FIRST
from benchmarks.lent import READY, RUN, reached
from benchmarks.machine import BESIDE_OTHER_WORK
from benchmarks.results import Case, Findings, Sample, find, in_turn
from tests.machine.world import world
from tests.parts.machine import Disk, Machine
from tests.parts.machine_disk import built_disk

RATES = (0, 20, 10, 5)
READS = 20
STARTED = re.compile(r'"seconds": ([0-9.]+)')


def slow_boot(disk: Disk, rates: Iterable[int]) -> Findings:
    """Let a new machine do the work of the release in its image at each rate, in MB of 10**6 bytes a second."""
    with tempfile.TemporaryDirectory() as name:
        turns = {_name(rate): partial(_night, disk, Path(name), rate) for rate in rates}
        samples = in_turn(turns, 1)
    notes = (
        "QEMU without hardware virtualization, two cores: what the processor does takes several times as long.",
        f"A disk of R MB/s serves at most R MB and {READS} R reads a second; writes have no limit.",
        "Three jobs, one in a browser whose image has 570 MB; the release is in the machine's image.",
        "The emulator loads kernel and initrd (29 MB) from elsewhere.",
        BESIDE_OTHER_WORK,
    )
    case = Case("a new machine, from power-on to power-off", "virtual machine", samples)
    return Findings((case,), notes=notes)


def _night(disk: Disk, folder: Path, rate: int) -> tuple[Sample]:
    place = folder / f"at-{rate}"
    place.mkdir()
    with world(place) as around, around.machine(disk, place / "machine") as machine:
        if rate:
            machine.throttle = {"bps-read": rate * 1_000_000, "iops-read": rate * READS}
        read: dict[str, float] = {}

        def note(point: str) -> None:
            if point in {RUN, FIRST, READY}:
                reads, size = _read_of(machine)
                read[f"MB {point}"], read[f"reads {point}"] = size / 1e6, reads

        figures = reached(machine, around, note)
        lines = machine.console.read_text(errors="replace").splitlines()
        ready = next(line for line in lines if '"event": "browser.ready"' in line)
        (seconds,) = STARTED.findall(ready)
        figures |= {"start of the browser": float(seconds), **read}
        print(_name(rate), figures, flush=True)  # noqa: T201
        return (Sample(_name(rate), figures),)


def _name(rate: int) -> str:
    return f"{rate} MB/s" if rate else "no limit"


def _read_of(machine: Machine) -> tuple[float, float]:
    """Return reads and bytes that the machine's disk has served."""
    served = [one["stats"] for one in machine.ask("query-blockstats")["return"]]
    return sum(one["rd_operations"] for one in served), sum(one["rd_bytes"] for one in served)


def main() -> None:
    """Measure, and keep what was found."""
    words = sys.argv[1:]
    rates = [int(word) for word in words if word.isdecimal()] or RATES
    folders = [word for word in words if not word.isdecimal()]
    with nullcontext(Disk.at(Path(folders[0]))) if folders else built_disk() as disk:
        find("slow_boot", lambda: slow_boot(disk, rates))


if __name__ == "__main__":
    main()
