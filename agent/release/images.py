"""The browser's image belongs to the release: if it cannot be pulled, the last good release runs."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from agent.base.engine import PULL_SECONDS, Login, no_login
from agent.base.errors import BrowserError, ReleaseRefused
from agent.base.logs import Log
from agent.browser import Container, choose, find_chromedriver
from agent.browser.container import Docker
from agent.config.jobsfile import JobsFile, needs_browser
from agent.config.settings import Browser

REMOVE_SECONDS = 20.0
"""For an image of a gigabyte, whose layers the engine deletes one by one; the next run tries again."""


@dataclass(frozen=True, slots=True)
class Images:
    """The browser images that releases pin.

    Attributes:
        settings: The browser that the configuration prefers.
        environ: Where the container engine is found.
        log: Told of a pull.
        seconds: Limit of a pull.
        login: Credentials of private registries.
    """

    settings: Browser
    environ: Mapping[str, str]
    log: Log
    seconds: float = PULL_SECONDS
    login: Login = no_login

    def pinned(self, jobs: JobsFile) -> str | None:
        """Return the image that a release pins, if its run will use it."""
        if jobs.browser is None or not needs_browser(jobs):
            return None
        choice = choose(self.settings, jobs.browser.image, find_chromedriver(self.environ))
        return choice.image if isinstance(choice, Container) else None

    async def have(self, image: str) -> bool:
        """Pull an image unless it is here; return whether it was pulled.

        Raises:
            ReleaseRefused: It is not available, or not in time.
        """
        docker = Docker(self.environ, self.login)
        try:
            _, pulled = await docker.have(
                *(image, self.log, "browser.image_pulled"),
                what="browser's image",
                seconds=self.seconds,
            )
        except BrowserError as error:
            raise ReleaseRefused("install", str(error), remedy=error.remedy) from error
        return pulled

    async def remove(self, images: Collection[str]) -> tuple[str, ...]:
        """Remove images; return those that are gone. An image that a container uses stays."""
        docker, gone = Docker(self.environ), []
        for image in images:
            try:
                done = await docker.run("image", "rm", image, seconds=REMOVE_SECONDS)
            except BrowserError:
                break
            if done.code == 0 or "no such image" in done.complaint.lower():
                gone.append(image)
        return tuple(gone)
