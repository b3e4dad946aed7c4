"""What home asks of the bucket while shards come and go, counted by a proxy in front of the store.

`MAYFLY_TEST_SHARDS=1000` for the row of docs/shards.md.
"""

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest

from agent.core.ids import run_id
from agent.core.results import JobResult, JobStatus
from agent.core.shards import Shard
from tests.consumer.following import Home
from tests.consumer.runs import leave_marker, leave_run
from tests.consumer.serving import serving
from tests.consumer.shelf import PREFIX, S3Shelf
from tests.parts.faultproxy import FaultProxy
from tests.parts.seaweed import S3Server

SHARDS = int(os.environ.get("MAYFLY_TEST_SHARDS", "30"))
LISTED = 1000
"""Keys in an answer to a LIST."""
NOW = datetime.now(UTC).replace(microsecond=0)
KINDS = ("index/", "started/", "runs/")

pytestmark = pytest.mark.timeout(300 + SHARDS)


@pytest.fixture
def watched(s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy) -> S3Shelf:
    """A bucket that home reaches through the proxy."""
    shelf = S3Shelf(s3_server, s3_bucket)
    shelf.store = shelf.store.model_copy(update={"endpoint": s3_proxy.url})
    return shelf


def shard(group: str, number: int, hours: float) -> tuple[str, Shard]:
    """A run of a group that began so many hours ago, and which shard it is."""
    began = NOW - timedelta(hours=hours)
    return run_id(began, number.to_bytes(3)), Shard(group, number, SHARDS)


def begin(shelf: S3Shelf, group: str, hours: float) -> None:
    """Leave the markers of a group that is under way."""
    for number in range(SHARDS):
        run, part = shard(group, number, hours)
        leave_marker(shelf, run, part=part)


def leave_group(shelf: S3Shelf, group: str, hours: float) -> None:
    """Leave a whole group."""
    for number in range(SHARDS):
        run, part = shard(group, number, hours)
        jobs = [JobResult(name=f"shop-{number}", status=JobStatus.SUCCEEDED, family="shop")]
        leave_run(shelf, run, files={}, jobs=jobs, part=part)


def asked(proxy: FaultProxy) -> dict[str, int]:
    """Return what was asked since the last time, by kind: `LIST index/`, `GET runs/`."""
    found: Counter[str] = Counter()
    for seen in proxy.seen:
        assert seen.method == "GET", seen
        target = unquote(seen.path)
        place = next(kind for kind in KINDS if f"{PREFIX}/{kind}" in target)
        found[f"{'LIST' if 'list-type=2' in target else 'GET'} {place}"] += 1
    proxy.seen.clear()
    return dict(found)


def lists(keys: int) -> int:
    """Return how many answers a listing has."""
    return max(1, -(-keys // LISTED))


async def test_a_look_asks_twice_for_each_new_shard_and_once_for_each_that_begins(
    watched: S3Shelf, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """Otherwise it lists a day of markers and a quarter of an hour of commits, a thousand with each request."""
    home = Home(tmp_path, watched)
    leave_group(watched, "sunday", hours=30)
    await home.looks(NOW)
    told = {"the first look": asked(s3_proxy)}
    await home.looks(NOW)
    told["nothing new"] = asked(s3_proxy)
    begin(watched, "monday", hours=1)
    await home.looks(NOW)
    told["a group begins"] = asked(s3_proxy)
    await home.looks(NOW)
    told["it is under way"] = asked(s3_proxy)
    leave_group(watched, "monday", hours=1)
    await home.looks(NOW)
    told["all of it commits"] = asked(s3_proxy)
    await home.looks(NOW)
    told["nothing new again"] = asked(s3_proxy)
    print(f"{SHARDS} shards: {told}")
    n, one, two = SHARDS, lists(SHARDS), lists(2 * SHARDS)
    assert told == {
        "the first look": {
            "LIST started/": one,
            "LIST index/": one,
            "GET index/": n,
            "GET runs/": n,
        },
        "nothing new": {"LIST started/": one, "LIST index/": one},
        "a group begins": {"LIST started/": two, "LIST index/": one, "GET started/": n},
        "it is under way": {"LIST started/": one, "LIST index/": one},
        "all of it commits": {
            "LIST started/": one,
            "LIST index/": two,
            "GET index/": n,
            "GET runs/": n,
        },
        "nothing new again": {"LIST started/": one, "LIST index/": one},
    }


def test_pages_and_metrics_ask_nothing(
    watched: S3Shelf, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """However many people look at a group and Prometheus asks, the bucket hears nothing of it."""
    leave_group(watched, "monday", hours=1)
    with serving(tmp_path / "home", watched.environ, "--interval", "1h") as service:
        asked(s3_proxy)
        for _ in range(3):
            assert "monday" in service.get("/").text
            assert service.metrics()["mayfly_group_complete"] == 1
        assert asked(s3_proxy) == {}
