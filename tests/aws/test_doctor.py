"""`mayfly doctor --aws`: what will not work tonight is told before, each with its remedy."""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

import pytest
from botocore.exceptions import ClientError
from click.testing import Result

from agent.config.overrides import Loaded
from agent.config.settings import Settings
from agent.doctor.aws import aws_checks
from agent.doctor.cloud import CloudError, Deployment
from agent.doctor.examine import State, examine
from agent.machine.guard import DEADMAN_SECONDS
from tests.aws.stack import IMAGE, Stack
from tests.doctor.installations import Ask
from tests.parts.aws import ACCOUNT, PERSON, REGION, Aws
from tests.parts.awsproxy import Answer, AwsProxy
from tests.parts.command import call
from tests.parts.rights import Call, allowed

CONFIG = """
[store]
url = "s3://scraped/prod"
credentials = "ssm:/mayfly/store"
[secrets]
source = "ssm:/mayfly/jobs"
"""
SECRETS = {
    "/mayfly/store": {"access_key_id": "a", "secret_access_key": "b"},
    "/mayfly/jobs": {"TOKEN": "c"},
}
UNNAMED = re.compile(rb"<member>(?:(?!<LogicalResourceId>|</member>).)*</member>", re.DOTALL)
"""What the stand-in says of a resource whose condition is not met; CloudFormation says nothing."""
SCHEDULES = ("LaunchSchedule", "GuardSchedule")


class Account(AwsProxy):
    """The stand-in with what it has not: simulated policies, quotas of EC2, and schedules as resources of a stack.

    Attributes:
        quotas: vCPUs by quota's code; what is not there was never changed and has AWS's default.
        refuse: Actions that the person who asks may not call.
    """

    def __init__(self, aws: Aws, stack: Stack | None) -> None:
        super().__init__(aws.url)
        self._stack = stack
        self.quotas: dict[str, float] = {}
        self.refuse: set[str] = set()

    def answer(self, body: bytes) -> Answer | None:
        """Answer in the place of IAM and Service Quotas."""
        if body.startswith(b"{"):
            return self._quota(json.loads(body))
        asked = {key: values[0] for key, values in parse_qs(body.decode()).items()}
        if asked["Action"] in self.refuse:
            return 403, _fault("AccessDenied", "not you")
        if asked["Action"] == "SimulatePrincipalPolicy":
            return 200, self._simulated(asked)
        return None

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Add the schedules to the stack's resources, and leave out what a condition left out."""
        if b"Action=DescribeStackResources&" not in request or self._stack is None:
            return answer
        rows = "".join(
            f"<member><LogicalResourceId>{name}</LogicalResourceId>"
            f"<PhysicalResourceId>{self._stack.name}-{name}</PhysicalResourceId>"
            "<ResourceType>AWS::Scheduler::Schedule</ResourceType></member>"
            for name in SCHEDULES
        )
        made = UNNAMED.sub(b"", answer)
        return made.replace(b"</StackResources>", f"{rows}</StackResources>".encode())

    def _quota(self, asked: Mapping[str, Any]) -> Answer | None:
        if "QuotaCode" not in asked:
            return None
        code, known = asked["QuotaCode"], self.quotas.get(asked["QuotaCode"])
        # The protocol's target is in a header; only the question for the account's own value comes first.
        first = not any(code.encode() in body for body in self.bodies[:-1])
        if known is None and first:
            return 400, json.dumps({"__type": "NoSuchResourceException"}).encode()
        value = 5.0 if known is None else known
        return 200, json.dumps({"Quota": {"QuotaCode": code, "Value": value}}).encode()

    def _simulated(self, asked: Mapping[str, str]) -> bytes:
        assert self._stack is not None
        call = Call(asked["ActionNames.member.1"], asked["ResourceArns.member.1"])
        decision = allowed(self._stack.policies("InstanceRole"), call)
        said = "allowed" if decision.allowed else "implicitDeny"
        row = (
            f"<EvalActionName>{call.action}</EvalActionName>"
            f"<EvalResourceName>{call.resource}</EvalResourceName><EvalDecision>{said}</EvalDecision>"
        )
        return (
            '<SimulatePrincipalPolicyResponse xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
            "<SimulatePrincipalPolicyResult><IsTruncated>false</IsTruncated><EvaluationResults>"
            f"<member>{row}</member></EvaluationResults></SimulatePrincipalPolicyResult>"
            "</SimulatePrincipalPolicyResponse>"
        ).encode()


