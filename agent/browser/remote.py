"""A WebDriver or Grid endpoint that somebody else runs: it is neither started nor stopped."""

from agent.browser.interface import Backend, Kind


class RemoteBrowser(Backend):
    """A browser at a URL."""

    kind: Kind = "remote"
    shares_downloads = False

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
