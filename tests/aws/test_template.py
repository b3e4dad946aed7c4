"""The template: sound, and its own words start and end machines, in both modes, with no right more than they need."""

import json
import uuid
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from tests.aws.conftest import Make
from tests.aws.ec2 import SpotRequest
from tests.aws.stack import GUARD, IMAGE, SCHEDULED, TEMPLATE, Stack, template
from tests.parts.aws import ACCOUNT, REGION, Aws
from tests.parts.command import completed
from tests.parts.missing import program
from tests.parts.recorder import Recorder


def test_the_templates_are_sound() -> None:
    """cfn-lint has nothing to say, for Osaka and for the largest region, and each fits into a call."""
    templates = sorted(TEMPLATE.parent.glob("*.yaml"))
    assert max(path.stat().st_size for path in templates) <= 51_200
    command = [program("cfn-lint"), "--regions", REGION, "us-east-1", "--template"]
    done = completed([*command, *map(str, templates)], seconds=240)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_parameter_is_in_the_form_and_has_a_default() -> None:
    """The console shows each in a group with a label; only the image has no default."""
    document = template()
    form = document["Metadata"]["AWS::CloudFormation::Interface"]
    grouped = [name for group in form["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(document["Parameters"]) == sorted(form["ParameterLabels"])
    assert [n for n, p in document["Parameters"].items() if "Default" not in p] == ["ImageId"]


def test_each_schedule_has_few_retries_a_dead_letter_queue_and_no_surprise() -> None:
    """Scheduler's own default is 185 retries over a day: here it is minutes, and what fails is kept."""
    schedules = {
        name: resource["Properties"]
        for name, resource in template()["Resources"].items()
        if resource["Type"] == "AWS::Scheduler::Schedule"
    }
    assert len(schedules) == 5
    for properties in schedules.values():
        assert properties["Target"]["RetryPolicy"]["MaximumEventAgeInSeconds"] <= 900
        assert properties["Target"]["DeadLetterConfig"]
        assert properties["FlexibleTimeWindow"] == {"Mode": "OFF"}


def test_launch_starts_a_spot_machine_with_the_templates_settings(make: Make) -> None:
    """The schedule's own input, sent to EC2, gives one spot machine that terminates itself and knows its slot."""
    stack = make()
    assert stack.outputs["LaunchScheduleArn"].endswith(":aws-sdk:ec2:runInstances")
    assert len(stack.input_of("LaunchSchedule")["ClientToken"]) <= 64
    name = launch(stack)
    assert stack.spot[name].kind == "one-time"
    found = stack.machine(name)
    assert found["InstanceLifecycle"] == "spot"
    assert found["SubnetId"] == stack.outputs["Subnet"]
    tags = {tag["Key"]: tag["Value"] for tag in found["Tags"]}
    assert (tags["mayfly-slot"], tags["mayfly-stack"]) == (SCHEDULED, stack.name)
    data = stack.launch_data
    assert data["InstanceType"] == found["InstanceType"] == "t3.medium"
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"
    # A T3 buys credits unasked, and a type without any refuses to be asked.
    assert "CreditSpecification" not in data
    assert data["MetadataOptions"] == {
        "HttpEndpoint": "enabled",
        "HttpTokens": "required",
        "HttpPutResponseHopLimit": 1,
        "InstanceMetadataTags": "enabled",
    }
    assert "InstanceMarketOptions" not in data
    (disk,) = data["BlockDeviceMappings"]
    assert disk["Ebs"] == {
        "VolumeType": "gp3",
        "VolumeSize": 20,
        "Throughput": 125,
        "Encrypted": True,
        "DeleteOnTermination": True,
    }


def test_what_a_machine_gets_beyond_the_default(make: Make, aws_stand_in: Aws) -> None:
    """Credits that run out, a faster disk that is filled beforehand, a log group, and a boundary of its roles."""
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/boundary"
    stack = make(
        CpuCredits="standard",
        VolumeThroughput="250",
        VolumeInitializationRate="300",
        LogRetentionDays="14",
        PermissionsBoundary=boundary,
    )
    data = stack.launch_data
    assert data["CreditSpecification"] == {"CpuCredits": "standard"}
    assert data["BlockDeviceMappings"][0]["Ebs"]["Throughput"] == 250
    ebs = template()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    # The stand-in forgets it; its range and its type are cfn-lint's business.
    (rate,) = [one["Ebs"]["VolumeInitializationRate"] for one in ebs["BlockDeviceMappings"]]
    assert rate["Fn::If"][:2] == ["Prefilled", {"Ref": "VolumeInitializationRate"}]
    group = f"/mayfly/{stack.name}"
    tags = stack.input_of("LaunchSchedule")["TagSpecifications"][0]["Tags"]
    assert {"Key": "mayfly-log", "Value": group} in tags
    (kept,) = aws_stand_in.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    assert kept["retentionInDays"] == 14
    iam = aws_stand_in.client("iam")
    for role in ("InstanceRole", "SchedulerRole", "GuardRole"):
        found = iam.get_role(RoleName=stack.outputs[role])["Role"]
        assert found["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary


def test_a_network_and_a_role_of_your_own_are_used_and_not_made(
    make: Make, aws_stand_in: Aws
) -> None:
    """The launch goes into your subnet with your group and your role, with no right to any other, and makes none."""
    ec2, iam = aws_stand_in.client("ec2"), aws_stand_in.client("iam")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.{one}.0/24")["Subnet"]["SubnetId"]
        for one in (0, 1)
    ]
    group = ec2.create_security_group(GroupName="own", Description="own", VpcId=vpc)["GroupId"]
    name = f"own-{uuid.uuid4().hex[:6]}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument="{}")
    before = len(ec2.describe_vpcs()["Vpcs"])
    stack = make(
        VpcId=vpc,
        SubnetId=subnets[0],
        SecondSubnetId=subnets[1],
        SecurityGroupId=group,
        InstanceRoleName=name,
        LastResortExpression="cron(20 3 * * ? *)",
    )
    assert len(ec2.describe_vpcs()["Vpcs"]) == before
    assert "InstanceRole" not in stack.outputs
    found = stack.machine(launch(stack))
    assert (found["SubnetId"], stack.outputs["Subnet"]) == (subnets[0], subnets[0])
    data = stack.launch_data
    assert data["SecurityGroupIds"] == [group]
    assert stack.input_of("LastResortSchedule")["subnet"] == subnets[1]
    passed = [call.resource for _, call, _ in stack.judged if call.action == "iam:PassRole"]
    assert passed == [f"arn:aws:iam::{ACCOUNT}:role/{name}"]


VPC, SUBNET, SECOND, GROUP = (
    {"VpcId": "vpc-1"},
    {"SubnetId": "subnet-1"},
    {"SecondSubnetId": "subnet-2"},
    {"SecurityGroupId": "sg-1"},
)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, ""),
        ({"Spread": "yes"}, ""),
        (SUBNET | VPC, ""),
        (SUBNET | GROUP, ""),
        (SUBNET | GROUP | SECOND | VPC, ""),
        (SUBNET, "VpcId or SecurityGroupId is needed"),
        (SUBNET | VPC | {"Spread": "yes"}, "SecondSubnetId is needed"),
        (VPC, "need SubnetId"),
        (SECOND, "need SubnetId"),
        (GROUP, "need SubnetId"),
        (GROUP | VPC, "need SubnetId"),
    ],
    ids=str,
)
def test_half_a_network_of_your_own_is_refused(given: dict[str, str], complaint: str) -> None:
    """By a rule that says what to do, when the stack is made, and not by each launch at night."""
    document = template()
    values = {name: str(one.get("Default")) for name, one in document["Parameters"].items()} | given
    broken = [
        one["AssertDescription"]
        for rule in document["Rules"].values()
        if holds(rule["RuleCondition"], values)
        for one in rule["Assertions"]
        if not holds(one["Assert"], values)
    ]
    assert len(broken) == bool(complaint), broken
    assert complaint in "".join(broken)


