"""No process of ours outlives us, whatever it is called."""

import os
import sys
from pathlib import Path

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


ORPHANS = """
import asyncio, os, pathlib
from agent.base.processes import adopt_orphans, orphans_collected, started

SCRIPT = "for n in 1 2 3; do (sh -c 'echo $$ >> pids; exec true' &); done; exec sleep 600"

def states():
    for pid in map(int, pathlib.Path("pids").read_text().split()):
        try:
            yield pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            pass

async def main():
    assert adopt_orphans()
    pathlib.Path("pids").touch()
    environ = dict(os.environ)
    async with orphans_collected(), started(["sh", "-c", SCRIPT], environ=environ):
        async with started(["sh", "-c", "read x; exit 7"], environ=environ, stdin=True) as other:
            while len(pathlib.Path("pids").read_text().split()) < 3 or list(states()):
                await asyncio.sleep(0.05)
            for _ in range(50):  # those for which somebody waits keep their code
                async with started(["sh", "-c", "exit 5"], environ=environ) as short:
                    assert await short.wait() == 5
            other.stdin.write(b"go\\n")
            print(await other.wait())

asyncio.run(asyncio.wait_for(main(), 60))
"""


def test_orphans_that_end_by_themselves_do_not_stay(tmp_path: Path) -> None:
    """Each would be a task of the machine until the run's end; the programs that somebody waits for are not touched."""
    around = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = completed([sys.executable, "-c", ORPHANS], at=tmp_path, environ=around)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
