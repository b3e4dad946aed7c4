"""Buckets of an S3 server: a module of its own, so that a program without one starts fast."""

from agent.bucket.address import S3Bucket
from agent.bucket.store import Bucket
from agent.config.credentials import Credentials
from tests.parts.seaweed import S3Server


def s3_bucket(server: S3Server, name: str, url: str = "") -> Bucket:
    """Return a bucket of an S3 server, or of a proxy in front of it."""
    config: dict[str, str | bool] = {
        "region": "us-east-1",
        "endpoint": url or server.url,
        "virtual_hosted_style_request": False,
    }
    keys = Credentials(server.access_key, server.secret_key)
    return Bucket.open(S3Bucket(name, "some/prefix", config), keys)
