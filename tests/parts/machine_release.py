"""The scrapers that machines run in tests: this repository's own, against the demo site on the tests' machine."""

import json
import re
from pathlib import Path

from tests.parts.demo_site import SCRAPERS
from tests.parts.repo import Repo

GIT, STORE, SITE = "10.0.2.10:80", "10.0.2.11:80", "10.0.2.12:80"
"""Where a machine finds the tests' servers; it is built into the image."""

BROWSER_IMAGE = "mayfly.test/selenium/chromedriver:1"
"""Made by packer/disk/assemble.sh."""

BUCKET = "machine"
BAKED = "v1.0.0"

CONFIG = f"""\
[release]
repository = "http://{GIT.removesuffix(":80")}/scrapers.git"
timeout = "60s"
trust = "none"

[store]
url = "s3://{BUCKET}/prod"
endpoint = "http://{STORE.removesuffix(":80")}"
region = "us-east-1"

[browser]
image = "{BROWSER_IMAGE}"
sessions = 1
timeout = "4m"
shared_memory = "256MiB"

[limits]
run = "15m"
"""
"""The configuration of the image: the keys of the bucket come from the instance's role."""

QUOTES = f"""
[[job]]
name = "quotes"
command = ["python", "-m", "scrapers.quotes"]
browser = true
timeout = "8m"
env = {{ SCRAPE_BASE_URL = "http://{SITE.removesuffix(":80")}" }}
expect = {{ min_files = 2, min_items = 10 }}
"""

NOTES = f"""
[[job]]
name = "notes"
command = ["python", "-m", "scrapers.notes"]
timeout = "5m"
env = {{ SCRAPE_BASE_URL = "http://{SITE.removesuffix(":80")}" }}
expect = {{ min_files = 2, min_items = 1 }}
"""

WHICH = """
[[job]]
name = "which"
command = ["sh", "which.sh"]
timeout = "2m"
"""

LEGACY = """
[[job]]
name = "legacy"
compose = "legacy/compose.yml"
service = "python-scripts"
output = "/data"
timeout = "8m"
"""

FENCED = f"""
[[job]]
name = "fenced"
command = ["python3", "fenced.py"]
browser = true
timeout = "8m"
env = {{ SITE = "http://{SITE.removesuffix(":80")}/" }}
"""

BAKED_JOBS = (QUOTES, NOTES, WHICH)

NAMES = frozenset({"quotes", "notes", "which", "legacy", "fenced", "slow", "many"})
"""Every job that a release of these tests ever has."""

COMPOSE = f"""\
version: "3.7"
services:
  python-scripts:
    image: {BROWSER_IMAGE}
    user: root
    entrypoint: ["python3", "/app/main.py"]
    env_file: .env
    environment:
      TZ: Asia/Tokyo
    volumes:
      - ./:/app:ro
      - ./data:/data
    depends_on:
      - selenium
  selenium:
    image: {BROWSER_IMAGE}
    volumes:
      - /dev/shm:/dev/shm
"""

BROWSING = """
import json
import os
import socket
import time
import urllib.error
import urllib.request

FLAGS = {"args": ["--headless=new", "--no-sandbox"]}
CAPABILITIES = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": FLAGS}}


def ask(path, body=None, method=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(GRID + path, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=240) as answer:
        return json.load(answer)["value"]
"""

PROBE = f'''\
"""Where the metadata service is: from a page in the browser, and from the job itself."""
{BROWSING}

GRID = os.environ["MAYFLY_WEBDRIVER_URL"]
METADATA = "169.254.169.254"


def page(url):
    try:
        ask("/session/" + session + "/url", {{"url": url}})
    except urllib.error.HTTPError as error:
        return json.load(error)["value"]["message"].splitlines()[0]
    return ask("/session/" + session + "/title")


def job():
    try:
        socket.create_connection((METADATA, 80), 10).close()
    except OSError as error:
        return type(error).__name__
    return "reached"


session = ask("/session", {{"capabilities": CAPABILITIES}})["sessionId"]
seen = {{"site": page(os.environ["SITE"]), "page": page("http://" + METADATA + "/latest/"), "job": job()}}
ask("/session/" + session, method="DELETE")
with open(os.environ["MAYFLY_OUTPUT_DIR"] + "/seen.json", "w") as file:
    json.dump(seen, file)
'''

SCRIPT = f'''\
"""A scraper as it was before Mayfly: Selenium under the name of its service, results in /data."""
{BROWSING}

GRID = "http://selenium:4444"


def ready():
    for _ in range(120):
        try:
            return ask("/status")
        except OSError:
            time.sleep(1)
    raise SystemExit("no browser")


ready()
session = ask("/session", {{"capabilities": CAPABILITIES}})["sessionId"]
ask("/session/" + session + "/url", {{"url": os.environ["START"]}})
title = ask("/session/" + session + "/title")
ask("/session/" + session, method="DELETE")
with open("/data/title.txt", "w") as file:
    print(title, time.tzname[0], sep="\\n", file=file)
'''


def files(*jobs: str) -> dict[str, str]:
    """Return the files of a release with these jobs, and what they run.

    A release without a scraper has no lock either: making an environment takes an emulated machine a minute.
    """
    present = set(re.findall(r'^name = "(.+)"$', "".join(jobs), re.MULTILINE))
    # A release that loses a job of the one before must say that it means to.
    head = f'requires = "mayfly >= 0.1"\nretired = {json.dumps(sorted(NAMES - present))}\n'
    made = {
        "jobs.toml": head + "".join(jobs),
        "which.sh": 'set -eu\ncat release.txt > "$MAYFLY_OUTPUT_DIR/which.txt"\n',
    }
    if LEGACY in jobs:
        made |= {
            "legacy/compose.yml": COMPOSE,
            "legacy/.env": f"START=http://{SITE.removesuffix(':80')}/\n",
            "legacy/main.py": SCRIPT,
            "legacy/data/.keep": "",
        }
    if FENCED in jobs:
        made["fenced.py"] = PROBE
    if QUOTES in jobs or NOTES in jobs:
        for name in ("pyproject.toml", "uv.lock", "scrapers"):
            for path in _below(SCRAPERS / name):
                made[path.relative_to(SCRAPERS).as_posix()] = path.read_text("utf-8")
    return made


def publish(repo: Repo, tag: str, *jobs: str, **more: str) -> str:
    """Publish a release of these jobs alone, with its own name in `release.txt`; return its commit."""
    if repo.git("ls-files"):
        repo.git("rm", "-r", "--quiet", ".")
    return repo.release(tag, {**files(*jobs), "release.txt": f"{tag}\n", **more})


def publish_baked(repo: Repo) -> str:
    """Publish the release that is baked into the image; return its commit."""
    return publish(repo, BAKED, *BAKED_JOBS)


def _below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*") if file.suffix in {".py", ".toml"})
