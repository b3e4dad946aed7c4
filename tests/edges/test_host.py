"""What a machine knows of itself."""

import socket
import time
from datetime import UTC, datetime
from pathlib import Path

from agent.machine.host import host_record


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
