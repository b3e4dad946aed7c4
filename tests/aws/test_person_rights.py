"""Rights of the person at the laptop: two policies let `make ami` and `make deploy` ask what they ask, and no more."""

import ast
import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import boto3
import pytest

from tests.aws.stack import template
from tests.parts.aws import ACCOUNT, REGION
from tests.parts.rights import (
    Call,
    Context,
    Policies,
    differences,
    lacking,
    listed,
    resource_types,
    statements,
)

ROOT = Path(__file__).parents[2]
LARGEST = 6144
"""Characters that IAM takes of a policy, without its white space."""


def document(name: str) -> Policies:
    """Return one of the two policies."""
    return [json.loads((ROOT / f"deploy/aws/rights-{name}.json").read_text("utf-8"))]


DOCUMENTS: Mapping[str, Policies] = {name: document(name) for name in ("ami", "deploy")}

PACKER = {
    *("ec2:RunInstances", "ec2:StopInstances", "ec2:TerminateInstances", "ec2:CreateTags"),
    *("ec2:ModifyInstanceAttribute", "ec2:DescribeInstances", "ec2:DescribeVolumes"),
    *("ec2:CreateKeyPair", "ec2:DeleteKeyPair", "ec2:CreateSecurityGroup"),
    *("ec2:AuthorizeSecurityGroupIngress", "ec2:DescribeSecurityGroups", "ec2:DeleteSecurityGroup"),
    *("ec2:DescribeImages", "ec2:CreateImage", "ec2:CopyImage", "ec2:DeregisterImage"),
    "ec2:ModifyImageAttribute",
    *("ec2:DeleteSnapshot", "ec2:DescribeSnapshots", "ec2:DescribeRegions", "ec2:DescribeVpcs"),
    *("ec2:DescribeSubnets", "ec2:DescribeInstanceTypeOfferings"),
}
"""Of Packer's amazon-ebs with this template: what an old one is seen to ask (tests/cloud), and what a new
one asks besides by its source (github.com/hashicorp/packer-plugin-amazon, the folders common and builder/ebs)."""

BESIDE_HANDLERS: Mapping[str, str] = {
    "lambda:InvokeFunction": "CloudFormation calls the guard for a custom resource with the person's rights",
    "ec2:DescribeImages": "it looks whether a parameter of type AWS::EC2::Image::Id is there",
    "ec2:DescribeAvailabilityZones": "Fn::GetAZs",
    "ec2:DescribeAccountAttributes": "Fn::GetAZs",
    "iam:CreateServiceLinkedRole": "the first spot machine of an account, in mode stopped",
}
LEFT_OUT: Mapping[str, str] = {
    "ec2:AssociateIamInstanceProfile ec2:DisassociateIamInstanceProfile "
    "ec2:ReplaceIamInstanceProfileAssociation": "the launch template names it",
    "ec2:AttachVolume ec2:DetachVolume ec2:DescribeKeyPairs ec2:MonitorInstances "
    "ec2:UnmonitorInstances ec2:ModifyInstancePlacement ec2:ModifyInstanceMaintenanceOptions "
    "ec2:ModifyInstanceMetadataOptions ec2:ModifyInstanceCreditSpecification "
    "ec2:ModifyPrivateDnsNameOptions ssm:": "the machine has nothing of it of its own",
    "ec2:AttachVpnGateway ec2:DetachVpnGateway ec2:DescribeVpnGateways "
    "ec2:CreateVpcEncryptionControl ec2:DescribeVpcEncryptionControls ec2:ModifyVpcTenancy "
    "ec2:AssociateSubnetCidrBlock ec2:DisassociateSubnetCidrBlock": "the network has none",
    "ec2:AuthorizeSecurityGroupIngress ec2:RevokeSecurityGroupIngress "
    "ec2:UpdateSecurityGroupRuleDescriptionsIngress": "nothing comes in",
    "iam:PutUserPolicy iam:GetUserPolicy iam:DeleteUserPolicy iam:PutGroupPolicy "
    "iam:GetGroupPolicy iam:DeleteGroupPolicy": "policies are of roles",
    "kms: s3: s3files: elasticfilesystem: lambda:GetLayerVersion lambda:GetCodeSigningConfig "
    "lambda:PutFunctionCodeSigningConfig lambda:DeleteFunctionCodeSigningConfig "
    "lambda:PutFunctionConcurrency lambda:DeleteFunctionConcurrency lambda:PublishVersion "
    "lambda:PutFunctionRecursionConfig lambda:PutRuntimeManagementConfig "
    "lambda:PutFunctionScalingConfig lambda:GetFunctionScalingConfig "
    "lambda:PassCapacityProvider lambda:AssociateRuntimeAlias": "the guard's code is in the template",
    "firehose: logs:GetDataProtectionPolicy logs:PutDataProtectionPolicy "
    "logs:DeleteDataProtectionPolicy logs:CreateLogDelivery logs:PutResourcePolicy "
    "logs:DescribeResourcePolicies logs:DeleteResourcePolicy logs:PutIndexPolicy "
    "logs:DescribeIndexPolicies logs:DeleteIndexPolicy logs:PutBearerTokenAuthentication "
    "logs:AssociateKmsKey logs:DisassociateKmsKey logs:PutLogGroupDeletionProtection": "a group has a retention",
    "sns:PutDataProtectionPolicy": "the topic has none",
}
"""What a handler may ask for a resource that has more than ours, and why not for ours. `ssm:` is all of a service."""


