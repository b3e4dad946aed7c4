"""The self-check: what the release is to blame for makes it bad, and what the machine is to blame for does not."""

from contextlib import AbstractAsyncContextManager

import pytest

from agent.jobs.interface import Isolation, Launch, Running
from agent.jobs.isolation.process import ProcessIsolation
from tests.release.conftest import Computer, kinds

JOBS = '[[job]]\nname = "greet"\ncommand = ["python3", "greet.py"]\n'
ENDED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"


class Full:
    """An isolation on a machine that can start nothing more."""

    protects_tree = False

    def start(self, launch: Launch) -> AbstractAsyncContextManager[Running]:
        """Start nothing."""
        raise BlockingIOError(11, "Resource temporarily unavailable", launch.name)


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
