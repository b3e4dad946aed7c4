"""The time line from power-on to the beginning of the run, as phases. Decisions only."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from agent.contract.facts import Phase


def manager_times(shown: str) -> dict[str, float]:
    """Return seconds by name (`Userspace`) from what `systemctl show` prints of the manager's monotonic timestamps."""
    times = {}
    for line in shown.splitlines():
        name, _, usec = line.partition("TimestampMonotonic=")
        if usec.isascii() and usec.isdigit():
            times[name] = int(usec) / 1e6
    return times


def before_the_run(
    manager: Mapping[str, float], *, uptime: float, process: float, ago: float, now: datetime
) -> tuple[Phase, ...]:
    """Return the phases `firmware`, `kernel`, `userspace` and `agent-start`, without those that are not known.

    Args:
        manager: Seconds of systemd's clock, which starts with the kernel; those of firmware and loader count
            backwards from it (org.freedesktop.systemd1(5)).
        uptime: Of the kernel, now.
        process: When the agent's process started, after the kernel.
        ago: How long ago the run began.
        now: The time.
    """
    started = now - timedelta(seconds=uptime)
    run = uptime - ago
    userspace = manager.get("Userspace", 0.0)
    marks = [
        ("firmware", -max(manager.get("Firmware", 0.0), manager.get("Loader", 0.0)), 0.0),
        ("kernel", 0.0, userspace),
        ("userspace", userspace, process),
        ("agent-start", process, run),
    ]
    return tuple(
        Phase(name=name, started=started + timedelta(seconds=begin), seconds=round(end - begin, 3))
        for name, begin, end in marks
        if end > begin
    )
