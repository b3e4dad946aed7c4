"""A machine that boots: QEMU with software emulation, so that it runs wherever the tests do."""

import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.parts.command import completed, output_of
from tests.parts.missing import program
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.program import Program
from tests.parts.waiting import WaitedTooLongError, wait_until

HOST = "10.0.2.2"
"""The tests' machine, as the guest sees it: QEMU's user network hands it to the host's loopback."""

BOOT_SECONDS = 300
"""Until ssh answers. Emulated, it takes 20 to 60 s, and several times that beside other work."""

STEADY = "nohz=off highres=off"
"""A tick that repeats by itself: on a busy host the emulator may lose a timer that fires once, and the kernel hangs."""


class MachineError(Exception):
    """The machine did something else than it was waited for; the message carries the end of its console."""


@dataclass(frozen=True, slots=True)
class Disk:
    """What a machine boots from.

    Attributes:
        image: A qcow2 or raw disk; never written to, each machine has a layer of its own above it.
        kernel: Booted directly, without a boot loader.
        initrd: Its initial file system.
        key: Private key of root's login.
    """

    image: Path
    kernel: Path
    initrd: Path
    key: Path

    @classmethod
    def at(cls, folder: Path) -> Self:
        """Return the image in a folder, by the names that `make image` gives its parts."""
        return cls(folder / "disk.qcow2", folder / "vmlinuz", folder / "initrd", folder / "key")


