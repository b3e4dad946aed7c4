"""A job's container or stack as an isolation: started and ended like any other program."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from agent.base.containers import BROWSER, OUTPUT, RESULT, STATE, Mount
from agent.base.engine import Engine, Login, no_login
from agent.base.errors import ContainerError
from agent.base.logs import Log
from agent.config.jobsfile import Job
from agent.delivery.spool import Workspace
from agent.jobs.containers.attached import ContainerProcess
from agent.jobs.containers.image import ImageBackend
from agent.jobs.containers.stack import StackBackend
from agent.jobs.environment import AttemptPaths
from agent.jobs.interface import ContainerSpec, Launch, Running
from agent.jobs.isolation.process import output_pipe
from agent.jobs.worktree import WorkingDirectory, open_up


class Containers:
    """Runs each job in a container, or in a compose stack, of its own; an `Isolation` like the others.

    A container sees nothing of the release, and a stack a copy.
    """

    protects_tree = True

    def __init__(self, environ: Mapping[str, str], log: Log, login: Login = no_login) -> None:
        self._login = login
        self._environ = environ
        self._log = log

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        """Begin to start a container; leaving the context removes it and all that was started for it.

        Pulling and building count as the job's time: `wait` raises ContainerError when they fail.
        """
        spec = launch.container
        if spec is None:
            raise ContainerError("this job has no container")
        kind = ImageBackend if spec.job.compose is None else StackBackend
        backend = kind(launch, spec, Engine(self._environ, self._login), self._log)
        async with output_pipe() as (output, writing):
            running = ContainerProcess(backend, output, writing)
            try:
                yield running
            finally:
                await running.close()
                await backend.remove()


def into_container(
    job: Job, paths: AttemptPaths, space: Workspace, release: Path, working: WorkingDirectory
) -> tuple[AttemptPaths, ContainerSpec]:
    """Open an attempt's folders to its container, whatever user it has, and to nobody else.

    `release` has the release's files, and `working` is the attempt's working directory.

    Returns:
        The paths inside, in place of those for a program of this machine, and what only a container has. Downloads have
        the same path inside, because the browser uses it as well.
    """
    space.root.chmod(0o700)
    output = job.output or OUTPUT
    folders = {space.output: output, space.state: STATE, space.result_file.parent: RESULT}
    for folder in folders:
        open_up(folder)
    if paths.downloads is not None:
        folders[paths.downloads] = str(paths.downloads)
    mounts = tuple(Mount(str(folder), target) for folder, target in folders.items())
    inside = replace(
        paths,
        output=Path(output),
        state=Path(STATE),
        result_file=Path(RESULT, space.result_file.name),
        webdriver=BROWSER if paths.webdriver else None,
        programs=None,
    )
    return inside, ContainerSpec(job, space.root, mounts, paths.webdriver, release, working)