def _fault(code: str, message: str) -> bytes:
    return (
        f"<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code>"
        f"<Message>{escape(message)}</Message></Error></ErrorResponse>"
    ).encode()


@dataclass
class Laptop:
    """A computer from which the stack is looked at."""

    aws: Aws
    folder: Path
    account: Account
    stack: Stack
    config: str = CONFIG
    environ: dict[str, str] = field(default_factory=dict)

    def findings(self, *words: str) -> dict[str, dict[str, str]]:
        """Run the command and return what it found, by check."""
        done = self.run("--json", "--stack", self.stack.name, *words)
        assert done.exit_code == 4, (done.stdout, done.stderr)
        return {one["check"]: one for one in json.loads(done.stdout)}

    def run(self, *words: str) -> Result:
        """Run the command."""
        path = self.folder / "agent.toml"
        path.write_text(self.config)
        words = ("doctor", "--aws", "--config", str(path), *words)
        return call(*words, environ=self.environment())

    def environment(self) -> dict[str, str]:
        """Keys and region of a person."""
        return {
            **self.aws.environ,
            **PERSON,
            "AWS_ENDPOINT_URL": self.account.url,
            # It speaks another protocol, which the proxy does not.
            "AWS_ENDPOINT_URL_SCHEDULER": self.aws.url,
            "HOME": str(self.folder),
            **self.environ,
        }


@pytest.fixture(scope="module")
def stack(aws_stand_in: Aws) -> Stack:
    """A stack that will do its work, but for its template: the stand-in's is the reduced one."""
    return Stack(aws_stand_in)


@pytest.fixture
def laptop(aws_stand_in: Aws, stack: Stack, tmp_path: Path) -> Iterator[Laptop]:
    """A computer with keys, and everything that the stack needs."""
    ssm = aws_stand_in.client("ssm")
    for path, values in SECRETS.items():
        for name, value in values.items():
            ssm.put_parameter(
                Name=f"{path}/{name}", Value=value, Type="SecureString", Overwrite=True
            )
    for name in SCHEDULES:
        schedule(stack, name)
    with Account(aws_stand_in, stack) as account:
        yield Laptop(aws_stand_in, tmp_path, account, stack)
    for path, values in SECRETS.items():
        ssm.delete_parameters(Names=[f"{path}/{name}" for name in values])


def schedule(stack: Stack, name: str, state: str = "ENABLED") -> None:
    """Make or change a schedule of a stack."""
    client = stack.aws.client("scheduler")
    given = {
        "Name": f"{stack.name}-{name}",
        "ScheduleExpression": "cron(0 3 * * ? *)",
        "ScheduleExpressionTimezone": "Asia/Tokyo",
        "FlexibleTimeWindow": {"Mode": "OFF"},
        "State": state,
        "Target": {"Arn": "arn:aws:scheduler:::x", "RoleArn": f"arn:aws:iam::{ACCOUNT}:role/x"},
    }
    names = [row["Name"] for row in client.list_schedules()["Schedules"]]
    (client.update_schedule if given["Name"] in names else client.create_schedule)(**given)


