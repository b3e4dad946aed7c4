"""The three kinds of browser as tests handle them: how each is had, killed, and looked for afterwards."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import psutil

from agent.browser import HOST, Choice, Chromedriver, Container, Place, Remote
from tests.parts.docker_engine import DockerEngine
from tests.parts.grid import Grid
from tests.parts.ports import LOOPBACK


class Rig(Protocol):
    """One kind of browser."""

    choice: Choice
    environ: Mapping[str, str]
    site_host: str
    """The name under which this browser reaches a page that these tests serve."""
    listen: str
    """The address on which such a page must be served."""

    def kill(self, place: Place) -> None:
        """End the browser as a crash would."""

    def revive(self) -> None:
        """Bring back what nobody but its owner can bring back."""

    def remains(self, place: Place) -> list[str]:
        """What is left of the run's browser."""


def browser_processes(run_id: str) -> list[psutil.Process]:
    """The live processes that belong to the browser of a run."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("MAYFLY_RUN_ID") == run_id
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def profiles(place: Place) -> list[str]:
    """What is in the temporary folder, by the run's name."""
    return sorted(map(str, Path("/tmp").glob(f"mayfly-{place.run_id}-*")))


def _runs_chromedriver(process: psutil.Process) -> bool:
    try:
        return Path(process.exe()).name == "chromedriver"
    except psutil.Error:  # a helper of the browser's that has just ended
        return False


class ChromedriverRig:
    """A chromedriver of the run's own."""

    site_host = listen = LOOPBACK

    def __init__(self, program: str) -> None:
        self.choice: Choice = Chromedriver(program)
        self.environ: Mapping[str, str] = {"PATH": os.environ["PATH"]}

    def kill(self, place: Place) -> None:
        """End the driver; its browsers are orphans then."""
        self.driver(place).kill()

    def driver(self, place: Place) -> psutil.Process:
        """The chromedriver of a run."""
        (driver,) = (
            process for process in browser_processes(place.run_id) if _runs_chromedriver(process)
        )
        return driver

    def suspend(self, place: Place) -> None:
        """Make it hang."""
        self.driver(place).send_signal(signal.SIGSTOP)

    def revive(self) -> None:
        """Leave it to the supervisor."""

    def remains(self, place: Place) -> list[str]:
        """Its processes and profiles."""
        return [str(process) for process in browser_processes(place.run_id)] + profiles(place)


class ContainerRig:
    """A container of the run's own."""

    site_host = HOST

    def __init__(self, engine: DockerEngine, image: str) -> None:
        self.image = image
        self.choice: Choice = Container(image)
        self.environ: Mapping[str, str] = {
            "PATH": os.environ["PATH"],
            "TZ": "Asia/Tokyo",
            **engine.environ,
        }
        self.engine = engine
        self.listen = engine.gateway()

    def containers(self, run_id: str) -> list[str]:
        """The containers of a run, whatever their state."""
        listed = self.engine.docker("ps", "--all", "--quiet", f"--filter=label=mayfly.run={run_id}")
        return listed.stdout.split()

    def kill(self, place: Place) -> None:
        """End all processes of the container."""
        (container,) = self.containers(place.run_id)
        assert self.engine.docker("kill", container).returncode == 0

    def revive(self) -> None:
        """Leave it to the supervisor."""

    def remains(self, place: Place) -> list[str]:
        """Its containers."""
        return self.containers(place.run_id)


class RemoteRig:
    """A Grid that is not the run's."""

    site_host = listen = LOOPBACK

    def __init__(self, grid: Grid) -> None:
        self.choice: Choice = Remote(grid.url)
        self.environ: Mapping[str, str] = {}
        self.grid = grid

    def kill(self, place: Place) -> None:
        """Stop the Grid."""
        self.grid.__exit__(None, None, None)

    def revive(self) -> None:
        """Start the Grid again."""
        self.grid.__enter__()

    def remains(self, place: Place) -> list[str]:
        """Processes that it started, of which there are none."""
        return [str(process) for process in browser_processes(place.run_id)]
