"""Which questions EC2 asks IAM about a request of its query protocol.

What a request names by itself and what it takes from a launch template is told apart, as EC2 does with
`ec2:IsLaunchTemplateResource`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.parts.rights import Call, Context, resource_types

CREATED = ("instance", "network-interface", "volume")
LAUNCHES = {"RunInstances", "CreateFleet"}
KINDS = {
    "i": "instance",
    "ami": "image",
    "snap": "snapshot",
    "vol": "volume",
    "eni": "network-interface",
    "sg": "security-group",
    "subnet": "subnet",
    "vpc": "vpc",
}
"""Of resource, by how its ids begin."""
ALL_ACCOUNTS = {"image", "snapshot"}
"""Their ARNs name no account."""


class Ec2Rights:
    """The questions, with what EC2 looks up for them.

    Args:
        ec2: A client with all rights, for launch templates and the tags of machines.
        iam: The same, for instance profiles.
        account: The account's number.
        spot_tags: Returns the tags of a spot request.
    """

    def __init__(
        self, ec2: Any, iam: Any, account: str, spot_tags: Callable[[str], Mapping[str, str]]
    ) -> None:
        self._ec2 = ec2
        self._iam = iam
        self._region = ec2.meta.region_name
        self._ours = f"arn:aws:ec2:{self._region}:{account}"
        self._spot_tags = spot_tags

    def calls(self, asked: Mapping[str, str]) -> Iterator[Call]:
        """Yield what is asked about a request."""
        action = asked["Action"]
        match action:
            case "RunInstances":
                yield from self._launch(asked, "LaunchTemplate.")
            case "CreateFleet":
                keys = tag_keys(asked, "fleet")
                for kind in ("fleet", "instance"):
                    yield Call("ec2:CreateFleet", f"{self._ours}:{kind}/*", {"aws:TagKeys": keys})
                yield from self._launch(
                    asked, "LaunchTemplateConfigs.1.LaunchTemplateSpecification."
                )
            case "CancelSpotInstanceRequests":
                for name in values(asked, "SpotInstanceRequestId"):
                    context = _tagged(self._spot_tags(name))
                    yield Call(
                        f"ec2:{action}", f"{self._ours}:spot-instances-request/{name}", context
                    )
            case "StartInstances" | "StopInstances" | "TerminateInstances":
                for name in values(asked, "InstanceId"):
                    context = _tagged(self._tags_of(name))
                    yield Call(f"ec2:{action}", f"{self._ours}:instance/{name}", context)
            case "CreateTags":
                keys = [v for k, v in asked.items() if re.fullmatch(r"Tag\.\d+\.Key", k)]
                for name in values(asked, "ResourceId"):
                    context = {"aws:TagKeys": keys, "ec2:CreateAction": None}
                    yield Call("ec2:CreateTags", self._of(_kind_of(name), name), context)
            case _:
                yield from self._others(action, asked)

    def _others(self, action: str, asked: Mapping[str, str]) -> Iterator[Call]:
        """Yield what is asked about a request that names resources, or makes some that have no id yet."""
        named = {kind: value for value in asked.values() if (kind := _kind_of(value))}
        if "KeyName" in asked:
            named["key-pair"] = asked["KeyName"]
        kinds = resource_types(f"ec2:{action}")
        for kind, required in kinds.items():
            if kind in named or required:
                name = named.get(kind, "*")
                tags = self._tags_of(name) if _kind_of(name) == "instance" else {}
                yield Call(f"ec2:{action}", self._of(kind, name), _tagged(tags))
        if not kinds:
            yield Call(f"ec2:{action}")
        for kind in _tagged_kinds(asked):
            context: Context = {"ec2:CreateAction": action, "aws:TagKeys": tag_keys(asked, kind)}
            yield Call("ec2:CreateTags", self._of(kind, "*"), context)

    def _of(self, kind: str, name: str) -> str:
        place = f"arn:aws:ec2:{self._region}:" if kind in ALL_ACCOUNTS else self._ours
        return f"{place}:{kind}/{name}"

    def _launch(self, asked: Mapping[str, str], prefix: str) -> Iterator[Call]:
        template = asked.get(f"{prefix}LaunchTemplateId")
        data = template_data(self._ec2, template, asked[f"{prefix}Version"]) if template else {}
        arn = f"{self._ours}:launch-template/{template}" if template else None
        owner = self._owner_of(asked.get("ImageId") or data["ImageId"])
        for resource, of_template in self._used(asked, data, arn):
            context: Context = {
                "ec2:LaunchTemplate": arn,
                "ec2:IsLaunchTemplateResource": str(of_template).lower(),
                "ec2:InstanceType": asked.get("InstanceType", data.get("InstanceType")),
                "ec2:Owner": owner,
            }
            yield Call("ec2:RunInstances", resource, context)
        tagged = {kind: tag_keys(asked, kind) for kind in _tagged_kinds(asked)}
        tagged |= {
            one["ResourceType"]: [tag["Key"] for tag in one["Tags"]]
            for one in data.get("TagSpecifications", [])
        }
        for kind, keys in tagged.items():
            context = {"ec2:CreateAction": asked["Action"], "aws:TagKeys": keys}
            yield Call("ec2:CreateTags", f"{self._ours}:{kind}/*", context)
        yield from self._passed(asked.get("IamInstanceProfile.Arn"), data)

    def _used(
        self, asked: Mapping[str, str], data: Mapping[str, Any], template: str | None
    ) -> Iterator[tuple[str, bool]]:
        """Yield the resources of a launch, and whether the template names them."""
        image = asked.get("ImageId", data.get("ImageId"))
        yield f"arn:aws:ec2:{self._region}::image/{image}", "ImageId" not in asked
        groups = values(asked, "SecurityGroupId")
        for group in groups or data.get("SecurityGroupIds", []):
            yield f"{self._ours}:security-group/{group}", not groups
        for key, value in asked.items():
            if key.endswith("SubnetId"):
                yield f"{self._ours}:subnet/{value}", False
        if login := asked.get("KeyName"):
            yield f"{self._ours}:key-pair/{login}", False
        for kind in CREATED:
            yield f"{self._ours}:{kind}/*", False
        if template:
            yield template, False
        if "spot" in asked.values() or "InstanceMarketOptions" in data:
            yield f"{self._ours}:spot-instances-request/*", False

    def _passed(self, profile: str | None, data: Mapping[str, Any]) -> Iterator[Call]:
        arn = profile or data.get("IamInstanceProfile", {}).get("Arn")
        if arn is None:
            return
        name = arn.rpartition("/")[2]
        found = self._iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        for role in found["Roles"]:
            context = {"iam:PassedToService": "ec2.amazonaws.com"}
            yield Call("iam:PassRole", role["Arn"], context)

    def _owner_of(self, image: str) -> str:
        (found,) = self._ec2.describe_images(ImageIds=[image])["Images"]
        return str(found.get("ImageOwnerAlias", found["OwnerId"]))

    def _tags_of(self, machine: str) -> dict[str, str]:
        (found,) = self._ec2.describe_instances(InstanceIds=[machine])["Reservations"]
        return {tag["Key"]: tag["Value"] for tag in found["Instances"][0].get("Tags", [])}


def template_data(ec2: Any, name: str, version: str) -> dict[str, Any]:
    """Return what a version of a launch template says."""
    found = ec2.describe_launch_template_versions(LaunchTemplateId=name, Versions=[version])
    data: dict[str, Any] = found["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    return data


def values(asked: Mapping[str, str], name: str) -> list[str]:
    """Return a list of the query protocol: `InstanceId.1`, `InstanceId.2`."""
    return [value for key, value in asked.items() if re.fullmatch(rf"{name}\.\d+", key)]


def tag_keys(asked: Mapping[str, str], kind: str) -> list[str]:
    """Return the keys of the tags that a launch gives to a type of resource."""
    return list(tags_for(asked, kind))


def tags_for(asked: Mapping[str, str], kind: str) -> dict[str, str]:
    """Return the tags that a launch gives to a type of resource."""
    tags = {}
    for key, value in asked.items():
        if key.endswith(".ResourceType") and value == kind:
            prefix = re.escape(key.removesuffix("ResourceType"))
            for name in [one for one in asked if re.fullmatch(rf"{prefix}Tag\.\d+\.Key", one)]:
                tags[asked[name]] = asked[f"{name.removesuffix('Key')}Value"]
    return tags


def _kind_of(name: str) -> str:
    """Return the type of the resource that an id names; empty for what is no id."""
    found = re.fullmatch(r"([a-z]+)-[0-9a-f]{8,17}", name)
    return KINDS.get(found[1], "") if found else ""


def _tagged_kinds(asked: Mapping[str, str]) -> list[str]:
    return [value for key, value in asked.items() if key.endswith("ResourceType")]


def _tagged(tags: Mapping[str, str]) -> Context:
    return {f"ec2:ResourceTag/{name}": value for name, value in tags.items()}
