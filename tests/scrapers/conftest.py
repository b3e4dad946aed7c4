"""The demo site, a chromedriver and the scrapers' environment, shared by the tests of this folder."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from tests.parts.missing import program
from tests.parts.ports import free_port
from tests.parts.program import Program
from tests.parts.webdriver import is_ready
from tests.scrapers.jobs import SCRAPERS, JobProcess, install_environment

# A release's root is on the path of its jobs; the kit's own tests import it the same way.
sys.path.insert(0, str(SCRAPERS))

StartJob = Callable[..., JobProcess]


@dataclass(frozen=True, slots=True)
class DemoSite:
    """The running demo site: its address, without a slash at the end, and its log of requests."""

    url: str
    program: Program

    @property
    def requests(self) -> list[str]:
        """The requests so far, as `GET /path`."""
        return re.findall(r'"(\S+ \S+) HTTP/', self.program.log.read_text())


@pytest.fixture(scope="session")
def job_python() -> Path:
    """The Python of the scrapers' locked environment."""
    return install_environment()


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSite]:
    """The demo site on a free port."""
    log = tmp_path_factory.mktemp("demo-site") / "log"
    site = Program(
        [sys.executable, "-m", "demo_site", "--port", "0"],
        log=log,
        environ={"PYTHONPATH": str(SCRAPERS)},
    )
    site.start(lambda: "listening on " in log.read_text(), seconds=10)
    found = re.search(r"listening on (http://127\.0\.0\.1:\d+)/\n", log.read_text())
    assert found is not None
    yield DemoSite(found.group(1), site)
    site.stop()


@contextmanager
def running_chromedriver(folder: Path) -> Iterator[tuple[str, Program]]:
    """A chromedriver of one's own: its address and its process."""
    path = program("chromedriver")
    port = free_port()
    driver = Program([path, f"--port={port}"], log=folder / "chromedriver.log")
    url = f"http://127.0.0.1:{port}"
    driver.start(lambda: is_ready(url), seconds=20)
    try:
        yield url, driver
    finally:
        driver.stop()


@pytest.fixture(scope="session")
def webdriver_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a chromedriver that all tests share."""
    with running_chromedriver(tmp_path_factory.mktemp("chromedriver")) as (url, _):
        yield url


@pytest.fixture
def own_chromedriver(tmp_path: Path) -> Iterator[tuple[str, Program]]:
    """A chromedriver that this test may kill."""
    with running_chromedriver(tmp_path) as running:
        yield running


@pytest.fixture
def start_job(tmp_path: Path, job_python: Path) -> Iterator[StartJob]:
    """Start a job's module, or a script, with more environment: `start_job("quotes", SCRAPE_BASE_URL=...)`."""
    started: list[JobProcess] = []

    def start(
        job: str | Path, *arguments: str, folder: Path = tmp_path, **environ: str
    ) -> JobProcess:
        what = ["-m", f"scrapers.{job}"] if isinstance(job, str) else [str(job)]
        process = JobProcess(folder, [str(job_python), *what, *arguments], environ)
        started.append(process)
        return process

    yield start
    for process in started:
        process.process.kill()
        process.process.wait(10)


@pytest.fixture(scope="session")
def closed_port() -> str:
    """An address where nothing listens."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(requests.ConnectionError):
        requests.get(url, timeout=5)
    return url
