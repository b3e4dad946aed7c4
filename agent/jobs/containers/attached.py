"""A container's life: its preparation, the client that its output comes from, its end."""

import asyncio
import signal
from abc import ABC, abstractmethod
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

from agent.base import processes
from agent.base.containers import container_environment, project_name
from agent.base.engine import Engine
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.jobs.containers.leftovers import remove_container, remove_stack
from agent.jobs.containers.state import terminate
from agent.jobs.interface import ContainerSpec, Launch
from agent.jobs.verdict import Exit

CLOSE_SECONDS = 10.0
"""Until the tasks of a container that is being removed have ended."""


Command = tuple[Sequence[str], Mapping[str, str], Path]
"""Program and arguments, environment, working directory."""
Attach = Callable[[Command], Awaitable[int]]
"""Runs a command whose output is the job's, and returns its exit code."""


class ContainerBackend(ABC):
    """What carries a job: a container, or a stack of them. It does not exist before `prepare`."""

    def __init__(self, launch: Launch, spec: ContainerSpec, engine: Engine, log: Log) -> None:
        self._launch = launch
        self._spec = spec
        self._engine = engine
        self._log = log
        self._name = project_name(launch.environ["MAYFLY_RUN_ID"], launch.name)
        self._environment = container_environment(launch.environ, spec.job.secrets)

    @abstractmethod
    async def prepare(self) -> None:
        """Have all that the client needs.

        Raises:
            ContainerError: It cannot be had, or the engine does not answer.
        """

    async def serve(self, attach: Attach) -> None:  # noqa: B027 -- one image has nothing that serves it
        """Start what serves the job, and wait for it.

        Raises:
            ContainerError: It cannot be started.
        """

    @property
    @abstractmethod
    def client(self) -> Command:
        """The command that starts it, stays attached to its output, and ends when its program does."""

    @abstractmethod
    async def ended(self) -> Exit:
        """Return how the program in it ended, after the client has.

        Raises:
            ContainerError: It never started.
        """

    async def terminate(self) -> bool:
        """Send its program SIGTERM, and nothing to what serves it; False when it does not run yet."""
        return await terminate(self._engine, self._name)

    async def remove(self) -> None:
        """Remove it and all that it made but the job's output. Bounded, never raises."""
        await remove_container(self._engine, self._name, self._log)
        await remove_stack(self._engine, self._name, self._log)


class ContainerProcess:
    """A container that is started at once, as a `Running`; the writing end of its pipe is closed when it has ended."""

    def __init__(
        self, backend: ContainerBackend, output: asyncio.StreamReader, writing: FileIO
    ) -> None:
        self._backend = backend
        self._output = output
        self._writing = writing
        self._client: Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._work = asyncio.create_task(self._run())

    @property
    def output(self) -> asyncio.StreamReader:
        """Its stdout and stderr, and what the client says before."""
        return self._output

    async def wait(self) -> Exit:
        """Wait until it has ended.

        Raises:
            ContainerError: It could not be started.
        """
        await asyncio.wait([self._work])
        if self._work.cancelled():
            return Exit(None, signal.SIGTERM)
        return self._work.result()

    def terminate(self) -> None:
        """Send SIGTERM to its program; before that runs, cancel its preparation."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._terminate())

    async def close(self) -> None:
        """End the client and all tasks."""
        tasks = [task for task in (self._work, self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen: whoever waited for it has got it
        self._writing.close()

    async def _terminate(self) -> None:
        if self._client is None:
            self._work.cancel()
            return
        with suppress(ContainerError):
            if await self._backend.terminate():
                return
        if self._client is not None:
            processes.signal_group(self._client.pid, signal.SIGTERM)

    async def _run(self) -> Exit:
        try:
            await self._backend.prepare()
            await self._backend.serve(self._attach)
            if self._ending is None:
                await self._attach(self._backend.client, last=True)
                return await self._backend.ended()
        except ContainerError:
            if self._ending is None:
                raise
        finally:
            self._writing.close()
        return Exit(None, signal.SIGTERM)  # it was asked to end before its own program ran

    async def _attach(self, command: Command, *, last: bool = False) -> int:
        arguments, environ, folder = command
        try:
            async with processes.started(
                arguments, environ=environ, cwd=folder, output=self._writing.fileno()
            ) as client:
                self._client = client
                if last:
                    self._writing.close()
                return await client.wait()
        except OSError as error:
            raise ContainerError(
                f"{arguments[0]} could not be started: {error.strerror}"
            ) from error
        finally:
            if not last:
                self._client = None
