"""The doctor's look at the units, and what systemd/install.sh installs."""

import re
import subprocess
from pathlib import Path

import pytest

from agent.doctor.examine import State
from agent.doctor.parts import units
from tests.doctor.installations import Ask
from tests.parts.command import script

SYSTEMD = Path(__file__).parent.parent.parent / "systemd"

SYSTEMCTL = """#!/bin/sh
case "$*" in
  *mayfly.service) printf 'LoadState={load}\\nRuntimeMaxUSec={longest}\\n' ;;
  *) printf 'TimersMonotonic={{ OnBootUSec={deadline} ; next_elapse=1h }}\\n' ;;
esac
"""
"""Answers as the service manager does; a machine with one is tested in tests/machine."""


@pytest.mark.parametrize(
    ("shown", "state"),
    [
        (("loaded", "2h 15min", "3h"), State.OK),
        (("loaded", "1h", "3h"), State.FAILED),
        (("loaded", "2h 15min", "2h"), State.FAILED),
        (("not-found", "infinity", "3h"), State.SKIPPED),
    ],
)
async def test_units_that_do_not_fit_are_found(
    tmp_path: Path, installation: Ask, shown: tuple[str, str, str], state: State
) -> None:
    """A run that would be cut short is a finding with a remedy; a machine without our units is none."""
    load, longest, deadline = shown
    says = SYSTEMCTL.format(load=load, longest=longest, deadline=deadline)
    script(tmp_path / "systemctl", says)
    finding = await units(installation(machine=True, PATH=f"{tmp_path}:/usr/bin:/bin"))
    assert finding.state is state
    assert ("install.sh --limit 120m" in finding.remedy) == (state is State.FAILED)


async def test_a_laptop_has_no_units(installation: Ask) -> None:
    """Where nothing switches off, nothing is looked at."""
    assert (await units(installation())).state is State.SKIPPED


def test_every_unit_and_script_is_installed(tmp_path: Path) -> None:
    """Whatever is in the folder, by its kind; the guards of the power are wanted early; `--limit` moves both units."""
    subprocess.run(
        [SYSTEMD / "install.sh", "--root", tmp_path, "--limit", "5h"], check=True, timeout=60
    )
    units = tmp_path / "usr/lib/systemd/system"
    for path in (*SYSTEMD.glob("*.service"), *SYSTEMD.glob("*.timer"), *SYSTEMD.glob("*.d/*.conf")):
        assert (units / path.relative_to(SYSTEMD)).read_bytes() == path.read_bytes()
    scripts = {path.name for path in SYSTEMD.glob("*.sh")} - {"install.sh"}
    assert {path.name for path in (tmp_path / "usr/lib/mayfly").iterdir()} == scripts
    assert (tmp_path / "etc/mayfly").stat().st_mode & 0o777 == 0o700
    etc = tmp_path / "etc/systemd/system"
    for target in ("sysinit", "emergency", "rescue"):
        wanted = {path.name for path in (etc / f"{target}.target.wants").iterdir()}
        assert {"mayfly-deadman.timer", "mayfly-idle.timer"} <= wanted
    assert "RuntimeMaxSec=5h 15min" in (etc / "mayfly.service.d/limit.conf").read_text()
    assert "OnBootSec=5h 1h" in (etc / "mayfly-deadman.timer.d/limit.conf").read_text()


def test_every_program_that_a_unit_starts_is_delivered() -> None:
    """No unit names a script that is not in the folder."""
    started = {
        name
        for path in SYSTEMD.glob("*.service")
        for name in re.findall(r"/usr/lib/mayfly/([\w.-]+)", path.read_text("utf-8"))
    }
    assert started
    assert {name for name in started if not (SYSTEMD / name).is_file()} == set()
