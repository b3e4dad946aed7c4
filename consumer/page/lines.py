"""Sparklines: a series of numbers as the points of an SVG polyline."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

WIDTH = 160
HEIGHT = 32
MARGIN = 2
"""Units of the drawing, which a style sheet scales."""
MOST_POINTS = 120
"""More cannot be told apart at this width; neighbours are averaged."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """A line over time.

    Attributes:
        points: For `<polyline points=...>`, in a box of `WIDTH` by `HEIGHT`; empty with fewer than two numbers.
        last: The last number; None when there is none.
        most: The largest.
    """

    points: str
    last: float | None
    most: float

    @property
    def end(self) -> tuple[float, float] | None:
        """Where the line ends."""
        if not self.points:
            return None
        x, _, y = self.points.rpartition(" ")[2].partition(",")
        return float(x), float(y)


def sparkline(numbers: Sequence[float]) -> Sparkline:
    """Return the line of numbers that are in order of time; it starts at zero, so that a small change looks small."""
    if not numbers:
        return Sparkline("", None, 0.0)
    shown = _thinned(numbers)
    top = max(shown) or 1.0
    step = (WIDTH - 2 * MARGIN) / max(1, len(shown) - 1)
    points = " ".join(
        f"{MARGIN + index * step:.1f},{HEIGHT - MARGIN - number / top * (HEIGHT - 2 * MARGIN):.1f}"
        for index, number in enumerate(shown)
    )
    return Sparkline(points if len(shown) > 1 else "", numbers[-1], max(numbers))


def _thinned(numbers: Sequence[float]) -> Sequence[float]:
    if len(numbers) <= MOST_POINTS:
        return numbers
    edges = [round(index * len(numbers) / MOST_POINTS) for index in range(MOST_POINTS + 1)]
    return [fmean(numbers[first:last]) for first, last in pairwise(edges)]
