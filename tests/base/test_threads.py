"""A blocking call that does not end keeps no command from its end."""

import asyncio
import threading
import time

from agent.base import threads


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
