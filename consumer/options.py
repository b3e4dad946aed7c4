"""What `mayfly pull` is told on its command line: durations, sizes and moments."""

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from agent.base.units import parse_duration, parse_size


class Units(click.ParamType[float]):
    """A duration or a size, as in the configuration."""

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds or bytes."""
        parse = parse_size if self.name == "size" else parse_duration
        try:
            text = str(value)
            return parse(float(text) if self.name != "size" and _is_number(text) else text)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit()


class Since(click.ParamType[datetime]):
    """A date, a time or a duration before now."""

    name = "date or duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return a moment."""
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        try:
            return datetime.now(UTC) - timedelta(seconds=parse_duration(value))
        except ValueError:
            text = f"{value!r} is neither a date such as 2026-11-22 nor a duration such as 30d"
            self.fail(text, param, ctx)
