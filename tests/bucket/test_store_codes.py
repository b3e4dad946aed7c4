"""What a store says is wrong is told in its own word, and tried again where it means the moment."""

import pytest

from agent.base.errors import StoreError, StoreRefused
from agent.bucket.address import code_of, store_error
from agent.bucket.store import Bucket
from tests.delivery.buckets import s3_bucket
from tests.parts.faultproxy import FaultProxy
from tests.parts.faults import Answer
from tests.parts.seaweed import S3Server

XML = "<Error><Code>{}</Code><Message>m</Message></Error>"


@pytest.fixture
def bucket(s3_server: S3Server, s3_proxy: FaultProxy) -> Bucket:
    """A bucket of the S3 server, behind the proxy."""
    return s3_bucket(s3_server, s3_server.make_bucket(), s3_proxy.url)


@pytest.mark.parametrize("code", ["RequestTimeout", "IncompleteBody"])
async def test_a_put_is_repeated_where_the_store_means_the_moment(
    bucket: Bucket, s3_proxy: FaultProxy, code: str
) -> None:
    """Its client takes an answer of 400 for final."""
    s3_proxy.inject(Answer(400, code), method="PUT", times=2)
    await bucket.put("x", b"1")
    assert await bucket.get("x") == b"1"
    assert s3_proxy.count("PUT", "/x") == 3


async def test_what_is_final_is_not_repeated(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    """And shows the store's word."""
    s3_proxy.inject(Answer(400, "InvalidRequest"), method="PUT")
    with pytest.raises(StoreError, match="InvalidRequest") as caught:
        await bucket.put("x", b"1")
    assert caught.value.code == "InvalidRequest"
    assert s3_proxy.count("PUT", "/x") == 1


async def test_a_put_that_is_made_once_is_made_once(bucket: Bucket, s3_proxy: FaultProxy) -> None:
    """Whoever makes it takes another key for the next."""
    s3_proxy.inject(Answer(400, "RequestTimeout"), method="PUT")
    with pytest.raises(StoreError, match="RequestTimeout"):
        await bucket.put_once("x", b"1")
    assert s3_proxy.count("PUT", "/x") == 1


def test_the_code_is_shown_however_long_the_key_is() -> None:
    """The rest of the message is cut."""
    message = (
        f"Generic S3 error: PUT http://x/{'k' * 600}: 400 Bad Request: {XML.format('Odd.Code')}"
    )
    error = store_error("put", "k", message, denied=False)
    assert str(error).startswith("could not put k: Odd.Code: m")
    refused = store_error("put", "k", XML.format("AccessDenied"), denied=True)
    assert isinstance(refused, StoreRefused)
    assert "AccessDenied" in str(refused)
    assert code_of("connection refused") == ""
