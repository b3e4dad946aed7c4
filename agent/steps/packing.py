"""What a run's jobs left, as parcels: their results, what explains a failure, their memories."""

import asyncio
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

from agent.base.errors import StoreError
from agent.bucket.store import Bucket
from agent.contract.names import bucket_path
from agent.core.layout import captured_path, evidence_path
from agent.core.results import JobResult, JobStatus
from agent.steps import seal
from agent.steps.courier import Courier, parcels_of
from agent.steps.receipts import Parcel
from agent.steps.seal import Seen
from agent.steps.spool import SpooledRun

EVIDENCE = ".evidence"
"""Folder in a job's output for what explains a failure; hidden, so never a result."""
MAX_EVIDENCE = 30
MAX_EVIDENCE_BYTES = 20 * 1024**2


async def send_results(run: SpooledRun, courier: Courier) -> dict[str, Seen]:
    """Send everything the run's jobs left, results and evidence, to be named by the manifest.

    Returns:
        What each job's output holds.

    Raises:
        StoreError: Something could not be sent.
    """
    contents: dict[str, Seen] = {}
    await courier.send(left_by_jobs(run, contents), expected=True)
    refuse_unreadable(contents, courier)
    return contents


def left_by_jobs(run: SpooledRun, contents: dict[str, Seen]) -> Iterator[list[Parcel]]:
    """Yield everything that the run's jobs left, some at a time, and note in `contents` what each output holds."""
    for result in run.journal.run.jobs:
        root = run.output(result.name)
        if root is not None:
            yield from results_of(run, result.name, root, contents.setdefault(result.name, Seen()))
            yield evidence_of(run, result, root)


def results_of(run: SpooledRun, job: str, root: Path, seen: Seen) -> Iterator[list[Parcel]]:
    """Yield a job's results, some at a time; of a follow-up, those that are late."""
    late = _late(run)
    for some in parcels_of(job, root, seen):
        yield _due(late, some)


def evidence_of(run: SpooledRun, result: JobResult, root: Path) -> list[Parcel]:
    """Return what explains that a job did not succeed."""
    if result.status is JobStatus.SUCCEEDED:
        return []
    return _due(_late(run), list(_evidence(run, result.name, root)))


def refuse_unreadable(contents: Mapping[str, Seen], courier: Courier) -> None:
    """Note which results the courier could not read."""
    for parcel, reason in courier.unreadable.items():
        if not parcel.evidence and parcel.job in contents:
            contents[parcel.job].refuse(parcel.name, reason)


def _late(run: SpooledRun) -> frozenset[str] | None:
    return None if run.journal.late is None else frozenset(run.journal.late)


def _due(late: frozenset[str] | None, parcels: list[Parcel]) -> list[Parcel]:
    return parcels if late is None else [parcel for parcel in parcels if parcel.path in late]


def _evidence(run: SpooledRun, job: str, root: Path) -> Iterator[Parcel]:
    """Yield what explains a failure: what the job wrote, and what its kit put aside."""
    for number, space in enumerate(run.workspaces(job), 1):
        if space.captured.exists():
            path = captured_path(job, number)
            yield Parcel(space.root, space.captured.name, path, job, evidence=True)
    size = 0
    kept = chain.from_iterable(seal.walk(root / EVIDENCE, Seen()))
    for name, mark in islice(kept, MAX_EVIDENCE):
        size += mark.size
        if size <= MAX_EVIDENCE_BYTES:
            path = evidence_path(job, bucket_path(name))
            yield Parcel(root, f"{EVIDENCE}/{name}", path, job, evidence=True)


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
