"""Logs: one event, redacted once, to every sink. Nothing is configured globally."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from agent.base.redact import Redactor


@contextmanager
def _passed_over(name: str) -> Iterator[None]:
    """Make an optional dependency of a library look absent while the library is imported."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # how Python notes that an import has failed
    try:
        yield
    finally:
        del sys.modules[name]


# It takes rich along, for tracebacks on a console that no sink here writes: a quarter of what a run imports.
with _passed_over("rich"):
    import structlog
    from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

Log = FilteringBoundLogger
Sink = Callable[[dict[str, Any]], None]
"""Takes one event: `timestamp`, `level`, `event` and its fields, without secrets."""


class RunLogger:
    """The logger of a process: its sinks, and the secrets that no sink may see.

    Attributes:
        log: The logger to pass on; `log.bind(job=...)` adds context.
    """

    def __init__(self, *sinks: Sink, level: str = "info") -> None:
        self._sinks = list(sinks)
        self._secrets: dict[str, str] = {}
        self._redactor = Redactor({})
        self.log: Log = structlog.wrap_logger(
            None,
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.format_exc_info,
                self._emit,
            ],
            wrapper_class=structlog.make_filtering_bound_logger(level),
        )

    @contextmanager
    def writing(self, path: Path, **context: str) -> Iterator[None]:
        """Also write every event of the block, with `context`, to a file of JSON lines.

        Half a character, as in a name that is not UTF-8, is written as JSON's escape of it.
        """
        outer = self.log
        stream = path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")
        sink = json_sink(stream)
        self._sinks.append(sink)
        self.log = outer.bind(**context)
        try:
            yield
        finally:
            self.log = outer
            self._sinks.remove(sink)
            # A full disk may refuse the last lines, which must not end the run.
            with suppress(OSError):
                stream.close()

    def add_secrets(self, secrets: Mapping[str, str]) -> None:
        """Hide these values (by name) from now on, in every sink."""
        self._secrets |= secrets
        self._redactor = Redactor(self._secrets)

    @property
    def redactor(self) -> Redactor:
        """Hides the secrets added so far."""
        return self._redactor

    def _emit(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        safe = {str(key): self._redactor.value(value) for key, value in event.items()}
        for sink in self._sinks:
            # A full disk, or a closed terminal, must not end the run.
            with suppress(OSError, ValueError):
                sink(safe)
        raise structlog.DropEvent


def json_sink(stream: IO[str]) -> Sink:
    """Return a sink of JSON lines."""
    return _line_sink(stream, lambda event: json.dumps(event, ensure_ascii=False, default=str))


def console_sink(stream: IO[str], *, colors: bool) -> Sink:
    """Return a sink of aligned lines for a person."""
    renderer = structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=24)
    return _line_sink(stream, lambda event: str(renderer(None, "", dict(event))))


def _line_sink(stream: IO[str], line: Callable[[dict[str, Any]], str]) -> Sink:
    def write(event: dict[str, Any]) -> None:
        stream.write(line(event) + "\n")
        stream.flush()

    return write
