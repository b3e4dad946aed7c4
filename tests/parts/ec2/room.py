"""An EC2 whose machines are real: the stand-in for AWS answers, and what it says of a machine happens to one in QEMU.

A launch, from wherever, boots a machine from a fresh layer above its image's disk; a power-off inside stops or
terminates it, as its launch says. One thread, the operator, compares what EC2 says with what the machines do.
"""

import base64
import html
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

import requests

from tests.parts.aws import ACCOUNT, REGION, Aws
from tests.parts.awsproxy import Answer, AwsProxy, Ec2Proxy, ec2_answer, ec2_error
from tests.parts.certificate import Certificate, make_certificate
from tests.parts.command import output_of
from tests.parts.ec2.hardware import AWS, METADATA, Ec2Machine
from tests.parts.ec2.identity import Identity
from tests.parts.ec2.launch import Launch, fleet_launch, launch_of, template_named
from tests.parts.ec2_rights import template_data, values
from tests.parts.machine import Disk
from tests.parts.metadata import stamp
from tests.parts.missing import program
from tests.parts.ports import free_port
from tests.parts.waiting import wait_until

BASE = {
    "name": "al2023-ami-2023.*-kernel-6.1-x86_64",
    "root-device-type": "ebs",
    "virtualization-type": "hvm",
}
"""Amazon's images, all of which are the one disk that there is."""

BUTTON_SECONDS = {"stop": 300, "terminate": 90}
"""What a machine gets to go off by itself before its plug is pulled; a stopped one keeps its disk."""
NOTICE = timedelta(seconds=120)
ROUND_SECONDS = 1.0
MEMORY = 2560
IDS = re.compile(rb">(i-[0-9a-f]+)<")
STATES = {"stop": (64, "stopping"), "terminate": (32, "shutting-down")}
TAKEN = "Server.SpotInstanceTermination"


@dataclass
class Slot:
    """A place for one machine.

    Attributes:
        machine: With its disk.
        identity: Its metadata service.
        launch: As it was asked for.
        on: Whether the power is on, as far as EC2 knows.
        ending: How it is to end, once somebody said so: `stop` or `terminate`.
        plug: When its plug is pulled.
        taken: Whether it was EC2 that took it back.
    """

    machine: Ec2Machine
    identity: Identity
    launch: Launch
    on: bool = False
    ending: str = ""
    plug: float = float("inf")
    taken: bool = False

    def press(self, ending: str) -> None:
        """Press the power button; the plug is pulled when nothing comes of it."""
        self.ending = ending
        self.plug = time.monotonic() + BUTTON_SECONDS[ending]
        with suppress(OSError):
            self.machine.ask("system_powerdown")


