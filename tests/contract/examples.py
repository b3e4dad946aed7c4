"""Examples of what the contract's documents hold."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.contract.entries import Began, Closed, Ended, Entry, Object, Output, Planned
from agent.contract.facts import Cost, Host, Phase, Release, Schedule
from agent.contract.ids import Batch
from agent.contract.layout import EntryKey, JobKey, LogKey, ManifestKey, StateKey
from agent.contract.results import JobCause, JobStatus, RunStatus

RUN = "20261122T180003Z-3f9a1c"
NONCE = "00c0ffee"
STARTED = datetime(2026, 11, 22, 18, 0, 3, tzinfo=UTC)
BATCH = Batch.of_slot("nightly", STARTED.replace(second=0))
KEY = EntryKey(BATCH, RUN, NONCE, 0)
RELEASE = Release(
    repository="git@example.org:me/scrapers.git", ref="v1.2", commit="c" * 40, fetched=STARTED
)


def an_object(key: str, data: bytes = b"x") -> Object:
    """Return what an entry says of an object."""
    return Object(key=key, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def began(**changes: Any) -> Began:
    """Return a beginning."""
    values: dict[str, Any] = {
        "started": STARTED,
        "deadline": STARTED + timedelta(hours=2),
        "host": Host(name="ip-10-0-0-1", instance_id="i-0123456789abcdef0", boot_id="b1"),
        "agent": "0.2.0",
        "channel": "v*",
        "slot": BATCH.slot,
        "schedule": Schedule(
            expression="cron(0 3 * * ? *)", timezone="Asia/Tokyo", grace_seconds=3600
        ),
    }
    return Began(**values | changes)


def ended(name: str = "quotes", status: JobStatus = JobStatus.SUCCEEDED, **changes: Any) -> Ended:
    """Return a job that ended, with its package."""
    values: dict[str, Any] = {
        "name": name,
        "status": status,
        "cause": None if status is JobStatus.SUCCEEDED else JobCause.ERROR,
        "files": 2,
        "bytes": 12,
        "items": 7,
        "seconds": 3.5,
        "attempts": 1,
        "package": an_object(JobKey(RUN, name).text),
        "state": an_object(StateKey(name, RUN).text),
        "outputs": (Output(files=2, items=7),),
    }
    return Ended(**values | changes)


def closed(status: RunStatus = RunStatus.SUCCEEDED, **changes: Any) -> Closed:
    """Return an end."""
    values: dict[str, Any] = {
        "status": status,
        "finished": STARTED + timedelta(minutes=3),
        "manifest": an_object(ManifestKey(RUN).text),
        "phases": (Phase(name="jobs", started=STARTED, seconds=12.0),),
        "cost": Cost(
            total_usd=0.002,
            billed_seconds=200,
            market="spot",
            rate_usd_hour=0.02,
            rate_source="spot-history",
            instance_usd=0.002,
        ),
    }
    return Closed(**values | changes)


def entry(**parts: Any) -> Entry:
    """Return an entry with the given parts."""
    own: dict[str, Any] = {
        "schedule": BATCH.schedule,
        "batch": BATCH.name,
        "run": RUN,
        "nonce": NONCE,
        "written": STARTED,
    }
    return Entry(**own | parts)


def full_entry() -> Entry:
    """Return an entry with all parts that can stand together."""
    return entry(
        began=began(),
        planned=Planned(release=RELEASE, count=2, jobs=("quotes", "notes")),
        jobs=(ended(), ended("notes", JobStatus.FAILED)),
        log=(an_object(LogKey(RUN, 0).text),),
        closed=closed(RunStatus.PARTIAL),
    )
