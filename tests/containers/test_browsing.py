"""Scrapers that were written for a Grid beside them: as programs, in a container, in their own stack; unchanged."""

import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.cache import one_at_a_time
from tests.parts.docker_engine import DockerEngine
from tests.parts.missing import program
from tests.run.bench import Bench, finish, job

SCRAPER = """
import os, sys
from pathlib import Path
from selenium import webdriver

options = webdriver.ChromeOptions()
address = sys.argv[1] if len(sys.argv) > 1 else os.environ["MAYFLY_WEBDRIVER_URL"]
driver = webdriver.Remote(address, options=options)
try:
    driver.get("data:text/html,<title>scraped</title>")
    Path(os.environ["MAYFLY_OUTPUT_DIR"], "title.txt").write_text(driver.title)
finally:
    driver.quit()
"""


def jobs() -> str:
    """Three scrapers: one that reads its environment, and two with the address in their code."""
    python = sys.executable
    return f"""
        [[job]]
        name = "reads"
        command = ["{python}", "scraper.py"]
        browser = true

        [[job]]
        name = "localhost"
        command = ["{python}", "scraper.py", "http://localhost:4444/wd/hub"]
        browser = true

        [[job]]
        name = "selenium"
        command = ["unshare", "--mount", "sh", "named.sh", "{python}", "scraper.py", "http://selenium:4444"]
        browser = true
    """


FILES = {
    "scraper.py": SCRAPER,
    "named.sh": 'mount --bind hosts /etc/hosts\nexec "$@"\n',
    "hosts": "127.0.0.1 localhost selenium\n",
}


