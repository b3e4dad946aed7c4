"""Where a run's credentials and secrets come from, and that they go nowhere else."""

from collections.abc import Callable

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.awsproxy import LateAws
from tests.parts.metadata import Metadata
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE, Bench, Ran, finish, job

JOB = job(
    "secretive",
    'test "$TOKEN" = canary-token && echo fine > $MAYFLY_OUTPUT_DIR/file',
    secrets=["TOKEN"],
)
PLAIN = job("plain", "echo 1 > $MAYFLY_OUTPUT_DIR/file")


@pytest.fixture
def closed(bench: Bench, s3_server: S3Server, s3_bucket: str) -> Bucket:
    """A bucket on the S3 server, to which the bench has no keys."""
    bench.environ |= {"MAYFLY_STORE_ENDPOINT": s3_server.url, "MAYFLY_BROWSER_URL": NOWHERE}
    bucket = Bucket.on_s3(s3_server, s3_bucket)
    bench.store = bucket.environ["MAYFLY_STORE_URL"]
    return bucket


@pytest.fixture
def stored(bench: Bench, s3_server: S3Server, parameters: Callable[..., None]) -> None:
    """The bucket's keys and the jobs' secrets are in SSM."""
    keys = {"access_key_id": s3_server.access_key, "secret_access_key": s3_server.secret_key}
    parameters("/mayfly/store", **keys)
    parameters("/mayfly/jobs", TOKEN="canary-token")
    bench.settings |= {
        "store.credentials": "ssm:/mayfly/store",
        "secrets.source": "ssm:/mayfly/jobs",
    }


def assert_delivered(ran: Ran, server: S3Server, bucket: Bucket, path: str) -> None:
    """A run's file is in the bucket, and neither key nor secret is in the log."""
    assert ran.code == 0, ran.stderr[-3000:]
    assert server.secret_key not in ran.stderr
    assert "canary-token" not in ran.stderr
    assert path in bucket.run(ran.run_id).results


def test_keys_come_from_the_usual_chain(bench: Bench, s3_server: S3Server, closed: Bucket) -> None:
    """Without keys in the environment a profile serves, as for any program that uses boto3."""
    profile = bench.folder / ".aws" / "credentials"
    profile.parent.mkdir()
    profile.write_text(
        f"[default]\naws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    bench.release("v1", PLAIN)
    assert_delivered(bench.run(), s3_server, closed, "plain/file")


@pytest.mark.usefixtures("stored")
def test_keys_and_secrets_come_from_ssm(
    bench: Bench, s3_server: S3Server, closed: Bucket, aws: dict[str, str]
) -> None:
    """The machine's role reads SSM; while that is away at boot, it is asked again, within the run's time."""
    bench.environ |= aws
    bench.release("v1", JOB)
    assert_delivered(bench.run(), s3_server, closed, "secretive/file")
    # boto3 itself sends each of the two requests up to three times.
    with LateAws(aws["AWS_ENDPOINT_URL"], away=8) as late:
        bench.environ["AWS_ENDPOINT_URL_SSM"] = late.url
        ran = bench.run()
    assert_delivered(ran, s3_server, closed, "secretive/file")
    assert ran.events("store.retry") + ran.events("secrets.retry")


@pytest.mark.long
def test_a_role_whose_keys_are_late_costs_the_run_nothing(
    bench: Bench, s3_server: S3Server, closed: Bucket, ec2: Metadata
) -> None:
    """The bucket's keys are the role's, and the metadata service has none yet."""
    bench.release("v1", PLAIN)
    with bench.running() as process:
        wait_until(
            lambda: any("/iam/" in path for _, path, _ in ec2.requests),
            what="the question for keys",
        )
        ec2.credentials = (s3_server.access_key, s3_server.secret_key)
        ran = finish(process)
    assert_delivered(ran, s3_server, closed, "plain/file")


@pytest.mark.usefixtures("closed")
def test_without_any_keys_the_run_is_kept(bench: Bench) -> None:
    """No credentials at all: the jobs run, the spool keeps their files, and the reason is told."""
    bench.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    bench.release("v1", PLAIN)
    ran = bench.run(code=6)
    assert "credentials" in ran.outcome["undelivered"]
    assert [path.name for path in bench.spool] == [ran.run_id]
