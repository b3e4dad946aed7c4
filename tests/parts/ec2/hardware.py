"""A machine of EC2, as far as an emulator can be one: one interface, and a firmware that says whose it is."""

from tests.parts.machine import Machine, forwards
from tests.parts.ports import LOOPBACK

NETWORK = "net=169.254.0.0/16,host=169.254.0.2,dns=169.254.0.3,dhcpstart=169.254.0.15,ipv6=off,restrict=on"
"""The emulator reaches a service only within its own network, and the metadata service has a fixed address. A network
of EC2 has no IPv6 unless it is asked for."""

METADATA, AWS = "169.254.169.254:80", "169.254.0.20:443"
GIT, STORE, SITE = "169.254.0.10:80", "169.254.0.11:80", "169.254.0.12:80"
UUID = "ec2e1916-9099-7caf-fd21-012345abcdef"


class Ec2Machine(Machine):
    """A machine that finds its metadata service, AWS and the tests' servers at their addresses."""

    name = ""
    type = ""

    def _hardware(self) -> list[str]:
        login = f"hostfwd=tcp:{LOOPBACK}:{self._port}-:22,"
        way_in = login if self._login else ""
        words = f"user,model=virtio-net-pci,{NETWORK},{way_in}".rstrip(",")
        return [
            *("-nic", f"{words}{forwards(self.services)}"),
            *(
                "-smbios",
                f"type=1,manufacturer=Amazon EC2,product={self.type},serial={UUID},uuid={UUID}",
            ),
            *("-smbios", f"type=2,manufacturer=Amazon EC2,asset={self.name}"),
        ]