@pytest.fixture(params=["chromedriver", "container"])
def browsing(bench: Bench, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A computer with a browser of each kind."""
    program("unshare")
    bench.with_browser()
    # Chromium puts a socket into the run's folder, whose path must be short.
    place = Path(tempfile.mkdtemp(dir="/tmp", prefix="mayfly-"))
    bench.settings["paths.state"] = str(place)
    if request.param == "container":
        engine: DockerEngine = request.getfixturevalue("docker_engine")
        bench.environ |= engine.environ
        bench.settings["browser.image"] = request.getfixturevalue("selenium_image")
        bench.settings["browser.shared_memory"] = "512MiB"
    else:
        program("chromedriver")
    yield bench
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def at_4444(browsing: Bench) -> Iterator[Bench]:
    """The same, with the browser at the usual port, of which a machine has one."""
    browsing.settings["browser.port"] = "4444"
    with one_at_a_time("port-4444"):
        yield browsing


def test_addresses_in_the_code_work_beside_the_environment(at_4444: Bench, bucket: Bucket) -> None:
    """`localhost:4444/wd/hub` and `selenium:4444` reach the run's browser, whichever kind it is."""
    at_4444.release("v1", jobs(), FILES)
    ran = at_4444.run()
    assert ran.code == 0, ran.stderr
    files = bucket.run(ran.run_id).files
    for name in ("reads", "localhost", "selenium"):
        assert files[f"{name}/title.txt"] == b"scraped"
    assert ran.outcome["warnings"] == []


def test_a_port_that_is_taken_is_a_warning(bench: Bench, bucket: Bucket) -> None:
    """Jobs that read their environment do not need it."""
    program("chromedriver")
    bench.with_browser()
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        only = jobs().split("[[job]]")[1]
        bench.release("v1", f"[[job]]{only}", FILES)
        ran = bench.run(browser__port=str(port))
    assert ran.code == 0, ran.stderr
    (warning,) = bucket.run(ran.run_id).record["warnings"]
    assert warning.startswith(f"the browser is not at http://localhost:{port}")
    assert "in use" in warning


OPENS = """
    set -e
    session() { wget -q -O - --header 'Content-Type: application/json; charset=utf-8' --post-data "$2" $1/session; }
    session BASE '{"capabilities": {"alwaysMatch": {"browserName": "chrome"}}}' > OUT/session.json
"""


def test_a_container_reaches_the_run_s_browser_and_no_other_one(
    browsing: Bench, bucket: Bucket, docker_engine: DockerEngine, busybox: str
) -> None:
    """By its environment and by the address in its code; a container that did not ask for a browser by neither."""
    browsing.environ |= docker_engine.environ
    opens = OPENS.replace("OUT", "$MAYFLY_OUTPUT_DIR")
    by_name = opens.replace("BASE", "http://selenium:4444/wd/hub")
    by_environment = opens.replace("BASE", "$MAYFLY_WEBDRIVER_URL")
    downloads = "ls -d $MAYFLY_DOWNLOADS_DIR; touch $MAYFLY_DOWNLOADS_DIR/x"
    text = job("a", by_name + downloads, image=busybox, browser=True)
    text += job("b", by_environment, image=busybox, browser=True)
    text += job("c", "wget -q -O - http://selenium:4444/status", image=busybox)
    browsing.release("v1", text)
    ran = browsing.run()
    files = bucket.run(ran.run_id).files
    assert b'"sessionId"' in files["a/session.json"], ran.stderr
    assert b'"sessionId"' in files["b/session.json"]
    assert [ran.job(name)["status"] for name in "abc"] == ["succeeded", "succeeded", "failed"]


def test_a_container_of_another_network_gets_no_answer(
    browsing: Bench, docker_engine: DockerEngine, busybox: str
) -> None:
    """It reaches the address at which the machine offers a job the browser; the job alone is answered there."""
    browsing.environ |= docker_engine.environ
    own = "wget -q -O - http://selenium:4444/status && echo && grep selenium /etc/hosts; echo ready; sleep 300"
    browsing.release("v1", job("a", own, image=busybox, browser=True))
    with browsing.running() as process:
        browsing.log.wait_for("job.output", line="ready", seconds=120)
        lines = [str(event["line"]) for event in browsing.log.events("job.output")]
        gateway = next(line.split()[0] for line in lines if line.endswith("\tselenium"))
        status = f"http://{gateway}:4444/status"
        other = docker_engine.docker("run", "--rm", busybox, "wget", "-O", "-", status)
        process.send_signal(signal.SIGTERM)
        finish(process)
    assert (other.returncode, other.stdout) == (1, ""), other.stderr
    assert "reset" in other.stderr or "getting response" in other.stderr, other.stderr


SEED = """
version: "3"
services:
  python-scripts:
    image: {busybox}
    env_file: .env
    environment:
      TZ: Asia/Tokyo
    volumes:
      - ./data:/data
    depends_on:
      - selenium
    command: ["sh", "scrape.sh"]
    working_dir: /scripts
  selenium:
    image: {selenium}
    ports:
      - "4444:4444"
    volumes:
      - /dev/shm:/dev/shm
"""
SCRAPE = """
set -e
until wget -q -O - http://selenium:4444/wd/hub/status | tee /tmp/status | grep -q '"ready": true'; do sleep 1; done
"""


def test_the_seed_stack_drives_its_own_browser(
    compose_yard: Bench, bucket: Bucket, selenium_image: str, busybox: str
) -> None:
    """A batch service beside `selenium/standalone-chrome`, from the file as it was on the old server."""
    script = SCRAPE + OPENS.replace("BASE", "http://selenium:4444/wd/hub").replace("OUT", "/data")
    stack = SEED.format(busybox=busybox, selenium=selenium_image).replace(
        "- ./data:/data", "- ./data:/data\n      - ./scripts:/scripts"
    )
    text = """
        [[job]]
        name = "legacy"
        compose = "compose.yml"
        service = "python-scripts"
        output = "/data"
        env = { SHOP = "north" }
    """
    compose_yard.release("v1", text, {"compose.yml": stack, "scripts/scrape.sh": script})
    ran = compose_yard.run()
    assert ran.code == 0, ran.stderr
    assert b'"sessionId"' in bucket.run(ran.run_id).files["legacy/session.json"]
