"""The gate of a run that the boot starts: a file that the machine's units make when network and fence are up.

The agent is started before them, and reads meanwhile from the disk what a run on EC2 needs of it.
"""

import importlib
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GATE_SECONDS = 150.0
"""Longer than systemd waits for a network (120 s); without one the last good release still runs."""
POLL_SECONDS = 0.02

USED_ON_EC2 = ("requests", "tenacity", "boto3", "botocore.session", "obstore.auth.boto3")
"""Modules that other runs may never need, and are therefore imported late: two thirds of a second."""


def wait_at(
    gate: Path, *, seconds: float = GATE_SECONDS, modules: Sequence[str] = USED_ON_EC2
) -> bool:
    """Wait until a file is there, and import modules until then; return whether it is.

    Args:
        gate: The file.
        seconds: Limit of the wait; a started import is brought to its end.
        modules: What to import, the most needed one first. One that fails here fails again where it is needed.
    """
    until = time.monotonic() + seconds
    for name in modules:
        if gate.exists():
            return True
        with suppress(Exception):
            importlib.import_module(name)
    while not gate.exists():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True
