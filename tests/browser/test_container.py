"""The browser in a container: its limits, its shared folder, its ways to fail."""

import asyncio
import os
import secrets
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from agent.base.errors import BrowserError
from agent.browser import Container, Place, Supervisor, open_to_browser, remove_leftovers, supervise
from agent.browser.container import ContainerBrowser
from agent.browser.session import BrowserDied
from agent.config.settings import Browser
from tests.browser.conftest import Events, supervisor_of
from tests.browser.rigs import ContainerRig
from tests.browser.site import REPORT, site
from tests.parts.busybox_image import ensure_busybox
from tests.parts.docker_engine import DockerEngine
from tests.parts.waiting import wait_until
from tests.parts.webdriver import session

SMALL = Browser(sessions=1, shared_memory=64 * 1024**2, timeout=10)
ABSENT = "mayfly.test/nobody/has-this:1"


async def test_sessions_downloads_and_time_zone_are_the_runs(
    container_rig: ContainerRig, place: Place, events: Events
) -> None:
    """Each session has a spare slot; a download appears in the run's folder, whose path may have any character."""
    odd = replace(place, downloads=place.downloads / 'a, "b": c=d')
    async with supervisor_of(container_rig, odd, events, sessions=1) as supervisor:
        await supervisor.ready()
        assert supervisor.shares_downloads
        with site(container_rig.listen, container_rig.site_host) as page:
            await asyncio.to_thread(_use, supervisor, page, odd.downloads / "quotes")
        record = supervisor.record()
    assert record is not None
    assert record.image == container_rig.image
    assert (record.digest or "").startswith("sha256:")


def _use(supervisor: Supervisor, page: str, folder: Path) -> None:
    open_to_browser(folder)
    options = {"prefs": {"download.default_directory": str(folder)}}
    with session(supervisor.url, options=options) as browser, session(supervisor.url):
        browser.visit(page)
        assert browser.run("return zone.textContent") == "Asia/Tokyo"
        (node,) = requests.get(f"{supervisor.url}/status", timeout=30).json()["value"]["nodes"]
        assert len(node["slots"]) == node["maxSessions"] == 2
        with pytest.raises(requests.Timeout):  # it waits for a slot
            requests.post(
                f"{supervisor.url}/session",
                json={"capabilities": {}},
                headers={"Content-Type": "application/json; charset=utf-8"},
                timeout=2,
            )
        browser.run("download.click()")
        report = folder / "report.csv"
        wait_until(report.exists, what="the download")
        wait_until(lambda: report.read_bytes() == REPORT, what="its content")
    assert report.stat().st_mode & 0o444 == 0o444
    report.unlink()


USUAL = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize(
    ("environ", "reason", "remedy"),
    [
        (
            {"PATH": "/nonexistent"},
            "docker could not be started",
            "install chromium and",
        ),
        (
            {**USUAL, "DOCKER_HOST": "unix:///nonexistent/socket"},
            *("docker version failed", "start the engine"),
        ),
        (None, ABSENT, "check its name and the network"),
    ],
    ids=["no docker", "no engine", "no image"],
)
async def test_what_cannot_be_had_is_named_with_a_remedy(  # noqa: PLR0917 -- a row of the table
    docker_engine: DockerEngine,
    place: Place,
    events: Events,
    environ: dict[str, str] | None,
    reason: str,
    remedy: str,
) -> None:
    """The client is not there, nobody answers it, or no registry has the image."""
    environ = environ or {**USUAL, **docker_engine.environ}
    supervisor = supervise(
        Container(ABSENT), place, settings=Browser(), environ=environ, log=events.log
    )
    async with supervisor:
        with pytest.raises(BrowserError) as caught:
            await supervisor.ready()
    assert reason in str(caught.value)
    assert remedy in caught.value.remedy
    assert supervisor.generation == 0
    assert len(events.named("browser.failed")) == 1
    assert bool(events.named("browser.image_pulled")) == (reason == ABSENT)


