import json
import signal
import time
from pathlib import Path

import psutil
import pytest
import requests

from tests.parts.demo_site import DemoSite
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.program import Program
from tests.parts.stalled import silent
from tests.parts.waiting import wait_until
from tests.scrapers.conftest import StartJob
from tests.scrapers.jobs import Ended, JobProcess

DEADLINE_SECONDS = 20.0
"""A busy machine needs some of them to open a browser."""
EVIDENCE = {".evidence/screenshot.png", ".evidence/page.html", ".evidence/console.log"}


@pytest.fixture(scope="module")
def at_faulty_sites(
    tmp_path_factory: pytest.TempPathFactory,
    job_python: Path,
    demo_site: DemoSite,
    webdriver_url: str,
) -> dict[tuple[str, str], Ended]:
    """Jobs at the demo site's faults, all at once: each waits ten seconds for what will not come."""
    started = {}
    for fault in ("broken", "blocked", "captcha", "down"):
        for job in ("quotes", "reports") if fault == "broken" else ("quotes",):
            environ = {
                "MAYFLY_WEBDRIVER_URL": webdriver_url,
                "SCRAPE_BASE_URL": f"{demo_site.url}/{fault}",
            }
            command = [str(job_python), "-m", f"scrapers.{job}"]
            started[job, fault] = JobProcess(
                tmp_path_factory.mktemp(f"{job}-{fault}"), command, environ
            )
    return {key: process.ended() for key, process in started.items()}


@pytest.mark.parametrize(
    ("job", "fault", "cause", "code"),
    [
        ("quotes", "broken", "page_changed", 1),
        ("reports", "broken", "page_changed", 1),
        ("quotes", "blocked", "blocked", 1),
        ("quotes", "captcha", "blocked", 1),
        ("quotes", "down", "site_unreachable", 75),
    ],
)
def test_faulty_page_is_told_and_shown(
    at_faulty_sites: dict[tuple[str, str], Ended], job: str, fault: str, cause: str, code: int
) -> None:
    """The result names cause, address and title; the evidence is there and no result is."""
    ended = at_faulty_sites[job, fault]
    assert (ended.code, ended.result["cause"]) == (code, cause), ended.log
    assert f"/{fault}/{job}" in ended.result["message"]
    assert f"({job}.py, line" in ended.result["message"]
    assert ended.files == EVIDENCE
    assert (ended.output / ".evidence/screenshot.png").read_bytes().startswith(b"\x89PNG")
    assert "</html>" in (ended.output / ".evidence/page.html").read_text("utf-8")


def test_evidence_has_the_page_as_it_was(at_faulty_sites: dict[tuple[str, str], Ended]) -> None:
    """The saved page is the one scripts made, and the console's lines are JSON."""
    evidence = at_faulty_sites["quotes", "broken"].output / ".evidence"
    assert '<blockquote class="card saying">' in (evidence / "page.html").read_text("utf-8")
    lines = [
        json.loads(line) for line in (evidence / "console.log").read_text("utf-8").splitlines()
    ]
    assert any("the redesign is not finished" in line["message"] for line in lines)


@pytest.mark.parametrize(
    ("job", "site", "browser", "cause", "code"),
    [
        # A job without a browser tells the same causes from HTTP alone.
        ("notes", "blocked", "running", "blocked", 1),
        ("notes", "captcha", "running", "page_changed", 1),
        ("notes", "down", "running", "site_unreachable", 75),
        ("notes", "closed", "running", "site_unreachable", 75),
        ("quotes", "closed", "running", "site_unreachable", 75),
        # An endpoint that does not answer, or is not given, is not the page's fault.
        ("quotes", "closed", "closed", "browser", 75),
        ("quotes", "closed", "unset", "browser", 75),
    ],
)
def test_what_cannot_be_reached_is_told(  # noqa: PLR0917 -- a row of the table
    start_job: StartJob,
    demo_site: DemoSite,
    webdriver_url: str,
    closed_port: str,
    job: str,
    site: str,
    browser: str,
    cause: str,
    code: int,
) -> None:
    """The cause is the site's or the browser's, a retry is asked for where it may help, and no result is left."""
    shown = EVIDENCE if (job, browser) == ("quotes", "running") else set()
    url = closed_port if site == "closed" else f"{demo_site.url}/{site}"
    endpoint = {"running": webdriver_url, "closed": closed_port, "unset": ""}[browser]
    ended = start_job(job, MAYFLY_WEBDRIVER_URL=endpoint, SCRAPE_BASE_URL=url).ended()
    assert (ended.code, ended.result["cause"]) == (code, cause), ended.log
    assert ended.files <= shown


