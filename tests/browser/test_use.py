"""How a run uses browsers: guessed early, corrected, shared by jobs that may leave sessions open."""

import asyncio
from collections.abc import Callable

import requests

from agent.browser import Choice, Chromedriver, Container, Place, Prewarm, Supervisor
from agent.config.jobsfile import Job, JobsFile, ReleaseBrowser
from tests.browser.conftest import Events, supervisor_of
from tests.browser.rigs import ChromedriverRig, Rig

BROWSING = Job(name="browsing", command=("true",), browser=True)
PLAIN = Job(name="plain", command=("true",))
HEADLESS = {"goog:chromeOptions": {"args": ["--headless=new", "--no-sandbox"]}}


def open_session(url: str) -> str:
    """Open a session and leave it open."""
    answer = requests.post(
        f"{url}/session",
        json={"capabilities": {"alwaysMatch": {"browserName": "chrome", **HEADLESS}}},
        headers={"Content-Type": "application/json; charset=utf-8"},
        timeout=60,
    )
    return str(answer.json()["value"]["sessionId"])


def is_open(url: str, session: str) -> bool:
    """Tell whether a session is still there."""
    return requests.get(f"{url}/session/{session}/url", timeout=30).ok


async def test_what_the_last_job_leaves_open_is_closed(
    own_rig: Rig, place: Place, events: Events
) -> None:
    """A job that is killed keeps no slot from the next one; while another job runs, nothing of it is touched."""
    async with supervisor_of(own_rig, place, events, sessions=2) as supervisor:
        await supervisor.ready()
        async with supervisor.used():
            async with supervisor.used():
                left = await asyncio.to_thread(open_session, supervisor.url)
            assert await asyncio.to_thread(is_open, supervisor.url, left)
        assert not await asyncio.to_thread(is_open, supervisor.url, left)
    assert events.named("browser.closed_sessions")[0]["sessions"] == 1


async def test_what_a_job_leaves_open_keeps_no_slot_from_the_next_one(
    own_rig: Rig, place: Place, events: Events
) -> None:
    """While a long job uses the browser: the scheduler lets in as many jobs as there are sessions."""
    async with supervisor_of(own_rig, place, events, sessions=2) as supervisor:
        await supervisor.ready()
        async with supervisor.used():
            async with supervisor.used():
                await asyncio.to_thread(open_session, supervisor.url)
            kept = await asyncio.to_thread(open_session, supervisor.url)
            async with supervisor.used(), asyncio.timeout(30):
                await asyncio.to_thread(open_session, supervisor.url)
            assert await asyncio.to_thread(is_open, supervisor.url, kept)


async def test_a_foreign_grid_keeps_its_sessions(
    remote_rig: Rig, place: Place, events: Events
) -> None:
    """Sessions of somebody else's Grid may be somebody else's."""
    async with supervisor_of(remote_rig, place, events) as supervisor:
        await supervisor.ready()
        async with supervisor.used():
            left = await asyncio.to_thread(open_session, supervisor.url)
        assert await asyncio.to_thread(is_open, supervisor.url, left)
        await asyncio.to_thread(requests.delete, f"{supervisor.url}/session/{left}", timeout=30)


class Early:
    """An early browser whose choices are recorded; every choice is carried out by the local chromedriver."""

    def __init__(self, rig: ChromedriverRig, place: Place, events: Events) -> None:
        self.chosen: list[Choice] = []
        self.kept: list[Supervisor] = []
        self._make: Callable[[], Supervisor] = lambda: supervisor_of(rig, place, events)
        self.browser = Prewarm(self._choose, self._keep)

    def _choose(self, image: str | None) -> Choice:
        return Container(image) if image else Chromedriver("chromedriver")

    def _keep(self, choice: Choice) -> Supervisor:
        self.chosen.append(choice)
        self.kept.append(self._make())
        return self.kept[-1]


async def test_a_right_guess_is_kept_and_leaving_is_not_waited_for(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """Without a last release a browser is started at once, and the jobs get that one.

    Its record is there while it still stops; the end of the context has stopped it.
    """
    early = Early(local_rig, place, events)
    async with early.browser as browser:
        await browser.guess(None)
        supervisor = await browser.settle(None, (PLAIN, BROWSING))
        assert supervisor is early.kept[0]
        await early.kept[0].ready()
        assert browser.leave() is not None
        assert not events.named("browser.stopped")
        assert browser.leave() is None
    assert early.chosen == [Chromedriver("chromedriver")]
    assert len(events.named("browser.stopped")) == 1
    assert local_rig.remains(place) == []


async def test_a_wrong_guess_is_replaced(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """A release that pins another browser gets that one; the guessed one is stopped."""
    early = Early(local_rig, place, events)
    async with early.browser as browser:
        await browser.guess(None)
        supervisor = await browser.settle(ReleaseBrowser(image="pinned:1"), (BROWSING,))
        assert supervisor is early.kept[1]
    assert early.chosen == [Chromedriver("chromedriver"), Container("pinned:1")]
    assert local_rig.remains(place) == []


async def test_no_browser_where_none_is_wanted(
    local_rig: ChromedriverRig, place: Place, events: Events
) -> None:
    """Nothing is started when the last release had no browser job, and a guess is dropped when the new one has none."""
    early = Early(local_rig, place, events)
    async with early.browser as browser:
        await browser.guess(JobsFile(job=(PLAIN,)))
        assert early.chosen == []
        await browser.guess(JobsFile(job=(BROWSING,)))
        assert await browser.settle(None, (PLAIN,)) is None
        assert browser.leave() is None
    assert local_rig.remains(place) == []
