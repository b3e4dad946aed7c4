"""The hand-off of a machine that is taken back: as much as goes in time, the smallest files first."""

import asyncio
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agent.core.continuation import Cut, cut
from agent.core.errors import StoreError
from agent.core.manifest import Unsent
from agent.core.spot import smallest_first, timetable
from agent.steps import seal
from agent.steps.courier import Courier, Parcel
from agent.steps.logs import Log
from agent.steps.packing import evidence_of, refuse_unreadable, results_of, save_state
from agent.steps.seal import Contents
from agent.steps.spool import SpooledRun
from agent.steps.stop import Stop, first
from agent.steps.store import Bucket

EARLIER_SECONDS = 86400.0
"""Longer than any run: the run's own limit ends the wait."""


@dataclass
class _Load:
    """What is there to send.

    Attributes:
        parcels: All of it, in the manifest's order, with the job and the size of each.
        contents: What each job's output holds.
        waiting: Bytes of what is not in the bucket yet.
    """

    parcels: dict[Parcel, tuple[str, int]] = field(default_factory=dict)
    contents: dict[str, Contents] = field(default_factory=dict)
    waiting: dict[Parcel, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Handed:
    """What was handed over.

    Attributes:
        parcels: In the manifest's order; those that were not sent are left out.
        contents: What each job's output holds.
        cut: How the run is divided; None when everything was sent.
    """

    parcels: list[Parcel]
    contents: dict[str, Contents]
    cut: Cut | None = None


async def give_way(earlier: "asyncio.Task[int]", stop: Stop) -> None:
    """Wait for the delivery of earlier runs, or end it when the machine is taken back: the link is for this run."""
    await first(asyncio.wait([earlier]), stop.taken(), seconds=EARLIER_SECONDS)
    if stop.gone is None:
        earlier.result()
    else:
        earlier.cancel()


async def grace(run: SpooledRun, courier: Courier, stop: Stop, usual: float) -> float:
    """Return the seconds from SIGTERM to SIGKILL: the usual ones, or what a machine that is taken back has left."""
    if stop.gone is None:
        return usual
    load = await asyncio.to_thread(_load, run, courier, run.started_jobs())
    now = datetime.now(UTC)
    table = timetable(stop.gone, now, pending=sum(load.waiting.values()), grace=usual)
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
    names = frozenset(job.name for job in run.journal.run.jobs)
    load = await asyncio.to_thread(_load, run, courier, names)
    now = datetime.now(UTC)
    table = timetable(gone, now, pending=sum(load.waiting.values()), grace=0)
    log.info(
        "handoff.hurried",
        files=len(load.waiting),
        bytes=sum(load.waiting.values()),
        send_by=table.send_by.isoformat(),
        commit_by=table.commit_by.isoformat(),
    )
    saved: set[str] = set()
    try:
        async with asyncio.timeout((table.send_by - now).total_seconds()):
            await courier.send(smallest_first(load.waiting), marks={})
            for result in run.journal.run.jobs:
                if result.state in (states := run.states()):
                    await save_state(bucket, result.state, states[result.state])
                    saved.add(result.name)
    except (TimeoutError, StoreError) as error:
        log.warning("handoff.cut", reason=str(error) or "the time was over")
    for name, found in load.contents.items():
        files = [parcel for parcel, (job, _) in load.parcels.items() if job == name]
        refuse_unreadable(found, [file for file in files if file.job], courier)
    return _divided(run, courier, load, saved)


def _divided(run: SpooledRun, courier: Courier, load: _Load, saved: set[str]) -> Handed:
    there = {file.path for file in courier.sealed(load.parcels)}
    unsent = [
        Unsent(path=parcel.path, bytes=size, job=job)
        for parcel, (job, size) in load.parcels.items()
        if parcel.path not in there and parcel.path not in courier.unreadable
    ]
    sent = [parcel for parcel in load.parcels if parcel.path in there]
    states = run.states()
    stateless = {
        job.name for job in run.journal.run.jobs if job.state in states and job.name not in saved
    }
    if not unsent and not stateless:
        return Handed(sent, load.contents)
    return Handed(sent, load.contents, cut(run.journal.run, unsent, stateless, os.urandom(3)))


def _load(run: SpooledRun, courier: Courier, jobs: frozenset[str]) -> _Load:
    """Look what there is to send of some jobs; of those that have not ended, results only."""
    load = _Load()
    ended = {result.name: result for result in run.journal.run.jobs}
    for name in [*ended, *sorted(jobs - ended.keys())]:
        root = run.output(name)
        if root is None:
            continue
        found = load.contents[name] = seal.look(root)
        for parcel in results_of(run, name, root, found):
            mark = found.files[parcel.name]
            load.parcels[parcel] = (name, mark.size)
            if not courier.has_sent(parcel, mark):
                load.waiting[parcel] = mark.size
        for parcel in evidence_of(run, ended[name], root) if name in ended else []:
            size = _size(parcel)
            load.parcels[parcel] = (name, size)
            load.waiting[parcel] = size
    return load


def _size(parcel: Parcel) -> int:
    try:
        return (parcel.root / parcel.name).lstat().st_size
    except OSError:
        return 0
