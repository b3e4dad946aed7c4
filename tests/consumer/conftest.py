"""Buckets for the tests of what home does."""

from pathlib import Path

import pytest

from tests.consumer.following import Home
from tests.consumer.shelf import FolderShelf, S3Shelf, Shelf


@pytest.fixture
def folder(tmp_path: Path) -> FolderShelf:
    """An empty bucket in a folder."""
    return FolderShelf(tmp_path / "bucket with spaces")


@pytest.fixture(params=["file", "s3"])
def shelf(request: pytest.FixtureRequest, folder: FolderShelf) -> Shelf:
    """An empty bucket of each kind that a store URL can name."""
    if request.param == "file":
        return folder
    return S3Shelf(request.getfixturevalue("s3_server"), request.getfixturevalue("s3_bucket"))


@pytest.fixture
def home(tmp_path: Path, shelf: Shelf) -> Home:
    """A history that is not there yet, of a bucket of each kind."""
    return Home(tmp_path, shelf)


@pytest.fixture
def local(tmp_path: Path, folder: FolderShelf) -> Home:
    """A history that is not there yet, of a bucket in a folder."""
    return Home(tmp_path, folder)
