"""EC2 as a role meets it: each call is judged by the role's policies, and spot machines have requests.

The stand-in for AWS does neither: it lets everybody do everything, and knows no spot request of a machine that
`RunInstances` made.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.aws.policy import Context, Policies, allows
from tests.parts.aws import REGION, Aws
from tests.parts.awsproxy import Answer, AwsProxy

ACCOUNT = "123456789012"
EC2 = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
CREATED = ("instance", "network-interface", "volume")
LAUNCHES = {"RunInstances", "CreateFleet"}
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
MACHINE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")

Call = tuple[str, str, Context]
"""Action, resource and context of one question to IAM."""


@dataclass
class SpotRequest:
    """The request that EC2 makes for a spot machine.

    Attributes:
        kind: `one-time`, or `persistent`, which launches again until it is cancelled.
        tags: Its own; those of its machine are not its.
        cancelled: Whether it was.
    """

    kind: str = "one-time"
    tags: Mapping[str, str] = field(default_factory=dict)
    cancelled: bool = False


SpotRequests = dict[str, SpotRequest]
"""By the id of the machine."""


class Ec2(AwsProxy):
    """EC2 for one role, as a context manager.

    Attributes:
        denied: The actions that the role had no right to, in order.
    """

    def __init__(self, aws: Aws, policies: Policies, requests: SpotRequests) -> None:
        super().__init__(aws.url)
        self._ec2 = aws.client("ec2")
        self._iam = aws.client("iam")
        self._policies = policies
        self._requests = requests
        self.denied: list[str] = []

    def answer(self, body: bytes) -> Answer | None:
        """Refuse what the role has no right to; answer what is about spot requests."""
        asked = dict(parse_qsl(body.decode()))
        for action, resource, context in self._calls(asked):
            if not allows(self._policies, action, resource, context):
                self.denied.append(action)
                return 403, _error("UnauthorizedOperation", f"no {action} on {resource}")
        match asked["Action"]:
            case "DescribeSpotInstanceRequests":
                return 200, self._described(asked)
            case "CancelSpotInstanceRequests":
                for machine in _values(asked, "SpotInstanceRequestId"):
                    self._requests[_machine_of(machine)].cancelled = True
                return 200, _reply("CancelSpotInstanceRequests", "")
            case _:
                return None

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Give each spot machine its request."""
        asked = dict(parse_qsl(request.decode()))
        if asked["Action"] in LAUNCHES and "spot" in asked.values():
            kind = asked.get("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time")
            for name in MACHINE.findall(answer) or re.findall(rb">(i-[0-9a-f]+)<", answer):
                self._requests[name.decode()] = SpotRequest(
                    kind, _tags(asked, "spot-instances-request")
                )
        return MACHINE.sub(self._with_request, answer)

    def _with_request(self, found: re.Match[bytes]) -> bytes:
        name = found[1].decode()
        if name not in self._requests:
            return found[0]
        request = f"<spotInstanceRequestId>{_request_of(name)}</spotInstanceRequestId>"
        return found[0] + request.encode()

    def _described(self, asked: Mapping[str, str]) -> bytes:
        filters = dict(_filters(asked))
        wanted = filters.get(
            "spot-instance-request-id", {_request_of(one) for one in self._requests}
        )
        rows = (
            f"<item><spotInstanceRequestId>{_request_of(name)}</spotInstanceRequestId>"
            f"<type>{one.kind}</type><instanceId>{name}</instanceId></item>"
            for name, one in self._requests.items()
            if _request_of(name) in wanted and one.kind in filters.get("type", {one.kind})
        )
        items = f"<spotInstanceRequestSet>{''.join(rows)}</spotInstanceRequestSet>"
        return _reply("DescribeSpotInstanceRequests", items)

    def _calls(self, asked: Mapping[str, str]) -> Iterator[Call]:
        """Yield what EC2 asks IAM about a request."""
        action = asked["Action"]
        match action:
            case "RunInstances":
                yield from self._launch(asked, "LaunchTemplate.", "RunInstances")
            case "CreateFleet":
                for kind in ("fleet", "instance"):
                    yield "ec2:CreateFleet", f"{EC2}:{kind}/*", {}
                prefix = "LaunchTemplateConfigs.1.LaunchTemplateSpecification."
                yield from self._launch(asked, prefix, "CreateFleet")
            case "CancelSpotInstanceRequests":
                for name in _values(asked, "SpotInstanceRequestId"):
                    tags = self._requests[_machine_of(name)].tags
                    yield f"ec2:{action}", f"{EC2}:spot-instances-request/{name}", _tagged(tags)
            case "StartInstances" | "StopInstances" | "TerminateInstances":
                for name in _values(asked, "InstanceId"):
                    yield f"ec2:{action}", f"{EC2}:instance/{name}", _tagged(self._tags_of(name))
            case "CreateTags":
                keys = [v for k, v in asked.items() if re.fullmatch(r"Tag\.\d+\.Key", k)]
                for name in _values(asked, "ResourceId"):
                    yield "ec2:CreateTags", f"{EC2}:instance/{name}", {"aws:TagKeys": keys}
            case _:
                yield f"ec2:{action}", "*", {}

    def _launch(self, asked: Mapping[str, str], prefix: str, action: str) -> Iterator[Call]:
        """Yield the questions about a launch from a template; what the template names is the template's."""
        template = asked.get(f"{prefix}LaunchTemplateId")
        if template is None:
            yield "ec2:RunInstances", f"{EC2}:instance/*", {}
            return
        versions = self._ec2.describe_launch_template_versions(
            LaunchTemplateId=template, Versions=[asked[f"{prefix}Version"]]
        )
        data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
        arn = f"{EC2}:launch-template/{template}"
        groups = _values(asked, "SecurityGroupId")
        used = [
            (
                f"arn:aws:ec2:{REGION}::image/{asked.get('ImageId', data['ImageId'])}",
                "ImageId" not in asked,
            ),
            *((f"{EC2}:security-group/{one}", False) for one in groups),
            *(
                (f"{EC2}:security-group/{one}", True)
                for one in data["SecurityGroupIds"]
                if not groups
            ),
            *((f"{EC2}:subnet/{v}", False) for k, v in asked.items() if k.endswith("SubnetId")),
            *((f"{EC2}:{kind}/*", False) for kind in CREATED),
            (arn, False),
        ]
        for resource, of_template in used:
            context = {
                "ec2:LaunchTemplate": arn,
                "ec2:IsLaunchTemplateResource": str(of_template).lower(),
            }
            yield "ec2:RunInstances", resource, context
        if "spot" in asked.values():
            yield "ec2:RunInstances", f"{EC2}:spot-instances-request/*", {"ec2:LaunchTemplate": arn}
        for kind in {v for k, v in asked.items() if k.endswith("ResourceType")} | {
            one["ResourceType"] for one in data["TagSpecifications"]
        }:
            yield "ec2:CreateTags", f"{EC2}:{kind}/*", {"ec2:CreateAction": action}
        profile = data["IamInstanceProfile"]["Arn"].rpartition("/")[2]
        roles = self._iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"][
            "Roles"
        ]
        for role in roles:
            yield "iam:PassRole", role["Arn"], {"iam:PassedToService": "ec2.amazonaws.com"}

    def _tags_of(self, machine: str) -> dict[str, str]:
        (found,) = self._ec2.describe_instances(InstanceIds=[machine])["Reservations"]
        return {tag["Key"]: tag["Value"] for tag in found["Instances"][0].get("Tags", [])}


