"""The two composes: the plugin of today (`docker compose`), and the program of old (`docker-compose` 1.29)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.core.errors import ContainerError, ProcessTimeout
from agent.steps import processes
from agent.steps.engine import Engine
from agent.steps.processes import Finished

CONFIG_SECONDS = 30.0
"""`docker-compose` 1.29 takes 0.4 s to say its version on an idle machine."""

OVERRIDES = (2, 24, 4)
"""From here on a file can take things from another (`!reset`, `!override` of the Compose specification)."""

OLDEST = (1, 27, 0)
"""The first that knows conditions of `depends_on` again, and needs no `version:` in the file."""

HOW_TO_GET = (
    "install the plugin: dnf or apt install docker-compose-plugin from Docker's repository, or put the binary of"
    " https://github.com/docker/compose/releases to /usr/local/lib/docker/cli-plugins/docker-compose, executable"
)


@dataclass(frozen=True, slots=True)
class Compose:
    """A compose that is installed.

    Attributes:
        program: How it is called.
        overrides: Whether a second file can take things from the first; else it can only add.
    """

    program: tuple[str, ...]
    overrides: bool

    def command(self, project: str, files: tuple[Path, ...]) -> tuple[str, ...]:
        """Return the command line up to the verb."""
        named = (part for file in files for part in ("-f", str(file)))
        return (*self.program, "-p", project, *named)

    async def config(self, project: str, file: Path, environ: Mapping[str, str]) -> Finished:
        """Have it read a stack and write it again: as JSON if it has overrides, else as YAML.

        Raises:
            ContainerError: It cannot be started, or does not end.
        """
        json = ("--format", "json") if self.overrides else ()
        return await _ask((*self.command(project, (file,)), "config", *json), environ, file.parent)

    async def services(self, project: str, file: Path, environ: Mapping[str, str]) -> list[str]:
        """Return the names of a stack's services.

        Raises:
            ContainerError: It cannot be started, or does not end.
        """
        command = (*self.command(project, (file,)), "config", "--services")
        done = await _ask(command, environ, file.parent)
        return sorted(done.stdout.decode(errors="replace").split())


async def find_compose(engine: Engine) -> Compose:
    """Return the compose of this machine, the plugin before the old program.

    Raises:
        ContainerError: There is none that will do, or no engine.
    """
    await engine.do("version", "--format", "{{.Server.Version}}")
    seen = []
    for program in (("docker", "compose"), ("docker-compose",)):
        try:
            done = await _ask((*program, "version", "--short"), engine.environ, None)
        except ContainerError:
            continue
        version = _version(done.stdout.decode(errors="replace"))
        if done.code != 0 or version is None:
            continue
        if version >= OVERRIDES or OLDEST <= version < (2, 0, 0):
            return Compose(program, overrides=version >= OVERRIDES)
        seen.append(f"{' '.join(program)} is {'.'.join(map(str, version))}, too old")
    raise ContainerError(
        "a stack needs docker compose, which is not installed"
        if not seen
        else f"a stack needs docker compose 2.24.4 or newer: {'; '.join(seen)}",
        remedy=HOW_TO_GET,
    )


def _version(text: str) -> tuple[int, int, int] | None:
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", text.strip())
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


async def _ask(
    command: tuple[str, ...], environ: Mapping[str, str], folder: Path | None
) -> Finished:
    try:
        return await processes.run(command, environ=environ, seconds=CONFIG_SECONDS, cwd=folder)
    except OSError as error:
        raise ContainerError(f"{command[0]} could not be started: {error.strerror}") from error
    except ProcessTimeout as error:
        raise ContainerError(f"{' '.join(command[:2])} did not end") from error
