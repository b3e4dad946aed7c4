"""The check of the units that switch the machine off."""

import os
import shutil

from agent.base import processes
from agent.doctor.examine import Finding, Installation, failed, ok, skipped
from agent.machine.guard import complaint, deadline_of, parse_span

ASK_SECONDS = 8.0


async def units(installation: Installation) -> Finding:
    """Check that the limits of the units leave a run its time."""
    path = installation.environ.get("PATH", os.defpath)
    if not installation.machine or shutil.which("systemctl", path=path) is None:
        return skipped("this computer is not a machine that switches itself off")
    shown = await _show(installation, "mayfly.service", "LoadState", "RuntimeMaxUSec")
    if shown.get("LoadState") != "loaded":
        return skipped("mayfly.service is not installed here: something else starts the run")
    timer = await _show(installation, "mayfly-deadman.timer", "TimersMonotonic")
    run = installation.settings.limits.run
    deadline = deadline_of(timer.get("TimersMonotonic", ""))
    wrong = complaint(run, parse_span(shown.get("RuntimeMaxUSec", "")), deadline)
    if wrong:
        return failed(
            wrong, f"systemd/install.sh --limit {run / 60:.0f}m moves both, see docs/power.md"
        )
    return ok("the run's limit, mayfly.service and the dead-man timer fit")


async def _show(installation: Installation, unit: str, *names: str) -> dict[str, str]:
    """Return properties of a unit; none if the service manager does not answer."""
    command = ["systemctl", "show", f"--property={','.join(names)}", unit]
    printed = await processes.output_of(command, environ=installation.environ, seconds=ASK_SECONDS)
    return dict(line.split("=", 1) for line in (printed or "").splitlines() if "=" in line)
