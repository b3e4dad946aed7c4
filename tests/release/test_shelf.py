"""Releases on disk: complete or not there, and one of them good."""

import json
import resource
from pathlib import Path

import pytest

from agent.base.errors import ReleaseError
from agent.base.logs import RunLogger
from agent.release.store import Installed, ReleaseStore, read_marker, sweep
from tests.parts.gitserver import GitServer
from tests.parts.held import held
from tests.release.conftest import Computer, reason_of


async def _two(computer: Computer) -> tuple[Installed, Installed]:
    computer.publish("v1.0")
    first = (await computer.run_well()).release
    computer.publish("v2.0", {"new": "x"})
    return first, (await computer.run_well()).release


async def test_the_last_good_release_needs_neither_its_place_nor_git(computer: Computer) -> None:
    """The state directory can be moved; without git on the PATH the reason says what is missing."""
    _, second = await _two(computer)
    computer.state = computer.state.rename(computer.state.with_name("moved"))
    assert computer.here is not None
    assert computer.here.commit == second.commit
    tools = computer.state.with_name("tools")
    tools.mkdir()
    (tools / "sh").symlink_to("/bin/sh")
    computer.environ["PATH"] = str(tools)
    obtained = await computer.obtain()
    assert obtained.release.commit == second.commit
    assert reason_of(obtained).startswith("git could not be started")


@pytest.mark.parametrize("damage", ["gone", "garbage", "newer", "other", "no tree"])
async def test_a_release_with_a_damaged_marker_is_made_again(
    computer: Computer, damage: str
) -> None:
    """A marker that does not say that this release is complete counts as none."""
    computer.publish("v1.0")
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
        assert computer.here
    obtained = await computer.obtain()
    assert (obtained.release.commit, obtained.stale) == (release.commit, None)
    assert computer.here == obtained.release


def test_an_image_link_to_nowhere_is_no_release(computer: Computer, tmp_path: Path) -> None:
    """No link, and a link to something that is not named like a commit, are both none."""
    assert computer.here is None
    computer.state.mkdir()
    computer.release_store.baked.symlink_to(tmp_path)
    assert computer.here is None


async def test_unfinished_releases_are_swept_and_finished_ones_are_not(computer: Computer) -> None:
    """What has no marker goes, read-only or not, whatever cannot go beside it; the targets of its links stay."""
    first, second = await _two(computer)
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
    held_back = computer.release_store.root("a" * 40).with_name(f"{'a' * 40}.0a1b2c3d.tmp")
    held_back.mkdir()
    (held_back / "file").touch()
    log = RunLogger(computer.events.append).log
    with held(held_back / "file"):
        await sweep(computer.release_store, log)
    assert [line["name"] for line in computer.told("release.not_removed")] == [held_back.name]
    swept = [line["name"] for line in computer.told("release.swept")]
    assert sorted(swept) == ["b" * 40, draft.name]
    assert not unfinished.exists()
    assert not draft.exists()
    assert theirs.exists()
    assert (outside / "kept").exists()
    assert outside.stat().st_mode & 0o200
    assert {first.root.exists(), second.root.exists()} == {True}
    (first.root / "release.json").unlink()
    await sweep(computer.release_store, log)  # it is sealed, as installed
    assert not list(computer.release_store.releases.glob(f"{first.commit}*"))


@pytest.mark.parametrize("damage", ["cut", "changed"])
async def test_a_damaged_mirror_is_made_again(
    computer: Computer, git_server: GitServer, damage: str
) -> None:
    """Packs that a power loss left cut or wrong, old locks and half a pack cost one more transfer."""
    computer.repository = git_server.url()
    await _two(computer)
    mirror = computer.release_store.mirror
    packs = list(mirror.glob("objects/pack/*.pack"))
    assert packs
    for pack in packs:
        pack.chmod(0o644)
        content = pack.read_bytes()
        wrong = content[:12] + bytes(byte ^ 0xFF for byte in content[12:-20]) + content[-20:]
        pack.write_bytes(content[:20] if damage == "cut" else wrong)
    (mirror / "shallow.lock").write_text("")
    (mirror / "objects/pack/tmp_pack_abc").write_text("")
    computer.publish("v3.0", {"newer": "x"})
    obtained = await computer.obtain()
    assert (obtained.release.ref, obtained.stale) == ("v3.0", None)
    assert not (mirror / "shallow.lock").exists()
    assert bool(computer.told("release.mirror_discarded")) == (damage == "changed")


async def test_something_else_in_a_place_is_replaced_or_a_reason(computer: Computer) -> None:
    """A mirror whose folders are files is made anew; a file as the state directory is no traceback."""
    computer.publish("v1.0")
    state = computer.state
    computer.state = state.with_name("a file")
    computer.state.write_text("a file")
    with pytest.raises(ReleaseError, match="cannot be used"):
        await computer.obtain()
    computer.state = state
    computer.release_store.mirror.mkdir(parents=True)
    (computer.release_store.mirror / "objects").write_text("not a folder")
    assert (await computer.obtain()).release.ref == "v1.0"


def test_a_shelf_is_absolute() -> None:
    """Environments have their path written into them, so a relative state directory is made absolute."""
    release_store = ReleaseStore.at(Path("state"), Path("cache"))
    assert release_store.releases == Path.cwd() / "state" / "releases"
    assert release_store.cache.is_absolute()


async def test_a_disk_that_is_full_leaves_the_last_good_release(computer: Computer) -> None:
    """A file that cannot be written whole ends the installation, and nothing incomplete is taken for a release."""
    first, _ = await _two(computer)
    computer.publish("v3.0", {"large": "0" * 4_000_000})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As good as a full disk, without being root.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        obtained = await computer.obtain()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert obtained.release.ref == "v2.0"
    assert reason_of(obtained).startswith("it could not be written: ")
    assert (await computer.obtain()).release.ref == "v3.0"
    assert first.root.exists()
