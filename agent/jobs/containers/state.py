"""What the engine knows of a job's containers: whether they run, how they ended, of which images they are."""

import json
import signal
from typing import Any

from agent.base.engine import Engine, image_digest, is_missing
from agent.base.errors import ContainerError
from agent.jobs.containers.leftovers import PROJECT, SERVICE
from agent.jobs.verdict import Exit

NEVER = "0001-01-01"
"""How the engine writes the start of a container that has not been started."""

_BY_SIGNAL = 128
"""Engines and shells add this to the signal that ended a program."""


async def exit_of(engine: Engine, name: str, image: str) -> Exit | None:
    """Return how a container of an image ended; None when it never started, or is not there.

    Raises:
        ContainerError: It still runs, or the engine did not answer.
    """
    container = await _inspected(engine, name)
    state = container["State"] if container is not None else {}
    if state.get("Running"):
        raise ContainerError("the engine's client ended while the container still ran")
    if str(state.get("StartedAt", NEVER)).startswith(NEVER):
        return None
    code = int(state["ExitCode"])
    if code != 0 and state.get(
        "OOMKilled"
    ):  # a process of the container, which need not be its program
        return Exit(None, signal.SIGKILL, image=image, out_of_memory=True)
    if code - _BY_SIGNAL in {signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGABRT}:
        return Exit(None, code - _BY_SIGNAL, image=image)
    return Exit(code, image=image)


async def containers_of(engine: Engine, *labels: str) -> list[dict[str, Any]]:
    """Return `docker container inspect` of the containers that have all labels.

    Raises:
        ContainerError: The engine did not answer.
    """
    filters = (part for label in labels for part in ("--filter", f"label={label}"))
    listed = (await engine.output("ps", "--all", "--quiet", *filters)).split()
    found: list[dict[str, Any]] = []
    if listed:
        found = json.loads(await engine.output("container", "inspect", *listed))
    return found


async def images_of(engine: Engine, project: str) -> str:
    """Return a stack's services with image and digest, as one text.

    Raises:
        ContainerError: The engine did not answer.
    """
    used = {
        str(own["Config"]["Labels"].get(SERVICE, "?")): (own["Config"]["Image"], own["Image"])
        for own in await containers_of(engine, f"{PROJECT}={project}")
    }
    digests = {
        identity: image_digest((await engine.run("image", "inspect", identity)).stdout)
        for identity in {identity for _, identity in used.values()}
    }
    return ", ".join(
        f"{service}={name} ({digests[identity] or identity})"
        for service, (name, identity) in sorted(used.items())
    )


async def terminate(engine: Engine, name: str) -> bool:
    """Send a container's program the signal that its image or stack names, usually SIGTERM; False if none runs.

    Raises:
        ContainerError: The engine did not answer.
    """
    container = await _inspected(engine, name)
    if container is None or not container["State"].get("Running"):
        return False
    wanted = container["Config"].get("StopSignal") or "TERM"
    return (await engine.run("kill", "--signal", wanted, name)).code == 0


async def _inspected(engine: Engine, name: str) -> dict[str, Any] | None:
    """Return `docker container inspect`; None when there is no such container."""
    asked = await engine.run("container", "inspect", name)
    if asked.code != 0:
        if is_missing(asked):
            return None
        raise ContainerError(f"the engine does not tell how {name} ended: {asked.complaint}")
    container: dict[str, Any] = json.loads(asked.stdout)[0]
    return container
