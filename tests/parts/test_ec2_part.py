"""The stand-in EC2 where no machine boots: what launches say, and whom it refuses. Its machines: tests/cloud."""

import base64
from collections.abc import Iterator

import boto3
import botocore.config
import pytest
import requests
from botocore.exceptions import ClientError

from tests.parts.aws import REGION
from tests.parts.ec2.identity import Identity
from tests.parts.ec2.launch import Launch, fleet_launch, launch_of
from tests.parts.ec2.room import MachineRoom
from tests.parts.machine import Disk
from tests.parts.metadata import Metadata

TEMPLATE = {
    "ImageId": "ami-1",
    "InstanceInitiatedShutdownBehavior": "terminate",
    "IamInstanceProfile": {"Arn": "arn:aws:iam::1:instance-profile/p"},
    "MetadataOptions": {"InstanceMetadataTags": "enabled"},
    "UserData": base64.b64encode(b"a = 1\n").decode(),
}
INSTANCE = {
    "InstanceId": "i-0123456789abcdef0",
    "InstanceType": "t3.large",
    "PrivateIpAddress": "10.77.0.5",
    "Placement": {"AvailabilityZone": f"{REGION}b"},
}


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MachineRoom]:
    """A room without a disk for anything but Amazon's images."""
    folder = tmp_path_factory.mktemp("room")
    with MachineRoom(folder, Disk.at(folder), {}) as one:
        yield one


def test_a_launch_is_what_its_template_says_and_its_request_changes() -> None:
    """What the request says itself goes before; a fleet says how it buys."""
    assert launch_of({}, TEMPLATE) == Launch(
        image="ami-1",
        ends="terminate",
        profile="arn:aws:iam::1:instance-profile/p",
        user_data="a = 1\n",
        shows_tags=True,
    )
    asked = {"ImageId": "ami-2", "InstanceMarketOptions.MarketType": "spot", "KeyName": "k"}
    assert launch_of(asked, {}) == Launch(image="ami-2", spot=True, key="k")
    assert launch_of(asked, TEMPLATE).image == "ami-2"
    spot = {"TargetCapacitySpecification.DefaultTargetCapacityType": "spot"}
    assert fleet_launch(spot, TEMPLATE).spot
    assert not fleet_launch({}, TEMPLATE).spot


def test_a_machine_is_told_what_its_launch_allows_and_no_more() -> None:
    """Without a role, tags in the metadata, a key pair or user data in the launch there are none to read."""
    tags = {"mayfly-slot": "2026-11-22T18:00:00Z"}
    with Identity(INSTANCE, Launch("ami-1"), "", lambda: tags) as bare:
        assert said(bare, "meta-data/instance-life-cycle") == "on-demand"
        assert said(bare, "meta-data/placement/region") == REGION
        for path in ("meta-data/tags/instance", "meta-data/iam", "meta-data/public-keys"):
            assert said(bare, path) is None
        assert said(bare, "user-data") is None
    launch = Launch("ami-1", spot=True, profile="p", key="k", user_data="a = 1\n", shows_tags=True)
    with Identity(INSTANCE, launch, "ssh-ed25519 AAAA", lambda: tags) as full:
        assert said(full, "meta-data/instance-life-cycle") == "spot"
        assert said(full, "meta-data/tags/instance/mayfly-slot") == tags["mayfly-slot"]
        assert said(full, "meta-data/public-keys/") == "0=k"
        assert said(full, "meta-data/public-keys/0/openssh-key") == "ssh-ed25519 AAAA"
        assert said(full, "user-data") == "a = 1\n"
        assert full.session_token in str(said(full, "meta-data/iam/security-credentials/mayfly"))


def said(service: Metadata, path: str) -> str | None:
    """Return what a metadata service answers; None for a 404."""
    token = {"X-aws-ec2-metadata-token": service.make_token()}
    answer = requests.get(f"{service.url}/latest/{path}", headers=token, timeout=10)
    assert answer.status_code in {200, 404}
    return answer.text if answer.ok else None


def test_what_has_no_disk_is_not_launched(room: MachineRoom) -> None:
    """The stand-in behind it launches anything."""
    with pytest.raises(ClientError, match="InvalidAMIID"):
        room.client("ec2").run_instances(ImageId="ami-12c6146b", MinCount=1, MaxCount=1)


def test_the_aws_of_machines_knows_the_keys_of_machines_alone(room: MachineRoom) -> None:
    """Keys with which the stand-in itself would answer open nothing."""
    client = boto3.client(
        "ssm",
        region_name=REGION,
        endpoint_url=room.door,
        aws_access_key_id="ASIATESTING",
        aws_secret_access_key="testing",
        verify=str(room.trusted.file),
        config=botocore.config.Config(retries={"total_max_attempts": 1}),
    )
    with pytest.raises(ClientError, match="UnrecognizedClientException"):
        client.get_parameters_by_path(Path="/mayfly")
