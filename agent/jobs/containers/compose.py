"""Docker compose: the plugin of the engine's command line (`docker compose`)."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from agent.base import processes
from agent.base.containers import as_yaml
from agent.base.engine import PULL_SECONDS, Engine
from agent.base.errors import ContainerError, ProcessTimeout
from agent.base.processes import Finished

CONFIG_SECONDS = 30.0
PULL = ("pull", "--quiet", "--policy", "missing", "--ignore-buildable", "--include-deps")
BUILD = ("build", "--quiet", "--with-dependencies")
"""What has the images of one service, and of those that it depends on, here."""

_CLIENTS = re.compile(
    r"PATH|HOME|LANG|XDG_RUNTIME_DIR|BUILDX_CONFIG|DOCKER_(HOST|CONTEXT|CONFIG|CERT_PATH|TLS|TLS_VERIFY|API_VERSION)"
)
"""What compose itself needs of the engine's environment. A stack can read all that compose has: no proxy's password."""

_NO_GIT = {"BUILDX_GIT_INFO": "false", "BUILDX_GIT_LABELS": "false"}
"""While it builds, the client would call git, as the agent's user, in a folder of the release, for the commit to name.
Git takes any folder that looks like a repository for one, and runs programs that its configuration names."""

OLDEST = (2, 26, 0)
"""The first that shows a stack both resolved and as it was before files of variables were read, as JSON."""

HOW_TO_GET = (
    "install the plugin: dnf or apt install docker-compose-plugin from Docker's repository, or put the binary of"
    " https://github.com/docker/compose/releases to /usr/local/lib/docker/cli-plugins/docker-compose, executable"
)


def compose_environ(engine: Engine, job: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of compose: the job's, and of the agent's what says where the engine is."""
    own = {name: value for name, value in engine.environ.items() if _CLIENTS.fullmatch(name)}
    return {**job, **own, **_NO_GIT}


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


@dataclass(frozen=True, slots=True)
class Compose:
    """`docker compose` with a project, its files and its environment, and what is read in place of `.env`.

    The methods raise ContainerError where compose does not accept the files, or does not answer.
    """

    project: str
    files: tuple[Path, ...]
    environ: Mapping[str, str]
    variables: Path | None = None

    @property
    def options(self) -> tuple[str, ...]:
        """The command line from `compose` up to the verb."""
        files = [f"--file={file}" for file in self.files]
        files += [f"--env-file={self.variables}"] if self.variables else []
        return ("compose", "-p", self.project, *files)

    async def resolved(self) -> dict[str, Any]:
        """Return the stack as compose would run it, with the services of all profiles."""
        text = await self._config("--format", "json", profiles=("--profile", "*"))
        # So that its output is a compose file again, compose doubles what begins a variable.
        document: dict[str, Any] = json.loads(text.replace("$$", "$"))
        return document

    def judged(self, document: Mapping[str, Any], folder: Path) -> Self:
        """Write a stack to a folder, and return what runs just this.

        That reads no file of the release: the stack's own containers may change those.
        """
        dotenv = self.files[0].with_name(".env")
        file, variables = folder / "stack.json", folder / "stack.env"
        write_stack(file, document)
        variables.touch(mode=0o600)
        variables.write_bytes(dotenv.read_bytes() if dotenv.is_file() else b"")
        return replace(self, files=(file,), variables=variables)

    async def written(self) -> dict[str, Any]:
        """Return the stack before variables are replaced and env files are read."""
        model: dict[str, Any] = json.loads(
            await self._config("--format", "json", "--no-interpolate")
        )
        return model

    async def active_services(self) -> frozenset[str]:
        """Return the services that no profile switches off."""
        return frozenset((await self._config("--services")).split())

    async def _config(self, *options: str, profiles: tuple[str, ...] = ()) -> str:
        command = ("docker", *self.options, *profiles, "config", *options)
        done = await _ask(command, self.environ, self.files[0].parent)
        if done.code != 0:
            name = self.files[0].name
            raise ContainerError(f"compose does not accept {name}: {_complaint(done)}")
        return done.stdout.decode(errors="replace")


def write_stack(file: Path, document: Mapping[str, Any]) -> None:
    """Write a stack in which compose has no variables to replace."""
    file.touch(mode=0o600)  # values of secrets may be in it
    file.write_text(as_yaml(document).replace("$", "$$"))


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
