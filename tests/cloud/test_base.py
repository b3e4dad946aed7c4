"""The stand-in for Amazon's image has what that has, as far as Debian can: looked at on a machine that it booted."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cloud.world import World
from tests.parts.command import completed
from tests.parts.ec2.identity import MAC
from tests.parts.ec2.room import BASE
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK
from tests.parts.waiting import wait_until

pytestmark = [pytest.mark.machine, pytest.mark.timeout(3000)]

BOOT_SECONDS = 900
COMMAND_SECONDS = 300
"""Beside other work an emulated machine may take a minute for what a real one does in a second."""
LOGIN_SECONDS = 60
"""Of one attempt. The emulator takes a connection when nobody listens in the machine yet, and says nothing."""
Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def ask(around: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Runs a command as ec2-user, who has the key that the launch named; returns what it said."""
    ec2 = around.room.client("ec2")
    filters = [{"Name": name, "Values": [value]} for name, value in BASE.items()]
    base = ec2.describe_images(Owners=["amazon"], Filters=filters)["Images"][0]["ImageId"]
    key: Path = tmp_path_factory.mktemp("login") / "key"
    key.touch(mode=0o600)
    key.write_text(ec2.create_key_pair(KeyName="look")["KeyMaterial"] + "\n")
    answer = ec2.run_instances(ImageId=base, KeyName="look", MinCount=1, MaxCount=1)
    name = str(answer["Instances"][0]["InstanceId"])

    def say(command: str) -> "subprocess.CompletedProcess[str]":
        options = ("StrictHostKeyChecking=no", f"UserKnownHostsFile={os.devnull}", "BatchMode=yes")
        more = ("LogLevel=ERROR", f"ConnectTimeout={LOGIN_SECONDS}")
        words = [word for one in (*options, *more) for word in ("-o", one)]
        to = ["-i", str(key), "-p", str(around.room.login), f"ec2-user@{LOOPBACK}"]
        login = [program("ssh"), "-F", os.devnull, *words, *to]
        return completed([*login, command], seconds=COMMAND_SECONDS)

    def ask(command: str) -> str:
        done = say(command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def answers() -> bool:
        with suppress(subprocess.TimeoutExpired):
            return say("true").returncode == 0
        return False

    wait_until(answers, seconds=BOOT_SECONDS, what="ec2-user's login")
    yield ask
    ec2.terminate_instances(InstanceIds=[name])
    around.room.wait_state(name, "terminated", 300)


def test_cloud_init_knows_the_machine_from_ec2(ask: Ask) -> None:
    """Its source of data is Ec2, and what it made of it is a user with sudo and no password."""
    ask("sudo cloud-init status --wait")
    assert ask("cloud-id") == "aws"
    assert "DataSourceEc2" in ask("cat /run/cloud-init/result.json")
    assert ask("sudo id -un") == "root"
    assert ask("sudo passwd --status ec2-user").split()[1] == "L"


def test_it_has_what_amazons_image_has(ask: Ask) -> None:
    """/tmp is in memory, so nothing of it is on the image; iptables writes the new tables; SELinux refuses nothing."""
    assert ask("findmnt --noheadings --output FSTYPE /tmp") == "tmpfs"
    assert "nf_tables" in ask("sudo iptables --version")
    assert ask("cat /sys/fs/selinux/enforce") == "0"
    assert ask("cat /proc/1/attr/current").strip("\0").startswith("system_u:system_r:init_t")
    assert ":etc_t:" in ask("stat --format %C /etc/fstab")


def test_the_network_is_amazons_own(ask: Ask) -> None:
    """amazon-ec2-net-utils asked the metadata service and wrote what the interface is.

    networkd is told of it only when no refresh is under way by then; beside an emulator's other work there may be one.
    """
    link = ask(f"ip --brief link | sed -n 's/ .*{MAC}.*//p'")
    wanted = f"systemctl is-active policy-routes@{link}.service"
    wait_until(lambda: ask(f"{wanted} || true") == "active", seconds=120, what="its unit to end")
    assert re.search(rf"/(80-ec2|70-{link})\.network", ask(f"networkctl status {link}"))
    assert f"MACAddress={MAC}" in ask(f"cat /run/systemd/network/70-{link}.network.d/eni.conf")
    assert "altname device-number-0" in ask(f"ip link show {link}")
