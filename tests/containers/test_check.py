"""What `mayfly check` and the choice of a release see of container jobs, without an engine."""

import subprocess
from pathlib import Path

from tests.parts.command import mayfly, surroundings

JOBS = """
[[job]]
name = "legacy"
compose = "deploy/compose.yml"
service = "python-scripts"

[[job]]
name = "contained"
image = "hoge:1.4"
command = ["--all"]
"""


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `mayfly check` on a folder with a jobs file."""
    (folder / "jobs.toml").write_text(JOBS)
    return mayfly("check", str(folder), environ=surroundings({}))


def test_a_compose_file_must_be_there_and_have_the_service(tmp_path: Path) -> None:
    """Its YAML is for compose to judge; a name that it nowhere has is a fault for sure."""
    missing = check(tmp_path)
    assert missing.returncode == 4
    assert "job[legacy].compose: deploy/compose.yml cannot be read" in missing.stdout
    (tmp_path / "deploy").mkdir()
    file = tmp_path / "deploy" / "compose.yml"
    file.write_text("services:\n  other:\n    image: x\n")
    wrong = check(tmp_path)
    assert 'job[legacy].service: deploy/compose.yml has no service "python-scripts"' in wrong.stdout
    file.write_text("services:\n  python-scripts:\n    image: x\n")
    assert check(tmp_path).returncode == 0
