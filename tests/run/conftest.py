"""Fixtures of whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.faultproxy import FaultProxy
from tests.parts.metadata import Metadata
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A computer with an empty state directory and a bucket in a folder."""
    return Bench.make(tmp_path)


@pytest.fixture
def bucket(bench: Bench) -> Bucket:
    """The workbench's bucket."""
    return bench.bucket


@pytest.fixture
def bucket_on_s3(
    bench: Bench, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> Iterator[Bucket]:
    """The workbench's bucket, moved to the S3 server, which the agent reaches through the proxy."""
    bench.deliver_to(Bucket.on_s3(s3_server, s3_bucket, endpoint=s3_proxy.url))
    yield bench.bucket
    s3_proxy.heal()


@pytest.fixture
def ec2(bench: Bench) -> Iterator[Metadata]:
    """A spot machine's metadata service, which the bench's runs ask."""
    with Metadata() as service:
        bench.environ["AWS_EC2_METADATA_SERVICE_ENDPOINT"] = service.url
        bench.settings |= {"cost.hourly": "0.02"}
        yield service
