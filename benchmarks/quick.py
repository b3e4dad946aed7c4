"""`python -m benchmarks quick`: what can be measured in under five minutes, beside what is committed. It fails nothing.

A figure in seconds says little on another machine, or a busy one; one against a peer in the same round says more.
"""

import os
from collections.abc import Iterator

from benchmarks.ends import ends
from benchmarks.results import Findings, Result, kept
from benchmarks.transfer import few

ROUNDS = 3
MEASURES = {"ends": ends, "transfer": few}
FIGURES = ("seconds", "wall", "cpu")


def quick() -> None:
    """Measure, and print each figure beside the committed one."""
    print(f"load before: {os.getloadavg()[0]:.2f}")  # noqa: T201
    for part, measure in MEASURES.items():
        for line in compared(measure(ROUNDS), kept(part)):
            print(line, flush=True)  # noqa: T201
    print(f"load after: {os.getloadavg()[0]:.2f}")  # noqa: T201


def compared(now: Findings, committed: Result | None) -> Iterator[str]:
    """Yield a line for each figure: committed, now, and the ratio of the two; below 1 is better."""
    before = dict(_figures(committed.findings)) if committed else {}
    for name, value in _figures(now):
        if name in before:
            old = before[name]
            yield f"{value / old:6.2f}  {old:8.3f} -> {value:8.3f}  {name}"
        else:
            yield f"   new  {value:20.3f}  {name}"


def _figures(findings: Findings) -> Iterator[tuple[str, float]]:
    for target in findings.targets:
        against = f" against {target.against}" if target.against else ""
        yield f"{target.what}{against} ({target.unit})", target.median
    for case in findings.cases:
        for who in case.everybody:
            for figure in FIGURES:
                if case.values(who, figure):
                    yield f"{case.name}: {who}, {figure}", case.median(who, figure)