def test_a_stack_that_will_do_its_work(laptop: Laptop) -> None:
    """Everything is looked at; only the template differs, because the stand-in's is another."""
    found = laptop.findings()
    assert {name: one["state"] for name, one in found.items()} == {
        "account": "ok",
        "stack": "ok",
        "template": "failed",
        "image": "ok",
        "configuration": "ok",
        "parameters": "ok",
        "role": "ok",
        "schedules": "ok",
        "quota": "ok",
    }, found
    assert found["template"]["remedy"] == "make deploy"
    assert ACCOUNT in found["account"]["detail"]
    assert REGION in found["account"]["detail"]
    assert IMAGE in found["image"]["detail"]
    assert "/mayfly/store (access_key_id, secret_access_key)" in found["parameters"]["detail"]
    assert "Asia/Tokyo" in found["schedules"]["detail"]
    assert found["quota"]["detail"] == "5 of spot; a machine has 2 vCPUs"


def test_the_stacks_form_stands_above_the_file(laptop: Laptop) -> None:
    """What the machine is launched with counts, its faults too."""
    told = Stack(
        laptop.aws, StoreUrl="s3://scraped/test", Config="secrets.source = 'ssm:/other/jobs'"
    )
    found = laptop.findings("--stack", told.name)
    assert found["configuration"]["detail"].endswith("into s3://scraped/test")
    assert found["parameters"]["detail"] == "secrets.source: /other/jobs has no parameters"
    wrong = Stack(laptop.aws, Config="limits.jobs = 'many'")
    fault = laptop.findings("--stack", wrong.name)["configuration"]
    assert "user data: limits.jobs" in fault["detail"]
    assert "Config" in fault["remedy"]


def test_the_guard_must_leave_a_run_its_time(laptop: Laptop) -> None:
    """Its deadline is no sooner than the machine's own, an hour after limits.run; the defaults fit exactly."""
    long = {"Config": "[limits]\nrun = '5h'\n"}
    cases: list[tuple[dict[str, str], str]] = [
        ({"DeadlineMinutes": "179"}, "DeadlineMinutes=180 "),
        (long, "DeadlineMinutes=360 "),
        ({**long, "DeadlineMinutes": "360"}, ""),
    ]
    for given, remedy in cases:
        stack = Stack(laptop.aws, **given)
        found = laptop.findings("--stack", stack.name)["configuration"]
        assert found["state"] == ("failed" if remedy else "ok"), found
        assert remedy in found["remedy"]
    assert Settings().limits.run + DEADMAN_SECONDS == 180 * 60


def test_all_that_will_not_work_is_named_at_once_with_its_remedy(laptop: Laptop) -> None:
    """Missing parameters, rights, an image that is gone, a schedule that a pause left off, a new account's quota."""
    stack = Stack(laptop.aws, ImageId="ami-00000000000000000")
    laptop.config = CONFIG.replace("/mayfly/jobs", "/other/jobs") + (
        '[release]\ncredentials = "ssm:/mayfly/none"\n'
    )
    key = laptop.aws.client("kms").create_key()["KeyMetadata"]
    ssm = laptop.aws.client("ssm")
    ssm.put_parameter(Name="/other/jobs/A", Value="1", Type="SecureString", KeyId=key["KeyId"])
    ssm.delete_parameter(Name="/mayfly/store/secret_access_key")
    schedule(laptop.stack, "LaunchSchedule", "DISABLED")
    laptop.account.quotas["L-34B43A08"] = 1.0
    found = laptop.findings("--stack", stack.name)
    ssm.delete_parameter(Name="/other/jobs/A")
    details = {name: one["detail"] for name, one in found.items()}
    remedies = {name: one["remedy"] for name, one in found.items()}
    assert set(details["parameters"].splitlines()) == {
        "store.credentials: /mayfly/store has no secret_access_key",
        "release.credentials: /mayfly/none has no parameters",
    }
    assert "mayfly secrets set" in remedies["parameters"]
    # A path beside the stack's, and a key of the account's own: they are there, and the machine would be refused.
    assert "may not ssm:GetParametersByPath on " in details["role"]
    assert f"may not kms:Decrypt on {key['Arn']}" in details["role"]
    assert "ParameterPrefix" in remedies["role"]
    assert details["image"] == "ami-00000000000000000 is not in this region, or was removed"
    assert "make ami" in remedies["image"]
    assert details["schedules"] == "disabled: LaunchSchedule cron(0 3 * * ? *) Asia/Tokyo"
    assert remedies["schedules"] == "make deploy PARAMETERS=ScheduleState=ENABLED"
    assert details["quota"] == "spot: 1 vCPUs, a machine has 2"
    assert "L-34B43A08" in remedies["quota"]


