"""The virtual environment that a release's lock asks for, made by uv: from its cache first, then from the network."""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError, SecretsError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.release.passing import passed

LOCK = "uv.lock"
REQUIREMENTS = "requirements.txt"
PYTHON_VERSION = ".python-version"

_PASSED = (
    *("HOME", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX"),
    *("UV_INDEX_URL", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_OFFLINE"),
    *("UV_PYTHON_INSTALL_DIR", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"),
)
_INDEX_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
_REFUSED = re.compile(r"\b40[13] (Unauthorized|Forbidden)")
_ENOUGH_SECONDS = 1.0

ReadLogins = Callable[[], Awaitable[Mapping[str, str]]]


async def no_logins() -> Mapping[str, str]:
    """Leave it to what the agent's own environment says."""
    return {}


async def install(
    tree: Path,
    environment: Path,
    *,
    cache: Path,
    environ: Mapping[str, str],
    mark: Mapping[str, str],
    seconds: float,
    log: Log,
    logins: ReadLogins = no_logins,
) -> bool:
    """Make the environment that a release's lock asks for.

    Args:
        tree: The release's files.
        environment: Where the environment is made: its final place.
        cache: uv's cache.
        environ: The agent's environment; uv gets proxies, certificates and index settings of it.
        mark: The variable by which what is left of a killed agent's uv is found.
        seconds: Limit of it all.
        log: Told when the cache was not enough.
        logins: Reads the variables by which uv logs in to private indexes, when the cache was not enough.

    Returns:
        Whether there is one: a release without a lock needs none.

    Raises:
        ReleaseError: The lock is broken or has no hashes, something of it cannot be had, or time is up.
    """
    if not (tree / LOCK).is_file() and not (tree / REQUIREMENTS).is_file():
        return False
    until = asyncio.get_running_loop().time() + seconds
    uv = _Uv(tree, _environment(environment, cache, environ) | dict(mark), until)
    await uv.run("venv", *_interpreter(tree), "--no-project", str(environment))
    if (tree / LOCK).is_file():
        command: tuple[str, ...] = ("sync", "--frozen", "--no-dev", "--no-editable")
    else:
        _refuse_unhashed(tree / REQUIREMENTS)
        command = ("pip", "install", "--require-hashes", "--requirement", REQUIREMENTS)
    try:
        await uv.run(*command, "--offline")
    except ReleaseError as error:
        log.info("release.cache_missed", reason=str(error))
        await uv.run(*command, logins=await _read(logins))
    return True


async def _read(logins: ReadLogins) -> Mapping[str, str]:
    try:
        return await logins()
    except SecretsError as error:
        raise ReleaseError(f"no login to an index: {error}", remedy=error.remedy) from error


class _Uv:
    """Runs uv for one release, all of it before one deadline."""

    def __init__(self, tree: Path, environ: Mapping[str, str], until: float) -> None:
        self._tree = tree
        self._environ = environ
        self._until = until

    async def run(self, *arguments: str, logins: Mapping[str, str] | None = None) -> None:
        """Run uv in the release's files; `logins` are variables that no message may show."""
        hidden = logins or {}
        left = self._until - asyncio.get_running_loop().time()
        try:
            done = await processes.run(
                (_binary(), *arguments),
                environ={**self._environ, **hidden},
                seconds=max(_ENOUGH_SECONDS, left),
                cwd=self._tree,
            )
        except ProcessTimeout as error:
            raise ReleaseError(
                f"uv {arguments[0]}: no end within the time limit",
                remedy="look at the network, or raise release.install_timeout",
            ) from error
        except OSError as error:
            raise ReleaseError(f"uv could not be started: {error}") from error
        if done.code != 0:
            complaint = Redactor(hidden).text(done.complaint)
            raise _failure(f"uv {arguments[0]}", complaint or f"exit code {done.code}")


def _failure(action: str, complaint: str) -> ReleaseError:
    if _REFUSED.search(complaint):
        return ReleaseError(
            f"{action}: the index does not let us in: {complaint}",
            remedy='the login of [index."NAME"] is missing, wrong, expired or revoked, or may not read this package',
        )
    return ReleaseError(f"{action}: {complaint}")


def _environment(environment: Path, cache: Path, environ: Mapping[str, str]) -> dict[str, str]:
    credentials = (name for name in environ if _INDEX_CREDENTIALS.fullmatch(name))
    return passed(environ, (*_PASSED, *credentials)) | {
        "UV_PROJECT_ENVIRONMENT": str(environment),
        "VIRTUAL_ENV": str(environment),
        "UV_CACHE_DIR": str(cache / "uv"),
        "UV_PYTHON_DOWNLOADS": "never",
        # Linked files would be shared with the cache and with other releases: what one job damages, all have.
        "UV_LINK_MODE": "copy",
        # Jobs cannot write to a sealed environment: without this every start of each would compile anew.
        "UV_COMPILE_BYTECODE": "1",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


def uv_command(*arguments: str) -> tuple[str, ...]:
    """Return the command that runs uv.

    Raises:
        ReleaseError: It is not installed.
    """
    return (_binary(), *arguments)


def _binary() -> str:
    # Looks through the file system when it is imported.
    import uv  # noqa: PLC0415

    try:
        return os.fspath(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise ReleaseError("uv is not installed", remedy="install the agent anew") from error


def _interpreter(tree: Path) -> tuple[str, ...]:
    """Return the agent's own Python, unless the release says which it wants.

    `requires-python` needs no look: `uv sync` makes the environment anew, with another Python of this machine, when
    this one does not satisfy it.
    """
    return () if (tree / PYTHON_VERSION).is_file() else ("--python", sys.executable)


def _refuse_unhashed(requirements: Path) -> None:
    try:
        names = unhashed(requirements.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{requirements.name} cannot be read: {error}") from error
    if names:
        raise ReleaseError(
            f"{requirements.name} has no hashes for {', '.join(names[:5])}",
            remedy="make it with `uv pip compile --generate-hashes`, or use uv.lock instead",
        )


def unhashed(text: str) -> list[str]:
    """Return the requirements of a `requirements.txt` that are not pinned by a hash.

    Files that it includes are uv's to check, which gets `--require-hashes`.
    """
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    wanted = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)
    return [
        re.split(r"[\s;]", line)[0]
        for line in wanted
        if line and not line.startswith("-") and "--hash=" not in line
    ]