def holds(condition: dict[str, Any], values: Mapping[str, str]) -> bool:
    """Judge a condition of a rule, which the stand-in does not know, by the values of the parameters."""
    ((name, parts),) = condition.items()
    if name == "Fn::Equals":
        left, right = (values[one["Ref"]] if isinstance(one, dict) else one for one in parts)
        return bool(left == right)
    judged = [holds(one, values) for one in parts]
    return {"Fn::Not": not judged[0], "Fn::And": all(judged)}[name]


def test_nothing_waits_for_what_a_condition_may_leave_out() -> None:
    """What depends on a resource that is left out is left out as well, whatever its own condition says."""
    resources = template()["Resources"]
    for name, resource in resources.items():
        waits = resource.get("DependsOn", [])
        for other in [waits] if isinstance(waits, str) else waits:
            condition = resources[other].get("Condition")
            implied = {None, resource.get("Condition")} | IMPLIED.get(
                resource.get("Condition"), set()
            )
            assert condition in implied, (name, other)


IMPLIED: dict[str | None, set[str]] = {"LastResort": {"Launch"}}
"""By condition, those that hold with it."""


def test_stopped_starts_its_one_machine_and_tells_it_the_slot(
    make: Make, aws_stand_in: Aws
) -> None:
    """The schedules' inputs tag and start the machine; it is a persistent one that stops when it powers off."""
    stack = make(Mode="stopped")
    ec2 = aws_stand_in.client("ec2")
    name = stack.outputs["Instance"]
    ec2.stop_instances(InstanceIds=[name])
    assert stack.outputs["StartScheduleArn"].endswith(":aws-sdk:ec2:startInstances")
    assert stack.outputs["SlotScheduleArn"].endswith(":aws-sdk:ec2:createTags")
    with stack.ec2_of("SchedulerRole") as schedule:
        schedule.create_tags(**stack.input_of("SlotSchedule"))
        schedule.start_instances(**stack.input_of("StartSchedule"))
    found = stack.machine(name)
    assert found["State"]["Name"] in {"pending", "running"}
    assert {"Key": "mayfly-slot", "Value": SCHEDULED} in found["Tags"]
    data = stack.launch_data
    assert data["InstanceInitiatedShutdownBehavior"] == "stop"
    assert data["InstanceMarketOptions"] == {
        "MarketType": "spot",
        "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
    }


