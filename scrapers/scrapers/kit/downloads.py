"""Files that a click makes the browser download, wherever the browser runs."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scrapers.kit.causes import Cause, JobFailure
from scrapers.kit.job import Job
from scrapers.kit.output import keep_file

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

DOWNLOAD_SECONDS = 120.0
POLL_SECONDS = 0.1

_UNFINISHED = (".crdownload", ".part", ".tmp")


class _Folder:
    """A folder that job and browser share."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def sizes(self) -> Mapping[str, int]:
        """Return the size of every file that is there, by name."""
        found = {}
        for path in self._folder.iterdir():
            try:
                found[path.name] = path.stat().st_size
            except FileNotFoundError:  # renamed by the browser between the two calls
                continue
        return found

    def take(self, name: str, target: Path) -> None:
        """Move a finished file to `target`."""
        keep_file(self._folder / name, target)


class _Managed:
    """The Grid's own store of a session's downloads, for a browser on another machine: sizes are unknown, so -1."""

    def __init__(self, driver: "WebDriver", scratch: Path) -> None:
        self._driver = driver
        self._scratch = scratch

    def sizes(self) -> Mapping[str, int]:
        return dict.fromkeys(self._driver.get_downloadable_files(), -1)

    def take(self, name: str, target: Path) -> None:
        folder = Path(tempfile.mkdtemp(prefix=".download-", dir=self._scratch))
        try:
            self._driver.download_file(name, str(folder))
            keep_file(folder / name, target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Downloads:
    """Downloads of one session: `Downloads(job, driver).save(button.click)` returns the file, in the output folder.

    The session must have been opened with `browser_session(job, downloads=True)`.
    """

    def __init__(self, job: Job, driver: "WebDriver", *, seconds: float = DOWNLOAD_SECONDS) -> None:
        job.output_dir.mkdir(parents=True, exist_ok=True)
        self._driver = driver
        self._output = job.output_dir
        self._seconds = seconds
        self._saved: set[str] = set()
        self._shelf: _Folder | _Managed = (
            _Folder(job.downloads_dir) if job.downloads_dir else _Managed(driver, job.output_dir)
        )

    def save(self, start: Callable[[], object]) -> Path:
        """Call `start`, wait for the one file it makes the browser download, and return it under its own name.

        Raises:
            JobFailure: Nothing came (`page_changed`), it never ended (`site_unreachable`), or its name is taken.
        """
        from selenium.common.exceptions import TimeoutException  # noqa: PLC0415
        from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

        before = set(self._shelf.sizes())
        seen: list[Mapping[str, int]] = [{}]

        def finished(_driver: object) -> str:
            new = {name: size for name, size in self._shelf.sizes().items() if name not in before}
            seen.append(new)
            return finished_download(seen[-2], new)

        start()
        try:
            wait = WebDriverWait(self._driver, self._seconds, poll_frequency=POLL_SECONDS)
            name = wait.until(finished)
        except TimeoutException as error:
            cause: Cause = "site_unreachable" if seen[-1] else "page_changed"
            what = "a download did not end" if seen[-1] else "no download began"
            raise JobFailure(cause, f"{what} in {self._seconds:.0f} s") from error
        if name in self._saved:
            raise JobFailure("error", f"two downloads are called {name!r}")
        self._saved.add(name)
        self._shelf.take(name, self._output / name)
        return self._output / name


def finished_download(earlier: Mapping[str, int], now: Mapping[str, int]) -> str:
    """Return the name of a file that has been downloaded, from two looks at what is new; empty while there is none.

    Chromium writes to a hidden or `.crdownload` file and reserves the final name with an empty one; so a file is
    finished when nothing unfinished is beside it and two looks agree.
    """
    if not now or now != earlier or any(_is_unfinished(name) for name in now):
        return ""
    return min(now)


def _is_unfinished(name: str) -> bool:
    return name.startswith(".") or name.endswith(_UNFINISHED)