class MachineRoom(Aws):
    """An AWS with real machines, as a context manager.

    Attributes:
        login: The port behind which ssh of the one machine with a key pair listens.
        door: Where the AWS is that machines see.
        trusted: Its certificate.
        judge: Whether an instance profile may do an action on a resource; everything, until somebody says otherwise.
        faults: What went wrong in the room itself.
        disks: The disk of each image.
        keys: The public key of each key pair.
        told: What happened to machines, as lines with the seconds since the room was opened.
    """

    def __init__(
        self,
        folder: Path,
        base: Disk,
        services: Mapping[str, int],
        *,
        trusted: Certificate | None = None,
    ) -> None:
        """Make the room; nothing runs yet.

        Args:
            folder: For disks, consoles and logs.
            base: The disk of Amazon's images.
            services: Addresses that every machine sees, and the ports of this machine behind them.
            trusted: The certificate of an earlier room, for an image that was made in it.
        """
        super().__init__(folder)
        self._folder = folder
        self._base = base
        self._services = dict(services)
        self.disks: dict[str, Path] = {}
        self.keys: dict[str, str] = {}
        self._launches: dict[str, Launch] = {}
        self._slots: dict[str, Slot] = {}
        self._states: dict[str, str] = {}
        self._stack = ExitStack()
        self._closing = threading.Event()
        self.faults: list[Exception] = []
        self._opened = time.monotonic()
        self.login = free_port()
        self.door = ""
        self.judge: Callable[[str, str, str], bool] = lambda *_: True
        self.told: list[str] = []
        names = [f"{one}.{REGION}.amazonaws.com" for one in ("ssm", "ec2", "sts")]
        self.trusted = trusted or make_certificate(folder, *names)

    def __enter__(self) -> Self:
        super().__enter__()
        self._stack.callback(super().__exit__)
        self._ec2 = self.client("ec2")
        for image in self._ec2.describe_images(
            Owners=["amazon"], Filters=[{"Name": n, "Values": [v]} for n, v in BASE.items()]
        )["Images"]:
            self.disks[image["ImageId"]] = self._base.image
        self._moto = self.url
        self._front = self._stack.enter_context(_Front(self, self.url))
        self.url = self._front.url
        self.environ["AWS_ENDPOINT_URL"] = self.url
        self.door = self._stack.enter_context(_Door(self, self.url)).url
        self._services[AWS] = int(self.door.rpartition(":")[2])
        operator = threading.Thread(target=self._operate)
        operator.start()
        self._stack.callback(operator.join, 60)
        self._stack.callback(self._closing.set)
        return self

    def __exit__(self, *raised: object) -> None:
        self._stack.close()
        if self.faults and raised[:1] == (None,):
            raise self.faults[0]

    @property
    def asked(self) -> list[dict[str, str]]:
        """What EC2 was asked so far, but for what the room itself asked."""
        return [dict(parse_qsl(body.decode(errors="replace"))) for body in self._front.bodies]

    def say(self, what: str) -> None:
        """Write a line of what happened."""
        self.told.append(f"{time.monotonic() - self._opened:6.0f} s  {what}")
        print(self.told[-1], flush=True)

    # What a test does to a machine, and sees of it.

    def wait_state(self, name: str, state: str, seconds: float) -> None:
        """Wait until EC2 says that a machine is in a state.

        Raises:
            WaitedTooLongError: It is not; the message has the end of the machine's console.
        """

        def there() -> bool:
            if self.faults:
                raise self.faults[0]
            return self._states.get(name) == state

        try:
            wait_until(there, seconds=seconds, what=f"{name} to be {state}")
        except Exception:
            print(self.console(name)[-6000:], flush=True)
            raise

    def console(self, name: str) -> str:
        """Return what a machine wrote to its console."""
        return self._slots[name].machine.tail(1_000_000) if name in self._slots else ""

    def notify(self, name: str) -> None:
        """Tell a spot machine that EC2 takes it back in two minutes, and do so."""
        self._slots[name].identity.notice = datetime.now(UTC) + NOTICE
        self.say(f"{name} gets the spot notice")

    def freeze(self, name: str) -> None:
        """Let a machine hang: its processors do nothing more."""
        self._slots[name].machine.ask("stop")
        self.say(f"{name} hangs")

    def is_on(self, name: str) -> bool:
        """Tell whether there is a machine with the power on."""
        slot = self._slots.get(name)
        return slot is not None and slot.on and slot.machine.running

    def profile_of(self, access_key: str, token: str) -> str | None:
        """Return whose instance profile a machine's keys are; None when no machine that is on has them."""
        for slot in self._slots.values():
            keys = slot.identity.credentials
            if keys and slot.on and (keys[0], slot.identity.session_token) == (access_key, token):
                return slot.launch.profile
        return None

    # What requests do.

    def launched(self, names: list[str], launch: Launch) -> None:
        """Remember what machines were asked for."""
        for name in names:
            self._launches[name] = launch
            self.say(f"{name} is launched from {launch.image}")

    def adopt(self) -> None:
        """Launch the machines that CloudFormation made, from the launch template of their stack."""
        cloud = self.client("cloudformation", self._moto)
        for stack in cloud.describe_stacks()["Stacks"]:
            parts = cloud.describe_stack_resources(StackName=stack["StackName"])["StackResources"]
            named = {one.get("ResourceType"): one.get("PhysicalResourceId", "") for one in parts}
            machine = named.get("AWS::EC2::Instance", "")
            if machine and machine not in self._launches:
                asked = {"LaunchTemplate.LaunchTemplateId": named["AWS::EC2::LaunchTemplate"]}
                self.launched([machine], launch_of(asked, self.template(asked)))

    def template(self, asked: Mapping[str, str]) -> dict[str, Any]:
        """Return the data of the launch template that a request names."""
        named = template_named(asked)
        return template_data(self._ec2, *named) if named else {}

    def register(self, disk: Path) -> str:
        """Make an image of a disk that is there, and return its id."""
        image = str(self._ec2.register_image(Name=f"registered-{len(self.disks)}")["ImageId"])
        self.disks[image] = disk
        return image

    def keep_image(self, name: str, machine: str) -> None:
        """Keep the disk of a machine that is off as an image's."""
        slot = self._slots[machine]
        if slot.machine.running:
            raise RuntimeError(f"{machine} is on: its disk would be a torn one")
        self.disks[name] = self._folder / f"{name}.qcow2"
        shutil.copyfile(slot.machine.layer, self.disks[name])
        self.say(f"{name} is made of {machine}")

    def end(self, names: list[str], ending: str) -> bool:
        """Press the buttons of machines; False when not all of them are on."""
        slots = [self._slots[name] for name in names if name in self._slots]
        if len(slots) < len(names) or not all(slot.on for slot in slots):
            return False
        for name, slot in zip(names, slots, strict=True):
            self.say(f"{name} is told to {ending}")
            slot.press("terminate" if slot.ending == "terminate" else ending)
        return True

    def seen(self) -> Iterator[tuple[str, Slot]]:
        """Yield the machines of which EC2 knows more than the stand-in."""
        yield from ((name, slot) for name, slot in self._slots.items() if slot.ending or slot.taken)

    # The operator.

    def _operate(self) -> None:
        try:
            while not self._closing.wait(ROUND_SECONDS):
                self._round()
        except Exception as error:  # noqa: BLE001 -- a test waits for what will not come, and must be told why
            self.faults.append(error)
        finally:
            for slot in self._slots.values():
                slot.machine.kill()
                slot.identity.__exit__()

    def _round(self) -> None:
        for page in self._ec2.describe_instances()["Reservations"]:
            for instance in page["Instances"]:
                name, state = instance["InstanceId"], instance["State"]["Name"]
                slot = self._slots.get(name)
                self._states[name] = state
                if slot and slot.on:
                    self._look_at(name, slot, state)
                elif state in {"pending", "running"} and name in self._launches:
                    self._boot(name, instance)

    def _look_at(self, name: str, slot: Slot, state: str) -> None:
        notice = slot.identity.notice
        if not slot.machine.running:
            slot.on = False
            ending = slot.ending or slot.launch.ends
            self.say(f"{name} is off: {ending}")
            call: Callable[..., Any] = getattr(self._ec2, f"{ending}_instances")
            call(InstanceIds=[name])
            slot.ending, slot.plug = "", float("inf")
        elif time.monotonic() > slot.plug or state in {"stopped", "terminated"}:
            self.say(f"{name} did not go off: its plug is pulled")
            slot.machine.kill()
        elif notice and datetime.now(UTC) > notice and not slot.ending:
            self.say(f"{name} is taken back")
            slot.taken = True
            slot.press("terminate")

    def _boot(self, name: str, instance: Mapping[str, Any]) -> None:
        if name not in self._slots:
            self._slots[name] = self._place(name, instance)
        slot = self._slots[name]
        slot.identity.document["pendingTime"] = stamp(datetime.now(UTC))
        slot.machine.boot(reboots=True)
        slot.on = True
        self.say(f"{name} is on")

    def _place(self, name: str, instance: Mapping[str, Any]) -> Slot:
        launch = self._launches[name]
        # CloudFormation's stand-in names the zones of another region than the one it is in.
        zone = f"{REGION}{instance['Placement']['AvailabilityZone'][-1]}"
        identity = Identity(
            {**instance, "Placement": {"AvailabilityZone": zone}},
            launch,
            self.keys.get(launch.key, ""),
            lambda: self._tags(name),
        )
        identity.__enter__()
        disk = Disk(self.disks[launch.image], self._base.kernel, self._base.initrd, self._base.key)
        machine = Ec2Machine(
            disk,
            self._folder / name,
            memory=MEMORY,
            services={**self._services, METADATA: identity.port},
            login=self.login if launch.key else None,
            append="security=selinux",
        )
        machine.name, machine.type = name, instance["InstanceType"]
        return Slot(machine, identity, launch)

    def _tags(self, name: str) -> dict[str, str]:
        (page,) = self._ec2.describe_instances(InstanceIds=[name])["Reservations"]
        return {tag["Key"]: tag["Value"] for tag in page["Instances"][0].get("Tags", [])}


