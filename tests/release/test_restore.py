"""A fresh disk has the last good release again: from git by its commit, verified, and never below the image's."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.contract.releases import MOST_NAMED, Good
from agent.contract.results import LONGEST_SECONDS
from agent.release.operate import pin, rollback
from agent.release.store import bake, good_of
from agent.release.trust import Signed
from tests.parts.gitserver import GitServer
from tests.parts.repo import Signer, make_signer
from tests.release.conftest import JOBS, LOCKED_JOBS, PROJECT, VERSION, Computer, kinds


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


async def baked(computer: Computer) -> Good:
    """Publish v1.0, and have it be the image's release, and good."""
    computer.publish("v1.0")
    obtained = await computer.run_well()
    bake(computer.release_store, obtained.release)
    return good_of(obtained.release)


def proved(computer: Computer, good: Good) -> None:
    """Have another machine report, an hour later, that a release is good: in one second the run's id would decide."""
    computer.now += timedelta(hours=1)
    computer.remembered().learn(good=good)


@pytest.mark.parametrize("way", ["a path", "HTTP"])
@pytest.mark.parametrize("tag", ["gone", "moved"])
async def test_the_last_good_release_comes_from_git(
    signed: Computer, git_server: GitServer, way: str, tag: str
) -> None:
    """By its commit, with the signature that is known, whatever became of its tag."""
    if way == "HTTP":
        signed.repository = git_server.url()
    commit = await signed.ran("v1.0")
    signed.publish("v2.0", {"jobs.toml": "broken"})
    if tag == "gone":
        signed.git("tag", "--delete", "v1.0")
    else:
        signed.move("v1.0")
    wiped(signed)
    obtained = await signed.obtain()
    assert (obtained.release.commit, obtained.on_trial) == (commit, False)
    assert obtained.record.verified_by is not None
    assert signed.told("release.restored")
    assert (obtained.release.tree / "jobs.toml").read_text() == JOBS


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("image", ["good", "untried"])
async def test_a_signer_who_is_taken_out_leaves_the_images_release(
    signed: Computer, ada: Signer, signers: Path, image: str, *, here: bool
) -> None:
    """The bucket is believed about what ran, never about who may; the image's release is verified by itself."""
    commit = signed.publish("v1.0")
    obtained = await (signed.run_well() if image == "good" else signed.obtain())
    bake(signed.release_store, obtained.release)
    signed.signer = make_signer(signers.parent, "bob@example.com")
    signers.write_text(ada.allowed_signers_line + signed.signer.allowed_signers_line)
    newer = await signed.ran("v2.0", {"more": "x"})
    signers.write_text(ada.allowed_signers_line)
    if not here:
        signed.release_store.root(newer).rename(signed.state / "away")
    assert (await signed.obtain()).release.commit == commit
    assert not signed.told("release.restored")


async def test_a_pin_goes_below_what_is_known_and_not_below_the_image(signed: Computer) -> None:
    """Nor to a tag that was moved, nor past the signatures."""
    signed.publish("v1.0")
    signed.publish("v2.0", {"image": "x"})
    bake(signed.release_store, (await signed.obtain()).release)
    middle = await signed.ran("v3.0", {"middle": "x"})
    good = await signed.ran("v4.0", {"newest": "x"})
    signed.repo.release("v3.5", {"unsigned": "x"})
    for name, runs, refused in (
        ("v3.0", middle, []),
        ("v1.0", good, ["downgrade"]),
        ("v3.5", good, ["unverified"]),
    ):
        await signed.decide(pin, name, "")
        obtained = await signed.obtain()
        assert (obtained.release.commit, kinds(obtained)) == (runs, refused), name
    await signed.decide(pin, "v3.0", "")
    signed.move("v3.0")
    assert (await signed.obtain()).release.commit == middle


async def test_the_images_release_is_on_trial_where_another_was_good(computer: Computer) -> None:
    """A new image is no proof; the first one of a channel has nothing to be compared with."""
    computer.publish("v1.0")
    first = await computer.obtain()
    bake(computer.release_store, first.release)
    assert not (await computer.obtain()).on_trial
    computer.promote(first)
    computer.publish("v2.0", {"more": "x"})
    bake(computer.release_store, (await computer.obtain()).release)
    assert (await computer.obtain()).on_trial


async def test_an_index_that_is_down_leaves_the_images_release(computer: Computer) -> None:
    """The last good release is not on a fresh disk, and cannot be installed tonight; the one before is and can."""
    image = await baked(computer)
    hashed = f"idna==3.10 --hash=sha256:{'0' * 64}\n"
    files = {"requirements.txt": hashed, "pyproject.toml": PROJECT, "greet.py": ""}
    commit = computer.publish("v2.0", {**files, "jobs.toml": LOCKED_JOBS})
    proved(computer, image.model_copy(update={"ref": "v2.0", "commit": commit}))
    computer.lose_the_network()
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (image.commit, ["install"])
    assert len(computer.told("release.exported")) == 2