def begin_slow_quotes(
    start_job: StartJob, demo_site: DemoSite, url: str, **environ: str
) -> JobProcess:
    """Start the quotes job at the slow site, and return when it has asked for its second page."""
    before = len(demo_site.requests)
    job = start_job(
        "quotes", MAYFLY_WEBDRIVER_URL=url, SCRAPE_BASE_URL=f"{demo_site.url}/slow", **environ
    )
    second = "GET /slow/api/quotes?page=2"
    wait_until(lambda: second in demo_site.requests[before:], what="the second page")
    return job


@pytest.mark.parametrize("victim", ["chromedriver", "browser"])
def test_browser_that_dies_is_told(
    start_job: StartJob, demo_site: DemoSite, own_chromedriver: tuple[str, Program], victim: str
) -> None:
    """A killed driver or browser ends the job soon, as the browser's fault, and asks for a retry."""
    url, driver = own_chromedriver
    job = begin_slow_quotes(start_job, demo_site, url)
    if victim == "chromedriver":
        driver.kill()
    else:
        for child in psutil.Process(driver.pid).children():
            child.kill()
    ended = job.ended()
    assert (ended.code, ended.result["cause"]) == (75, "browser"), ended.log
    assert "quotes.jsonl" not in ended.files


def test_sigterm_keeps_what_is_collected(
    start_job: StartJob, demo_site: DemoSite, own_chromedriver: tuple[str, Program]
) -> None:
    """A job that is told to stop ends its file, closes its browser and says that it was interrupted."""
    url, driver = own_chromedriver
    job = begin_slow_quotes(start_job, demo_site, url)
    job.process.send_signal(signal.SIGTERM)
    ended = job.ended()
    assert (ended.code, ended.result["cause"]) == (143, "interrupted"), ended.log
    assert ended.files == {"quotes.jsonl"}
    assert len(ended.rows("quotes.jsonl")) >= 6
    wait_until(lambda: not psutil.Process(driver.pid).children(), what="the browser to close")


def test_deadline_keeps_what_is_collected(
    start_job: StartJob, demo_site: DemoSite, webdriver_url: str
) -> None:
    """A job ends by itself before its deadline, as a time-out, with the rows it has."""
    deadline = time.time() + DEADLINE_SECONDS
    with LoopbackHttp(_SlowPages, owner=demo_site) as site:
        ended = start_job(
            "quotes",
            MAYFLY_WEBDRIVER_URL=webdriver_url,
            SCRAPE_BASE_URL=site.url,
            MAYFLY_DEADLINE=str(deadline),
        ).ended()
    assert (ended.code, ended.result["cause"]) == (1, "timeout"), ended.log
    assert "quotes.jsonl" in ended.files
    assert "summary.md" not in ended.files


class _SlowPages(QuietHandler):
    """The demo site, whose three further pages take so long that the last does not come before the deadline.

    None takes the ten seconds after which a job calls a page changed.
    """

    owner: DemoSite

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        if "api/quotes?page=" in self.path and not self.path.endswith("=1"):
            time.sleep(0.3 * DEADLINE_SECONDS)
        answer = requests.get(f"{self.owner.url}{self.path}", timeout=60)
        kind = {"Content-Type": answer.headers["Content-Type"]}
        self.answer(answer.status_code, answer.content, kind)


