"""What an isolation backend does: start a program so that it can be ended with everything it started."""

from asyncio import StreamReader
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Launch:
    """A program to start.

    Attributes:
        name: Unique in the run, such as `quotes-1`.
        command: Program and arguments; no shell.
        environ: Its whole environment. `MAYFLY_RUN_ID` and `MAYFLY_JOB` in it mark what it starts.
        cwd: Its working directory: the release's tree.
        memory: Bytes it may use; None for no limit.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a program ended: an exit code, or the signal that ended it."""

    code: int | None
    signal: int | None = None


class Running(Protocol):
    """A program under way."""

    @property
    def output(self) -> StreamReader:
        """Its stdout and stderr; must be read, or it stalls."""

    async def wait(self) -> Exit:
        """Wait until the program itself has ended; what it started may still run."""

    def terminate(self) -> None:
        """Ask it, and what it started, to end (SIGTERM)."""


class Isolation(Protocol):
    """A way to run jobs apart from the agent and from each other."""

    def start(self, launch: Launch) -> AbstractAsyncContextManager[Running]:
        """Start a program; leaving the context kills all that it started, within bounded time.

        Raises:
            OSError: The program cannot be started.
        """
