"""The metadata service of one machine: what EC2 knows of it, and nothing that it was not asked to give."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any

from tests.parts.ec2.launch import Launch
from tests.parts.metadata import Metadata

MAC = "52:54:00:12:34:56"
"""The emulator's own, the same in every machine: each has a network of its own."""


class Identity(Metadata):
    """Who a machine is.

    Attributes:
        launch: As it was asked for.
    """

    def __init__(
        self,
        instance: Mapping[str, Any],
        launch: Launch,
        public_key: str,
        tags_of: Callable[[], dict[str, str]],
    ) -> None:
        """Make the service.

        Args:
            instance: As EC2 describes it.
            launch: As it was asked for.
            public_key: Of the key pair that may log in.
            tags_of: Asks EC2 for the machine's tags, as they are now.
        """
        self.launch = launch
        self._tags_of = tags_of
        address = instance["PrivateIpAddress"]
        host = f"ip-{address.replace('.', '-')}.{instance['Placement']['AvailabilityZone'][:-1]}.compute.internal"
        more = {
            "instance-life-cycle": "spot" if launch.spot else "on-demand",
            "local-ipv4": address,
            "hostname": host,
            "mac": MAC,
            "local-hostname": host,
            f"network/interfaces/macs/{MAC}/mac": MAC,
            f"network/interfaces/macs/{MAC}/device-number": "0",
            f"network/interfaces/macs/{MAC}/interface-id": f"eni-{instance['InstanceId'][2:]}",
            f"network/interfaces/macs/{MAC}/local-ipv4s": address,
        }
        if public_key:
            more["public-keys/0/openssh-key"] = public_key
        super().__init__(
            instance_id=instance["InstanceId"],
            instance_type=instance["InstanceType"],
            zone=instance["Placement"]["AvailabilityZone"],
            image=launch.image,
            facts=more,
        )
        if launch.profile:
            self.credentials = (f"ASIA{secrets.token_hex(8).upper()}", secrets.token_hex(20))
            self.session_token = secrets.token_hex(30)

    def answer(self, path: str) -> str | None:
        """What it says at a path; tags are those of now, and only where the launch shows them."""
        match path.strip("/"):
            case "user-data":
                return self.launch.user_data
            case "meta-data/public-keys" if self.launch.key:
                return f"0={self.launch.key}"
            case "":
                return "dynamic\nmeta-data" + ("\nuser-data" if self.launch.user_data else "")
        if self.launch.shows_tags and "/tags" in path:
            self.tags = self._tags_of()
        return super().answer(path)
