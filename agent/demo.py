"""What the demo needs around a run: a site to scrape and a git repository with a release of the scrapers."""

import asyncio
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory

from agent.base import processes
from agent.base.errors import MayflyError, ProcessTimeout, UsageError
from agent.browser import find_chromedriver

SITE_URL = "http://127.0.0.1:8787"
"""Where the scrapers' jobs.toml expects the site."""
LOOPBACK = "127.0.0.1"
SITE_SECONDS = 15.0
DOCKER_SECONDS = 15.0
GIT_SECONDS = 30.0

MARKER = ".mayfly-demo"
"""The file that marks a folder as the demo's own; it is written while the folder is still empty."""

_LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.pyc", ".*_cache")


def scrapers_folder(named: Path | None) -> Path:
    """Return the folder that becomes the demo's release: the one that was named, or the checkout's own.

    Raises:
        UsageError: There is none.
    """
    folder = named or Path(__file__).resolve().parent.parent / "scrapers"
    if not (folder / "jobs.toml").is_file():
        raise UsageError(
            f"no scrapers in {folder}",
            remedy="run it in a checkout of Mayfly, or name a folder: mayfly demo --scrapers DIR",
        )
    return folder


def claim_folder(folder: Path, *, by: str = "mayfly demo --dir", marker: str = MARKER) -> None:
    """Make a folder of the command `by` and mark it with a file, or check that the same command did so earlier.

    Raises:
        UsageError: The folder belongs to somebody else, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / marker).is_file():
            return
        if any(folder.iterdir()):
            raise UsageError(
                f"{folder} holds files that `{by}` did not make, and nothing in it was changed",
                remedy=f"name a new or an empty folder: {by} DIR",
            )
        (folder / marker).write_text(f"Made by `{by}`, which writes into this folder.\n")
    except OSError as error:
        raise UsageError(
            f"`{by}` cannot use {folder}: {error.strerror}",
            remedy=f"name a folder that can be written: {by} DIR",
        ) from error


async def meeting_point(environ: Mapping[str, str]) -> str:
    """Return the address at which this computer's programs and its browser both find the site.

    That is the loopback for a local browser; a container finds this computer at its network's gateway.

    Raises:
        MayflyError: The browser will be a container and the engine does not tell its network.
    """
    if find_chromedriver(environ) is not None:
        return LOOPBACK
    form = "{{range .IPAM.Config}}{{println .Subnet .Gateway}}{{end}}"
    command = ("docker", "network", "inspect", "bridge", "--format", form)
    try:
        done = await processes.run(command, environ=environ, seconds=DOCKER_SECONDS)
    except (OSError, ProcessTimeout) as error:
        raise MayflyError(
            "there is neither a chromedriver nor Docker",
            remedy="apt-get install chromium chromium-driver, or install Docker",
        ) from error
    address = gateway(done.stdout.decode()) if done.code == 0 else None
    if address is None:
        raise MayflyError(
            f"Docker does not tell its network: {done.complaint or 'it has no IPv4 subnet'}",
            remedy="start the engine (systemctl start docker), or install chromium-driver",
        )
    return address


def gateway(networks: str) -> str | None:
    """Return this computer's IPv4 address in a container network, from lines of `SUBNET GATEWAY`.

    An engine that has just been installed names no gateway for its default network until it is restarted; it is the
    subnet's first address (https://github.com/moby/moby/issues/26799).
    """
    for line in networks.splitlines():
        subnet, *gateways = line.split() or [""]
        if "." in subnet:
            return next(iter(gateways), None) or str(next(ip_network(subnet, strict=False).hosts()))
    return None


@asynccontextmanager
async def demo_site(scrapers: Path, environ: Mapping[str, str]) -> AsyncIterator[str]:
    """Serve the site from the checkout while the block runs; yield its URL, the usual one when its port is free.

    Raises:
        MayflyError: It did not start.
    """
    host = await meeting_point(environ)
    usual = int(SITE_URL.rpartition(":")[2])
    port = usual if _is_free(host, usual) else 0
    command = (sys.executable, "-m", "demo_site", "--host", host, "--port", str(port))
    async with processes.started(command, environ=environ, cwd=scrapers) as process:
        if process.stdout is None:
            raise RuntimeError("the site's output is always a pipe")
        try:
            async with asyncio.timeout(SITE_SECONDS):
                line = (await process.stdout.readline()).decode()
        except TimeoutError as error:
            raise MayflyError("the demo site did not start") from error
        url = line.rpartition(" ")[2].strip().rstrip("/")
        if not url.startswith("http://"):
            raise MayflyError(f"the demo site did not start: {line.strip() or 'it said nothing'}")
        reading = asyncio.create_task(_ignore(process.stderr))
        try:
            yield url
        finally:
            reading.cancel()


async def _ignore(log: asyncio.StreamReader | None) -> None:
    """Read a log to its end: a site whose log nobody reads stops at the line for which there is no room."""
    while log is not None and await log.read(64 * 1024):
        pass


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


async def make_release(
    scrapers: Path, repository: Path, site: str, environ: Mapping[str, str]
) -> str:
    """Commit the scrapers' present state to a bare repository, tagged as the next version if it is new; return the tag.

    The repository has no work tree, so there is none in which a person's changes could be lost. `site` is the URL of
    the site that the jobs shall scrape.

    Raises:
        MayflyError: git is missing, or failed; or the folder has what no release can have, such as a pipe.
    """
    with TemporaryDirectory(prefix="mayfly-demo-") as name:
        tree = Path(name) / "tree"
        try:
            shutil.copytree(scrapers, tree, ignore=_LEFT_OUT, symlinks=True)
            jobs = tree / "jobs.toml"
            text = (scrapers / jobs.name).read_text("utf-8")
            jobs.unlink()  # as a link it would lead to the person's own file
            jobs.write_text(text.replace(SITE_URL, site), "utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MayflyError(f"no release can be made of {scrapers}: {error}") from error
        make = ("init", "--quiet", "--bare", "--initial-branch=main", str(repository))
        await _Git(tree, environ)(*make)
        git = _Git(tree, environ, repository)
        await git("add", "--all")
        tags = (await git("tag", "--list", "v1.0.*", "--sort=-version:refname")).split()
        if tags and not await git("status", "--porcelain"):
            return tags[0]
        tag = f"v1.0.{len(tags)}"
        await git("commit", "--quiet", "--message", f"Scrapers {tag}")
        await git("tag", tag)
        return tag


class _Git:
    """git in a folder, without a person's configuration; with a repository, the folder is its work tree."""

    def __init__(
        self, folder: Path, environ: Mapping[str, str], repository: Path | None = None
    ) -> None:
        self._folder = folder
        places = {"GIT_DIR": str(repository), "GIT_WORK_TREE": str(folder)} if repository else {}
        self._environ = {
            "PATH": environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(folder.parent),
            **places,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "Mayfly demo",
            "GIT_AUTHOR_EMAIL": "demo@localhost",
            "GIT_COMMITTER_NAME": "Mayfly demo",
            "GIT_COMMITTER_EMAIL": "demo@localhost",
        }

    async def __call__(self, *arguments: str) -> str:
        try:
            done = await processes.run(
                ("git", *arguments), environ=self._environ, seconds=GIT_SECONDS, cwd=self._folder
            )
        except FileNotFoundError as error:
            raise MayflyError("git is not installed", remedy="apt-get install git") from error
        if done.code != 0:
            raise MayflyError(f"git {arguments[0]} failed: {done.complaint}")
        return done.stdout.decode()
