"""What each kind of browser can do. The supervisor decides when to do it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["container", "chromedriver", "remote"]

HOST = "host.docker.internal"
"""The name under which a browser in a container reaches this machine; elsewhere it is `127.0.0.1`."""

WATCH = "MAYFLY_WATCH"
"""Set if a person watches the browser (`mayfly rerun --watch`): a job that knows it asks for a window."""


@dataclass(frozen=True, slots=True)
class Place:
    """A run's folders for its browser.

    Attributes:
        run_id: The run, by which leftovers are found.
        folder: For the browser's own files; they may be deleted when the browser has stopped.
        downloads: Has a folder for each job that shares it with the browser; see `open_to_browser`. No other user may
            reach it.
    """

    run_id: str
    folder: Path
    downloads: Path

    def make_downloads(self) -> None:
        """Create `downloads`; the browser may reach what is in it, and neither rename nor replace it.

        Raises:
            OSError: It could not be made.
        """
        self.downloads.mkdir(parents=True, exist_ok=True)
        self.downloads.chmod(0o755)


class Backend:
    """A kind of browser. What it does not say of itself is so for one that somebody else runs.

    Attributes:
        kind: Its name in the manifest.
        url: Its WebDriver URL: known once it has been started, and the same after every restart.
        shares_downloads: Whether a folder in `Place.downloads` is the same folder for a job and for the browser.
        preparation: Seconds that `prepare` may take.
        image: The container's image; None for another kind.
        digest: The image's digest, as soon as it is known.
    """

    kind: Kind
    url = ""
    shares_downloads = True
    preparation = 0.0
    image: str | None = None
    digest: str | None = None

    async def prepare(self) -> None:
        """Fetch what is missing before it can be started.

        Raises:
            BrowserError: It is not available; an immediate retry would not help.
        """

    async def start(self) -> None:
        """Launch it, or launch it again after `stop`; it may not be ready yet.

        Raises:
            BrowserDied: It ended at once; it may live longer the next time.
            BrowserError: It could not be launched.
            OSError: The disk does not take its folders.
        """

    async def running(self) -> bool:
        """Tell whether it exists. False is certain; one that hangs still exists, and of another's only answers tell."""
        return True

    async def last_words(self) -> str:
        """Return the end of its output, on one line; empty if it is unknown."""
        return ""

    async def stop(self) -> None:
        """End it and everything that it started. Bounded, never raises, may be called at any time and again."""


def open_to_browser(folder: Path) -> None:
    """Create a folder, below `Place.downloads`, in which job and browser may both write, read and delete.

    In a container the browser is another user (1200:1201 in the Selenium images), so the mode lets everyone in; the
    run's own folder above it keeps other users out.

    Raises:
        OSError: It could not be made, or something else has its name, be it a link.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, 0o777)
    finally:
        os.close(descriptor)
