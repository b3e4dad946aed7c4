"""How long each part of a run took, for the manifest."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from agent.base.progress import Progress
from agent.contract.facts import Phase


class Phases:
    """Collects phases; they may overlap."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phases: list[Phase] = []

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Record the block as a phase, also when it raises."""
        self._progress.phase(name)
        started, clock = datetime.now(UTC), time.monotonic()
        try:
            yield
        finally:
            seconds = round(time.monotonic() - clock, 3)
            self._phases.append(Phase(name=name, started=started, seconds=seconds))

    def so_far(self) -> tuple[Phase, ...]:
        """Return the phases that have ended, in the order of their start."""
        return tuple(sorted(self._phases, key=lambda phase: phase.started))
