"""The deployment's template, made real as far as the stand-in for AWS knows its parts.

It knows neither the Scheduler nor custom resources: what those would send stands in the outputs of the stack, so that
the stand-in itself resolves the template's own words.
"""

import ast
import base64
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from cfnlint.decode import decode

from tests.aws.ec2 import Ec2, SpotRequest, SpotRequests
from tests.parts.aws import ACCOUNT, PERSON, REGION, Aws
from tests.parts.ec2_rights import template_data
from tests.parts.rights import Call, Decision

TEMPLATE = Path(__file__).parents[2] / "deploy/aws/mayfly.yaml"
IMAGE = "ami-12c6146b"
"""An image that the stand-in knows."""
SCHEDULED = "2026-11-22T18:00:00Z"
GUARD = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:guard"
CONTEXT = "<aws.scheduler.scheduled-time>"


def template(path: Path = TEMPLATE) -> dict[str, Any]:
    """A template, with intrinsic functions in their long form."""
    parsed, matches = decode(str(path))
    assert not matches
    document: dict[str, Any] = json.loads(json.dumps(parsed))
    return document


def reduced(document: dict[str, Any]) -> dict[str, Any]:
    """The template without what the stand-in has not, and with each schedule's input, target and role as outputs."""
    resources = dict(document["Resources"])
    outputs: dict[str, Any] = dict(document["Outputs"])
    for name, resource in document["Resources"].items():
        if resource["Type"] == "AWS::Scheduler::Schedule":
            target = resource["Properties"]["Target"]
            condition = {"Condition": resource["Condition"]} if "Condition" in resource else {}
            for what in ("Input", "Arn"):
                value = target[what]
                if value == {"Fn::GetAtt": ["Guard", "Arn"]}:
                    value = GUARD
                outputs[f"{name}{what}"] = {**condition, "Value": value}
        if resource["Type"] == "AWS::IAM::Role":
            condition = {"Condition": resource["Condition"]} if "Condition" in resource else {}
            outputs[name] = {**condition, "Value": {"Ref": name}}
        if resource["Type"].startswith(
            ("AWS::Scheduler", "Custom::", "AWS::Lambda", "AWS::CloudWatch")
        ):
            del resources[name]
    text = json.dumps({**document, "Resources": resources, "Outputs": outputs})
    # The function itself is not made: its name stands for its ARN.
    arn = json.dumps({"Fn::GetAtt": ["Guard", "Arn"]})
    text = text.replace(arn, f'"{GUARD}"').replace("${Guard.Arn}", GUARD)
    made: dict[str, Any] = json.loads(text)
    for resource in made["Resources"].values():
        resource.pop("DependsOn", None)
    # The stand-in does not look into a launch template for the image of a machine of the stack itself.
    made["Resources"]["Instance"]["Properties"] |= {
        "ImageId": {"Ref": "ImageId"},
        "InstanceType": {"Ref": "InstanceType"},
    }
    return made


def created(
    aws: Aws, name: str, document: dict[str, Any], given: Mapping[str, str]
) -> dict[str, str]:
    """Make a stack of a template and its parameters; return its outputs."""
    cloud = aws.client("cloudformation")
    cloud.create_stack(
        StackName=name,
        TemplateBody=json.dumps(document),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": key, "ParameterValue": one} for key, one in given.items()],
    )
    (found,) = cloud.describe_stacks(StackName=name)["Stacks"]
    assert found["StackStatus"] == "CREATE_COMPLETE", found
    return {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]}


def policies_of(aws: Aws, role: str) -> list[dict[str, Any]]:
    """Return a role's own policies, as the stand-in gives them back."""
    iam = aws.client("iam")
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    found = [iam.get_role_policy(RoleName=role, PolicyName=one)["PolicyDocument"] for one in names]
    # A policy that is a resource of its own comes back as the text of a Python literal from the stand-in.
    return [ast.literal_eval(one) if isinstance(one, str) else one for one in found]


