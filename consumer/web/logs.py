"""The service's log: one JSON object a line on stderr, or lines for a person on a terminal."""

from typing import TextIO

import structlog
from structlog.typing import FilteringBoundLogger

Log = FilteringBoundLogger


def make_log(stream: TextIO, *, terminal: bool, colours: bool) -> Log:
    """Return a logger that writes to a stream, one write a line."""
    renderer = (
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=24)
        if terminal
        else structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    )
    log: Log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
    )
    return log
