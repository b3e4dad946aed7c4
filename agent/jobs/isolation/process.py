"""Isolation by process: a session of its own, kernel limits, and a hunt for what escaped the session.

What this backend cannot do, and the systemd one does: another user, a private /tmp, no network to the metadata
service, a limit on the memory of all processes together.
"""

import asyncio
import os
import resource
import shutil
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from io import FileIO

from agent.base import processes
from agent.jobs.interface import Launch, Running
from agent.jobs.isolation.channel import channel, launcher_command
from agent.jobs.verdict import Exit

MARKS = ("MAYFLY_RUN_ID", "MAYFLY_JOB")
"""Variables that tell a job's processes from all others."""

LAUNCH_SECONDS = 60.0
"""Until the launcher is the job's program: 0.02 s, but some seconds in a busy machine under software emulation."""


class ProcessIsolation:
    """Runs each job as a process group; escaped descendants are found by the environment they inherited."""

    protects_tree = False

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        """Start a program; leaving the context kills all that it started."""
        async with (
            output_pipe() as (output, writing),
            _started(launch, writing.fileno()) as process,
        ):
            writing.close()
            _limit(process.pid, launch)
            try:
                yield _Group(process, output)
            finally:
                await processes.end_group(process)
                await processes.kill_marked(*(f"{name}={launch.environ[name]}" for name in MARKS))


class _Group:
    def __init__(self, process: Process, output: StreamReader) -> None:
        self._process = process
        self._output = output

    @property
    def output(self) -> StreamReader:
        return self._output

    async def wait(self) -> Exit:
        code = await self._process.wait()
        return Exit(code) if code >= 0 else Exit(None, -code)

    def terminate(self) -> None:
        processes.signal_group(self._process.pid, signal.SIGTERM)


@asynccontextmanager
async def output_pipe() -> AsyncIterator[tuple[StreamReader, FileIO]]:
    """Yield a stream that reads a pipe to its end, and the end for the program: whoever has started it closes ours."""
    reading, writing = os.pipe()
    with FileIO(writing, "wb") as theirs:
        loop, stream = asyncio.get_running_loop(), StreamReader()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), FileIO(reading, "rb")
        )
        yield stream, theirs


def resolve(launch: Launch) -> str:
    """Return the program's path: in the release's tree when it has a slash, else on the job's PATH.

    Raises:
        FileNotFoundError: There is no such program.
    """
    name = launch.command[0]
    if "/" in name:
        return str(launch.cwd / name)
    found = shutil.which(name, path=launch.environ["PATH"])
    if found is None:
        raise FileNotFoundError(f'program "{name}" is not on the PATH of the job')
    return found


@asynccontextmanager
async def _started(launch: Launch, output: int) -> AsyncIterator[Process]:
    """Start a program: with a limit on memory through the launcher, so that it holds from the first instruction on.

    A program that has started may have more already, and keep it: a busy agent comes late.

    Raises:
        OSError: The program cannot be started.
    """
    program = resolve(launch)
    if launch.memory is None or sys.platform != "linux":
        command = (program, *launch.command[1:])
        async with processes.started(
            command, environ=launch.environ, cwd=launch.cwd, output=output
        ) as process:
            yield process
        return
    marks = {mark: launch.environ[mark] for mark in MARKS}
    async with (
        channel() as (launcher, theirs),
        processes.started(
            launcher_command(), environ=marks, cwd=launch.cwd, feed=theirs.fileno(), output=output
        ) as process,
    ):
        theirs.close()
        try:
            async with asyncio.timeout(LAUNCH_SECONDS):
                await launcher.user()
                await launcher.order(program, launch, memory=launch.memory)
                await launcher.became()
        except TimeoutError as error:
            raise OSError(f"it did not start in {LAUNCH_SECONDS:g} s") from error
        yield process


def _limit(pid: int, launch: Launch) -> None:
    """Set the limits that hold for whatever a program does after this, on one that has just started."""
    if sys.platform != "linux":
        return
    with suppress(ProcessLookupError, PermissionError):  # it may be over already
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        if launch.file is not None:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (launch.file, launch.file))
