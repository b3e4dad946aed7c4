"""A job that is an existing compose stack: its batch service is the job, the others serve it."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from agent.base.containers import built_prefix
from agent.base.engine import LABEL, START_SECONDS, Engine
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.jobs.containers.attached import Attach, Command, ContainerBackend
from agent.jobs.containers.compose import (
    BUILD,
    PULL,
    Compose,
    compose_environ,
    fetch,
    require_compose,
    write_stack,
)
from agent.jobs.containers.ready import wait_for_conditions, wait_until_ready
from agent.jobs.containers.services import Beside, beside, has_init
from agent.jobs.containers.stackfile import StackFile, origins, read_stack, summary
from agent.jobs.containers.state import exit_of, images_of
from agent.jobs.interface import ContainerSpec, Launch
from agent.jobs.verdict import Exit


class StackBackend(ContainerBackend):
    """A compose project of one attempt's own."""

    def __init__(self, launch: Launch, spec: ContainerSpec, engine: Engine, log: Log) -> None:
        super().__init__(launch, spec, engine, log)
        self._service = spec.job.service or ""
        # What is mounted from the release is a copy: a stack may write to it, and the release stays what it was.
        self._tree = launch.cwd.resolve()
        self._document: Mapping[str, Any] = {}
        self._compose: Compose | None = None

    async def prepare(self) -> None:
        """Find compose, have it read the stack, and judge what it read."""
        await self._engine.output(
            "version", "--format", "{{.Server.Version}}", seconds=START_SECONDS
        )
        await require_compose(self._engine.environ)
        stack = StackFile(
            self._spec.job,
            self._tree,
            project=self._name,
            environ=compose_environ(self._engine, self._environment.environ),
            mounts=self._spec.mounts,
            built=built_prefix(self._spec.release),
        )
        reading = await read_stack(stack, self._spec.folder)
        if reading.faults:
            raise ContainerError(f"the stack was not started: {summary(reading.faults)}")
        for file in reading.stood_in:
            self._log.info("job.env_file_stood_in", file=file)
        self._compose, self._document = reading.compose, reading.document
        working = self._spec.working
        working.mounted, working.output = reading.mounted, reading.output
        working.volumes = reading.volumes
        await self._have_images()

    async def serve(self, attach: Attach) -> None:
        """Start the whole stack but the batch service, as `docker compose up` would, and wait for what others name."""
        await self._give_init(attach)
        others = await self._others()
        if others.after:
            self._log.warning(
                "job.services_not_started",
                services=others.after,
                reason="they depend on the job's service",
            )
        if others.started:
            await self._attach(attach, "up", "--detach", "--no-recreate", *others.started)
            await wait_for_conditions(self._engine, self._name, others.conditions)
            await wait_until_ready(self._engine, self._name, others.awaited, self._log)

    async def _give_init(self, attach: Attach) -> None:
        """Give the batch service an init, which passes SIGTERM on, unless its file or its image says otherwise.

        It is built here in any case: as soon as the others run, they may change what it is built from.
        """
        own = self._document["services"][self._service]
        if "init" in own and "build" not in own:
            return
        image = await self._image_of_batch(own, attach)
        if "init" in own:
            return
        own["init"] = has_init(image, own)
        await asyncio.to_thread(write_stack, self._prepared.files[0], self._document)

    async def _image_of_batch(self, own: Mapping[str, Any], attach: Attach) -> Mapping[str, Any]:
        name = str(own.get("image", ""))
        found = await self._engine.run("image", "inspect", name)
        if found.code != 0:
            verb = ("build",) if "build" in own else ("pull", "--quiet")
            await self._attach(attach, *verb, self._service)
            found = await self._engine.run("image", "inspect", name)
        images = json.loads(found.stdout) if found.code == 0 else []
        image: Mapping[str, Any] = images[0] if images else {}
        return image

    async def _attach(self, attach: Attach, *arguments: str) -> None:
        if await attach(self._command(*arguments)) != 0:
            raise ContainerError(f"the stack of {self._spec.job.compose} did not start")

    async def _others(self) -> Beside:
        active = await self._prepared.active_services()
        return beside(self._document, active, self._service)

    async def _have_images(self) -> None:
        """Pull and build with a login, where one is needed: the commands that start the stack have none."""
        images, builds = await asyncio.to_thread(origins, self._document)
        async with self._engine.logged_in(images, builds) as engine:
            if engine.program == self._engine.program:
                return
            others, compose = await self._others(), self._prepared
            for verb in (PULL, BUILD) if builds else (PULL,):
                self._log.info("job.images_wanted", action=f"compose {verb[0]}")
                services = (self._service, *others.started)
                command = (*engine.program, *compose.options, *verb, *services)
                await fetch(command, compose.environ, self._tree)

    @property
    def client(self) -> Command:
        """`compose run` of the batch service alone: it would start again what has done its work and ended."""
        return self._command(
            *("run", "--no-deps", "-T", "--use-aliases", "--name", self._name),
            *("--label", f"{LABEL}={self._launch.environ['MAYFLY_RUN_ID']}"),
            *self._environment.arguments,
            self._service,
            *self._launch.command,
        )

    @property
    def _prepared(self) -> Compose:
        if self._compose is None:
            raise ContainerError("the stack is not prepared")
        return self._compose

    def _command(self, *arguments: str) -> Command:
        compose = self._prepared
        return ("docker", *compose.options, *arguments), compose.environ, self._tree

    async def ended(self) -> Exit:
        """Return how the batch service ended; the image is that of each service."""
        file = self._spec.job.compose
        images = await images_of(self._engine, self._name)
        found = await exit_of(self._engine, self._name, f"{file}: {images or self._service}")
        if found is None:
            raise ContainerError(f"the stack of {file} did not start")
        return found

    async def remove(self) -> None:
        """Remove containers, networks and volumes."""
        if self._compose is not None:
            await super().remove()
