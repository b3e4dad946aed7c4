"""What is remembered of releases, when the file that holds it is damaged: nothing of it is lost in silence."""

from pathlib import Path

import pytest

from agent.release.operate import overview, pin, unpin
from agent.release.record import Remembered
from agent.release.trial import Memory
from tests.parts.repo import Repo
from tests.release.conftest import JOBS, Desk

pytestmark = pytest.mark.usefixtures("git_server")


@pytest.mark.parametrize("damage", [b"", b"{", b"\0" * 200, b'{"version": 2}'])
async def test_a_damaged_record_is_kept_and_reported_until_an_operator_acts(
    desk: Desk, repo_builder: Repo, damage: bytes
) -> None:
    """The pin is forgotten, which every run warns of; the damaged file is there to be looked at."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    await desk.run_well()
    pin(desk.shelf, "v1.0", desk.now)
    repo_builder.release("v2.0", {"more": "x"})
    assert (await desk.obtain()).release.ref == "v1.0"
    desk.shelf.record.write_bytes(damage)
    for _ in range(2):
        obtained = await desk.run_well()
        assert obtained.release.ref == "v2.0"
        (warning,) = obtained.warnings
        assert "record.json.damaged-1" in warning
        assert "mayfly release" in warning
    assert desk.told("release.record_lost")[0]["level"] == "error"
    aside = desk.shelf.record.with_name("record.json.damaged-1")
    assert aside.read_bytes() == damage
    assert overview(desk.shelf)[1].lost
    unpin(desk.shelf)
    assert (await desk.obtain()).warnings == ()


def test_an_operator_does_not_overwrite_a_damaged_record(desk: Desk) -> None:
    """What is pinned on top of damage leaves the damaged file, also a second time."""
    desk.shelf.releases.mkdir(parents=True)
    for number in (1, 2):
        desk.shelf.record.write_text(f"damage {number}")
        pin(desk.shelf, "v1.0", desk.now)
    there = {path.name: path.read_text() for path in desk.shelf.releases.glob("*.damaged-*")}
    assert there == {"record.json.damaged-1": "damage 1", "record.json.damaged-2": "damage 2"}
    memory = Remembered.read(desk.shelf.record).memory
    assert (memory.pin is not None, memory.lost) == (True, None)


def test_only_a_file_that_is_not_there_is_an_empty_memory(tmp_path: Path) -> None:
    """One that cannot be read is damage, and reading it changes nothing."""
    assert Remembered.read(tmp_path / "none.json").memory == Memory()
    (tmp_path / "folder.json").mkdir()
    assert Remembered.read(tmp_path / "folder.json").memory.lost
    assert [path.name for path in tmp_path.glob("*.json*")] == ["folder.json"]


async def test_a_lost_link_to_the_last_good_release_is_reported(
    desk: Desk, repo_builder: Repo
) -> None:
    """The record knows that there was one; once a release is found good again there is nothing to report."""
    repo_builder.release("v1.0", {"jobs.toml": JOBS})
    await desk.run_well()
    desk.shelf.good.unlink()
    desk.shelf.good.write_text("")
    (warning,) = (await desk.run_well()).warnings
    assert str(desk.shelf.good) in warning
    assert (await desk.obtain()).warnings == ()
