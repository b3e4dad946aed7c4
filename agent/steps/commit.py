"""From files in the bucket to a run that exists: reconcile, seal, commit, in this order.

Everything here can be killed and begun again, by the same run or by a later one, any number of times.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import chain

from agent.base.durable import mapped, write_atomic
from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.base.stop import Stop, first
from agent.bucket.store import Bucket, ObjectInfo
from agent.core.datapackage import Sealed, index_entry, render, with_contents
from agent.core.layout import LOG, MANIFEST, index_key, manifest_key, run_prefix
from agent.core.manifest import ManifestRef
from agent.core.refusals import with_refusals
from agent.core.results import JobStatus
from agent.steps.courier import Courier
from agent.steps.hurry import EARLIER_SECONDS, Handed, send_in_time
from agent.steps.once import committed_as, leave_one, put_once
from agent.steps.packing import left_by_jobs, not_held, save_states, send_results
from agent.steps.receipts import Parcel
from agent.steps.shards import take_place
from agent.steps.spool import SpooledRun

PAGE = 1000
"""Objects of a listing that are compared at once."""


async def reconcile(run: SpooledRun, courier: Courier, bucket: Bucket) -> None:
    """Make the bucket hold what the manifest will say, and nothing else of this run.

    An answer of 200 is not proof that a store has kept a file, so its own listing is asked. What differs is sent once
    more; what no longer belongs (a failed attempt's early uploads, a file that its job removed) is deleted.

    Raises:
        StoreError: The bucket still differs.
    """
    for attempt in ("first", "second"):
        wrong = await _differences(run, bucket)
        if not wrong:
            return
        if attempt == "second":
            more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
            raise not_held(f"{min(wrong)}{more}")
        run.receipts.forget(wrong)
        everything = chain([[_log_of(run)]], left_by_jobs(run, {}))
        await courier.send([file for file in some if file.path in wrong] for some in everything)


async def _differences(run: SpooledRun, bucket: Bucket) -> set[str]:
    """Delete what does not belong to a run, and return the paths of what is missing or has another size."""
    prefix = run_prefix(run.run_id)
    run.receipts.hold_nothing()
    async for page in _pages(bucket.list(prefix)):
        listed = [(item.key.removeprefix(prefix), item.bytes) for item in page]
        surplus = await asyncio.to_thread(run.receipts.hold, listed)
        await bucket.delete([prefix + path for path in surplus if path != MANIFEST])
    return set(await asyncio.to_thread(run.receipts.missing))


async def _pages(items: AsyncIterator[ObjectInfo]) -> AsyncIterator[list[ObjectInfo]]:
    page: list[ObjectInfo] = []
    async for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    yield page


def _log_of(run: SpooledRun) -> Parcel:
    return Parcel(run.root, run.log.name, LOG)


async def hand_over(
    run: SpooledRun, courier: Courier, bucket: Bucket, log: Log, stop: Stop | None = None
) -> None:
    """Send what is left and seal the manifest; afterwards only the commit is missing.

    Args:
        run: The run, concluded.
        courier: Its courier.
        bucket: The bucket.
        log: Bound to the run.
        stop: Tells when the machine is taken back: then what goes in time is sent, and the manifest names the rest.

    Raises:
        StoreError: The bucket failed; the spool has everything.
    """
    if run.journal.sealed:
        return
    handed = await _send(run, courier, bucket, log, stop)
    log.info("handoff.sent", files=sum(seen.files for seen in handed.contents.values()))
    # The log ends here: the manifest must hold the hash of all of it.
    await courier.send([[_log_of(run)]], expected=True)
    await reconcile(run, courier, bucket)
    await asyncio.to_thread(seal_manifest, run, handed)


async def _send(
    run: SpooledRun, courier: Courier, bucket: Bucket, log: Log, stop: Stop | None
) -> Handed:
    """Send results, evidence and memories: everything, or what goes in time."""

    async def everything() -> Handed:
        run.receipts.expect_nothing()
        contents = await send_results(run, courier)
        await save_states(run, bucket)
        return Handed(contents)

    if stop is None:
        return await everything()
    if stop.gone is None:
        whole = asyncio.create_task(everything())
        try:
            await first(asyncio.wait([whole]), stop.taken(), seconds=EARLIER_SECONDS)
            if whole.done():
                return whole.result()
        finally:
            whole.cancel()
            await asyncio.gather(whole, return_exceptions=True)
    if stop.gone is None:
        raise StoreError("the hand-off took longer than any run may")
    return await send_in_time(run, courier, bucket, stop.gone, log)


def seal_manifest(run: SpooledRun, handed: Handed) -> None:
    """Write the manifest and its index entry into the spool; from then on they do not change."""
    own = handed.cut.run if handed.cut else run.journal.run
    partial = {job.name for job in own.jobs if job.status is not JobStatus.SUCCEEDED}

    def files() -> Iterator[Sealed]:
        for file in run.receipts.sealed():
            yield file.of_job(file.job, partial=file.job in partial)

    refused = {name: seen.told() for name, seen in handed.contents.items()}
    record = with_refusals(with_contents(own, files()), refused)
    write_atomic(run.manifest, render(record, files()))
    digest, size = hashlib.sha256(), 0
    with run.manifest.open("rb") as stream:
        while chunk := stream.read(1024**2):
            digest.update(chunk)
            size += len(chunk)
    reference = ManifestRef(key=manifest_key(run.run_id), bytes=size, sha256=digest.hexdigest())
    entry = index_entry(record, files(), reference)
    write_atomic(run.index, entry.model_dump_json(indent=1).encode())
    follow_up = handed.cut.follow_up if handed.cut else None
    sealed = {"run": record, "sealed": True, "follow_up": follow_up}
    run.save(run.journal.model_copy(update=sealed))


async def commit(run: SpooledRun, bucket: Bucket, now: datetime) -> str:
    """Put the sealed manifest, then the index entry; after that the run exists.

    Args:
        run: A sealed run.
        bucket: The bucket.
        now: The commit's time, which its key carries.

    Returns:
        The key of the index entry.

    Raises:
        StoreConflict: Another writer has handed over this run, or, as `ShardTaken`, a run of the same shard.
        StoreError: The bucket failed; a later call goes on from here.
    """
    # After a power cut nothing may be named that is not there, and the spool goes only after the name is durable.
    await bucket.sync()
    key = await _commit(run, bucket, now)
    await bucket.sync()
    return key


async def _commit(run: SpooledRun, bucket: Bucket, now: datetime) -> str:
    entry = run.index.read_bytes()
    manifest = mapped(run.manifest)
    if key := await committed_as(bucket, run.run_id, entry):
        return await leave_one(bucket, run.run_id, key, entry, manifest)
    await put_once(bucket, manifest_key(run.run_id), manifest)
    await take_place(run, bucket)
    # Our own earlier keys by name: a listing from the run's start has none that a clock put before it.
    for key in run.journal.index_keys:
        if await bucket.get(key) == entry:
            return key
    # A new key each time: an entry that appeared under an old stamp would be missed by readers past it.
    key = index_key(run.run_id, now)
    keys = (*run.journal.index_keys, key)
    run.save(run.journal.model_copy(update={"index_keys": keys}))
    await put_once(bucket, key, entry)
    return await leave_one(bucket, run.run_id, key, entry, manifest)
