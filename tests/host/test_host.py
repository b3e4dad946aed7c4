"""What a machine knows of itself."""

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.machine.host import boot_phases, host_record, refused_boots
from agent.machine.power import Lease


def test_this_machine_is_described() -> None:
    """Name, system, boot id and time of boot are those of the machine the test runs on."""
    host = host_record()
    assert host.name == socket.gethostname()
    assert "Linux" in host.system
    assert host.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert host.booted is not None
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    assert abs(host.booted.timestamp() - (time.time() - uptime)) < 60


def test_what_the_kernel_does_not_tell_is_left_out(tmp_path: Path) -> None:
    """A system without proc still has a name."""
    host = host_record(tmp_path)
    assert host.name
    assert (host.boot_id, host.booted) == (None, None)


def test_the_time_of_boot_is_read_from_the_kernels_statistics(tmp_path: Path) -> None:
    """The `btime` line of /proc/stat is in Unix seconds."""
    (tmp_path / "stat").write_text("cpu 1 2 3\nbtime 1700000000\nprocesses 7\n")
    assert host_record(tmp_path).booted == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    (tmp_path / "stat").write_text("btime 12\n")  # by a clock that nobody had set
    assert host_record(tmp_path).booted is None


def test_a_lease_is_granted_shown_and_given_back(tmp_path: Path) -> None:
    """It holds as long as was asked for, replaces what was there, and can be ended."""
    uptime = tmp_path / "uptime"
    uptime.write_text("1000.50 3000.00\n")
    lease = Lease(tmp_path / "run" / "lease", uptime)
    assert lease.left() == 0
    lease.grant(600)
    assert lease.left() == pytest.approx(599.5)
    uptime.write_text("1300.00 1.0\n")
    assert lease.left() == pytest.approx(300)
    lease.grant(60)
    assert lease.left() == pytest.approx(60)
    assert lease.end()
    assert not lease.end()


def test_the_end_of_the_boot_before_is_told(tmp_path: Path) -> None:
    """What the units noted at the last power-off is part of the host; rubbish is not."""
    assert host_record(state=tmp_path).previous is None
    (tmp_path / "previous").write_text("70fa5167-85da-412c-a70a-5958ee4e51e7 1795383200\n")
    previous = host_record(state=tmp_path).previous
    assert previous is not None
    assert previous.off.timestamp() == 1795383200
    for rubbish in (
        b"rubbish",
        b"\xff\xfe 1795383200",
        b"boot " + b"1" * 5000,
        b"\0" * 60,
        b"x" * 999 + b" 1795383200",
    ):
        (tmp_path / "previous").write_bytes(rubbish)
        host_record(state=tmp_path)
    (tmp_path / "previous").write_bytes(b"rubbish")
    assert host_record(state=tmp_path).previous is None


def test_a_machine_that_went_off_at_once_says_why_once(tmp_path: Path) -> None:
    """The next run tells that boots were refused, and the one after it does not."""
    (tmp_path / "boots.refused").write_text("1795383200 3 boots in a row did not end\n")
    assert refused_boots(tmp_path).startswith("3 boots in a row did not end; the machine switched")
    assert refused_boots(tmp_path) == ""
    (tmp_path / "boots.refused").write_bytes(b"\xff\xfe 3 boots")
    assert refused_boots(tmp_path) == ""


async def test_a_run_that_a_person_started_has_no_boot(tmp_path: Path) -> None:
    """Only a run that the service manager started has the boot as a part of its time."""
    now = host_record().booted
    assert now is not None
    assert await boot_phases({}, run=now) == ()
