"""The self-check: what the release is to blame for makes it bad, and what the machine is to blame for does not."""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import pytest

from agent.jobs.interface import Isolation, Launch, Running
from agent.jobs.isolation.process import ProcessIsolation
from tests.parts.repo import Repo
from tests.release.conftest import Computer

JOBS = '[[job]]\nname = "greet"\ncommand = ["python3", "greet.py"]\n'
ENDED = "import os, signal\nos.kill(os.getpid(), signal.{})\n"


class Full:
    """An isolation on a machine that can start nothing more."""

    protects_tree = False

    def start(self, launch: Launch) -> AbstractAsyncContextManager[Running]:
        """Start nothing."""
        raise BlockingIOError(11, "Resource temporarily unavailable", launch.name)


@dataclass(frozen=True)
class Case:
    """How a check ends, and what is said of the release: at which step it is rejected, and whether it is bad."""

    ended: str
    isolation: Isolation
    kind: str
    bad: list[str]


@pytest.mark.parametrize(
    "case",
    [
        Case("SIGABRT", ProcessIsolation(), "check", ["v2.0"]),
        Case("SIGKILL", ProcessIsolation(), "install", []),
        Case("SIGABRT", Full(), "install", []),
    ],
)
async def test_a_machine_that_ends_the_check_makes_no_release_bad(
    computer: Computer, repo_builder: Repo, case: Case
) -> None:
    """The last good release runs, and the next run tries again, unless the release itself is to blame."""

    async def isolate() -> Isolation:
        return case.isolation

    good = await computer.ran(repo_builder, "v1.0", {"jobs.toml": JOBS, "greet.py": "import os\n"})
    quits = ENDED.format(case.ended)
    repo_builder.release("v2.0", {"greet.py": "import quits\n", "quits.py": quits})
    computer.isolation = isolate
    obtained = await computer.obtain()
    assert obtained.release.commit == good
    assert [refused.kind for refused in obtained.record.refused] == [case.kind]
    assert [fact.bad.ref for fact in computer.remembered().known.bad if fact.bad] == case.bad
