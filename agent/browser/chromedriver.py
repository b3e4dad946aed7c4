"""This machine's chromedriver as the run's browser; its browsers leave nothing behind."""

import asyncio
import os
import secrets
import shutil
import socket
import stat
import tempfile
from asyncio.subprocess import Process
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

from agent.base import durable, processes
from agent.base.errors import BrowserError
from agent.base.logs import Log
from agent.browser.interface import WATCH, Backend, Place

LISTEN_SECONDS = 20.0
"""Limit from launch to listening; measured: 0.05 s."""

TEMPORARY = Path("/tmp")  # noqa: S108 -- `mkdtemp` makes the folders, and only such are removed
"""Where profiles are. Chromium puts a socket there, and exits if its path is too long: it adds 45 bytes to the 44 of a
profile's folder, and the kernel's limit is 107. The paths of the run and of TMPDIR are of any length."""

ROOMY_SHARED_MEMORY = 512 * 1024**2
"""With less than this in `/dev/shm`, where Chromium draws, tabs crash; Docker gives its containers 64 MiB."""

DISPLAYS = frozenset({"DISPLAY", "XAUTHORITY", "WAYLAND_DISPLAY", "XDG_RUNTIME_DIR"})
"""Variables that name the display for a window that a person watches."""

_STARTED = b"was started successfully"
_PORTS_TRIED = 3
_POLL_SECONDS = 0.02
_TAIL_BYTES = 4096


class LocalBrowser(Backend):
    """A chromedriver, and every browser that it starts."""

    kind = "chromedriver"

    def __init__(self, program: str, place: Place, environ: Mapping[str, str], log: Log) -> None:
        self._program = program
        self._place = place
        self._environ = environ
        self._log = log
        self._port = 0
        self._scratch: Path | None = None
        self._process: Process | None = None
        self._held: AsyncExitStack | None = None
        # A run may replace its browser: one goes while the next one comes.
        self._token = secrets.token_hex(2)
        self._written = place.folder / f"chromedriver-{self._token}.log"

    async def start(self) -> None:
        """Start it, on its earlier port if there was one.

        Raises:
            BrowserError: It cannot be started, or does not listen.
        """
        self._place.make_downloads()
        self._place.folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, _PORTS_TRIED + 1):
            port = self._port or _free_port()
            try:
                await self._listen(port)
            except BrowserError:
                await self.stop()
                if self._port or number == _PORTS_TRIED:
                    raise
            else:
                self._port = port
                self.url = f"http://127.0.0.1:{port}"
                return

    async def running(self) -> bool:
        """Tell whether its process exists."""
        return self._process is not None and self._process.returncode is None

    async def last_words(self) -> str:
        """Return the end of its log, on one line."""
        return " ".join(self._tail().decode(errors="replace").split())[-500:]

    async def stop(self) -> None:
        """Kill it and its browsers, and remove their profiles."""
        self._process = None
        # What is done is forgotten only then: a stop that is cancelled is repeated.
        if self._held is not None:
            await self._held.aclose()
            # Crash handlers live in sessions of their own; they carry our environment all the same.
            await processes.kill_marked(*self._marks())
            self._held = None
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            try:
                durable.remove_tree(scratch)
            except OSError as error:
                self._log.warning("browser.not_removed", folder=str(scratch), reason=str(error))

    async def _listen(self, port: int) -> None:
        """Start it and wait until it says that it listens: another program on that port would answer as well."""
        prefix = _prefix(self._place.run_id)
        scratch = self._scratch = Path(tempfile.mkdtemp(prefix=prefix, dir=TEMPORARY))
        held = self._held = AsyncExitStack()
        command = (self._program, f"--port={port}", "--log-level=WARNING")
        try:
            # A file, not a pipe: nobody has to read it, and a process that holds it open delays nobody.
            with self._written.open("wb") as log:
                process = self._process = await held.enter_async_context(
                    processes.started(
                        command,
                        environ=self._environment(scratch),
                        cwd=scratch,
                        output=log.fileno(),
                    )
                )
        except OSError as error:
            raise BrowserError(
                f"{self._program} could not be started: {error.strerror}",
                remedy="install chromium and chromedriver of the same version",
            ) from error
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_SECONDS):
                while process.returncode is None and _STARTED not in self._tail():  # noqa: ASYNC110 -- a file
                    await asyncio.sleep(_POLL_SECONDS)
        if process.returncode is not None or _STARTED not in self._tail():
            said = await self.last_words()
            raise BrowserError(f"chromedriver does not listen on port {port}: {said}")

    def _tail(self) -> bytes:
        try:
            with self._written.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
                return log.read()
        except OSError:
            return b""

    def _environment(self, scratch: Path) -> dict[str, str]:
        """Return its environment; nothing of ours that a page could find out about."""
        watched = WATCH in self._environ
        passed = {"TZ"} | (DISPLAYS if watched else set())
        flags = browser_flags(
            root=os.geteuid() == 0, shared_memory=_free_shared_memory(), watched=watched
        )
        return {
            "PATH": self._environ.get("PATH", os.defpath),
            "LANG": self._environ.get("LANG", "C.UTF-8"),
            **{name: self._environ[name] for name in passed & self._environ.keys()},
            "HOME": str(scratch),
            "TMPDIR": str(scratch),
            "CHROME_EXTRA_FLAGS": " ".join(flags),
            **dict(mark.split("=", 1) for mark in self._marks()),
        }

    def _marks(self) -> tuple[str, ...]:
        return (*_run_marks(self._place.run_id), f"MAYFLY_BROWSER={self._token}")