class _Front(Ec2Proxy):
    """What everybody asks."""

    def __init__(self, room: MachineRoom, target: str) -> None:
        super().__init__(target)
        self._room = room
        self._launches: dict[str, bytes] = {}

    def answer(self, body: bytes) -> Answer | None:
        """Let machines end as machines do; launch no token twice, and nothing that has no disk."""
        asked = dict(parse_qsl(body.decode(errors="replace")))
        if asked.get("ClientToken") in self._launches:
            return 200, self._launches[asked["ClientToken"]]
        match asked.get("Action"):
            case "GetConsoleOutput":
                return 200, _console(asked["InstanceId"], self._room.console(asked["InstanceId"]))
            case "StopInstances" if self._room.end(values(asked, "InstanceId"), "stop"):
                return 200, _ended(asked, "stop")
            case "TerminateInstances" if self._room.end(values(asked, "InstanceId"), "terminate"):
                return 200, _ended(asked, "terminate")
            case "RunInstances" if (
                launch_of(asked, self._room.template(asked)).image not in self._room.disks
            ):
                return 400, ec2_error("InvalidAMIID.NotFound", "there is no disk of this image")
        return None

    def changed(self, request: bytes, answer: bytes) -> bytes:
        """Let the room do what was asked; its client could not be told what goes wrong here, but a test is."""
        try:
            return self._changed(request, answer)
        except Exception as error:
            self._room.faults.append(error)
            raise

    def _changed(self, request: bytes, answer: bytes) -> bytes:
        """Do to machines and disks what a request asked, and say what is true of them."""
        asked = dict(parse_qsl(request.decode(errors="replace")))
        match asked.get("Action"):
            case "CreateStack":
                self._room.adopt()
            case "CreateKeyPair":
                self._room.keys[asked["KeyName"]] = _public(_text(answer, "keyMaterial"))
            case "RunInstances":
                launch = launch_of(asked, self._room.template(asked))
                self._launch(asked, answer, launch)
            case "CreateFleet":
                launch = fleet_launch(asked, self._room.template(asked))
                self._launch(asked, answer, launch)
            case "CreateImage" if image := _text(answer, "imageId"):
                self._room.keep_image(image, asked["InstanceId"])
            case "CopyImage" if image := _text(answer, "imageId"):
                self._room.disks[image] = self._room.disks[asked["SourceImageId"]]
            case "DescribeInstances":
                for name, slot in self._room.seen():
                    answer = _as_seen(answer, name, slot)
        return answer

    def _launch(self, asked: Mapping[str, str], answer: bytes, launch: Launch) -> None:
        names = _machines(answer)
        self._room.launched(names, launch)
        if names and "ClientToken" in asked:
            self._launches[asked["ClientToken"]] = answer


