"""Releases that are too large: refused by what git lists, or stopped while they are still coming."""

import os
from pathlib import Path

import pytest

from agent.base.errors import ReleaseRefused
from agent.base.logs import RunLogger
from agent.release.mirror import Mirror
from agent.release.repository import Wanted, parse_repository
from tests.parts.heavy import tree_of_many, tree_of_zeros
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, Computer, ends_in

pytestmark = pytest.mark.usefixtures("git_server")

HUGE = 576 * 1024**2
"""More than a release may have; it takes 600 kB in a pack, and two gigabytes are refused in the same way."""


def publish_tree(repo: Repo, tag: str, tree: str) -> None:
    """Publish a release of a tree."""
    repo.git("tag", tag, repo.git("commit-tree", "-m", "Heavy", tree))
    repo.push()


@pytest.mark.long
async def test_a_blob_that_is_small_on_the_way_and_huge_on_the_disk_is_refused(
    computer: Computer, repo_builder: Repo
) -> None:
    """Its size is read from git's listing; not a byte of it is written into a release."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    await computer.run_well()
    publish_tree(repo_builder, "v2.0", tree_of_zeros(repo_builder, HUGE))
    computer.timeout = 120.0
    obtained = await computer.obtain()
    (refused,) = obtained.record.refused
    assert (refused.ref, refused.kind) == ("v2.0", "content")
    assert "604.0 MB of files, more than 536.9 MB" in refused.reason
    assert len(list(computer.release_store.releases.glob("*/tree"))) == 1


@pytest.mark.long
async def test_a_fetch_that_brings_too_much_is_stopped(
    computer: Computer, repo_builder: Repo, tmp_path: Path
) -> None:
    """The git process is killed when the limit is passed, nothing of what came is left, and no git goes on."""
    for number in range(24):
        (repo_builder.work / f"{number}.bin").write_bytes(os.urandom(1024**2))
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    place = tmp_path / "mirror.git"
    mirror = Mirror(
        place,
        parse_repository(computer.repository, None),
        environ=computer.environ,
        seconds=20,
        log=RunLogger().log,
        most=4 * 1024**2,
    )
    await mirror.prepare()
    wanted = Wanted("v1.0", "refs/tags/v1.0", "")
    with pytest.raises(ReleaseRefused, match="brought more than"):
        await mirror.fetch(wanted, until=1e9)
    assert sum(file.stat().st_size for file in place.rglob("*") if file.is_file()) < 5 * 1024**2
    ends_in(place)


@pytest.mark.long
async def test_a_hundred_thousand_files_are_refused(computer: Computer, repo_builder: Repo) -> None:
    """They are counted in git's listing, and none reaches the disk."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    await computer.run_well()
    publish_tree(repo_builder, "v2.0", tree_of_many(repo_builder, 100_000))
    obtained = await computer.obtain()
    assert obtained.release.ref == "v1.0"
    assert "it has 100000 files, more than 20000" in obtained.record.refused[0].reason
