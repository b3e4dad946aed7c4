"""The delivery of one run: what a run, and a later one that finishes it, uses of this package."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Self

from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.batch.log import LogWriter
from agent.bucket.store import Bucket
from agent.contract.entries import Began, Closed, Ended, Object, Planned
from agent.contract.ids import Batch
from agent.contract.layout import ManifestKey
from agent.contract.manifest import RunRecord, seal_manifest
from agent.delivery.committer import Committer
from agent.delivery.database import fenced
from agent.delivery.logparts import LogParts
from agent.delivery.prepare import Preparer, put_document, put_surely
from agent.delivery.sealing import closed_of, without_package
from agent.delivery.spool import Closing, Finished, SpooledRun
from agent.delivery.uploader import Uploader

MANIFEST = ""
"""Name of the manifest among the documents of a run's database; no job is called so."""


class Delivery:
    """Delivers one run, as a context manager: leaving it cancels what is still under way.

    Every method raises `OSError` when the disk refuses.
    """

    def __init__(
        self,
        run: SpooledRun,
        bucket: "asyncio.Future[Bucket]",
        *,
        concurrency: int,
        redactor: Callable[[], Redactor | None],
        log: Log,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Make a delivery.

        Args:
            run: The run in the spool.
            bucket: Awaited before each use; may raise StoreError each time.
            concurrency: Requests at once.
            redactor: Returns what hides secrets in logs and evidence; None when they are not known.
            log: Bound to the run.
            progress: Called with the bytes of each file that was sent.
        """
        self._run = run
        self._bucket = bucket
        self._uploader = Uploader(
            run.run,
            run.sent,
            bucket,
            concurrency=concurrency,
            redactor=redactor,
            log=log,
            progress=progress,
        )
        self._preparer = Preparer(run, self._uploader, bucket, log)
        self._parts = LogParts(run, bucket, log)
        self._committer = Committer(run, self._preparer, self._parts, bucket=bucket, log=log)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._start(self._committer.keep_committing())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """Cancel what is still under way, and close the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._committer.cancel()
        # In a thread: it waits for transactions of threads that nobody else waits for.
        await asyncio.to_thread(self._run.database.close)

    async def begin(self, writer: LogWriter, batch: Batch, began: Began) -> None:
        """Announce the run through the one log writer that this process has for it.

        From now on parts of its log are put, as signs of life.

        Raises:
            StoreError: The bucket failed; the beginning waits in the writer, and everything else behind it.
        """
        self._start(self._parts.keep_putting())
        # It goes on when the caller's time is over: without a beginning nothing of the run could be committed.
        await asyncio.shield(self._start(self._committer.begin(writer, batch, began)))

    async def goes_on(self, writer: LogWriter, began: Began, planned: Planned | None) -> None:
        """Continue a run of an earlier process: the first entry of this process repeats its beginning and its plan."""
        self._committer.goes_on(writer, began, planned)
        await self._committer.release()

    async def plan(self, planned: Planned) -> None:
        """Announce which jobs the run is going to do; a later plan replaces an earlier one."""
        await self._committer.plan(planned)

    def watch(self, job: str, output: Path) -> AbstractAsyncContextManager[None]:
        """Send what settles in a running job's output while the block runs."""
        return self._uploader.watch(job, output)

    async def waiting_bytes(self, jobs: list[str]) -> int:
        """Return the bytes of jobs, ended or running, that are not in the bucket yet."""
        return sum([await self._preparer.waiting_bytes(job) for job in jobs])

    async def ended(self, finished: Finished, *, hold: bool = False) -> None:
        """Accept a job that ended, or the rerun of a job that is held.

        Args:
            finished: The job.
            hold: Whether a release on trial may be to blame: the job waits for `release`, or for the run's end.
        """
        await self._committer.ended(finished, hold=hold)

    async def release(self) -> None:
        """Commit what was held."""
        await self._committer.release()

    async def flush(
        self, seconds: float, *, hurried: bool = False, keeps_disk: bool = True
    ) -> list[str]:
        """Commit everything that ended, as far as the time allows, and return the jobs for which it did not.

        Args:
            seconds: The time.
            hurried: Whether the time may be too short, as on a machine that is taken back.
            keeps_disk: Whether a later run can send the rest.
        """
        return await self._committer.flush(seconds, hurried=hurried, keeps_disk=keeps_disk)

    @property
    def broken(self) -> Mapping[str, Exception]:
        """The unexpected exception of each job that is damaged or met a defect."""
        return self._committer.broken

    @property
    def trouble(self) -> str:
        """The last error that was not overcome yet, with a remedy if there is one; empty without one."""
        return self._committer.trouble

    async def results(self) -> list[Ended]:
        """Return the entries of the jobs that ended, whether they are committed yet or not."""
        jobs = await asyncio.to_thread(self._run.jobs)
        return [job.entry or without_package(job.finished.job) for job in jobs]

    async def close(
        self,
        record: RunRecord,
        pending: Sequence[str],
        *,
        keeps_disk: bool,
        recovered_by: str | None = None,
    ) -> Closed:
        """Close the run: put the rest of its log, its manifest, and the entry that ends it; return what that says.

        After a kill at any point it begins again, and puts what was sealed as it was sealed.

        Args:
            record: What its manifest says, without secrets.
            pending: Jobs that ended and are in no entry: the manifest does not name them.
            keeps_disk: Whether a later run commits them; else they are lost, and counted.
            recovered_by: The later run that closes it.

        Raises:
            StoreError: The bucket failed; the spool has everything.
        """
        run = self._run
        closing = await asyncio.to_thread(lambda: run.closing)
        if closing is None:
            if not keeps_disk:
                record = record.model_copy(update={"not_sent": len(pending)})
            await asyncio.to_thread(lambda: run.save(record, concluded=True))
            # The log ends here: the manifest names all of it.
            parts = await self._parts.put_last()
            manifest = await fenced(self._seal_manifest, record, pending, parts)
            follow = pending if keeps_disk else ()
            closing = Closing(closed=closed_of(record, manifest, follow, recovered_by))
            await asyncio.to_thread(run.seal_end, closing)
        if closing.put:
            await self._committer.prove()  # jobs that followed
            return closing.closed
        if closing.closed.manifest is not None:
            await self._put_manifest(closing.closed.manifest)
        await self._committer.commit(closed=closing.closed)
        await asyncio.to_thread(run.seal_end, closing.model_copy(update={"put": True}))
        return closing.closed

    def _seal_manifest(
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

    async def _put_manifest(self, manifest: Object) -> None:
        bucket = await asyncio.shield(self._bucket)
        put = partial(put_document, bucket, manifest, self._run.database, MANIFEST)
        await put_surely(bucket, manifest.key, manifest.bytes, put)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task
