"""What the commands of an operator open: the bucket, and what is known of releases in it."""

import asyncio
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from agent.base.logs import Log
from agent.bucket.address import bucket_at
from agent.bucket.store import Bucket
from agent.config.locate import Locations
from agent.config.settings import Settings
from agent.contract.ids import run_id
from agent.release.memory import Memory, Writer
from agent.release.repository import channel_of
from agent.secrets.sources import store_credentials


async def open_bucket(settings: Settings, places: Locations, environ: Mapping[str, str]) -> Bucket:
    """Return the bucket of a configuration.

    Raises:
        SecretsError: Its keys are not available.
        StoreError: It cannot be opened.
    """
    address = bucket_at(settings.store, places.bucket)
    credentials = await store_credentials(settings.store, environ)
    return await asyncio.to_thread(Bucket.open, address, credentials, environ)


def operators_memory(
    settings: Settings, by: str, log: Log, lasting: timedelta = timedelta(0)
) -> Memory:
    """Return what is known of the releases that a configuration follows, without a copy on this disk.

    Args:
        settings: The configuration.
        by: Who learns.
        log: Gets what is noteworthy.
        lasting: After this time, a trial that did not end has died.
    """
    now = datetime.now(UTC)
    writer = Writer(run_id(now, os.urandom(3)), by[:300], now + lasting)
    channel = channel_of(settings.release)
    return Memory(channel, writer, copy=None, now=lambda: datetime.now(UTC), log=log)
