"""The browser's image belongs to the release: if it cannot be pulled, the last good release runs."""

from collections.abc import Collection, Mapping

from agent.base.engine import PULL_SECONDS, Login, is_missing, no_login
from agent.base.errors import BrowserError, ReleaseRefused
from agent.base.logs import Log
from agent.browser import Container, choose
from agent.browser.container import Docker
from agent.config.jobsfile import JobsFile, needs_browser
from agent.config.settings import Browser

REMOVE_SECONDS = 20.0
"""Limit of one removal: the engine deletes the layers of a gigabyte one by one."""


def pinned_image(jobs: JobsFile, settings: Browser) -> str | None:
    """Return the image that a release pins, if its run will use it."""
    if jobs.browser is None or not needs_browser(jobs):
        return None
    choice = choose(settings, jobs.browser.image, None)
    return choice.image if isinstance(choice, Container) else None


async def have_image(
    image: str,
    environ: Mapping[str, str],
    log: Log,
    login: Login = no_login,
    seconds: float = PULL_SECONDS,
) -> bool:
    """Pull an image within `seconds` unless it is here; return whether it was pulled.

    Raises:
        ReleaseRefused: It is not available, or not in time.
    """
    docker, event = Docker(environ, login), "browser.image_pulled"
    try:
        _, pulled = await docker.have(image, log, event, what="browser's image", seconds=seconds)
    except BrowserError as error:
        raise ReleaseRefused("install", str(error), remedy=error.remedy) from error
    return pulled


async def remove_images(images: Collection[str], environ: Mapping[str, str]) -> tuple[str, ...]:
    """Remove images; return those that are gone. An image that a container uses stays."""
    docker, gone = Docker(environ), []
    for image in images:
        try:
            done = await docker.run("image", "rm", image, seconds=REMOVE_SECONDS)
        except BrowserError:
            break
        if done.code == 0 or is_missing(done):
            gone.append(image)
    return tuple(gone)
