"""Five jobs of a batch, by name: two in a browser, one that computes, two that wait for somebody else.

They need nothing but Python, so that no side has to make an environment. `work.py JOB`; results go to
`$MAYFLY_OUTPUT_DIR`, and the browser is at `$MAYFLY_WEBDRIVER_URL`.
"""

import hashlib
import json
import os
import random
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

PAGE = "data:text/html,<script>setTimeout(()=>document.body.id='done',450)</script>"
PAUSE = 0.5
OPTIONS = {"args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]}
OUTPUT = Path(os.environ["MAYFLY_OUTPUT_DIR"])


def ask(method: str, path: str, body: object = None) -> Any:
    """Send one WebDriver command."""
    request = urllib.request.Request(  # noqa: S310 -- the browser's own address
        os.environ["MAYFLY_WEBDRIVER_URL"] + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json; charset=utf-8"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310 -- the same
        return json.load(answer)["value"]


def browse(pages: int) -> None:
    """Load pages, one after the other, and wait until the script of each has done its work."""
    always = {"browserName": "chrome", "goog:chromeOptions": OPTIONS}
    opened = ask("POST", "/session", {"capabilities": {"alwaysMatch": always}})
    session = f"/session/{opened['sessionId']}"
    for _ in range(pages):
        ask("POST", f"{session}/url", {"url": PAGE})
        script = {"script": "return document.body && document.body.id === 'done'", "args": []}
        while not ask("POST", f"{session}/execute/sync", script):
            time.sleep(0.05)
    ask("DELETE", session)


def compute(rounds: int) -> None:
    """Keep a core busy."""
    data = bytes(2**20)
    for _ in range(rounds):
        data = hashlib.sha256(data).digest() * 2**15


def wait(steps: int) -> None:
    """Ask somebody who allows two requests a second."""
    for _ in range(steps):
        time.sleep(PAUSE)


def write(count: int, large: int = 0) -> None:
    """Write small files, and perhaps a large one."""
    dice = random.Random(count)  # noqa: S311 -- the same files each time
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (OUTPUT / f"{number}.json").write_bytes(dice.randbytes(2_000 + number * 367 % 58_000))
    if large:
        (OUTPUT / "archive.bin").write_bytes(dice.randbytes(large))


def main(job: str) -> None:
    """Do one job."""
    if job == "shop":
        browse(36)
        write(300)
    elif job == "timeline":
        browse(20)
        write(200)
    elif job == "digest":
        compute(3000)
        write(200)
    elif job == "api":
        wait(50)
        write(200)
    elif job == "poll":
        wait(30)
        write(100, 20_000_000)


if __name__ == "__main__":
    main(sys.argv[1])
