"""The folders of an attempt as a container gets them."""

from dataclasses import replace
from pathlib import Path

from agent.base.containers import BROWSER, OUTPUT, RESULT, STATE, Mount
from agent.config.jobsfile import Job
from agent.delivery.spool import Workspace
from agent.jobs.environment import AttemptPaths
from agent.jobs.interface import ContainerSpec
from agent.jobs.worktree import open_up


def into_container(
    job: Job, paths: AttemptPaths, space: Workspace
) -> tuple[AttemptPaths, ContainerSpec]:
    """Open an attempt's folders to its container, whatever user it has, and to nobody else.

    Args:
        job: The job.
        paths: The paths for a program of this machine.
        space: The attempt's folders.

    Returns:
        The paths inside, and the mounts. Downloads have the same path inside, because the browser uses it as well.
    """
    space.root.chmod(0o700)
    output = job.output or OUTPUT
    mounts = _mounts(paths, space, output)
    inside = replace(
        paths,
        output=Path(output),
        state=Path(STATE),
        result_file=Path(RESULT, space.result_file.name),
        webdriver=BROWSER if paths.webdriver else None,
        programs=None,
    )
    return inside, ContainerSpec(
        folder=space.root,
        mounts=mounts,
        image=job.image,
        compose=job.compose,
        service=job.service,
        secrets=job.secrets,
        browser=paths.webdriver,
        stands_in=(*job.secrets, *job.env),
        shared_memory=job.shared_memory,
    )


def _mounts(paths: AttemptPaths, space: Workspace, output: str) -> tuple[Mount, ...]:
    own = {space.output: output, space.state: STATE, space.result_file.parent: RESULT}
    for folder in own:
        open_up(folder)
    if paths.downloads is not None:
        own[paths.downloads] = str(paths.downloads)
    return tuple(Mount(str(folder), target) for folder, target in own.items())
