"""Messages to the service manager that started the run (sd_notify(3)): ready, alive, its status, stopping.

Without a manager there are none. A lost message is no error: the manager acts on silence.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent.base.progress import JobEnd, Progress
from agent.base.stop import Stop

BEAT_SECONDS = 15.0
"""Between two signs of life, if the watchdog does not need more."""

EXTEND_SECONDS = 60.0
"""Extension that a stopping agent asks for with each sign of life; one whose loop hangs is killed after it."""


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager's notification socket.

    Attributes:
        address: Its datagram socket; None if nobody supervises this process.
        watchdog: Seconds of silence after which it ends this process; None if it does not.
    """

    address: str | None = None
    watchdog: float | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], *, pid: int | None = None) -> "Manager":
        """Return the manager that an environment names, as sd_notify(3) and sd_watchdog_enabled(3) read it.

        `pid`: the supervised process; this one by default.
        """
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls()
        usec = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", "") in {"", str(os.getpid() if pid is None else pid)}
        watched = usec.isascii() and usec.isdigit() and int(usec) > 0 and ours
        return cls(address, int(usec) / 1e6 if watched else None)

    @property
    def beat(self) -> float:
        """Seconds between two signs of life: half of the watchdog's limit."""
        return min(self.watchdog / 2, BEAT_SECONDS) if self.watchdog else BEAT_SECONDS

    def notify(self, *lines: str) -> None:
        """Send assignments such as `READY=1`, without waiting."""
        if self.address is None:
            return
        # A name in the abstract namespace is written with @ for its leading zero byte.
        name = f"\0{self.address[1:]}" if self.address.startswith("@") else self.address
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as link,
        ):
            link.setblocking(False)
            link.sendto("\n".join(lines).encode(), name)


@asynccontextmanager
async def supervised(manager: Manager, stop: Stop) -> AsyncIterator[None]:
    """Tell the manager that the run is ready, then, from the event loop, that it is alive; at the end that it stops.

    A loop that hangs is silent, and the watchdog ends the process. Once the run was asked to stop, each sign of life
    also extends the time, because finished work is being delivered; the run's own limits bound that.
    """
    if manager.address is None:
        yield
        return
    manager.notify("READY=1", "STATUS=starting")
    beating = asyncio.create_task(_beat(manager, stop))
    try:
        yield
    finally:
        beating.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await beating
        manager.notify("STOPPING=1", "STATUS=stopping")


async def _beat(manager: Manager, stop: Stop) -> None:
    while True:
        lines = ["WATCHDOG=1"]
        if stop.requested:
            lines.append(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1e6:.0f}")
        manager.notify(*lines)
        if stop.requested:
            await asyncio.sleep(manager.beat)
        else:
            await stop.pause(manager.beat)


class StatusLine:
    """Progress that is passed on, and shown in the unit's status line (`systemctl status`)."""

    def __init__(self, manager: Manager, watcher: Progress) -> None:
        self._manager = manager
        self._watcher = watcher
        self._phase = "starting"
        self._planned = 0
        self._running: set[str] = set()
        self._ended: set[str] = set()

    def phase(self, name: str) -> None:
        """Show the phase."""
        self._watcher.phase(name)
        self._phase = name
        self._say()

    def planned(self, jobs: tuple[str, ...]) -> None:
        """Count planned jobs."""
        self._watcher.planned(jobs)
        self._planned = len(jobs)

    def started(self, job: str, attempt: int) -> None:
        """Count a running job."""
        self._watcher.started(job, attempt)
        self._running.add(job)
        self._say()

    def ended(self, end: JobEnd) -> None:
        """Count an ended job."""
        self._watcher.ended(end)
        self._running.discard(end.name)
        self._ended.add(end.name)
        self._say()

    def sent(self, size: int) -> None:
        """Pass it on."""
        self._watcher.sent(size)

    def _say(self) -> None:
        jobs = f": {len(self._ended)} of {self._planned} jobs ended" if self._planned else ""
        running = f", {len(self._running)} running" if self._running else ""
        self._manager.notify(f"STATUS={self._phase}{jobs}{running}")
