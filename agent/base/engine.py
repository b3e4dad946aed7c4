"""The container engine's command line: every call bounded, every refusal explained."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from agent.base import processes
from agent.base.errors import ContainerError, MayflyError, ProcessTimeout
from agent.base.processes import Finished

ANSWER_SECONDS = 20.0
"""Limit of a call that only asks; a dockerd that is busy with an image answers in a few seconds."""

PULL_SECONDS = 600.0
"""For an image of half a gigabyte: enough at 1 MB/s."""

REMOVE_SECONDS = 30.0

LABEL = "mayfly.run"
"""Carried, with the run's id, by every container that a run starts itself: leftovers are found by it."""

_PASSED_ON = re.compile(r"PATH|HOME|LANG|XDG_RUNTIME_DIR|DOCKER_\w+|(?i:https?_proxy|no_proxy)")


class Engine:
    """`docker`, found on the PATH of `environ`, which also says where the engine is (`DOCKER_HOST`).

    Attributes:
        environ: What the client sees of the agent's environment.
    """

    failure: ClassVar[type[MayflyError]] = ContainerError
    """What a failure is raised as."""
    instead: ClassVar[str] = ""
    """What else would do where there is no engine; ends a remedy."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = {
            name: value for name, value in environ.items() if _PASSED_ON.fullmatch(name)
        }

    async def ask(
        self,
        *arguments: str,
        seconds: float = ANSWER_SECONDS,
        environ: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run `docker ARGUMENTS` and return what came of it, whatever its exit code.

        Args:
            arguments: Its arguments.
            seconds: Wall-clock limit.
            environ: What its environment has besides; for values that no command line may show.

        Raises:
            MayflyError: Of the kind `failure`: there is no docker, or it did not answer in time.
        """
        try:
            return await processes.run(
                ("docker", *arguments),
                environ={**(environ or {}), **self.environ},
                seconds=seconds,
            )
        except OSError as error:
            raise self.failure(
                f"docker could not be started: {error.strerror}",
                remedy=f"install Docker{self.instead}",
            ) from error
        except ProcessTimeout as error:
            raise self.failure(
                f"docker {arguments[0]} did not end within {seconds:g} s",
                remedy="look at the engine: docker info, journalctl -u docker",
            ) from error

    async def do(
        self,
        *arguments: str,
        seconds: float = ANSWER_SECONDS,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """Run `docker ARGUMENTS` and return what it printed.

        Raises:
            MayflyError: Of the kind `failure`: it failed, for whatever reason.
        """
        done = await self.ask(*arguments, seconds=seconds, environ=environ)
        if done.code != 0:
            raise self.refusal(arguments[0], done.complaint)
        return done.stdout.decode(errors="replace").strip()

    @classmethod
    def refusal(cls, action: str, complaint: str) -> MayflyError:
        """Return what a failed `docker ACTION` means, with the remedy where it is known."""
        said = complaint.lower()
        if "permission denied" in said and "daemon" in said:
            remedy = "let this user use the engine (group docker), or run as root"
        elif (
            "cannot connect to the docker daemon" in said or "is the docker daemon running" in said
        ):
            remedy = f"start the engine (systemctl start docker){cls.instead}"
        elif "no space left" in said:
            remedy = "free some disk space: docker system prune"
        else:
            remedy = ""
        return cls.failure(f"docker {action} failed: {complaint}", remedy=remedy)


def image_digest(inspected: bytes) -> str | None:
    """Return an image's digest from `docker image inspect`: the registry's, or its id when it never came from one."""
    try:
        image = json.loads(inspected)[0]
        pulled = image.get("RepoDigests") or []
        return str(pulled[0]).rpartition("@")[2] if pulled else str(image["Id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def bind_mount(source: Path, target: str) -> str:
    """Return the value of `--mount` for a folder of this machine; the option's value is a line of CSV."""
    here, there = (path.replace('"', '""') for path in (str(source), target))
    return f'type=bind,"source={here}","target={there}"'
