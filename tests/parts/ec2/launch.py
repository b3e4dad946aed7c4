"""What a request to launch, or the launch template that it names, says of a machine. Decisions only."""

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Launch:
    """A machine as it was asked for.

    Attributes:
        image: The image that it boots.
        ends: What a power-off inside means: `stop` or `terminate`.
        spot: Whether EC2 may take it back.
        profile: ARN or name of its instance profile; empty for a machine without a role.
        key: Name of the key pair that may log in.
        user_data: For the machine to read; None where there is none.
        shows_tags: Whether the metadata service has its tags.
    """

    image: str
    ends: str = "stop"
    spot: bool = False
    profile: str = ""
    key: str = ""
    user_data: str | None = None
    shows_tags: bool = False


def launch_of(asked: Mapping[str, str], template: Mapping[str, Any]) -> Launch:
    """Return the launch that a request asks for; what it says itself goes before its template.

    Args:
        asked: The parameters of the request, as EC2's query protocol names them.
        template: The data of the launch template; empty where there is none.
    """
    said = {**dict(flattened(template)), **asked}
    data = said.get("UserData")
    return Launch(
        image=said["ImageId"],
        ends=said.get("InstanceInitiatedShutdownBehavior", "stop"),
        spot=said.get("InstanceMarketOptions.MarketType") == "spot",
        profile=said.get("IamInstanceProfile.Arn") or said.get("IamInstanceProfile.Name", ""),
        key=said.get("KeyName", ""),
        user_data=base64.b64decode(data).decode() if data else None,
        shows_tags=said.get("MetadataOptions.InstanceMetadataTags") == "enabled",
    )


def fleet_launch(asked: Mapping[str, str], template: Mapping[str, Any]) -> Launch:
    """Return what a fleet launches: it is bought as the fleet says, and looks as the template says."""
    kind = asked.get("TargetCapacitySpecification.DefaultTargetCapacityType", "on-demand")
    return launch_of({"InstanceMarketOptions.MarketType": kind}, template)


def flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the simple values of a template, by the names that they have in a request."""
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flattened(inner, f"{prefix}{name}.")
        elif not isinstance(inner, list):
            yield f"{prefix}{name}", str(inner)


def template_named(asked: Mapping[str, str]) -> tuple[str, str] | None:
    """Return id and version of the launch template that a request names."""
    for prefix in ("LaunchTemplate.", "LaunchTemplateConfigs.1.LaunchTemplateSpecification."):
        if name := asked.get(f"{prefix}LaunchTemplateId"):
            return name, asked.get(f"{prefix}Version", "$Default")
    return None
