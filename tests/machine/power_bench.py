"""A machine with the project's units, frozen just before its run, from which each case of the power matrix goes on."""

import re
import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.parts.machine import Disk, Machine, MachineError
from tests.parts.waiting import wait_until

ROOT = Path(__file__).parent.parent.parent
MEMORY = 1024
"""MiB; what is written down when the machine is frozen is small."""

OFF = "reboot: Power down"
"""The kernel's last word on the console; a machine that restarts, or whose QEMU ended otherwise, has another."""

TEST_LIMITS = {
    # Shorter than on a machine that is in use, so that a case takes a minute, and long enough for a busy computer.
    # And the run's log on the console, which is still there when the machine is off.
    "mayfly.service.d": "[Service]\nWatchdogSec=20s\nTimeoutStopSec=40s\nStandardError=journal+console\n",
    "poweroff.target.d": "[Unit]\nJobTimeoutSec=30s\n",
    "docker.service.d": "[Service]\nTimeoutStopSec=20s\n",
}

JOBS = {
    "ok": ["sh", "-c", 'echo done > "$MAYFLY_OUTPUT_DIR/done.txt"'],
    "bad": ["sh", "-c", "exit 3"],
    "long": ["sleep", "900"],
    "hog": ["python3", "-c", "held = [bytearray(2**20) for _ in range(8192)]"],
}
"""A release for each: what its only job does."""

CONFIGURATION = """
[release]
repository = "/srv/scrapers.git"
track = "{track}-*"
[store]
url = "file:///var/lib/mayfly/bucket"
[limits]
handoff = "60s"
"""

HOLD = "/etc/systemd/system/mayfly.service.d/hold.conf"
"""Keeps the run from starting with the boot, until a case wants it."""


@dataclass
class Case:
    """One machine of the matrix, on, with its run not begun."""

    machine: Machine
    begun: float = field(default_factory=time.monotonic)

    def sh(self, command: str, *, check: bool = True) -> str:
        """Run a shell command in the machine."""
        return self.machine.ssh(command, check=check).stdout

    def write(self, path: str, text: str) -> None:
        """Write a file in the machine."""
        self.sh(writing(path, text))

    def dropin(self, unit: str, text: str) -> None:
        """Add to a unit."""
        path = f"/etc/systemd/system/{unit}.d/zz-case.conf"  # after the image's own limit.conf
        self.sh(f"{writing(path, text)}; systemctl daemon-reload")

    def idle_from(self, seconds: int) -> None:
        """Have the machine look whether it is idle from this uptime on, at the next boot."""
        times = f"[Timer]\nOnBootSec=\nOnBootSec={seconds}\nOnUnitInactiveSec=10s\n"
        self.write("/etc/systemd/system/mayfly-idle.timer.d/case.conf", times)

    def free(self, which: str = "ok") -> None:
        """Let the run do one of `JOBS`, now when a case starts it and at the next boot by itself."""
        self.sh(_freeing(which))

    def start(self, which: str = "ok") -> None:
        """Start the run, as the boot would, and return at once; from here on the time counts."""
        self.mark()
        self.sh(f"{_freeing(which)}; systemctl start --no-block mayfly.service", check=False)

    def start_and_wait(self, which: str = "long") -> None:
        """Start the run and wait until its job is running."""
        self.start(which)
        wait_until(lambda: "1 running" in self.status(), seconds=90, what="the job to run")

    def ended(self) -> None:
        """Wait until the run is over, on a machine that stays on."""

        def over() -> bool:
            state = self.sh("systemctl show --property=ActiveState --property=Job mayfly.service")
            return "ActiveState=inactive" in state and not re.search(
                r"^Job=[1-9]", state, re.MULTILINE
            )

        wait_until(over, seconds=120, what="the run to end")

    def status(self) -> str:
        """What the agent last said of itself."""
        return self.sh("systemctl show --property=StatusText mayfly.service")

    def mark(self) -> None:
        """Count the time from now."""
        self.begun = time.monotonic()

    def inject(self, command: str) -> None:
        """Do something that may take the login away; the time counts from here."""
        self.mark()
        quoted = shlex.quote(command)
        later = "systemd-run --quiet --no-block --property=DefaultDependencies=no sh -c"
        self.sh(f"{later} {quoted}", check=False)

    def off(self, budget: float) -> float:
        """Wait until the power is off, and return the seconds since the time began to count.

        Raises:
            MachineError: It is still on after `budget` seconds, or ended in another way.
        """
        left = budget - (time.monotonic() - self.begun)
        self.machine.wait_off(max(left, 1))
        seen = time.monotonic() - self.begun
        if OFF not in self.machine.tail():
            raise MachineError(f"it did not switch itself off\n{self.machine.tail()}")
        return seen

    @property
    def uptime(self) -> float:
        """Seconds since the machine's kernel started, by its own clock."""
        return float(self.sh("cat /proc/uptime").split()[0])


