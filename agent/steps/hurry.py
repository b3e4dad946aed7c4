"""The hand-off of a machine that is taken back: as much as goes in time, the smallest files first."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.base.stop import Stop, first
from agent.bucket.store import Bucket
from agent.core.continuation import Cut, cut
from agent.core.manifest import Unsent
from agent.machine.spot import deadlines, smallest_first
from agent.steps.courier import Courier
from agent.steps.packing import left_by_jobs, refuse_unreadable, results_of, save_state
from agent.steps.receipts import Parcel
from agent.steps.seal import Seen
from agent.steps.spool import SpooledRun

EARLIER_SECONDS = 86400.0
"""Longer than any run: the run's own limit ends the wait."""


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed over.

    Attributes:
        contents: What each job's output holds.
        cut: How the run is divided; None when everything was sent.
    """

    contents: Mapping[str, Seen]
    cut: Cut | None = None


async def give_way(earlier: "asyncio.Task[int]", stop: Stop) -> None:
    """Wait for the delivery of earlier runs, or end it when the machine is taken back: the link is for this run."""
    await first(asyncio.wait([earlier]), stop.taken(), seconds=EARLIER_SECONDS)
    if stop.gone is None:
        earlier.result()
    else:
        earlier.cancel()


async def grace(run: SpooledRun, stop: Stop, usual: float) -> float:
    """Return the seconds from SIGTERM to SIGKILL: the usual ones, or what a machine that is taken back has left."""
    if stop.gone is None:
        return usual
    pending = await asyncio.to_thread(_pending, run)
    now = datetime.now(UTC)
    table = deadlines(stop.gone, now, pending=pending, grace=usual)
    return (table.jobs_end - now).total_seconds()


async def send_in_time(
    run: SpooledRun, courier: Courier, bucket: Bucket, gone: datetime, log: Log
) -> Handed:
    """Send what the time allows, and divide the run when something is left; it never raises for the bucket's faults.

    Args:
        run: The run, concluded.
        courier: Its courier.
        bucket: The bucket.
        gone: When the machine is gone.
        log: Bound to the run.
    """
    contents: dict[str, Seen] = {}
    waiting = await asyncio.to_thread(_waiting, run, contents)
    pending = sum(waiting.values())
    now = datetime.now(UTC)
    table = deadlines(gone, now, pending=pending, grace=0)
    log.info(
        "handoff.hurried",
        files=len(waiting),
        bytes=pending,
        send_by=table.send_by.isoformat(),
        commit_by=table.commit_by.isoformat(),
    )
    saved: set[str] = set()
    try:
        async with asyncio.timeout((table.send_by - now).total_seconds()):
            await courier.send([smallest_first(waiting)])
            for result in run.journal.run.jobs:
                if result.state in (states := run.states()):
                    await save_state(bucket, result.state, states[result.state])
                    saved.add(result.name)
    except (TimeoutError, StoreError) as error:
        log.warning("handoff.cut", reason=str(error) or "the time was over")
    refuse_unreadable(contents, courier)
    return Handed(contents, await asyncio.to_thread(_divided, run, waiting, saved))


def _divided(run: SpooledRun, waiting: Mapping[Parcel, int], saved: set[str]) -> Cut | None:
    """Return how the run is divided; None when nothing was left behind."""
    left = run.receipts.unsent()
    unsent = [
        Unsent(path=parcel.path, bytes=size, job=parcel.job)
        for parcel, size in waiting.items()
        if parcel.path in left
    ]
    states = run.states()
    stateless = {
        job.name for job in run.journal.run.jobs if job.state in states and job.name not in saved
    }
    if not unsent and not stateless:
        return None
    return cut(run.journal.run, unsent, stateless, os.urandom(3))


def _waiting(run: SpooledRun, contents: dict[str, Seen]) -> dict[Parcel, int]:
    """Have the manifest name everything, and return what is not in the bucket yet, with its bytes."""
    run.receipts.expect_nothing()
    return {
        parcel: _size(parcel)
        for some in left_by_jobs(run, contents)
        for parcel in run.receipts.expect(some)
    }


def _pending(run: SpooledRun) -> int:
    """Return the bytes of the results that are not in the bucket yet, while some jobs may still run."""
    roots = ((name, run.output(name)) for name in sorted(run.started_jobs()))
    return sum(
        _size(parcel)
        for name, root in roots
        if root is not None
        for some in results_of(run, name, root, Seen())
        for parcel in run.receipts.lacking(some)
    )


def _size(parcel: Parcel) -> int:
    if parcel.mark is not None:
        return parcel.mark.size
    try:
        return (parcel.root / parcel.name).lstat().st_size
    except OSError:
        return 0
