"""Numbers of a job over its runs, as the parts of an SVG drawing with axes. Decisions only."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo

from consumer.groups import State

WIDTH, HEIGHT = 360.0, 150.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 4.0, 8.0, 20.0
"""What the axes take, in units of the drawing."""
STUMP = 4.0
DATES = 4
LINES = 4
"""At most, across the drawing."""
DECIMAL = tuple(digit * 10**power for power in range(16) for digit in (1, 2, 5))
CLOCK = (1, 2, 5, 10, 30, *(60 * n for n in (1, 2, 5, 10, 30)), *(3600 * n for n in (1, 2, 4, 8)))
"""Steps of an axis."""


@dataclass(frozen=True, slots=True)
class Point:
    """A number of a run."""

    at: datetime
    value: float
    state: State
    run: str


@dataclass(frozen=True, slots=True)
class Bar:
    """A number, drawn."""

    x: float
    y: float
    width: float
    height: float
    point: Point
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `WIDTH` by `HEIGHT`."""

    bars: tuple[Bar, ...]
    across: tuple[Tick, ...]
    along: tuple[Tick, ...]


def chart(
    points: Sequence[Point],
    show: Callable[[float], str],
    zone: tzinfo,
    steps: Sequence[int] = DECIMAL,
) -> Chart:
    """Return the drawing of numbers in the order of time. It starts at zero, so that a small change looks small.

    `show` writes a number; `steps` are the distances between lines across that may be used, the smallest first.
    """
    most = max((point.value for point in points), default=0.0)
    step = next((one for one in steps if one * LINES >= most), most / LINES or 1.0)
    top = step * max(1, -(-most // step))
    tall, wide = HEIGHT - TOP - BOTTOM, WIDTH - LEFT - RIGHT
    slot = wide / max(1, len(points))

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - value / top * tall

    bars = tuple(
        Bar(
            round(LEFT + place * slot, 2),
            round(y(point.value) - _stump(point), 2),
            round(max(slot - 1, slot / 2), 2),
            round(HEIGHT - BOTTOM - y(point.value) + _stump(point), 2),
            point,
            show(point.value),
        )
        for place, point in enumerate(points)
    )
    lines = [index * step for index in range(round(top / step) + 1)]
    across = tuple(Tick(round(y(line), 2), show(line) if line else "0") for line in lines)
    return Chart(bars, across, _dates(points, slot, zone))


def _stump(point: Point) -> float:
    """Return how much a failure is seen of which there is nothing."""
    return STUMP if point.state is State.FAILED else 0.0


def _dates(points: Sequence[Point], slot: float, zone: tzinfo) -> tuple[Tick, ...]:
    local = [point.at.astimezone(zone) for point in points]
    one_day = bool(local) and local[0].date() == local[-1].date()
    every = max(1, -(-len(local) // DATES))
    return tuple(
        Tick(round(LEFT + place * slot, 2), f"{local[place]:{'%H:%M' if one_day else '%m-%d'}}")
        for place in range(0, len(local), every)
    )
