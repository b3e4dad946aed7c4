"""The programs that check what is deployed, and the places of what they check."""

import subprocess
from pathlib import Path

from tests.parts.missing import program

REPOSITORY = Path(__file__).parents[2]
MONITORING = REPOSITORY / "deploy" / "monitoring"
KUBERNETES = REPOSITORY / "deploy" / "kubernetes" / "home"
SECONDS = 60


def run(
    tool: str, *arguments: str | Path, cwd: Path = REPOSITORY
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it said, whatever its exit code."""
    return subprocess.run(
        [program(tool), *map(str, arguments)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def accepts(tool: str, *arguments: str | Path, cwd: Path = REPOSITORY) -> str:
    """Run a program that must be content, and return its standard output."""
    done = run(tool, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
