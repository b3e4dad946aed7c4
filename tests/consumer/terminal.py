"""A command at a terminal."""

import os
import pty
import subprocess
import termios
from collections.abc import Mapping
from contextlib import suppress

from tests.parts.command import MAYFLY, surroundings


def at_terminal(
    *arguments: str, environ: Mapping[str, str], columns: int = 80
) -> tuple[int, bytes]:
    """Run `mayfly` with stdout and stderr on a terminal of its own; return its exit code and what it wrote."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    given = surroundings({"TERM": "xterm", **environ})
    given.pop("COLUMNS", None)  # which would stand above the terminal's own
    with subprocess.Popen(
        [*MAYFLY, *arguments], stdout=theirs, stderr=theirs, env=given
    ) as process:
        os.close(theirs)
        text = b""
        with suppress(OSError):  # EIO: the terminal's other end is closed
            while piece := os.read(ours, 65536):
                text += piece
        os.close(ours)
        return process.wait(60), text
