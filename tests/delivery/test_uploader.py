"""Jobs share an uploader, and the table of what was sent: whoever has sent its files finds them there."""

import asyncio
import mmap
import threading
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Self

import pytest

from agent.delivery.database import Database
from agent.delivery.scan import Scan
from agent.delivery.sent import OutboxFile
from agent.delivery.uploader import results_of
from tests.delivery.world import World, no_descriptors

MOMENT = 0.3
"""Seconds for what nothing tells of; with fewer the test would show less, and not fail."""


@asynccontextmanager
async def slow_disk(database: Database) -> AsyncIterator[None]:
    """Let nobody read or write a database while the block runs."""
    held, free = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        free.wait(30)

    task = asyncio.create_task(asyncio.to_thread(database.within, hold))
    await asyncio.to_thread(held.wait, 30)
    try:
        yield
    finally:
        free.set()
        await task


def files(world: World, job: str) -> list[OutboxFile]:
    """Return the one result of a job, which its package is to name."""
    (found,) = results_of(job, world.attempt(job, {"result": b"1"}), Scan())
    return world.run.sent.expect(found)


class Pages:
    """Pages of files.

    Attributes:
        ends: How often somebody asked for a page after the last one.
    """

    def __init__(self, pages: Iterable[list[OutboxFile]]) -> None:
        self._pages = iter(pages)
        self.ends = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[OutboxFile]:
        for page in self._pages:
            return page
        self.ends += 1
        raise StopIteration


@pytest.mark.timeout(60)
async def test_what_a_job_has_sent_is_noted_although_another_one_notes_it(local: World) -> None:
    """Its package is sealed next, and would be without the file that another job's note is still writing down."""
    passed = asyncio.Semaphore(0)
    uploader = local.uploader(lambda _: passed.release())
    first, second = files(local, "first"), files(local, "second")
    goes_on = threading.Event()

    def pages() -> Iterator[list[OutboxFile]]:
        yield first
        goes_on.wait(30)

    async with slow_disk(local.run.database):
        ours = asyncio.create_task(uploader.send(pages()))
        await passed.acquire()
        other = asyncio.create_task(uploader.send([second]))
        await passed.acquire()
        await asyncio.sleep(MOMENT)  # the other one takes both notes, and waits for the disk
        goes_on.set()
        await asyncio.wait({ours}, timeout=MOMENT)
        assert not ours.done(), "it did not wait for its note"
    assert [await ours, await other] == [{}, {}]
    for job in ("first", "second"):
        assert [file.path for file in local.run.sent.sealed(job)] == ["files/result"]


async def test_what_the_disk_refuses_to_note_is_noted_with_the_next(local: World) -> None:
    """Whose file it was hears of it; another job, whose note it may have been, finds it noted all the same."""
    uploader, page, path = local.uploader(), files(local, "a"), local.run.database.path
    local.run.database.close()
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(OSError, match="unable to open database"):
        await uploader.send([page])
    away.rename(path)
    assert await uploader.send([]) == {}
    assert [file.path for file in local.run.sent.sealed("a")] == ["files/result"]


async def test_a_file_that_its_program_has_mapped_is_sent_again(local: World) -> None:
    """A write to a page that is dirty already changes no time of a file, until the page was on the disk."""
    uploader, output = local.uploader(), local.attempt("a", {"result": b"0"})
    with (output / "result").open("r+b") as stream, mmap.mmap(stream.fileno(), 1) as mapped:
        mapped[0:1] = b"1"
        (found,) = results_of("a", output, Scan())
        await uploader.send([found], stop=asyncio.Event())
        mapped[0:1] = b"2"
    (found,) = results_of("a", output, Scan())
    await uploader.send([local.run.sent.expect(found)])
    assert await local.content("a", "files/result") == b"2"


async def test_the_end_of_the_files_is_looked_for_once(local: World) -> None:
    """Not once for each request that there may be at a time: a thread does it, and the last files wait behind them."""
    output = local.attempt("a", {str(number): b"1" for number in range(20)})
    pages = Pages(results_of("a", output, Scan()))
    await local.uploader().send(map(local.run.sent.expect, pages))
    assert len(list(local.run.sent.sealed("a"))) == 20
    assert pages.ends == 1


async def test_want_of_descriptors_is_no_fault_of_a_file(local: World) -> None:
    """It is sent at the next try, and not refused."""
    uploader, page = local.uploader(), files(local, "a")
    with no_descriptors(), pytest.raises(OSError, match="Too many open files"):
        await uploader.send([page])
    assert await uploader.send([page]) == {}
    assert [file.path for file in local.run.sent.sealed("a")] == ["files/result"]
