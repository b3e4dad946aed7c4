"""Checks of the bucket, its credentials and the jobs' secrets."""

import secrets as random
from collections.abc import Mapping

from agent.base.threads import in_thread
from agent.bucket.address import LocalBucket, bucket_at
from agent.bucket.store import Bucket
from agent.doctor.examine import Finding, Installation, failed, ok, skipped
from agent.machine.aws import aws_session
from agent.secrets.sources import job_secrets, open_bucket, store_credentials

PREFIX = "doctor/"
OPEN_SECONDS = 15.0
"""Limit for boto3's chain, whose last link asks the metadata service."""


async def credentials(installation: Installation) -> Finding:
    """Get the bucket's credentials from where the configuration says."""
    store = installation.settings.store
    if isinstance(bucket_at(store, installation.places.bucket), LocalBucket):
        return skipped("the bucket is a folder")
    keys = await store_credentials(store, installation.environ)
    if keys is not None:
        where = "the environment" if store.credentials == "default" else store.credentials
        return ok(f"keys from {where}")
    method = await in_thread(lambda: _chain(installation.environ), seconds=OPEN_SECONDS)
    if method is None:
        return failed(
            "neither environment, profile nor role has any",
            "set store.credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role",
        )
    return ok(f"from boto3's chain ({method})")


def _chain(environ: Mapping[str, str]) -> str | None:
    """Return the link of boto3's chain that has credentials."""
    found = aws_session(environ).get_credentials()
    return found.method if found else None


async def store(installation: Installation) -> Finding:
    """Write an object, read it back, list it, and remove it."""
    configured, default = installation.settings.store, installation.places.bucket
    bucket = await open_bucket(configured, default, installation.environ)
    key = f"{PREFIX}{random.token_hex(8)}"
    data = random.token_bytes(64)
    await bucket.put(key, data)
    try:
        problem = await _look_back(bucket, key, data)
    finally:
        await bucket.delete([key])
    if problem:
        return failed(
            problem, "this store cannot be trusted with files: look for a proxy, or another store"
        )
    if await bucket.get(key) is not None:
        return failed(f"{bucket.name} does not delete", "allow s3:DeleteObject on doctor/*")
    return ok(f"{bucket.name}: write, read, list, delete")


async def _look_back(bucket: Bucket, key: str, data: bytes) -> str:
    """Return what is wrong with an object that was just written."""
    if await bucket.get(key) != data:
        return f"{bucket.name} gave back something else than was written"
    sizes = [info.bytes async for info in bucket.list(PREFIX) if info.key == key]
    return "" if sizes == [len(data)] else f"{bucket.name} does not list what was written"


async def secrets(installation: Installation) -> Finding:
    """Read the jobs' secrets."""
    source = installation.settings.secrets.source
    if source is None:
        return skipped("secrets.source is not set")
    found = await job_secrets(installation.settings.secrets, installation.environ)
    return ok(f"{len(found)} in {source}: {', '.join(sorted(found))}")
