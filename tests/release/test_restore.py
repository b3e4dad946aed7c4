"""A fresh disk has the last good release again: from git by its commit, verified, and never below the image's."""

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from agent.contract.releases import Good
from agent.release.operate import pin, rollback
from agent.release.store import bake, good_of
from agent.release.trust import Signed
from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo, Signer, make_signer
from tests.release.conftest import DEAD_PROXY, JOBS, PROJECT, VERSION, Computer


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


async def _image(computer: Computer, repo: Repo, signer: Signer, **settings: object) -> Good:
    """Have v1.0 be the image's release, and good."""
    repo.release("v1.0", {"jobs.toml": JOBS}, signer=signer)
    obtained = await computer.run_well(**settings)
    bake(computer.release_store, obtained.release)
    return good_of(obtained.release)


def _proved(computer: Computer, good: Good) -> None:
    """Have another machine report, an hour later, that a release is good: in one second the run's id would decide."""
    computer.now += timedelta(hours=1)
    memory = computer.remembered()
    memory.learn(good=good)


async def test_an_index_that_is_down_leaves_the_images_release(
    computer: Computer, repo_builder: Repo, ada: Signer
) -> None:
    """The last good release is not on a fresh disk, and cannot be installed tonight; the one before is and can."""
    image = await _image(computer, repo_builder, ada)
    hashed = {
        "requirements.txt": f"idna==3.10 --hash=sha256:{'0' * 64}\n",
        "pyproject.toml": PROJECT,
    }
    job = '[[job]]\nname = "greet"\ncommand = ["python", "greet.py"]\n'
    commit = repo_builder.release("v2.0", {**hashed, "jobs.toml": job, "greet.py": ""})
    _proved(computer, image.model_copy(update={"ref": "v2.0", "commit": commit}))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        computer.environ[name] = computer.environ[name.lower()] = DEAD_PROXY
    computer.environ["UV_HTTP_RETRIES"] = "0"
    obtained = await computer.obtain()
    assert obtained.release.commit == image.commit
    assert [refused.kind for refused in obtained.record.refused] == ["install"]
    assert len(computer.told("release.exported")) == 2


async def test_a_signer_who_is_taken_out_leaves_the_images_release(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Also where the image's release was found good: it is verified by itself."""
    image = await _image(computer, repo_builder, ada, allowed_signers=signers)
    bob = make_signer(signers.parent, "bob@example.com")
    signers.write_text(ada.allowed_signers_line + bob.allowed_signers_line)
    await computer.ran(repo_builder, "v2.0", {"more": "x"}, signer=bob, allowed_signers=signers)
    signers.write_text(ada.allowed_signers_line)
    assert (await computer.obtain(allowed_signers=signers)).release.commit == image.commit


@pytest.mark.parametrize(
    "forged", [{}, {"line": "another tags v*"}, {"tag": False}, {"signed": "abc"}]
)
async def test_what_the_bucket_says_of_a_release_does_not_lead_below_the_image(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path, forged: dict[str, object]
) -> None:
    """A release that is named good stands in only if it is signed and not older; the image's runs."""
    oldest = repo_builder.release("v0.9", {"jobs.toml": JOBS}, signer=ada)
    tag = Signed("tag", repo_builder.git("cat-file", "tag", "v0.9").encode() + b"\n")
    image = await _image(computer, repo_builder, ada, allowed_signers=signers)
    old = {"ref": "v0.9", "commit": oldest, "signed": tag.text, **forged}
    repo_builder.release("v2.0", {"jobs.toml": "broken"}, signer=ada)
    repo_builder.git("tag", "--delete", "v1.0", "v0.9")
    repo_builder.push()
    _proved(computer, image.model_copy(update=old))
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.release.commit == image.commit
    assert not computer.told("release.restored")


async def test_an_operator_goes_back_on_a_branch(computer: Computer, repo_builder: Repo) -> None:
    """All its releases have one name, and the one that was left stays bad until there is a newer one."""
    commits = []
    for content in ("x", "y"):
        repo_builder.write("jobs.toml", JOBS)
        repo_builder.write("more", content)
        commits.append(repo_builder.commit())
        repo_builder.push()
        await computer.run_well(branch="main")
    await computer.decide(rollback, None, branch="main", version=VERSION, reason="")
    obtained = await computer.obtain(branch="main")
    assert obtained.release.commit == commits[0]
    assert [refused.kind for refused in obtained.record.refused] == ["bad"]


async def test_a_commit_of_a_branch_is_pinned_before_it_proved_itself(
    computer: Computer, repo_builder: Repo
) -> None:
    """No name leads to it, so that it is fetched by its commit."""
    repo_builder.write("jobs.toml", JOBS)
    commit = repo_builder.commit()
    repo_builder.push()
    await computer.obtain(branch="main")
    repo_builder.write("more", "x")
    repo_builder.commit()
    repo_builder.push()
    await computer.run_well(branch="main")
    await computer.decide(pin, commit, "", branch="main")
    wiped(computer)
    obtained = await computer.obtain(branch="main")
    assert (obtained.release.commit, obtained.stale) == (commit, None)


async def test_a_pin_is_verified_anew_where_signatures_were_not_asked_for(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """A release that was installed without its signature is fetched again, and is not refused for want of it."""
    commit = await computer.ran(repo_builder, "v1.0", signer=ada)
    await computer.ran(repo_builder, "v2.0", {"more": "x"}, signer=ada)
    await computer.decide(pin, "v1.0", "")
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.release.commit == commit
    assert obtained.record.verified_by is not None


async def test_a_tag_that_is_pinned_by_its_name_alone_must_not_have_moved(
    computer: Computer, repo_builder: Repo, ada: Signer, signers: Path
) -> None:
    """Its commit is known although nobody found it good."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS}, signer=ada)
    await computer.obtain(allowed_signers=signers)
    good = await computer.ran(
        repo_builder, "v2.0", {"more": "x"}, signer=ada, allowed_signers=signers
    )
    repo_builder.tag("v1.0", force=True, signer=ada)
    repo_builder.push()
    await computer.decide(lambda memory, _rows: pin(memory, [], "v1.0", ""))
    obtained = await computer.obtain(allowed_signers=signers)
    assert (obtained.release.commit, obtained.record.refused[0].kind) == (good, "moved")


async def test_a_machine_that_promotes_an_older_release_late_does_not_make_it_the_last_good_one(
    computer: Computer, repo_builder: Repo
) -> None:
    """It began before the newer one was published; without git, the newer one runs all the same."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    older = good_of((await computer.obtain()).release)
    newer = await computer.ran(repo_builder, "v2.0", {"more": "x"})
    _proved(computer, older)
    assert computer.good == older.commit
    assert (await computer.obtain()).release.commit == newer
    assert computer.good == newer
    repo_builder.bare.rename(repo_builder.bare.with_name("away"))
    assert (await computer.obtain()).release.commit == newer