class _Door(AwsProxy):
    """What a machine sees of AWS: the keys must be those of its role, with their token."""

    def __init__(self, room: MachineRoom, target: str) -> None:
        super().__init__(target, certificate=room.trusted)
        self._room = room

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> requests.Response:
        """Send a request of a machine's role on."""
        given = {name.lower(): value for name, value in headers.items()}
        found = re.search(r"Credential=([^/]+)/", given.get("authorization", ""))
        profile = found and self._room.profile_of(found[1], given.get("x-amz-security-token", ""))
        action, resource = _question(given, body)
        if not profile:
            return _refused("UnrecognizedClientException", "keys of no machine")
        if not self._room.judge(profile, action, resource):
            self._room.say(f"refused: {action} on {resource}")
            return _refused("AccessDeniedException", f"no {action} on {resource}")
        return super().forward(path, headers, body)


def _question(headers: Mapping[str, str], body: bytes) -> tuple[str, str]:
    """Return action and resource of a machine's request."""
    target = headers.get("x-amz-target", "")
    if target.startswith("AmazonSSM."):
        asked = json.loads(body)
        path = asked.get("Path") or asked.get("Name", "")
        return f"ssm:{target.partition('.')[2]}", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter{path}"
    asked = dict(parse_qsl(body.decode(errors="replace")))
    return f"ec2:{asked.get('Action', '')}", "*"


def _refused(code: str, message: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = 403
    answer._content = json.dumps({"__type": code, "message": message}).encode()
    return answer


def _machines(answer: bytes) -> list[str]:
    return list(dict.fromkeys(name.decode() for name in IDS.findall(answer)))


def _text(answer: bytes, name: str) -> str:
    found = re.search(rf"<{name}>(.*?)</{name}>", answer.decode(), re.DOTALL)
    return html.unescape(found[1]) if found else ""


def _public(private: str) -> str:
    command = [program("ssh-keygen"), "-y", "-f", "/dev/stdin"]
    return output_of(command, stdin=f"{private.strip()}\n").strip()


def _ended(asked: Mapping[str, str], ending: str) -> bytes:
    code, state = STATES[ending]
    items = "".join(
        f"<item><instanceId>{name}</instanceId>"
        f"<currentState><code>{code}</code><name>{state}</name></currentState>"
        "<previousState><code>16</code><name>running</name></previousState></item>"
        for name in values(asked, "InstanceId")
    )
    return ec2_answer(asked["Action"], f"<instancesSet>{items}</instancesSet>")


def _console(name: str, text: str) -> bytes:
    output = base64.b64encode(text[-65536:].encode()).decode()
    content = f"<instanceId>{name}</instanceId><output>{output}</output>"
    return ec2_answer("GetConsoleOutput", content)


def _as_seen(answer: bytes, name: str, slot: Slot) -> bytes:
    """Say of a machine that it is ending while it is, and that it was taken if it was."""
    head = rf"<instanceId>{name}</instanceId>(?:(?!<instanceId>).)*?"
    text = answer.decode()
    if slot.ending:
        code, state = STATES[slot.ending]
        pattern = rf"({head}<instanceState>)<code>16</code>\s*<name>running</name>"
        text = re.sub(pattern, rf"\1<code>{code}</code><name>{state}</name>", text, flags=re.DOTALL)
    if slot.taken:
        pattern = rf"({head}<stateReason>)(?:(?!</stateReason>).)*"
        text = re.sub(pattern, rf"\1<code>{TAKEN}</code>", text, flags=re.DOTALL)
    return text.encode()
