"""The browser in a container: the Selenium image, on a loopback port, with nothing it does not need."""

import asyncio
import secrets
from collections.abc import Collection, Mapping
from typing import ClassVar

from agent.base.engine import (
    LABEL,
    PULL_SECONDS,
    START_SECONDS,
    Engine,
    Login,
    bind_mount,
    image_digest,
    is_missing,
    no_login,
)
from agent.base.errors import BrowserError, MayflyError
from agent.base.logs import Log
from agent.browser.interface import HOST, Backend, Place
from agent.browser.session import BrowserDied
from agent.config.settings import Browser

RUN_SECONDS = 50.0
IDLE_SECONDS = 300
"""After this long without a command the Grid ends a session that a job left open: its own default."""

PORT = 4444

JAVA_OPTIONS = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xshare:auto"
"""For a server that lives for minutes and passes messages on: on two cores its optimising compiler delays the first
session by a third (5.1 s -> 3.2 s), and a second garbage collector has nothing to do."""

_SLOTS = 2
"""Slots for each session. The scheduler holds jobs to their number; a session that a job left open costs memory until
it is idle for long enough, and no other job its own: whose it is, nobody knows."""

_TASKS = 1024
"""Threads and processes for the server, and again for each session: a page with 40 frames takes about 800."""


class Docker(Engine):
    """The container engine for the browser: its failures are the browser's, and there are other ways to have one."""

    failure: ClassVar[type[MayflyError]] = BrowserError
    instead: ClassVar[str] = (
        ", or set browser.url to a running WebDriver endpoint, or, where jobs do not run in units, install chromium and"
        " chromedriver"
    )


class ContainerBrowser(Backend):
    """A Selenium container that belongs to one run; its downloads folder has the same path inside and outside."""

    kind = "container"
    image: str
    preparation = PULL_SECONDS + 60.0

    def __init__(
        self,
        image: str,
        place: Place,
        settings: Browser,
        environ: Mapping[str, str],
        log: Log,
        *,
        login: Login = no_login,
    ) -> None:
        self.image = image
        self._place = place
        self._settings = settings
        self._zone = environ.get("TZ", "")
        self._docker = Docker(environ, login)
        self._log = log
        # A run may replace its browser: one goes while the next one comes.
        self._name = f"mayfly-{place.run_id}-browser-{secrets.token_hex(2)}".lower()
        self._launch: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Pull the image if the engine does not have it.

        Raises:
            BrowserError: There is no engine, or the image is not available.
        """
        event = "browser.image_pulled"
        found, _ = await self._docker.have(self.image, self._log, event, what="browser's image")
        self.digest = image_digest(found)

    async def start(self) -> None:
        """Create and start the container; the engine chooses the port the first time.

        Raises:
            BrowserDied: It ended at once.
            BrowserError: The engine refused, for example because the port is no longer free.
        """
        self._place.make_downloads()
        # Shielded: after a cancellation the engine would go on, and `stop` would not find the container yet.
        self._launch = asyncio.create_task(self._run())
        await asyncio.shield(self._launch)

    async def running(self) -> bool:
        """Tell whether the container runs; if the engine does not answer, it may."""
        try:
            asked = await self._docker.run(
                "container", "inspect", "--format", "{{.State.Running}}", self._name
            )
        except BrowserError:
            return True
        if asked.code != 0:
            return not is_missing(asked)
        return asked.stdout.strip() == b"true"

    async def last_words(self) -> str:
        """Return the end of the container's log and how it ended, on one line."""
        try:
            state = await self._docker.run(
                *("container", "inspect", "--format"),
                "{{.State.Status}}, exit code {{.State.ExitCode}}, out of memory: {{.State.OOMKilled}}",
                self._name,
            )
            log = await self._docker.run("container", "logs", "--tail", "20", self._name)
        except BrowserError:
            return ""
        if state.code != 0:
            return ""
        words = " ".join((log.stdout + log.stderr).decode(errors="replace").split())
        return f"{words[-400:]} ({state.stdout.decode(errors='replace').strip()})"

    async def stop(self) -> None:
        """Remove the container, whatever its state."""
        launch = self._launch
        if launch is None:
            return
        await asyncio.wait([launch], timeout=RUN_SECONDS + 10)
        if not launch.cancelled() and launch.done():
            launch.exception()  # retrieved: `start` has raised it
        await _remove(self._docker, [self._name], self._log)
        self._launch = None  # only now: a stop that is cancelled is repeated

    async def _run(self) -> None:
        port = self.url.rpartition(":")[2] if self.url else ""
        arguments = run_arguments(
            self._name, self.image, self._place, self._settings, port=port, zone=self._zone
        )
        await self._docker.output(*arguments, seconds=RUN_SECONDS)
        if not self.url:
            bound = await self._docker.run("port", self._name, str(PORT))
            if bound.code != 0:
                raise BrowserDied("the container ended at once")
            # One line for each address family, should the engine ever publish on two.
            first = bound.stdout.decode().splitlines()[0]
            self.url = f"http://127.0.0.1:{first.rpartition(':')[2]}"


