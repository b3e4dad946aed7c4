"""What an isolation backend does: start a program so that it can be ended with everything it started."""

from asyncio import StreamReader
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agent.base.containers import Mount
from agent.config.jobsfile import Job
from agent.jobs.verdict import Exit
from agent.jobs.worktree import WorkingDirectory


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """What only a job in a container has.

    Attributes:
        job: The job.
        folder: The attempt's own folder on this machine, for what the job must not see.
        mounts: What is mounted where.
        browser: The run's browser, as this machine reaches it; None when it does without.
        release: A stack's release: what it builds is built once for it.
        working: For a stack its copy of the release; it is told where in it the job's output is.
    """

    job: Job
    folder: Path
    mounts: tuple[Mount, ...]
    browser: str | None
    release: Path
    working: WorkingDirectory


@dataclass(frozen=True, slots=True)
class Launch:
    """A program to start.

    Attributes:
        name: Unique in the run, such as `quotes-1`.
        command: Program and arguments; no shell.
        environ: Its whole environment. `MAYFLY_RUN_ID` and `MAYFLY_JOB` in it mark what it starts.
        cwd: Its working directory: the release's tree, or a copy of it.
        memory: Bytes it may use; None for no limit.
        container: Of a job in a container.
        writable: Folders it may write to, besides `scratch`; under an isolation that grants, it gets no others.
        readable: What it sees of the agent's state besides: its release.
        scratch: Its own /tmp, under an isolation that gives one.
        file: Bytes of the largest file it may write; None for no limit.
        seconds: After this the agent will have ended it.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    cwd: Path
    memory: int | None = None
    container: ContainerSpec | None = None
    writable: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    scratch: Path | None = None
    file: int | None = None
    seconds: float = 86400.0


class Running(Protocol):
    """A running program."""

    @property
    def output(self) -> StreamReader:
        """Its stdout and stderr; must be read, or it stalls."""

    async def wait(self) -> Exit:
        """Wait until the program itself has ended; what it started may still run.

        Raises:
            ContainerError: It is a container's, and could not be started.
        """

    def terminate(self) -> None:
        """Send SIGTERM to it and what it started."""


class Isolation(Protocol):
    """A way to run jobs apart from the agent and from each other."""

    @property
    def protects_tree(self) -> bool:
        """Whether programs can run in the release's own tree and not change it."""

    def start(self, launch: Launch) -> AbstractAsyncContextManager[Running]:
        """Start a program; leaving the context kills all that it started, within bounded time.

        Raises:
            OSError: The program cannot be started.
        """
