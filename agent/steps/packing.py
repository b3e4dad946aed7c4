"""What a run's jobs left, as parcels: their results, what explains a failure, their memories."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

from agent.core.errors import StoreError
from agent.core.layout import evidence_path
from agent.core.results import JobResult, JobStatus
from agent.steps import seal
from agent.steps.courier import Courier, Parcel, parcels_of
from agent.steps.seal import Contents
from agent.steps.spool import SpooledRun
from agent.steps.store import Bucket

EVIDENCE = ".evidence"
"""Folder in a job's output for what explains a failure; hidden, so never a result."""
MAX_EVIDENCE = 30
MAX_EVIDENCE_BYTES = 20 * 1024**2


async def send_results(
    run: SpooledRun, courier: Courier
) -> tuple[list[Parcel], dict[str, Contents]]:
    """Send everything the run's jobs left: results and evidence.

    Returns:
        What was sent, in the manifest's order, and what each job's output holds.

    Raises:
        StoreError: Something could not be sent.
    """
    parcels: list[Parcel] = []
    contents: dict[str, Contents] = {}
    for result in run.journal.run.jobs:
        root = run.output(result.name)
        if root is None:
            continue
        found = contents[result.name] = await asyncio.to_thread(seal.look, root)
        files = results_of(run, result.name, root, found)
        await courier.send(files, marks=found.files)
        parcels += files
        refuse_unreadable(found, files, courier)
        evidence = evidence_of(run, result, root)
        await courier.send(evidence, marks={})
        parcels += evidence
    return parcels, contents


def results_of(run: SpooledRun, job: str, root: Path, found: Contents) -> list[Parcel]:
    """Return a job's results; of a follow-up, those that are late."""
    return _due(run, parcels_of(job, root, found.files))


def evidence_of(run: SpooledRun, result: JobResult, root: Path) -> list[Parcel]:
    """Return what explains that a job did not succeed."""
    if result.status is JobStatus.SUCCEEDED:
        return []
    return _due(run, list(_evidence(run, result.name, root)))


def refuse_unreadable(found: Contents, files: list[Parcel], courier: Courier) -> None:
    """Note which of a job's files the courier could not read."""
    for file in files:
        if reason := courier.unreadable.get(file.path):
            found.refuse(file.name, reason)


def _due(run: SpooledRun, parcels: list[Parcel]) -> list[Parcel]:
    late = run.journal.late
    if late is None:
        return parcels
    wanted = frozenset(late)
    return [parcel for parcel in parcels if parcel.path in wanted]


def _evidence(run: SpooledRun, job: str, root: Path) -> Iterator[Parcel]:
    """Yield what explains a failure: what the job wrote, and what its kit put aside."""
    for number, space in enumerate(run.workspaces(job), 1):
        if space.captured.exists():
            name = space.captured.name
            path = evidence_path(job, f"attempt-{number}.log")
            yield Parcel(space.root, name, path, evidence=True)
    size = 0
    kept = seal.look(root / EVIDENCE).files
    for name, mark in sorted(kept.items())[:MAX_EVIDENCE]:
        size += mark.size
        if size <= MAX_EVIDENCE_BYTES:
            yield Parcel(root, f"{EVIDENCE}/{name}", evidence_path(job, name), evidence=True)


async def save_states(run: SpooledRun, bucket: Bucket) -> None:
    """Put the jobs' memories into the bucket; only a committed run's are ever restored.

    Raises:
        StoreError: The bucket failed, or twice did not hold what it accepted.
    """
    for key, path in run.states().items():
        await save_state(bucket, key, path)


async def save_state(bucket: Bucket, key: str, path: Path) -> None:
    """Put one job's memory into the bucket.

    Raises:
        StoreError: The bucket failed, or twice did not hold what it accepted.
    """
    if not path.exists():
        return
    data = await asyncio.to_thread(path.read_bytes)
    for _ in ("first", "second"):
        await bucket.put(key, data)
        if await bucket.size(key) == len(data):
            return
    raise not_held(key)


def not_held(what: str) -> StoreError:
    """Return the error of a bucket that lost what it accepted."""
    return StoreError(
        f"the bucket accepted {what} and does not hold it as it was sent",
        remedy="check the bucket's health and lifecycle rules; the run stays in the spool",
    )
