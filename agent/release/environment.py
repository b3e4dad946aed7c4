"""The virtual environment of a release, made by uv: from its cache first, then from the network."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError, SecretsError
from agent.base.redact import Redactor
from agent.release.context import ReleaseContext
from agent.release.dependencies import Dependencies, pretended
from agent.release.git import MARK, allowed
from agent.release.store import ENVIRONMENT, TREE

PYTHON_VERSION = ".python-version"

_ALLOWED = (
    *("HOME", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX"),
    *("UV_INDEX_URL", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS", "UV_OFFLINE"),
    *("UV_PYTHON_INSTALL_DIR", "UV_HTTP_TIMEOUT", "UV_HTTP_RETRIES"),
)
_INDEX_CREDENTIALS = re.compile(r"UV_INDEX_\w+_(USERNAME|PASSWORD)")
_REFUSED = re.compile(r"\b40[13] (Unauthorized|Forbidden)")
_ENOUGH_SECONDS = 1.0
_NONE: Mapping[str, str] = MappingProxyType({})


async def make_environment(
    context: ReleaseContext, root: Path, version: str, wanted: Dependencies
) -> None:
    """Make the environment of the release in `root`; `version` is for builds that ask git for it.

    Raises:
        ReleaseError: A part is not available, or time is up.
    """
    store, tree, environment = context.release_store, root / TREE, root / ENVIRONMENT
    folder = tree / wanted.folder
    environ = _environment(environment, store.cache, context.environ) | {MARK: str(store.mirror)}
    until = asyncio.get_running_loop().time() + context.settings.install_timeout

    async def uv(
        *arguments: str,
        stdin: bytes | None = None,
        more: Mapping[str, str] = _NONE,
        logins: Mapping[str, str] = _NONE,
    ) -> None:
        """Run uv; `more` are further variables, and `logins` those that no message may show."""
        done = await run_uv(
            *arguments,
            environ={**environ, **more, **logins},
            seconds=max(_ENOUGH_SECONDS, until - asyncio.get_running_loop().time()),
            stdin=stdin,
            cwd=folder,
        )
        if done.code != 0:
            complaint = Redactor(logins).text(done.complaint)
            raise _failure(f"uv {arguments[0]}", complaint or f"exit code {done.code}")

    python = _interpreter(folder, tree, wanted.python)
    await uv("venv", *python, "--no-project", str(environment))
    for step in wanted.steps:
        more = pretended(version) if step.builds else _NONE
        try:
            await uv(*step.arguments, "--offline", stdin=step.stdin, more=more)
        except ReleaseError as error:
            context.log.info("release.cache_missed", reason=str(error))
            try:
                logins = await context.keyring.indexes() if context.keyring else _NONE
            except SecretsError as denied:
                raise ReleaseError(
                    f"no login to an index: {denied}", remedy=denied.remedy
                ) from denied
            await uv(*step.arguments, stdin=step.stdin, more=more, logins=logins)


def _failure(action: str, complaint: str) -> ReleaseError:
    if _REFUSED.search(complaint):
        return ReleaseError(
            f"{action}: the index denied access: {complaint}",
            remedy='the login of [index."NAME"] is missing, wrong, expired or revoked, or may not read this package',
        )
    return ReleaseError(f"{action}: {complaint}")


def _environment(environment: Path, cache: Path, environ: Mapping[str, str]) -> dict[str, str]:
    credentials = (name for name in environ if _INDEX_CREDENTIALS.fullmatch(name))
    return allowed(environ, (*_ALLOWED, *credentials)) | {
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


async def run_uv(
    *arguments: str,
    environ: Mapping[str, str],
    seconds: float,
    stdin: bytes | None = None,
    cwd: Path | None = None,
) -> processes.Finished:
    """Run uv and return the result, whatever its exit code.

    Raises:
        ReleaseError: It is not installed, cannot be started, or takes longer than `seconds`.
    """
    command = (uv_program(), *arguments)
    try:
        return await processes.run(command, environ=environ, seconds=seconds, stdin=stdin, cwd=cwd)
    except ProcessTimeout as error:
        raise ReleaseError(
            f"uv {arguments[0]}: no end within the time limit",
            remedy="check the network, or raise release.install_timeout",
        ) from error
    except OSError as error:
        raise ReleaseError(f"uv could not be started: {error}") from error


def uv_program() -> str:
    """Return the path of uv.

    Raises:
        ReleaseError: It is not installed.
    """
    # Imported here, because its import searches the file system.
    import uv  # noqa: PLC0415

    try:
        return os.fspath(uv.find_uv_bin())
    except FileNotFoundError as error:
        raise ReleaseError(
            "uv is not installed", remedy="install the agent anew: uv is one of its packages"
        ) from error


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
