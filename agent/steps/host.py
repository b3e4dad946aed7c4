"""The machine that runs, as far as it knows itself without asking a network."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

from agent.core.manifest import HostRecord

PROC = Path("/proc")


def host_record(proc: Path = PROC) -> HostRecord:
    """Return what is known of this machine; what cannot be had is left out.

    Args:
        proc: Where the kernel tells about itself.
    """
    return HostRecord(
        name=platform.node() or "unknown",
        system=_system(),
        boot_id=_line(proc / "sys/kernel/random/boot_id"),
        booted=_booted(proc / "stat"),
    )


def _system() -> str:
    """Return `Debian GNU/Linux 12 (bookworm), Linux 6.1.0-18-cloud-amd64 x86_64`."""
    kernel = os.uname()
    try:
        distribution = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        distribution = ""
    parts = (distribution, f"{kernel.sysname} {kernel.release} {kernel.machine}")
    return ", ".join(part for part in parts if part)


def _line(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _booted(path: Path) -> datetime | None:
    """Return when the kernel started, from the `btime` of proc(5)."""
    text = _line(path) or ""
    times = [line.split()[1] for line in text.splitlines() if line.startswith("btime ")]
    return datetime.fromtimestamp(int(times[0]), UTC) if times else None
