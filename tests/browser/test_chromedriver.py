"""The browser of this machine: any scraper gets a session, and no process outlives it."""

import asyncio
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from agent.base.durable import remove_tree
from agent.base.errors import BrowserError
from agent.browser import Chromedriver, Place, open_to_browser, remove_leftovers, supervise
from agent.browser.chromedriver import LocalBrowser
from agent.config.settings import Browser
from tests.browser.conftest import QUICK, Events, supervisor_of
from tests.browser.rigs import ChromedriverRig, browser_processes, profiles
from tests.browser.site import REPORT, site
from tests.parts.ports import LOOPBACK
from tests.parts.waiting import wait_until


async def test_browsers_that_jobs_left_open_end_with_the_run(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """A scraper that knows nothing of us opens sessions, downloads a file and never closes: all of it is cleared."""
    async with supervisor_of(local_rig, place, events) as supervisor:
        await supervisor.ready()
        with site(LOOPBACK, LOOPBACK) as page:
            await asyncio.to_thread(_leave_open, supervisor.url, page, place.downloads / "quotes")
        assert len(browser_processes(place.run_id)) > 2
        assert profiles(place) != []
        (written,) = place.folder.glob("chromedriver-*.log")
        log = await asyncio.to_thread(written.read_text)
    assert local_rig.remains(place) == []
    assert "canary" not in log


def _leave_open(url: str, page: str, folder: Path) -> None:
    open_to_browser(folder)
    options = {"prefs": {"download.default_directory": str(folder)}}
    opened = f"{url}/session/{_open(url, options)}"
    requests.post(f"{opened}/url", json={"url": page}, timeout=60).raise_for_status()
    script = "console.error('canary'); document.getElementById('download').click()"
    answer = requests.post(
        f"{opened}/execute/sync", json={"script": script, "args": []}, timeout=60
    )
    answer.raise_for_status()
    report = folder / "report.csv"
    wait_until(report.exists, what="the download")
    wait_until(lambda: report.read_bytes() == REPORT, what="its content")
    _open(url, {})


def _open(url: str, options: object) -> str:
    """Open a session that nobody closes."""
    wanted = {"browserName": "chrome", "goog:chromeOptions": options}
    body = {"capabilities": {"alwaysMatch": wanted}}
    answer = requests.post(f"{url}/session", json=body, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["value"]["sessionId"])


async def test_profiles_are_where_nobody_else_may_look(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """The temporary folder is everybody's; its path is short enough for Chromium's socket, whatever the run's is."""
    async with supervisor_of(local_rig, place, events) as supervisor:
        await supervisor.ready()
        (profile,) = profiles(place)
        assert Path(profile).stat().st_mode & 0o777 == 0o700
    assert local_rig.remains(place) == []


@pytest.fixture
def names(place: Place) -> Iterator[list[Path]]:
    """Three names that a run's profiles might have in the temporary folder."""
    found = [Path(f"/tmp/mayfly-{place.run_id}-{name}") for name in ("a", "b", "c")]
    yield found
    for path in found:
        remove_tree(path)


async def test_of_a_dead_run_only_what_it_made_is_removed(
    names: list[Path], place: Place, events: Events, tmp_path: Path
) -> None:
    """Whoever may write in the temporary folder cannot have the agent remove something else."""
    mine, link, other = names
    (tmp_path / "file").touch()
    link.symlink_to(tmp_path)
    mine.mkdir(mode=0o700)
    (mine / "link").symlink_to(tmp_path)
    other.mkdir()
    if os.geteuid() == 0:
        other.chmod(0o700)
        os.chown(other, 65534, 65534)
    environ = {"PATH": "/nonexistent"}
    assert await remove_leftovers([place.run_id], environ=environ, log=events.log) == 0
    assert profiles(place) == [str(link), str(other)]
    assert (tmp_path / "file").exists()


async def test_a_hung_driver_is_replaced(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """It is there and does not answer: after some looks in vain it counts as dead."""
    pace = replace(QUICK, answer=1.0)
    async with supervisor_of(local_rig, place, events, pace=pace) as supervisor:
        await supervisor.ready()
        local_rig.suspend(place)
        await events.wait_for("browser.died")
        assert events.named("browser.died")[0]["reason"] == "it did not answer 3 times"
        await supervisor.ready()
        assert supervisor.generation == 1
    assert local_rig.remains(place) == []


async def test_a_driver_that_is_slow_once_is_not_replaced(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """A machine under load may miss an answer."""
    pace = replace(QUICK, answer=3.0, misses=20)
    async with supervisor_of(local_rig, place, events, pace=pace) as supervisor:
        await supervisor.ready()
        driver = local_rig.driver(place)
        driver.send_signal(signal.SIGSTOP)
        assert await supervisor.lost(0)
        driver.send_signal(signal.SIGCONT)
        await asyncio.sleep(1)  # a restart would have begun by then
        assert supervisor.generation == 0
        assert not await supervisor.lost(0)


async def test_a_driver_that_had_no_room_on_the_disk_comes_back_when_there_is(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """A job that fills the disk is ended soon: the browser of the others must not be gone for the whole run."""
    async with supervisor_of(local_rig, place, events) as supervisor:
        await supervisor.ready()
        place.downloads.rmdir()
        place.downloads.touch()  # in the way, as a disk without room is
        local_rig.kill(place)
        await events.wait_for("browser.not_restarted")
        with pytest.raises(BrowserError, match=r"could not be started: .*File exists"):
            await supervisor.ready()
        place.downloads.unlink()
        await events.wait_for("browser.ready", 2)
        await supervisor.ready()
    assert local_rig.remains(place) == []


@pytest.mark.parametrize(
    ("script", "reason", "remedy"),
    [
        (None, "could not be started", "install chromium"),
        ("echo libnss3.so is missing >&2; exit 127", r"libnss3\.so is missing", ""),
    ],
    ids=["missing", "broken"],
)
async def test_a_driver_that_cannot_be_run_says_why(  # noqa: PLR0917 -- a row of the table
    place: Place, events: Events, tmp_path: Path, script: str | None, reason: str, remedy: str
) -> None:
    """A program that is not there, another by that name, or one that lacks a library: what it wrote is in the error."""
    program = tmp_path / "chromedriver"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    chosen = Chromedriver(str(program))
    async with supervise(
        chosen, place, settings=Browser(), environ={}, log=events.log
    ) as supervisor:
        with pytest.raises(BrowserError, match=reason) as caught:
            await supervisor.ready()
    assert remedy in caught.value.remedy
    assert profiles(place) == []


async def test_a_driver_without_a_browser_is_given_up_soon(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """It listens, and refuses every session: that does not get better by waiting for the whole timeout."""
    local_rig.environ = {"PATH": "/nonexistent"}
    program = place.folder.parent / "chromedriver"
    driver = local_rig.choice
    assert isinstance(driver, Chromedriver)
    # No socket can be put below so long a path, so Chromium exits at once.
    program.write_text(f'#!/bin/sh\nexport TMPDIR=/tmp/{"x" * 99}; exec {driver.program} "$@"\n')
    program.chmod(0o755)
    local_rig.choice = Chromedriver(str(program))
    async with supervisor_of(local_rig, place, events) as supervisor:
        with pytest.raises(BrowserError, match="opened no browser session: "):
            await supervisor.ready()
        assert local_rig.remains(place) == []


async def test_leftovers_of_dead_runs_are_removed_and_no_others(
    local_rig: ChromedriverRig, place: Place, events: Events, chromedriver: str
) -> None:
    """A run that was killed cannot end its driver; the next run does, profiles included, and only that one's."""
    other = replace(place, run_id=f"20260101T000000Z-{secrets.token_hex(3)}")
    mine, theirs = (
        LocalBrowser(chromedriver, here, local_rig.environ, events.log) for here in (place, other)
    )
    try:
        await mine.start()
        await theirs.start()
        environ = {"PATH": "/nonexistent"}
        assert await remove_leftovers([place.run_id], environ=environ, log=events.log) == 1
        assert await remove_leftovers([], environ=environ, log=events.log) == 0
        assert local_rig.remains(place) == []
        assert await theirs.running()
    finally:
        await theirs.stop()
        await mine.stop()
    assert local_rig.remains(other) == []


async def test_a_stop_that_is_cancelled_is_repeated(
    chromedriver: str, place: Place, events: Events
) -> None:
    """The run ends while its browser is being restarted: what left the driver's session is found by the last stop."""
    browser = LocalBrowser(chromedriver, place, {"PATH": os.environ["PATH"]}, events.log)
    await browser.start()
    (driver,) = browser_processes(place.run_id)
    command, environ = ["sleep", "600"], driver.environ()
    escaped = subprocess.Popen(command, env=environ, start_new_session=True)  # noqa: ASYNC220 -- at once
    try:
        stopping = asyncio.create_task(browser.stop())
        await asyncio.sleep(0)  # it has begun
        stopping.cancel()
        await asyncio.wait({stopping})
        await browser.stop()
        await asyncio.to_thread(escaped.wait, 30)
        assert browser_processes(place.run_id) == []
        assert profiles(place) == []
    finally:
        escaped.kill()
        escaped.wait()
