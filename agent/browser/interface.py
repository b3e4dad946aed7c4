"""What one kind of browser does: be started, be looked at, be ended. When to do which is the keeper's business."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Kind = Literal["container", "chromedriver", "remote"]

HOST = "host.docker.internal"
"""The name under which a browser in a container reaches this machine; elsewhere it is `127.0.0.1`."""

WATCH = "MAYFLY_WATCH"
"""Set where a person watches the browser (`mayfly rerun --watch`): who heeds it asks for no headless one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the manifest says of a browser besides its name.

    Attributes:
        image: The container's image.
        digest: What that image really was.
    """

    image: str | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps its browser.

    Attributes:
        run_id: The run, by which leftovers are found.
        folder: For the browser's own files; what is in it may be deleted when the browser has stopped.
        downloads: Where browser and jobs meet; see `open_to_browser`. No other user may reach it.
    """

    run_id: str
    folder: Path
    downloads: Path


class Backend(Protocol):
    """A kind of browser. It judges nothing: a caller decides when it is started, given up and started again."""

    @property
    def kind(self) -> Kind:
        """Its name in the manifest."""

    @property
    def url(self) -> str:
        """Its WebDriver URL: known once it has been started, and the same after every restart."""

    @property
    def shares_downloads(self) -> bool:
        """Whether a folder in `Place.downloads` is the same folder for a job and for the browser."""

    @property
    def preparation(self) -> float:
        """Seconds that `prepare` may take."""

    async def prepare(self) -> None:
        """Fetch what is missing before it can be started.

        Raises:
            BrowserError: It cannot be had; trying again at once is of no use.
        """

    async def start(self) -> None:
        """Launch it, or launch it again after `stop`; that it is ready takes longer.

        Raises:
            BrowserDied: It ended at once; it may live longer the next time.
            BrowserError: It could not be launched.
        """

    async def running(self) -> bool:
        """Tell whether it is there. False is certain; one that hangs is still there."""

    async def last_words(self) -> str:
        """Return the end of what it wrote, on one line; empty when it is not known."""

    async def stop(self) -> None:
        """End it and all that it started. Bounded, never raises, may be called at any time and again."""

    def describe(self) -> Facts:
        """Return what is known of it."""


def open_to_browser(folder: Path) -> None:
    """Create a folder, below `Place.downloads`, in which job and browser may both write, read and delete.

    In a container the browser is another user (1200:1201 in the Selenium images), so the mode lets everyone in; what
    keeps strangers out is the run's own folder above it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