def _tagged(tags: Mapping[str, str]) -> Context:
    return {f"ec2:ResourceTag/{name}": value for name, value in tags.items()}


def _request_of(machine: str) -> str:
    return f"sir-{machine.removeprefix('i-')}"


def _machine_of(request: str) -> str:
    return f"i-{request.removeprefix('sir-')}"


def _values(asked: Mapping[str, str], name: str) -> list[str]:
    return [value for key, value in asked.items() if re.fullmatch(rf"{name}\.\d+", key)]


def _filters(asked: Mapping[str, str]) -> Iterator[tuple[str, set[str]]]:
    for key, name in asked.items():
        if found := re.fullmatch(r"Filter\.(\d+)\.Name", key):
            yield name, set(_values(asked, rf"Filter\.{found[1]}\.Value"))


def _tags(asked: Mapping[str, str], kind: str) -> dict[str, str]:
    """The tags that a launch gives to a type of resource."""
    tags = {}
    for key, value in asked.items():
        if key.endswith(".ResourceType") and value == kind:
            prefix = key.removesuffix("ResourceType")
            for number in range(1, 50):
                if f"{prefix}Tag.{number}.Key" in asked:
                    tags[asked[f"{prefix}Tag.{number}.Key"]] = asked[f"{prefix}Tag.{number}.Value"]
    return tags


def _reply(action: str, content: str) -> bytes:
    return f'<{action}Response xmlns="{NAMESPACE}"><requestId>r</requestId>{content}</{action}Response>'.encode()


def _error(code: str, message: str) -> bytes:
    error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return f"<Response><Errors>{error}</Errors><RequestID>r</RequestID></Response>".encode()
