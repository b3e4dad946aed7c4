"""Jobs in containers: paths inside, the engine's arguments, and changes to a compose stack. Decisions only."""

import copy
import hashlib
import json
import posixpath
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath, PurePosixPath
from typing import Any

OUTPUT, STATE, RESULT = "/mayfly/output", "/mayfly/state", "/mayfly/result"
"""A job's folders in its container, unless it names its own output path."""

SELENIUM = "selenium"
"""The browser's host name for a job in a container: the name that compose stacks use."""

SHARED_MEMORY = "/dev/shm"  # noqa: S108 -- no file: a mount of the machine, in whose place a stack gets its own

BROWSER_PORT = 4444
BROWSER = f"http://{SELENIUM}:{BROWSER_PORT}"
"""The run's browser for a job in a container, at the address that a Grid in a stack would have."""

TASKS = 1024
"""Processes and threads of a container; a program with a thread pool for each of 64 cores needs fewer."""

CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID")
"""Capabilities of root in a container: for its own files, and to become another user, as many entry points do."""

IMAGE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$"
"""Image names that are no options of the engine's command line, as `--privileged` would be."""

_IMAGES_OWN = frozenset({"PATH", "HOME", "LANG", "VIRTUAL_ENV"})
"""Variables whose values only the image knows."""

_CLIENTS_OWN = re.compile(
    r"PATH|HOME|TMPDIR|GLIBC_TUNABLES|GCONV_PATH|GO(DEBUG|GC|MAXPROCS|MEMLIMIT|TRACEBACK|COVERDIR)"
    r"|PYTHON[A-Z0-9_]*|(LD|DOCKER|COMPOSE|BUILDKIT|BUILDX|GIT|SSL)_[A-Z0-9_]*"
)
"""Variables that the engine's client itself, which runs as the agent's user, or git in its name, might obey."""


def is_clients_own(name: str) -> bool:
    """Tell whether a variable would affect the engine's client, not only the container."""
    return _CLIENTS_OWN.fullmatch(name) is not None


def output_problem(path: str) -> str | None:
    """Return why results cannot be mounted at this path of a container, or None."""
    if (
        not path.startswith("/")
        or path == "/"
        or str(PurePosixPath(path)) != path
        or ".." in path.split("/")
    ):
        return "is not a plain absolute path of a folder"
    if re.search(r"[:,\x00-\x1f\x7f\"]", path):
        return "has a character that container engines do not take"
    return None


@dataclass(frozen=True, slots=True)
class ContainerEnvironment:
    """A container's environment.

    Attributes:
        arguments: `--env NAME=value`, and `--env NAME` for what no command line may show.
        environ: The client's environment, which has the latter's values.
    """

    arguments: tuple[str, ...]
    environ: Mapping[str, str]


def container_environment(
    environment: Mapping[str, str], secrets: Sequence[str]
) -> ContainerEnvironment:
    """Return how a job's environment reaches its container; no command line shows the values named in `secrets`."""
    inside = {name: value for name, value in environment.items() if name not in _IMAGES_OWN}
    shown = [
        part
        for name, value in inside.items()
        for part in ("--env", name if name in secrets else f"{name}={value}")
    ]
    # The client gets the rest as well, for `${NAME}` in a compose file; the run's id marks it as ours.
    client = {name: value for name, value in inside.items() if not is_clients_own(name)}
    return ContainerEnvironment(tuple(shown), client)


def project_name(run_id: str, name: str) -> str:
    """Return the name of a compose project, or of a container, of one attempt."""
    return f"{project_prefix(run_id)}{name}"


def project_prefix(run_id: str) -> str:
    """Return the prefix of the names of a run's compose projects, in lower case as compose demands."""
    return f"mayfly-{run_id}-".lower()


def built_prefix(tree: PurePath) -> str:
    """Return the prefix of the names of all images that stacks of this release build."""
    return f"mayfly-built-{hashlib.sha256(str(tree).encode()).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder of this machine in a container."""

    source: str
    target: str


