"""The workbench of whole runs, for tests of shards."""

from tests.run.conftest import bench, bucket_on_s3

__all__ = ["bench", "bucket_on_s3"]
