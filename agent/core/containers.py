"""Jobs in containers: where things are inside, what the engine is told, and what a stack may not ask for."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

OUTPUT, STATE, RESULT = "/mayfly/output", "/mayfly/state", "/mayfly/result"
"""Where a job finds its folders when it does not name a path for its output itself."""

SELENIUM = "selenium"
"""The name under which a job in a container reaches the run's browser: the one that compose stacks give theirs."""

BROWSER_PORT = 4444
BROWSER = f"http://{SELENIUM}:{BROWSER_PORT}"
"""The run's browser, as every job in a container reaches it: at the address that a Grid in a stack would have."""

TASKS = 1024
"""Processes and threads of a container; a program with a thread pool for each of 64 cores stays below."""

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
"""What root in a container keeps: to handle its own files and to become another user, as many entry points do."""

_IMAGES_OWN = frozenset({"PATH", "HOME", "LANG", "VIRTUAL_ENV"})
"""Variables whose right values only the image knows."""

_CLIENTS_OWN = re.compile(
    r"PATH|HOME|TMPDIR|GLIBC_TUNABLES|GCONV_PATH|(LD|DOCKER|COMPOSE|BUILDKIT|BUILDX|PYTHON|GO|SSL)_?[A-Z_]*"
)
"""Variables that the engine's command line itself, which runs as the agent's user, might obey."""

_CONFLICT = re.compile(r'container name "/?([^"]+)" is already in use')
_PORT = re.compile(
    r"(?:bind for |listen tcp4? )?\S*?:(\d+)(?::| failed).*?(?:already)", re.IGNORECASE
)
_NO_ENV_FILE = re.compile(r"(?:find env file: |env file )(.+?)(?: not found.*)?$", re.IGNORECASE)


def is_clients_own(name: str) -> bool:
    """Tell whether a variable of this name would reach the engine's command line and not only the container."""
    return _CLIENTS_OWN.fullmatch(name) is not None


def output_problem(path: str) -> str | None:
    """Return why results cannot be mounted at this path of a container, or None."""
    if path == "/" or str(PurePosixPath(path)) != path or ".." in path.split("/"):
        return "is not a plain absolute path of a folder"
    if re.search(r"[:,\x00-\x1f\x7f\"]", path):
        return "has a character that container engines do not take"
    return None


@dataclass(frozen=True, slots=True)
class Given:
    """How a container gets its environment.

    Attributes:
        arguments: `--env NAME=value`, and `--env NAME` for what no command line may show.
        environ: What the client's environment must have for the latter.
    """

    arguments: tuple[str, ...]
    environ: Mapping[str, str]


def given(environment: Mapping[str, str], secrets: Sequence[str]) -> Given:
    """Return how a job's environment reaches its container.

    Args:
        environment: The whole environment, as for a program of this machine.
        secrets: Names in it whose values no command line may show.
    """
    inside = {name: value for name, value in environment.items() if name not in _IMAGES_OWN}
    shown = [
        part
        for name, value in inside.items()
        for part in ("--env", name if name in secrets else f"{name}={value}")
    ]
    # The client gets the rest as well, for `${NAME}` in a compose file; the run's id marks it as ours.
    client = {name: value for name, value in inside.items() if not is_clients_own(name)}
    return Given(tuple(shown), client)


def project_name(run_id: str, name: str) -> str:
    """Return the name of a compose project, or of a container: one attempt's own."""
    return f"{project_prefix(run_id)}{name}"


def project_prefix(run_id: str) -> str:
    """Return how the names of all compose projects of a run begin; compose wants small letters."""
    return f"mayfly-{run_id}-".lower()


def stack_problem(config: str) -> str | None:
    """Return what a stack asks for and must not have, or None.

    Args:
        config: The stack as compose itself writes it (`config`), in YAML or in JSON.
    """
    for pattern, what in _REFUSED:
        if pattern.search(config):
            return what
    return None


