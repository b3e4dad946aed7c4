"""Facts of an EC2 instance, from its metadata service. Every answer is untrusted text: bounded, checked, or left out.

Decisions only.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from agent.contract.facts import Host

SLOT_TAG = "mayfly-slot"
"""Tag with the scheduled time of the launch; deploy/aws/mayfly.yaml sets it."""
MOST_TAGS = 50
"""EC2's limit for an instance."""
TAG_NAME_LENGTH = 128
TAG_VALUE_LENGTH = 256
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
"""The form of each answer; a newline or a look-alike digit is not part of any."""
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
        tags: Its tags, if its metadata options allow them.
        slot: The scheduled time that it was started for, from its tag.
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
    tags: Mapping[str, str] = field(default_factory=dict)
    slot: datetime | None = None


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
    "instance_id": "meta-data/instance-id",
    "instance_type": "meta-data/instance-type",
    "zone": "meta-data/placement/availability-zone",
    "region": "meta-data/placement/region",
    "image": "meta-data/ami-id",
    "life_cycle": "meta-data/instance-life-cycle",
    "launch_index": "meta-data/ami-launch-index",
    "public_address": "meta-data/public-ipv4",
    "identity": "dynamic/instance-identity/document",
}
"""Where each fact is, below `/latest/`."""
TAGS_PATH = "meta-data/tags/instance"
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


def host_facts(answers: Mapping[str, str | None], tags: Mapping[str, str]) -> HostFacts:
    """Return the valid facts of the service's answers (by the keys of `PATHS`) and tags."""
    texts = {name: (answers.get(name) or "").strip(" \r\n") for name in _FORMS}
    valid: dict[str, Any] = {
        name: text for name, text in texts.items() if _matches(_FORMS[name], text)
    }
    if "launch_index" in valid:
        valid["launch_index"] = int(valid["launch_index"])
    known = valid_tags(tags)
    return HostFacts(
        **valid | {"public_address": "public_address" in valid},
        launched=_moment(_object(answers.get("identity")).get("pendingTime")),
        tags=known,
        slot=_moment(known.get(SLOT_TAG)),
    )


def valid_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that EC2 could have: not too many, not too long, all printable."""
    good = {
        name: value
        for name, value in tags.items()
        if 0 < len(name) <= TAG_NAME_LENGTH
        and len(value) <= TAG_VALUE_LENGTH
        and name.isprintable()
        and value.isprintable()
    }
    return dict(sorted(good.items())[:MOST_TAGS])


def tag_names(listing: str) -> list[str]:
    """Return the names in a listing of tags, one a line, without those that no address can hold."""
    names = (line.strip() for line in listing[:LONGEST_ANSWER].splitlines())
    sound = [name for name in names if 0 < len(name) <= TAG_NAME_LENGTH and name.isprintable()]
    return [name for name in sound if name not in {".", "..", "_index"} and "/" not in name][
        :MOST_TAGS
    ]


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