class Stack:
    """A stack in the stand-in.

    Attributes:
        name: Its name.
        outputs: Its outputs, with the schedules' inputs.
        spot: The spot requests of its machines.
        capacity: Whether a fleet gets a machine.
        judged: What its roles asked for of EC2, and what IAM said.
    """

    def __init__(self, aws: Aws, **parameters: str) -> None:
        self.aws = aws
        self.name = f"mayfly-{uuid.uuid4().hex[:6]}"
        given = {"ImageId": IMAGE, **parameters}
        self.outputs = created(aws, self.name, reduced(template()), given)
        self.spot: SpotRequests = {}
        self.capacity = True
        self.judged: list[tuple[str, Call, Decision]] = []
        if "Instance" in self.outputs:
            self.spot[self.outputs["Instance"]] = self.request_of_template()

    def request_of_template(self) -> SpotRequest:
        """The request that a launch from the template makes, where the template itself is on spot."""
        data = self.launch_data
        tags = {
            tag["Key"]: tag["Value"]
            for one in data["TagSpecifications"]
            if one["ResourceType"] == "spot-instances-request"
            for tag in one["Tags"]
        }
        return SpotRequest(data["InstanceMarketOptions"]["SpotOptions"]["SpotInstanceType"], tags)

    @property
    def launch_data(self) -> dict[str, Any]:
        """What its launch template says."""
        return template_data(self.aws.client("ec2"), self.outputs["LaunchTemplate"], "$Latest")

    @property
    def user_data(self) -> str:
        """What its machines are launched with."""
        return base64.b64decode(self.launch_data["UserData"]).decode()

    @contextmanager
    def ec2_of(self, role: str) -> Iterator[Any]:
        """A client of EC2 with a role's rights, which must suffice."""
        with self._judged(role) as ec2:
            yield self.aws.client("ec2", ec2.url)

    @contextmanager
    def _judged(self, role: str) -> Iterator[Ec2]:
        policies = self.policies(role)
        with Ec2(self.aws, policies, self.spot, capacity=self.capacity) as ec2:
            try:
                yield ec2
            finally:
                self.judged += [(role, *one) for one in ec2.judged]

    def input_of(self, schedule: str) -> Any:
        """What a schedule sends at `SCHEDULED`."""
        return json.loads(self.outputs[f"{schedule}Input"].replace(CONTEXT, SCHEDULED))

    def policies(self, role: str) -> list[dict[str, Any]]:
        """The policies of a role, as the stand-in has them."""
        return policies_of(self.aws, self.outputs[role])

    def machine(self, name: str) -> dict[str, Any]:
        """A machine as EC2 describes it."""
        (page,) = self.aws.client("ec2").describe_instances(InstanceIds=[name])["Reservations"]
        (found,) = page["Instances"]
        return dict(found)

    def machines(self) -> dict[str, str]:
        """State by id, of this stack's machines."""
        pages = self.aws.client("ec2").describe_instances(
            Filters=[{"Name": "tag:mayfly-stack", "Values": [self.name]}]
        )
        return {
            one["InstanceId"]: one["State"]["Name"]
            for page in pages["Reservations"]
            for one in page["Instances"]
        }

    def guard(self, event: dict[str, Any], **changes: Callable[..., Any]) -> Any:
        """Run the template's own guard on an event, against the stand-in.

        Args:
            event: What the schedule or CloudFormation sends.
            changes: Functions of the guard that stand in for its own, such as an `age`.
        """
        code = template()["Resources"]["Guard"]["Properties"]["Code"]["ZipFile"]
        with self._judged("GuardRole") as ec2:
            variables = {
                **self.aws.environ,
                # What Lambda sets: region and keys of the role.
                **PERSON,
                "AWS_DEFAULT_REGION": REGION,
                "AWS_REGION": REGION,
                "AWS_ENDPOINT_URL_EC2": ec2.url,
                "STACK": self.name,
                "ACCOUNT": ACCOUNT,
            }
            with _environment(variables), redirect_stdout(io.StringIO()):
                module: dict[str, Any] = {"__name__": "index"}
                exec(compile(code, "index.py", "exec"), module)  # noqa: S102 -- the template's own code is under test
                module.update(changes)
                return module["handler"](event, None)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Run with some variables of the environment."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