def test_a_fleet_takes_the_cheapest_of_several_types_and_zones(make: Make) -> None:
    """With Spread, one `instant` request names three types in two zones; asked for twice, there is one machine."""
    stack = make(Spread="yes", ThirdType="m7i.large")
    assert stack.outputs["LaunchScheduleArn"] == GUARD
    event = stack.input_of("LaunchSchedule")
    (config,) = event["request"]["LaunchTemplateConfigs"]
    assert {one["InstanceType"] for one in config["Overrides"]} == {
        "t3.medium",
        "t3.large",
        "m7i.large",
    }
    assert len({one["SubnetId"] for one in config["Overrides"]}) == 2
    name = stack.guard(event)["launched"]
    assert set(stack.machines()) == {name}
    assert stack.guard(event) == {"found": name}


def test_a_fleet_without_capacity_is_a_failure(make: Make) -> None:
    """EC2 answers 200 and gives no machine: the guard fails with EC2's reason, so that Lambda tries again and tells.

    The last resort finds no machine, and buys one.
    """
    stack = make(Spread="yes", LastResortExpression="cron(20 3 * * ? *)")
    stack.capacity = False
    with pytest.raises(RuntimeError, match="no machine: InsufficientInstanceCapacity"):
        stack.guard(stack.input_of("LaunchSchedule"))
    function = template()["Resources"]["Guard"]["Properties"]
    assert function["DeadLetterConfig"]["TargetArn"] == {"Fn::GetAtt": ["DeadLetters", "Arn"]}
    assert "launched" in stack.guard(stack.input_of("LastResortSchedule"))


def test_the_guard_ends_what_is_on_for_too_long(make: Make, aws_stand_in: Aws) -> None:
    """Not before the deadline, which the tag of a lease moves to a day and no further; others' machines stay."""
    stack = make(DeadlineMinutes="90")
    ec2 = aws_stand_in.client("ec2")
    kept, name = launch(stack), launch(stack)
    ec2.create_tags(Resources=[kept], Tags=[{"Key": "mayfly-maintain", "Value": "4h"}])
    stranger = ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)["Instances"][0]
    event = stack.input_of("GuardSchedule")
    assert stack.guard(event, age=lambda _: timedelta(minutes=89)) == {"ended": []}
    assert stack.machines() == {name: "running", kept: "running"}
    assert stack.guard(event, age=lambda _: timedelta(minutes=91)) == {"ended": [name]}
    assert stack.machines()[name] in {"shutting-down", "terminated"}
    assert stack.guard(event, age=lambda _: timedelta(hours=20)) == {"ended": []}
    assert stack.guard(event, age=lambda _: timedelta(hours=25)) == {"ended": [kept]}
    assert stack.machine(stranger["InstanceId"])["State"]["Name"] == "running"


