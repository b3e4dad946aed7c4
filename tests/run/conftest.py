"""Fixtures of whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.parts.faultproxy import FaultProxy
from tests.parts.repo import Repo
from tests.parts.seaweed import S3Server
from tests.run.bench import Bench, Shelf
from tests.run.shelves import S3Shelf


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A computer with an empty state directory and a bucket in a folder."""
    git = tmp_path / "git"
    git.mkdir()
    return Bench(tmp_path, Repo(git), (tmp_path / "bucket").as_uri())


@pytest.fixture
def shelf(bench: Bench) -> Shelf:
    """The workbench's bucket."""
    return Shelf(bench.folder / "bucket")


@pytest.fixture
def s3_shelf(
    bench: Bench, s3_server: S3Server, s3_bucket: str, s3_proxy: FaultProxy
) -> Iterator[S3Shelf]:
    """The workbench's bucket, moved to the S3 server, which the agent reaches through the proxy."""
    bench.store = f"s3://{s3_bucket}/prod"
    bench.settings["store.endpoint"] = s3_proxy.url
    bench.environ |= {
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
    }
    yield S3Shelf(s3_server, s3_bucket, "prod")
    s3_proxy.heal()
