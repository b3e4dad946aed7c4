"""Where WebDriver sessions come from: a container, a chromedriver, or somebody else's Grid, behind one interface."""

from collections.abc import Collection, Mapping

from agent.base.engine import Login, no_login
from agent.base.logs import Log
from agent.browser.choice import DEFAULT_IMAGE, Choice, Chromedriver, Container, Remote, choose
from agent.browser.chromedriver import LocalBrowser, find_chromedriver, remove_drivers
from agent.browser.container import ContainerBrowser, remove_containers
from agent.browser.interface import HOST, Backend, Place, open_to_browser
from agent.browser.prewarm import Prewarm
from agent.browser.proxy import webdriver_proxy
from agent.browser.remote import RemoteBrowser
from agent.browser.supervisor import Supervisor, WatchSettings
from agent.config.settings import Browser

__all__ = [
    "DEFAULT_IMAGE",
    "HOST",
    "Choice",
    "Chromedriver",
    "Container",
    "Place",
    "Prewarm",
    "Remote",
    "Supervisor",
    "WatchSettings",
    "choose",
    "early",
    "find_chromedriver",
    "open_to_browser",
    "remove_leftovers",
    "supervise",
    "webdriver_proxy",
]


def supervise(
    choice: Choice,
    place: Place,
    *,
    settings: Browser,
    environ: Mapping[str, str],
    log: Log,
    login: Login = no_login,
    pace: WatchSettings | None = None,
) -> Supervisor:
    """Return the supervisor of a browser; entering it starts the browser in the background.

    The browser itself gets next to nothing of `environ`, in which programs are found.
    """
    backend: Backend
    match choice:
        case Remote(url):
            backend = RemoteBrowser(url)
        case Chromedriver(program):
            backend = LocalBrowser(program, place, environ, log)
        case Container(image):
            backend = ContainerBrowser(image, place, settings, environ, log, login=login)
    return Supervisor(backend, timeout=settings.timeout, log=log, pace=pace)


def early(
    place: Place,
    *,
    settings: Browser,
    chromedriver: str | None,
    environ: Mapping[str, str],
    log: Log,
    login: Login = no_login,
) -> Prewarm:
    """Return the browser of a run, not started; arguments as for `choose` and `supervise`."""
    return Prewarm(
        lambda image: choose(settings, image, chromedriver),
        lambda choice: supervise(
            choice, place, settings=settings, environ=environ, log=log, login=login
        ),
        port=settings.port,
    )


async def remove_leftovers(
    run_ids: Collection[str], *, environ: Mapping[str, str], log: Log
) -> int:
    """Remove containers, processes and profiles of killed runs; return how many containers and processes there were."""
    if not run_ids:
        return 0
    containers = await remove_containers(run_ids, environ, log)
    return containers + await remove_drivers(run_ids)
