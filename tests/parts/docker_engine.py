"""A container engine: the one that answers already, or one of the tests' own."""

import fcntl
import os
import signal
import subprocess
from ipaddress import ip_network
from pathlib import Path
from typing import IO, Self

from tests.parts.cache import cache_folder, one_at_a_time
from tests.parts.command import completed, output_of
from tests.parts.missing import MissingPartError, program
from tests.parts.program import Program
from tests.parts.waiting import WaitedTooLongError, wait_until

START_SECONDS = 60
STOP_SECONDS = 30
ANSWER_SECONDS = 20
BUILD_SECONDS = 300
ENGINE = "docker/engine"
"""Who starts or stops it does so alone."""


class DockerEngine:
    """A running Docker engine, as a context manager.

    An engine that answers `docker info` is used and left alone. Otherwise, as root, `dockerd` is started with its data
    in the cache folder, so that images outlive it. Test runs that overlap share it, and the last one stops it; one
    that a killed run left behind is used and stopped by the next.

    Attributes:
        environ: What a `docker` client needs in its environment to reach it.
    """

    def __init__(self) -> None:
        self.environ: dict[str, str] = {}
        self._folder = cache_folder() / "docker"
        self._in_use: IO[bytes] | None = None

    def __enter__(self) -> Self:
        if not self._answers():
            self._join_our_own()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._in_use is None:
            return
        with one_at_a_time(ENGINE), self._in_use as users:
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            self._stop()

    def docker(self, *arguments: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """Run `docker ARGUMENTS` and return what it said, whatever its exit code."""
        return completed([program("docker"), *arguments], environ=self._around, seconds=seconds)

    def do(self, *arguments: str, seconds: float = 60) -> str:
        """Run `docker ARGUMENTS`, which must succeed, and return its standard output."""
        return output_of([program("docker"), *arguments], environ=self._around, seconds=seconds)

    def has(self, image: str) -> bool:
        """Whether it has an image."""
        return self.docker("image", "inspect", image).returncode == 0

    def build(self, name: str, context: Path, *options: str) -> None:
        """Build an image from a folder with a Dockerfile.

        With the classic builder: the other one is a plug-in that Debian's package does not bring.
        """
        command = [program("docker"), "build", "--tag", name, *options, str(context)]
        output_of(command, environ={**self._around, "DOCKER_BUILDKIT": "0"}, seconds=BUILD_SECONDS)

    @property
    def _around(self) -> dict[str, str]:
        return {**os.environ, **self.environ}

    def gateway(self) -> str:
        """This machine's address in the engine's default network.

        An engine with a new data root names none until it is restarted; it is the subnet's first address then.
        """
        form = "{{(index .IPAM.Config 0).Subnet}} {{(index .IPAM.Config 0).Gateway}}"
        subnet, *named = self.do("network", "inspect", "bridge", "--format", form).split()
        return named[0] if named else str(next(ip_network(subnet).hosts()))

    def _answers(self) -> bool:
        try:
            return self.docker("info", seconds=ANSWER_SECONDS).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def _join_our_own(self) -> None:
        if os.geteuid() != 0:
            raise MissingPartError(
                "a container engine", "start Docker, or run the tests as root so that they can"
            )
        self._folder.mkdir(exist_ok=True)
        self.environ = {"DOCKER_HOST": f"unix://{self._folder / 'docker.sock'}"}
        with one_at_a_time(ENGINE):
            if not self._answers():
                self._start()
            self._in_use = (self._folder / "users.lock").open("wb")
            fcntl.flock(self._in_use, fcntl.LOCK_SH)

    def _start(self) -> None:
        program("iptables")
        command = [
            program("dockerd"),
            *("--host", self.environ["DOCKER_HOST"]),
            *("--data-root", str(self._folder / "data")),
            *("--exec-root", str(self._folder / "exec")),
            *("--pidfile", str(self._pid_file)),
        ]
        log = self._folder / "dockerd.log"
        log.unlink(missing_ok=True)
        # dockerd looks for iptables and runc on the PATH, which a person's shell may not have in full.
        path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
        daemon = Program(command, log=log, environ={"PATH": path}, survives=True)
        daemon.start(self._answers, seconds=START_SECONDS)

    @property
    def _pid_file(self) -> Path:
        return self._folder / "docker.pid"

    def _stop(self) -> None:
        pid = int(self._pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        try:
            wait_until(lambda: not _alive(pid), seconds=STOP_SECONDS, what="dockerd to end")
        except WaitedTooLongError:
            os.killpg(pid, signal.SIGKILL)
            self._pid_file.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent to notice does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
