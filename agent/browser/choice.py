"""Which browser a run uses: a decision without effects."""

from dataclasses import dataclass

from agent.config.settings import Browser

DEFAULT_IMAGE = "selenium/standalone-chromium:4.48.0-20260905"
"""The last choice: amd64 and arm64, Selenium Grid 4.48.0 (which the tests run against), Chromium 152. From
https://github.com/SeleniumHQ/docker-selenium/releases/tag/4.48.0-20260905; a full tag never moves."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A WebDriver or Grid endpoint that somebody else runs."""

    url: str


@dataclass(frozen=True, slots=True)
class Chromedriver:
    """A chromedriver of this machine, by its path."""

    program: str


@dataclass(frozen=True, slots=True)
class Container:
    """A Selenium container."""

    image: str


Choice = Remote | Chromedriver | Container


def choose(settings: Browser, release_image: str | None, chromedriver: str | None) -> Choice:
    """Return the browser to use.

    A URL in the configuration comes first: whoever sets it has a browser. Then a pinned image, the release's before the
    machine's, because scrapers are tested with it. Then an installed chromedriver, and last the default image.

    The image that the release pins is None where there is none, or not known yet; this machine's chromedriver where
    there is none, or jobs may not reach it.
    """
    if settings.url is not None:
        return Remote(settings.url)
    if release_image is not None or settings.image is not None:
        return Container(release_image or settings.image or DEFAULT_IMAGE)
    if chromedriver is not None:
        return Chromedriver(chromedriver)
    return Container(DEFAULT_IMAGE)
