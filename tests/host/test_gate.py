"""The gate of a run that the boot starts: with a file, an import and a clock of their own."""

import sys
import threading
from pathlib import Path

import pytest

from agent.machine.gate import USED_ON_EC2, wait_at
from tests.parts.command import completed
from tests.parts.waiting import wait_until

SLOW = """
import pathlib
pathlib.Path({seen!r}).touch()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The mark of a module `late_part`: a file that is there once it was imported."""
    seen = tmp_path / "imported"
    (tmp_path / "late_part.py").write_text(SLOW.format(seen=str(seen)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "late_part", raising=False)
    return seen


def test_modules_are_read_while_the_gate_is_closed(tmp_path: Path, module: Path) -> None:
    """What the run needs later is there when the gate opens; one that is not installed stops nobody."""
    gate = tmp_path / "run" / "begin"
    passed: list[bool] = []
    modules = ("no_such_module_anywhere", "late_part")
    waiting = threading.Thread(target=lambda: passed.append(wait_at(gate, modules=modules)))
    waiting.start()
    wait_until(module.exists, what="the import")
    assert not passed
    gate.parent.mkdir()
    gate.touch()
    waiting.join(60)
    assert passed == [True]


def test_a_module_that_is_broken_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs it hears of it then; a run that does not, runs."""
    (tmp_path / "broken_part.py").write_text("raise RuntimeError('of another version')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not wait_at(tmp_path / "begin", seconds=0.1, modules=("broken_part",))


def test_an_open_gate_costs_no_import(tmp_path: Path, module: Path) -> None:
    """A run that nobody waits for reads nothing that it may not need."""
    gate = tmp_path / "begin"
    gate.touch()
    assert wait_at(gate, modules=("late_part",))
    assert not module.exists()


def test_a_gate_that_stays_closed_is_passed_in_the_end(tmp_path: Path) -> None:
    """Without a network the last good release still runs."""
    assert not wait_at(tmp_path / "begin", seconds=0.1, modules=())


def test_what_is_read_early_is_installed() -> None:
    """A name that does not exist would be passed over in silence, each night."""
    code = "".join(f"import {name}\n" for name in USED_ON_EC2)
    done = completed([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
