"""Each fault of the proxy before the S3 server happens as it says: without it, tests of faults would show nothing."""

import time
from datetime import timedelta

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import S3Store

from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import (
    Answer,
    BlackHole,
    Corrupt,
    Delay,
    Fault,
    IgnoreConditions,
    Lie,
    LoseAnswer,
    ResetDownload,
    ResetUpload,
    Throttle,
)
from tests.parts.seaweed import REGION


def store(proxy: FaultProxy, bucket: str, *, seconds: int = 30) -> S3Store:
    """An obstore client that asks once, and gives up after `seconds`."""
    return S3Store(
        bucket,
        endpoint=proxy.url,
        region=REGION,
        access_key_id=proxy.store.access_key,
        secret_access_key=proxy.store.secret_key,
        client_options={"allow_http": True, "timeout": f"{seconds}s"},
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=5)},
    )


def test_without_faults_it_is_transparent(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """Puts, gets, heads, lists, conditions and multipart uploads work through it, and are counted."""
    client = store(s3_proxy, s3_bucket)
    big = bytes(range(256)) * 4096 * 12
    obstore.put(client, "big", big)
    obstore.put(client, "a b", b"x", mode="create")
    with pytest.raises(AlreadyExistsError):
        obstore.put(client, "a b", b"y", mode="create")
    assert bytes(obstore.get(client, "big").bytes()) == big
    assert obstore.head(client, "big")["size"] == len(big)
    assert [m["path"] for page in obstore.list(client) for m in page] == ["a b", "big"]
    assert s3_proxy.count("PUT", "a%20b") == 2
    assert sum(one.size for one in s3_proxy.seen if one.method == "PUT") == len(big) + 2
    assert {one.status for one in s3_proxy.seen if "a%20b" in one.path} == {200, 412}


@pytest.mark.parametrize("fault", [ResetUpload(10), Answer(503), LoseAnswer(), BlackHole()])
def test_a_failed_put_is_seen_as_one(s3_proxy: FaultProxy, s3_bucket: str, fault: Fault) -> None:
    """The client gets an error, once and for this method and path alone; only a lost answer leaves the object."""
    s3_proxy.inject(fault, times=1, method="PUT", path="/runs/")
    obstore.put(store(s3_proxy, s3_bucket), "index/a", b"x")
    # The others end by themselves: a client that gave up before the store did its part would show nothing.
    seconds = 2 if isinstance(fault, BlackHole) else 30
    with pytest.raises(BaseError):
        obstore.put(store(s3_proxy, s3_bucket, seconds=seconds), "runs/a", b"x" * 100)
    stored = ["index/a", *(["runs/a"] if isinstance(fault, LoseAnswer) else [])]
    assert s3_proxy.store.keys(s3_bucket) == stored
    obstore.put(store(s3_proxy, s3_bucket), "runs/a", b"y")
    assert s3_proxy.store.get(s3_bucket, "runs/a") == b"y"


def test_a_download_can_break_off(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """A connection that is reset inside the content of an answer is an error, not a short file."""
    s3_proxy.store.put(s3_bucket, "a", b"x" * 1000)
    s3_proxy.inject(ResetDownload(100), method="GET")
    with pytest.raises((BaseError, OSError)):
        obstore.get(store(s3_proxy, s3_bucket), "a").bytes()


def test_a_store_without_conditions(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """Where conditions are ignored, a second conditional put overwrites the first."""
    s3_proxy.inject(IgnoreConditions())
    client = store(s3_proxy, s3_bucket)
    obstore.put(client, "日本 claim", b"first", mode="create")
    obstore.put(client, "日本 claim", b"second", mode="create")
    assert bytes(obstore.get(client, "日本 claim").bytes()) == b"second"


@pytest.mark.parametrize(("fault", "left"), [(Lie(), []), (Corrupt(), [b"ab"])])
def test_a_store_that_lies(
    s3_proxy: FaultProxy, s3_bucket: str, fault: Fault, left: list[bytes]
) -> None:
    """The client is told that all went well, and it did not."""
    s3_proxy.inject(fault, method="PUT")
    obstore.put(store(s3_proxy, s3_bucket), "a", b"abcd")
    keys = s3_proxy.store.keys(s3_bucket)
    assert [s3_proxy.store.get(s3_bucket, key) for key in keys] == left


@pytest.mark.parametrize("fault", [Delay(0.5), Throttle(200)])
def test_a_slow_store_is_slow_and_correct(
    s3_proxy: FaultProxy, s3_bucket: str, fault: Fault
) -> None:
    """Latency and a narrow line take time and change nothing."""
    s3_proxy.inject(fault, times=1)
    began = time.monotonic()
    obstore.put(store(s3_proxy, s3_bucket), "a", b"x" * 100)
    assert time.monotonic() - began >= 0.4
    assert s3_proxy.store.get(s3_bucket, "a") == b"x" * 100


def test_it_refuses_and_accepts_again(s3_proxy: FaultProxy, s3_bucket: str) -> None:
    """While it refuses nothing gets through, and afterwards the same client works again."""
    client = store(s3_proxy, s3_bucket)
    obstore.put(client, "a", b"x")
    s3_proxy.refuse()
    with pytest.raises(BaseError):
        obstore.put(client, "b", b"x")
    s3_proxy.accept()
    obstore.put(client, "b", b"x")
    assert s3_proxy.store.keys(s3_bucket) == ["a", "b"]
