"""The container engine's command line: every call has a limit, every failure an explanation."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from copy import copy
from pathlib import Path
from typing import ClassVar, Self

from agent.base import processes
from agent.base.errors import ContainerError, MayflyError, ProcessTimeout, SecretsError
from agent.base.logs import Log
from agent.base.processes import Finished

ANSWER_SECONDS = 20.0
"""Limit of a query; a dockerd that is busy with an image answers in a few seconds."""

START_SECONDS = 90.0
"""Limit of a query that may be the first: an engine behind a socket is started by it, and answers when it is up."""

PULL_SECONDS = 600.0
"""Limit of a pull: enough for an image of half a gigabyte at 1 MB/s."""

REMOVE_SECONDS = 30.0
REMOVALS = 2
"""Attempts, where the engine answers that it could not: what it waited for is often over then."""

LABEL = "mayfly.run"
"""Label of every container that a run starts itself, with the run's id: leftovers are found by it."""

_ALLOWED = re.compile(
    r"PATH|HOME|LANG|XDG_RUNTIME_DIR|BUILDX_CONFIG|DOCKER_\w+|(?i:https?_proxy|no_proxy)"
)


Login = Callable[[Iterable[str], Iterable[str]], AbstractAsyncContextManager[Path | None]]
"""Takes names of images, and texts that name more of them; yields a folder for `docker --config`, if one is needed."""


@asynccontextmanager
async def no_login(_images: Iterable[str], _builds: Iterable[str] = ()) -> AsyncIterator[None]:
    """Use what docker's client of this user has."""
    yield None


