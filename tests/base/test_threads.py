"""A blocking call that does not end keeps no command from its end."""

import asyncio
import sys
import threading
import time

import pytest

from agent.base import threads
from agent.base.threads import in_thread
from tests.parts.command import completed


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


def test_a_call_that_hangs_does_not_keep_the_program() -> None:
    """A process whose blocking call never returns still ends when its limit has passed."""
    program = """
import asyncio, time
from agent.base.threads import in_thread
try:
    asyncio.run(in_thread(lambda: time.sleep(3600), seconds=0.2))
except TimeoutError:
    print("gave up")
"""
    done = completed([sys.executable, "-c", program])
    assert (done.returncode, done.stdout) == (0, "gave up\n"), done.stderr


async def test_a_blocking_call_hands_over_its_error() -> None:
    """What the function raises is raised where it is awaited."""
    with pytest.raises(ZeroDivisionError):
        await in_thread(lambda: 1 / 0, seconds=5)
    assert await in_thread(lambda: 42, seconds=5) == 42


async def test_a_call_that_takes_too_long_says_so() -> None:
    """The text ends messages such as the one about a rate limit's folder; without it they end in nothing."""
    stuck = threading.Event()
    with pytest.raises(TimeoutError, match=r"it took more than 0\.01 s"):
        await in_thread(lambda: stuck.wait(60), seconds=0.01)
    stuck.set()
