"""What the machine asks of SSM, EC2 and S3 is judged by the role that the template gives it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import structlog

from agent.base.errors import SecretsError
from agent.bucket.address import bucket_at
from agent.bucket.store import PART_BYTES, Bucket
from agent.config.credentials import Credentials
from agent.config.settings import Secrets, Store
from agent.machine.prices import spot_price
from agent.secrets.sources import job_secrets
from tests.aws.stack import Stack
from tests.aws.test_prices import FACTS
from tests.parts.aws import ACCOUNT, REGION, Aws
from tests.parts.awsproxy import Answer, AwsProxy
from tests.parts.faultproxy import FaultProxy, Seen
from tests.parts.rights import Call, Policies, allowed

SSM = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"


class RoleAws(AwsProxy):
    """SSM and EC2 as a machine's role meets them.

    Attributes:
        asked: The actions, and whether each was allowed.
    """

    def __init__(self, aws: Aws, policies: Policies) -> None:
        super().__init__(aws.url)
        self._policies = policies
        self.asked: list[tuple[str, bool]] = []

    def answer(self, body: bytes) -> Answer | None:
        """Refuse what the role has no right to."""
        call = call_of(body)
        decision = allowed(self._policies, call)
        self.asked.append((call.action, decision.allowed))
        if decision.allowed:
            return None
        return 400, json.dumps({"__type": "AccessDeniedException", "message": str(call)}).encode()


def call_of(body: bytes) -> Call:
    """The question that a request of the machine is to IAM: the query protocol of EC2, else SSM's JSON."""
    if body.startswith(b"{"):
        return Call("ssm:GetParametersByPath", SSM + json.loads(body)["Path"])
    return Call(f"ec2:{parse_qs(body.decode())['Action'][0]}")


@pytest.fixture(scope="module")
def role(aws_stand_in: Aws) -> Policies:
    """The machine's, with a bucket in the account."""
    return Stack(aws_stand_in, BucketName="scraped").policies("InstanceRole")


async def test_secrets_and_prices_are_what_the_role_may_read(
    aws_stand_in: Aws, role: Policies, parameters: Callable[..., None]
) -> None:
    """The agent's own requests, with the keys that a machine has; a path beside the stack's is refused and named."""
    parameters("/mayfly/jobs", TOKEN="1")
    parameters("/mayflyer/jobs", TOKEN="2")
    with RoleAws(aws_stand_in, role) as asked:
        environ = aws_stand_in.environ | {"AWS_ENDPOINT_URL": asked.url}
        assert await job_secrets(Secrets(source="ssm:/mayfly/jobs"), environ) == {"TOKEN": "1"}
        with pytest.raises(
            SecretsError, match=r"AccessDeniedException .* /mayflyer/jobs"
        ) as caught:
            await job_secrets(Secrets(source="ssm:/mayflyer/jobs"), environ)
        await spot_price(FACTS, environ=environ, log=structlog.get_logger())
        assert "ssm:GetParametersByPath" in caught.value.remedy
        assert set(asked.asked) == {
            ("ssm:GetParametersByPath", True),
            ("ssm:GetParametersByPath", False),
            ("ec2:DescribeSpotPriceHistory", True),
        }


async def test_the_bucket_is_used_as_the_role_may(
    s3_proxy: FaultProxy, s3_bucket: str, role: Policies
) -> None:
    """Every request that the agent's client sends, for each thing it can do, is one that the role has a right to."""
    server = s3_proxy.store
    store = Store(url=f"s3://{s3_bucket}/prod", endpoint=s3_proxy.url, region="us-east-1")
    keys = Credentials(server.access_key, server.secret_key)
    bucket = Bucket.open(bucket_at(store, Path()), keys)
    await bucket.put("runs/a", b"1")
    await bucket.put_once("runs/b", b"2")
    await bucket.put_stream("runs/d", iter([bytes(PART_BYTES)] * 2 + [b"4"]))
    with pytest.raises(OSError, match="the disk is gone"):
        await bucket.put_stream("runs/e", cut_off())
    assert await bucket.get("runs/a") == b"1"
    assert await bucket.size("runs/d") == 2 * PART_BYTES + 1
    assert len([one async for one in bucket.list("runs/")]) == 3
    await bucket.put("doctor/x", b"5")
    await bucket.delete(["doctor/x"])
    calls = [call for seen in s3_proxy.seen for call in calls_of(seen, "prod/doctor/x")]
    assert {call.action for call in calls} == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
    }
    assert [call for call in calls if not allowed(role, call).allowed] == []


def cut_off() -> Iterator[bytes]:
    """Two parts, then a disk that fails."""
    yield from [bytes(PART_BYTES)] * 2
    raise OSError("the disk is gone")


def calls_of(seen: Seen, deleted: str) -> Iterator[Call]:
    """The questions that a request is to IAM, as S3's reference has them; the bucket is `scraped`."""
    url = urlsplit(seen.path)
    query = parse_qs(url.query, keep_blank_values=True)
    key = unquote(url.path).removeprefix("/").partition("/")[2]
    everything = "arn:aws:s3:::scraped"
    if "delete" in query:
        yield Call("s3:DeleteObject", f"{everything}/{deleted}")
    elif not key:
        yield Call("s3:ListBucket", everything)
    else:
        action = {
            "GET": "GetObject",
            "HEAD": "GetObject",
            "PUT": "PutObject",
            "POST": "PutObject",
            "DELETE": "AbortMultipartUpload" if "uploadId" in query else "DeleteObject",
        }[seen.method]
        yield Call(f"s3:{action}", f"{everything}/{key}")
