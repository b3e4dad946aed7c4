"""Subprocesses: each with a wall-clock limit, and nothing of them left behind."""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.base.errors import ProcessOverflow, ProcessTimeout

REAP_SECONDS = 5.0
"""Time for a process to end after SIGKILL; longer means that the kernel holds it (broken disk)."""

KEEP_BYTES = 16 * 1024**2
"""Bytes that `run` keeps of a program's stdout and stderr, far more than any helper prints."""

_CHUNK_BYTES = 64 * 1024
QUIET_LOOKS = 2
"""A process in the middle of an exec shows no environment, so that one look is not enough."""

COLLECT_SECONDS = 1.0
"""Between two looks for orphans that have ended: a look is one system call."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_M_ARENA_MAX = -8  # malloc.h of glibc


@dataclass(slots=True)
class _Awaited:
    """Children for which asyncio waits: whoever else waited for one would take its exit code.

    Attributes:
        processes: Those that are known; some may have ended.
        starting: How many are being started, whose pids are not known yet.
    """

    processes: set[Process] = field(default_factory=set)
    starting: int = 0

    def pids(self) -> set[int]:
        """Return the pids of those that are there."""
        return {process.pid for process in self.processes if process.returncode is None}


_awaited = _Awaited()


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended: its exit code (negative: the signal that killed it) and its output."""

    code: int
    stdout: bytes
    stderr: bytes

    @property
    def complaint(self) -> str:
        """Its stderr on one line of at most 500 characters; the middle of a longer one is left out."""
        text = " ".join(self.stderr.decode(errors="replace").split())
        return text if len(text) <= 500 else f"{text[:195]} ... {text[-300:]}"  # noqa: PLR2004


async def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    seconds: float,
    cwd: Path | None = None,
    stdin: bytes | None = None,
    limited: bool = False,
    keeps_open: Sequence[int] = (),
) -> Finished:
    """Run a program, which is `started` so, to its end: at most `seconds`.

    `stdin` is its input; none by default. All output is read, and the last `KEEP_BYTES` are kept of stdout and of
    stderr, each; a `limited` program may not print more than that.

    Raises:
        ProcessTimeout: It exceeded its limit and was killed with its group.
        ProcessOverflow: It printed more than it may and was killed with its group.
        OSError: It could not be started, for example because it is not installed.
    """
    async with started(
        command, environ=environ, cwd=cwd, stdin=stdin is not None, keeps_open=keeps_open
    ) as process:
        try:
            async with asyncio.timeout(seconds):
                stdout, stderr, _ = await asyncio.gather(
                    _end_of(process.stdout, limited=limited),
                    _end_of(process.stderr, limited=limited),
                    _feed(process, stdin),
                )
                await process.wait()
        except TimeoutError as error:
            raise ProcessTimeout(f"{command[0]} did not end within {seconds:g} s") from error
        return Finished(process.returncode or 0, stdout, stderr)


async def output_of(
    command: Sequence[str], *, environ: Mapping[str, str], seconds: float
) -> str | None:
    """Return the output of a program that succeeds within its limit; None for any other."""
    try:
        done = await run(command, environ=environ, seconds=seconds)
    except (OSError, ProcessTimeout):
        return None
    return done.stdout.decode(errors="replace") if done.code == 0 else None


async def _end_of(stream: asyncio.StreamReader | None, *, limited: bool) -> bytes:
    """Read a pipe to its end and return its last `KEEP_BYTES`."""
    end = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK_BYTES)):
        end += chunk
        if len(end) > KEEP_BYTES and limited:
            raise ProcessOverflow(f"it printed more than {KEEP_BYTES} bytes")
        if len(end) > 2 * KEEP_BYTES:  # so that cutting costs no more than reading
            del end[:-KEEP_BYTES]
    return bytes(end[-KEEP_BYTES:])


async def _feed(process: Process, data: bytes | None) -> None:
    if process.stdin is not None:
        # A program need not read what it is given.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(data or b"")
            await process.stdin.drain()
        process.stdin.close()


@asynccontextmanager
async def started(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bool = False,
    feed: int | None = None,
    output: int | None = None,
    keeps_open: Sequence[int] = (),
) -> AsyncIterator[Process]:
    """Start a program in its own session; leaving the block kills it and its group.

    Args:
        command: Program and arguments; no shell.
        environ: Its whole environment.
        cwd: Its working directory.
        stdin: Whether it reads from a pipe.
        feed: A descriptor that it reads from, instead of a pipe.
        output: A descriptor for stdout and stderr, instead of a pipe for each. With pipes, `wait` also waits for other
            processes that hold them open (python/cpython#119710); with a descriptor it does not.
        keeps_open: Descriptors of ours that it inherits under the same numbers.

    Raises:
        OSError: It could not be started.
    """
    _awaited.starting += 1
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(environ),
            cwd=cwd,
            stdin=feed if feed is not None else PIPE if stdin else DEVNULL,
            stdout=PIPE if output is None else output,
            stderr=PIPE if output is None else output,
            start_new_session=True,
            pass_fds=tuple(keeps_open),
        )
        _awaited.processes.add(process)
    finally:
        _awaited.starting -= 1
    try:
        yield process
    finally:
        await end_group(process)
        if process.returncode is not None:
            _awaited.processes.discard(process)


