"""A job that is one container, run from an image."""

import asyncio
import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from agent.base.containers import BROWSER_PORT, CAPABILITIES, SELENIUM, TASKS
from agent.base.engine import LABEL, Engine, bind_mount, image_digest
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.browser import webdriver_proxy
from agent.jobs.containers.attached import Command, ContainerBackend
from agent.jobs.containers.leftovers import PROJECT
from agent.jobs.containers.services import has_init
from agent.jobs.containers.state import exit_of
from agent.jobs.interface import ContainerSpec, Launch
from agent.jobs.isolation.process import MARKS
from agent.jobs.verdict import Exit

CREATE_SECONDS = 60.0


class ImageBackend(ContainerBackend):
    """One container, in a network of its own."""

    def __init__(self, launch: Launch, spec: ContainerSpec, engine: Engine, log: Log) -> None:
        super().__init__(launch, spec, engine, log)
        self._image = spec.job.image or ""
        self._digest: str | None = None
        self._making: asyncio.Task[str] | None = None
        self._proxy = AsyncExitStack()

    async def prepare(self) -> None:
        """Pull the image if the engine does not have it, and create the container."""
        image = (await self._engine.have(self._image, self._log, "job.image_pulled"))[0]
        self._digest = image_digest(image)
        gateway, subnets = await self._network()
        if self._spec.browser is not None:
            await self._open_proxy(gateway, subnets, self._spec.browser)
        arguments = self._create_arguments(gateway, init=has_init(json.loads(image)[0], {}))
        await self._make(*arguments, environ=self._environment.environ)

    @property
    def client(self) -> Command:
        """`docker start --attach`."""
        command = ("docker", "start", "--attach", self._name)
        marks = {name: self._launch.environ[name] for name in MARKS}
        return command, {**self._engine.environ, **marks}, self._spec.folder

    async def ended(self) -> Exit:
        """Return how its program ended; the image is named with its digest."""
        image = f"{self._image} ({self._digest})" if self._digest else self._image
        found = await exit_of(self._engine, self._name, image)
        if found is None:
            raise ContainerError(f"the container of {self._image} could not be started")
        return found

    async def remove(self) -> None:
        """Remove it, its network, and the way to the browser."""
        await self._proxy.aclose()
        if self._making is not None:
            await asyncio.wait([self._making])  # which has a limit of its own
            if not self._making.cancelled():
                self._making.exception()  # seen: `prepare` has raised it, or nobody wants it any more
            await super().remove()

    async def _make(self, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        """Have the engine make something, to its end: cut off it goes on, and `remove` finds nothing yet."""
        making = self._engine.output(*arguments, seconds=CREATE_SECONDS, environ=environ)
        self._making = asyncio.create_task(making)
        await asyncio.shield(self._making)

    async def _network(self) -> tuple[str, list[str]]:
        """Make a network for this container alone, and return this machine's address in it, and its subnets."""
        labels = (f"{LABEL}={self._launch.environ['MAYFLY_RUN_ID']}", f"{PROJECT}={self._name}")
        marks = (part for label in labels for part in ("--label", label))
        await self._make("network", "create", *marks, self._name)
        form = "{{(index .IPAM.Config 0).Gateway}} {{range .IPAM.Config}}{{.Subnet}} {{end}}"
        gateway, *subnets = (
            await self._engine.output("network", "inspect", "--format", form, self._name)
        ).split()
        return gateway, subnets

    async def _open_proxy(self, gateway: str, subnets: list[str], browser: str) -> None:
        """Let it reach the run's browser, and nobody else: containers of other networks reach the gateway too."""
        try:
            await self._proxy.enter_async_context(
                webdriver_proxy(gateway, BROWSER_PORT, lambda: browser, peers=subnets)
            )
        except OSError as error:
            raise ContainerError(
                f"the browser cannot be offered to the container at {gateway}: {error.strerror}",
                remedy="the engine must run on this machine and have its networks in it",
            ) from error

    def _create_arguments(self, gateway: str, *, init: bool) -> list[str]:
        """Return the arguments of `docker` that create the container.

        Its output comes through the attached client, so the engine keeps no log of it. With `init` it gets a process 1
        of the engine's, because a program that is process 1 ignores SIGTERM unless it asks for it.
        """
        launch, spec = self._launch, self._spec
        shared, limit = spec.job.shared_memory, launch.memory
        mounts = (bind_mount(Path(mount.source), mount.target) for mount in spec.mounts)
        return [
            *("create", "--pull", "never", "--name", self._name),
            *(("--init",) if init else ()),
            *("--label", f"{LABEL}={launch.environ['MAYFLY_RUN_ID']}"),
            *("--label", f"mayfly.job={launch.environ['MAYFLY_JOB']}"),
            *("--network", self._name, "--log-driver", "none", "--pids-limit", str(TASKS)),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *(part for capability in CAPABILITIES for part in ("--cap-add", capability)),
            *(() if shared is None else ("--shm-size", str(shared))),
            *(() if limit is None else ("--memory", str(limit), "--memory-swap", str(limit))),
            *(("--add-host", f"{SELENIUM}:{gateway}") if spec.browser is not None else ()),
            *(part for mount in mounts for part in ("--mount", mount)),
            *self._environment.arguments,
            self._image,
            *launch.command,
        ]