@pytest.mark.parametrize("job", ["quotes", "notes"])
def test_silent_site_does_not_outlast_the_deadline(
    start_job: StartJob, own_chromedriver: tuple[str, Program], job: str
) -> None:
    """A page that never answers is given up in time, with and without a browser."""
    environ = {"MAYFLY_WEBDRIVER_URL": own_chromedriver[0], "MAYFLY_DEADLINE": str(time.time() + 5)}
    with silent() as address:
        ended = start_job(job, SCRAPE_BASE_URL=f"http://{address}", **environ).ended()
    assert (ended.code, ended.result["cause"]) == (1, "timeout"), ended.log


PASSWORD_JOB = """
from selenium.webdriver.common.by import By
from scrapers.kit import Result, browser_session, run_job

PAGE = "data:text/html,<title>Sign in</title><input type=password oninput=\\"this.setAttribute('value', this.value)\\">"

def main(job):
    with browser_session(job) as driver:
        driver.get(PAGE)
        field = driver.find_element(By.CSS_SELECTOR, "input")
        field.send_keys("canary-horse-battery")
        assert field.get_dom_attribute("value") == "canary-horse-battery"
        driver.find_element(By.ID, "account")
    return Result(items=0)

run_job(main)
"""


def test_typed_password_is_not_in_the_evidence(
    start_job: StartJob, webdriver_url: str, tmp_path: Path
) -> None:
    """Even a page that copies what is typed into its source does not bring a password into the evidence."""
    ended = run_script(start_job, tmp_path, PASSWORD_JOB, webdriver_url)
    assert (ended.code, ended.result["cause"]) == (1, "page_changed"), ended.log
    assert ended.files == EVIDENCE
    assert '<input type="password"' in (ended.output / ".evidence/page.html").read_text("utf-8")
    for path in (ended.output / ".evidence").iterdir():
        assert b"canary-horse-battery" not in path.read_bytes()
    assert "canary-horse-battery" not in ended.log


DOWNLOAD_JOB = """
from selenium.webdriver.common.by import By
from scrapers.kit import Downloads, Result, browser_session, run_job

def main(job):
    with browser_session(job, downloads=True) as driver:
        driver.get("data:text/html,<title>Files</title><a {link}>get it</a>")
        Downloads(job, driver, seconds={seconds}).save(driver.find_element(By.CSS_SELECTOR, "a").click)
    return Result(items=1)

run_job(main)
"""


class HalfAFile(QuietHandler):
    """Begins a download and never ends it."""

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        """Send less than was promised, and wait for the visitor to give up."""
        self.send_response(200)
        self.send_header("Content-Type", "text/csv")
        self.send_header("Content-Disposition", "attachment; filename=half.csv")
        self.send_header("Content-Length", "1000000")
        self.end_headers()
        self.wfile.write(b"1,2\r\n")
        self.wfile.flush()
        self.connection.settimeout(30)
        self.rfile.read(1)


@pytest.mark.parametrize(
    ("link", "seconds", "cause", "code", "message"),
    [
        ("#", 2, "page_changed", 1, "no download began in 2 s"),
        # On a busy machine a download does not begin at once.
        ("half.csv", 8, "site_unreachable", 75, "did not end"),
    ],
)
def test_a_download_that_does_not_come_is_told(  # noqa: PLR0917 -- a row of the table
    start_job: StartJob,
    webdriver_url: str,
    tmp_path: Path,
    link: str,
    seconds: int,
    cause: str,
    code: int,
    message: str,
) -> None:
    """A click after which no file appears ends in time; half a file is never taken for a whole one."""
    with LoopbackHttp(HalfAFile) as server:
        target = "%23" if link == "#" else f"{server.url}/{link}"
        source = DOWNLOAD_JOB.format(link=f"href='{target}'", seconds=seconds)
        ended = run_script(start_job, tmp_path, source, webdriver_url)
    assert (ended.code, ended.result["cause"]) == (code, cause), ended.log
    assert message in ended.result["message"]
    assert ended.files == EVIDENCE


def run_script(start_job: StartJob, tmp_path: Path, source: str, webdriver_url: str) -> Ended:
    """Run an author's one-file job."""
    script = tmp_path / "job.py"
    script.write_text(source)
    return start_job(script, MAYFLY_WEBDRIVER_URL=webdriver_url, PYTHONPATH=".").ended()
