"""Rights: which calls each role may make, by which statement, and that nothing is granted which no call needs."""

import functools
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple

import pytest

from tests.aws.stack import TEMPLATE, Stack, created, policies_of, template
from tests.aws.test_batch import PARAMETERS as BATCH
from tests.parts.aws import ACCOUNT, REGION, Aws
from tests.parts.rights import (
    Call,
    Context,
    Decision,
    NotUnderstood,
    Policies,
    allowed,
    differences,
    lacking,
    listed,
    statements,
    type_of,
)

FLEET = TEMPLATE.with_name("batch.yaml")
STACKS: Mapping[str, Mapping[str, str]] = {
    "launch": {"LastResortExpression": "cron(20 3 * * ? *)", "BucketName": "scraped"},
    "spread": {"Spread": "yes", "LastResortExpression": "cron(20 3 * * ? *)"},
    "stopped": {"Mode": "stopped", "LogRetentionDays": "14"},
}
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
SSM = f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter"
SQS = f"arn:aws:sqs:{REGION}:{ACCOUNT}"
LOGS = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group"
ROLE = f"arn:aws:iam::{ACCOUNT}:role"
LAMBDA = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function"
BUDGET = f"arn:aws:budgets::{ACCOUNT}:budget"
JOBS = f"arn:aws:batch:{REGION}:{ACCOUNT}"
IMAGE = f"arn:aws:ec2:{REGION}::image/ami-12c6146b"

TEMPLATES = f"{EC2}:launch-template"
NAMED_BY_TEMPLATE: Context = {
    "ec2:LaunchTemplate": TEMPLATES + "/{LaunchTemplate}",
    "ec2:IsLaunchTemplateResource": "true",
}
NAMED_BESIDE_IT: Context = {**NAMED_BY_TEMPLATE, "ec2:IsLaunchTemplateResource": "false"}
OF_ANOTHER: Context = {
    "ec2:LaunchTemplate": f"{TEMPLATES}/lt-0",
    "ec2:IsLaunchTemplateResource": "true",
}
OF_NONE: Context = {"ec2:LaunchTemplate": None, "ec2:IsLaunchTemplateResource": "false"}
LATER: Context = {"ec2:CreateAction": None, "aws:TagKeys": ["mayfly-stack"]}
SLOT: Context = {"ec2:CreateAction": None, "aws:TagKeys": ["mayfly-slot"]}
TO_EC2: Context = {"iam:PassedToService": "ec2.amazonaws.com"}
TO_LAMBDA: Context = {"iam:PassedToService": "lambda.amazonaws.com"}
TAGGED: Context = {"ec2:ResourceTag/mayfly-stack": "{stack}"}
OF_ANOTHER_STACK: Context = {"ec2:ResourceTag/mayfly-stack": "mayfly-other"}
ANY: Context = {}


UNBOUND = re.compile(r"ec2:Describe\w+|ec2:CreateFleet|ecr:GetAuthorizationToken")


class Row(NamedTuple):
    """A call, and the statement that allows it; without one it is refused."""

    stack: str
    role: str
    action: str
    resource: str
    context: Context = ANY
    statement: str = ""