def test_without_a_stack_nothing_else_is_asked(laptop: Laptop) -> None:
    """The remedy is to deploy; the other checks are skipped."""
    found = laptop.findings("--stack", "mayfly-none")
    assert "make deploy" in found["stack"]["remedy"]
    others = {one["state"] for name, one in found.items() if name not in {"account", "stack"}}
    assert others == {"skipped"}


def test_a_person_who_may_not_ask_is_told_which_right_to_get(laptop: Laptop) -> None:
    """The other checks go on."""
    laptop.account.refuse.add("SimulatePrincipalPolicy")
    found = laptop.findings()
    assert found["role"]["remedy"] == "allow this user iam:SimulatePrincipalPolicy"
    assert found["parameters"]["state"] == "ok"


def test_without_a_region_the_remedy_says_what_to_set(laptop: Laptop) -> None:
    """No traceback, and a table for people."""
    laptop.environ["AWS_REGION"] = ""
    done = laptop.run()
    assert done.exit_code == 4
    assert "AWS has no region" in done.stdout
    assert "-> set AWS_REGION" in done.stdout


async def test_the_checkout_is_compared_with_what_is_deployed(
    laptop: Laptop, installation: Ask
) -> None:
    """The same template is fine whatever its line ends; another is not, and a newer image is told."""
    text = f"Parameters:\n  ImageId: {{ Type: String, Default: {IMAGE} }}\n" + YAML
    name = f"plain-{uuid.uuid4().hex[:6]}"
    laptop.aws.client("cloudformation").create_stack(StackName=name, TemplateBody=text)
    (laptop.folder / "mayfly.yaml").write_text(text.replace("\n", " \n") + "\n")
    images = {REGION: {"x86_64": {"image": "ami-newer"}}}
    (laptop.folder / "ami.json").write_text(json.dumps(images))

    def configure(_: str | None) -> Loaded:
        return Loaded(Settings(), "none")

    for change, state in (("", State.OK), ("# changed\n", State.FAILED)):
        with (laptop.folder / "mayfly.yaml").open("a") as file:
            file.write(change)
        checks = aws_checks(Deployment(laptop.environment(), name, laptop.folder, configure))
        found = {one.name: one for one in await examine(installation(), checks)}
        assert found["template"].state is state, found
        assert "ami.json has ami-newer, `make deploy` takes it" in found["image"].detail


YAML = """
  InstanceType: { Type: String, Default: t3.medium }
Resources:
  DeadLetters: { Type: AWS::SQS::Queue }
"""


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        ("ExpiredToken", "log in again"),
        ("AuthFailure", "log in again"),
        ("Throttling", "try again in a minute"),
        ("ValidationError", "the service's reference"),
        ("AccessDenied", "allow this user cloudformation:DescribeStacks"),
    ],
)
async def test_a_refusal_has_the_remedy_of_its_code(code: str, remedy: str, tmp_path: Path) -> None:
    """Keys are blamed only where they are to blame."""

    def refuse(_: object) -> None:
        raise ClientError({"Error": {"Code": code, "Message": "no"}}, "DescribeStacks")

    environ = {"AWS_REGION": "eu-central-1", "AWS_EC2_METADATA_DISABLED": "true"}
    deployment = Deployment(environ, "mayfly", tmp_path, lambda _: Loaded(Settings(), "test"))
    with pytest.raises(CloudError) as caught:
        await deployment.ask("cloudformation", refuse)
    assert remedy in caught.value.remedy
