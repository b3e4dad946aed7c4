"""Which memory a job begins with, and how few requests that takes, against a real S3 server."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.config.credentials import Credentials
from agent.config.settings import Store
from agent.core.layout import index_key, state_key
from agent.steps.ledger import ONE_ANSWER, Ledger, newest_state, read_ledger
from tests.parts.faultproxy import FaultProxy
from tests.parts.seaweed import REGION

NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)


def _run(age: timedelta) -> str:
    return f"{NOW - age:%Y%m%dT%H%M%SZ}-abcdef"


@pytest.fixture
def bucket(s3_proxy: FaultProxy, tmp_path: Path) -> Bucket:
    """A bucket behind a proxy that counts."""
    server = s3_proxy.store
    store = Store(url=f"s3://{server.make_bucket()}/p", endpoint=s3_proxy.url, region=REGION)
    address = bucket_at(store, tmp_path)
    return Bucket.open(address, Credentials(server.access_key, server.secret_key))


async def _remember(bucket: Bucket, run: str, *, committed: bool) -> str:
    key = state_key("job", run)
    await bucket.put(key, b"")
    if committed:
        await bucket.put(index_key(run, NOW), b"{}")
    return key


async def _found(bucket: Bucket, proxy: FaultProxy) -> tuple[str | None, int]:
    """Return the newest memory, and how many requests that took."""
    ledger: Ledger = await read_ledger(bucket, NOW, with_past=False)
    proxy.seen.clear()
    return await newest_state(bucket, ledger, "job", NOW), len(proxy.seen)


async def test_a_job_without_a_memory_costs_one_request(
    bucket: Bucket, s3_proxy: FaultProxy
) -> None:
    """Two hundred values of a matrix ask two hundred times."""
    assert await _found(bucket, s3_proxy) == (None, 1)


async def test_the_newest_of_a_committed_run_is_taken(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    """One that speaks of files that never arrived is passed over, and the request is still one."""
    await _remember(bucket, _run(timedelta(days=2)), committed=True)
    wanted = await _remember(bucket, _run(timedelta(days=1)), committed=True)
    await _remember(bucket, _run(timedelta(hours=1)), committed=False)
    assert await _found(bucket, s3_proxy) == (wanted, 1)


async def test_a_memory_that_is_dated_to_come_is_not_the_newest(
    bucket: Bucket, s3_proxy: FaultProxy
) -> None:
    """A clock that was wrong once does not give every later run the memory of that day; a date that is none is none."""
    await _remember(bucket, _run(timedelta(days=-3650)), committed=True)
    await _remember(bucket, "20251399T000000Z-abcdef", committed=False)
    wanted = await _remember(bucket, _run(timedelta(days=1)), committed=True)
    assert await _found(bucket, s3_proxy) == (wanted, 1)


async def test_one_older_than_the_ledger_is_found(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    """A job that runs once a year still has its memory; its run's index entry is looked for."""
    wanted = await _remember(bucket, _run(timedelta(days=300)), committed=False)
    await bucket.put(index_key(_run(timedelta(days=300)), NOW - timedelta(days=300)), b"{}")
    assert await _found(bucket, s3_proxy) == (wanted, 2)


@pytest.mark.parametrize("recent", [True, False])
async def test_the_newest_of_years_is_found(
    bucket: Bucket, s3_proxy: FaultProxy, *, recent: bool
) -> None:
    """A first answer has the oldest memories alone; the newest is looked for by its date, then in all of them."""
    ages = [timedelta(days=900, hours=-hours) for hours in range(ONE_ANSWER + 1)]
    for age in ages:
        wanted = await _remember(bucket, _run(age), committed=False)
    await bucket.put(index_key(_run(ages[-1]), NOW - ages[-1] + timedelta(hours=1)), b"{}")
    if recent:
        wanted = await _remember(bucket, _run(timedelta(days=1)), committed=True)
    else:
        await _remember(bucket, _run(timedelta(days=1)), committed=False)
    found, requests = await _found(bucket, s3_proxy)
    assert found == wanted
    assert requests <= (2 if recent else 6)