async def end_group(process: Process) -> None:
    """Kill a program and its process group, and wait (bounded) until it is gone."""
    signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REAP_SECONDS):
            await process.wait()


def signal_group(group: int, number: signal.Signals) -> None:
    """Send a signal to a process group; a missing group is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def adopt_orphans() -> bool:
    """Become the parent of every descendant whose parent ends (Linux only); return whether the kernel does it.

    Those that end stay in the process table, and count as tasks, until they are collected: `orphans_collected`.
    """
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


@asynccontextmanager
async def orphans_collected() -> AsyncIterator[None]:
    """Collect adopted children that have ended, from time to time while the block runs."""

    async def collect() -> None:
        while True:
            await asyncio.sleep(COLLECT_SECONDS)
            _collect_orphans()

    collecting = asyncio.create_task(collect())
    try:
        yield
    finally:
        collecting.cancel()


def _collect_orphans() -> None:
    """Collect children that have ended, up to one for which asyncio waits; the rest is found by a later look.

    A library that starts a program itself (boto3's `credential_process`) then reads its output, and no exit code.
    """
    ended = os.WEXITED | os.WNOHANG
    with contextlib.suppress(ChildProcessError):  # there are none at all
        while not _awaited.starting and (child := os.waitid(os.P_ALL, 0, ended | os.WNOWAIT)):
            if child.si_pid in _awaited.pids():
                return
            os.waitid(os.P_PID, child.si_pid, ended)


def share_arenas() -> bool:
    """Limit glibc to two heaps for all threads: 3 MB less at the peak with 10,000 files (`make bench`).

    Call it before threads start. Returns whether the C library does it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, 2))


def marked(*marks: str) -> list[int]:
    """Return our processes (on Linux) that have all `marks` (`NAME=value`) in their environment, in any session."""
    wanted = [b"\0%b\0" % mark.encode() for mark in marks]
    return [
        pid
        for pid in _processes()
        if (found := _environment(pid)) and all(mark in found for mark in wanted)
    ]


def in_group(name: str) -> list[int]:
    """Return the processes (on Linux) in control groups of a name, such as a unit's, or in groups below them."""
    return [pid for pid in _processes() if name.encode() in _groups(pid)]


def _groups(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cgroup").read_bytes().replace(b"\n", b"/").split(b"/")
    except OSError:  # ended
        return []


_ENVIRONMENT_BYTES = 64 * 1024
"""Read at a time: most programs have less."""


async def kill_marked(*marks: str, seconds: float = REAP_SECONDS) -> int:
    """Kill every process with all `marks`, also those that appear meanwhile; return how many.

    Processes that the kernel holds for longer than `seconds` are left.
    """
    return await _kill(lambda: marked(*marks), QUIET_LOOKS, seconds)


async def kill_strays(*, seconds: float = REAP_SECONDS) -> int:
    """Kill all children of this process, at the end of one that adopted orphans; return how many.

    This finds processes that left their session and their environment too.
    """
    us = os.getpid()
    return await _kill(lambda: [pid for pid in _processes() if _parent(pid) == us], 1, seconds)


async def _kill(find: Callable[[], list[int]], looks: int, seconds: float) -> int:
    """Kill what `find` returns, until it has returned nothing `looks` times in a row; return how many."""
    killed: set[int] = set()
    quiet = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while quiet < looks:
                # In a thread: a machine has hundreds of processes, and other jobs go on.
                found = await asyncio.to_thread(find)
                quiet = 0 if found else quiet + 1
                for pid in found:
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                killed.update(found)
                await asyncio.sleep(0.02 if found else 0.005)
                _reap(killed - _awaited.pids())
    return len(killed)


def _reap(pids: set[int]) -> None:
    """Collect adopted children; others belong to their parents."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            os.waitpid(pid, os.WNOHANG)


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 -- a third of the time
    except FileNotFoundError:  # not Linux
        return []


def _environment(pid: int) -> bytes:
    """Return a process's variables, with a zero byte before and after each."""
    # Each end of a job looks at every process of the machine, so that pathlib would cost more than the kernel.
    found = [b"\0"]
    try:
        descriptor = os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC)
        try:
            while chunk := os.read(descriptor, _ENVIRONMENT_BYTES):
                found.append(chunk)
        finally:
            os.close(descriptor)
    except OSError:  # ended, or not ours
        return b""
    return b"".join((*found, b"\0"))


def _parent(pid: int) -> int:
    try:
        # The name, in parentheses, may itself have spaces, parentheses and any byte.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0
