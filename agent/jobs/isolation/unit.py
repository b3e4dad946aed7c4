"""Isolation by systemd: each job in a transient unit, as a user that exists only while it runs.

`systemd-run` and not a library for D-Bus: it is on every machine that has systemd, knows the type of every property,
and hands on our pipes. It stays until the unit has ended and tells so by ending. What it cannot tell exactly, such as
the signal, `systemctl show` knows.
"""

import asyncio
import contextlib
import os
import shutil
import signal
from asyncio import StreamReader
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from agent.base import processes
from agent.base.durable import remove_tree
from agent.base.errors import ProcessTimeout
from agent.base.folders import give
from agent.base.logs import Log
from agent.jobs.interface import Launch, Running
from agent.jobs.isolation import confinement
from agent.jobs.isolation.channel import Channel, channel, launcher_command
from agent.jobs.isolation.confinement import Confinement
from agent.jobs.isolation.diskwatch import DiskWatch
from agent.jobs.isolation.process import MARKS, output_pipe, resolve
from agent.jobs.verdict import Exit

START_SECONDS = 60.0
"""Until a unit's first program reports: 0.05 s, but some seconds in a busy machine under software emulation."""

ASK_SECONDS = 20.0
STOP_SECONDS = confinement.STOP_SECONDS + 10.0
POLL_SECONDS = 1.0

UNDER_WAY = frozenset({"active", "activating", "deactivating"})

KILLED_BY = frozenset({"2", "3"})
"""CLD_KILLED and CLD_DUMPED of sigaction(2); 1 is CLD_EXITED."""

_SHOWN = "LoadState,ActiveState,Result,ExecMainCode,ExecMainStatus"
_LONGEST_WORDS = 500


class UnitIsolation:
    """Runs each job in a unit of its own; all that it started ends with the unit's control group."""

    protects_tree = True

    def __init__(self, rules: Confinement, environ: Mapping[str, str], log: Log) -> None:
        self._rules = rules
        self._systemd = Systemd(environ, log)
        self._disk = DiskWatch(rules.limits.free, log)

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        """Start a program; leaving the context ends its unit."""
        program = resolve(launch)
        name = confinement.unit_name(launch.environ["MAYFLY_RUN_ID"], launch.name)
        async with AsyncExitStack() as stack:
            if launch.scratch is not None:
                await asyncio.to_thread(_make_scratch, launch.scratch)
                stack.push_async_callback(_clear_away, launch.scratch)
            ours, theirs = await stack.enter_async_context(channel())
            output, writing = await stack.enter_async_context(output_pipe())
            marks = {mark: launch.environ[mark] for mark in MARKS}
            try:
                client = await stack.enter_async_context(
                    processes.started(
                        self._command(name, launch),
                        environ=self._systemd.environ | marks,
                        feed=theirs.fileno(),
                        output=writing.fileno(),
                    )
                )
            except OSError as error:  # that it is missing is not the job's fault, or its release's
                raise OSError(f"systemd-run does not start: {error.strerror}") from error
            writing.close()
            theirs.close()
            unit = _Unit(name, client, output, ours, self._systemd)
            stack.push_async_callback(unit.end)
            await unit.begin(program, launch)
            await stack.enter_async_context(self._disk.watching(launch, unit.overflow))
            yield unit

    def _command(self, name: str, launch: Launch) -> list[str]:
        rules = [f"--property={rule}" for rule in confinement.properties(launch, self._rules)]
        return [
            *("systemd-run", "--quiet", "--wait", "--pipe", "--system"),
            f"--unit={name}",
            f"--description=Mayfly job {launch.name}",
            *rules,
            *("--", *launcher_command()),
        ]


class Systemd:
    """`systemctl` with time limits; of the agent's environment it gets PATH."""

    def __init__(self, environ: Mapping[str, str], log: Log) -> None:
        self.environ = {"PATH": environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
        self._log = log

    async def show(self, name: str) -> dict[str, str]:
        """Return what systemd knows of a unit.

        Raises:
            OSError: It does not say.
        """
        try:
            done = await processes.run(
                ("systemctl", "show", f"--property={_SHOWN}", "--", name),
                environ=self.environ,
                seconds=ASK_SECONDS,
            )
        except ProcessTimeout as error:
            raise OSError(str(error)) from error
        lines = done.stdout.decode(errors="replace").splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}

    async def do(self, *arguments: str, seconds: float = ASK_SECONDS) -> bool:
        """Run `systemctl ARGUMENTS`; tell whether it succeeded."""
        try:
            done = await processes.run(
                ("systemctl", *arguments), environ=self.environ, seconds=seconds
            )
        except (OSError, ProcessTimeout) as error:
            self._log.warning("unit.command_failed", command=arguments, reason=str(error))
            return False
        return done.code == 0

    async def end(self, pattern: str) -> None:
        """End the units that match a pattern, and forget that they failed."""
        if not await self.do("stop", "--", pattern, seconds=STOP_SECONDS):
            self._log.warning("unit.not_stopped", unit=pattern)
        await self.do("reset-failed", "--", pattern)


