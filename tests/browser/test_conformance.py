"""What every kind of browser does, whoever runs it."""

import asyncio
import socket

import pytest
import requests

from agent.base.errors import BrowserError
from agent.browser import Place
from tests.browser.conftest import Events, supervisor_of
from tests.browser.rigs import Rig
from tests.browser.site import TITLE, site
from tests.parts.ports import LOOPBACK
from tests.parts.waiting import wait_until
from tests.parts.webdriver import session


async def test_a_ready_browser_opens_a_page_and_leaves_nothing(
    rig: Rig, place: Place, events: Events
) -> None:
    """Once it is ready, a session of the simplest kind shows a page; after the run nothing of the browser is there."""
    supervisor = supervisor_of(rig, place, events)
    async with supervisor:
        await supervisor.ready()
        with site(rig.listen, rig.site_host) as page:
            assert await asyncio.to_thread(_title, supervisor.url, page) == TITLE
        record = supervisor.record()
    assert record is not None
    assert record.name.startswith("chrome ")
    assert (supervisor.generation, record.restarts) == (0, 0)
    assert rig.remains(place) == []
    assert _answers(supervisor.url) == (record.kind == "remote")
    assert events.named("browser.stopped")


async def test_a_browser_that_dies_comes_back_under_its_url(
    rig: Rig, place: Place, events: Events
) -> None:
    """A crash is noticed at once by who asks, the generation rises, and jobs go on with the URL they have."""
    supervisor = supervisor_of(rig, place, events)
    async with supervisor:
        await supervisor.ready()
        url = supervisor.url
        assert not await supervisor.lost(0)
        rig.kill(place)
        assert await supervisor.lost(0)
        await events.wait_for("browser.died")
        rig.revive()
        await supervisor.ready()
        assert supervisor.url == url
        assert await supervisor.lost(0)
        assert not await supervisor.lost(1)
        with site(rig.listen, rig.site_host) as page:
            assert await asyncio.to_thread(_title, url, page) == TITLE
        record = supervisor.record()
    assert record is not None
    assert record.restarts == 1
    assert rig.remains(place) == []
    assert len(events.named("browser.died")) == 1


async def test_its_port_taken_meanwhile_is_waited_for(
    own_rig: Rig, place: Place, events: Events
) -> None:
    """Jobs have the URL in their environment: a restart on another port would be of no use to them."""
    async with supervisor_of(own_rig, place, events) as supervisor:
        await supervisor.ready()
        port = int(supervisor.url.rpartition(":")[2])
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # Nothing here yields to the supervisor, which would take the port again.
            own_rig.kill(place)
            wait_until(lambda: _taken(stranger, port), what="the port to be free")
            await events.wait_for("browser.not_restarted")
            with pytest.raises(BrowserError, match=r"already in use|does not listen on port"):
                await supervisor.ready()
        await events.wait_for("browser.ready", 2)
        await supervisor.ready()
        assert supervisor.url.endswith(f":{port}")
    assert own_rig.remains(place) == []


def _taken(stranger: socket.socket, port: int) -> bool:
    try:
        stranger.bind((LOOPBACK, port))
    except OSError:
        return False
    stranger.listen()
    return True


async def test_a_start_can_be_given_up_at_any_moment(
    own_rig: Rig, place: Place, events: Events
) -> None:
    """The run may find out in the middle of a start that it needs no browser, or another: nothing remains of it."""
    for seconds in (0.0, 0.02, 0.1, 0.3, 0.8):
        async with supervisor_of(own_rig, place, events):
            await asyncio.sleep(seconds)  # the moment is what is tried
        assert own_rig.remains(place) == []


async def test_a_cancelled_run_leaves_nothing(own_rig: Rig, place: Place, events: Events) -> None:
    """A run that is cancelled, and cancelled again while it stops its browser, still ends it."""

    async def run() -> None:
        async with supervisor_of(own_rig, place, events) as supervisor:
            await supervisor.ready()
            await asyncio.Event().wait()

    for seconds in (0.05, 0.5):
        task = asyncio.create_task(run())
        await asyncio.sleep(seconds)  # the moment is what is tried
        task.cancel()
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert own_rig.remains(place) == []


async def test_one_browser_may_come_while_the_other_goes(
    own_rig: Rig, place: Place, events: Events
) -> None:
    """When the release asks for another browser than was guessed, stopping the first does not hurt the second."""
    first, second = supervisor_of(own_rig, place, events), supervisor_of(own_rig, place, events)
    async with first:
        await asyncio.sleep(0.5)  # in the middle of the first one's start
        await second.__aenter__()
    await second.ready()
    assert not await second.lost(0)
    await second.__aexit__(None, None, None)
    assert own_rig.remains(place) == []


def _title(url: str, page: str) -> object:
    with session(url) as browser:
        browser.visit(page)
        return browser.run("return document.title")


def _answers(url: str) -> bool:
    try:
        requests.get(f"{url}/status", timeout=2)
    except requests.RequestException:
        return False
    return True
