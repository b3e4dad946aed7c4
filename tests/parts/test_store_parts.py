"""The S3 server and the proxy in front of it: they work, and each fault happens as it says."""

import time
from datetime import timedelta
from pathlib import Path

import obstore
import pytest
from botocore.exceptions import ClientError
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
from tests.parts.seaweed import REGION, S3Server

NAMES = [
    "with space.txt",
    "日本語/データ.csv",
    "a#b",
    "100%.txt",
    "a%20b",
    "a+b",
    "a?b=1&c",
    "😀.png",
]


def store(
    server: S3Server | FaultProxy, bucket: str, *, retries: int = 0, seconds: int = 30
) -> S3Store:
    """An obstore client that gives up after `seconds`."""
    keys = server if isinstance(server, S3Server) else server.store
    return S3Store(
        bucket,
        endpoint=server.url,
        region=REGION,
        access_key_id=keys.access_key,
        secret_access_key=keys.secret_key,
        client_options={"allow_http": True, "timeout": f"{seconds}s"},
        retry_config={"max_retries": retries, "retry_timeout": timedelta(seconds=5)},
    )


class TestS3Server:
    """SeaweedFS."""

    @pytest.mark.long
    def test_it_keeps_what_was_stored_when_it_is_killed_and_started_again(
        self, tmp_path: Path
    ) -> None:
        """A bucket that goes away in the middle of a test comes back with its objects."""
        with S3Server(tmp_path) as server:
            bucket = server.make_bucket()
            server.put(bucket, "a", b"kept")
            server.kill()
            with pytest.raises(BaseError):
                obstore.put(store(server, bucket), "b", b"lost")
            server.start()
            assert server.get(bucket, "a") == b"kept"
            server.stop()
            server.start()
            assert server.keys(bucket) == ["a"]

    def test_a_missing_bucket_is_an_error(self, s3_server: S3Server) -> None:
        """A put into a bucket that does not exist is refused, as it is elsewhere."""
        with pytest.raises(ClientError, match="NoSuchBucket"):
            s3_server.put("no-such-bucket", "a", b"")

    def test_a_second_conditional_put_is_refused(self, s3_server: S3Server, s3_bucket: str) -> None:
        """Create mode answers AlreadyExists and leaves the first content."""
        client = store(s3_server, s3_bucket)
        obstore.put(client, "claim", b"first", mode="create")
        with pytest.raises(AlreadyExistsError):
            obstore.put(client, "claim", b"second", mode="create")
        assert s3_server.get(s3_bucket, "claim") == b"first"

    def test_a_listing_continues_after_an_offset(self, s3_server: S3Server, s3_bucket: str) -> None:
        """A list with an offset begins with the key after it."""
        client = store(s3_server, s3_bucket)
        for number in range(5):
            obstore.put(client, f"index/{number}", b"x")
        listed = [
            meta["path"]
            for page in obstore.list(client, "index", offset="index/2")
            for meta in page
        ]
        assert listed == ["index/3", "index/4"]

    def test_unusual_names_survive(self, s3_server: S3Server, s3_bucket: str) -> None:
        """Spaces, Unicode and the characters that URLs give a meaning come back as they went."""
        client = store(s3_server, s3_bucket)
        for name in NAMES:
            obstore.put(client, name, name.encode())
        listed = {meta["path"] for page in obstore.list(client) for meta in page}
        assert listed == set(NAMES)
        assert set(s3_server.keys(s3_bucket)) == set(NAMES)
        assert all(bytes(obstore.get(client, name).bytes()) == name.encode() for name in NAMES)


