"""Finishes runs that an earlier process left on a kept disk: commits their jobs, under the old ids, and closes them."""

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic

from agent.base.disk import whole_disk
from agent.base.errors import MayflyError, StoreError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.batch.log import LogWriter
from agent.bucket.store import Bucket
from agent.contract.entries import Began, Ended
from agent.contract.ids import Batch, process_nonce
from agent.contract.manifest import RunRecord
from agent.delivery.delivery import Delivery
from agent.delivery.scan import is_shortage
from agent.delivery.sealing import DIED, after_death, with_end
from agent.delivery.spool import Finished, Spool, SpooledRun, Stage

FLUSH_SECONDS = 600.0
"""For the jobs of one run; what takes longer goes on in the next run."""

_FAILURES = (MayflyError, OSError, ValueError, LookupError, RecursionError, ExceptionGroup)
"""What an unfinished run raises: `MayflyError` when the bucket fails, others when it is damaged or the disk fails."""


async def deliver_pending(
    spool: Spool,
    runs: Sequence[SpooledRun],
    bucket: "asyncio.Future[Bucket]",
    *,
    finder: str,
    concurrency: int,
    redactor: Callable[[], Redactor | None],
    log: Log,
) -> int:
    """Commit and close every pending run, the oldest first. Their programs must have been ended before.

    Args:
        spool: The spool.
        runs: Its pending runs.
        bucket: Raises StoreError when there is none.
        finder: Id of the run that does this.
        concurrency: Requests at once.
        redactor: Returns what hides secrets in logs and evidence; None when they are not known.
        log: Bound to the finder.

    Returns:
        How many were closed. What the bucket refuses of one run waits for the next process, what another bucket has
        begun to take waits for that one, and a damaged run is put aside; the others are finished, unless the bucket
        does not answer, or the disk takes nothing.
    """
    done = 0
    for number, run in enumerate(runs):
        bound = log.bind(of=run.run)
        delivery = Delivery(run, bucket, concurrency=concurrency, redactor=redactor, log=bound)
        since = monotonic()
        try:
            opened = await asyncio.shield(bucket)
            since = monotonic()
            if run.bucket not in (None, opened.identity) and not _is_done(run):
                spool.leave(run, opened.identity, log)
                continue
            await _finish(run, delivery, opened, finder, bound)
        except _FAILURES as error:
            full = whole_disk(error)
            if not (full or isinstance(error, MayflyError) or is_shortage(error)):
                spool.put_aside(run, f"{type(error).__name__}: {error}", log)
                continue
            bound.warning("recovery.postponed", reason=str(error))
            if full or monotonic() - since >= FLUSH_SECONDS:
                # The bucket does not answer, or is slow: the others would wait for it as long.
                log.warning("recovery.left", waiting=len(runs) - number - 1)
                break
        else:
            done += 1
    return done


async def _finish(
    run: SpooledRun, delivery: Delivery, bucket: Bucket, finder: str, log: Log
) -> None:
    """Commit the jobs that had ended, and as interrupted those that ran; close the run and remove it."""
    batch, began = run.batch, run.began
    if batch is not None and began is not None and not _is_done(run):
        async with delivery:
            await asyncio.to_thread(_end_what_ran, run, began)
            nonce = process_nonce(os.urandom(4))
            writer = LogWriter(bucket, batch, run.run, nonce, now=lambda: datetime.now(UTC))
            await delivery.goes_on(writer, began, run.planned)
            pending = await delivery.flush(FLUSH_SECONDS)
            for name, error in delivery.broken.items():
                raise ValueError(f"job {name}: {error}")
            if pending:
                raise StoreError(
                    f"{len(pending)} jobs could not be committed, such as {pending[0]}"
                )
            record = _record(run, batch, began, await delivery.results())
            closed = await delivery.close(record, [], keeps_disk=True, recovered_by=finder)
        log.info("recovery.closed", status=closed.status.value)
    elif batch is None and (run.started_jobs() or run.jobs()):
        raise ValueError("jobs of it ran, and it does not say for which batch")
    await asyncio.to_thread(run.discard, log)


def _is_done(run: SpooledRun) -> bool:
    """Tell whether only the removal of a run is missing."""
    closing = run.closing
    committed = all(job.stage is Stage.COMMITTED for job in run.jobs())
    return closing is not None and closing.put and committed


def _end_what_ran(run: SpooledRun, began: Began) -> None:
    ended = {job.name for job in run.jobs()}
    for name in sorted(run.started_jobs() - ended):
        job = after_death(run.run, name, _last_sign(run, began))
        run.end(Finished(job=job), held=False)


def _record(run: SpooledRun, batch: Batch, began: Began, ended: Sequence[Ended]) -> RunRecord:
    """Return the record of a run that another process closes.

    It does not depend on that process: where a disk was copied, two of them put the same manifest.
    """
    known = run.record
    if known is not None and run.concluded:
        return known
    planned = run.planned
    missing = planned is None or planned.count > len(ended)
    known = known or RunRecord.begun(run.run, batch, began)
    changes = {
        "schedule": batch.schedule,
        "batch": batch.name,
        "slot": began.slot,
        "release": known.release or (planned and planned.release),
        "finished": _last_sign(run, began),
    }
    return with_end(known.model_copy(update=changes), ended, DIED, missing=missing)


def _last_sign(run: SpooledRun, began: Began) -> datetime:
    """Return when a dead run last wrote its log."""
    stamp = run.log.stat().st_mtime if run.log.exists() else 0.0
    return max(datetime.fromtimestamp(stamp, UTC), began.started)
