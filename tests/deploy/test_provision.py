"""What the image's provisioning asks of the machine's configuration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROVISION = Path(__file__).parents[2] / "packer" / "provision"


def setting(key: str, text: str, folder: Path) -> str:
    """What the script prints of a key of a configuration."""
    (folder / "agent.toml").write_text(text)
    environ = {
        **os.environ,
        "MAYFLY_CONFIG": str(folder / "agent.toml"),
        "PROGRAMS": str(Path(sys.executable).parent),
    }
    command = ["bash", str(PROVISION / "setting.sh"), key]
    return subprocess.check_output(command, env=environ, cwd=folder, text=True).strip()


@pytest.mark.parametrize(
    "text",
    [
        '[release]\nrepository = "https://example.org/x.git"',
        'release.repository = "https://example.org/x.git"',
        'release = { repository = "https://example.org/x.git" }',
        '["release"]\r\n"repository" = "https://example.org/x.git"\r\n',
    ],
)
def test_a_repository_is_seen_in_each_way_to_write_it(text: str, tmp_path: Path) -> None:
    """An image with a repository gets its release baked in; one without has none to bake."""
    assert setting("release.repository", text, tmp_path) == "https://example.org/x.git"
    assert setting("release.repository", '[store]\nregion = "x"', tmp_path) == ""


@pytest.mark.parametrize(
    ("run", "seconds"),
    [('"5h"', "18000.0"), ('"1d"', "86400.0"), ('" 90.5s "', "90.5"), ("1234567", "1234567.0")],
)
def test_the_runs_limit_is_in_seconds_however_it_is_written(
    run: str, seconds: str, tmp_path: Path
) -> None:
    """The units' limits follow each duration that the agent takes; those of the units stay without one."""
    assert setting("limits.run", f"limits.run = {run}", tmp_path) == seconds
    assert setting("limits.run", "", tmp_path) == ""
