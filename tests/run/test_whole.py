"""The main job on real input: the scrapers' release, a real browser of each kind, each kind of bucket."""

import json
import os
import re
import sys
from pathlib import Path

import pytest
from frictionless import validate

from tests.bucket.bucket import Bucket, Run
from tests.parts.command import completed
from tests.parts.demo_site import SCRAPERS, DemoSite, serving_demo
from tests.parts.docker_engine import DockerEngine
from tests.parts.recorder import Recorder
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench, Ran, finish, job

RELEASED = ("jobs.toml", "pyproject.toml", "uv.lock", "scrapers/**/*.py")
SITE = "http://127.0.0.1:8787"
FILES = {
    "quotes/quotes.jsonl",
    "quotes/summary.md",
    "notes/notes.jsonl",
    "notes/digest.md",
    "reports/water-temperature.csv",
    "reports/evening sightings 2026.csv",
    "reports/visitors by lamp.csv",
    "reports/川の記録 十一月.csv",
}


def release(repo: Repo, site: DemoSite) -> None:
    """Publish the scrapers as they are, to scrape `site`."""
    paths = [path for pattern in RELEASED for path in SCRAPERS.glob(pattern)]
    files = {path.relative_to(SCRAPERS).as_posix(): path.read_text("utf-8") for path in paths}
    files["jobs.toml"] = files["jobs.toml"].replace(SITE, site.url)
    repo.release("v1.0.0", files)


def check_delivered(bench: Bench, ran: Ran, run: Run, kind: str) -> None:
    """Assert that every file of the three jobs arrived and verifies, and that a browser of `kind` was used."""
    assert ran.code == 0, ran.stderr[-3000:]
    assert run.results == FILES
    assert run.record["browser"]["kind"] == kind
    verified = bench.at_home("verify", ran.run_id)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    status = json.loads(bench.at_home("status", "--json").stdout)
    assert ran.run_id in json.dumps(status)


def test_the_scrapers_run_in_a_container_and_arrive_in_s3(
    bench: Bench,
    docker_engine: DockerEngine,
    selenium_image: str,
    s3_server: S3Server,
    s3_bucket: str,
) -> None:
    """Release from git, the Selenium Grid in Docker, three jobs, S3: the run of the machine, all of it real."""
    bench.with_browser()
    bench.environ |= docker_engine.environ
    bench.deliver_to(Bucket.on_s3(s3_server, s3_bucket))
    with serving_demo(bench.folder, docker_engine.gateway()) as site:
        release(bench.repo, site)
        ran = bench.run(browser__image=selenium_image)
    run = bench.bucket.run(ran.run_id)
    check_delivered(bench, ran, run, "container")
    record = run.record
    assert record["browser"]["image"] == selenium_image
    assert {phase["name"] for phase in record["phases"]} >= {"release", "jobs"}
    assert ran.run_id.lower() not in docker_engine.docker("ps", "--all").stdout


@pytest.mark.long
def test_the_scrapers_run_on_a_grid_that_somebody_else_runs(
    bench: Bench, bucket: Bucket, grid_url: str
) -> None:
    """With a URL, nothing is started, and downloads come through the Grid because no disk is shared."""
    with serving_demo(bench.folder) as site:
        release(bench.repo, site)
        ran = bench.run(browser__url=grid_url)
    check_delivered(bench, ran, bucket.run(ran.run_id), "remote")


def test_a_browser_that_dies_mid_run_costs_one_attempt(
    bench: Bench, bucket: Bucket, docker_engine: DockerEngine, selenium_image: str
) -> None:
    """The container is killed while a job uses it: it comes back, the job is tried again, and the manifest says so."""
    bench.with_browser()
    bench.environ |= docker_engine.environ
    # The first attempt ends when its browser does, as a WebDriver client would.
    script = """
        if [ "$MAYFLY_ATTEMPT" = 1 ]; then
            echo using
            while curl -sf "$MAYFLY_WEBDRIVER_URL/status" > /dev/null; do sleep 0.2; done
            exit 1
        fi
        echo done > "$MAYFLY_OUTPUT_DIR/file"
    """
    browsing = job("browsing", ["sh", "browse.sh"], browser=True)
    bench.release("v1", browsing, {"browse.sh": script})
    with bench.running(browser__image=selenium_image) as process:
        bench.log.wait_for("job.output", line="using")
        (run_id,) = (event["run_id"] for event in bench.log.events("run.started"))
        # Others use the engine as well.
        (ours,) = docker_engine.do("ps", "--quiet", f"--filter=label=mayfly.run={run_id}").split()
        docker_engine.do("kill", ours)
        ran = finish(process, code=0)
    run = bucket.run(ran.run_id)
    causes = [attempt.get("cause") for attempt in run.job("browsing")["attempts"]]
    assert (causes, run.record["browser"]["restarts"]) == (["browser", None], 1)


def test_the_demo_shows_what_a_person_wants_to_see(tmp_path: Path) -> None:
    """A table of jobs, files, bytes and time, and where the manifest is, which an independent reader accepts."""
    environ = {**os.environ, "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "agent", "demo", "--dir", str(tmp_path / "demo")]
    done = completed(command, environ=environ)
    assert done.returncode == 0, done.stderr[-3000:]
    for words in (r"quotes +ok +2 ", r"reports +ok +4 ", r"notes +ok +2 ", r"total +8 "):
        assert re.search(words, done.stdout), done.stdout
    found = re.search(r"manifest file://(\S+datapackage\.json)", done.stdout)
    assert found is not None
    report = validate(found.group(1))
    assert report.valid, report.flatten(["name", "type", "note"])
    again = completed([*command, "--json"], environ=environ)
    outcome = json.loads(again.stdout)
    assert outcome["status"] == "succeeded"
    messages = {each["name"]: each["message"] for each in outcome["jobs"]}
    assert messages["quotes"] == "0 of 48 are new"


@pytest.mark.long
def test_a_watchdog_that_is_broken_fails_no_run(bench: Bench, recorder: Recorder) -> None:
    """It changes nothing, pings carry the exit code all the same, and no log has their address."""
    recorder.status = 500
    bench.release("v1", job("failing", "exit 3"))
    ran = bench.run(code=8, notify__healthchecks=f"{recorder.url}/ping/0aa5b0f5-canary")
    paths = [seen.path.split("?")[0] for seen in recorder.requests]
    assert paths[0] == "/ping/0aa5b0f5-canary/start"
    assert paths[-1] == "/ping/0aa5b0f5-canary/8"
    assert "0aa5b0f5-canary" not in ran.stderr
