"""The template for AWS Batch: sound, and its own words start an array whose children know which shard they are."""

import json
import uuid
from pathlib import Path

import pytest

from agent.batch.shards import identify, shard_hints
from agent.contract.ids import Shard
from agent.machine.aws import aws_session
from agent.machine.metadata import metadata_endpoint
from tests.aws.stack import CONTEXT, SCHEDULED, created, template
from tests.deploy.tools import understood
from tests.parts.aws import Aws
from tests.parts.loopback_http import LoopbackHttp, QuietHandler

TEMPLATE = Path(__file__).parents[2] / "deploy/aws/batch.yaml"
PARAMETERS = {
    "Image": "registry.example.org/mayfly-fleet@sha256:" + "0" * 64,
    "Repository": "https://github.com/me/scrapers.git",
    "StoreUrl": "s3://scraped/prod",
    "StoreEndpoint": "https://s3.ap-northeast-2.wasabisys.com",
    "BrowserUrl": "http://selenium-hub.internal:4444",
}


def test_nothing_runs_between_two_nights() -> None:
    """Spot machines only, down to none; the schedule has few retries and a dead-letter queue."""
    resources = template(TEMPLATE)["Resources"]
    machines = resources["Machines"]["Properties"]["ComputeResources"]
    assert (machines["Type"], machines["MinvCpus"], machines["DesiredvCpus"]) == ("SPOT", 0, 0)
    target = resources["Schedule"]["Properties"]["Target"]
    assert target["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 900
    assert target["DeadLetterConfig"]
    assert resources["Schedule"]["Properties"]["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_a_machine_that_was_taken_back_costs_a_shard_an_attempt_and_no_result() -> None:
    """What may get better is tried again; what has told how it ended is not. Batch allows five rules."""
    strategy = template(TEMPLATE)["Resources"]["Shard"]["Properties"]["RetryStrategy"]
    rules = strategy["EvaluateOnExit"]
    assert len(rules) <= 5
    assert rules[0] == {"OnStatusReason": "Host EC2*", "Action": "RETRY"}
    assert [one["OnExitCode"] for one in rules[1:-1]] == ["5", "6", "7"]
    assert rules[-1] == {"OnReason": "*", "Action": "EXIT"}


@pytest.fixture
def outputs(aws_stand_in: Aws) -> dict[str, str]:
    """The stack in the stand-in, without the Scheduler, whose input is an output."""
    document = template(TEMPLATE)
    target = document["Resources"].pop("Schedule")["Properties"]["Target"]
    document["Outputs"] |= {"Input": {"Value": target["Input"]}, "Arn": {"Value": target["Arn"]}}
    for resource in document["Resources"].values():
        resource.pop("DependsOn", None)
    # Without one AWS takes the service-linked role, which the stand-in does not have.
    machines = document["Resources"]["Machines"]["Properties"]
    machines["ServiceRole"] = {"Fn::GetAtt": ["MachineRole", "Arn"]}
    return created(aws_stand_in, f"fleet-{uuid.uuid4().hex[:6]}", document, PARAMETERS)


class _Role(QuietHandler):
    """What ECS gives a container for its role's keys."""

    def do_GET(self) -> None:  # noqa: N802 -- the name is the library's
        keys = {"AccessKeyId": "task", "SecretAccessKey": "s", "Token": "t"}
        self.answer(200, json.dumps({**keys, "Expiration": "2099-01-01T00:00:00Z"}).encode())


def test_a_shard_neither_reaches_nor_asks_the_machines_metadata_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch gives it the machine's network, so a rule refuses its user; the role's own keys it gets all the same."""
    resources = template(TEMPLATE)["Resources"]
    container = resources["Shard"]["Properties"]["ContainerProperties"]
    data = resources["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    user = container["User"].partition(":")[0]
    rule = f"iptables -w 10 -I OUTPUT -d 169.254.169.254 -m owner --uid-owner {user} -j REJECT\n"
    assert rule in data["UserData"]["Fn::Base64"]
    environ = {
        one["Name"]: one["Value"]
        for one in container["Environment"]
        if isinstance(one.get("Value"), str)
    }
    (tmp_path / "sys_vendor").write_text("Amazon EC2\n")
    assert metadata_endpoint({}, tmp_path) is not None
    assert metadata_endpoint(environ, tmp_path) is None
    with LoopbackHttp(_Role) as ecs:
        # Of these boto3 looks into the process's own environment.
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{ecs.url}/keys")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", environ["AWS_EC2_METADATA_DISABLED"])
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        found = aws_session(environ).get_credentials()
    assert found is not None
    assert found.access_key == "task"


def test_the_schedules_input_submits_an_array(aws_stand_in: Aws, outputs: dict[str, str]) -> None:
    """What the schedule sends is a job of the stack's queue and definition, with one child for each shard."""
    assert outputs["Arn"].endswith(":aws-sdk:batch:submitJob")
    sent = json.loads(outputs["Input"].replace(CONTEXT, SCHEDULED))
    assert sent["ArrayProperties"] == {"Size": 8}
    batch = aws_stand_in.client("batch")
    (queue,) = batch.describe_job_queues(jobQueues=[sent["JobQueue"]])["jobQueues"]
    (definition,) = batch.describe_job_definitions(jobDefinitions=[sent["JobDefinition"]])[
        "jobDefinitions"
    ]
    assert queue["state"] == "ENABLED"
    container = definition["containerProperties"]
    assert container["image"] == PARAMETERS["Image"]
    environ = {one["name"]: one["value"] for one in container["environment"]}
    environ |= {one["Name"]: one["Value"] for one in sent["ContainerOverrides"]["Environment"]}
    settings = understood(environ)
    assert settings.store.credentials == "ssm:/mayfly/store"
    for index in range(8):
        told = environ | {
            "AWS_BATCH_JOB_ARRAY_INDEX": str(index),
            "AWS_BATCH_JOB_ARRAY_SIZE": "8",
            "AWS_BATCH_JOB_ID": f"{uuid.uuid4()}:{index}",
        }
        shard = identify(shard_hints(None, None, told), None)
        assert shard == Shard("20261122T180000Z", index, 8)
