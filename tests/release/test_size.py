"""A release that is too large is stopped while it is fetched; tests/run/test_attacks.py has those of many files."""

import os
from pathlib import Path

import pytest

from agent.base.errors import ReleaseRefused
from agent.base.logs import RunLogger
from agent.release.git import Git
from agent.release.mirror import Mirror
from agent.release.repository import Wanted, parse_repository
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, Computer, ends_in

pytestmark = pytest.mark.usefixtures("git_server")


@pytest.mark.long
async def test_a_fetch_that_brings_too_much_is_stopped(
    computer: Computer, repo_builder: Repo, tmp_path: Path
) -> None:
    """The git process is killed when the limit is passed, nothing of what came is left, and no git goes on."""
    for number in range(24):
        (repo_builder.work / f"{number}.bin").write_bytes(os.urandom(1024**2))
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    place = tmp_path / "mirror.git"
    repository = parse_repository(computer.repository, None)
    git = Git(place, repository, computer.environ, seconds=20, log=RunLogger().log)
    mirror = Mirror(git, most=4 * 1024**2)
    await mirror.prepare()
    wanted = Wanted("v1.0", "refs/tags/v1.0", "")
    with pytest.raises(ReleaseRefused, match="brought more than"):
        await mirror.fetch(wanted, until=1e9)
    assert sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) < 5 * 1024**2
    ends_in(place)
