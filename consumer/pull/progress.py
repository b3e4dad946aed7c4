"""Who watches a pull: a terminal with a bar, or lines for whoever reads them."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from consumer.pull.report import Event, Watcher, is_problem, lines_of

WIDE = 72
"""Columns of a terminal from which on there are a bar, speed and time; in fewer it is told what comes and how much."""
Say = Callable[[str, bool], None]
"""Writes a line; the second argument tells whether a person should look at it."""


class Lines:
    """Says what came of the pull, line by line."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def expects(self, what: str, size: int) -> None:
        """Say nothing: what matters is what arrives."""

    def received(self, size: int) -> None:
        """Say nothing."""

    def told(self, event: Event) -> None:
        """Say it."""
        for line in lines_of(event):
            self._say(line, is_problem(event))


class Bar(Lines):
    """Shows the job that is being fetched as a bar, which gives way to lines, and to what hooks write after them."""

    def __init__(self, bar: Any, say: Say) -> None:
        super().__init__(say)
        self._bar = bar
        self._task: Any = None

    def expects(self, what: str, size: int) -> None:
        """Begin a bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(what, total=max(size, 1))

    def received(self, size: int) -> None:
        """Move it."""
        if self._task is not None:
            self._bar.start()
            self._bar.advance(self._task, size)

    def told(self, event: Event) -> None:
        """Say it in place of the bar."""
        self._bar.stop()
        super().told(event)


@contextmanager
def watching(say: Say, *, terminal: bool, colours: bool) -> Iterator[Watcher]:
    """Yield who watches: on a terminal, when rich is installed (the `tty` extra), with a bar on stderr.

    Args:
        say: Writes a line.
        terminal: Whether stderr is a terminal on which a bar can be drawn.
        colours: Whether it may have colours.
    """
    if not terminal:
        # Before rich is imported: that takes as long as fetching a hundred files.
        yield Lines(say)
        return
    try:
        from rich.console import Console  # noqa: PLC0415 -- an extra
        from rich.progress import (  # noqa: PLC0415
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column  # noqa: PLC0415
    except ImportError:
        yield Lines(say)
        return
    console = Console(stderr=True, no_color=not colours or None)
    # What it is and the bar share what the numbers leave of the line; numbers are never broken.
    whole = functools.partial(Column, no_wrap=True)
    what = TextColumn("{task.description}", markup=False, table_column=whole(ratio=3))
    size = DownloadColumn(table_column=whole())
    wide = (
        BarColumn(None, table_column=whole(ratio=1)),
        size,
        TransferSpeedColumn(table_column=whole()),
        TimeRemainingColumn(table_column=whole()),
    )
    bar = Progress(
        what,
        *(wide if console.width >= WIDE else (size,)),
        console=console,
        transient=True,
        expand=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    try:
        yield Bar(bar, say)
    finally:
        bar.stop()
