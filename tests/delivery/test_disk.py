"""A disk that fills up: one expected failure, and what had ended is committed once there is room."""

import errno
from itertools import count
from pathlib import Path

import pytest

from agent.delivery.spool import Stage
from tests.delivery.world import World, folder_bucket
from tests.parts.small_disk import SmallDisk


async def _until_full(world: World, disk: SmallDisk, pages: int) -> OSError | None:
    """Deliver a job on a disk with so many pages left; return what the disk said."""
    try:
        async with world.under_way("a") as delivery:
            world.attempt("a", {"x": b"1", "y": b"2"})
            disk.leave_pages(pages)
            await delivery.ended(world.finished("a"))
            await delivery.flush(2.5)
            await delivery.close(world.record(), [], keeps_disk=True)
    except OSError as error:
        return error
    return None


@pytest.mark.timeout(600)
async def test_a_disk_with_ever_more_room(tmp_path: Path) -> None:
    """At every size it is told as full, and nothing is lost."""
    with SmallDisk(tmp_path / "disk") as disk:
        for pages in count(1, 2):
            world = World.make(disk.path / str(pages), folder_bucket(tmp_path / str(pages)))
            said = await _until_full(world, disk, pages)
            disk.give_back()
            if said is None:
                break
            assert said.errno == errno.ENOSPC
            ended = [job.name for job in world.run.jobs()]
            await world.recovered()
            assert not world.run.root.exists()
            assert set(await world.committed()) == {"a"}
            assert ended in ([], ["a"])
        assert pages > 1
        assert world.run.jobs()[0].stage is Stage.COMMITTED


async def test_a_full_disk_leaves_earlier_runs_to_the_next_process(tmp_path: Path) -> None:
    """What this run did is handed over all the same, as far as the disk lets it."""
    with SmallDisk(tmp_path / "disk") as disk:
        world = World.make(disk.path, folder_bucket(tmp_path / "bucket"))
        async with world.under_way("a") as delivery:
            world.attempt("a", {"x": b"1"})
            await delivery.ended(world.finished("a"))
        waiting = world.spool.pending(world.log)
        disk.leave_pages(0)
        assert await world.recovered(waiting) == 0
        disk.give_back()
        assert await world.recovered() == 1
    assert set(await world.committed()) == {"a"}


async def test_a_full_disk_damages_no_earlier_run(tmp_path: Path) -> None:
    """It is told, and the run is found again where it is, once there is room."""
    with SmallDisk(tmp_path / "disk") as disk:
        world = World.make(disk.path, folder_bucket(tmp_path / "bucket"))
        world.run.database.close()
        (disk.path / "spool" / "broken").mkdir()
        disk.leave_pages(0)
        with pytest.raises(OSError, match=r"full|No space") as raised:
            world.spool.pending(world.log)
        assert raised.value.errno == errno.ENOSPC
        disk.give_back()
        assert [run.run for run in world.spool.pending(world.log)] == [world.run.run]
        assert world.spool.warnings == ()
