"""Where a run's credentials and secrets come from, and that they go nowhere else."""

from collections.abc import Callable

import pytest

from tests.bucket.bucket import Bucket
from tests.parts.awsproxy import LateAws
from tests.parts.metadata import Metadata
from tests.parts.seaweed import S3Server
from tests.parts.waiting import wait_until
from tests.run.bench import NOWHERE, Bench, Ran, finish

JOB = """
    [[job]]
    name = "secretive"
    command = ["sh", "-c", 'test "$TOKEN" = canary-token && echo fine > $MAYFLY_OUTPUT_DIR/file']
    secrets = ["TOKEN"]
"""
PLAIN = '[[job]]\nname = "plain"\ncommand = ["sh", "-c", "echo 1 > $MAYFLY_OUTPUT_DIR/file"]\n'


def delivered(bench: Bench, server: S3Server, bucket: str, ran: Ran, path: str) -> bool:
    """Tell whether a run's file is in the bucket, and none of the keys is in the log."""
    assert ran.code == 0, ran.stderr[-3000:]
    assert server.secret_key not in ran.stderr
    return path in Bucket.on_s3(server, bucket).run(ran.run_id).results


def test_keys_come_from_the_usual_chain(bench: Bench, s3_server: S3Server, s3_bucket: str) -> None:
    """Without keys in the environment a profile serves, as for any program that uses boto3."""
    profile = bench.folder / ".aws" / "credentials"
    profile.parent.mkdir()
    profile.write_text(
        f"[default]\naws_access_key_id = {s3_server.access_key}\n"
        f"aws_secret_access_key = {s3_server.secret_key}\n"
    )
    bench.environ |= {"MAYFLY_STORE_ENDPOINT": s3_server.url, "MAYFLY_BROWSER_URL": NOWHERE}
    bench.store = Bucket.on_s3(s3_server, s3_bucket).environ["MAYFLY_STORE_URL"]
    bench.release("v1", PLAIN)
    ran = bench.run()
    assert delivered(bench, s3_server, s3_bucket, ran, "plain/file")


def test_keys_and_secrets_come_from_ssm(
    bench: Bench,
    s3_server: S3Server,
    s3_bucket: str,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> None:
    """The machine's role reads SSM; the store's keys and the jobs' secrets come from there and reach no log."""
    parameters(
        "/mayfly/store",
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
    )
    parameters("/mayfly/jobs", TOKEN="canary-token")
    bench.environ |= aws | {"MAYFLY_STORE_ENDPOINT": s3_server.url, "MAYFLY_BROWSER_URL": NOWHERE}
    bench.store = Bucket.on_s3(s3_server, s3_bucket).environ["MAYFLY_STORE_URL"]
    bench.release("v1", JOB)
    ran = bench.run(store__credentials="ssm:/mayfly/store", secrets__source="ssm:/mayfly/jobs")
    assert delivered(bench, s3_server, s3_bucket, ran, "secretive/file")
    assert "canary-token" not in ran.stderr


def test_a_parameter_store_that_is_late_costs_the_run_nothing(
    bench: Bench,
    s3_server: S3Server,
    s3_bucket: str,
    aws: dict[str, str],
    parameters: Callable[..., None],
) -> None:
    """SSM is away while the machine boots: bucket and secrets are asked for again, within the run's time."""
    parameters(
        "/mayfly/store",
        access_key_id=s3_server.access_key,
        secret_access_key=s3_server.secret_key,
    )
    parameters("/mayfly/jobs", TOKEN="canary-token")
    bench.store = Bucket.on_s3(s3_server, s3_bucket).environ["MAYFLY_STORE_URL"]
    bench.release("v1", JOB)
    # boto3 itself sends each of the two requests up to three times.
    with LateAws(aws["AWS_ENDPOINT_URL"], away=8) as late:
        bench.environ |= aws | {
            "MAYFLY_STORE_ENDPOINT": s3_server.url,
            "MAYFLY_BROWSER_URL": NOWHERE,
            "AWS_ENDPOINT_URL_SSM": late.url,
        }
        ran = bench.run(store__credentials="ssm:/mayfly/store", secrets__source="ssm:/mayfly/jobs")
    assert delivered(bench, s3_server, s3_bucket, ran, "secretive/file")
    assert ran.events("store.retry") + ran.events("secrets.retry")


@pytest.mark.long
def test_a_role_whose_keys_are_late_costs_the_run_nothing(
    bench: Bench, s3_server: S3Server, s3_bucket: str
) -> None:
    """The bucket's keys are the role's, and the metadata service has none yet."""
    bench.store = Bucket.on_s3(s3_server, s3_bucket).environ["MAYFLY_STORE_URL"]
    bench.release("v1", PLAIN)
    with Metadata() as machine:
        bench.environ |= {
            "MAYFLY_STORE_ENDPOINT": s3_server.url,
            "MAYFLY_BROWSER_URL": NOWHERE,
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": machine.url,
            "AWS_EC2_METADATA_DISABLED": "false",
        }
        with bench.running() as process:
            wait_until(
                lambda: any("/iam/" in path for _, path, _ in machine.requests),
                seconds=60,
                what="the question for keys",
            )
            machine.credentials = (s3_server.access_key, s3_server.secret_key)
            ran = finish(process)
    assert delivered(bench, s3_server, s3_bucket, ran, "plain/file")


def test_without_any_keys_the_run_is_kept(bench: Bench, s3_server: S3Server) -> None:
    """No credentials at all: the jobs run, the spool keeps their files, and the reason is told."""
    bench.environ |= {
        "MAYFLY_STORE_ENDPOINT": s3_server.url,
        "MAYFLY_BROWSER_URL": NOWHERE,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    bench.store = "s3://nobody/prod"
    bench.release("v1", PLAIN)
    ran = bench.run()
    assert ran.code == 6
    assert "credentials" in ran.outcome["undelivered"]
    assert [path.name for path in bench.spool] == [ran.run_id]
