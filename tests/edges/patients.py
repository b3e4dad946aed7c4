"""A patient for the doctor, and how a test asks for one check."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import __version__
from agent.base.logs import Journalist
from agent.config.locate import Locations
from agent.config.overrides import Document, flag_overrides, parse_settings
from agent.doctor import CHECKS, Finding, Patient, State, examine
from tests.parts.ports import LOOPBACK, free_port

NOBODY = f"http://{LOOPBACK}:{free_port()}"

Ask = Callable[..., Patient]


@pytest.fixture
def patient(tmp_path: Path, journalist: Journalist) -> Ask:
    """Makes a patient from `--set` pairs and an environment."""

    def make(*pairs: str, machine: bool = False, **environ: str) -> Patient:
        overrides, wrong = flag_overrides(pairs)
        parsed = parse_settings([Document("", "test")], overrides)
        assert not [*wrong, *parsed.faults]
        state = tmp_path / "state"
        return Patient(
            settings=parsed.settings,
            source="defaults",
            faults=(),
            places=Locations(state, state / "cache", state / "bucket"),
            environ={
                "PATH": os.environ["PATH"],
                "HOME": str(tmp_path),
                **environ,
            },
            machine=machine,
            version=__version__,
            log=journalist.log,
        )

    return make


async def ask(name: str, patient: Patient) -> Finding:
    """Run one check."""
    (finding,) = await examine(patient, [check for check in CHECKS if check.name == name])
    assert finding.name == name
    assert finding.remedy or finding.state is not State.FAILED
    return finding
