"""What a run tells the service manager, with a real datagram socket at the other end."""

import asyncio
import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.base.progress import JobEnd, NullProgress
from agent.base.stop import Stop
from agent.machine.supervision import Manager, StatusLine, supervised

SOON = 5.0
"""Before the next sign of life of a run without a watchdog would be due."""


class Listener:
    """The other end: what was said to it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._link.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._link.setblocking(False)

    def heard(self) -> list[str]:
        """Return the lines that came since the last call."""
        lines: list[str] = []
        while True:
            try:
                lines += self._link.recv(65536).decode().splitlines()
            except BlockingIOError:
                return lines

    def close(self) -> None:
        """Stop listening."""
        self._link.close()


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Listener]:
    """A manager's socket, in the file system and in the abstract namespace."""
    name = (
        str(tmp_path / "notify") if request.param == "path" else f"@mayfly-{secrets.token_hex(8)}"
    )
    one = Listener(name)
    yield one
    one.close()


def manager_of(listener: Listener, watchdog: float | None = None) -> Manager:
    """Return the manager that the environment of a supervised process names."""
    environ = {"NOTIFY_SOCKET": listener.address}
    if watchdog:
        environ |= {"WATCHDOG_USEC": f"{watchdog * 1e6:.0f}", "WATCHDOG_PID": str(os.getpid())}
    return Manager.of(environ)


async def test_a_run_says_that_it_is_ready_alive_and_leaving(listener: Listener) -> None:
    """The manager hears of the beginning, gets signs of life at half the watchdog's time, and of the end."""
    heard: list[str] = []
    async with supervised(manager_of(listener, watchdog=0.2), Stop()), asyncio.timeout(30):
        while heard.count("WATCHDOG=1") < 3:
            await asyncio.sleep(0.05)
            heard += listener.heard()
    assert heard[0] == "READY=1"
    assert "EXTEND" not in "".join(heard)
    assert "STOPPING=1" in listener.heard()


async def test_a_loop_that_hangs_is_silent(listener: Listener) -> None:
    """The sign of life comes from the event loop: one that is blocked gives none."""
    async with supervised(manager_of(listener, watchdog=0.1), Stop()):
        await asyncio.sleep(0.05)
        listener.heard()
        time.sleep(0.4)  # noqa: ASYNC251 -- it is the hang
        assert listener.heard() == []


async def test_a_run_that_is_stopping_asks_for_time_at_once(listener: Listener) -> None:
    """Once told to stop, it asks for the time to hand over, before its next sign of life would be due."""
    stop = Stop()
    async with supervised(manager_of(listener), stop):
        await asyncio.sleep(0.05)  # it has said that it is ready
        listener.heard()
        stop.request("SIGTERM")
        heard: list[str] = []
        async with asyncio.timeout(SOON):
            while "EXTEND_TIMEOUT_USEC=60000000" not in heard:
                await asyncio.sleep(0.01)
                heard += listener.heard()


async def test_the_status_tells_phase_and_jobs(listener: Listener) -> None:
    """`systemctl status` shows where the run is."""
    watcher = StatusLine(manager_of(listener), NullProgress())
    watcher.phase("jobs")
    watcher.planned(("a", "b"))
    watcher.started("a", 1)
    watcher.started("a", 2)
    watcher.sent(10)
    watcher.ended(JobEnd("a", "succeeded", succeeded=True))
    watcher.ended(JobEnd("b", "skipped", succeeded=False))
    watcher.started("a", 3)  # once more, on the last good release
    watcher.ended(JobEnd("a", "succeeded", succeeded=True))
    assert listener.heard() == [
        "STATUS=jobs",
        "STATUS=jobs: 0 of 2 jobs ended, 1 running",
        "STATUS=jobs: 0 of 2 jobs ended, 1 running",
        "STATUS=jobs: 1 of 2 jobs ended",
        "STATUS=jobs: 2 of 2 jobs ended",
        "STATUS=jobs: 2 of 2 jobs ended, 1 running",
        "STATUS=jobs: 2 of 2 jobs ended",
    ]


@pytest.mark.parametrize(
    ("environ", "supervises", "watchdog"),
    [
        ({}, False, None),
        ({"NOTIFY_SOCKET": "relative"}, False, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000"}, True, 2.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "7"}, True, 2.0),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "8"}, True, None),
        ({"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "soon"}, True, None),
    ],
)
def test_who_supervises_is_read_from_the_environment(
    environ: dict[str, str], supervises: bool, watchdog: float | None
) -> None:
    """A watchdog that is meant for another process is not ours."""
    manager = Manager.of(environ, pid=7)
    assert (manager.address is not None, manager.watchdog) == (supervises, watchdog)


async def test_a_manager_that_is_gone_fails_nothing(tmp_path: Path) -> None:
    """Nobody at the other end is no error."""
    manager = Manager(str(tmp_path / "gone"))
    manager.notify("READY=1")
    async with supervised(manager, Stop()):
        pass
