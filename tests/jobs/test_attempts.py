"""How much time of a run an attempt needs to begin."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from agent.base.engine import no_login
from agent.base.errors import StoreError
from agent.base.logs import RunLogger
from agent.base.progress import NullProgress
from agent.base.stop import Stop
from agent.config.jobsfile import Job
from agent.config.settings import Limits
from agent.contract.results import JobStatus
from agent.jobs.context import JobContext
from agent.jobs.isolation.process import ProcessIsolation
from agent.jobs.job import run_job
from agent.jobs.rate_limit import reserve
from agent.jobs.worktree import WorkingTrees
from tests.delivery.world import World, folder_bucket

MakeContext = Callable[[Callable[[], float]], JobContext]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    """Makes what jobs share in a run without a past, given its clock."""

    def make(seconds_left: Callable[[], float]) -> JobContext:
        world = World.make(tmp_path / "state", folder_bucket(tmp_path / "bucket"))
        (tree := tmp_path / "tree").mkdir()

        def nothing() -> "asyncio.Future[Any]":
            future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            future.set_exception(StoreError("there is none"))
            future.exception()  # so that nobody has to ask
            return future

        return JobContext(
            run=world.run,
            batch=world.batch.name,
            at=datetime.now(UTC),
            tree=tree,
            programs=None,
            ref="v1",
            commit="0" * 40,
            browser=None,
            isolation=ProcessIsolation(),
            delivery=world.delivery(),
            bucket=world.opened(),
            history=nothing(),
            past=nothing(),
            secrets={},
            limits=Limits(),
            seconds_left=seconds_left,
            stop=Stop(),
            environ=os.environ,
            run_logger=RunLogger(lambda _: None),
            progress=NullProgress(),
            trees=WorkingTrees(world.run.trees),
            timezone="",
            pace=tmp_path / "pace",
            secrets_unread="",
            finished={},
            login=no_login,
        )

    return make


def counts_down(left: float) -> Callable[[], float]:
    """Return the clock of a run that has `left` seconds from now on."""
    until = monotonic() + left
    return lambda: until - monotonic()


async def test_a_retry_that_has_no_time_does_not_begin(make_context: MakeContext) -> None:
    """Half a second after the pause is none: the job has failed, and is not said to have run out of time."""
    context = make_context(counts_down(2.5))
    script = "test $MAYFLY_ATTEMPT = 2 && sleep 60; exit 3"
    async with context.delivery:
        record = await run_job(Job(name="fails", command=("sh", "-c", script), retries=1), context)
    assert (len(record.attempts), record.status) == (1, JobStatus.FAILED)


async def test_a_turn_that_leaves_no_time_is_not_taken(make_context: MakeContext) -> None:
    """The site is free now, and stays so for whoever has the time."""
    context = make_context(lambda: 0.5)
    job = Job(name="visits", command=("true",), rate={"shop.example": "1/h"})
    assert not await context.turn_of(job)
    assert await reserve(context.pace, "shop.example", 3600.0, within=5.0) == 0.0
