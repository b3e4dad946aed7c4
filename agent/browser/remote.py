"""A WebDriver or Grid endpoint that somebody else runs: there is nothing to start and nothing to stop."""

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
        """Fetch nothing."""

    async def start(self) -> None:
        """Launch nothing."""

    async def running(self) -> bool:
        """Return True: whether it answers is all that can be known from here, and the keeper looks at that."""
        return True

    async def last_words(self) -> str:
        """Return nothing: its log is elsewhere."""
        return ""

    async def stop(self) -> None:
        """End nothing."""

    def describe(self) -> Facts:
        """Return no facts."""
        return Facts()
