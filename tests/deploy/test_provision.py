"""What the image's provisioning asks of the machine's configuration."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROVISION = Path(__file__).parents[2] / "packer" / "provision"


def provision(text: str, folder: Path, script: str, *arguments: str) -> str:
    """What a script prints on a machine with a configuration."""
    (folder / "agent.toml").write_text(text)
    environ = {
        **os.environ,
        "MAYFLY_CONFIG": str(folder / "agent.toml"),
        "PROGRAMS": str(Path(sys.executable).parent),
    }
    command = ["bash", str(PROVISION / script), *arguments]
    return subprocess.check_output(command, env=environ, cwd=folder, text=True).strip()


def setting(key: str, text: str, folder: Path) -> str:
    """What the script prints of a key of a configuration."""
    return provision(text, folder, "setting.sh", key)


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


@pytest.mark.parametrize(
    "private",
    [
        'release.credentials = "ssm:/mayfly/git"',
        'registry."ghcr.io".credentials = "ssm:/mayfly/ghcr"',
        'index.team.credentials = "ssm:/mayfly/team"',
    ],
)
def test_a_private_release_is_baked_in_by_a_role_alone(private: str, tmp_path: Path) -> None:
    """Without one the build goes on, and says why the image has none."""
    text = f'release.repository = "https://example.org/x.git"\n{private}'
    assert "no release is baked in: credentials are in SSM" in provision(
        text, tmp_path, "release.sh"
    )