@dataclass(frozen=True)
class Frozen:
    """A machine that was stopped while its run was held back.

    Attributes:
        disk: Its disk as it was then.
        state: Its memory.
    """

    disk: Disk
    state: Path

    @contextmanager
    def thawed(
        self, folder: Path, services: Mapping[str, int] | None = None, *, reboots: bool = False
    ) -> Iterator[Case]:
        """Go on from there, in a folder of the case's own."""
        with Machine(self.disk, folder, memory=MEMORY, services=services) as machine:
            machine.boot(frozen=self.state, reboots=reboots)
            machine.wait_up(60)
            yield Case(machine)

    @contextmanager
    def booted(self, folder: Path) -> Iterator[Machine]:
        """Yield a machine with the same disk, not booted yet."""
        with Machine(self.disk, folder, memory=MEMORY) as machine:
            yield machine


def prepare(
    disk: Disk,
    folder: Path,
    limits: Mapping[str, str] = TEST_LIMITS,
    *,
    services: Mapping[str, int] | None = None,
    setup: str = "true",
) -> Frozen:
    """Boot, install the units and the agent of this working copy, hold the run back, and freeze the machine.

    The lease of this boot is not that of a later one: a thawed machine that restarts has another command line. The
    releases of the image are removed: one of ours would be refused as a worse version of them.

    Args:
        disk: What to boot from.
        folder: For the machine's layer and what it has in memory.
        limits: Drop-ins, by the name of their folder.
        services: Addresses that the guest sees, and the ports of this machine behind them.
        setup: A shell command that is done last.
    """
    with Machine(disk, folder, memory=MEMORY, services=services) as machine:
        machine.boot(append="mayfly.maintain=1h")
        machine.wait_up()
        machine.ssh(writing(HOLD, "[Unit]\nConditionPathExists=/run/nothing\n"))
        site = machine.ssh("echo /opt/mayfly/lib/python3.*/site-packages").stdout.strip()
        for package in ("agent", "consumer"):
            machine.put(ROOT / package, f"{site}/{package}")
        machine.put(ROOT / "systemd", "/root/systemd")
        dropins = [
            writing(f"/etc/systemd/system/{name}/test.conf", text) for name, text in limits.items()
        ]
        settle = [
            "/root/systemd/install.sh",
            "systemctl daemon-reexec",
            "systemctl stop mayfly.service",
            "systemctl restart systemd-sysctl.service mayfly-boots.service",
            "systemctl start docker.service",
            "systemctl reset-failed",
            "rm -rf /run/mayfly/lease",
            "find /var/lib/mayfly -mindepth 1 -maxdepth 1 ! -name boots ! -name cache -exec rm -rf {} +",
            setup,
            "sync",
        ]
        machine.ssh(_repository())
        machine.ssh("; ".join(["set -e", *dropins, *settle]), seconds=300)
        state = folder / "state"
        machine.freeze(state)
        return Frozen(Disk(machine.layer, disk.kernel, disk.initrd, disk.key), state)


def writing(path: str, text: str) -> str:
    """Return the command that writes a file."""
    folder = shlex.quote(str(Path(path).parent))
    return f"mkdir -p {folder}; printf %s {shlex.quote(text)} > {shlex.quote(path)}"


def _freeing(which: str) -> str:
    """Return the command that configures one of `JOBS` and no longer holds the run back."""
    configuration = writing("/etc/mayfly/agent.toml", CONFIGURATION.format(track=which))
    return f"{configuration}; rm -f {HOLD}; systemctl daemon-reload; sync"


def _repository() -> str:
    """Return a script that makes a repository with a tag for each of `JOBS`."""
    lines = [
        "set -e",
        "rm -rf /srv/work /srv/scrapers.git",
        "git init -q /srv/work",
        "cd /srv/work",
    ]
    for name, command in JOBS.items():
        words = ", ".join(f"'{word}'" for word in command)
        text = f"[[job]]\nname = '{name}'\ncommand = [{words}]\n"
        lines += [
            f"printf %s {shlex.quote(text)} > jobs.toml",
            "git add .",
            f"git -c user.name=t -c user.email=t@t commit -q -m {name}",
            f"git tag {name}-1",
        ]
    lines.append("git clone -q --bare /srv/work /srv/scrapers.git")
    return "\n".join(lines)
