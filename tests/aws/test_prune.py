"""Old images go with their snapshots; the newest of each processor and those in use stay."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.parts.aws import PERSON, Aws
from tests.parts.awsproxy import Answer, AwsProxy
from tests.parts.command import completed

SCRIPT = Path(__file__).parents[2] / "packer/ami.py"
REGION = "ap-northeast-1"
"""No other test has images of its own there."""


@pytest.fixture
def ec2(aws_stand_in: Aws) -> Any:
    """EC2 in a region of this test's own."""
    return aws_stand_in.client("ec2", region=REGION)


def image(ec2: Any, built: str, arch: str = "x86_64", *, ours: bool = True) -> str:
    """Make an image as a build does, and return its id."""
    tags = [{"Key": "mayfly:built", "Value": built}] if ours else [{"Key": "Name", "Value": "x"}]
    wanted = [{"Name": "architecture", "Values": [arch]}]
    base = ec2.describe_images(Owners=["amazon"], Filters=wanted)["Images"][0]["ImageId"]
    (machine,) = ec2.run_instances(ImageId=base, MinCount=1, MaxCount=1)["Instances"]
    name: str = ec2.create_image(
        Name=f"mayfly-{built}-{arch}-{ours}",
        InstanceId=machine["InstanceId"],
        TagSpecifications=[{"ResourceType": "image", "Tags": tags}],
    )["ImageId"]
    ec2.terminate_instances(InstanceIds=[machine["InstanceId"]])
    return name


def prune(url: str, keep: str) -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    command = [sys.executable, str(SCRIPT), "prune", REGION, keep]
    around = {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": url}
    keys = {name: value for name, value in PERSON.items() if name != "AWS_REGION"}
    return completed(command, environ={**around, **keys})


@pytest.mark.long
def test_old_images_go_and_what_is_used_stays(aws_stand_in: Aws, ec2: Any) -> None:
    """Of each processor the newest stay, and what a template's latest version or a stopped machine needs; others'."""
    stranger = image(ec2, "20200101T000000Z", ours=False)
    launched = image(ec2, "20260101T000000Z")
    stopped = image(ec2, "20260102T000000Z")
    first = image(ec2, "20260103T000000Z")
    newest = [image(ec2, "20260105T000000Z"), image(ec2, "20260104T000000Z")]
    arm = image(ec2, "20250101T000000Z", "arm64")
    ec2.create_launch_template(LaunchTemplateName="one", LaunchTemplateData={"ImageId": first})
    ec2.create_launch_template_version(
        LaunchTemplateName="one", LaunchTemplateData={"ImageId": launched}
    )
    machine = ec2.run_instances(ImageId=stopped, MinCount=1, MaxCount=1)["Instances"][0]
    ec2.stop_instances(InstanceIds=[machine["InstanceId"]])
    (old,) = ec2.describe_images(ImageIds=[first])["Images"]
    snapshot = old["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    done = prune(aws_stand_in.url, "2")
    assert done.returncode == 0, done.stderr
    assert done.stderr == f"ami: removed {first} {old['Name']}, with its snapshots\n"
    left = {one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]}
    assert left == {stranger, launched, stopped, *newest, arm}
    kept = {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert snapshot not in kept
    assert prune(aws_stand_in.url, "2").stderr == ""


class _KeepsSnapshots(AwsProxy):
    """EC2 on a day on which it deletes no snapshot."""

    def answer(self, body: bytes) -> Answer | None:
        """Refuse that alone."""
        if b"Action=DeleteSnapshot" not in body:
            return None
        error = "<Code>RequestLimitExceeded</Code><Message>later</Message>"
        return 503, f"<Response><Errors><Error>{error}</Error></Errors></Response>".encode()


def test_a_snapshot_that_stays_behind_is_named(aws_stand_in: Aws, ec2: Any) -> None:
    """Its image is gone, so that no later call would look for it."""
    for day in (1, 2):
        image(ec2, f"2024010{day}T000000Z", "arm64")
    with _KeepsSnapshots(aws_stand_in.url) as proxy:
        done = prune(proxy.url, "1")
    assert done.returncode != 0
    (snapshot,) = re.findall(r"whose image is gone: (snap-\w+);", done.stderr)
    assert ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"]


@pytest.mark.parametrize("keep", ["0", "-1", "all", ""])
def test_none_are_removed_by_a_slip(aws_stand_in: Aws, keep: str) -> None:
    """What is no number of images is a question about how the command is used."""
    assert prune(aws_stand_in.url, keep).returncode == 2
