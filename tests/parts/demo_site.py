"""The demo site of this repository, which its scrapers scrape."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.parts.ports import LOOPBACK
from tests.parts.program import Program

SCRAPERS = Path(__file__).parents[2] / "scrapers"
START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class DemoSite:
    """The running site: its address, without a slash at the end, and its process."""

    url: str
    program: Program

    @property
    def requests(self) -> list[str]:
        """The requests so far, as `GET /path`."""
        return re.findall(r'"(\S+ \S+) HTTP/', self.program.log.read_text())


@contextmanager
def serving_demo(folder: Path, host: str = LOOPBACK) -> Iterator[DemoSite]:
    """Serve the site at an address of this machine; its log is in `folder`."""
    log = folder / "site.log"
    command = [sys.executable, "-m", "demo_site", "--host", host, "--port", "0"]
    site = Program(command, log=log, environ={"PYTHONPATH": str(SCRAPERS)})
    listening = re.compile(r"listening on (http://\S+:\d+)/\n")
    with site.serving(lambda: bool(listening.search(log.read_text())), seconds=START_SECONDS):
        yield DemoSite(listening.findall(log.read_text())[0], site)
