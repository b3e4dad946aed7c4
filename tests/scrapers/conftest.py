"""The demo site, a chromedriver and the scrapers' environment, shared by the tests of this folder."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.parts.demo_site import SCRAPERS, DemoSite, serving_demo
from tests.parts.missing import program
from tests.parts.ports import free_port
from tests.parts.program import Program
from tests.parts.webdriver import is_ready
from tests.scrapers.jobs import JobProcess, install_environment

# A release's root is on the path of its jobs; the kit's own tests import it the same way.
sys.path.insert(0, str(SCRAPERS))

StartJob = Callable[..., JobProcess]


@pytest.fixture(scope="session")
def job_python() -> Path:
    """The Python of the scrapers' locked environment."""
    return install_environment()


@pytest.fixture(scope="session")
def demo_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoSite]:
    """The demo site on a free port."""
    with serving_demo(tmp_path_factory.mktemp("demo-site")) as site:
        yield site


@contextmanager
def running_chromedriver(folder: Path) -> Iterator[tuple[str, Program]]:
    """A chromedriver of one's own: its address and its process."""
    port = free_port()
    command = [program("chromedriver"), f"--port={port}"]
    driver = Program(command, log=folder / "chromedriver.log")
    url = f"http://127.0.0.1:{port}"
    with driver.serving(lambda: is_ready(url), seconds=60):
        yield url, driver


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

    def start(job: str | Path, *arguments: str, **environ: str) -> JobProcess:
        what = ["-m", f"scrapers.{job}"] if isinstance(job, str) else [str(job)]
        process = JobProcess(tmp_path, [str(job_python), *what, *arguments], environ)
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