@pytest.mark.parametrize(
    "forged", [{}, {"line": "another tags v*"}, {"tag": False}, {"signed": "abc"}]
)
async def test_what_the_bucket_says_of_a_release_does_not_lead_below_the_image(
    signed: Computer, forged: dict[str, object]
) -> None:
    """A release that is named good stands in only if it is signed and not older; the image's runs."""
    oldest = signed.publish("v0.9")
    tag = Signed("tag", signed.repo.git("cat-file", "tag", "v0.9").encode() + b"\n")
    image = await baked(signed)
    signed.publish("v2.0", {"jobs.toml": "broken"})
    signed.git("tag", "--delete", "v1.0", "v0.9")
    old = {"ref": "v0.9", "commit": oldest, "signed": tag.text, **forged}
    proved(signed, image.model_copy(update=old))
    assert (await signed.obtain()).release.commit == image.commit
    assert not signed.told("release.restored")


async def test_what_else_the_bucket_says_of_a_release_stops_nothing(computer: Computer) -> None:
    """A newer writer, or a clock that was wrong by decades when it was fetched."""
    commit = await computer.ran("v1.0")
    (good,) = computer.remembered().known.good(VERSION)
    old = {"fetched": datetime(2001, 1, 1, tzinfo=UTC), "version": 2, "verified_by": "x"}
    proved(computer, Good.model_validate({**dict(good), **old}))
    computer.publish("v2.0", {"jobs.toml": "broken"})
    computer.git("tag", "--delete", "v1.0")
    wiped(computer)
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (commit, ["content"])
    assert obtained.stale
    assert obtained.stale.age_seconds == LONGEST_SECONDS


async def test_a_release_of_many_jobs_is_good_and_loses_none(computer: Computer) -> None:
    """More than a fact can name: they are read from the disk, where it is."""
    many = "".join(JOBS.replace("greet", f"greet-{number}", 1) for number in range(MOST_NAMED + 1))
    await computer.ran("v1.0", {"jobs.toml": many, "greet.sh": ""})
    computer.publish("v2.0", {"jobs.toml": JOBS})
    assert kinds(await computer.obtain()) == ["check"]


async def test_an_operator_goes_back_on_a_branch(computer: Computer) -> None:
    """All its releases have one name, and the one that was left stays bad until there is a newer one."""
    computer.settings["branch"] = "main"
    commits = []
    for content in ("x", "y"):
        commits.append(computer.commit({"jobs.toml": JOBS, "more": content}))
        await computer.run_well()
    await computer.decide(rollback, None, version=VERSION, reason="")
    obtained = await computer.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (commits[0], ["bad"])


async def test_a_commit_of_a_branch_is_pinned_before_it_proved_itself(computer: Computer) -> None:
    """No name leads to it, so that it is fetched by its commit."""
    computer.settings["branch"] = "main"
    commit = computer.commit({"jobs.toml": JOBS})
    await computer.obtain()
    computer.commit({"more": "x"})
    await computer.run_well()
    await computer.decide(pin, commit, "")
    wiped(computer)
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.stale) == (commit, None)


async def test_a_pin_is_verified_anew_where_signatures_were_not_asked_for(
    computer: Computer, ada: Signer, signers: Path
) -> None:
    """A release that was installed without its signature is fetched again, and is not refused for want of it."""
    computer.signer = ada
    commit = await computer.ran("v1.0")
    await computer.ran("v2.0", {"more": "x"})
    await computer.decide(pin, "v1.0", "")
    obtained = await computer.obtain(allowed_signers=signers)
    assert obtained.release.commit == commit
    assert obtained.record.verified_by is not None


async def test_a_tag_that_is_pinned_by_its_name_alone_must_not_have_moved(signed: Computer) -> None:
    """Its commit is known although nobody found it good."""
    signed.publish("v1.0")
    await signed.obtain()
    good = await signed.ran("v2.0", {"more": "x"})
    signed.move("v1.0")
    await signed.decide(lambda memory, _rows: pin(memory, [], "v1.0", ""))
    obtained = await signed.obtain()
    assert (obtained.release.commit, kinds(obtained)) == (good, ["moved"])


async def test_a_machine_that_promotes_an_older_release_late_does_not_make_it_the_last_good_one(
    computer: Computer,
) -> None:
    """It began before the newer one was published; without git, the newer one runs all the same."""
    computer.publish("v1.0")
    older = good_of((await computer.obtain()).release)
    newer = await computer.ran("v2.0", {"more": "x"})
    proved(computer, older)
    assert computer.good == older.commit
    assert (await computer.obtain()).release.commit == newer
    assert computer.good == newer
    computer.repository += "-gone"
    assert (await computer.obtain()).release.commit == newer
