"""EC2 as a role meets it: each call is judged by the role's policies, and spot machines have requests.

The stand-in for AWS does neither: it lets everybody do everything, and knows no spot request of a machine that
`RunInstances` made.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from tests.parts.aws import ACCOUNT, Aws
from tests.parts.awsproxy import Answer, Ec2Proxy, ec2_answer, ec2_error
from tests.parts.ec2_rights import LAUNCHES, Ec2Rights, tags_for, values
from tests.parts.rights import Call, Decision, Policies, allowed

EMPTY_FLEET = (
    "<fleetId>fleet-0</fleetId><fleetInstanceSet/><errorSet><item>"
    "<errorCode>InsufficientInstanceCapacity</errorCode>"
    "<errorMessage>There is no Spot capacity available that matches your request.</errorMessage>"
    "<lifecycle>spot</lifecycle></item></errorSet>"
)
"""What EC2 answers to an instant fleet for which it has no machine; the status is 200."""
MACHINE = re.compile(rb"<instanceId>(i-[0-9a-f]+)</instanceId>")


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


class Ec2(Ec2Proxy):
    """EC2 for one role, as a context manager.

    Attributes:
        judged: Every question to IAM, and its answer, in order.
    """

    def __init__(
        self, aws: Aws, policies: Policies, spot: SpotRequests, *, capacity: bool = True
    ) -> None:
        super().__init__(aws.url)
        self._capacity = capacity
        self._rights = Ec2Rights(
            aws.client("ec2"),
            aws.client("iam"),
            ACCOUNT,
            lambda name: spot[_machine_of(name)].tags,
        )
        self._policies = policies
        self._requests = spot
        self.judged: list[tuple[Call, Decision]] = []

    def answer(self, body: bytes) -> Answer | None:
        """Refuse what the role has no right to; answer what is about spot requests."""
        asked = dict(parse_qsl(body.decode()))
        for call in self._rights.calls(asked):
            decision = allowed(self._policies, call)
            self.judged.append((call, decision))
            if not decision.allowed:
                return 403, ec2_error(
                    "UnauthorizedOperation", f"no {call.action} on {call.resource}"
                )
        match asked["Action"]:
            case "DescribeSpotInstanceRequests":
                return 200, self._described(asked)
            case "CancelSpotInstanceRequests":
                for machine in values(asked, "SpotInstanceRequestId"):
                    self._requests[_machine_of(machine)].cancelled = True
                return 200, ec2_answer("CancelSpotInstanceRequests", "")
            case "CreateFleet" if not self._capacity:
                return 200, ec2_answer("CreateFleet", EMPTY_FLEET)
            case _:
                return None

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Give each spot machine its request."""
        asked = dict(parse_qsl(request.decode()))
        if asked["Action"] in LAUNCHES and "spot" in asked.values():
            kind = asked.get("InstanceMarketOptions.SpotOptions.SpotInstanceType", "one-time")
            for name in MACHINE.findall(answer) or re.findall(rb">(i-[0-9a-f]+)<", answer):
                self._requests[name.decode()] = SpotRequest(
                    kind, tags_for(asked, "spot-instances-request")
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
        return ec2_answer("DescribeSpotInstanceRequests", items)


def _request_of(machine: str) -> str:
    return f"sir-{machine.removeprefix('i-')}"


def _machine_of(request: str) -> str:
    return f"i-{request.removeprefix('sir-')}"


def _filters(asked: Mapping[str, str]) -> Iterator[tuple[str, set[str]]]:
    for key, name in asked.items():
        if found := re.fullmatch(r"Filter\.(\d+)\.Name", key):
            yield name, set(values(asked, rf"Filter\.{found[1]}\.Value"))
