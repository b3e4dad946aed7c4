"""What a part of the benchmarks found, as values, and how it is kept: one JSON file for each part."""

import json
import os
import platform
import random
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Sample:
    """One measurement of one program.

    Attributes:
        who: What was measured.
        figures: By name: `wall` and `cpu` in seconds, `peak` in MB of 2**20 bytes, and others that a part explains.
    """

    who: str
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Case:
    """What was measured side by side, in turn.

    Attributes:
        name: The work that was done.
        group: The circumstances, such as the link.
        samples: In the order in which they were taken.
    """

    name: str
    group: str
    samples: tuple[Sample, ...]

    @property
    def everybody(self) -> tuple[str, ...]:
        """Who was measured, in the order of their names."""
        return tuple(sorted({sample.who for sample in self.samples}))

    def values(self, who: str, figure: str) -> tuple[float, ...]:
        """Return the figures of one of them, round by round."""
        return tuple(
            sample.figures[figure]
            for sample in self.samples
            if sample.who == who and figure in sample.figures
        )

    def median(self, who: str, figure: str) -> float:
        """Return the median of a figure."""
        return statistics.median(self.values(who, figure))

    def fastest(self, figure: str, *, but: Iterable[str]) -> str:
        """Return who has the lowest median of a figure."""
        others = [who for who in self.everybody if who not in set(but)]
        return min(others, key=lambda who: self.median(who, figure))


@dataclass(frozen=True)
class Target:
    """A figure that is to be reached.

    Attributes:
        what: What it says.
        limit: It is to be at most this.
        unit: `x` for a ratio; otherwise s, MB or requests.
        values: One of each round.
        against: Whom a ratio compares with.
        floor: What nobody who does the same gets below, as a sentence; shown where the figure is not reached.
    """

    what: str
    limit: float
    unit: str
    values: tuple[float, ...]
    against: str = ""
    floor: str = ""

    @property
    def median(self) -> float:
        """The figure that counts."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        """Whether it is."""
        return self.median <= self.limit


@dataclass(frozen=True)
class Findings:
    """What a part found."""

    cases: tuple[Case, ...]
    targets: tuple[Target, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """Findings, with when and where."""

    part: str
    measured: str
    machine: Mapping[str, Any]
    findings: Findings


def ratio(
    what: str,
    case: Case,
    figure: str,
    limit: float,
    *,
    who: str,
    against: str,
    floor: str = "",
) -> Target:
    """Return a target that compares, round by round, since what disturbs a round disturbs both."""
    pairs = zip(case.values(who, figure), case.values(against, figure), strict=True)
    return Target(what, limit, "x", tuple(ours / theirs for ours, theirs in pairs), against, floor)


def in_turn(turns: Mapping[str, Callable[[], Iterable[Sample]]], rounds: int) -> tuple[Sample, ...]:
    """Let everybody have a turn in each round, in an order that is drawn anew: nobody always follows the same one.

    What a program leaves behind (work of the server's, memory, blocks to write) is paid for by whoever comes next.
    """
    dice = random.Random(rounds)  # noqa: S311 -- the same orders each time
    return tuple(
        sample
        for _ in range(rounds)
        for name in dice.sample(list(turns), len(turns))
        for sample in turns[name]()
    )


def find(part: str, measure: Callable[[], Findings], folder: Path = RESULTS) -> Result:
    """Measure a part, and store what was found."""
    before = os.getloadavg()[0]
    findings = measure()
    machine = {**_machine(), "load": [round(before, 2), round(os.getloadavg()[0], 2)]}
    versions = {"mayfly": _version(), **findings.versions}
    findings = Findings(findings.cases, findings.targets, versions, findings.notes)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    result = Result(part, now, machine, findings)
    folder.mkdir(exist_ok=True)
    (folder / f"{part}.json").write_text(json.dumps(asdict(result), indent=1) + "\n")
    return result


def kept(part: str, folder: Path = RESULTS) -> Result | None:
    """Return what was found of a part, the last time."""
    path = folder / f"{part}.json"
    if not path.exists():
        return None
    data = json.loads(path.read_text())
    found = data["findings"]
    cases = tuple(
        Case(case["name"], case["group"], tuple(Sample(**sample) for sample in case["samples"]))
        for case in found["cases"]
    )
    targets = tuple(
        Target(**{**target, "values": tuple(target["values"])}) for target in found["targets"]
    )
    findings = Findings(cases, targets, found["versions"], tuple(found["notes"]))
    return Result(data["part"], data["measured"], data["machine"], findings)


def _machine() -> dict[str, Any]:
    processor = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": processor.group(1).strip() if processor else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(pages * size / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()} "
        f"in {sys.base_prefix}",
    }


def _version() -> str:
    command = ["git", "describe", "--always", "--dirty", "--tags"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
