"""Puts that a store refuses or that are cut off: none is repeated in vain, and no parts of an upload are left."""

import asyncio
import json
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

import pytest

from agent.base.errors import StoreError, StoreRefused
from agent.bucket.address import code_of, store_error
from agent.bucket.store import PARTS_AT_ONCE, PIECE_BYTES, Bucket
from tests.delivery.buckets import s3_bucket as open_bucket
from tests.parts.aws import Aws
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer, BlackHole
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until

ROOT = Path(__file__).parents[2]
PARTS = 4
PIECES = 5 * PARTS + 2


@pytest.fixture
def bucket(s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy) -> Bucket:
    """A bucket of the S3 server, behind the proxy."""
    return open_bucket(s3_server, s3_bucket, s3_proxy.url)


def pieces(count: int = PIECES) -> Iterator[bytes]:
    """A file of a few parts."""
    return (bytes([number]) * PIECE_BYTES for number in range(count))


def unfinished(server: S3Server, bucket: str) -> list[str]:
    """The keys of uploads whose parts lie in the bucket."""
    uploads = server.client().list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    return [upload["Key"] for upload in uploads]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the store does."""
    await asyncio.to_thread(wait_until, condition, what="the upload")


async def test_a_large_file_arrives_as_it_was(bucket: Bucket) -> None:
    """In parts, the last of which is smaller."""
    await bucket.put_stream("large", pieces())
    assert await bucket.get("large") == b"".join(pieces())


async def test_a_full_disk_is_not_the_store_s_fault(bucket: Bucket) -> None:
    """What the disk says of a download is told as it is."""
    await bucket.put("some", b"content")
    with FileIO("/dev/full", "w") as full, pytest.raises(OSError, match="No space left"):
        await bucket.download("some", full, limit=7)


async def test_an_upload_that_is_cancelled_leaves_no_parts(
    bucket: Bucket, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """As when EC2 takes the machine: the time to send is over while parts are on their way."""
    s3_proxy.inject(BlackHole(), method="PUT", path="partNumber=2")
    sending = asyncio.create_task(bucket.put_stream("large", pieces()))
    await until(lambda: bool(s3_proxy.met and unfinished(s3_server, s3_bucket)))
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    # A busy store may answer later than is waited for.
    await until(lambda: unfinished(s3_server, s3_bucket) == [])
    assert s3_server.keys(s3_bucket) == []


@pytest.mark.parametrize(
    "refused",
    [
        ("PUT", "partNumber=1"),
        ("PUT", f"partNumber={PARTS}"),
        ("PUT", f"partNumber={PARTS + 1}"),  # the last, which is sent when all has been read
        ("POST", "uploadId="),  # all parts are there, and no object
    ],
)
async def test_an_upload_that_the_store_refuses_leaves_no_parts(
    bucket: Bucket,
    s3_server: S3Server,
    s3_bucket: str,
    s3_proxy: FaultProxy,
    refused: tuple[str, str],
) -> None:
    """Whichever part it was, and when it cannot be completed."""
    method, path = refused
    s3_proxy.inject(Answer(403, "AccessDenied"), method=method, path=path)
    with pytest.raises(StoreRefused):
        await bucket.put_stream("large", pieces())
    assert unfinished(s3_server, s3_bucket) == []


async def test_a_file_that_cannot_be_read_to_its_end_leaves_no_parts(
    bucket: Bucket, s3_server: S3Server, s3_bucket: str
) -> None:
    """A disk's fault ends the upload as well, and is not told as the store's."""

    def broken() -> Iterator[bytes]:
        yield from pieces(5 * (PARTS_AT_ONCE + 1))
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        await bucket.put_stream("large", broken())
    assert unfinished(s3_server, s3_bucket) == []


async def test_a_store_that_is_away_does_not_hold_who_goes(
    bucket: Bucket, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> None:
    """Removing the parts is tried for a moment only: what remains is the lifecycle rule's."""
    s3_proxy.inject(BlackHole(), method="PUT", path="partNumber=2")
    s3_proxy.inject(BlackHole(), method="DELETE")
    sending = asyncio.create_task(bucket.put_stream("large", pieces()))
    await until(lambda: bool(s3_proxy.met))
    sending.cancel()
    await asyncio.wait({sending}, timeout=60)
    assert sending.cancelled()


def test_the_lifecycle_rule_of_the_docs_is_one(aws_stand_in: Aws) -> None:
    """S3 takes it; it removes parts after some days, and never an object."""
    s3 = aws_stand_in.client("s3")
    rules = json.loads((ROOT / "deploy/aws/lifecycle.json").read_text())
    s3.create_bucket(
        Bucket="scraped", CreateBucketConfiguration={"LocationConstraint": "ap-northeast-3"}
    )
    s3.put_bucket_lifecycle_configuration(Bucket="scraped", LifecycleConfiguration=rules)
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket="scraped")["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] <= 7
    assert "Expiration" not in rule


@pytest.mark.parametrize("code", ["RequestTimeout", "IncompleteBody", "SlowDown"])
async def test_a_put_is_repeated_unless_it_is_made_once(
    bucket: Bucket, s3_proxy: FaultProxy, code: str
) -> None:
    """Where the store means the moment; of an entry, whose time counts, another key is tried instead."""
    s3_proxy.inject(Answer(503 if code == "SlowDown" else 400, code), method="PUT", times=3)
    with pytest.raises(StoreError, match=code):
        await bucket.put_once("once", b"1")
    assert s3_proxy.count("PUT") == 1
    await bucket.put("again", b"1")
    assert await bucket.get("again") == b"1"
    assert s3_proxy.count("PUT", "/again") == 3


async def test_what_is_final_is_not_repeated(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    """And shows the store's word."""
    s3_proxy.inject(Answer(400, "InvalidRequest"), method="PUT")
    with pytest.raises(StoreError, match="InvalidRequest") as caught:
        await bucket.put("x", b"1")
    assert caught.value.code == "InvalidRequest"
    assert s3_proxy.count("PUT", "/x") == 1


def test_the_code_is_shown_however_long_the_key_is() -> None:
    """The rest of the message is cut."""
    xml = "<Error><Code>{}</Code><Message>m</Message></Error>"
    message = f"PUT http://x/{'k' * 600}: 400 Bad Request: {xml.format('Odd.Code')}"
    error = store_error("put", "k", message, denied=False)
    assert str(error).startswith("could not put k: Odd.Code: m")
    refused = store_error("put", "k", xml.format("AccessDenied"), denied=True)
    assert isinstance(refused, StoreRefused)
    assert "AccessDenied" in str(refused)
    assert code_of("connection refused") == ""