async def test_a_container_that_ends_at_once_is_quoted(
    container_rig: ContainerRig, place: Place, events: Events
) -> None:
    """An image that crashes at its start: its last words and its exit code are in the error, and it is removed."""
    engine, broken = container_rig.engine, f"mayfly.test/broken:{place.run_id.lower()}"
    made = engine.docker("create", container_rig.image)
    entry = 'ENTRYPOINT ["/bin/sh", "-c", "echo no display today; exit 3"]'
    try:
        engine.docker("commit", "--change", entry, made.stdout.strip(), broken)
        container_rig.choice = Container(broken)
        async with supervisor_of(container_rig, place, events) as supervisor:
            with pytest.raises(BrowserError, match=r"no display today .*exited, exit code 3"):
                await supervisor.ready()
            assert container_rig.remains(place) == []
            assert supervisor.record() is None
        assert len(events.named("browser.died_early")) == 1
    finally:
        engine.docker("rm", "--force", made.stdout.strip())
        engine.docker("rmi", "--force", broken)


async def test_leftovers_of_dead_runs_are_removed_and_no_others(
    container_rig: ContainerRig, place: Place, events: Events
) -> None:
    """A run that was killed cannot remove its container; the next run does, by the label, and only that."""
    other = replace(place, run_id=f"20260101T000000Z-{secrets.token_hex(3)}")
    mine, theirs = (
        ContainerBrowser(container_rig.image, here, SMALL, container_rig.environ, events.log)
        for here in (place, other)
    )
    try:
        await mine.start()
        await theirs.start()
        environ, log = container_rig.environ, events.log
        assert await remove_leftovers([place.run_id], environ=environ, log=log) == 1
        assert await remove_leftovers([place.run_id], environ=environ, log=log) == 0
        assert container_rig.remains(place) == []
        assert len(container_rig.remains(other)) == 1
        assert not await mine.running()
        assert await mine.last_words() == ""
        await mine.stop()
    finally:
        await theirs.stop()
    assert container_rig.remains(other) == []


async def test_an_engine_that_is_gone_does_not_hold_up_the_end(
    container_rig: ContainerRig, place: Place, events: Events
) -> None:
    """Stopping never raises; that the container may be there still is in the log."""
    gone = {**container_rig.environ, "DOCKER_HOST": "unix:///nonexistent/socket"}
    browser = ContainerBrowser(container_rig.image, place, SMALL, gone, events.log)
    with pytest.raises(BrowserError):
        await browser.start()
    assert await browser.running()
    assert await browser.last_words() == ""
    await browser.stop()
    await browser.stop()
    assert len(events.named("browser.not_removed")) == 1
    assert await remove_leftovers([place.run_id], environ=gone, log=events.log) == 0


async def test_a_stop_that_is_cancelled_is_repeated(
    docker_engine: DockerEngine, place: Place, events: Events
) -> None:
    """The run ends while its browser is being restarted: the container goes all the same, with the last stop."""
    environ = {"PATH": os.environ["PATH"], **docker_engine.environ}
    image = f"mayfly.test/brief:{place.run_id.lower()}"
    made = docker_engine.docker("create", ensure_busybox(docker_engine), "true").stdout.strip()
    docker_engine.docker("commit", "--change", 'CMD ["true"]', made, image)
    rig = ContainerRig(docker_engine, image)
    browser = ContainerBrowser(image, place, SMALL, environ, events.log)
    try:
        with suppress(BrowserDied):  # it may end before it is asked for its port
            await browser.start()
        assert rig.remains(place)
        stopping = asyncio.create_task(browser.stop())
        await asyncio.sleep(0)  # it has begun
        stopping.cancel()
        await asyncio.wait({stopping})
        await browser.stop()
        assert rig.remains(place) == []
    finally:
        docker_engine.docker("rm", "--force", made, *rig.remains(place))
        docker_engine.docker("image", "rm", image)