def test_the_policies_fit_into_iam() -> None:
    """They are given as they are."""
    for (one,) in DOCUMENTS.values():
        assert len("".join(json.dumps(one).split())) <= LARGEST


def test_what_make_ami_needs_is_granted_and_nothing_else() -> None:
    """Packer's calls and those of `ami.py`; who one is may be asked without a right."""
    needed = PACKER | calls(ROOT / "packer/ami.py", "ec2", "sts")
    assert granted("ami") == needed - {"sts:GetCallerIdentity"}


def test_what_make_deploy_needs_is_granted_and_nothing_else() -> None:
    """The calls of `deploy.py`, and those that CloudFormation makes for it, by AWS's own schemas of the resources."""
    needed = calls(ROOT / "deploy/aws/deploy.py", "cloudformation") | set(BESIDE_HANDLERS)
    handled = of_handlers()
    left = {word for words in LEFT_OUT for word in words.split()}
    assert {word for word in left if not any(one.startswith(word) for one in handled)} == set()
    needed |= {one for one in handled if not (left & {one, f"{one.partition(':')[0]}:"})}
    assert granted("deploy") == needed


def granted(name: str) -> set[str]:
    """Return the actions of a policy."""
    return {
        action
        for _, statement in statements(DOCUMENTS[name])
        for action in listed(statement["Action"])
    }


def calls(script: Path, *services: str) -> set[str]:
    """Return what a script asks services: the methods of boto3's clients, and the pages, that its text names."""
    named: dict[str, str] = {}
    for service in services:
        client = boto3.client(service, region_name=REGION)  # type: ignore[call-overload]
        for method, operation in client.meta.method_to_api_mapping.items():
            named[method] = f"{service}:{operation}"
    found = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = [node.func.attr]
            if node.func.attr == "get_paginator":
                words += [str(one.value) for one in node.args if isinstance(one, ast.Constant)]
            found |= {named[word] for word in words if word in named}
    assert found
    return found


def of_handlers() -> set[str]:
    """Return what CloudFormation asks to make, change, read and delete the template's resources."""
    schemas = files("cfnlint") / "data/schemas"
    known = json.loads((schemas / f"providers/{REGION}.json").read_text("utf-8"))
    found = set()
    for kind in {one["Type"] for one in template()["Resources"].values()}:
        if kind.startswith("Custom::"):
            continue
        schema = json.loads((schemas / f"resources/{known[kind]}.json").read_text("utf-8"))
        for verb, handler in schema["handlers"].items():
            if verb != "list":
                found |= set(handler["permissions"])
    return found


EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
DISKS = f"arn:aws:ec2:{REGION}:"
IAM = f"arn:aws:iam::{ACCOUNT}"
ANY: Context = {}


class Bound(NamedTuple):
    """A statement that does not allow everything: what it allows, and what it does not, by type of resource."""

    policy: str
    statement: str
    ours: Mapping[str, str]
    others: Mapping[str, str]
    context: Context = ANY
    other: Context = ANY


def ec2(*kinds: str, name: str = "x") -> dict[str, str]:
    """Return a resource of each type."""
    shared = {"image", "snapshot"}
    return {kind: f"{DISKS if kind in shared else EC2}:{kind}/{name}" for kind in kinds}


BUILT: Context = {"ec2:ResourceTag/mayfly:built": "20261122T064205Z"}
TAGS: Context = {"aws:TagKeys": ["Name", "mayfly:built"], "ec2:CreateAction": None}
FROM_AMAZON: Context = {"ec2:Owner": "amazon"}
SMALL: Context = {"ec2:InstanceType": "t4g.medium"}
LAUNCHED = ("key-pair", "network-interface", "security-group", "subnet", "volume")
TAGGED = ("image", "snapshot", "instance", "key-pair", "network-interface", "security-group")
PASSED: Context = {"iam:PassedToService": "scheduler.amazonaws.com"}
STACK: Context = {"ec2:ResourceTag/mayfly-stack": "mayfly-test"}


def both(*kinds: str) -> tuple[dict[str, str], dict[str, str]]:
    """Return the same resources as ours and as others', which a context tells apart."""
    return ec2(*kinds), ec2(*kinds)


def arns(
    kind: str, service: str, place: str, ours: str, other: str = "other"
) -> tuple[dict[str, str], dict[str, str]]:
    """Return a resource of ours and one of others in the account."""
    above = f"arn:aws:{service}:{REGION}:{ACCOUNT}:{place}"
    return {kind: f"{above}{ours}"}, {kind: f"{above}{other}"}


