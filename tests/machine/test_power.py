"""The power matrix: whatever happens, the machine goes off within a budget. `make test-power` prints the table."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bucket.layout import manifest_key
from tests.machine.power_bench import ROOT, Case, Frozen, prepare
from tests.machine.power_cases import FAULTS, Fault
from tests.parts.machine import Disk
from tests.parts.metadata import ADDRESS, Metadata

PAGE = ROOT / "docs" / "power.md"
TABLE = re.compile(r"(?<=<!-- matrix -->\n).*(?=<!-- /matrix -->)", re.DOTALL)
OTHERS = 7
"""Rows of the table besides `FAULTS`."""

INSTANCE = "10.0.2.10:80"
"""Where the machine finds its metadata service, behind the address that everybody knows."""

pytestmark = [pytest.mark.timeout(1500), pytest.mark.machine]


class Matrix:
    """The table of what was seen."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, float]] = []

    def add(self, name: str, budget: float, seen: float) -> None:
        """Note a case that went well."""
        self.rows.append((name, budget, seen))
        print(f"\n{name}: off after {seen:.0f} s of {budget:.0f} s")

    def __str__(self) -> str:
        lines = ["| case | budget | seen |", "| --- | --- | --- |"]
        lines += [f"| {name} | {budget:.0f} s | {seen:.0f} s |" for name, budget, seen in self.rows]
        return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def matrix() -> Iterator[Matrix]:
    """The table; printed at the end, and written into docs/power.md when no case is missing."""
    matrix = Matrix()
    yield matrix
    print(f"\n{matrix}")
    if len(matrix.rows) == len(FAULTS) + OTHERS:
        PAGE.write_text(TABLE.sub(lambda _: str(matrix), PAGE.read_text("utf-8")), "utf-8")


@pytest.fixture(scope="module")
def frozen(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Frozen:
    """The machine from which cases go on."""
    return prepare(disk, tmp_path_factory.mktemp("frozen"))


@pytest.fixture
def case(frozen: Frozen, tmp_path: Path) -> Iterator[Case]:
    """A machine, on, whose run has not begun."""
    with frozen.thawed(tmp_path) as case:
        yield case


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.smoke] if fault.smoke else [])
        for fault in FAULTS
    ],
)
def test_the_power_goes_off(fault: Fault, case: Case, matrix: Matrix) -> None:
    """Whatever happens to the run, the machine switches itself off within the budget."""
    fault.play(case)
    seen = case.off(fault.budget)
    assert fault.console in case.machine.console.read_text(errors="replace")
    matrix.add(fault.name, fault.budget, seen)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("panic, once", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger"),
        ("PID 1 crashes", "kill -SEGV 1"),
    ],
)
def test_a_crash_restarts_the_machine_which_then_runs(
    name: str, command: str, frozen: Frozen, tmp_path: Path, matrix: Matrix
) -> None:
    """After a crash in the middle of a run the machine boots again, does a run and goes off."""
    with frozen.thawed(tmp_path, reboots=True) as case:
        case.start_and_wait()
        case.free("ok")
        case.inject(command)
        seen = case.off(600)
        assert case.machine.console.read_text(errors="replace").count("Linux version") == 1
    matrix.add(name, 600, seen)


def test_a_panic_loop_ends(frozen: Frozen, tmp_path: Path, matrix: Matrix) -> None:
    """A machine that panics at every boot is off after a counted number of them, and the next run can say so."""
    budget = 900
    with frozen.thawed(tmp_path / "loop", reboots=True) as case:
        case.write(
            "/etc/systemd/system/panic.service",
            "[Unit]\nDefaultDependencies=no\nAfter=mayfly-boots.service systemd-sysctl.service\n"
            "ConditionKernelCommandLine=!panic.never\n"
            "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo c > /proc/sysrq-trigger'\n"
            "[Install]\nWantedBy=sysinit.target\n",
        )
        case.free()
        case.sh("systemctl enable panic.service; sync")
        case.inject("echo c > /proc/sysrq-trigger")
        seen = case.off(budget)
        said = case.machine.console.read_text(errors="replace")
        assert "did not end with a power-off" in said
        machine = case.machine
        machine.boot(append="panic.never mayfly.maintain=20m")
        machine.wait_up()
        Case(machine).ended()
        manifest = machine.ssh(f"cat /var/lib/mayfly/bucket/{manifest_key('*')}").stdout
        assert "boots in a row did not end with a power-off" in manifest
    matrix.add("panic loop", budget, seen)