def test_the_guard_stops_the_machine_that_is_kept(make: Make) -> None:
    """In the mode `stopped` it is stopped, not terminated; once it is, there is nothing to do."""
    stack = make(Mode="stopped")
    name = stack.outputs["Instance"]
    event = stack.input_of("GuardSchedule")
    late = {"age": lambda _: timedelta(minutes=181)}
    assert stack.guard(event, **late) == {"ended": [name]}
    assert stack.machines()[name] in {"stopping", "stopped"}
    assert stack.guard(event, **late) == {"ended": []}


def beside(stack: Stack) -> str:
    """Launch a machine of the stack's template that is not the one that the stack keeps; return its id."""
    template = {"LaunchTemplateId": stack.outputs["LaunchTemplate"], "Version": "1"}
    ec2 = stack.aws.client("ec2")
    made = ec2.run_instances(LaunchTemplate=template, MinCount=1, MaxCount=1)
    return str(made["Instances"][0]["InstanceId"])


def test_a_machine_that_its_request_launched_again_is_ended(make: Make) -> None:
    """Only the stack's own is kept. One whose request is untagged cannot be cancelled: it ends as well, and is told."""
    stack = make(Mode="stopped")
    own, untagged, again = stack.outputs["Instance"], beside(stack), beside(stack)
    stack.spot |= {untagged: SpotRequest("persistent"), again: stack.request_of_template()}
    with pytest.raises(RuntimeError, match=f"{untagged}.*CancelSpotInstanceRequests"):
        stack.guard(stack.input_of("GuardSchedule"), age=lambda _: timedelta(minutes=16))
    assert stack.spot[again].cancelled
    assert not stack.spot[own].cancelled
    states = stack.machines()
    assert {states[untagged], states[again]} <= {"shutting-down", "terminated"}
    assert states[own] == "running"


def test_the_last_resort_buys_a_machine_only_when_there_was_none(make: Make) -> None:
    """A machine within the hour is enough; without one, a machine on demand is launched with the same settings."""
    stack = make(LastResortExpression="cron(20 3 * * ? *)")
    assert stack.outputs["LastResortScheduleArn"] == GUARD
    event = stack.input_of("LastResortSchedule")
    name = stack.guard(event)["launched"]
    found = stack.machine(name)
    assert "InstanceLifecycle" not in found
    assert {"Key": "mayfly-slot", "Value": SCHEDULED} in found["Tags"]
    assert stack.guard(event) == {"found": name}
    assert "launched" in stack.guard(event, age=lambda _: timedelta(minutes=61))


def test_the_last_resort_goes_on_with_the_batch_of_a_machine_that_was_taken(make: Make) -> None:
    """Its slot, not the last resort's own time: what succeeded before is not done again."""
    stack = make(LastResortExpression="cron(20 3 * * ? *)")
    taken = stack.machine(launch(stack))
    taken["StateReason"] = {"Code": "Server.SpotInstanceTermination", "Message": "taken"}
    (slot,) = (tag["Value"] for tag in taken["Tags"] if tag["Key"] == "mayfly-slot")
    event = stack.input_of("LastResortSchedule") | {"slot": "2026-11-28T18:20:00Z"}
    name = stack.guard(event, machines=lambda *_: [taken])["launched"]
    assert {"Key": "mayfly-slot", "Value": slot} in stack.machine(name)["Tags"]


