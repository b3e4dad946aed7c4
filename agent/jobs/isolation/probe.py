"""Whether the machine's metadata service can be reached from where jobs are.

It hands out the machine's role to whoever asks. A page that a job or its browser visits must not be able to.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from agent.jobs.interface import Isolation, Launch
from agent.jobs.isolation.confinement import METADATA

PORT = 80
ANSWER_SECONDS = 1.0
"""On its machine it answers within a millisecond; elsewhere the address leads nowhere."""

PROBE_SECONDS = 75.0
"""For a whole probe: the start of a unit, under software emulation beside other work, and two connections."""

_PROBE = """
import socket, sys
port, seconds, *addresses = sys.argv[1:]
for address in addresses:
    try:
        socket.create_connection((address, int(port)), float(seconds)).close()
        print("reachable")
    except OSError:
        print("unreachable")
"""


class Reach(StrEnum):
    """Whether something can be reached; `absent`: there is nothing to reach."""

    UNREACHABLE = "unreachable"
    REACHABLE = "reachable"
    ABSENT = "absent"
    UNKNOWN = "unknown"


async def reach_of_jobs(
    isolation: Isolation,
    run_id: str,
    environ: Mapping[str, str],
    addresses: Sequence[str] = METADATA,
    port: int = PORT,
) -> Reach:
    """Start a program under an isolation, and return whether it reached the metadata service.

    Without addresses the answer is UNKNOWN; that the program could be started is then the finding.

    Raises:
        OSError: No program could be started.
    """
    launch = Launch(
        name="probe",
        command=(
            *(os.path.realpath(sys.executable), "-I", "-S", "-c", _PROBE),
            *(str(port), str(ANSWER_SECONDS), *addresses),
        ),
        environ={"PATH": environ.get("PATH", ""), "MAYFLY_RUN_ID": run_id, "MAYFLY_JOB": ""},
        cwd=Path("/"),
        seconds=PROBE_SECONDS,
    )
    try:
        async with asyncio.timeout(PROBE_SECONDS), isolation.start(launch) as running:
            said = await running.output.read()
            await running.wait()
    except TimeoutError as error:  # an OSError, and without a word
        raise OSError(f"a program did not end within {PROBE_SECONDS:g} s") from error
    words = said.decode(errors="replace").split()
    if (
        not words
        or len(words) != len(addresses)
        or not {"reachable", "unreachable"}.issuperset(words)
    ):
        return Reach.UNKNOWN
    return Reach.REACHABLE if "reachable" in words else Reach.UNREACHABLE
