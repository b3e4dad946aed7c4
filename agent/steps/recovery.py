"""Runs that an earlier process left in the spool: what still runs of them ends, what they finished is handed over."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from agent.base import processes
from agent.base.disk import whole_disk
from agent.base.errors import MayflyError, StoreConflict
from agent.base.logs import Log
from agent.base.progress import NullProgress
from agent.base.redact import Redactor
from agent.browser import remove_leftovers
from agent.bucket.store import Bucket
from agent.core.journal import after_death
from agent.core.manifest import IndexEntry
from agent.jobs.containers import remove_stacks
from agent.jobs.isolation.unit import end_units
from agent.steps.commit import commit, hand_over
from agent.steps.courier import Courier
from agent.steps.spool import Spool, SpooledRun

_DAMAGE = (OSError, ValueError, LookupError, RecursionError, ExceptionGroup)
"""What reading a damaged run raises; what the bucket's client raises has become a StoreError."""


async def end_leftovers(runs: Sequence[SpooledRun], environ: Mapping[str, str], log: Log) -> None:
    """End what still runs of runs whose agent is dead: it would write into what is handed over."""
    ids = [run.run_id for run in runs]
    await remove_leftovers(ids, environ=environ, log=log)
    await end_units(ids, environ, log)
    stacks = await remove_stacks(ids, environ, log)
    if stacks:
        log.warning("recovery.removed_stacks", stacks=stacks)
    for run in runs:
        killed = await processes.kill_marked(f"MAYFLY_RUN_ID={run.run_id}")
        if killed:
            log.warning("recovery.killed_leftovers", of=run.run_id, processes=killed)


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
    """Hand over every run that waits, oldest first, each under its own id.

    Args:
        spool: The spool.
        runs: Its pending runs.
        bucket: Raises StoreError when there is none.
        finder: Id of the run that does this.
        concurrency: Requests at once.
        redactor: Returns what hides secrets in evidence; None when they are not known.
        log: Bound to the finder.

    Returns:
        How many were committed. After the first that the bucket fails, the others wait for the next run; one that is
        damaged is put aside, and they do not wait for it.

    Raises:
        OSError: The disk takes nothing.
    """

    def courier_of(run: SpooledRun) -> Courier:
        return Courier(
            run,
            bucket,
            concurrency=concurrency,
            redactor=redactor,
            log=log.bind(of=run.run_id),
            progress=NullProgress(),
        )

    delivered = 0
    for run in runs:
        bound = log.bind(of=run.run_id)
        try:
            while not await _deliver(
                run, courier_of(run), await asyncio.shield(bucket), finder, bound
            ):
                bound.info("recovery.continues", with_run=run.run_id)
        except StoreConflict as error:
            # Another machine has handed over this id; what we hold is for a person to compare.
            _put_aside(run, f"another machine has handed it over: {error}", spool, log)
        except MayflyError as error:
            bound.warning("recovery.postponed", reason=str(error), waiting=len(runs) - delivered)
            return delivered
        except _DAMAGE as error:
            if whole_disk(error):
                raise
            _put_aside(run, f"{type(error).__name__}: {error}", spool, log)
        else:
            delivered += 1
    return delivered


def _put_aside(run: SpooledRun, reason: str, spool: Spool, log: Log) -> None:
    run.receipts.close()
    spool.put_aside(run.root, reason, log)


async def _deliver(
    run: SpooledRun, courier: Courier, bucket: Bucket, finder: str, log: Log
) -> bool:
    """Hand over a run, and tell whether that was all: False when it has become its follow-up."""
    if run.journal.sealed:
        await asyncio.to_thread(_look_at_seal, run)
    else:
        run.save(after_death(run.journal, run.started_jobs(), finder, _last_sign(run)))
    await hand_over(run, courier, bucket, log)
    key = await commit(run, bucket, datetime.now(UTC))
    log.info("recovery.committed", status=run.journal.run.status.value, index=key)
    return await asyncio.to_thread(leave_spool, run, log)


def _look_at_seal(run: SpooledRun) -> None:
    """Look whether a sealed run still has the manifest that its index entry commits.

    Raises:
        ValueError: One of the two is damaged.
        OSError: One of the two cannot be read.
    """
    entry = IndexEntry.model_validate_json(run.index.read_bytes())
    with run.manifest.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != entry.manifest.sha256:
        raise ValueError(f"{run.manifest.name} is not what {run.index.name} commits")


def leave_spool(run: SpooledRun, log: Log, *, remove: bool = True) -> bool:
    """Take a committed run out of the spool; False when its follow-up has taken its place.

    Args:
        run: The run.
        log: Where to tell of what cannot be removed.
        remove: Whether its files are removed now; else the next run does so beside its jobs.

    Raises:
        OSError: The disk refused; the next run finds the run committed, and tries again.
    """
    follow_up = run.journal.continued()
    if follow_up is None:
        run.discard(log, remove=remove)
        return True
    line = {
        "event": "run.continued",
        "level": "info",
        "timestamp": datetime.now(UTC).isoformat(),
        "run_id": follow_up.run.run_id,
        "continues": run.run_id,
        "files": len(follow_up.late or ()),
    }
    run.become(follow_up, f"{json.dumps(line)}\n".encode())
    return False


def _last_sign(run: SpooledRun) -> datetime:
    """Return when the dead run last wrote its log or its journal."""
    paths = (run.log, run.root / "run.json")
    stamps = [path.stat().st_mtime for path in paths if path.exists()]
    return datetime.fromtimestamp(max(stamps, default=0.0), UTC)
