"""The removal of containers and stacks: at the end of an attempt, and after an agent was killed."""

from collections.abc import Collection, Mapping
from pathlib import Path

from agent.base.containers import built_prefix, project_prefix
from agent.base.engine import START_SECONDS, Engine
from agent.base.errors import ContainerError
from agent.base.logs import Log

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
"""The labels that compose gives to all that it makes, and to containers."""


async def remove_container(engine: Engine, name: str, log: Log) -> None:
    """Kill and remove a container with its anonymous volumes; one that is not there is fine."""
    await _remove(engine, ("rm", "--force", "--volumes"), [name], log)


async def remove_stack(engine: Engine, project: str, log: Log) -> None:
    """Remove a stack's containers, networks and volumes. Built images stay for the release's next run."""
    for kind, command in _KINDS:
        try:
            listed = await engine.output(*kind, "--quiet", "--filter", f"label={PROJECT}={project}")
        except ContainerError as error:
            log.warning("job.stack_not_removed", project=project, reason=str(error))
            return
        if listed:
            await _remove(engine, command, listed.split(), log)


async def remove_stacks(run_ids: Collection[str], environ: Mapping[str, str], log: Log) -> int:
    """Remove the stacks of runs that were killed; without an engine there are none.

    Returns:
        How many there were.
    """
    engine = Engine(environ)
    prefixes = tuple(project_prefix(run_id) for run_id in run_ids)
    projects: set[str] = set()
    for kind, _ in _KINDS if prefixes else ():
        try:
            listed = await engine.output(
                *kind,
                *("--filter", f"label={PROJECT}"),
                *("--format", f'{{{{.Label "{PROJECT}"}}}}'),
                seconds=START_SECONDS,
            )
        except ContainerError:
            return 0
        projects |= {name for name in listed.splitlines() if name.startswith(prefixes)}
    for project in sorted(projects):
        await remove_stack(engine, project, log)
    return len(projects)


async def remove_built(tree: Path, environ: Mapping[str, str], log: Log) -> None:
    """Remove the images that stacks of a release built; without an engine there are none."""
    engine = Engine(environ)
    try:
        listed = await engine.output(
            *("image", "ls", "--filter", f"reference={built_prefix(tree)}-*"),
            *("--format", "{{.Repository}}:{{.Tag}}"),
        )
    except ContainerError:
        return
    if images := listed.split():
        await _remove(engine, ("image", "rm"), images, log)
        log.info("tidy.built_images_removed", images=images)


_KINDS = (
    (("ps", "--all"), ("rm", "--force", "--volumes")),
    (("network", "ls"), ("network", "rm")),
    (("volume", "ls"), ("volume", "rm", "--force")),
)


async def _remove(engine: Engine, command: tuple[str, ...], names: list[str], log: Log) -> None:
    if reason := await engine.remove(*command, *names):
        log.warning("job.container_not_removed", names=names, reason=reason)
