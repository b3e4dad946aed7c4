"""The self-check: what the release is to blame for makes it bad, and what the machine is to blame for does not."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from agent.jobs.interface import Isolation, Launch, Running
from agent.jobs.isolation.process import ProcessIsolation
from tests.release.conftest import Computer, kinds

JOBS = '[[job]]\nname = "greet"\ncommand = ["python3", "greet.py"]\n'
SHORT = 0.1
"""Seconds."""
ENDED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"


class Full:
    """An isolation on a machine that can start nothing more."""

    protects_tree = False

    def start(self, launch: Launch) -> AbstractAsyncContextManager[Running]:
        """Start nothing."""
        raise BlockingIOError(11, "Resource temporarily unavailable", launch.name)


class Slow:
    """An isolation on a machine that is so busy that it gives up to start a program."""

    protects_tree = False

    @asynccontextmanager
    async def start(self, launch: Launch) -> AsyncIterator[Running]:
        """Wait for what does not come, longer than a check may take here."""
        async with asyncio.timeout(2 * SHORT):
            await asyncio.Event().wait()
        async with ProcessIsolation().start(launch) as running:
            yield running


@pytest.mark.parametrize(
    ("ended", "isolation", "kind", "bad"),
    [
        ("SIGABRT", ProcessIsolation(), "check", ["v2.0"]),
        ("SIGKILL", ProcessIsolation(), "install", []),
        ("SIGABRT", Full(), "install", []),
    ],
)
async def test_a_machine_that_ends_the_check_makes_no_release_bad(
    computer: Computer, ended: str, isolation: Isolation, kind: str, bad: list[str]
) -> None:
    """The last good release runs, and the next run tries again, unless the release itself is to blame."""

    async def isolate() -> Isolation:
        return isolation

    good = await computer.ran("v1.0", {"jobs.toml": JOBS, "greet.py": "import os\n"})
    computer.publish("v2.0", {"greet.py": "import quits\n", "quits.py": ENDED.format(ended)})
    computer.context["isolation"] = isolate
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained), computer.bad) == (good, [kind], bad)


async def test_half_a_character_in_what_an_import_says_ends_no_run(computer: Computer) -> None:
    """An exception's text is the release's own, and no UTF-8."""

    async def isolate() -> Isolation:
        return ProcessIsolation()

    good = await computer.ran("v1.0", {"jobs.toml": JOBS, "greet.py": "import os\n"})
    computer.context["isolation"] = isolate
    files = {"greet.py": "import raises\n", "raises.py": "raise ImportError(chr(0xD800) + '!')\n"}
    computer.publish("v2.0", files)
    obtained = await computer.obtain()
    assert (obtained.release.commit, computer.bad) == (good, ["v2.0"])
    assert "ImportError: ?!" in obtained.record.refused[0].reason


@pytest.mark.parametrize(
    ("config", "bad"),
    [
        ("import os\nTOKEN = os.environ['SHOP_PASSWORD']\n", []),
        ("import sys\nsys.exit('MAYFLY_OUTPUT_DIR is not set')\n", []),
        ("import module_that_no_lock_has\n", ["v2.0"]),
        ("TOKEN =\n", ["v2.0"]),
    ],
)
async def test_a_module_that_wants_its_jobs_environment_makes_no_release_bad(
    computer: Computer, config: str, bad: list[str]
) -> None:
    """The check has no secret and no run: only what no environment could mend is the release's fault."""

    async def isolate() -> Isolation:
        return ProcessIsolation()

    await computer.ran("v1.0", {"jobs.toml": JOBS, "greet.py": "import os\n"})
    computer.context["isolation"] = isolate
    new = computer.publish("v2.0", {"greet.py": "import config\n", "config.py": config})
    obtained = await computer.obtain()
    assert computer.bad == bad
    assert (obtained.release.commit == new) is (bad == [])


async def test_a_machine_that_is_slow_to_start_the_check_makes_no_release_bad(
    computer: Computer,
) -> None:
    """The time that a check may take is that of the release's programs."""

    async def isolate() -> Isolation:
        return Slow()

    good = await computer.ran("v1.0", {"jobs.toml": JOBS, "greet.py": "import os\n"})
    computer.publish("v2.0", {"greet.py": "import sys\n"})
    computer.context["isolation"] = isolate
    obtained = await computer.obtain(check_timeout=SHORT)
    assert (obtained.release.commit, kinds(obtained), computer.bad) == (good, ["install"], [])
