"""Buckets for the tests of what home does."""

from pathlib import Path

import pytest

from tests.bucket.bucket import Bucket


@pytest.fixture
def folder(tmp_path: Path) -> Bucket:
    """An empty bucket in a folder."""
    root = tmp_path / "bucket with spaces"
    root.mkdir()
    return Bucket.in_folder(root)


@pytest.fixture(params=["file", "s3"])
def bucket(request: pytest.FixtureRequest, folder: Bucket) -> Bucket:
    """An empty bucket of each kind that a store URL can name."""
    if request.param == "file":
        return folder
    return Bucket.on_s3(request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket"))
