"""A task that is cancelled leaves its thread behind, and what it wanted to write; its successor is not harmed."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from fcntl import F_GETLEASE, F_SETLEASE, F_SETSIG, F_WRLCK, fcntl
from pathlib import Path
from signal import SIGURG

import pytest

from agent.contract.entries import Planned
from agent.delivery.database import Database, fenced
from agent.delivery.prepare import Preparer
from agent.delivery.spool import DATABASE, Stage
from tests.delivery.world import SECONDS, World

pytestmark = pytest.mark.timeout(60)


@asynccontextmanager
async def one_thread() -> AsyncIterator[None]:
    """Let `asyncio.to_thread` have one thread, which is busy while the block runs."""
    free = threading.Event()
    executor = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(executor)
    busy = asyncio.create_task(asyncio.to_thread(free.wait, SECONDS))
    await asyncio.sleep(0)
    try:
        yield
    finally:
        free.set()
        await busy


def held(path: Path) -> int:
    """Let whoever opens a file wait until the descriptor that is returned is closed."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl(descriptor, F_SETSIG, SIGURG)  # SIGIO would end this process
    fcntl(descriptor, F_SETLEASE, F_WRLCK)
    return descriptor


async def test_a_thread_that_nobody_waits_for_changes_nothing(tmp_path: Path) -> None:
    """Its next transaction does not begin: it would come after those of its successor."""
    executor, held, free = ThreadPoolExecutor(), threading.Event(), threading.Event()
    asyncio.get_running_loop().set_default_executor(executor)
    database = Database(tmp_path / DATABASE)
    database.create()

    def write() -> None:
        database.note(first="old")
        held.set()
        free.wait(SECONDS)
        database.note(second="old")

    task = asyncio.create_task(fenced(write))
    await asyncio.to_thread(held.wait, SECONDS)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await fenced(database.note, second="new")
    free.set()
    executor.shutdown()
    assert (database.noted("first"), database.noted("second")) == ("old", "new")


async def test_a_preparation_that_was_cancelled_seals_no_package(local: World) -> None:
    """The next one has begun the package anew: it would be sealed without a file."""
    executor = ThreadPoolExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"1"})
        local.run.end(local.finished("a"), held=True)
        archive = local.run.saved_state("a")
        archive.write_bytes(b"state")
        lease = held(archive)
        preparer = Preparer(local.run, delivery._uploader, local.opened(), local.log)
        preparing = asyncio.create_task(preparer.prepare("a"))
        # Until the package is about to be sealed.
        while fcntl(lease, F_GETLEASE) == F_WRLCK:  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)
        preparing.cancel()
        await asyncio.gather(preparing, return_exceptions=True)
        local.run.sent.expect_nothing("a")  # as the next preparation does first
        os.close(lease)
        executor.shutdown()
        job = local.run.ended("a")
        assert job is not None
        assert (job.stage, job.entry) == (Stage.ENDED, None)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())
        assert await delivery.flush(SECONDS) == []
    package = await local.package("a")
    assert "files/x" in [one.path for one in package.resources]


async def test_a_beginning_for_which_nobody_waits_any_more_is_noted(local: World) -> None:
    """The claim has a limit; a run that had not begun could commit nothing, and be removed as one that never ran."""
    async with local.delivery() as delivery:
        async with one_thread():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await local.begin(delivery)
        await delivery.plan(Planned(count=1, jobs=("a",)))
        local.attempt("a", {"x": b"1"})
        await delivery.ended(local.finished("a"))
        assert await delivery.flush(SECONDS) == []
    assert set(await local.committed()) == {"a"}


async def test_a_job_in_the_log_is_not_pending_because_a_note_was_cut_off(local: World) -> None:
    """Its commit was proven; only the note in the spool was never begun."""
    async with local.under_way("a") as delivery:
        local.attempt("a", {"x": b"1"})
        await delivery.ended(local.finished("a"))
        assert await delivery.flush(SECONDS) == []
        committer = delivery._committer
        writer = await committer._writer
        await writer.prove()
        async with one_thread():
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await committer.prove()
        assert await committer.pending() == []
        await committer.prepare_all()
        assert committer._tasks == {}
        await committer.prove()
    assert local.run.jobs()[0].stage is Stage.COMMITTED
