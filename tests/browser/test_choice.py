"""Which browser a run uses."""

import pytest

from agent.browser import (
    DEFAULT_IMAGE,
    Choice,
    Chromedriver,
    Container,
    Remote,
    choose,
    find_chromedriver,
)
from agent.config.settings import Browser

DRIVER = "/usr/bin/chromedriver"


@pytest.mark.parametrize(
    ("settings", "release_image", "chromedriver", "choice"),
    [
        ({"url": "http://grid:4444"}, None, DRIVER, Remote("http://grid:4444")),
        ({"url": "http://grid:4444"}, "pinned:1", None, Remote("http://grid:4444")),
        ({"image": "machine:1"}, "pinned:1", DRIVER, Container("pinned:1")),
        ({"image": "machine:1"}, None, DRIVER, Container("machine:1")),
        ({}, "pinned:1", DRIVER, Container("pinned:1")),
        ({}, None, DRIVER, Chromedriver(DRIVER)),
        ({}, None, None, Container(DEFAULT_IMAGE)),
    ],
)
def test_the_browser_is_chosen_by_who_knows_best(
    settings: dict[str, str], release_image: str | None, chromedriver: str | None, choice: Choice
) -> None:
    """A URL beats a pinned image, the release's pin the machine's, a pin the local browser, that the default image."""
    assert choose(Browser.model_validate(settings), release_image, chromedriver) == choice


def test_the_default_image_is_pinned_by_a_full_tag() -> None:
    """A tag that moves would change the browser of a release that nobody touched."""
    assert DEFAULT_IMAGE.count(":") == 1
    version, _, day = DEFAULT_IMAGE.rpartition(":")[2].partition("-")
    assert [part.isdecimal() for part in (*version.split("."), day)] == [True] * 4


def test_a_chromedriver_is_looked_for_on_the_path_of_the_environment(chromedriver: str) -> None:
    """The PATH that is given decides, not the one of this process."""
    folder = chromedriver.rpartition("/")[0]
    assert find_chromedriver({"PATH": folder}) == chromedriver
    assert find_chromedriver({"PATH": "/nonexistent"}) is None
