"""Logs to decide about, in few words."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from agent.batch.fold import Arrived
from agent.contract.entries import Began, Closed, Ended, Entry, Object, Planned, StoodBack
from agent.contract.facts import Host
from agent.contract.ids import Batch, run_id
from agent.contract.layout import EntryKey, JobKey
from agent.contract.results import JobCause, JobStatus, RunStatus
from tests.batch.world import BEGINNING

SLOT = Batch.of_slot("main", BEGINNING)
HOUR = timedelta(hours=1)


def at(seconds: float) -> datetime:
    """Return a moment of the store's time."""
    return BEGINNING + timedelta(seconds=seconds)


def run_of(name: str, seconds: float = 0.0) -> str:
    """Return the id of a run."""
    return run_id(at(seconds), hashlib.sha256(name.encode()).digest())


A, B, C = run_of("a"), run_of("b", 1), run_of("c", 2)


def arrived(run: str, seconds: float, number: int = 0, nonce: str = "", **parts: Any) -> Arrived:
    """Return an entry that arrived; its parts are those of `Entry`."""
    process = (nonce or run[-6:]).ljust(8, "0")
    key = EntryKey(parts.pop("batch", SLOT), run, process, number)
    entry = Entry(
        schedule=key.batch.schedule,
        batch=key.batch.name,
        run=run,
        nonce=process,
        written=at(parts.pop("written", seconds)),
        **parts,
    )
    return Arrived(key, at(seconds), entry)


def began(
    seconds: float = 0.0, *, instance: str | None = None, boot: str | None = None, **more: Any
) -> Began:
    """Return a beginning with an hour to its deadline."""
    values: dict[str, Any] = {
        "started": at(seconds),
        "deadline": at(seconds) + HOUR,
        "host": Host(name="host", instance_id=instance, boot_id=boot),
        "agent": "1",
        "channel": "main",
    }
    return Began(**values | more)


def planned(*jobs: str) -> Planned:
    """Return a plan."""
    return Planned(count=len(jobs), jobs=jobs)


def job(run: str, name: str, status: JobStatus = JobStatus.SUCCEEDED) -> Ended:
    """Return a job that ended."""
    package = Object(key=JobKey(run, name).text, bytes=1, sha256="0" * 64)
    cause = None if status is JobStatus.SUCCEEDED else JobCause.ERROR
    return Ended(name=name, status=status, cause=cause, package=package)


def jobs(
    run: str, names: Sequence[str], status: JobStatus = JobStatus.SUCCEEDED
) -> tuple[Ended, ...]:
    """Return jobs that ended."""
    return tuple(job(run, name, status) for name in names)


def closed(status: RunStatus | str = RunStatus.SUCCEEDED, **more: Any) -> Closed:
    """Return an end."""
    return Closed(status=RunStatus(status), finished=BEGINNING, **more)


STOOD_BACK = StoodBack(reason="another works", run=A)
