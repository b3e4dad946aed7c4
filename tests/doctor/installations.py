"""An installation for the doctor, and how a test asks for one check."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.base.logs import RunLogger
from agent.config.locate import Locations
from agent.config.overrides import Document, flag_overrides, parse_settings
from agent.doctor.checks import CHECKS
from agent.doctor.examine import Finding, Installation, State, examine

Ask = Callable[..., Installation]


@pytest.fixture
def installation(tmp_path: Path, run_logger: RunLogger) -> Ask:
    """Makes an installation from `--set` pairs and an environment."""

    def make(*pairs: str, machine: bool = False, **environ: str) -> Installation:
        overrides, wrong = flag_overrides(pairs)
        parsed = parse_settings([Document("", "test")], overrides)
        assert not [*wrong, *parsed.faults]
        state = tmp_path / "state"
        return Installation(
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
            log=run_logger.log,
        )

    return make


async def ask(name: str, installation: Installation) -> Finding:
    """Run one check."""
    (finding,) = await examine(installation, [check for check in CHECKS if check.name == name])
    assert finding.name == name
    assert finding.remedy or finding.state is not State.FAILED
    return finding
