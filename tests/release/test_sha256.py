"""A repository whose objects have names of SHA-256 is one like any other."""

import shutil
from pathlib import Path

import pytest

from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, Computer


@pytest.fixture
def repo_builder(git_server: GitServer) -> Repo:
    """An empty repository in git's newer object format."""
    return Repo(git_server.root, object_format="sha256")


async def test_releases_of_a_sha256_repository_run(signed: Computer, git_server: GitServer) -> None:
    """Tags and branches, signed, over HTTP; verified again without the server and without the mirror."""
    signed.repository = git_server.url()
    for version in ("v1.0", "v1.1"):
        commit = signed.publish(version, {"jobs.toml": JOBS, version: "x"})
        obtained = await signed.run_well()
        assert len(commit) == 64
        assert (obtained.release.commit, obtained.stale) == (commit, None)
        assert obtained.record.verified_by is not None
        assert (obtained.release.tree / version).read_text() == "x"
    assert len(signed.told("release.mirror_discarded")) == 1
    shutil.rmtree(signed.release_store.mirror)
    nowhere = await signed.obtain(repository=str(signed.state / "nowhere"))
    assert (nowhere.release.commit, nowhere.record.verified_by is not None) == (commit, True)
    head = signed.commit({"more": "x"})
    follow = await signed.run_well(branch="main")
    assert (follow.release.commit, follow.stale) == (head, None)


async def test_a_machine_may_change_to_a_repository_of_the_other_format(
    computer: Computer, repo_builder: Repo, tmp_path: Path
) -> None:
    """The mirror is made anew each time; releases of both stay on disk."""
    other = Repo(tmp_path)
    newer, older = (repo.release("v1.0", {"jobs.toml": JOBS}) for repo in (repo_builder, other))
    for repository, commit in ((repo_builder, newer), (other, older), (repo_builder, newer)):
        computer.repository = str(repository.bare)
        assert (await computer.run_well()).release.commit == commit
    assert computer.release_store.root(older).is_dir()
