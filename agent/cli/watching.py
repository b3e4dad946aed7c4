"""Progress of a run for a person at a terminal; elsewhere the log is enough."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from agent.base.logs import Sink
from agent.base.progress import JobEnd, NullProgress, Progress
from agent.base.units import show_duration, show_size
from agent.config.locate import Surroundings


@contextmanager
def watching(style: str, around: Surroundings) -> Iterator[tuple[Progress, Sink | None]]:
    """Yield who watches, and where the log goes meanwhile when not to stderr as usual.

    On a terminal, when rich is installed (the `tty` extra), there is a live view, and only warnings are logged above
    it; the whole log is in the bucket.
    """
    if style != "auto" or not sys.stderr.isatty() or around.environ.get("TERM") == "dumb":
        yield NullProgress(), None
        return
    try:
        from rich.console import Console  # noqa: PLC0415 -- an extra
    except ImportError:
        yield NullProgress(), None
        return
    console = Console(stderr=True, no_color=bool(around.environ.get("NO_COLOR")) or None)
    view = LiveView(console)
    with view:
        yield view, view.log


class LiveView:
    """A line for each job: waiting, running with its time, or how it ended; and what is in the bucket by now."""

    def __init__(self, console: Any) -> None:
        from rich.live import Live  # noqa: PLC0415 -- an extra

        self._phase = "starting"
        self._began = time.monotonic()
        self._jobs: dict[str, str | tuple[float, int] | JobEnd] = {}
        self._files = self._bytes = 0
        self._console = console
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=8, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def phase(self, name: str) -> None:
        """Name the part of the run."""
        self._phase = name

    def planned(self, jobs: tuple[str, ...]) -> None:
        """Show the jobs as waiting."""
        self._jobs = dict.fromkeys(jobs, "waiting")

    def started(self, job: str, attempt: int) -> None:
        """Show a job as running."""
        self._jobs[job] = (time.monotonic(), attempt)

    def ended(self, end: JobEnd) -> None:
        """Show how a job ended."""
        self._jobs[end.name] = end

    def sent(self, size: int) -> None:
        """Count a file that is in the bucket."""
        self._files += 1
        self._bytes += size

    def log(self, event: dict[str, Any]) -> None:
        """Print warnings above the view."""
        if event.get("level") in {"warning", "error", "critical"}:
            fields = " ".join(
                f"{key}={value}"
                for key, value in event.items()
                if key not in {"level", "event", "timestamp", "run_id"} and value not in (None, "")
            )
            self._console.print(
                f"{event['event']}: {fields}", style="yellow", markup=False, highlight=False
            )

    def _render(self) -> Any:
        from rich.spinner import Spinner  # noqa: PLC0415 -- an extra
        from rich.table import Table  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        table = Table.grid(padding=(0, 2))
        elapsed = show_duration(time.monotonic() - self._began)
        sent = f"{self._files} files, {show_size(self._bytes)} in the bucket" if self._files else ""
        table.add_row(Spinner("dots"), Text(self._phase, style="bold"), elapsed, sent)
        for name, state in self._jobs.items():
            if isinstance(state, JobEnd):
                good = state.succeeded
                mark = Text("✓" if good else "✗", style="green" if good else "red")
                table.add_row(mark, name, show_duration(state.seconds), state.status)
            elif isinstance(state, tuple):
                since, attempt = state
                again = f"attempt {attempt}" if attempt > 1 else "running"
                table.add_row(Spinner("dots"), name, show_duration(time.monotonic() - since), again)
            else:
                table.add_row("·", Text(name, style="dim"), "", Text(state, style="dim"))
        return table
