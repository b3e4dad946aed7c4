"""Docker compose: the plugin of the engine's command line (`docker compose`)."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.base import processes
from agent.base.engine import PULL_SECONDS, Engine
from agent.base.errors import ContainerError, ProcessTimeout
from agent.base.processes import Finished

CONFIG_SECONDS = 30.0
PULL = ("pull", "--quiet", "--policy", "missing", "--ignore-buildable", "--include-deps")
BUILD = ("build", "--quiet", "--with-dependencies")
"""What has the images of one service, and of those that it depends on, here."""

_JSON = ("--format", "json")

_CLIENTS = re.compile(
    r"PATH|HOME|LANG|XDG_RUNTIME_DIR|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION)"
)
"""What compose itself needs of the engine's environment. A stack can read all that compose has: no proxy's password."""

OLDEST = (2, 26, 0)
"""The first that shows a stack both resolved and as it was before files of variables were read, as JSON."""

HOW_TO_GET = (
    "install the plugin: dnf or apt install docker-compose-plugin from Docker's repository, or put the binary of"
    " https://github.com/docker/compose/releases to /usr/local/lib/docker/cli-plugins/docker-compose, executable"
)


def compose_environ(engine: Engine, job: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of compose: the job's, and of the agent's what says where the engine is."""
    own = {name: value for name, value in engine.environ.items() if _CLIENTS.fullmatch(name)}
    return {**job, **own}


def compose_command(project: str, files: tuple[Path, ...]) -> tuple[str, ...]:
    """Return the command line up to the verb."""
    named = (part for file in files for part in ("-f", str(file)))
    return ("docker", "compose", "-p", project, *named)


async def require_compose(environ: Mapping[str, str]) -> None:
    """Require a version of compose that can run stacks; the engine is not asked.

    Raises:
        ContainerError: It has none, or one that is too old.
    """
    done = await _ask(("docker", "compose", "version", "--short"), environ, None)
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout.decode(errors="replace").strip())
    needed = f"a stack needs docker compose {'.'.join(map(str, OLDEST))} or newer"
    if done.code != 0 or found is None:
        raise ContainerError(f"{needed}, which is not installed", remedy=HOW_TO_GET)
    if tuple(map(int, found.groups())) < OLDEST:
        raise ContainerError(f"{needed}, and this is {found.group()}", remedy=HOW_TO_GET)


async def resolved(
    project: str, files: tuple[Path, ...], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the stack of these files as compose would run it, with the services of all profiles.

    Raises:
        ContainerError: Compose does not accept it, or does not answer.
    """
    text = await _config(project, files, environ, *_JSON, profile="*")
    # So that its output is a compose file again, compose doubles what begins a variable.
    document: dict[str, Any] = json.loads(text.replace("$$", "$"))
    return document


async def written(
    project: str, files: tuple[Path, ...], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return the stack of these files before variables are replaced and env files are read.

    Raises:
        ContainerError: Compose does not accept it, or does not answer.
    """
    text = await _config(project, files, environ, *_JSON, "--no-interpolate")
    model: dict[str, Any] = json.loads(text)
    return model


async def active_services(
    project: str, files: tuple[Path, ...], environ: Mapping[str, str]
) -> frozenset[str]:
    """Return the services that no profile switches off.

    Raises:
        ContainerError: Compose does not accept it, or does not answer.
    """
    return frozenset((await _config(project, files, environ, "--services")).split())


async def _config(
    project: str,
    files: tuple[Path, ...],
    environ: Mapping[str, str],
    *options: str,
    profile: str | None = None,
) -> str:
    profiles = ("--profile", profile) if profile is not None else ()
    command = (*compose_command(project, files), *profiles, "config", *options)
    done = await _ask(command, environ, files[0].parent)
    if done.code != 0:
        raise ContainerError(f"compose does not accept {files[0].name}: {_complaint(done)}")
    return done.stdout.decode(errors="replace")


async def fetch(command: tuple[str, ...], environ: Mapping[str, str], folder: Path) -> None:
    """Have compose pull or build images.

    Raises:
        ContainerError: It cannot; the message has compose's reason.
    """
    done = await _ask(command, environ, folder, seconds=PULL_SECONDS)
    if done.code != 0:
        raise Engine.refusal("compose", _complaint(done))


def _complaint(done: Finished) -> str:
    said = done.stderr.decode(errors="replace").strip().splitlines()
    lines = [line for line in said if "level=warning" not in line]
    return " ".join(" ".join(lines).split())[-400:] or "it gives no reason"


async def _ask(
    command: tuple[str, ...],
    environ: Mapping[str, str],
    folder: Path | None,
    *,
    seconds: float = CONFIG_SECONDS,
) -> Finished:
    try:
        return await processes.run(command, environ=environ, seconds=seconds, cwd=folder)
    except OSError as error:
        raise ContainerError(f"docker could not be started: {error.strerror}") from error
    except ProcessTimeout as error:
        raise ContainerError("docker compose did not end") from error
