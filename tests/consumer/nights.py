"""Histories to judge, in few words: what machines did, as values."""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from agent.batch.fold import Arrived, fold
from agent.batch.follow import CLOCKS
from agent.contract.entries import (
    MOST_JOBS,
    Began,
    Closed,
    Ended,
    Entry,
    LeftOut,
    Object,
    Planned,
)
from agent.contract.facts import Cost, Host, Release, Schedule
from agent.contract.ids import Batch as Id
from agent.contract.ids import run_id
from agent.contract.layout import EntryKey, JobKey
from agent.contract.results import JobCause, JobStatus, RunStatus
from consumer.model import Batch, History, batch_of, history_of

TOKYO = ZoneInfo("Asia/Tokyo")
BERLIN = ZoneInfo("Europe/Berlin")
LIMIT = timedelta(hours=2)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DONE = {"quotes": "succeeded"}
FAILED = {"quotes": "failed"}
Runs = list[list[Arrived]]


def tokyo(when: datetime | str) -> datetime:
    """Return a time of November 2026 in Tokyo, such as `22 23:30`; a time that has a zone stays as it is."""
    if isinstance(when, datetime):
        return when
    return datetime.strptime(f"2026-11-{when}", "%Y-%m-%d %H:%M").replace(tzinfo=TOKYO)


def nightly(expression: str, grace: str = "1h", timezone: str = "Asia/Tokyo") -> Schedule:
    """Return a schedule."""
    seconds = {"1h": 3600, "15m": 900, "10m": 600}[grace]
    return Schedule(expression=expression, timezone=timezone, grace_seconds=seconds)


EARLY = nightly("cron(0 2 * * ? *)")
"""Each night at two."""


def ended(run: str, name: str, how: str) -> Ended:
    """Return a job that ended: `how` is a status, or `incomplete`."""
    status = JobStatus("succeeded" if how == "incomplete" else how)
    package = Object(key=JobKey(run, name).text, bytes=1, sha256="0" * 64)
    return Ended(
        name=name,
        status=status,
        cause=None if status in {JobStatus.SUCCEEDED, JobStatus.SKIPPED} else JobCause.PAGE_CHANGED,
        files=2,
        bytes=20,
        items=3,
        seconds=60,
        attempts=1,
        refused=int(how == "incomplete"),
        package=None if status is JobStatus.SKIPPED else package,
    )


def cost(seconds: float, standing: float = 0.0) -> Cost:
    """Return what a machine costs that takes a dollar an hour."""
    return Cost(
        total_usd=seconds / 3600,
        billed_seconds=seconds,
        market="spot",
        rate_usd_hour=1.0,
        rate_source="spot-history",
        instance_usd=seconds / 3600,
        standing_usd_month=standing,
    )


def attempt(
    start: datetime | str,
    jobs: Mapping[str, str] | None = DONE,
    *,
    batch: Id | None = None,
    schedule: Schedule | None = None,
    slot: datetime | None = None,
    name: str = "main",
    minutes: float | None = 10,
    planned: Iterable[str] = (),
    left_out: Iterable[str] = (),
    release: Release | None = None,
    limit: timedelta = LIMIT,
    status: str = "",
    standing: float = 0.0,
) -> list[Arrived]:
    """Return what a run says.

    Args:
        start: When it began, as `tokyo` takes it.
        jobs: What became of its jobs; None when it never knew them.
        batch: Which batch it is an attempt at; one by itself where nobody says.
        schedule: What it says of its schedule.
        slot: The time that it is for.
        name: Of its schedule.
        minutes: How long it took; None when it never closed.
        planned: Jobs that it planned besides.
        left_out: Jobs that it left out.
        release: What it ran.
        limit: Until its deadline.
        status: How it closed, where that does not follow.
        standing: What its machine costs by the month.
    """
    started = tokyo(start)
    run = run_id(started, hashlib.sha256(f"{started}{batch}{name}".encode()).digest())
    slotted = Id.of_slot(name, slot) if slot else Id.of_run(name, run)
    batch = batch or slotted
    group = batch.shard or (None, None, None)
    began = Began(
        started=started,
        deadline=started + limit,
        host=Host(name="ip-10-0-0-7"),
        agent="0.2.0",
        channel="v*",
        slot=slot,
        group=group[0],
        shard=group[1],
        shards=group[2],
        schedule=schedule,
    )
    parts: list[tuple[float, dict[str, object]]] = [(0, {"began": began})]
    if jobs is not None:
        names = (*jobs, *planned)
        left = tuple(LeftOut(name=one, reason="not on this day") for one in left_out)
        plan = Planned(release=release, count=len(names), jobs=names, left_out=left)
        parts.append((0.5, {"planned": plan}))
        results = tuple(ended(run, one, how) for one, how in jobs.items())
        parts += [
            (minutes or 1, {"jobs": results[start : start + MOST_JOBS]})
            for start in range(0, len(results), MOST_JOBS)
        ]
    if minutes is not None:
        said = status or _status(jobs)
        closed = Closed(
            status=RunStatus(said),
            finished=started + timedelta(minutes=minutes),
            cost=cost(minutes * 60, standing),
        )
        parts.append((minutes, {"closed": closed}))
    return log_of(batch, run, [(started + timedelta(minutes=at), said) for at, said in parts])


def _status(jobs: Mapping[str, str] | None) -> str:
    ends = set((jobs or {"": "failed"}).values()) - {"skipped"}
    if ends <= {"succeeded", "incomplete"}:
        return "succeeded"
    return "partial" if "succeeded" in ends else "failed"


def log_of(
    batch: Id, run: str, parts: Iterable[tuple[datetime, Mapping[str, object]]]
) -> list[Arrived]:
    """Return the entries of a run, each of what it said at a time."""
    own = {"schedule": batch.schedule, "batch": batch.name, "run": run, "nonce": "0" * 8}
    return [
        Arrived(
            EntryKey(batch, run, "0" * 8, number),
            at.astimezone(UTC),
            Entry.model_validate({**own, "written": at, **said}),
        )
        for number, (at, said) in enumerate(parts)
    ]


def started_by(
    schedule: Schedule, first: datetime | str, count: int, every: timedelta = DAY, **how: Any
) -> Runs:
    """Return runs at equal distances that a schedule started; `how` is of `attempt`."""
    starts = [tokyo(first) + number * every for number in range(count)]
    return [attempt(start, schedule=schedule, slot=start, **how) for start in starts]


def shards(slot: datetime, *ends: Mapping[str, str] | None, minutes: float | None = 10) -> Runs:
    """Return shards of a group of four, each with its jobs."""
    return [
        attempt(
            slot + timedelta(seconds=shard),
            jobs,
            batch=Id.of_shard("main", f"job-{slot:%d}", shard, 4),
            schedule=nightly("0 2 * * *"),
            minutes=minutes,
        )
        for shard, jobs in enumerate(ends)
    ]


def history(now: datetime, *attempts: list[Arrived], since: datetime | None = None) -> History:
    """Return what home knows at a moment, having looked into every log then."""
    logs: dict[Id, list[Arrived]] = {}
    for one in (each for entries in attempts for each in entries if each.at <= now):
        logs.setdefault(one.key.batch, []).append(one)
    looked = (
        now + CLOCKS
    )  # so that what is lost is lost at its deadline, and not five minutes later
    batches: list[Batch] = [batch_of(fold(batch, log), looked) for batch, log in logs.items()]
    return history_of(batches, since)
