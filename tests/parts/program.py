"""A server program that runs beside the tests: log in a file, bounded stop, gone when the tests are."""

import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.parts.missing import program
from tests.parts.waiting import WaitedTooLongError, wait_until

LOG_TAIL_CHARACTERS = 2000
KILLED_SECONDS = 60
"""For the kernel to take a killed process apart, on a busy machine with a process of gigabytes."""


def answers(url: str, status: int = 200) -> bool:
    """Whether somebody answers a URL with this status: what many a server is waited for with."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


class ProgramError(Exception):
    """A server ended, or did not become ready; the message carries the end of its log."""


class Program:
    """One server process in a process group of its own.

    Unless it `survives`, the kernel sends it SIGTERM when the thread that started it ends (`setpriv --pdeathsig`), so
    that a killed test run leaves nothing behind: start it in the main thread.

    Attributes:
        log: The file that gets its standard output and error.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        survives: bool = False,
    ) -> None:
        self.log = log
        self._name = command[0]
        tie = [] if survives else [program("setpriv"), "--pdeathsig", "TERM", "--"]
        self._command = [*tie, *command]
        self._environ = {**os.environ, **(environ or {})}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ProgramError(f"{self._name} is not running")
        return self._process.pid

    def start(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Start it and wait until `ready` says so.

        Raises:
            ProgramError: It ended, or was not ready after `seconds`; it is stopped then.
        """
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                start_new_session=True,
            )
        try:
            wait_until(lambda: not self.running or ready(), seconds=seconds, what=self._name)
        except WaitedTooLongError as error:
            self.stop()
            raise ProgramError(f"{error}\n{self._tail()}") from error
        if not self.running:
            raise ProgramError(f"{self._name} ended at its start\n{self._tail()}")

    @contextmanager
    def serving(self, ready: Callable[[], bool], *, seconds: float) -> Iterator[None]:
        """Start it as `start` does, for the length of a block."""
        self.start(ready, seconds=seconds)
        try:
            yield
        finally:
            self.stop()

    def stop(self, *, seconds: float = 10) -> None:
        """SIGTERM, then SIGKILL to the whole group after `seconds`; a stopped program is left alone."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the whole group: what a power cut does to it."""
        if self._process is None:
            return
        self._signal(signal.SIGKILL)
        self._process.wait(KILLED_SECONDS)
        self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:]
