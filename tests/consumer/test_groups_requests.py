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
from tests.bucket.bucket import Bucket
from tests.bucket.layout import BEGUN, ENTRIES, RUNS
from tests.bucket.leaving import leave_begun, leave_run
from tests.bucket.objects import PREFIX
from tests.consumer.following import Home
from tests.consumer.serving import serving
from tests.parts.faultproxy import FaultProxy
from tests.parts.seaweed import S3Server

SHARDS = int(os.environ.get("MAYFLY_TEST_SHARDS", "30"))
LISTED = 1000
"""Keys in an answer to a LIST."""
NOW = datetime.now(UTC).replace(microsecond=0)
KINDS = (ENTRIES, BEGUN, RUNS)

pytestmark = pytest.mark.timeout(300 + SHARDS)


@pytest.fixture
def watched(s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy) -> Bucket:
    """A bucket that home reaches through the proxy."""
    return Bucket.on_s3(s3_server, s3_bucket, endpoint=s3_proxy.url)


def shard(group: str, number: int, hours: float) -> tuple[str, Shard]:
    """A run of a group that began so many hours ago, and which shard it is."""
    began = NOW - timedelta(hours=hours)
    return run_id(began, number.to_bytes(3)), Shard(group, number, SHARDS)


def begin(bucket: Bucket, group: str, hours: float) -> None:
    """Leave the markers of a group that is under way."""
    for number in range(SHARDS):
        run, part = shard(group, number, hours)
        leave_begun(bucket, run, part=part)


def leave_group(bucket: Bucket, group: str, hours: float) -> None:
    """Leave a whole group."""
    for number in range(SHARDS):
        run, part = shard(group, number, hours)
        jobs = [JobResult(name=f"shop-{number}", status=JobStatus.SUCCEEDED, family="shop")]
        leave_run(bucket, run, files={}, jobs=jobs, part=part)


def asked(proxy: FaultProxy) -> dict[str, int]:
    """Return what was asked since the last time, by method and kind."""
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
    watched: Bucket, s3_proxy: FaultProxy, tmp_path: Path
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
            f"LIST {BEGUN}": one,
            f"LIST {ENTRIES}": one,
            f"GET {ENTRIES}": n,
            "GET runs/": n,
        },
        "nothing new": {f"LIST {BEGUN}": one, f"LIST {ENTRIES}": one},
        "a group begins": {f"LIST {BEGUN}": two, f"LIST {ENTRIES}": one, f"GET {BEGUN}": n},
        "it is under way": {f"LIST {BEGUN}": one, f"LIST {ENTRIES}": one},
        "all of it commits": {
            f"LIST {BEGUN}": one,
            f"LIST {ENTRIES}": two,
            f"GET {ENTRIES}": n,
            "GET runs/": n,
        },
        "nothing new again": {f"LIST {BEGUN}": one, f"LIST {ENTRIES}": one},
    }


def test_pages_and_metrics_ask_nothing(
    watched: Bucket, s3_proxy: FaultProxy, tmp_path: Path
) -> None:
    """However many people look at a group and Prometheus asks, the bucket hears nothing of it."""
    leave_group(watched, "monday", hours=1)
    with serving(tmp_path / "home", watched.environ, "--interval", "1h") as service:
        asked(s3_proxy)
        for _ in range(3):
            assert "monday" in service.get("/").text
            assert service.metrics()["mayfly_group_complete"] == 1
        assert asked(s3_proxy) == {}
