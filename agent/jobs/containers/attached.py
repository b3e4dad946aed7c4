"""A container under way: its preparation, its client on whose pipe its output comes, its end."""

import asyncio
import os
import signal
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from agent.base import processes
from agent.base.errors import ContainerError
from agent.jobs.interface import Exit

CLOSE_SECONDS = 10.0
"""For the work of a container that is being removed to notice it."""


Command = tuple[Sequence[str], Mapping[str, str], Path]
"""Program and arguments, environment, working directory."""
Attach = Callable[[Command], Awaitable[int]]
"""Runs a command whose output is the job's, and returns its exit code."""


class ContainerBackend(Protocol):
    """What carries a job: a container, or a stack of them."""

    async def prepare(self) -> None:
        """Have all that the client needs.

        Raises:
            ContainerError: It cannot be had.
        """

    async def serve(self, attach: Attach) -> None:
        """Start what serves the job, and wait for it.

        Raises:
            ContainerError: It cannot be started.
        """

    @property
    def client(self) -> Command:
        """The command that starts it and stays attached to its output; its environment and working directory."""

    async def ended(self) -> Exit:
        """Return how the program in it ended, after the client has.

        Raises:
            ContainerError: It never started.
        """

    async def terminate(self) -> bool:
        """Send its program SIGTERM; False when it does not run yet."""

    async def remove(self) -> None:
        """Remove it and all that it made but the job's output. Bounded, never raises."""


class ContainerProcess:
    """A container under way, as a `Running`."""

    def __init__(
        self, backend: ContainerBackend, output: asyncio.StreamReader, writing: int
    ) -> None:
        """Begin at once.

        Args:
            backend: What to start.
            output: The reading end of a pipe.
            writing: Its other end, which is closed when the backend has ended.
        """
        self._vessel = backend
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
        """Ask it to end; before its program runs, that is the end of it."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._terminate())

    async def close(self) -> None:
        """End the client and what is still under way for it."""
        tasks = [task for task in (self._work, self._ending) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # seen: whoever waited for it has got it
        self._close_pipe()

    async def _terminate(self) -> None:
        if self._client is None:
            self._work.cancel()
            return
        with suppress(ContainerError):
            if await self._vessel.terminate():
                return
        if self._client is not None:
            processes.signal_group(self._client.pid, signal.SIGTERM)

    async def _run(self) -> Exit:
        try:
            await self._vessel.prepare()
            await self._vessel.serve(self._attach)
            if self._ending is None:
                await self._attach(self._vessel.client, last=True)
                return await self._vessel.ended()
        except ContainerError:
            if self._ending is None:
                raise
        finally:
            self._close_pipe()
        return Exit(None, signal.SIGTERM)  # it was asked to end before its own program ran

    async def _attach(self, command: Command, *, last: bool = False) -> int:
        arguments, environ, folder = command
        try:
            async with processes.started(
                arguments, environ=environ, cwd=folder, output=self._writing
            ) as client:
                self._client = client
                if last:
                    self._close_pipe()
                await client.wait()
        except OSError as error:
            raise ContainerError(
                f"{arguments[0]} could not be started: {error.strerror}"
            ) from error
        finally:
            self._client = None if not last else self._client
        return client.returncode if client.returncode is not None else -1

    def _close_pipe(self) -> None:
        """Close our end of the pipe, so that its reader sees its end."""
        if self._writing >= 0:
            os.close(self._writing)
            self._writing = -1
