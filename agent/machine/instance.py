"""Facts of an EC2 instance, from its metadata service. Every answer is untrusted text: bounded, checked, or left out.

Decisions only.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from agent.contract.facts import Host
from agent.contract.ids import COUNT_TAG

SLOT_TAG = "mayfly-slot"
"""Tag with the scheduled time of the launch; deploy/aws/mayfly.yaml sets it."""
LONGEST_TAG = 256
"""Characters of a tag's value; EC2's limit."""
LONGEST_ANSWER = 16 * 1024
"""Characters; an identity document has some 500."""

_INSTANCE_ID = r"i-[0-9a-f]{8,32}"
_PLACE = r"[a-z]{2}(-[a-z0-9]{1,16}){1,5}"
_FORMS: Mapping[str, str] = {
    "instance_id": _INSTANCE_ID,
    "instance_type": r"[a-z0-9-]{1,24}\.[a-z0-9-]{1,24}",
    "zone": _PLACE,
    "region": _PLACE,
    "image": r"ami-[0-9a-f]{8,32}",
    "life_cycle": r"spot|on-demand",
    "launch_index": r"[0-9]{1,7}",
    "public_address": r"[0-9]{1,3}(\.[0-9]{1,3}){3}",
}
"""The form of each fact; a newline or a look-alike digit is not part of any."""
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z"

LifeCycle = Literal["on-demand", "spot"]
SpotAction = Literal["hibernate", "stop", "terminate"]


@dataclass(frozen=True, slots=True)
class HostFacts:
    """An EC2 instance; None means 'no answer, or an invalid one'.

    Attributes:
        instance_id: Such as `i-0123456789abcdef0`.
        instance_type: Such as `t3.medium`.
        zone: Availability zone, such as `ap-northeast-3a`.
        region: Such as `ap-northeast-3`.
        image: Its image, `ami-...`.
        life_cycle: How it is paid for.
        launch_index: Its number among the machines of one launch request, from 0.
        launched: When EC2 began to start it; the bill begins a few seconds later.
        public_address: Whether it has a public IPv4 address, which costs money by the hour.
        slot: The scheduled time that it was started for, from its tag, if its metadata options allow tags.
        shards: How many shards its fleet has, as its tag says.
    """

    instance_id: str | None = None
    instance_type: str | None = None
    zone: str | None = None
    region: str | None = None
    image: str | None = None
    life_cycle: LifeCycle | None = None
    launch_index: int | None = None
    launched: datetime | None = None
    public_address: bool = False
    slot: datetime | None = None
    shards: str | None = None


@dataclass(frozen=True, slots=True)
class SpotNotice:
    """EC2's notice of an interruption.

    Attributes:
        action: What EC2 will do.
        time: When, at the earliest: two minutes after the notice appeared.
    """

    action: SpotAction
    time: datetime


PATHS: Mapping[str, str] = {
    "identity": "dynamic/instance-identity/document",
    "life_cycle": "meta-data/instance-life-cycle",
    "launch_index": "meta-data/ami-launch-index",
    "public_address": "meta-data/public-ipv4",
    "slot": f"meta-data/tags/instance/{SLOT_TAG}",
    "shards": f"meta-data/tags/instance/{COUNT_TAG}",
}
"""What is asked for, below `/latest/`."""
_IDENTITY: Mapping[str, str] = {
    "instance_id": "instanceId",
    "instance_type": "instanceType",
    "zone": "availabilityZone",
    "region": "region",
    "image": "imageId",
}
"""What the identity document says of the machine, besides its `pendingTime`."""
NOTICE_PATH = "meta-data/spot/instance-action"
REBALANCE_PATH = "meta-data/events/recommendations/rebalance"


def on_ec2(vendor: str, asset_tag: str, product_uuid: str) -> bool:
    """Tell from the firmware's tables (DMI) whether this is an EC2 instance.

    Nitro machines name the vendor and carry their id as the asset tag; Xen's have a UUID that begins with `ec2`.
    """
    return (
        vendor.strip() == "Amazon EC2"
        or _matches(_INSTANCE_ID, asset_tag.strip())
        or product_uuid.strip().lower().startswith("ec2")
    )


def host_facts(answers: Mapping[str, str | None]) -> HostFacts:
    """Return the valid facts of the service's answers (by the keys of `PATHS`)."""
    document = _object(answers.get("identity"))
    said = {**answers, **{name: document.get(key) for name, key in _IDENTITY.items()}}
    texts = {name: text.strip(" \r\n") for name, text in said.items() if isinstance(text, str)}
    valid: dict[str, Any] = {
        name: texts[name] for name, form in _FORMS.items() if _matches(form, texts.get(name, ""))
    }
    if "launch_index" in valid:
        valid["launch_index"] = int(valid["launch_index"])
    count = answers.get("shards")
    if count is not None and (len(count) > LONGEST_TAG or not count.isprintable()):
        count = None
    return HostFacts(
        **valid | {"public_address": "public_address" in valid},
        launched=_moment(document.get("pendingTime")),
        slot=_moment(answers.get("slot")),
        shards=count,
    )


def spot_notice(answer: str | None) -> SpotNotice | None:
    """Return the notice in an answer of `spot/instance-action`; None if it has no valid one."""
    data = _object(answer)
    time = _moment(data.get("time"))
    match data.get("action"):
        case ("hibernate" | "stop" | "terminate") as action if time is not None:
            return SpotNotice(action, time)
        case _:
            return None


def rebalance_notice(answer: str | None) -> datetime | None:
    """Return since when EC2 recommends to leave the machine, which stops nothing."""
    return _moment(_object(answer).get("noticeTime"))


def with_facts(record: Host, facts: HostFacts | None) -> Host:
    """Return the manifest's record of the machine with EC2's facts."""
    if facts is None:
        return record
    copied = ("instance_id", "instance_type", "zone", "image", "life_cycle")
    return record.model_copy(update={name: getattr(facts, name) for name in copied})


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern, text, re.ASCII) is not None


def _object(answer: str | None) -> dict[str, Any]:
    if not answer or len(answer) > LONGEST_ANSWER:
        return {}
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _moment(text: object) -> datetime | None:
    if not isinstance(text, str) or not _matches(_TIME, text):
        return None
    try:
        return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError:
        return None