def rows_of_machine(stack: str) -> Iterator[Row]:
    """The machine reads its secrets and prices, and pulls images of its account."""
    row = functools.partial(Row, stack, "InstanceRole")
    for path in ("/mayfly", "/mayfly/store", "/mayfly/jobs"):
        yield row("ssm:GetParametersByPath", SSM + path, ANY, "ReadSecrets")
    for path in ("/mayflyer/store", "/other"):
        yield row("ssm:GetParametersByPath", SSM + path)
    yield row(
        "ssm:PutParameter", f"{SSM}/mayfly/store", {"ssm:Overwrite": None, "ssm:Policies": None}
    )
    yield row("ec2:DescribeSpotPriceHistory", "*", ANY, "ReadPrices")
    yield row("ecr:GetAuthorizationToken", "*", ANY, "LogInToEcr")
    for action in ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"):
        for region in (REGION, "us-east-1"):
            yield row(
                action, f"arn:aws:ecr:{region}:{ACCOUNT}:repository/me/x", ANY, "PullOwnImages"
            )
        yield row(action, f"arn:aws:ecr:{REGION}:999999999999:repository/me/x")
    yield row("ecr:PutImage", f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/me/x")
    yield row("ec2:DescribeInstances", "*")
    yield row("ec2:RunInstances", f"{EC2}:instance/*", NAMED_BESIDE_IT)
    yield row("ec2:CreateTags", f"{EC2}:instance/i-0", SLOT)
    yield row("iam:PassRole", ROLE + "/{InstanceRole}", TO_EC2)


def rows_of_bucket(stack: str, role: str) -> Iterator[Row]:
    """Runs are put into the bucket, and none is deleted."""
    row = functools.partial(Row, stack, role)
    yield row("s3:ListBucket", "arn:aws:s3:::scraped", ANY, "ListBucket")
    yield row("s3:ListBucket", "arn:aws:s3:::private")
    for action in ("s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"):
        yield row(action, "arn:aws:s3:::scraped/prod/runs/1/a.json", ANY, "UseBucket")
        yield row(action, "arn:aws:s3:::private/a")
    yield row("s3:DeleteObject", "arn:aws:s3:::scraped/prod/runs/1/a.json")


def rows_of_doctor() -> Iterator[Row]:
    """What `mayfly doctor` wrote on the machine it also takes away."""
    for key in ("doctor/x", "prod/doctor/x"):
        resource = f"arn:aws:s3:::scraped/{key}"
        yield Row(
            "launch", "InstanceRole", "s3:DeleteObject", resource, ANY, "RemoveWhatDoctorWrote"
        )
    # Without a bucket in this account there is no right on S3 at all.
    for action in ("s3:GetObject", "s3:PutObject"):
        yield Row("stopped", "InstanceRole", action, "arn:aws:s3:::scraped/a")


def rows_of_log() -> Iterator[Row]:
    """Where a log is kept, the machine writes to its stack's, and to none where none is."""
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        stream = LOGS + ":/mayfly/{stack}:log-stream:i-0"
        yield Row("stopped", "InstanceRole", action, stream, ANY, "KeepLog")
        yield Row("stopped", "InstanceRole", action, f"{LOGS}:/mayfly/other:log-stream:i-0")
        yield Row("launch", "InstanceRole", action, stream)


def rows_of_launches(stack: str, role: str, create: str) -> Iterator[Row]:
    """Whoever launches does so from the template, with what the template names and into the stack's network."""
    row = functools.partial(Row, stack, role)
    run = functools.partial(row, "ec2:RunInstances")
    for resource in (IMAGE, f"{EC2}:security-group/sg-0"):
        yield run(resource, NAMED_BY_TEMPLATE, "LaunchWhatTheTemplateNames")
        for context in (NAMED_BESIDE_IT, OF_ANOTHER, OF_NONE):
            yield run(resource, context)
    ours = ("launch-template/{LaunchTemplate}", "subnet/{Subnet}")
    for resource in (*ours, "instance/*", "network-interface/*", "volume/*"):
        yield run(f"{EC2}:{resource}", NAMED_BESIDE_IT, "LaunchTheRest")
        yield run(f"{EC2}:{resource}", OF_ANOTHER)
        yield run(f"{EC2}:{resource}", OF_NONE)
    for resource in ("launch-template/lt-0", "subnet/subnet-0", "key-pair/mine"):
        yield run(f"{EC2}:{resource}", NAMED_BESIDE_IT)
    yield run(f"{EC2}:spot-instances-request/*", ANY, "LaunchOnSpot")
    at = {"ec2:CreateAction": create, "aws:TagKeys": ["mayfly-stack", "mayfly-slot"]}
    for kind in ("instance", "volume"):
        yield row("ec2:CreateTags", f"{EC2}:{kind}/*", at, "TagWhatIsLaunched")
        yield row("ec2:CreateTags", f"{EC2}:{kind}/*", LATER)
    yield row("iam:PassRole", ROLE + "/{InstanceRole}", TO_EC2, "GiveMachineItsRole")
    yield row("iam:PassRole", ROLE + "/{InstanceRole}", TO_LAMBDA)
    yield row("iam:PassRole", f"{ROLE}/admin", TO_EC2)
    for service in ("spot", "ec2fleet"):
        name = f"{ROLE}/aws-service-role/{service}.amazonaws.com/AWSServiceRoleFor"
        yield row("iam:CreateServiceLinkedRole", name, ANY, "MakeRolesOfEc2")
    yield row("iam:CreateServiceLinkedRole", f"{ROLE}/aws-service-role/ops.amazonaws.com/x")


def rows_of_schedules() -> Iterator[Row]:
    """A schedule does what its mode needs; Scheduler itself keeps what failed."""
    for stack in STACKS:
        row = functools.partial(Row, stack, "SchedulerRole")
        for name in ("guard", "guard:3"):
            yield row("lambda:InvokeFunction", f"{LAMBDA}:{name}", ANY, "CallGuard")
        yield row("lambda:InvokeFunction", f"{LAMBDA}:other")
        yield row("sqs:SendMessage", SQS + ":{DeadLetters}", ANY, "KeepWhatFailed")
        yield row("sqs:SendMessage", f"{SQS}:other")
        for action in ("ec2:StopInstances", "ec2:TerminateInstances"):
            yield row(action, f"{EC2}:instance/i-0", TAGGED)
    row = functools.partial(Row, "stopped", "SchedulerRole")
    ours = EC2 + ":instance/{Instance}"
    yield row("ec2:StartInstances", ours, ANY, "Start")
    yield row("ec2:StartInstances", f"{EC2}:instance/i-0")
    yield row("ec2:CreateTags", ours, SLOT, "TellSlot")
    yield row("ec2:CreateTags", ours, LATER)
    yield row("ec2:CreateTags", f"{EC2}:instance/i-0", SLOT)
    yield row("ec2:RunInstances", f"{EC2}:instance/*", NAMED_BESIDE_IT)
    yield Row("launch", "SchedulerRole", "ec2:StartInstances", f"{EC2}:instance/i-0")
    yield from rows_of_launches("launch", "SchedulerRole", "RunInstances")
    yield from rows_of_launches("launch", "GuardRole", "RunInstances")
    yield from rows_of_launches("spread", "GuardRole", "CreateFleet")
    yield Row("spread", "SchedulerRole", "ec2:RunInstances", IMAGE, NAMED_BY_TEMPLATE)
    for kind in ("fleet", "instance"):
        context = {"aws:TagKeys": ["mayfly-stack"]}
        fleet = functools.partial(Row, action="ec2:CreateFleet", context=context)
        ours = f"{EC2}:{kind}/*"
        yield fleet(stack="spread", role="GuardRole", resource=ours, statement="MakeFleet")
        for stack in ("launch", "stopped"):
            for role in ("SchedulerRole", "GuardRole"):
                yield fleet(stack=stack, role=role, resource=ours)


def rows_of_guard() -> Iterator[Row]:
    """The guard ends machines of this stack alone, and writes its log and its budget."""
    for stack in STACKS:
        row = functools.partial(Row, stack, "GuardRole")
        for action in ("ec2:DescribeInstances", "ec2:DescribeSpotInstanceRequests"):
            yield row(action, "*", ANY, "FindMachines")
        yield row("ec2:DescribeVolumes", "*")
        for action, kind in (
            ("ec2:StopInstances", "instance/i-0"),
            ("ec2:TerminateInstances", "instance/i-0"),
            ("ec2:CancelSpotInstanceRequests", "spot-instances-request/sir-0"),
        ):
            yield row(action, f"{EC2}:{kind}", TAGGED, "EndMachines")
            yield row(action, f"{EC2}:{kind}", OF_ANOTHER_STACK)
            yield row(action, f"{EC2}:{kind}")
        yield row("budgets:ModifyBudget", BUDGET + "/{stack}-" + REGION, ANY, "KeepBudget")
        yield row("budgets:ModifyBudget", f"{BUDGET}/other")
        yield row("budgets:ModifyBudget", BUDGET + "/{stack}-mars-north-1")
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            stream = LOGS + ":/aws/lambda/{stack}-guard:log-stream:2026/11/22/[1]x"
            yield row(action, stream, ANY, "WriteLog")
            yield row(action, f"{LOGS}:/aws/lambda/other:log-stream:x")
        yield row("sqs:SendMessage", SQS + ":{DeadLetters}", ANY, "KeepWhatFailed")
        yield row("sqs:SendMessage", f"{SQS}:other")
    yield Row("stopped", "GuardRole", "ec2:RunInstances", f"{EC2}:instance/*", OF_NONE)


def rows_of_batch() -> Iterator[Row]:
    """The schedule submits to its queue; a shard reads its secrets and uses its bucket."""
    row = functools.partial(Row, "batch", "SchedulerRole")
    for resource in ("job/*", "job-definition/{Definition}", "job-queue/{Queue}"):
        yield row("batch:SubmitJob", f"{JOBS}:{resource}", ANY, "SubmitJob")
    for resource in ("job-definition/other:1", "job-queue/other"):
        yield row("batch:SubmitJob", f"{JOBS}:{resource}")
    yield row("sqs:SendMessage", SQS + ":{DeadLetters}", ANY, "KeepWhatFailed")
    yield row("sqs:SendMessage", f"{SQS}:other")
    row = functools.partial(Row, "batch", "ShardRole")
    for path in ("/mayfly", "/mayfly/store", "/mayfly/jobs"):
        yield row("ssm:GetParametersByPath", SSM + path, ANY, "ReadSecrets")
    yield row("ssm:GetParametersByPath", f"{SSM}/other")
    yield from rows_of_bucket("batch", "ShardRole")


ROWS = (
    *(row for stack in STACKS for row in rows_of_machine(stack)),
    *rows_of_bucket("launch", "InstanceRole"),
    *rows_of_doctor(),
    *rows_of_log(),
    *rows_of_schedules(),
    *rows_of_guard(),
    *rows_of_batch(),
)


@dataclass
class Roles:
    """The roles of one stack, and what its names stand for in the rows."""

    policies: dict[str, Policies]
    names: dict[str, str]

    def call(self, row: Row) -> Call:
        """Return the call of a row, with this stack's names."""
        context = {
            self._named(key): self._named(value) if isinstance(value, str) else value
            for key, value in row.context.items()
        }
        return Call(row.action, self._named(row.resource), context)

    def _named(self, text: str) -> str:
        for name, value in self.names.items():
            text = text.replace(f"{{{name}}}", value)
        return text


@pytest.fixture(scope="module")
def stacks(aws_stand_in: Aws) -> dict[str, Stack]:
    """One stack for each way to deploy the template."""
    return {name: Stack(aws_stand_in, **given) for name, given in STACKS.items()}


@pytest.fixture(scope="module")
def roles(stacks: dict[str, Stack], aws_stand_in: Aws) -> dict[str, Roles]:
    """Their roles, and those of the template for Batch."""
    found = {name: roles_of(stack) for name, stack in stacks.items()}
    return found | {"batch": roles_of_batch(aws_stand_in)}


def roles_of(stack: Stack) -> Roles:
    """The roles of a stack of the machine's template."""
    names = {name: stack.outputs.get(name, "") for name in ("LaunchTemplate", "Subnet", "Instance")}
    names |= {"stack": stack.name, "InstanceRole": stack.outputs["InstanceRole"]}
    names["DeadLetters"] = stack.outputs["DeadLetters"].rpartition("/")[2]
    policies: dict[str, Policies] = {
        role: stack.policies(role) for role in ("InstanceRole", "SchedulerRole", "GuardRole")
    }
    return Roles(policies, names)


def roles_of_batch(aws: Aws) -> Roles:
    """The roles of the template for Batch; nothing else of it is made."""
    document = template(FLEET)
    kept = ("AWS::IAM::Role", "AWS::IAM::Policy", "AWS::SQS::Queue")
    document["Resources"] = {
        name: one for name, one in document["Resources"].items() if one["Type"] in kept
    }
    text = json.dumps(document["Resources"])
    for name, resource in (("Queue", "job-queue/night"), ("Shard", "job-definition/night:1")):
        text = text.replace(f'{{"Ref": "{name}"}}', f'"{JOBS}:{resource}"')
    document["Resources"] = json.loads(text)
    document["Outputs"] = {
        name: {"Value": {"Ref": name}} for name in ("SchedulerRole", "ShardRole", "DeadLetters")
    }
    name, given = f"fleet-{uuid.uuid4().hex[:6]}", BATCH | {"BucketName": "scraped"}
    outputs = created(aws, name, document, given)
    names = {"Definition": "night:1", "Queue": "night"}
    names["DeadLetters"] = outputs["DeadLetters"].rpartition("/")[2]
    policies: dict[str, Policies] = {
        role: policies_of(aws, outputs[role]) for role in ("SchedulerRole", "ShardRole")
    }
    return Roles(policies, names)


def test_each_call_is_allowed_by_its_statement_or_refused(roles: dict[str, Roles]) -> None:
    """The table holds, row by row."""
    for stack, known in roles.items():
        for role, policies in known.policies.items():
            rows = [row for row in ROWS if (row.stack, row.role) == (stack, role)]
            wrong = differences(policies, ((known.call(row), row.statement) for row in rows))
            assert wrong == [], (stack, role)


def test_no_statement_and_no_action_is_without_a_row(roles: dict[str, Roles]) -> None:
    """Each action of each statement is allowed in a row by just that statement, and refused to the role in another.

    What is allowed on everything reads, makes a fleet, or asks for a login.
    """
    for stack, known in roles.items():
        for role, policies in known.policies.items():
            rows = [row for row in ROWS if (row.stack, row.role) == (stack, role)]
            granted = {(row.statement, row.action) for row in rows if row.statement}
            refused = {row.action for row in rows if not row.statement}
            for name, statement in statements(policies):
                assert not name[0].isdigit(), f"a statement of {role} has no Sid: {statement}"
                for action in listed(statement["Action"]):
                    assert (name, action) in granted, (stack, role, name, action)
                    if statement["Resource"] == "*" and "Condition" not in statement:
                        assert UNBOUND.fullmatch(action), (stack, role, action)
                    else:
                        assert action in refused, (stack, role, action)


def test_every_kind_of_resource_that_a_call_must_have_a_right_to_has_a_row() -> None:
    """AWS judges a launch by its image, network, disk ...: a right to all but one is no right."""
    for of in {(row.stack, row.role) for row in ROWS}:
        granted = [row for row in ROWS if (row.stack, row.role) == of and row.statement]
        assert lacking(Call(row.action, row.resource) for row in granted) == {}, of


def test_what_schedules_and_guard_ask_is_in_the_table(stacks: dict[str, Stack]) -> None:
    """Their own requests, in all ways to deploy, are judged by EC2's rules: each question has its row."""
    rows = {
        (row.stack, row.role, row.action, type_of(row.action, row.resource), row.statement)
        for row in ROWS
    }
    asked = set()
    for name, stack in stacks.items():
        work(name, stack)
        for role, call, decision in stack.judged:
            kind = type_of(call.action, call.resource)
            asked.add((name, role, call.action, kind, decision.statement))
    assert asked <= rows, asked - rows
    of_ec2 = {one[-1] for one in rows if one[2].startswith("ec2:") and one[1] != "InstanceRole"}
    assert of_ec2 - {""} == {one[-1] for one in asked if one[2].startswith("ec2:")} - {""}


def work(name: str, stack: Stack) -> None:
    """Do all that a stack does in a night, and end what it started."""
    with stack.ec2_of("SchedulerRole") as schedule:
        if name == "stopped":
            schedule.create_tags(**stack.input_of("SlotSchedule"))
            schedule.start_instances(**stack.input_of("StartSchedule"))
        elif name == "launch":
            schedule.run_instances(**stack.input_of("LaunchSchedule"))
    if name == "spread":
        stack.guard(stack.input_of("LaunchSchedule"))
    if name != "stopped":
        stack.guard(stack.input_of("LastResortSchedule"), age=lambda _: timedelta(hours=2))
    late = {"age": lambda _: timedelta(hours=25)}
    stack.guard(stack.input_of("GuardSchedule"), **late)
    if name == "stopped":
        stack.guard({"task": "guard", "minutes": 1}, **late)


def policy(**statement: Any) -> Policies:
    """One policy of one statement."""
    return [
        {"Version": "2012-10-17", "Statement": [{"Sid": "One", "Effect": "Allow", **statement}]}
    ]


ON_ALL = {"Action": "ec2:StopInstances", "Resource": "*"}
STOP = Call("ec2:StopInstances", f"{EC2}:instance/i-0", {"ec2:ResourceTag/a": "b"})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ({"StringEquals": {"ec2:ResourceTag/a": ["x", "b"]}}, True),
        ({"StringEquals": {"EC2:resourcetag/A": "b"}}, True),
        ({"StringEquals": {"ec2:ResourceTag/a": "B"}}, False),
        ({"StringEquals": {"ec2:ResourceTag/a": "b", "ec2:ResourceTag/c": "d"}}, False),
        ({"StringLike": {"ec2:ResourceTag/a": "?"}}, True),
        ({"StringEquals": {"ec2:ResourceTag/a": "?"}}, False),
        # Not a key of this action: never there.
        ({"StringEquals": {"ec2:CreateAction": "RunInstances"}}, False),
        ({"ForAllValues:StringEquals": {"ec2:CreateAction": "RunInstances"}}, True),
    ],
)
def test_conditions(condition: Mapping[str, Any], expected: bool) -> None:
    """As the IAM User Guide has them; keys have no case, values have."""
    assert allowed(policy(**ON_ALL, Condition=condition), STOP).allowed is expected


