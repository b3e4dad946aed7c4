"""No process of ours outlives us, whatever it is called."""

import sys

from tests.parts.command import completed


def test_a_process_whose_name_is_not_utf_8_is_ended_too() -> None:
    """A program may give itself any name of bytes; the last look finds it as a child."""
    child = (
        "import pathlib, sys, time; pathlib.Path('/proc/self/comm').write_bytes(b'\\xff) \\xfe');"
        " print('named', flush=True); time.sleep(600)"
    )
    program = f"""
import asyncio, subprocess, sys
from agent.base.processes import kill_strays
child = subprocess.Popen([sys.executable, "-c", {child!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(asyncio.run(kill_strays()))
child.kill()
"""
    done = completed([sys.executable, "-c", program])
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
