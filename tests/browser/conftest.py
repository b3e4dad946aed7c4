"""A run's place, its log, and the three kinds of browser."""

import asyncio
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.base.logs import Log, RunLogger
from agent.browser import Place, Supervisor, WatchSettings, supervise
from agent.config.settings import Browser
from tests.browser.rigs import ChromedriverRig, ContainerRig, RemoteRig, Rig
from tests.parts.docker_engine import DockerEngine
from tests.parts.grid import Grid
from tests.parts.missing import program
from tests.parts.waiting import wait_until

QUICK = WatchSettings(interval=0.2, answer=10.0, misses=3, pause=0.2)
"""The supervisor's watch, at a pace at which tests can wait for it; a browser may be slow on a busy machine."""


@dataclass
class Events:
    """What was logged."""

    seen: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log: Log = RunLogger(self.seen.append).log

    def named(self, name: str) -> list[dict[str, Any]]:
        """The events of one name."""
        return [event for event in self.seen if event["event"] == name]

    async def wait_for(self, name: str, count: int = 1) -> None:
        """Wait until so many events of a name are there."""
        await asyncio.to_thread(
            wait_until, lambda: len(self.named(name)) >= count, seconds=60, what=f"{count} {name}"
        )


@pytest.fixture
def events() -> Events:
    """The log of the test."""
    return Events()


@pytest.fixture
def place() -> Iterator[Place]:
    """A run of its own, in a folder as short as the machine's."""
    run_id = f"20261122T064205Z-{secrets.token_hex(3)}"
    folder = Path(tempfile.mkdtemp(prefix="m", dir="/tmp"))
    yield Place(run_id, folder / "browser", folder / "downloads")
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def chromedriver() -> str:
    """The path of the machine's chromedriver."""
    return program("chromedriver")


@pytest.fixture
def local_rig(chromedriver: str) -> ChromedriverRig:
    """A browser by chromedriver."""
    return ChromedriverRig(chromedriver)


@pytest.fixture
def container_rig(docker_engine: DockerEngine, selenium_image: str) -> ContainerRig:
    """A browser in a container."""
    return ContainerRig(docker_engine, selenium_image)


@pytest.fixture
def remote_rig(place: Place) -> Iterator[RemoteRig]:
    """A browser of a Grid that a test may stop."""
    # In a folder with a short path: Chromium puts a socket there.
    with Grid(place.folder.parent / "grid") as grid:
        yield RemoteRig(grid)


@pytest.fixture(params=["local_rig", "container_rig", "remote_rig"])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Each kind of browser in turn."""
    kind: Rig = request.getfixturevalue(request.param)
    return kind


@pytest.fixture(params=["local_rig", "container_rig"])
def own_rig(request: pytest.FixtureRequest) -> Rig:
    """Each kind of browser that the run starts itself."""
    kind: Rig = request.getfixturevalue(request.param)
    return kind


def supervisor_of(
    rig: Rig, place: Place, events: Events, *, pace: WatchSettings = QUICK, **settings: Any
) -> Supervisor:
    """The supervisor of a rig's browser, watching quickly."""
    return supervise(
        rig.choice,
        place,
        settings=Browser.model_validate({"timeout": "60s", "shared_memory": "512MiB", **settings}),
        environ=rig.environ,
        log=events.log,
        pace=pace,
    )
