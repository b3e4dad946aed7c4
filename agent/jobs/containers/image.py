"""A job that is one container, run from an image."""

import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from agent.base.containers import (
    BROWSER_PORT,
    CAPABILITIES,
    SELENIUM,
    TASKS,
    ContainerEnvironment,
    given,
    project_name,
)
from agent.base.engine import LABEL, Engine, bind_mount, image_digest
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.browser import webdriver_proxy
from agent.jobs.containers.attached import Attach
from agent.jobs.containers.leftovers import PROJECT, remove_container, remove_stack
from agent.jobs.containers.services import has_init
from agent.jobs.containers.state import exit_of, running, signal_container
from agent.jobs.interface import ContainerSpec, Exit, Launch

CREATE_SECONDS = 60.0


class ImageVessel:
    """One container."""

    def __init__(self, launch: Launch, spec: ContainerSpec, engine: Engine, log: Log) -> None:
        """Describe a container that does not exist yet."""
        self._launch = launch
        self._contained = spec
        self._image = spec.image or ""
        self._engine = engine
        self._log = log
        self._name = project_name(launch.environ["MAYFLY_RUN_ID"], launch.name)
        self._given = given(launch.environ, spec.secrets)
        self._digest: str | None = None
        self._begun = False
        self._proxy = AsyncExitStack()

    async def prepare(self) -> None:
        """Pull the image if the engine does not have it, and create the container.

        Raises:
            ContainerError: There is no engine, the image cannot be had, or the engine refuses.
        """
        image = await self._have_image()
        self._digest = image_digest(image)
        gateway = await self._network()
        if self._contained.browser is not None:
            await self._open_proxy(gateway, self._contained.browser)
        arguments = create_arguments(
            self._name,
            self._launch,
            self._contained,
            self._given,
            gateway,
            init=has_init(json.loads(image)[0], {}),
        )
        await self._engine.output(*arguments, seconds=CREATE_SECONDS, environ=self._given.environ)

    async def serve(self, attach: Attach) -> None:
        """Nothing serves it but the run's browser."""

    @property
    def client(self) -> tuple[Sequence[str], Mapping[str, str], Path]:
        """`docker start --attach`, which ends when the container does."""
        command = ("docker", "start", "--attach", self._name)
        marks = {
            name: self._launch.environ[name]
            for name in ("MAYFLY_RUN_ID", "MAYFLY_JOB")
            if name in self._launch.environ
        }
        return command, {**self._engine.environ, **marks}, self._contained.folder

    async def ended(self) -> Exit:
        """Return how its program ended.

        Raises:
            ContainerError: It never started.
        """
        image = f"{self._image} ({self._digest})" if self._digest else self._image
        found = await exit_of(self._engine, self._name, image)
        if found is None:
            raise ContainerError(f"the container of {self._image} could not be started")
        return found

    async def terminate(self) -> bool:
        """Send it SIGTERM."""
        return await running(self._engine, self._name) and await signal_container(
            self._engine, self._name
        )

    async def remove(self) -> None:
        """Kill and remove it, and its network."""
        await self._proxy.aclose()
        if self._begun:
            await remove_container(self._engine, self._name, self._log)
            await remove_stack(self._engine, self._name, self._log)

    async def _network(self) -> str:
        """Make a network of its own, in which no other container is, and return this machine's address in it."""
        labels = (f"{LABEL}={self._launch.environ['MAYFLY_RUN_ID']}", f"{PROJECT}={self._name}")
        marks = (part for label in labels for part in ("--label", label))
        self._begun = True
        await self._engine.output("network", "create", *marks, self._name, seconds=CREATE_SECONDS)
        gateway = "{{(index .IPAM.Config 0).Gateway}}"
        return await self._engine.output("network", "inspect", "--format", gateway, self._name)

    async def _open_proxy(self, gateway: str, browser: str) -> None:
        """Let it reach the run's browser, and nobody else."""
        try:
            await self._proxy.enter_async_context(
                webdriver_proxy(gateway, BROWSER_PORT, lambda: browser)
            )
        except OSError as error:
            raise ContainerError(
                f"the browser cannot be offered to the container at {gateway}: {error.strerror}",
                remedy="the engine must run on this machine and have its networks in it",
            ) from error

    async def _have_image(self) -> bytes:
        """Return what the engine says of the image, which it has then."""
        return (await self._engine.have(self._image, self._log, "job.image_pulled"))[0]


def create_arguments(
    name: str,
    launch: Launch,
    spec: ContainerSpec,
    environment: ContainerEnvironment,
    gateway: str,
    *,
    init: bool = True,
) -> list[str]:
    """Return the arguments of `docker` that create a job's container.

    Its output comes through the attached client, so the engine keeps no log of it. `--init` because a program that is
    process 1 ignores SIGTERM unless it asks for it; without where the image's own has to be process 1.

    Args:
        name: The container's name, and its network's.
        launch: What to run.
        spec: In which image, with which folders.
        environment: How it gets its environment.
        gateway: This machine's address in its network.
        init: Whether it gets a process 1 of the engine's.
    """
    shared = str(spec.shared_memory) if spec.shared_memory is not None else ""
    limit = str(launch.memory) if launch.memory is not None else ""
    return [
        *("create", "--pull", "never", "--name", name),
        *(("--init",) if init else ()),
        *("--label", f"{LABEL}={launch.environ['MAYFLY_RUN_ID']}"),
        *("--label", f"mayfly.job={launch.environ['MAYFLY_JOB']}"),
        *("--network", name, "--log-driver", "none", "--pids-limit", str(TASKS)),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *(part for capability in CAPABILITIES for part in ("--cap-add", capability)),
        *(("--shm-size", shared) if shared else ()),
        *(("--memory", limit, "--memory-swap", limit) if limit else ()),
        *(("--add-host", f"{SELENIUM}:{gateway}") if spec.browser is not None else ()),
        *(
            part
            for mount in spec.mounts
            for part in ("--mount", bind_mount(Path(mount.source), mount.target))
        ),
        *environment.arguments,
        spec.image or "",
        *launch.command,
    ]
