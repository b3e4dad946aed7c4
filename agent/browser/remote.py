"""A WebDriver or Grid endpoint that somebody else runs: it is neither started nor stopped."""

from typing import Literal

from agent.browser.interface import Facts


class RemoteBrowser:
    """A browser at a URL."""

    kind: Literal["remote"] = "remote"
    shares_downloads = False
    preparation = 0.0

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    async def prepare(self) -> None:
        """Nothing to fetch."""

    async def start(self) -> None:
        """Nothing to launch."""

    async def running(self) -> bool:
        """Return True: only its answers show more, and the supervisor polls those."""
        return True

    async def last_words(self) -> str:
        """Its log is elsewhere."""
        return ""

    async def stop(self) -> None:
        """Nothing to end."""

    def describe(self) -> Facts:
        """No facts."""
        return Facts()