class Engine:
    """`docker`, from the PATH of `environ`, which also says where the engine is (`DOCKER_HOST`).

    Attributes:
        environ: The part of the agent's environment that the client gets.
        program: The command with its options.
    """

    failure: ClassVar[type[MayflyError]] = ContainerError
    """The type of its errors."""
    instead: ClassVar[str] = ""
    """The alternative to an engine; ends a remedy."""

    def __init__(self, environ: Mapping[str, str], login: Login = no_login) -> None:
        self.program: tuple[str, ...] = ("docker",)
        self._login = login
        self.environ = {name: value for name, value in environ.items() if _ALLOWED.fullmatch(name)}

    async def run(
        self,
        *arguments: str,
        seconds: float = ANSWER_SECONDS,
        environ: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> Finished:
        """Run `docker ARGUMENTS` within `seconds` and return the result, whatever its exit code.

        The client gets `environ` besides, for values that no command line may show.

        Raises:
            MayflyError: Of the type `failure`: docker is missing, or did not answer in time.
        """
        try:
            return await processes.run(
                (*self.program, *arguments),
                environ={**(environ or {}), **self.environ},
                seconds=seconds,
                stdin=stdin,
            )
        except OSError as error:
            raise self.failure(
                f"docker could not be started: {error.strerror}",
                remedy=f"install Docker{self.instead}",
            ) from error
        except ProcessTimeout as error:
            raise self.failure(
                f"docker {arguments[0]} did not end within {seconds:g} s",
                remedy="check the engine: docker info, journalctl -u docker",
            ) from error

    async def output(
        self,
        *arguments: str,
        seconds: float = ANSWER_SECONDS,
        environ: Mapping[str, str] | None = None,
    ) -> str:
        """Run `docker ARGUMENTS` and return its output.

        Raises:
            MayflyError: Of the type `failure`: the command failed.
        """
        done = await self.run(*arguments, seconds=seconds, environ=environ)
        if done.code != 0:
            raise self.refusal(arguments[0], done.complaint)
        return done.stdout.decode(errors="replace").strip()

    @asynccontextmanager
    async def logged_in(
        self, images: Iterable[str], builds: Iterable[str] = ()
    ) -> AsyncIterator[Self]:
        """Yield an engine with the logins for `images`, and for those named in the texts `builds`, for this block only.

        Raises:
            MayflyError: Of the type `failure`: a login is not available.
        """
        async with AsyncExitStack() as stack:
            try:
                folder = await stack.enter_async_context(self._login(images, builds))
            except SecretsError as error:
                raise self.failure(str(error), remedy=error.remedy) from error
            engine = copy(self)
            if folder is not None:
                # An option: a compose file could read a variable.
                engine.program = (*self.program, "--config", str(folder))
            yield engine

    async def pull(self, image: str, *, seconds: float = PULL_SECONDS) -> None:
        """Pull an image, with a login if its registry needs one.

        Raises:
            MayflyError: Of the type `failure`: it is not available.
        """
        async with self.logged_in([image]) as engine:
            await engine.output("pull", "--quiet", image, seconds=seconds)

    async def remove(self, *arguments: str) -> str:
        """Run `docker ARGUMENTS`, which remove something, and return why it is still there; what is missing is fine."""
        reason = ""
        for _ in range(REMOVALS):
            try:
                done = await self.run(*arguments, seconds=REMOVE_SECONDS)
            except self.failure as error:
                return str(error)
            if done.code == 0 or not _besides_missing(done):
                return ""
            reason = done.complaint
        return reason

    async def have(
        self,
        image: str,
        log: Log,
        event: str,
        *,
        what: str = "image",
        seconds: float = PULL_SECONDS,
    ) -> tuple[bytes, bool]:
        """Pull an image unless it is here; return `docker image inspect`, and whether it was pulled.

        Before a pull, of at most `seconds`, `event` is logged; the message of a failure calls the image `what`.

        Raises:
            MayflyError: Of the type `failure`: there is no engine, or the image is not available.
        """
        found = await self.run("image", "inspect", image, seconds=START_SECONDS)
        if found.code == 0:
            return found.stdout, False
        try:
            # Without an engine, this fails with a clearer message than the pull.
            await self.output("version", "--format", "{{.Server.Version}}")
            log.info(event, image=image)
            await self.pull(image, seconds=seconds)
        except self.failure as error:
            raise self.failure(
                f"the {what} {image} is not here and could not be fetched: {error}",
                remedy=error.remedy
                or f"check its name and the network, or docker load it{self.instead}",
            ) from error
        return (await self.output("image", "inspect", image)).encode(), True

    @classmethod
    def refusal(cls, action: str, complaint: str) -> MayflyError:
        """Return the error for a failed `docker ACTION`, with the remedy if it is known."""
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
            meaning, remedy = registry_meaning(said)
            complaint = f"{meaning}: {complaint}" if meaning else complaint
        return cls.failure(f"docker {action} failed: {complaint}", remedy=remedy)


_REGISTRY = (
    (
        r"x509|certificate",
        "the registry's certificate is not trusted",
        "check this machine's clock, and at the engine's authorities (/etc/docker/certs.d)",
    ),
    (
        r"toomanyrequests|too many requests|rate limit",
        "the registry's limit on pulls is reached",
        "wait, or log in: with credentials of the registry's the limit is higher, or none",
    ),
    (
        r"authorization token has expired",
        "the registry's login has expired",
        # ECR's words. A token of it lasts for twelve hours, and with an entry the role is not asked.
        'remove [registry."HOST"]: for ECR the machine\'s role gets a new login in each run',
    ),
    (
        # GitLab says of every refusal that a token is "either incorrect, expired, or improperly scoped".
        r"(?<!incorrect, )expired",
        "the registry's login has expired",
        "make a new token, then: mayfly secrets set --registry HOST password",
    ),
    (
        r"no basic auth|authentication required|access (denied|forbidden)|unauthorized|: denied|403 forb",
        "the registry denied access",
        'the login of [registry."HOST"] is missing, wrong, expired or revoked, or may not read this image',
    ),
    (
        r"manifest unknown|manifest for .* not found|name unknown|repository .* not found",
        "the registry has no such image",
        "check the image's name and tag",
    ),
)


def registry_meaning(complaint: str) -> tuple[str, str]:
    """Return the meaning of a registry's error (docker's text in lower case) and the remedy; empty if it is none."""
    found = ((what, remedy) for sign, what, remedy in _REGISTRY if re.search(sign, complaint))
    return next(found, ("", ""))


def is_missing(done: Finished) -> bool:
    """Tell whether a command failed because its container or image does not exist."""
    return done.code != 0 and _MISSING.search(done.complaint) is not None


def _besides_missing(done: Finished) -> bool:
    """Tell whether a removal failed for another reason than that some of it is not there: it has a line for each."""
    lines = done.stderr.decode(errors="replace").splitlines() or [""]
    return not all("no such" in line.lower() for line in lines)


_MISSING = re.compile(r"(?i:no such (container|image))")


def image_digest(inspected: bytes) -> str | None:
    """Return an image's digest from `docker image inspect`: the registry's, or its id if it was never pulled."""
    try:
        image = json.loads(inspected)[0]
        pulled = image.get("RepoDigests") or []
        return str(pulled[0]).rpartition("@")[2] if pulled else str(image["Id"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def bind_mount(source: Path, target: str) -> str:
    """Return the value of `--mount` for a folder of this machine, which is a line of CSV."""
    here, there = (path.replace('"', '""') for path in (str(source), target))
    return f'type=bind,"source={here}","target={there}"'
