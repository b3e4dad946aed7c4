"""Jobs in containers: one image, or an existing compose stack, started and ended like any other program."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from agent.base.containers import start_failure
from agent.base.engine import Engine, Login, no_login
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.jobs.containers.attached import ContainerBackend, ContainerProcess
from agent.jobs.containers.folders import into_container
from agent.jobs.containers.image import ImageBackend
from agent.jobs.containers.leftovers import remove_stacks
from agent.jobs.containers.stack import StackBackend
from agent.jobs.interface import Launch, Running
from agent.jobs.isolation.process import output_pipe

__all__ = ["Containers", "into_container", "remove_stacks", "start_failure"]


class Containers:
    """Runs each job in a container, or in a compose stack, of its own; an `Isolation` like the others.

    A container sees nothing of the release, and a stack a copy.
    """

    protects_tree = True

    def __init__(self, environ: Mapping[str, str], log: Log, login: Login = no_login) -> None:
        """Describe where containers run.

        Args:
            environ: Where `docker`, compose and the engine are found.
            log: Bound to the job.
            login: Opens a private registry.
        """
        self._login = login
        self._environ = environ
        self._log = log

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        """Begin to start a container; leaving the context removes it and all that was started for it.

        Pulling and building count as the job's time: `wait` raises ContainerError when they fail.
        """
        backend = self._backend(launch)
        async with output_pipe() as (output, writing):
            running = ContainerProcess(backend, output, writing)
            try:
                yield running
            finally:
                await running.close()
                await backend.remove()

    def _backend(self, launch: Launch) -> ContainerBackend:
        if launch.container is None:
            raise ContainerError("this job has no container")
        engine = Engine(self._environ, self._login)
        if launch.container.compose is not None:
            return StackBackend(launch, launch.container, engine, self._log)
        return ImageBackend(launch, launch.container, engine, self._log)