class Machine:
    """A virtual machine with its own writable layer, which keeps its disk from one boot to the next.

    As a context manager it is killed at the end; nothing boots before `boot`.

    Attributes:
        console: The file with all that the machine wrote to its serial console.
        layer: The machine's own disk.
        services: Addresses that the guest sees, and the ports of this machine behind them, from the next boot on.
        throttle: QEMU's limits of the disk by name, such as `bps-read`, from the next boot on.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        *,
        memory: int = 2048,
        cores: int = 2,
        append: str = "",
        services: Mapping[str, int] | None = None,
        metadata: int | None = None,
        login: int | None = None,
    ) -> None:
        """Make the machine's layer; nothing boots yet.

        Args:
            disk: What it boots from.
            folder: For its layer, console and control socket; a layer that is there is used on.
            memory: MiB.
            cores: Virtual processors.
            append: Words for the kernel's command line, at every boot.
            services: Addresses that the guest sees, such as `10.0.2.10:80`, and the ports of this machine behind them.
            metadata: The port of this machine that the guest sees as the metadata service, 169.254.169.254.
            login: The port of this machine behind which ssh listens; a free one by default.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.console = folder / "console.log"
        self.layer = folder / "disk.qcow2"
        self._disk = disk
        self._memory = memory
        self._cores = cores
        self._append = append
        self.services = dict(services or {})
        self.throttle: dict[str, int] = {}
        self._metadata = metadata
        self._login = login
        self._qmp = folder / "qmp.sock"
        self._qemu = Program(["true"], log=self.console)
        self._port = 0
        if not self.layer.exists():
            _make_layer(disk.image, self.layer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.kill()

    @property
    def running(self) -> bool:
        """Whether the power is on."""
        return self._qemu.running

    def boot(self, *, append: str = "", reboots: bool = False, frozen: Path | None = None) -> None:
        """Switch it on; returns at once.

        Args:
            append: More words for the kernel's command line, for this boot.
            reboots: Let it restart when it asks to; otherwise a restart switches it off.
            frozen: Go on from what `freeze` wrote, with the disk as it was then, instead of starting the kernel.
        """
        self._port = self._login or free_port()
        self._qmp.unlink(missing_ok=True)
        words = f"root=/dev/vda rw console=ttyS0 panic=10 {STEADY} {self._append} {append}"
        limits = "".join(f",throttling.{name}={most}" for name, most in self.throttle.items())
        self._qemu = Program(
            [
                *(program("qemu-system-x86_64"), "-M", "q35", "-cpu", "max"),
                *("-accel", "tcg,thread=multi"),  # /dev/kvm may be there and hang
                *("-m", str(self._memory), "-smp", str(self._cores)),
                *("-display", "none", "-serial", f"file:{self.console}"),
                *("-qmp", f"unix:{self._qmp},server=on,wait=off"),
                *("-kernel", str(self._disk.kernel), "-initrd", str(self._disk.initrd)),
                *("-append", words.strip()),
                *("-drive", f"file={self.layer},if=virtio,format=qcow2,cache=unsafe{limits}"),
                *self._hardware(),
                *("-device", "virtio-rng-pci"),
                *([] if reboots else ["-no-reboot"]),
                *(["-incoming", f"exec:cat {shlex.quote(str(frozen))}"] if frozen else []),
            ],
            log=self.console.with_suffix(".qemu.log"),
        )
        self._qemu.start(self._qmp.exists, seconds=60)

    def _hardware(self) -> list[str]:
        """What the machine is told apart by: its network and its firmware.

        One interface for everything; a second one, without a way out, for the metadata service.
        """
        login = f"hostfwd=tcp:{LOOPBACK}:{self._port}-:22"
        words = ["-nic", f"user,model=virtio-net-pci,{login}{forwards(self.services)}"]
        if self._metadata is not None:
            net = "net=169.254.169.0/24,host=169.254.169.1,dhcpstart=169.254.169.100,restrict=on"
            service = forwards({"169.254.169.254:80": self._metadata})
            words += ["-nic", f"user,model=virtio-net-pci,{net}{service}"]
            # Programs ask the service only on a machine whose firmware says that it is EC2's, as Nitro's does.
            words += ["-smbios", "type=1,manufacturer=Amazon EC2,product=t3.medium"]
        return words

    def freeze(self, state: Path) -> None:
        """Stop the machine where it is, write what it has in memory to a file, and switch it off.

        Its layer must not change as long as the file is used: each thawed machine gets a layer of its own above it.

        Raises:
            WaitedTooLongError: It could not be written in time.
        """
        self.ask("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        self.ask("migrate", uri=f"exec:cat > {shlex.quote(str(state))}")

        def written() -> bool:
            return bool(self.ask("query-migrate")["return"].get("status") == "completed")

        wait_until(written, seconds=120, what="the machine to be written down")
        self.ask("quit")
        wait_until(lambda: not self.running, seconds=60, what="QEMU to end")

    def ssh(
        self, command: str, *, seconds: float = 120, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command as root in the machine.

        Raises:
            MachineError: It failed and `check` is set.
            subprocess.TimeoutExpired: It took longer than `seconds`.
        """
        done = completed([*self._ssh(), command], seconds=seconds)
        if check and done.returncode != 0:
            raise MachineError(f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def wait_up(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until ssh answers.

        Raises:
            MachineError: It did not, or the power went off.
        """

        def up() -> bool:
            if not self.running:
                raise MachineError(f"the machine went off\n{self.tail()}")
            with suppress(subprocess.TimeoutExpired):
                return self.ssh("true", seconds=20, check=False).returncode == 0
            return False

        try:
            wait_until(up, seconds=seconds, what="ssh to answer")
        except WaitedTooLongError as error:
            raise MachineError(f"{error}\n{self.tail()}") from error

    def put(self, source: Path, target: str) -> None:
        """Copy a file or the contents of a folder into the machine; owners become root."""
        parent, name = (source, ".") if source.is_dir() else (source.parent, source.name)
        into = shlex.quote(target)
        make = f"mkdir -p {into}" if source.is_dir() else f"mkdir -p {into}/"
        with subprocess.Popen(
            ["tar", "-C", str(parent), "--owner=0", "--group=0", "-cf", "-", name],
            stdout=subprocess.PIPE,
        ) as packing:
            subprocess.run(
                [*self._ssh(), f"{make} && tar -C {into} -xf -"],
                stdin=packing.stdout,
                check=True,
                timeout=300,
            )

    def wait_off(self, seconds: float) -> float:
        """Wait until the power is off, and return how many seconds that took.

        Raises:
            MachineError: It is still on.
        """
        begun = time.monotonic()
        try:
            wait_until(lambda: not self.running, seconds=seconds, what="the power to go off")
        except WaitedTooLongError as error:
            raise MachineError(f"{error}\n{self.tail()}") from error
        return time.monotonic() - begun

    def kill(self) -> None:
        """Pull the plug: what the guest had not written to its disk is lost."""
        self._qemu.kill()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Send one QMP command, such as `inject-nmi`, and return its answer."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(10)
            link.connect(str(self._qmp))
            stream = link.makefile("rw")
            stream.readline()  # the greeting
            for request in (
                {"execute": "qmp_capabilities"},
                {"execute": command, "arguments": arguments},
            ):
                stream.write(json.dumps(request) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
            return answer

    def tail(self, characters: int = 3000) -> str:
        """The end of what it wrote to its console."""
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return text[-characters:]

    def _ssh(self) -> Sequence[str]:
        options = {
            "StrictHostKeyChecking": "no",
            "UserKnownHostsFile": os.devnull,
            "LogLevel": "ERROR",
            "ConnectTimeout": "10",
            "BatchMode": "yes",
        }
        flags = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        login = ("-i", str(self._disk.key), "-p", str(self._port), f"root@{LOOPBACK}")
        return [program("ssh"), "-F", os.devnull, *flags, *login]


def forwards(services: Mapping[str, int]) -> str:
    """Return QEMU's words for addresses in a user network behind which ports of this machine lie.

    The addresses stay the same from one test to the next, so that they can be built into an image. Every connection
    starts a relay: one that starts at once, because cloud-init alone makes dozens.
    """
    relay = f"{program('busybox')} nc {LOOPBACK}"
    return "".join(
        f",guestfwd=tcp:{address}-cmd:{relay} {port}" for address, port in services.items()
    )


def _make_layer(image: Path, layer: Path) -> None:
    kind = "qcow2" if image.suffix == ".qcow2" else "raw"
    create = (program("qemu-img"), "create", "-q", "-f", "qcow2", "-F", kind)
    output_of([*create, "-b", str(image.resolve()), str(layer)])