def test_a_bad_fstab_ends(frozen: Frozen, tmp_path: Path, matrix: Matrix) -> None:
    """A boot that ends in emergency mode because a disk is not there goes off by itself."""
    budget = 900
    with frozen.thawed(tmp_path, reboots=True) as case:
        case.sh("echo '/dev/none /mnt ext4 defaults,x-systemd.device-timeout=5s 0 2' >> /etc/fstab")
        case.free()
        case.idle_from(180)
        case.sh("sync")
        case.inject("systemctl reboot")
        seen = case.off(budget)
    matrix.add("emergency mode by a bad fstab", budget, seen)


def test_without_its_disk_it_restarts(frozen: Frozen, tmp_path: Path, matrix: Matrix) -> None:
    """A kernel that finds no disk, and so reads no setting of ours, does not wait at a prompt: `panic=10` ends it."""
    budget = 300
    with frozen.booted(tmp_path) as machine:
        begun = time.monotonic()
        machine.boot(append="root=/dev/none")
        machine.wait_off(budget)
        seen = time.monotonic() - begun
        said = machine.console.read_text(errors="replace")
        assert "/dev/none does not exist" in said
        assert "reboot: Restarting system" in said
    matrix.add("no disk (restarts)", budget, seen)


def test_a_lease_of_the_kernels_command_line(
    frozen: Frozen, tmp_path: Path, matrix: Matrix
) -> None:
    """`mayfly.maintain=` keeps the machine on after its run, and only until the lease ends."""
    budget = 600
    with frozen.thawed(tmp_path) as case:
        case.free()
        case.idle_from(60)
        case.sh("sync")
        machine = case.machine
        machine.kill()
        begun = time.monotonic()
        machine.boot(append="mayfly.maintain=4m")
        machine.wait_up()
        again = Case(machine, begun=begun)
        again.ended()
        assert "poweroff.target" not in again.sh("systemctl list-jobs")
        seen = again.off(budget)
    matrix.add("lease by kernel argument (4 min)", budget, seen)


def test_a_lease_of_the_instance_tag(frozen: Frozen, tmp_path: Path, matrix: Matrix) -> None:
    """The tag `mayfly-maintain` keeps the machine on after its run, and only until the lease ends."""
    budget = 600
    with Metadata() as metadata, frozen.thawed(tmp_path, {INSTANCE: metadata.port}) as case:
        metadata.tags["mayfly-maintain"] = f"{int(case.uptime) + 150}s"
        place = INSTANCE.partition(":")[0]
        case.sh(f"iptables -t nat -I OUTPUT -d {ADDRESS} -j DNAT --to-destination {place}")
        case.sh("systemctl restart mayfly-lease-tag.service")
        # An empty setting takes away every one of the timer's, so the second is said again.
        times = f"OnBootSec={int(case.uptime) + 20}\nOnUnitInactiveSec=5s\n"
        case.dropin("mayfly-idle.timer", f"[Timer]\nOnBootSec=\n{times}")
        case.start()
        case.ended()
        assert "poweroff.target" not in case.sh("systemctl list-jobs")
        seen = case.off(budget)
    matrix.add("lease by instance tag (2 min)", budget, seen)


def test_the_units_are_correct_and_hardened(frozen: Frozen, tmp_path: Path) -> None:
    """Systemd finds nothing to complain about in our units, and the run's exposure is 3.0 at most."""
    with frozen.thawed(tmp_path) as case:
        units = "$(cd /lib/systemd/system; ls -d mayfly*.service mayfly*.timer mayfly*.slice)"
        complaints = case.sh(f"systemd-analyze verify --man=no {units} poweroff.target 2>&1; true")
        assert [line for line in complaints.splitlines() if "mayfly" in line] == []
        report = case.sh("systemd-analyze security --no-pager mayfly.service")
        score = re.search(r"exposure level for mayfly.service: ([0-9.]+)", report)
        assert score
        print(f"\nmayfly.service: {score[1]}")
        assert float(score[1]) <= 3.0


def test_an_operators_lease_is_bounded(case: Case) -> None:
    """No lease goes beyond 24 hours after power-on, whoever asks for it and how."""
    case.sh("/opt/mayfly/bin/mayfly maintain --for 3d")
    assert case.sh("cat /run/mayfly/lease").strip() == "86400"
    case.sh("rm /run/mayfly/lease; /usr/lib/mayfly/lease.sh grant 40d")
    assert case.sh("cat /run/mayfly/lease").strip() == "86400"
