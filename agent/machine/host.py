"""The host: what it knows of itself without the network."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from agent.base import processes
from agent.contract.facts import Host, Phase, PreviousBoot
from agent.contract.ids import EARLIEST
from agent.machine.timeline import before_the_run, manager_times

PROC = Path("/proc")

ASK_SECONDS = 5.0

BOOT_ID_LENGTH = 36
MOST_DIGITS = 11
"""Of a time in Unix seconds; a date has no year for more."""

_TIMES = ("Firmware", "Loader", "Userspace")


def host_record(proc: Path = PROC, *, state: Path | None = None) -> Host:
    """Return what is known of this machine; what is not available is left out.

    `systemd/boots.sh` notes in the state directory how a boot ended.
    """
    return Host(
        name=platform.node() or "unknown",
        system=_system(),
        boot_id=_line(proc / "sys/kernel/random/boot_id"),
        booted=_booted(proc / "stat"),
        previous=_previous(state / "previous") if state else None,
    )


def refused_boots(state: Path) -> str:
    """Return why the machine went off at once since the last run, and forget it; empty if it did not."""
    path = state / "boots.refused"
    time, _, reason = (_line(path) or "").partition(" ")
    if not time.isdecimal() or not reason:
        return ""
    moment = _moment(time)
    with suppress(OSError):
        path.unlink()
    return (
        f"{reason}; the machine switched itself off{f' at {moment.isoformat()}' if moment else ''}"
    )


async def boot_phases(environ: Mapping[str, str], *, run: datetime) -> tuple[Phase, ...]:
    """Return the phases between power-on and the beginning of the run (`run`), for a run that the boot started.

    Asks the service manager (about 10 ms). Empty without one, and for a run that a person started.
    """
    if not environ.get("NOTIFY_SOCKET"):
        return ()
    names = ",".join(f"{name}TimestampMonotonic" for name in _TIMES)
    command = ["systemctl", "show", f"--property={names}"]
    shown = await processes.output_of(command, environ=environ, seconds=ASK_SECONDS)
    if shown is None:
        return ()
    now = datetime.now(UTC)
    return before_the_run(
        manager_times(shown),
        uptime=float((_line(PROC / "uptime") or "0").split()[0]),
        process=_process_start(PROC / "self/stat"),
        ago=(now - run).total_seconds(),
        now=now,
    )


def _process_start(path: Path) -> float:
    """Return when this process started, in seconds after the kernel (field 22 of proc(5)'s stat)."""
    fields = (_line(path) or "").rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK") if len(fields) > 19 else 0.0  # noqa: PLR2004


def _previous(path: Path) -> PreviousBoot | None:
    boot_id, _, time = (_line(path) or "").partition(" ")
    off = _moment(time)
    return PreviousBoot(boot_id=boot_id[:BOOT_ID_LENGTH], off=off) if off else None


def _moment(seconds: str) -> datetime | None:
    """Return a time of the machine's clock; None for one from before the clock was set, and for other text."""
    if not seconds.isdecimal() or len(seconds) > MOST_DIGITS:
        return None
    moment = datetime.fromtimestamp(int(seconds), UTC)
    return moment if moment >= EARLIEST else None


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
        # After a power cut a file of the disk may be anything; rubbish must not end every run from then on.
        return path.read_text(errors="replace").strip() or None
    except OSError:
        return None


def _booted(path: Path) -> datetime | None:
    """Return when the kernel started, from the `btime` of proc(5)."""
    text = _line(path) or ""
    times = [line.split()[1] for line in text.splitlines() if line.startswith("btime ")]
    return _moment(times[0]) if times else None
