"""The virtual environment that a release's lock asks for, made by uv: from its cache first, then from the network."""

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from agent.base import processes
from agent.base.errors import ProcessTimeout, ReleaseError
from agent.base.logs import Log
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
_ENOUGH_SECONDS = 1.0


async def install(
    tree: Path,
    environment: Path,
    *,
    cache: Path,
    environ: Mapping[str, str],
    mark: Mapping[str, str],
    seconds: float,
    log: Log,
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
        await uv.run(*command)
    return True


class _Uv:
    """Runs uv for one release, all of it before one deadline."""

    def __init__(self, tree: Path, environ: Mapping[str, str], until: float) -> None:
        self._tree = tree
        self._environ = environ
        self._until = until

    async def run(self, *arguments: str) -> None:
        """Run uv in the release's files."""
        left = self._until - asyncio.get_running_loop().time()
        try:
            done = await processes.run(
                (_binary(), *arguments),
                environ=self._environ,
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
            raise ReleaseError(f"uv {arguments[0]}: {done.complaint or f'exit code {done.code}'}")


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
