"""A fresh disk has the last good release again: from git by its commit, verified, and never below the image's."""

import shutil
from pathlib import Path

import pytest

from agent.release.operate import pin
from agent.release.store import bake
from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo, Signer, make_signer
from tests.release.conftest import JOBS, Computer


def wiped(computer: Computer) -> None:
    """Lose everything on the disk but what the bucket would know."""
    known = computer.release_store.copy.read_bytes()
    for place in (computer.release_store.releases, computer.release_store.mirror):
        for folder in place.rglob("*"):
            if folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o755)
        shutil.rmtree(place)
    computer.release_store.releases.mkdir()
    computer.release_store.copy.write_bytes(known)


@pytest.fixture(params=["a path", "HTTP"])
def served(request: pytest.FixtureRequest, computer: Computer, git_server: GitServer) -> Computer:
    """A computer that reaches the repository by its path, or over HTTP."""
    if request.param == "HTTP":
        computer.repository = git_server.url()
    return computer


@pytest.mark.parametrize("tag", ["gone", "moved"])
async def test_the_last_good_release_comes_from_git(
    served: Computer, repo_builder: Repo, ada: Signer, signers: Path, tag: str
) -> None:
    """By its commit, with the signature that is known, whatever became of its tag."""
    computer = served
    commit = await computer.ran(repo_builder, "v1.0", signer=ada, allowed_signers=signers)
    repo_builder.release("v2.0", {"jobs.toml": "broken"}, signer=ada)
    if tag == "gone":
        repo_builder.git("tag", "--delete", "v1.0")
    else:
        repo_builder.tag("v1.0", force=True, signer=ada)
    repo_builder.push()
    wiped(computer)
    obtained = await computer.obtain(allowed_signers=signers)
    assert (obtained.release.commit, obtained.on_trial) == (commit, False)
    assert obtained.record.verified_by is not None
    assert computer.told("release.restored")
    assert (obtained.release.tree / "jobs.toml").read_text() == JOBS


async def test_what_nobody_signed_any_more_is_not_restored(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """The bucket is believed about what ran, never about who may: the image's runs."""
    image = repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    bake(computer.release_store, (await computer.obtain(allowed_signers=signers)).release)
    bob = make_signer(signers.parent, "bob@example.com")
    signers.write_text(ada.allowed_signers_line + bob.allowed_signers_line)
    repo_builder.release("v2.0", {"more": "x"}, signer=bob)
    await computer.run_well(allowed_signers=signers)
    signers.write_text(ada.allowed_signers_line)
    for folder in computer.release_store.releases.glob("*"):
        if folder.is_dir() and folder.name != image:
            folder.rename(computer.state / "away")
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.release.commit == image
    assert not computer.told("release.restored")


async def test_a_pin_goes_below_what_is_known_and_not_below_the_image(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Nor to a tag that was moved, nor past the signatures."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    repo_builder.release("v2.0", {"image": "x"}, signer=ada)
    bake(computer.release_store, (await computer.obtain(allowed_signers=signers)).release)
    middle = await computer.ran(
        repo_builder, "v3.0", {"middle": "x"}, signer=ada, allowed_signers=signers
    )
    repo_builder.release("v4.0", {"newest": "x"}, signer=ada)
    good = (await computer.run_well(allowed_signers=signers)).release.commit
    repo_builder.release("v3.5", {"unsigned": "x"})
    for name, runs, kind in (
        ("v3.0", middle, None),
        ("v1.0", good, "downgrade"),
        ("v3.5", good, "unverified"),
    ):
        await computer.decide(pin, name, "")
        obtained = await computer.obtain(allowed_signers=signers)
        assert obtained.release.commit == runs, name
        assert [each.kind for each in obtained.record.refused] == ([kind] if kind else [])
    await computer.decide(pin, "v3.0", "")
    repo_builder.tag("v3.0", force=True, signer=ada)
    repo_builder.push()
    assert (await computer.obtain(allowed_signers=signers)).release.commit == middle


async def test_the_images_release_is_on_trial_where_another_was_good(
    computer: Computer, repo_builder: Repo
) -> None:
    """A new image is no proof; the first one of a channel has nothing to be compared with."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    first = await computer.obtain()
    bake(computer.release_store, first.release)
    assert not (await computer.obtain()).on_trial
    computer.promote(first)
    repo_builder.release("v2.0", {"more": "x"})
    bake(computer.release_store, (await computer.obtain()).release)
    assert (await computer.obtain()).on_trial