GUARD_ROLE = {"role": f"{IAM}:role/mayfly-GuardRole-1"}
SPOT = "aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
BOUNDS = (
    Bound("ami", "LaunchFromAmazonsImage", *both("image"), FROM_AMAZON, {"ec2:Owner": "self"}),
    Bound("ami", "LaunchSmallMachine", *both("instance"), SMALL, {"ec2:InstanceType": "p5.large"}),
    Bound("ami", "LaunchTheRest", ec2(*LAUNCHED, name="packer_6"), ec2("key-pair")),
    Bound("ami", "LetPackerIn", ec2("key-pair", name="packer_6"), ec2("key-pair")),
    Bound("ami", "EndMachine", *both("instance"), BUILT, {"ec2:ResourceTag/Name": "x"}),
    Bound("ami", "Tag", *both(*TAGGED, "volume"), TAGS, {"aws:TagKeys": ["mayfly-slot"]}),
    Bound("ami", "OpenPort", ec2("security-group", "vpc"), {}),
    Bound("ami", "KeepDisk", ec2("instance", "image", "snapshot"), {}),
    Bound("ami", "RemoveImage", ec2("image", "snapshot"), {}),
    Bound(
        "deploy", "Stack", *arns("stack", "cloudformation", "stack/", "mayfly-test/1", "other/1")
    ),
    Bound("deploy", "Machine", *both("instance"), STACK, {"ec2:ResourceTag/mayfly-stack": "x"}),
    Bound(
        "deploy",
        "Roles",
        GUARD_ROLE | {"instance-profile": f"{IAM}:instance-profile/mayfly-1"},
        {"role": f"{IAM}:role/admin", "instance-profile": f"{IAM}:instance-profile/other"},
    ),
    Bound(
        "deploy",
        "GiveRoles",
        *(GUARD_ROLE, GUARD_ROLE, PASSED),
        {"iam:PassedToService": "ecs-tasks.amazonaws.com"},
    ),
    Bound(
        "deploy",
        "RolesOfAws",
        {"role": f"{IAM}:role/{SPOT}"},
        {"role": f"{IAM}:role/aws-service-role/ops.amazonaws.com/x"},
    ),
    Bound("deploy", "Guard", *arns("function", "lambda", "function:", "mayfly-guard")),
    Bound(
        "deploy",
        "Schedules",
        *arns("schedule", "scheduler", "schedule/default/", "mayfly-Launch-1"),
    ),
    Bound("deploy", "Queue", *arns("queue", "sqs", "", "mayfly-DeadLetters-1")),
    Bound("deploy", "Mail", *arns("topic", "sns", "", "mayfly-Alarms-1")),
    Bound(
        "deploy", "Alarm", *arns("alarm", "cloudwatch", "alarm:", "mayfly-SomethingDidNotStart-1")
    ),
    Bound("deploy", "Logs", *arns("log-group", "logs", "log-group:/aws/lambda/", "mayfly-guard")),
)


class Row(NamedTuple):
    """A call of the person; it is refused where no statement is named."""

    policy: str
    call: Call
    statement: str = ""


def rows() -> Iterator[Row]:
    """Yield for each action of each statement what it may be done to, and what not."""
    bounds = {(one.policy, one.statement): one for one in BOUNDS}
    for policy, document in DOCUMENTS.items():
        for name, statement in statements(document):
            bound = bounds.get((policy, name))
            assert (bound is None) == (statement["Resource"] == "*"), name
            for action in listed(statement["Action"]):
                if bound is None:
                    yield from (Row(policy, Call(action, one), name) for one in judged_by(action))
                    continue
                for kind in resource_types(action).keys() & bound.ours.keys():
                    yield Row(policy, Call(action, bound.ours[kind], bound.context), name)
                    if kind in bound.others:
                        yield Row(policy, Call(action, bound.others[kind], bound.other))


def judged_by(action: str) -> list[str]:
    """Return a resource of each type that a call of an action must have a right to."""
    needed = [kind for kind, required in resource_types(action).items() if required]
    return list(ec2(*needed).values()) or ["*"]


ROWS = tuple(rows())


@pytest.mark.parametrize("policy", DOCUMENTS)
def test_each_call_is_allowed_by_its_statement_or_refused(policy: str) -> None:
    """By the condition keys that each action has for each type of resource."""
    expected = ((row.call, row.statement) for row in ROWS if row.policy == policy)
    assert differences(DOCUMENTS[policy], expected) == []


@pytest.mark.parametrize("policy", DOCUMENTS)
def test_a_call_has_a_right_to_all_that_it_is_judged_by(policy: str) -> None:
    """A right to all but one kind of resource is no right."""
    assert lacking(row.call for row in ROWS if row.policy == policy and row.statement) == {}
