"""The committer of a run: prepares each job as soon as it ended, and commits what is prepared every few seconds.

What fails is tried again, at growing intervals, as long as the run lasts. Entries that could not be put wait in the
log writer, in their order. A job counts as committed in the spool once its entry was found in the batch's log: the log
is read before the run closes, and after some entries.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from agent.base.disk import disk_refusal
from agent.base.errors import StoreError, StoreRefused
from agent.base.logs import Log
from agent.base.stop import first
from agent.batch.commit import in_entries, next_commit
from agent.batch.log import LogWriter
from agent.bucket.store import Bucket
from agent.contract.entries import Began, Closed, Ended, Object, Planned
from agent.contract.ids import Batch
from agent.delivery.logparts import LogParts
from agent.delivery.prepare import Preparer
from agent.delivery.sealing import rerun
from agent.delivery.spool import Finished, SpooledJob, SpooledRun, Stage

AT_ONCE = 8
"""Jobs that are prepared side by side; their files share the uploader's gates."""
HURRIED_AT_ONCE = 2
PAUSES = (2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
"""Seconds after a failure; the last one again and again."""
DISK_TRIES = 2
"""Retries at the run's end of a job for which the disk fails."""
SHORTEST_PAUSE = 2.0
"""Seconds after a failure at the run's end, when nothing else is waited for."""
PART_SECONDS = 10.0
"""For a part of the run's log that goes with a commit."""
LAST_SECONDS = 10.0
"""For a last commit of what is ready, when the time to send everything is over."""

CANCEL_SECONDS = 1.0

MOST_PARTS = 1000
"""Of the run's log, in one entry."""
MOST_UNPROVEN = 32
"""Entries that were put and not looked for yet."""
PLAN_SECONDS = 30.0
"""A plan waits so long for results to ride with."""
LARGE = 256 * 1024
"""Bytes of a plan, or of an end, that has no results beside it: they fill half of an entry."""


class Committer:
    """Commits the jobs of one run.

    Its methods raise `StoreError` when the bucket fails: then the entries wait, and may be in the log nevertheless; and
    `OSError` when the disk refuses.

    Attributes:
        broken: The unexpected exception of each job that is damaged or met a defect; such a job is not tried again.
    """

    def __init__(
        self,
        run: SpooledRun,
        preparer: Preparer,
        parts: LogParts,
        *,
        bucket: "asyncio.Future[Bucket]",
        log: Log,
    ) -> None:
        self._run = run
        self._preparer = preparer
        self._parts = parts
        self._bucket = bucket
        self._log = log
        self._writer: asyncio.Future[LogWriter] = asyncio.get_running_loop().create_future()
        self._began: Began | None = None
        self._planned: Planned | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ready: dict[str, Ended] = {}
        # In entries that were not found in the batch's log yet.
        self._queued_jobs: list[str] = []
        self._queued_parts: list[Object] = []
        self._appended: list[str] = []
        self._refusal: OSError | None = None
        self.broken: dict[str, Exception] = {}
        self._troubles: dict[str, str] = {}
        self._news = asyncio.Event()
        self._ending = asyncio.Event()
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._last_began: float | None = None
        self._noted = False

    def goes_on(self, writer: LogWriter, began: Began, planned: Planned | None) -> None:
        """Continue a dead run: the first entry of this process repeats its beginning and its plan."""
        self._began, self._planned = began, planned
        self._writer.set_result(writer)

    async def begin(self, writer: LogWriter, batch: Batch, began: Began) -> None:
        """Announce the run; nothing of it is in the bucket before that."""
        await asyncio.to_thread(self._run.begin, batch, began)
        self._writer.set_result(writer)
        self._last_began = monotonic()
        await writer.append(began=began)
        await self._arrived()

    async def _arrived(self) -> None:
        """Note which bucket has the run, once it has taken its beginning."""
        bucket = await asyncio.shield(self._bucket)
        if not self._noted:
            await asyncio.to_thread(self._run.arrived, bucket.identity)
            self._noted = True

    async def plan(self, planned: Planned) -> None:
        """Tell what the run is going to do, with the next commit."""
        await asyncio.to_thread(self._run.plan, planned)
        self._planned = planned
        asyncio.get_running_loop().call_later(PLAN_SECONDS, self._tell_plan)

    def _tell_plan(self) -> None:
        if self._planned is not None:
            self._news.set()

    async def ended(self, finished: Finished, *, hold: bool = False) -> None:
        """Accept a job that ended: it is durable in the spool when this returns, and in the bucket soon after.

        One that is held waits for `release`, and may end once more, after a rerun.
        """
        name = finished.job.name
        earlier = await asyncio.to_thread(self._run.ended, name)
        if earlier is not None:
            if earlier.stage is not Stage.ENDED or not earlier.held:
                raise ValueError(f"job {name} has ended already")
            job = rerun(earlier.finished.job, finished.job)
            finished = finished.model_copy(update={"job": job})
        await asyncio.to_thread(lambda: self._run.end(finished, held=hold))
        if not hold:
            self._prepare(name)

    async def release(self) -> None:
        """Commit what was held."""
        await asyncio.to_thread(self._run.release)
        await self.prepare_all()

    async def prepare_all(self) -> None:
        """Prepare every job that ended, is not held and is not committed."""
        for job in await self._in_no_entry():
            if not job.held:
                self._prepare(job.name)

    async def keep_committing(self) -> None:
        """Commit what is ready, every few seconds, until it is cancelled."""
        failures = 0
        while True:
            await self._news.wait()
            await asyncio.sleep(next_commit(self._last_began, monotonic()))
            self._news.clear()
            try:
                await self.commit()
            except (StoreError, OSError) as error:
                self._postponed("commit.postponed", error)
            except Exception:  # noqa: BLE001 -- a defect of ours; `flush` raises it at the end of the run
                self._log.exception("commit.failed")
            else:
                failures = 0
                continue
            await self._pause_after(failures)
            failures += 1
            self._news.set()

    async def commit(self, *, closed: Closed | None = None, last: bool = False) -> None:
        """Commit what is ready now, and everything that waits.

        Args:
            closed: How the run ended; then this is the last entry.
            last: Whether the run's end follows: it has the plan and the rest of the log.
        """
        async with self._turn:
            self._last_began = monotonic()
            writer = await asyncio.shield(self._writer)
            bucket = await asyncio.shield(self._bucket)
            if not (closed or last) and self._began is None and self._parts.due:
                # No job waits for it: the next commit tries again.
                with suppress(StoreError, TimeoutError):
                    async with asyncio.timeout(PART_SECONDS):
                        await self._parts.put()
            # After a power cut nothing may be named that is not there: what is put during the sync is named next time.
            parts, ready = await self._parts.untold(), tuple(self._ready.values())
            await bucket.sync()
            await writer.flush()
            await self._arrived()
            self._tell()
            if _is_large(self._planned):
                await self._append(writer, (), parts)
            for jobs in in_entries(ready):
                await self._append(writer, jobs, parts)
            if closed:
                repeated = () if _is_large(closed) else await self._once_more()
                await self._append(writer, repeated, parts, closed=closed)
            elif not last and (self._began or self._planned):
                await self._append(writer, (), parts)
            await bucket.sync()
            if closed or writer.unproven >= MOST_UNPROVEN:
                await self._settle(writer)
            self._troubles.pop("", None)

    async def prove(self) -> None:
        """Check that the batch's log has everything that was appended."""
        async with self._turn:
            await self._settle(await asyncio.shield(self._writer))

    async def flush(
        self, seconds: float, *, hurried: bool = False, keeps_disk: bool = True
    ) -> list[str]:
        """Commit everything that ended, as far as the time allows, and return the jobs for which it did not.

        When it is hurried, the smallest jobs and files go first; without a disk that is kept, a job is committed with
        what was sent of it.
        """
        self._ending.set()
        try:
            async with asyncio.timeout(seconds):
                await asyncio.to_thread(self._run.release)
                if hurried:
                    await self._begin_smallest_first()
                await self.prepare_all()
                while self._tasks:
                    await asyncio.wait(self._tasks.values())
                await self._commit_at_last()
        except TimeoutError:
            await self.cancel()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(LAST_SECONDS, seconds)):
                    await self._commit_what_is_left(keeps_disk=keeps_disk)
        # What is ready goes into the log with the run's end.
        pending = [name for name in await self.pending() if name not in self._ready]
        if pending and keeps_disk and self._refusal is not None:
            raise self._refusal
        return pending

    async def pending(self) -> list[str]:
        """Return the jobs that are neither in the batch's log nor in an entry for it."""
        return [job.name for job in await self._in_no_entry()]

    async def _in_no_entry(self) -> list[SpooledJob]:
        queued = {*self._queued_jobs}
        jobs = await asyncio.to_thread(self._run.jobs)
        queued |= {*self._queued_jobs}  # a commit may have begun, or ended, meanwhile
        return [job for job in jobs if job.stage is not Stage.COMMITTED and job.name not in queued]

    async def _append(
        self,
        writer: LogWriter,
        jobs: Sequence[Ended],
        parts: Sequence[Object],
        *,
        closed: Closed | None = None,
    ) -> None:
        """Append an entry, with those of the parts of the run's log that are in none yet."""
        queued = {part.key for part in self._queued_parts}
        log = [part for part in parts if part.key not in queued][:MOST_PARTS]
        writer.add(began=self._began, planned=self._planned, jobs=jobs, log=log, closed=closed)
        # From here on the log writer has it, whatever becomes of the put.
        self._began = self._planned = None
        new = [job.name for job in jobs if self._ready.pop(job.name, None)]
        self._queued_jobs += new
        self._queued_parts += log
        self._appended += new
        await writer.flush()
        self._tell()

    def _tell(self) -> None:
        """Log which jobs were committed since the last time."""
        jobs, self._appended = self._appended, []
        if jobs:
            self._log.info("jobs.committed", jobs=jobs)

    async def _once_more(self) -> tuple[Ended, ...]:
        """Return what the last entry repeats for readers that look back: all results, or none."""
        queued = set(self._queued_jobs)
        told = [
            job.entry
            for job in await asyncio.to_thread(self._run.jobs)
            if job.entry and (job.stage is Stage.COMMITTED or job.name in queued)
        ]
        portions = list(in_entries(told))
        return portions[0] if len(portions) == 1 else ()

    async def _settle(self, writer: LogWriter) -> None:
        """Check that everything that was appended is in the batch's log, and note in the spool that it is."""
        await writer.prove()
        await asyncio.to_thread(self._run.commit, self._queued_jobs)
        await self._parts.told(self._queued_parts)
        # Not earlier: what is in no entry is prepared again, or counts as lost.
        self._queued_jobs, self._queued_parts = [], []

    def _prepare(self, name: str, *, smallest_first: bool = False) -> None:
        if {name} & {*self._tasks, *self._ready, *self._queued_jobs, *self.broken}:
            return
        task = asyncio.create_task(self._keep_preparing(name, smallest_first=smallest_first))
        self._tasks[name] = task
        task.add_done_callback(lambda _: self._tasks.pop(name, None))

    async def _keep_preparing(self, name: str, *, smallest_first: bool) -> None:
        failures = 0
        while True:
            try:
                async with self._places:
                    entry = await self._preparer.prepare(name, smallest_first=smallest_first)
            except (StoreError, OSError) as error:
                self._postponed("job.postponed", error, job=name)
                if isinstance(error, OSError):
                    # Want of memory or descriptors says nothing of the disk: the job is pending, like any other.
                    self._refusal = disk_refusal(error) or self._refusal
                    if self._ending.is_set() and failures >= DISK_TRIES:
                        return  # nothing makes room on the disk any more
                if self._gives_up(error):
                    return
                await self._pause_after(failures)
                failures += 1
            except Exception as error:  # noqa: BLE001 -- see below
                # Damage, or a defect of ours: the others are committed, and this one stays pending.
                self._log.exception("job.not_prepared", job=name)
                self.broken[name] = error
                return
            else:
                self._refusal = None
                self._troubles.pop(name, None)
                self._ready[name] = entry
                self._news.set()
                return

    @property
    def trouble(self) -> str:
        """The last error of a commit, or of a job's preparation, that was not overcome yet; empty without one."""
        begun = self._writer.done() and not self._writer.cancelled()
        of_the_log = self._writer.result().trouble if begun else ""
        return next(iter(self._troubles.values()), of_the_log)

    def _postponed(self, event: str, error: StoreError | OSError, job: str = "") -> None:
        text = error.with_remedy if isinstance(error, StoreError) else str(error)
        self._troubles[job] = text
        self._log.warning(event, reason=str(error), **({"job": job} if job else {}))

    def _gives_up(self, error: Exception) -> bool:
        """Tell whether a retry would only keep the machine on: the bucket denies access, and the run ends."""
        return self._ending.is_set() and isinstance(error, StoreRefused)

    async def _pause_after(self, failures: int) -> None:
        """Wait after a failure, but not for long once the run is at its end."""
        seconds = PAUSES[min(failures, len(PAUSES) - 1)]
        if self._ending.is_set():
            await asyncio.sleep(min(seconds, SHORTEST_PAUSE))
        else:
            await first(self._ending.wait(), seconds=seconds)

    async def _begin_smallest_first(self) -> None:
        """Begin the preparations again, the job with the fewest bytes to send first."""
        await self.cancel()
        self._places = asyncio.Semaphore(HURRIED_AT_ONCE)
        names = await self.pending()
        sizes = {name: await self._preparer.waiting_bytes(name) for name in names}
        for name in sorted(names, key=lambda name: sizes[name]):
            self._prepare(name, smallest_first=True)

    async def _commit_at_last(self) -> None:
        """Commit what is ready, and retry as long as there is time."""
        failures = 0
        writer = await asyncio.shield(self._writer)
        while self._ready or writer.pending or not failures:
            try:
                await self.commit(last=True)
            except StoreError as error:
                self._postponed("commit.postponed", error)
                if self._gives_up(error):
                    return
                await self._pause_after(failures)
                failures += 1
            else:
                return

    async def _commit_what_is_left(self, *, keeps_disk: bool) -> None:
        try:
            await self.commit(last=True)
            if not keeps_disk:
                left = [name for name in await self.pending() if name not in self._ready]
                async with asyncio.TaskGroup() as group:
                    for name in left:
                        group.create_task(self._prepare_partly(name))
                await self.commit(last=True)
        except StoreError as error:
            self._postponed("commit.postponed", error)

    async def _prepare_partly(self, name: str) -> None:
        try:
            async with asyncio.timeout(LAST_SECONDS / 2):
                self._ready[name] = await self._preparer.prepare_partly(name)
        except (StoreError, OSError) as error:  # a TimeoutError is an OSError
            self._log.warning("job.not_sent", job=name, reason=str(error) or "no time was left")
        except Exception as error:  # noqa: BLE001 -- the others are committed
            self._log.exception("job.not_prepared", job=name)
            self.broken[name] = error

    async def cancel(self) -> None:
        """Stop preparing jobs."""
        while tasks := list(self._tasks.values()):
            for task in tasks:
                task.cancel()
            # Again until they end: before Python 3.13 a TaskGroup loses a cancellation when one of its tasks fails.
            await asyncio.wait(tasks, timeout=CANCEL_SECONDS)


def _is_large(part: Planned | Closed | None) -> bool:
    return part is not None and len(part.model_dump_json().encode()) > LARGE