class TestFaultProxy:
    """The proxy in front of the S3 server."""

    def test_without_faults_it_is_transparent(self, s3_proxy: FaultProxy, s3_bucket: str) -> None:
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
    def test_a_failed_put_is_seen_as_one(
        self, s3_proxy: FaultProxy, s3_bucket: str, fault: Fault
    ) -> None:
        """The client gets an error; only where the store did its part is the object there."""
        s3_proxy.inject(fault, times=1, method="PUT")
        # The others end by themselves: a client that gave up before the store did its part would show nothing.
        seconds = 2 if isinstance(fault, BlackHole) else 30
        with pytest.raises(BaseError):
            obstore.put(store(s3_proxy, s3_bucket, seconds=seconds), "a", b"x" * 100)
        stored = ["a"] if isinstance(fault, LoseAnswer) else []
        assert s3_proxy.store.keys(s3_bucket) == stored
        obstore.put(store(s3_proxy, s3_bucket), "a", b"y")
        assert s3_proxy.store.get(s3_bucket, "a") == b"y"

    def test_a_fault_happens_only_where_it_was_asked_for(
        self, s3_proxy: FaultProxy, s3_bucket: str
    ) -> None:
        """Method, path and number of times are respected."""
        s3_proxy.inject(Answer(403, "AccessDenied"), times=1, method="PUT", path="/index/")
        client = store(s3_proxy, s3_bucket)
        obstore.put(client, "runs/a", b"x")
        with pytest.raises(BaseError):
            obstore.put(client, "index/a", b"x")
        obstore.put(client, "index/a", b"x")

    def test_a_retry_after_a_lost_answer_finds_its_own_object(
        self, s3_proxy: FaultProxy, s3_bucket: str
    ) -> None:
        """A conditional put whose answer was lost is not known to have worked, and what it wrote is there."""
        s3_proxy.inject(LoseAnswer(), times=1, method="PUT")
        with pytest.raises(BaseError):
            obstore.put(store(s3_proxy, s3_bucket, retries=3), "claim", b"mine", mode="create")
        assert s3_proxy.store.get(s3_bucket, "claim") == b"mine"

    def test_a_download_can_break_off(self, s3_proxy: FaultProxy, s3_bucket: str) -> None:
        """A connection that is reset inside the content of an answer is an error, not a short file."""
        s3_proxy.store.put(s3_bucket, "a", b"x" * 1000)
        s3_proxy.inject(ResetDownload(100), method="GET")
        with pytest.raises((BaseError, OSError)):
            obstore.get(store(s3_proxy, s3_bucket), "a").bytes()

    def test_a_store_without_conditions(self, s3_proxy: FaultProxy, s3_bucket: str) -> None:
        """Where conditions are ignored, a second conditional put overwrites the first."""
        s3_proxy.inject(IgnoreConditions())
        client = store(s3_proxy, s3_bucket)
        obstore.put(client, "日本 claim", b"first", mode="create")
        obstore.put(client, "日本 claim", b"second", mode="create")
        assert bytes(obstore.get(client, "日本 claim").bytes()) == b"second"

    @pytest.mark.parametrize(("fault", "left"), [(Lie(), None), (Corrupt(), b"ab")])
    def test_a_store_that_lies(
        self, s3_proxy: FaultProxy, s3_bucket: str, fault: Fault, left: bytes | None
    ) -> None:
        """The client is told that all went well, and it did not."""
        s3_proxy.inject(fault, method="PUT")
        obstore.put(store(s3_proxy, s3_bucket), "a", b"abcd")
        assert s3_proxy.store.keys(s3_bucket) == ([] if left is None else ["a"])
        assert left is None or s3_proxy.store.get(s3_bucket, "a") == left

    @pytest.mark.parametrize("fault", [Delay(0.5), Throttle(200)])
    def test_a_slow_store_is_slow_and_correct(
        self, s3_proxy: FaultProxy, s3_bucket: str, fault: Fault
    ) -> None:
        """Latency and a narrow line take time and change nothing."""
        s3_proxy.inject(fault, times=1)
        began = time.monotonic()
        obstore.put(store(s3_proxy, s3_bucket), "a", b"x" * 100)
        assert time.monotonic() - began >= 0.4
        assert s3_proxy.store.get(s3_bucket, "a") == b"x" * 100

    def test_it_refuses_and_accepts_again(self, s3_proxy: FaultProxy, s3_bucket: str) -> None:
        """While it refuses nothing gets through, and afterwards the same client works again."""
        client = store(s3_proxy, s3_bucket)
        obstore.put(client, "a", b"x")
        s3_proxy.refuse()
        with pytest.raises(BaseError):
            obstore.put(client, "b", b"x")
        s3_proxy.accept()
        obstore.put(client, "b", b"x")
        assert s3_proxy.store.keys(s3_bucket) == ["a", "b"]