def run_arguments(
    name: str, image: str, place: Place, settings: Browser, *, port: str = "", zone: str = ""
) -> list[str]:
    """Return the arguments of `docker` that start a browser's container.

    The Selenium images run as an unprivileged user throughout and switch off Chromium's own sandbox, so they need no
    capability and must not gain one.

    An empty `port` (on the loopback address) lets the engine choose one. Pages see the time zone `zone`, such
    as `Asia/Tokyo`; an empty one is the image's own.
    """
    slots = _SLOTS * settings.sessions
    variables = {
        "SE_NODE_MAX_SESSIONS": slots,
        "SE_NODE_OVERRIDE_MAX_SESSIONS": "true",
        "SE_NODE_SESSION_TIMEOUT": IDLE_SECONDS,
        "SE_SESSION_REQUEST_TIMEOUT": max(1, round(settings.timeout)),
        "SE_NODE_ENABLE_MANAGED_DOWNLOADS": "true",
        "SE_START_VNC": "false",
        "SE_START_NO_VNC": "false",
        "SE_ENABLE_TRACING": "false",
        "SE_JAVA_OPTS": JAVA_OPTIONS,
        **({"TZ": zone} if zone else {}),
    }
    return [
        *("run", "--detach", "--pull", "never", "--init"),
        *("--name", name, "--label", f"{LABEL}={place.run_id}"),
        *("--publish", f"127.0.0.1:{port}:{PORT}"),
        *("--add-host", f"{HOST}:host-gateway"),
        *("--shm-size", str(settings.shared_memory)),
        *("--pids-limit", str(_TASKS * (slots + 1))),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
        *("--mount", bind_mount(place.downloads, str(place.downloads))),
        *(part for item in variables.items() for part in ("--env", f"{item[0]}={item[1]}")),
        image,
    ]


async def remove_containers(run_ids: Collection[str], environ: Mapping[str, str], log: Log) -> int:
    """Remove the containers of killed runs; return how many there were, 0 without an engine."""
    docker = Docker(environ)
    try:
        listed = await docker.output(
            *("ps", "--all", "--filter", f"label={LABEL}"),
            *("--format", f'{{{{.ID}}}} {{{{.Label "{LABEL}"}}}}'),
            seconds=START_SECONDS,
        )
    except BrowserError:
        return 0
    rows = [line.split(" ", 1) for line in listed.splitlines()]
    left = [row[0] for row in rows if len(row) > 1 and row[1] in run_ids]
    if left:
        await _remove(docker, left, log)
    return len(left)


async def _remove(docker: Docker, names: list[str], log: Log) -> None:
    """Kill and remove containers. `docker stop` would wait for a browser that has nothing left to do."""
    if reason := await docker.remove("rm", "--force", "--volumes", *names):
        log.warning("browser.not_removed", containers=names, reason=reason)
