"""Puts the end of a run: the rest of its log, its manifest, and the entry that closes it."""

import asyncio
from collections.abc import Sequence
from functools import partial

from agent.bucket.store import Bucket
from agent.contract.entries import MOST_PLANNED, Closed, Object
from agent.contract.layout import ManifestKey
from agent.contract.manifest import RunRecord, seal_manifest
from agent.delivery.committer import Committer
from agent.delivery.database import fenced
from agent.delivery.logparts import LogParts
from agent.delivery.prepare import put_document, put_surely
from agent.delivery.spool import Closing, SpooledRun

MANIFEST = ""
"""Name of the manifest among the documents of a run's database; no job is called so."""


class Closer:
    """Closes one run. After a kill at any point it begins again, and puts what was sealed as it was sealed."""

    def __init__(
        self,
        run: SpooledRun,
        committer: Committer,
        parts: LogParts,
        *,
        bucket: "asyncio.Future[Bucket]",
    ) -> None:
        self._run = run
        self._committer = committer
        self._parts = parts
        self._bucket = bucket

    async def close(
        self,
        record: RunRecord,
        pending: Sequence[str],
        *,
        follow: bool,
        recovered_by: str | None = None,
    ) -> Closed:
        """Close the run in the bucket, and return what its entry says.

        Args:
            record: What its manifest says.
            pending: Jobs that ended and are in no entry: the manifest does not name them.
            follow: Whether a later run commits them, from this run's disk.
            recovered_by: The later run that closes this one.

        Raises:
            StoreError: The bucket failed; the spool has everything.
            OSError: The disk refused.
        """
        closing = await asyncio.to_thread(lambda: self._run.closing)
        if closing is None:
            await asyncio.to_thread(lambda: self._run.save(record, concluded=True))
            # The log ends here: the manifest names all of it.
            parts = await self._parts.put_last()
            manifest = await fenced(self._seal, record, pending, parts)
            closed = closed_of(record, manifest, pending if follow else (), recovered_by)
            closing = Closing(closed=closed)
            await asyncio.to_thread(self._run.seal_end, closing)
        if not closing.put:
            await self._put_manifest(closing.closed)
            await self._committer.commit(closed=closing.closed)
            closing = closing.model_copy(update={"put": True})
            await asyncio.to_thread(self._run.seal_end, closing)
        else:
            await self._committer.prove()  # jobs that followed
        return closing.closed

    def _seal(
        self, record: RunRecord, pending: Sequence[str], parts: Sequence[Object]
    ) -> Object | None:
        """Seal the manifest; None where it would name nothing."""
        jobs = [job for job in self._run.jobs() if job.name not in pending]
        packages = [job.entry.package for job in jobs if job.entry and job.entry.package]
        if not packages and not parts:
            return None
        digest = self._run.database.keep(MANIFEST, seal_manifest(record, packages, parts))
        key = ManifestKey(record.run).text
        return Object(key=key, bytes=digest.bytes, sha256=digest.sha256)

    async def _put_manifest(self, closed: Closed) -> None:
        if closed.manifest is not None:
            bucket = await asyncio.shield(self._bucket)
            put = partial(put_document, bucket, closed.manifest, self._run.database, MANIFEST)
            await put_surely(bucket, closed.manifest.key, closed.manifest.bytes, put)


def closed_of(
    record: RunRecord,
    manifest: Object | None,
    pending: Sequence[str],
    recovered_by: str | None = None,
) -> Closed:
    """Return what the batch's log says of a run that closes."""
    return Closed(
        status=record.status,
        finished=record.finished,
        manifest=manifest,
        phases=record.phases,
        cost=record.cost,
        interruption=record.interruption,
        recovered_by=recovered_by,
        pending=tuple(pending)[:MOST_PLANNED],
        not_sent=record.not_sent,
        warnings=record.warnings,
    )
