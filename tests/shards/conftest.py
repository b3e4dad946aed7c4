"""The workbench of whole runs, for tests of shards."""

from tests.run.conftest import bench, s3_shelf

__all__ = ["bench", "s3_shelf"]
