"""Runs one program and tells what it took."""

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.results import Sample

LAUNCHER = Path(__file__).with_name("launcher.py")
SECONDS = 1200.0


class FailedError(Exception):
    """A measured program failed, so that its figures mean nothing."""


def measured(
    who: str, command: Sequence[str], environ: Mapping[str, str], *, cwd: Path | None = None
) -> Sample:
    """Run a program to its end.

    Args:
        who: The name that the figures get.
        command: The program and its arguments.
        environ: Its whole environment.
        cwd: Where it runs.

    Returns:
        Wall-clock and CPU time in seconds, the latter with its children's, and its peak memory in MB of 2**20 bytes.

    Raises:
        FailedError: It did not end with 0.
    """
    with tempfile.TemporaryDirectory(prefix="mayfly-bench-") as folder:
        report, log = Path(folder, "report"), Path(folder, "log")
        with log.open("wb") as stream:
            done = subprocess.run(
                [sys.executable, "-S", "-E", str(LAUNCHER), str(report), *command],
                env=dict(environ),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                timeout=SECONDS,
                check=False,
            )
        if done.returncode != 0:
            raise FailedError(f"{who} ended with {done.returncode}: {_tail(log)}")
        wall, cpu, peak = (float(word) for word in report.read_text().split())
    return Sample(who, {"wall": wall, "cpu": cpu, "peak": peak / 1024})


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]
