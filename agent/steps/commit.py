"""From files in the bucket to a run that exists: reconcile, seal, commit, in this order.

Everything here can be killed and begun again, by the same run or by a later one, any number of times.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from agent.core.datapackage import Sealed, index_entry, render, with_contents
from agent.core.errors import StoreError
from agent.core.layout import LOG, MANIFEST, evidence_path, index_key, manifest_key, run_prefix
from agent.core.manifest import ManifestRef
from agent.core.results import JobStatus, RefusedFile
from agent.steps import seal
from agent.steps.courier import Courier, Parcel, parcels_of
from agent.steps.durable import write_atomic
from agent.steps.logs import Log
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
    """Send everything the run's jobs left: results, evidence, memories.

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
        files = parcels_of(result.name, root, found.files)
        await courier.send(files, marks=found.files)
        parcels += files
        for file in files:
            if reason := courier.unreadable.get(file.path):
                found.refuse(file.name, reason)
        if result.status is not JobStatus.SUCCEEDED:
            evidence = list(_evidence(run, result.name, root))
            await courier.send(evidence, marks={})
            parcels += evidence
    return parcels, contents


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


async def reconcile(
    run: SpooledRun, courier: Courier, parcels: list[Parcel], bucket: Bucket
) -> None:
    """Make the bucket hold what the manifest will say, and nothing else of this run.

    An answer of 200 is not proof that a store has kept a file, so its own listing is asked. What differs is sent once
    more; what no longer belongs (a failed attempt's early uploads, a file that its job removed) is deleted.

    Raises:
        StoreError: The bucket still differs.
    """
    for attempt in ("first", "second"):
        wrong = await _differences(run, courier.sealed(parcels), bucket)
        if not wrong:
            return
        if attempt == "second":
            more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
            raise _not_held(f"{min(wrong)}{more}")
        for path in wrong:
            courier.forget(path)
        await courier.send([parcel for parcel in parcels if parcel.path in wrong], marks={})


async def _differences(run: SpooledRun, files: list[Sealed], bucket: Bucket) -> set[str]:
    """Delete what does not belong to a run, and return the paths of what is missing or has another size."""
    prefix = run_prefix(run.run_id)
    wanted = {file.path: file.bytes for file in files}
    surplus = []
    async for item in bucket.list(prefix):
        path = item.key.removeprefix(prefix)
        if wanted.get(path) == item.bytes:
            del wanted[path]
        elif path not in wanted and path != MANIFEST:
            surplus.append(item.key)
    await bucket.delete(surplus)
    return set(wanted)


async def save_states(run: SpooledRun, bucket: Bucket) -> None:
    """Put the jobs' memories into the bucket; only a committed run's are ever restored.

    Raises:
        StoreError: The bucket failed, or twice did not hold what it accepted.
    """
    for key, path in run.states().items():
        if not path.exists():
            continue
        data = await asyncio.to_thread(path.read_bytes)
        for _ in ("first", "second"):
            await bucket.put(key, data)
            if await bucket.size(key) == len(data):
                break
        else:
            raise _not_held(key)


async def hand_over(run: SpooledRun, courier: Courier, bucket: Bucket, log: Log) -> None:
    """Send what is left and seal the manifest; afterwards only the commit is missing.

    Raises:
        StoreError: The bucket failed; the spool has everything.
    """
    if run.journal.sealed:
        return
    parcels, contents = await send_results(run, courier)
    await save_states(run, bucket)
    files = sum(len(found.files) for found in contents.values())
    log.info("handoff.sent", files=files)
    # The log ends here: the manifest must hold the hash of all of it.
    log_parcel = Parcel(run.root, run.log.name, LOG)
    await courier.send([log_parcel], marks={})
    parcels.append(log_parcel)
    await reconcile(run, courier, parcels, bucket)
    await asyncio.to_thread(seal_manifest, run, courier.sealed(parcels), contents)


def seal_manifest(run: SpooledRun, files: list[Sealed], contents: dict[str, Contents]) -> None:
    """Write the manifest and its index entry into the spool; from then on they do not change."""
    partial = {job.name for job in run.journal.run.jobs if job.status is not JobStatus.SUCCEEDED}
    rows = [
        Sealed(file.path, file.bytes, file.sha256, file.job, file.job in partial) for file in files
    ]
    refused = {name: _refused(found) for name, found in contents.items()}
    record = with_contents(run.journal.run, rows, refused)
    write_atomic(run.manifest, render(record, rows))
    digest, size = hashlib.sha256(), 0
    with run.manifest.open("rb") as stream:
        while chunk := stream.read(1024**2):
            digest.update(chunk)
            size += len(chunk)
    reference = ManifestRef(key=manifest_key(run.run_id), bytes=size, sha256=digest.hexdigest())
    entry = index_entry(record, rows, reference)
    write_atomic(run.index, entry.model_dump_json(indent=1).encode())
    run.save(run.journal.model_copy(update={"run": record, "sealed": True}))


def _refused(found: Contents) -> tuple[RefusedFile, ...]:
    if not found.more_refused:
        return tuple(found.refused)
    return (
        *found.refused,
        RefusedFile(path="...", reason=f"and {found.more_refused} more entries"),
    )


async def commit(run: SpooledRun, bucket: Bucket, now: datetime) -> str:
    """Put the sealed manifest, then the index entry; after that the run exists.

    Args:
        run: A sealed run.
        bucket: The bucket.
        now: The commit's time, which its key carries.

    Returns:
        The key of the index entry.

    Raises:
        StoreConflict: Another writer has handed over this run.
        StoreError: The bucket failed; a later call goes on from here.
    """
    await _put_once(
        bucket, manifest_key(run.run_id), await asyncio.to_thread(run.manifest.read_bytes)
    )
    entry = run.index.read_bytes()
    for key in run.journal.index_keys:
        if await bucket.get(key) == entry:
            return key
    # A new key each time: an entry that appeared under an old stamp would be missed by readers past it.
    key = index_key(run.run_id, now)
    keys = (*run.journal.index_keys, key)
    run.save(run.journal.model_copy(update={"index_keys": keys}))
    await _put_once(bucket, key, entry)
    return key


async def _put_once(bucket: Bucket, key: str, data: bytes) -> None:
    """Put what is written once, and look whether it is there: an answer of 200 is not proof.

    Raises:
        StoreConflict: There is something else.
        StoreError: The bucket failed, or does not hold what it accepted.
    """
    await bucket.create(key, data)
    if not await bucket.holds(key, data):
        await bucket.delete([key])  # ours, and of no use; it would look like another writer's
        raise _not_held(key)


def _not_held(what: str) -> StoreError:
    return StoreError(
        f"the bucket accepted {what} and does not hold it as it was sent",
        remedy="check the bucket's health and lifecycle rules; the run stays in the spool",
    )