def browser_flags(*, root: bool, shared_memory: int, watched: bool = False) -> tuple[str, ...]:
    """Return the flags that every browser gets besides those of its session, so that any scraper gets a session.

    They travel in `CHROME_EXTRA_FLAGS`, which Chromium and Chrome read on Linux (`chrome/app/chrome_main_linux.h`). A
    wrapper on the PATH would not do: chromedriver looks into `/usr/local/bin` and `/usr/bin` first.

    As root Chromium has no sandbox. `shared_memory` are the bytes free in `/dev/shm`. `watched` is for a person
    who wants to see the window.
    """
    return (
        *(() if watched else ("--headless=new",)),
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        *(("--no-sandbox",) if root else ()),
        *(("--disable-dev-shm-usage",) if shared_memory < ROOMY_SHARED_MEMORY else ()),
    )


async def remove_drivers(run_ids: Collection[str]) -> int:
    """Kill the drivers and browsers of killed runs, and remove their profiles; return how many processes."""
    killed = 0
    for run_id in run_ids:
        killed += await processes.kill_marked(*_run_marks(run_id))
        for folder in TEMPORARY.glob(f"{_prefix(run_id)}*"):
            with suppress(OSError):
                if _is_ours(folder):
                    durable.remove_tree(folder)
    return killed


def find_chromedriver(environ: Mapping[str, str]) -> str | None:
    """Return the path of the chromedriver on the PATH, if there is one."""
    return shutil.which("chromedriver", path=environ.get("PATH", os.defpath))


def _run_marks(run_id: str) -> tuple[str, str]:
    return (f"MAYFLY_RUN_ID={run_id}", "MAYFLY_PART=browser")


def _prefix(run_id: str) -> str:
    return f"mayfly-{run_id}-"


def _is_ours(folder: Path) -> bool:
    """Tell whether a folder is as `mkdtemp` made it: other users may take its name, and cannot replace ours."""
    found = folder.lstat()
    private = stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == stat.S_IRWXU
    return private and found.st_uid == os.geteuid()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _free_shared_memory() -> int:
    try:
        return shutil.disk_usage("/dev/shm").free  # noqa: S108
    except OSError:  # not Linux
        return 0
