"""A job that is an existing compose stack: its batch service is the job, the others serve it."""

import asyncio
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.core.containers import (
    given,
    missing_env_file,
    override,
    plain_override,
    project_name,
    stack_problem,
)
from agent.core.errors import ContainerError
from agent.steps.durable import remove_tree
from agent.steps.engine import LABEL, Engine
from agent.steps.jobs.container.compose import Compose, find_compose
from agent.steps.jobs.container.folders import open_up
from agent.steps.jobs.container.leftovers import remove_container, remove_stack
from agent.steps.jobs.container.state import exit_of, running, signal_container
from agent.steps.jobs.interface import Contained, Exit, Launch
from agent.steps.logs import Log

ENV_FILES = 20
"""Env files that a stack may name without their being in the release."""


class StackVessel:
    """A compose project of one attempt's own."""

    def __init__(
        self, launch: Launch, contained: Contained, environ: Mapping[str, str], log: Log
    ) -> None:
        """Describe a stack that does not exist yet."""
        self._launch = launch
        self._contained = contained
        self._service = contained.service or ""
        self._engine = Engine(environ)
        self._log = log
        self._project = project_name(launch.environ["MAYFLY_RUN_ID"], launch.name)
        self._given = given(launch.environ, contained.secrets)
        # What is mounted from the release is a copy: a stack may write to it, and the release stays what it was.
        self._tree = contained.folder / "stack"
        self._compose: Compose | None = None
        self._files: tuple[Path, ...] = ()

    async def prepare(self) -> None:
        """Find compose, copy the release, and have compose read the stack.

        Raises:
            ContainerError: There is no engine or no compose, or the stack is not one that can run.
        """
        self._compose = await find_compose(self._engine)
        await asyncio.to_thread(_copy, self._launch.cwd, self._tree)
        own = self._tree / (self._contained.compose or "")
        config = await self._config(self._compose, own)
        if problem := stack_problem(config):
            raise ContainerError(
                f"{self._contained.compose} asks for {problem}, which a job must not have",
                remedy="remove it; services reach each other by their names",
            )
        self._files = (own, self._override(self._compose, own, config))

    @property
    def client(self) -> tuple[Sequence[str], Mapping[str, str], Path]:
        """`compose run`, which starts what the service depends on, and ends when the service does."""
        if self._compose is None:
            raise ContainerError("the stack is not prepared")
        command = (
            *self._compose.command(self._project, self._files),
            *("run", "-T", "--use-aliases", "--name", self._project),
            *("--label", f"{LABEL}={self._launch.environ['MAYFLY_RUN_ID']}"),
            *_short(self._given.arguments),
            self._service,
        )
        return command, self._environ, self._tree

    async def ended(self) -> Exit:
        """Return how the batch service ended.

        Raises:
            ContainerError: It never started.
        """
        file = self._contained.compose
        found = await exit_of(self._engine, self._project, f"{file}: {self._service}")
        if found is None:
            raise ContainerError(f"the stack of {file} did not start")
        return found

    async def terminate(self) -> bool:
        """Send the batch service SIGTERM; the others stay until it has ended."""
        return await running(self._engine, self._project) and await signal_container(
            self._engine, self._project
        )

    async def remove(self) -> None:
        """Remove containers, networks, volumes and the copy of the release."""
        if self._compose is not None:
            await remove_container(self._engine, self._project, self._log)
            await remove_stack(self._engine, self._project, self._log)
        try:
            await asyncio.to_thread(remove_tree, self._tree)
        except OSError as error:
            self._log.warning("job.copy_not_removed", folder=str(self._tree), reason=str(error))

    @property
    def _environ(self) -> Mapping[str, str]:
        return {**self._given.environ, **self._engine.environ}

    async def _config(self, compose: Compose, own: Path) -> str:
        """Return the stack as compose reads it, with its job's environment in the place of missing env files.

        Env files hold secrets, so they are usually not in git; what they set comes from the agent's secrets.
        """
        for _ in range(ENV_FILES):
            done = await compose.config(self._project, own, self._environ)
            if done.code == 0:
                break
            complaint = done.stderr.decode(errors="replace")
            missing = missing_env_file(complaint)
            if missing is None:
                raise ContainerError(
                    f"compose does not accept {self._contained.compose}: {_last(complaint)}"
                )
            self._stand_in(missing, own)
        services = await compose.services(self._project, own, self._environ)
        if self._service not in services:
            raise ContainerError(
                f'{self._contained.compose} has no service "{self._service}"',
                remedy=f"its services are {', '.join(services)}",
            )
        return done.stdout.decode(errors="replace")

    def _stand_in(self, missing: str, own: Path) -> None:
        """Put an empty file where an env file is missing, if the job says where its variables come from."""
        path = Path(os.path.normpath(own.parent / missing))
        inside = path.is_relative_to(self._tree)
        shown = str(path.relative_to(self._tree)) if inside else missing
        if not inside or not self._contained.stands_in or path.exists():
            raise ContainerError(
                f"the stack's env_file {shown} is not in the release",
                remedy="put what it sets into the machine's secrets, and their names into the job's secrets = [...]",
            )
        self._log.info("job.env_file_stood_in", file=shown)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)

    def _override(self, compose: Compose, own: Path, config: str) -> Path:
        """Write the file that is merged over the stack's own. A mount on the command line of `run` would not do.

        Where the stack mounts something at the same path, compose 1.29 takes either, and 2.26 the stack's.
        """
        mounts = self._contained.mounts
        if compose.overrides:
            release = hashlib.sha256(str(self._launch.cwd).encode()).hexdigest()[:12]
            text = override(json.loads(config), self._service, mounts, f"mayfly-built-{release}")
        else:
            text = plain_override(own.read_text(errors="replace"), self._service, mounts)
        path = self._contained.folder / "override.yml"
        path.write_text(text)
        return path


def _short(arguments: Sequence[str]) -> list[str]:
    """Return `--env` as `-e`, which is what every compose understands."""
    return ["-e" if argument == "--env" else argument for argument in arguments]


def _copy(tree: Path, target: Path) -> None:
    """Copy a release's files, so that containers may write where theirs are mounted."""
    shutil.copytree(tree, target, symlinks=True)
    open_up(target)


def _last(complaint: str) -> str:
    lines = [line for line in complaint.strip().splitlines() if "level=warning" not in line]
    return " ".join(" ".join(lines).split())[-400:] or "it gives no reason"
