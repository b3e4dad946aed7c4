"""Checks that ask servers: the bucket, the sources of secrets, the clock, the metadata service, the watchdog."""

import secrets as random
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from agent.base.threads import in_thread
from agent.bucket.address import LocalBucket, bucket_at
from agent.bucket.store import Bucket
from agent.doctor.examine import Finding, Installation, failed, ok, skipped
from agent.machine.aws import aws_session
from agent.machine.metadata import REMEDY as METADATA_REMEDY
from agent.machine.metadata import Metadata, metadata_endpoint
from agent.notify.notifier import ping_problem
from agent.secrets.sources import job_secrets, open_bucket, store_credentials

PREFIX = "doctor/"
OPEN_SECONDS = 15.0
"""Limit for boto3's chain, whose last link asks the metadata service."""
MOST_SKEW = 300.0
"""AWS refuses a signature whose time is further off, in seconds (S3 itself allows 900)."""
ASK_SECONDS = 5.0


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


async def clock(installation: Installation) -> Finding:
    """Compare this computer's time with the bucket's server's."""
    store = installation.settings.store
    if isinstance(bucket_at(store, installation.places.bucket), LocalBucket):
        return skipped("the bucket is a folder: nothing checks our time")
    server = store.endpoint or f"https://s3.{store.region or 'us-east-1'}.amazonaws.com"
    skew = await in_thread(lambda: _skew(server), seconds=3 * ASK_SECONDS)
    if isinstance(skew, str):
        return failed(f"{server}: {skew}", "check store.endpoint and the network")
    if abs(skew) > MOST_SKEW:
        return failed(
            f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} {server}",
            "set the clock: signatures are refused when it is more than 5 minutes off",
        )
    return ok(f"{abs(skew):.0f} s off the store's")


def _skew(server: str) -> float | str:
    """Return how many seconds our time is ahead of a server's, or why that is unknown."""
    import requests  # noqa: PLC0415

    before = datetime.now(UTC)
    try:
        answer = requests.head(server, timeout=ASK_SECONDS, allow_redirects=False)
        theirs = parsedate_to_datetime(answer.headers["Date"])
    except requests.RequestException as error:
        return f"no answer ({type(error).__name__})"
    except (KeyError, ValueError):
        return "its answer has no time"
    if theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    # Its time has whole seconds, and was written somewhere between question and answer.
    return (before + (datetime.now(UTC) - before) / 2 - theirs).total_seconds() - 0.5


async def metadata(installation: Installation) -> Finding:
    """Ask the metadata service, if there is one, for this machine's identity."""
    endpoint = metadata_endpoint(installation.environ)
    if endpoint is None:
        return skipped("this is not an EC2 instance, or AWS_EC2_METADATA_DISABLED is set")
    facts = await Metadata(endpoint).facts()
    known = [facts.instance_id, facts.instance_type, facts.region]
    if None in known:
        return failed("it does not say which machine this is, or where", METADATA_REMEDY)
    return ok(", ".join(filter(None, known)))


async def healthchecks(installation: Installation) -> Finding:
    """Write a line into the check's log, which changes nothing of its state."""
    url = installation.settings.notify.healthchecks
    if url is None:
        return skipped("notify.healthchecks is not set")
    problem = await ping_problem(url, "/log", "mayfly doctor", run_id="doctor")
    if problem:
        return failed(
            problem, "check notify.healthchecks: the ping URL as the check's page shows it"
        )
    return ok("the check exists and takes pings")