def test_a_statement_allows_what_its_patterns_fit() -> None:
    """Actions have no case; a bracket is no wildcard."""
    assert allowed(policy(Action="EC2:stop*", Resource="*"), STOP) == Decision(True, "One")
    assert not allowed(policy(Action="*", Resource=f"{EC2}:instance/i-[0]"), STOP).allowed


@pytest.mark.parametrize(
    ("policies", "call"),
    [
        (policy(**ON_ALL, Condition={"NumericLessThan": {"ec2:ResourceTag/a": "1"}}), STOP),
        (policy(**ON_ALL, Condition={"StringEquals": {"aws:RequestedRegion": REGION}}), STOP),
        (policy(**ON_ALL, Condition={"StringEquals": {"ec2:InstanceType": "t3.nano"}}), STOP),
        (policy(Action="*", Resource="arn:aws:ec2:*:*:instance/${aws:username}"), STOP),
        (policy(**ON_ALL, Principal="*"), STOP),
        (policy(**ON_ALL, Condition={"Null": {"ec2:ResourceTag/a": "true"}}), STOP),
        (policy(**ON_ALL | {"Effect": "Deny"}), STOP),
        (policy(**ON_ALL), Call("ec2:Stop")),
        (policy(**ON_ALL), Call("ec2:StopInstances", f"{EC2}:volume/v")),
    ],
    ids=[
        *("operator", "global", "untold", "variable", "element", "null", "denial"),
        *("action", "resource"),
    ],
)
def test_what_is_not_known_is_not_judged(policies: Policies, call: Call) -> None:
    """Neither allowed nor refused: an error that says what."""
    with pytest.raises(NotUnderstood):
        allowed(policies, call)
