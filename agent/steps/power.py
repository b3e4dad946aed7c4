"""Asking the machine to switch itself off, when no unit does it already."""

from collections.abc import Mapping

from agent.core.errors import ProcessTimeout
from agent.steps import processes

ASK_SECONDS = 15.0


async def power_off(environ: Mapping[str, str]) -> bool:
    """Ask systemd to power the machine off; tell whether it took the request.

    This is the weakest of the layers: the unit's own action, the dead-man timer and the schedule do not rely on it.
    """
    for command in (["systemctl", "poweroff", "--no-block"], ["shutdown", "-P", "now"]):
        try:
            done = await processes.run(command, environ=environ, seconds=ASK_SECONDS)
        except (OSError, ProcessTimeout):
            continue
        if done.code == 0:
            return True
    return False
