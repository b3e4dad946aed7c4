"""The machine's power: the lease that holds it, and the request to power off if no unit does it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.base import processes
from agent.base.durable import write_atomic
from agent.base.errors import UsageError
from agent.machine.lease import granted, seconds_left

ASK_SECONDS = 15.0

LEASE = Path("/run/mayfly/lease")
"""The uptime until which the machine stays on; the scripts in systemd/ know the same name."""
UPTIME = Path("/proc/uptime")


@dataclass(frozen=True, slots=True)
class Lease:
    """The maintenance lease of this boot: its file, and the kernel's uptime."""

    path: Path = LEASE
    uptime: Path = UPTIME

    def left(self) -> float:
        """Return how many seconds it still holds; 0 if there is none."""
        try:
            return seconds_left(self.path.read_text("ascii", errors="replace"), self._up())
        except OSError:
            return 0.0

    def grant(self, seconds: float) -> None:
        """Hold the machine from now for `seconds`, in place of an earlier lease.

        Raises:
            UsageError: The machine has been on for too long, or this user may not.
        """
        until = granted(self._up(), seconds)
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            write_atomic(self.path, f"{until}\n".encode())
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be written: {error.strerror}", remedy="run as root"
            ) from error

    def end(self) -> bool:
        """Remove it; return whether there was one.

        Raises:
            UsageError: This user may not.
        """
        held = self.left() > 0
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be removed: {error.strerror}", remedy="run as root"
            ) from error
        return held

    def _up(self) -> float:
        return float(self.uptime.read_text().split()[0])


async def power_off(environ: Mapping[str, str]) -> bool:
    """Ask systemd to power the machine off; return whether it took the request.

    This is the weakest of the layers: the unit's own action, the dead-man timer and the schedule do not rely on it.
    """
    for command in (["systemctl", "poweroff", "--no-block"], ["shutdown", "-P", "now"]):
        if await _done(command, environ):
            return True
    return False


async def look_whether_idle(environ: Mapping[str, str]) -> bool:
    """Have the idle check run now instead of within a minute; return whether it will."""
    return await _done(["systemctl", "start", "--no-block", "mayfly-idle.service"], environ)


async def _done(command: list[str], environ: Mapping[str, str]) -> bool:
    return await processes.output_of(command, environ=environ, seconds=ASK_SECONDS) is not None
