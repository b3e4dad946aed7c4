"""Eight shards as separate processes, one Selenium Grid, one bucket: each value is scraped once, whoever is killed.

`MAYFLY_TEST_VALUES=400` for the figures of docs/shards.md; sixteen values are enough for every day.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from agent.jobs.selection import home_of
from tests.bucket.bucket import Bucket
from tests.bucket.sound import Broken, Looker, examine
from tests.parts.grid import Hub
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.waiting import wait_until
from tests.run.bench import Bench, job
from tests.run.fleet import Fleet, Member, succeeded

SHARDS = 8
VALUES = int(os.environ.get("MAYFLY_TEST_VALUES", "16"))
SECONDS = 120.0 + 8.0 * VALUES
"""A session takes two seconds of two cores; the rest is for a machine that others use."""

NAMES = [f"shop-{number}" for number in range(VALUES)]
OWN = Counter(home_of(name, SHARDS) for name in NAMES)
HARMED = [shard for shard in range(SHARDS) if OWN[shard] > 1][:3]
"""Two that are killed and one that is evicted, each after its first value: it has another one to lose."""
JOBS = job(
    "shop",
    ["python3", "shop.py"],
    browser=True,
    retries=2,
    timeout="15m",
    matrix={"shop": [str(number) for number in range(VALUES)]},
    expect={"min_items": 1},
)
SHOP = """
import json, os, urllib.request

def ask(method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(os.environ["MAYFLY_WEBDRIVER_URL"] + path, data, method=method,
        headers={"Content-Type": "application/json; charset=utf-8"})
    with urllib.request.urlopen(request, timeout=600) as answer:
        return json.load(answer)["value"]

shop = os.environ["MAYFLY_MATRIX_SHOP"]
session = ask("POST", "/session", {"capabilities": {"alwaysMatch": {"browserName": "chrome"}}})["sessionId"]
try:
    ask("POST", f"/session/{session}/url", {"url": f"SITE/shop/{shop}"})
    price = ask("POST", f"/session/{session}/execute/sync",
        {"script": "return document.querySelector('b').textContent", "args": []})
finally:
    ask("DELETE", f"/session/{session}")
assert price == f"price of {shop}", price
with open(os.path.join(os.environ["MAYFLY_OUTPUT_DIR"], "price.txt"), "w") as file:
    file.write(price)
with open(os.environ["MAYFLY_RESULT_FILE"], "w") as file:
    json.dump({"items": 1}, file)
"""


class Shops:
    """What the site knows.

    Attributes:
        seen: How often each shop was looked at.
        gate: The harmed shards get a second page only when it is open, so that they are in the middle until then.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.gate = threading.Event()
        self._lock = threading.Lock()
        self._first: dict[int, str] = {}

    def visit(self, name: str) -> None:
        """Count a look at a shop, and keep it waiting where it has to."""
        shard = home_of(name, SHARDS)
        with self._lock:
            self.seen[name] += 1
            first = self._first.setdefault(shard, name)
        if shard in HARMED and name != first:
            self.gate.wait(SECONDS)


@contextmanager
def site() -> Iterator[tuple[str, Shops]]:
    """A site that renders prices by script."""
    shops = Shops()

    class Site(QuietHandler):
        def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
            shop = self.path.removeprefix("/shop/")
            if shop != self.path:
                shops.visit(f"shop-{shop}")
            script = f"document.body.innerHTML = '<b>price of {shop}</b>'"
            page = f"<!doctype html><body><script>{script}</script></body>".encode()
            self.answer(200, page, {"Content-Type": "text/html"})

    with LoopbackHttp(Site) as server:
        try:
            yield server.url, shops
        finally:
            shops.gate.set()


@pytest.fixture
def fleet(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Fleet, Shops]]:
    """Eight shards beside a Grid of a hub and two nodes."""
    # A short path: Chromium puts a socket below it, whose name may have 108 bytes.
    with Hub(tmp_path_factory.mktemp("hub"), nodes=2, sessions=2) as grid, site() as (url, shops):
        bench.settings |= {
            "browser.url": grid.url,
            "browser.sessions": "1",
            "browser.timeout": "280s",
            "limits.run": "1h",
        }
        bench.release("v1", JOBS, {"shop.py": SHOP.replace("SITE", url)})
        fleet = Fleet(bench, "night-1", SHARDS)
        try:
            yield fleet, shops
        finally:
            fleet.end()


def _engine(fleet: Fleet, seconds: float) -> None:
    """Start again each shard that failed or is lost, until all have succeeded, as an engine does."""
    deadline = time.monotonic() + seconds
    done: set[int] = set()
    while len(done) < fleet.shards:
        latest: dict[int, Member] = {member.shard: member for member in fleet.started}
        for shard, member in latest.items():
            code = member.process.poll()
            if code == 0:
                done.add(shard)
            elif code is not None:
                fleet.start(shard)
        assert len(fleet.started) <= 3 * fleet.shards, "shards fail again and again"
        assert time.monotonic() < deadline, f"{sorted(done)} of {fleet.shards} after {seconds:g} s"
        time.sleep(0.2)  # between two looks


@pytest.mark.timeout(SECONDS + 120)
@pytest.mark.usefixtures("bucket_on_s3")
@pytest.mark.long
def test_each_value_once_with_two_shards_killed(
    fleet: tuple[Fleet, Shops], bucket_on_s3: Bucket
) -> None:
    """Of eight shards two are killed and one is evicted in the middle; each value is there once, with its file."""
    shards, shops = fleet
    began = time.monotonic()
    members = [shards.start(shard) for shard in range(SHARDS)]
    *killed, evicted = HARMED
    for shard in HARMED:
        wait_until(partial(members[shard].tells, "job.ended"), seconds=SECONDS, what="a job")
        if shard == evicted:
            members[shard].told_to_stop()
        else:
            members[shard].kill()
    shops.gate.set()
    _engine(shards, SECONDS)
    assert succeeded(bucket_on_s3) == dict.fromkeys(NAMES, 1)
    inspected = Looker(bucket_on_s3.objects).look()
    assert len(inspected.unended()) == len(killed)
    assert examine(inspected, (), gone=inspected.unended()) == Broken()
    runs = bucket_on_s3.working
    prices = [
        content.decode()
        for run in runs
        for path, content in run.files.items()
        if path.endswith("price.txt")
    ]
    assert sorted(prices) == sorted(f"price of {number}" for number in range(VALUES))
    # What the killed had seen and not committed was looked at again; nothing else was.
    again = [name for name, count in shops.seen.items() if count > 1]
    lost = {
        each["job"]
        for shard in HARMED
        for each in members[shard].log.events()
        if each["event"] == "job.started"
    }
    print(
        f"{VALUES} values, {len(runs)} runs, {len(shards.started)} processes,"
        f" {len(again)} seen again, {time.monotonic() - began:.0f} s"
    )
    assert set(shops.seen) == set(NAMES)
    assert set(again) <= lost
