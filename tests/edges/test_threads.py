"""A blocking call that does not end keeps no command from its end."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from agent.steps import threads


def test_a_command_does_not_wait_for_a_disk_that_does_not_answer(tmp_path: Path) -> None:
    """A named pipe that nobody writes to is opened for ever; its check is over after ten seconds, and so is all."""
    signers = tmp_path / "allowed_signers"
    os.mkfifo(signers)
    settings = {"paths.state": tmp_path / "state", "release.allowed_signers": signers}
    settings |= {"release.repository": tmp_path / "none.git"}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "agent", "doctor", "--store", (tmp_path / "bucket").as_uri()),
            *(text for key, value in settings.items() for text in ("--set", f"{key}={value}")),
        ],
        env={**os.environ, "HOME": str(tmp_path), "MAYFLY_CONFIG": os.devnull},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "no answer within 10 s" in done.stdout, done.stderr


def test_what_is_left_behind_is_not_waited_for() -> None:
    """A command's result is there as soon as its own work is done."""
    stuck = threading.Event()

    async def work() -> str:
        asyncio.get_running_loop().run_in_executor(None, stuck.wait, 60)
        return await asyncio.to_thread(lambda: "done")

    began = time.monotonic()
    assert threads.run(work()) == "done"
    assert time.monotonic() - began < 30
    stuck.set()
