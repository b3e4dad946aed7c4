"""Runs to deliver, to a folder and to an S3 server."""

from pathlib import Path

import pytest

from tests.delivery.buckets import s3_bucket
from tests.delivery.world import World, folder_bucket


@pytest.fixture(params=["folder", "s3"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """A run whose bucket is of either kind."""
    if request.param == "folder":
        return World.make(tmp_path / "state", folder_bucket(tmp_path / "bucket"))
    server = request.getfixturevalue("s3_server")
    return World.make(tmp_path / "state", s3_bucket(server, server.make_bucket()))


@pytest.fixture
def local(tmp_path: Path) -> World:
    """A run whose bucket is a folder."""
    return World.make(tmp_path / "state", folder_bucket(tmp_path / "bucket"))
