"""The virtual environment of a release, made by uv: from its cache first, then from the network."""

import asyncio
import os
import re
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError, SecretsError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.release.allow_list import passed
from agent.release.dependencies import Dependencies, pretended

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


async def install(
    tree: Path,
    environment: Path,
    wanted: Dependencies,
    *,
    version: str,
    cache: Path,
    environ: Mapping[str, str],
    mark: Mapping[str, str],
    seconds: float,
    log: Log,
    logins: ReadLogins | None = None,
) -> None:
    """Make the environment that a release asks for.

    Args:
        tree: The release's files.
        environment: The environment's final place.
        wanted: Its dependencies.
        version: The release's version, for builds that ask git for it.
        cache: uv's cache.
        environ: The agent's environment; uv gets proxies, certificates and index settings of it.
        mark: The variable by which a killed agent's uv is found.
        seconds: Limit of the whole.
        log: Told when the cache was not enough.
        logins: Reads the variables by which uv logs in to private indexes, when the cache was not enough.

    Raises:
        ReleaseError: A part is not available, or time is up.
    """
    until = asyncio.get_running_loop().time() + seconds
    folder = tree / wanted.folder
    uv = _Uv(folder, _environment(environment, cache, environ) | dict(mark), until)
    python = _interpreter(folder, tree, wanted.python)
    await uv.run("venv", *python, "--no-project", str(environment))
    for step in wanted.steps:
        told = pretended(version) if step.builds else {}
        try:
            await uv.run(*step.arguments, "--offline", stdin=step.stdin, told=told)
        except ReleaseError as error:
            log.info("release.cache_missed", reason=str(error))
            try:
                hidden = await logins() if logins else {}
            except SecretsError as denied:
                raise ReleaseError(
                    f"no login to an index: {denied}", remedy=denied.remedy
                ) from denied
            await uv.run(*step.arguments, stdin=step.stdin, told=told, logins=hidden)


class _Uv:
    """Runs uv for one release, all of it before one deadline."""

    def __init__(self, tree: Path, environ: Mapping[str, str], until: float) -> None:
        self._tree = tree
        self._environ = environ
        self._until = until

    async def run(
        self,
        *arguments: str,
        stdin: bytes | None = None,
        told: Mapping[str, str] = MappingProxyType({}),
        logins: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Run uv in the release's files; `logins` are variables that no message may show."""
        left = self._until - asyncio.get_running_loop().time()
        try:
            done = await processes.run(
                (_binary(), *arguments),
                environ={**self._environ, **told, **logins},
                stdin=stdin,
                seconds=max(_ENOUGH_SECONDS, left),
                cwd=self._tree,
            )
        except ProcessTimeout as error:
            raise ReleaseError(
                f"uv {arguments[0]}: no end within the time limit",
                remedy="check the network, or raise release.install_timeout",
            ) from error
        except OSError as error:
            raise ReleaseError(f"uv could not be started: {error}") from error
        if done.code != 0:
            complaint = Redactor(logins).text(done.complaint)
            raise _failure(f"uv {arguments[0]}", complaint or f"exit code {done.code}")


def _failure(action: str, complaint: str) -> ReleaseError:
    if _REFUSED.search(complaint):
        return ReleaseError(
            f"{action}: the index denied access: {complaint}",
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


def _interpreter(folder: Path, tree: Path, wanted: str) -> tuple[str, ...]:
    """Return the agent's own Python, unless the release chooses another.

    A lock's `requires-python` is not looked at: `uv sync` makes the environment anew with another Python of this
    machine if this one does not satisfy it.
    """
    above = (place for place in (folder, *folder.parents) if place.is_relative_to(tree))
    if any((place / PYTHON_VERSION).is_file() for place in above):
        return ()
    own = ".".join(map(str, sys.version_info[:3]))
    try:
        suits = own in SpecifierSet(wanted)
    except InvalidSpecifier:
        suits = True  # uv says what is wrong with it
    return ("--python", sys.executable if suits else wanted)