def test_a_deploy_that_fails_leaves_the_one_machine_its_request(make: Make) -> None:
    """In mode stopped: what is replaced loses its request when CloudFormation deletes it, and not when it might."""
    stack = make(Mode="stopped")
    old = stack.outputs["Instance"]
    of = {"ResourceType": "Custom::Request"}
    created = custom(stack, RequestType="Create", ResourceProperties={"Instance": old}, **of)
    assert created["PhysicalResourceId"] == old
    there = {"PhysicalResourceId": old, "OldResourceProperties": {"Instance": old}}
    new = custom(
        stack, RequestType="Update", ResourceProperties={"Instance": "i-new"}, **of, **there
    )
    assert (new["PhysicalResourceId"], stack.spot[old].cancelled) == ("i-new", False)
    back = {"PhysicalResourceId": "i-new", "OldResourceProperties": {"Instance": "i-new"}}
    undone = custom(stack, RequestType="Update", ResourceProperties={"Instance": old}, **of, **back)
    assert (undone["PhysicalResourceId"], stack.spot[old].cancelled) == (old, False)
    gone = {"RequestType": "Delete", "ResourceProperties": {"Instance": old}}
    custom(stack, PhysicalResourceId="i-new", **gone, **of)
    assert stack.spot[old].cancelled is False
    assert custom(stack, PhysicalResourceId=old, **gone, **of)["Status"] == "SUCCESS"
    assert stack.spot[old].cancelled


@pytest.mark.parametrize("mode", ["launch", "stopped"])
def test_deleting_the_stack_ends_its_machines(make: Make, mode: str) -> None:
    """CloudFormation's own request ends every machine, cancels what would launch again, and is answered."""
    stack = make(Mode=mode)
    name = stack.outputs["Instance"] if mode == "stopped" else launch(stack)
    answers = [
        custom(stack, RequestType=kind, ResourceType="Custom::Machines")
        for kind in ("Create", "Delete")
    ]
    assert [answer["Status"] for answer in answers] == ["SUCCESS", "SUCCESS"], answers
    assert set(stack.machines().values()) == {"terminated"}
    assert stack.spot[name].cancelled is (mode == "stopped")


def test_the_budget_comes_and_goes_with_the_stack(make: Make, aws_stand_in: Aws) -> None:
    """It mails at 80 % and on the forecast; a changed amount replaces it."""
    stack = make(Email="me@example.org")
    budgets = aws_stand_in.client("budgets")
    for kind, amount, scope in (("Create", "10", "account"), ("Update", "20", "stack")):
        answer = custom(
            stack,
            RequestType=kind,
            ResourceType="Custom::Budget",
            ResourceProperties={"Amount": amount, "Scope": scope, "Email": "me@example.org"},
        )
        assert answer["Status"] == "SUCCESS", answer
        found = budgets.describe_budget(AccountId=ACCOUNT, BudgetName=f"{stack.name}-{REGION}")[
            "Budget"
        ]
        assert float(found["BudgetLimit"]["Amount"]) == float(amount)
        counted = {"TagKeyValue": [f"user:mayfly-stack${stack.name}"]} if scope == "stack" else {}
        assert found.get("CostFilters", {}) == counted
    told = budgets.describe_notifications_for_budget(
        AccountId=ACCOUNT, BudgetName=f"{stack.name}-{REGION}"
    )
    kinds = {(one["NotificationType"], one["Threshold"]) for one in told["Notifications"]}
    assert kinds == {("ACTUAL", 80), ("FORECASTED", 100)}
    gone = {"RequestType": "Delete", "ResourceType": "Custom::Budget", "ResourceProperties": {}}
    assert [custom(stack, **gone)["Status"] for _ in range(2)] == ["SUCCESS", "SUCCESS"]


def custom(stack: Stack, **event: Any) -> Any:
    """Send the guard what CloudFormation sends, and return what it answers."""
    with Recorder() as cloudformation:
        stack.guard(
            {
                "StackId": "stack",
                "RequestId": "request",
                "LogicalResourceId": "One",
                "ResponseURL": f"{cloudformation.url}/answer",
                **event,
            }
        )
        (answer,) = cloudformation.requests
    assert answer.method == "PUT"
    return json.loads(answer.body)


def launch(stack: Stack) -> str:
    """Launch a machine as the schedule does, with its rights; return the machine's id."""
    with stack.ec2_of("SchedulerRole") as schedule:
        answer = schedule.run_instances(**stack.input_of("LaunchSchedule"))
    (machine,) = answer["Instances"]
    return str(machine["InstanceId"])


def test_nothing_comes_in() -> None:
    """No security group has a rule for what comes in, and no machine a key to log in with."""
    resources = template()["Resources"]
    groups = [one for one in resources.values() if one["Type"] == "AWS::EC2::SecurityGroup"]
    assert len(groups) == 1
    assert "SecurityGroupIngress" not in groups[0]["Properties"]
    assert "KeyName" not in json.dumps(resources)
