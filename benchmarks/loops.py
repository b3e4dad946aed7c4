"""How long event loops were kept from their work: how a part has them watched, and what is to be reached."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.results import Target

WATCHED = Path(__file__).with_name("watched.py")
MILLISECONDS = 50.0


def watching(report: Path, python: Path = Path(sys.executable)) -> list[str]:
    """Return what to put in the place of `mayfly` in a command, to have its event loops watched."""
    return [str(python), "-P", str(WATCHED), str(report)]


def loop_figures(report: Path) -> dict[str, float]:
    """Return the longest turn of an event loop: `stall` by the clock and `busy` in CPU seconds of its thread."""
    told = json.loads(report.read_text())
    return {name: told[name] for name in ("stall", "busy")}


def stall_target(what: str, stalls: Iterable[float]) -> Target:
    """Return the target of the longest stall of each round, given in seconds."""
    values = tuple(1000 * stall for stall in stalls)
    return Target(f"event loop, longest stall: {what}", MILLISECONDS, "ms", values)