def adapted(
    document: Mapping[str, Any], *, service: str, mounts: Sequence[Mount], built: str
) -> dict[str, Any]:
    """Return a compose stack with the job's folders, in which the stack's own mounts there give way.

    From all services it removes what collides with other runs, outlives them or is shared with the machine: fixed names
    (kept as aliases in the stack's networks), ports, restarts, the machine's shared memory.

    Args:
        document: The stack, from `docker compose config --format json`.
        service: The batch service.
        mounts: What is mounted into it.
        built: Prefix of the names of images that the stack builds: a release's code never runs under another's name.
    """
    stack = copy.deepcopy(dict(document))
    services = stack["services"]
    names = {
        own.get("image", name): f"{built}-{name.lower()}"
        for name, own in sorted(services.items(), reverse=True)
        if "build" in own
    }
    for name, own in services.items():
        for key in ("restart", "ports", "develop"):
            own.pop(key, None)
        (own.get("deploy") or {}).pop("restart_policy", None)
        if "build" in own:
            # Built before the first container runs, and never again: containers may change what it is built from.
            own.pop("pull_policy", None)
        image = own.get("image", name if "build" in own else None)
        if image in names:
            own["image"] = names[image]
        alias, networks = own.pop("container_name", None), own.get("networks") or {}
        for key, settings in networks.items() if alias else ():
            aliases = (settings or {}).get("aliases") or ()
            networks[key] = {**(settings or {}), "aliases": [*aliases, alias]}
        theirs = {posixpath.normpath(each["target"]): each for each in own.get("volumes") or ()}
        if (theirs.get(SHARED_MEMORY) or {}).get("source") == SHARED_MEMORY:
            theirs[SHARED_MEMORY] = {"type": "tmpfs", "target": SHARED_MEMORY}
        ours = {each.target: {"type": "bind", **asdict(each)} for each in mounts if name == service}
        own["volumes"] = [*(theirs | ours).values()]
    for kind in ("networks", "volumes"):
        for key, own in (stack.get(kind) or {}).items():
            if not own.get("external"):
                own["name"] = f"{stack['name']}_{key}"
    return stack


def as_yaml(value: object) -> str:
    """Return JSON that compose, which reads YAML, takes for the same: line breaks and surrogates are others there."""
    text = json.dumps(value, ensure_ascii=False)
    return re.sub(r"[^ -~]", lambda found: f"\\U{ord(found[0]):08x}", text)


def start_failure(failure: str, tail: Collection[str]) -> str:
    """Return why a container did not start, with the last line of output and the remedy."""
    said = [line.strip() for line in tail if line.strip() and "level=warning" not in line]
    parts = [failure, _last_of(said), remedy_for("\n".join(said))]
    return "; ".join(part for part in parts if part)


_STEP_FAILED = re.compile(
    r"failed to solve: (?:rpc error: .*?desc = )?(?:executor failed running \[|process \")"
    r"(?:/bin/sh -c )?(?P<step>.{1,80})"
)
_STEP_SAID = re.compile(r"(?:#\d+ )?\d+\.\d+ (?P<text>.*\S)")
"""What a step of a build prints, with the seconds since its start."""


def _last_of(said: Sequence[str]) -> str:
    """Return what was said last; of a build whose step failed, what the step said: the end repeats its command."""
    if not said:
        return ""
    failed = _STEP_FAILED.match(said[-1])
    steps = [found["text"] for found in map(_STEP_SAID.match, said) if found]
    if failed is None or not steps:
        return said[-1]
    return f"{steps[-1]} (the build's step {failed['step'].strip()} ...)"


def remedy_for(said: str) -> str:
    """Return the remedy for the last output of the engine or compose, or an empty text."""
    if "manifest unknown" in said or "pull access denied" in said or "not found: manifest" in said:
        return "check the image's name, and that this machine may pull it"
    return ""