_REFUSED = tuple(
    (re.compile(rf'^\s*(?:- )?"?{pattern}"?,?\s*$', re.MULTILINE), what)
    for pattern, what in (
        (r'privileged"?: "?true', "privileged: true"),
        (r'network_mode"?: "?host', "network_mode: host"),
        (r'pid"?: "?host', "pid: host"),
        (
            r'(?:source"?: )?"?[^\s:]*(?:docker|containerd|podman)\.sock[^\s"]*',
            "the engine's socket",
        ),
    )
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine in a container."""

    source: str
    target: str


def override(config: Mapping[str, Any], service: str, mounts: Sequence[Mount], built: str) -> str:
    """Return the file that is merged over a stack's own, for compose 2.24.4 or newer.

    It maps the job's folders into the batch service, and takes from all services what collides with other runs or
    outlives them: fixed names (which stay as names in the stack's networks), ports of this machine, restarts.

    Args:
        config: The stack, from `docker compose config --format json`.
        service: The batch service.
        mounts: What is mounted into it; what the stack mounts there itself gives way.
        built: Begins the names of images that the stack builds, so that each is built once.
    """
    lines = ["services:"]
    for name, own in sorted(config.get("services", {}).items()):
        lines += [f"  {json.dumps(name)}:", '    restart: "no"', "    ports: !reset []"]
        if "container_name" in own:
            lines.append("    container_name: !reset null")
            lines += _alias(own, str(own["container_name"]))
        if "build" in own and "image" not in own:
            lines.append(f"    image: {json.dumps(f'{built}-{name.lower()}')}")
        if name == service:
            lines += ["    init: true", "    volumes:"]
            lines += [f"      - {json.dumps(_volume(mount))}" for mount in mounts]
    return "\n".join(lines) + "\n"


def plain_override(text: str, service: str, mounts: Sequence[Mount]) -> str:
    """Return the file that is merged over a stack's own for compose 1: it maps the job's folders, and no more.

    Args:
        text: The stack's own file, whose version the other must have.
        service: The batch service.
        mounts: What is mounted into it.
    """
    version = _VERSION.search(text)
    volumes = [f"{mount.source.replace('$', '$$')}:{mount.target}" for mount in mounts]
    merged = {"services": {service: {"volumes": volumes}}}
    return json.dumps(({"version": version.group(1)} if version else {}) | merged)


_VERSION = re.compile(r"""^version\s*:\s*["']?([0-9.]+)["']?\s*(?:#.*)?$""", re.MULTILINE)


def _volume(mount: Mount) -> dict[str, str]:
    # A dollar sign would begin a variable.
    return {"type": "bind", "source": mount.source.replace("$", "$$"), "target": mount.target}


def _alias(own: Mapping[str, Any], alias: str) -> list[str]:
    """Return the lines that keep a fixed name as a name in the service's networks."""
    networks = own.get("networks") or {}
    if "network_mode" in own or not networks:
        return []
    known = {
        name: [*((settings or {}).get("aliases") or []), alias]
        for name, settings in networks.items()
    }
    return ["    networks:"] + [
        f"      {json.dumps(name)}: {json.dumps({'aliases': aliases})}"
        for name, aliases in known.items()
    ]


def missing_env_file(complaint: str) -> str | None:
    """Return the path of the env file that a stack names and that is not there, from what compose says."""
    for line in complaint.splitlines():
        if found := _NO_ENV_FILE.search(line.strip()):
            return found.group(1)
    return None


def told(failure: str, tail: Collection[str]) -> str:
    """Return why a container did not start, with what was said last and what can be done about it."""
    said = [line.strip() for line in tail if line.strip() and "level=warning" not in line]
    parts = [failure, said[-1] if said else "", remedy_for("\n".join(said))]
    return "; ".join(part for part in parts if part)


def remedy_for(said: str) -> str:
    """Return what can be done about the end of what the engine or compose said; empty when it is not known."""
    if conflict := _CONFLICT.search(said):
        return (
            f'something else on this machine has the name "{conflict.group(1)}": remove container_name from the'
            " compose file, or use compose 2.24.4 or newer, with which names are the run's own"
        )
    if "already allocated" in said or "already in use" in said:
        port = _PORT.search(said)
        which = f"port {port.group(1)}" if port else "a port"
        return (
            f"{which} of this machine is taken: remove ports from the compose file (services reach each other"
            " without), or use compose 2.24.4 or newer; 4444 may be the agent's own: browser.port = 0"
        )
    if "manifest unknown" in said or "pull access denied" in said or "not found: manifest" in said:
        return "check the image's name, and that this machine may pull it"
    return ""
