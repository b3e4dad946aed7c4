"""Releases on disk: complete or not there, and one of them good."""

import json
import resource
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.release.checks import Checks
from agent.release.store import (
    Installed,
    ReleaseStore,
    last_here,
    read_marker,
    sweep,
)
from tests.parts.gitserver import GitServer
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, VERSION, Computer, reason_of

pytestmark = pytest.mark.usefixtures("git_server")


async def _two(computer: Computer, repo: Repo) -> tuple[Installed, Installed]:
    repo.release("v1.0", {"jobs.toml": JOBS})
    first = (await computer.run_well()).release
    repo.release("v2.0", {"new": "x"})
    return first, (await computer.run_well()).release


def _good(computer: Computer) -> Installed | None:
    checks = Checks("jobs.toml", VERSION, computer.environ)
    return last_here(computer.release_store, computer.remembered().known.good(VERSION), checks)


async def test_the_state_directory_can_be_moved(computer: Computer, repo_builder: Repo) -> None:
    """A release without an environment survives a move of it all."""
    _, second = await _two(computer, repo_builder)
    computer.state = computer.state.rename(computer.state.with_name("moved"))
    good = _good(computer)
    assert good is not None
    assert good.commit == second.commit


@pytest.mark.parametrize("damage", ["gone", "garbage", "newer", "other", "no tree"])
async def test_a_release_with_a_damaged_marker_is_made_again(
    computer: Computer, repo_builder: Repo, damage: str
) -> None:
    """A marker that does not say that this release is complete counts as none."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    release = (await computer.run_well()).release
    marker = release.root / "release.json"
    content = json.loads(marker.read_text())
    match damage:
        case "gone":
            marker.unlink()
        case "garbage":
            marker.write_bytes(b"\0" * 100)
        case "newer":
            marker.write_text(json.dumps(content | {"version": 2}))
        case "other":
            marker.write_text(json.dumps(content | {"commit": "a" * 40}))
        case "no tree":
            release.tree.rename(release.root / "else")
    assert read_marker(release.root) is None
    with pytest.raises(ReleaseError, match="is damaged"):
        _good(computer)
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.stale) == (release.commit, None)
    assert _good(computer) == obtained.release


async def test_an_image_link_to_nowhere_is_no_release(computer: Computer, tmp_path: Path) -> None:
    """No link, and a link to something that is not named like a commit, are both none."""
    assert _good(computer) is None
    computer.state.mkdir()
    computer.release_store.baked.symlink_to(tmp_path)
    assert _good(computer) is None


async def test_unfinished_releases_are_swept_and_finished_ones_are_not(
    computer: Computer, repo_builder: Repo
) -> None:
    """What has no marker goes, read-only or not; what its links point to, and what is not the agent's, stays."""
    first, second = await _two(computer, repo_builder)
    outside = computer.state / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    theirs = computer.release_store.releases / "v1.tmp"
    theirs.mkdir()
    unfinished = computer.release_store.root("b" * 40)
    (unfinished / "tree/deep").mkdir(parents=True)
    (unfinished / "tree/deep/file").write_text("x")
    (unfinished / "tree/link").symlink_to(outside)
    for folder in (unfinished / "tree/deep", unfinished / "tree"):
        folder.chmod(0o555)
    draft = computer.release_store.root("c" * 40).with_name(f"{'c' * 40}.0a1b2c3d.tmp")
    draft.mkdir()
    assert sorted(await sweep(computer.release_store)) == ["b" * 40, draft.name]
    assert not unfinished.exists()
    assert not draft.exists()
    assert theirs.exists()
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o200
    assert {first.root.exists(), second.root.exists()} == {True}
    (first.root / "release.json").unlink()
    assert await sweep(computer.release_store) == [first.commit]  # sealed, as installed
    assert not list(computer.release_store.releases.glob(f"{first.commit}*"))


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_mirror_is_made_again(
    computer: Computer, repo_builder: Repo, git_server: GitServer, damage: str
) -> None:
    """Packs that a power loss left cut or wrong, old locks and half a pack cost one more transfer."""
    computer.repository = git_server.url()
    await _two(computer, repo_builder)
    packs = list(computer.release_store.mirror.glob("objects/pack/*.pack"))
    assert packs
    for pack in packs:
        pack.chmod(0o644)
        content = pack.read_bytes()
        wrong = content[:12] + bytes(byte ^ 0xFF for byte in content[12:-20]) + content[-20:]
        pack.write_bytes(content[:20] if damage == "cut" else wrong)
    (computer.release_store.mirror / "shallow.lock").write_text("")
    (computer.release_store.mirror / "objects/pack/tmp_pack_abc").write_text("")
    repo_builder.release("v3.0", {"newer": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v3.0", None)
    assert not (computer.release_store.mirror / "shallow.lock").exists()
    assert bool(computer.told("release.mirror_discarded")) == (damage == "changed")


async def test_something_else_in_the_mirrors_place_is_replaced(
    computer: Computer, repo_builder: Repo
) -> None:
    """A mirror whose folders are files is discarded and made anew."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.release_store.mirror.mkdir(parents=True)
    (computer.release_store.mirror / "objects").write_text("not a folder")
    assert (await computer.obtain()).release.ref == "v1.0"


async def test_a_state_directory_that_cannot_be_used_is_a_reason(
    computer: Computer, repo_builder: Repo
) -> None:
    """A file where a directory must be ends as a typed error, not as a traceback."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    computer.state.write_text("a file")
    with pytest.raises(ReleaseError, match="cannot be used"):
        await computer.obtain()


async def test_a_machine_without_git_says_so(computer: Computer, repo_builder: Repo) -> None:
    """Without git on the PATH the last good release runs, and the reason says what is missing."""
    first, second = await _two(computer, repo_builder)
    tools = computer.state.parent / "tools"
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    computer.environ["PATH"] = str(tools)
    obtained = await computer.obtain()
    assert obtained.release == second != first
    assert reason_of(obtained).startswith("git could not be started")


def test_a_shelf_is_absolute(tmp_path: Path) -> None:
    """Environments have their path written into them, so a relative state directory is made absolute."""
    release_store = ReleaseStore.at(Path("state"), Path("cache"))
    assert release_store.releases == Path.cwd() / "state" / "releases"
    assert release_store.cache.is_absolute()


async def test_a_disk_that_is_full_leaves_the_last_good_release(
    computer: Computer, repo_builder: Repo
) -> None:
    """A file that cannot be written whole ends the installation, and nothing incomplete is taken for a release."""
    first, _ = await _two(computer, repo_builder)
    repo_builder.release("v3.0", {"large": "0" * 4_000_000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1_000_000, hard)
    )  # as good as a full disk, without being root
    try:
        obtained = await computer.obtain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert obtained.release.ref == "v2.0"
    assert reason_of(obtained).startswith("it could not be written: ")
    assert (await computer.obtain()).release.ref == "v3.0"
    assert first.root.exists()
