"""`deploy/setup.sh` on a computer that has not what it needs."""

import os
import shutil
from pathlib import Path

from tests.parts.command import completed, script

ROOT = Path(__file__).parents[2]


def test_without_a_python_that_is_new_enough_nothing_is_made(tmp_path: Path) -> None:
    """It says what to install and fails, also where uv is there and could be called all the same."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "deploy/setup.sh", tmp_path / "deploy")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        script(programs / name, "exit 1")
    script(programs / "uv", f'echo "$@" >{tmp_path}/called')
    path = f"{programs}:{os.environ['PATH']}"
    done = completed([str(tmp_path / "deploy/setup.sh")], environ=os.environ | {"PATH": path})
    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / "called").exists()