class _Unit:
    """A running unit, and the `systemd-run` that waits for its end."""

    def __init__(
        self,
        name: str,
        client: Process,
        output: StreamReader,
        launcher: Channel,
        systemd: Systemd,
    ) -> None:
        self._name = name
        self._client = client
        self._output = output
        self._launcher = launcher
        self._systemd = systemd
        self._overflowed = False
        self._asking: list[asyncio.Task[bool]] = []

    @property
    def output(self) -> StreamReader:
        return self._output

    async def begin(self, program: str, launch: Launch) -> None:
        """Give the unit's user the job's folders, and the launcher the job's command.

        Raises:
            OSError: The unit could not be started.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                user = await self._launcher.user()
                if user is None:
                    raise OSError(await self._complaint())
                await asyncio.to_thread(_give, launch, user)
                await self._launcher.order(program, launch)
        except TimeoutError as error:
            raise OSError(f"systemd did not start its unit in {START_SECONDS:g} s") from error

    async def wait(self) -> Exit:
        if await self._client.wait() == 0:
            return Exit(0)
        # Whether the launcher could become the program is known only now: the client held this open as well.
        await self._launcher.became()
        while True:
            shown = await self._systemd.show(self._name)
            if shown.get("ActiveState") not in UNDER_WAY:
                return exit_of(shown, out_of_disk=self._overflowed)
            # The client ended before its unit: the bus was restarted, or somebody killed it.
            await asyncio.sleep(POLL_SECONDS)

    def terminate(self) -> None:
        self._signal(signal.SIGTERM)

    def overflow(self) -> None:
        """Kill it, because the disk is nearly full."""
        self._overflowed = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        asking = self._systemd.do("kill", f"--signal={number.name}", "--", self._name)
        self._asking.append(asyncio.create_task(asking))

    async def _complaint(self) -> str:
        """Return why it never began, from systemd-run's output and systemd's properties."""
        said = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                said = await self._output.read(_LONGEST_WORDS)
        shown = await self._systemd.show(self._name)
        status = f"{shown.get('Result')}, status {shown.get('ExecMainStatus')}"
        words = " ".join(said.decode(errors="replace").split())
        return f"systemd did not start its unit ({status}) {words}".strip()

    async def end(self) -> None:
        """Stop the unit if it may still be there. Bounded."""
        await asyncio.gather(*self._asking, return_exceptions=True)
        if self._client.returncode != 0:
            await self._systemd.end(self._name)


def exit_of(shown: Mapping[str, str], *, out_of_disk: bool = False) -> Exit:
    """Return how a unit's program ended, from the properties of a unit that has not succeeded.

    Raises:
        OSError: systemd does not know it any more.
    """
    if shown.get("LoadState") == "not-found" or not shown.get("ExecMainStatus", "").isdecimal():
        raise OSError("systemd has forgotten how it ended")
    status, result = int(shown["ExecMainStatus"]), shown.get("Result")
    killed = shown.get("ExecMainCode") in KILLED_BY
    return Exit(
        code=None if killed else status,
        signal=status if killed else None,
        out_of_memory=result == "oom-kill",
        out_of_disk=out_of_disk,
        timed_out=result == "timeout",
    )


async def end_units(run_ids: Collection[str], environ: Mapping[str, str], log: Log) -> None:
    """End the units of runs whose agent is dead; where there is no systemd there are none."""
    if not run_ids or not can_use_units(environ):
        return
    for run_id in run_ids:
        await Systemd(environ, log).end(confinement.units_of(run_id))


def can_use_units(environ: Mapping[str, str]) -> bool:
    """Tell whether this process may ask a systemd that is PID 1 for units of its own."""
    return (
        os.geteuid() == 0
        and Path("/run/systemd/system").is_dir()  # sd_booted(3)
        and shutil.which("systemd-run", path=environ.get("PATH")) is not None
    )


def _make_scratch(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o1777)


async def _clear_away(folder: Path) -> None:
    """Remove temporary files at once, because the disk is small; what cannot be removed goes with the run."""
    with contextlib.suppress(OSError):
        await asyncio.to_thread(remove_tree, folder)


def _give(launch: Launch, user: int) -> None:
    """Make a user, and the group of that number, the owner of a job's folders.

    Raises:
        OSError: It could not be done, for which no release is to blame.
    """
    for top in filter(None, (*launch.writable, launch.scratch)):
        try:
            give(top, user)
        except OSError as error:  # its number would tell of a program that is none
            raise OSError(
                f"{top} could not be given to the job's user: {error.strerror}"
            ) from error
