"""Which services of a stack start beside the job, and when one of them serves. Decisions only.

The document is what `docker compose config --format json` prints of all files and all profiles.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

STARTED = "service_started"
"""The condition of a plain `depends_on`: a container that was started, whether its program is ready or not."""
COMPLETED = "service_completed_successfully"
SELENIUM_PORT = 4444
_OTHERS = ("network_mode", "pid", "ipc")
"""Keys whose value may name another service, as `service:NAME`."""
S6 = "/init"
"""The entry point of images that are built upon s6-overlay, which has to be process 1."""
_WAITS = re.compile(
    r"\b(?:crond?\b[^;&|]*? -f|supercronic|tail -[fF] /dev/null|sleep inf(?:inity)?)(?=\s|$)"
)
"""Programs that keep a container up for something else to start the work in it, and never end."""


@dataclass(frozen=True, slots=True)
class Beside:
    """The services that are started besides the job's own.

    Attributes:
        started: Those that are started before it.
        after: Those that depend on the job's own, and so are not started.
        awaited: Of those that are started: the ones that another names without waiting for more than their start.
        conditions: What the job's own service waits for besides, and its `depends_on` on each.
    """

    started: tuple[str, ...]
    after: tuple[str, ...]
    awaited: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def beside(document: Mapping[str, Any], active: Collection[str], batch: str) -> Beside:
    """Return what is started beside the batch service, as `docker compose up` would.

    `active` are the services that no profile switches off.
    """
    services: Mapping[str, Any] = document.get("services") or {}
    wanted = {*active} | _needed({batch, *active}, services)
    after = {name for name in wanted if name != batch and batch in _needed({name}, services)}
    started = wanted - after - {batch}
    awaited = {
        name
        for user in (started | {batch})
        for name, condition in _depends_on(services.get(user) or {})
        if condition == STARTED
    }
    own = services.get(batch) or {}
    conditions = {
        name: own["depends_on"][name]
        for name, condition in _depends_on(own)
        if condition != STARTED and name in started
    }
    return Beside(
        tuple(sorted(started)), tuple(sorted(after)), tuple(sorted(awaited & started)), conditions
    )


def _needed(names: Collection[str], services: Mapping[str, Any]) -> set[str]:
    """Return the services that these need, directly or indirectly."""
    found: set[str] = set()
    waiting = [*names]
    while waiting:
        for name in _named(services.get(waiting.pop()) or {}):
            if name in services and name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _named(service: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for name, _ in _depends_on(service))
    yield from (str(link).partition(":")[0] for link in service.get("links") or ())
    for key in _OTHERS:
        kind, _, name = str(service.get(key) or "").partition(":")
        if kind == "service":
            yield name


def _depends_on(service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    depends = service.get("depends_on") or {}
    if isinstance(depends, Mapping):
        for name, own in depends.items():
            yield name, str((own or {}).get("condition", STARTED))
    else:
        yield from ((str(name), STARTED) for name in depends)


class Sign(Enum):
    """How a service shows that it is ready."""

    SERVES = "serves"  # nothing has to be waited for
    STARTING = "starting"  # its health check has not passed yet
    PORTS = "ports"  # it has no health check; one of its ports has to answer


@dataclass(frozen=True, slots=True)
class Look:
    """What the engine knows of a service's container.

    Attributes:
        sign: How it shows that it is ready.
        address: Its address in a network of the stack; empty when it has none.
        ports: Its TCP ports, in order.
    """

    sign: Sign
    address: str = ""
    ports: tuple[int, ...] = ()


def look(inspected: Mapping[str, Any]) -> Look:
    """Return how a container is, from `docker container inspect`."""
    state: Mapping[str, Any] = inspected.get("State") or {}
    if not state.get("Running"):
        return Look(Sign.SERVES)  # it did its work, or it failed: the job will see
    if health := state.get("Health"):
        return Look(Sign.SERVES if health.get("Status") == "healthy" else Sign.STARTING)
    networks = (inspected.get("NetworkSettings") or {}).get("Networks") or {}
    addresses = [str(own["IPAddress"]) for own in networks.values() if own.get("IPAddress")]
    exposed = (inspected.get("Config") or {}).get("ExposedPorts") or {}
    tcp = (port.removesuffix("/tcp") for port in map(str, exposed))
    ports = sorted(int(port) for port in tcp if port.isdecimal())
    if not addresses or not ports:
        return Look(Sign.SERVES)
    return Look(Sign.PORTS, addresses[0], tuple(ports))


def never_meets(inspected: Mapping[str, Any], condition: str) -> str:
    """Return why a container will not meet a condition any more, from `docker container inspect`; empty if it may."""
    state: Mapping[str, Any] = inspected.get("State") or {}
    if state.get("Status") in {"exited", "dead"}:
        done = condition == COMPLETED and state.get("ExitCode") == 0
        return "" if done else f"it ended with exit code {state.get('ExitCode')}"
    health = (state.get("Health") or {}).get("Status", "none")
    if condition == COMPLETED or health in {"healthy", "starting"}:
        return ""
    return "it is unhealthy" if health == "unhealthy" else "it has no health check"


def meets(inspected: Mapping[str, Any], condition: str) -> bool:
    """Tell whether a container meets a condition, unless it never will."""
    state: Mapping[str, Any] = inspected.get("State") or {}
    if condition == COMPLETED:
        return state.get("Status") == "exited"
    return (state.get("Health") or {}).get("Status") == "healthy"


def has_init(image: Mapping[str, Any], service: Mapping[str, Any]) -> bool:
    """Tell whether a service gets the engine's init, where its file does not say: not if its image is built on s6.

    Args:
        image: The image, from `docker image inspect`.
        service: The service; its own entry point counts before the image's.
    """
    own = service.get("entrypoint")
    entry = own or (image.get("Config") or {}).get("Entrypoint")
    first = entry[0] if isinstance(entry, list) and entry else entry
    return str(first or "") != S6


def waits_with(service: Mapping[str, Any]) -> str:
    """Return the program that keeps a service up without end; empty when its file names none."""
    words = (*(service.get("entrypoint") or ()), *(service.get("command") or ()))
    found = _WAITS.search(" ".join(map(str, words)))
    return found.group() if found else ""
