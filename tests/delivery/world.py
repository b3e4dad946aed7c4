"""A run that is delivered, in few words: its spool, its bucket, its jobs, and what a reader sees of it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Any

from agent.base.logs import RunLogger
from agent.base.redact import Redactor
from agent.batch.fold import Run, fold
from agent.batch.log import LogReader, LogWriter
from agent.bucket.address import LocalBucket
from agent.bucket.store import Bucket
from agent.contract.entries import Began, Ended, Object, Output, Planned
from agent.contract.facts import Host
from agent.contract.ids import Batch, run_id
from agent.contract.layout import JobKey, ManifestKey, parse_key
from agent.contract.manifest import Manifest, RunRecord, read_manifest
from agent.contract.package import Attempt, JobRecord, Package, read_package
from agent.contract.results import JobStatus, RunStatus
from agent.delivery.delivery import Delivery
from agent.delivery.recovery import deliver_pending
from agent.delivery.spool import Finished, Spool, SpooledRun
from agent.delivery.uploader import Uploader
from tests.contract.examples import RELEASE

SECRET = "hunter2-hunter2"
SECONDS = 60.0
"""For what is waited for; usual is a moment."""
FINDER = "20261126T000000Z-abcdef"
"""A later run, which finds what an earlier one left."""
MOST = 64 * 1024**2


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for what a background task does."""
    async with asyncio.timeout(SECONDS):
        while not await condition():  # noqa: ASYNC110 -- the bucket tells nobody
            await asyncio.sleep(0.05)


def now() -> datetime:
    """Return this machine's time."""
    return datetime.now(UTC)


def folder_bucket(root: Path) -> Bucket:
    """Return a bucket that is a folder."""
    return Bucket.open(LocalBucket(root), None)


STANDARD_STREAMS = 3
"""They are open in every process."""


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing while the block runs."""
    soft, hard = getrlimit(RLIMIT_NOFILE)
    # Not 0: poll(2) refuses to wait for more descriptors than the limit, and a server of this process ended with it.
    setrlimit(RLIMIT_NOFILE, (STANDARD_STREAMS, hard))
    try:
        yield
    finally:
        setrlimit(RLIMIT_NOFILE, (soft, hard))


def began() -> Began:
    """Return a beginning with an hour to its deadline."""
    moment, host = now(), Host(name="host")
    return Began(
        started=moment, deadline=moment + timedelta(hours=1), host=host, agent="1", channel="v*"
    )


@dataclass
class World:
    """A run and its bucket.

    Attributes:
        spool: The spool.
        bucket: The bucket.
        run: The run.
        batch: Its batch.
        events: What was logged.
        known: Whether the secrets are known.
        concurrency: Requests at once.
    """

    spool: Spool
    bucket: Bucket
    run: SpooledRun
    batch: Batch
    events: list[dict[str, Any]] = field(default_factory=list)
    known: bool = True
    concurrency: int = 8

    @classmethod
    def make(cls, state: Path, bucket: Bucket) -> "World":
        """Return a run that has begun in the spool."""
        spool = Spool(state / "spool")
        run = spool.begin(run_id(now(), os.urandom(3)))
        return cls(spool, bucket, run, Batch.of_run("main", run.run))

    def redactor(self) -> Redactor | None:
        """Return what hides the one secret."""
        return Redactor({"password": SECRET}) if self.known else None

    def opened(self) -> "asyncio.Future[Bucket]":
        """Return the bucket as the run has it."""
        future: asyncio.Future[Bucket] = asyncio.get_running_loop().create_future()
        future.set_result(self.bucket)
        return future

    @property
    def log(self) -> Any:
        """A log whose events are kept."""
        return RunLogger(self.events.append).log

    def delivery(self) -> Delivery:
        """Return a delivery of the run."""
        return Delivery(
            self.run,
            self.opened(),
            concurrency=self.concurrency,
            redactor=self.redactor,
            log=self.log,
        )

    def uploader(self, progress: Callable[[int], None] = lambda _: None) -> Uploader:
        """Return an uploader of the run's files."""
        return Uploader(
            self.run.run,
            self.run.sent,
            self.opened(),
            concurrency=self.concurrency,
            redactor=self.redactor,
            log=self.log,
            progress=progress,
        )

    def writer(self, nonce: str = "00c0ffee") -> LogWriter:
        """Return what appends to the batch's log for one process."""
        return LogWriter(self.bucket, self.batch, self.run.run, nonce, now=now)

    async def begin(self, delivery: Delivery) -> None:
        """Announce the run."""
        await delivery.begin(self.writer(), self.batch, began())

    @asynccontextmanager
    async def under_way(self, *jobs: str) -> AsyncIterator[Delivery]:
        """Begin the run, with a plan."""
        async with self.delivery() as delivery:
            await self.begin(delivery)
            await delivery.plan(Planned(release=RELEASE, count=len(jobs), jobs=jobs))
            yield delivery

    async def deliver(self, *jobs: Finished) -> dict[str, Ended]:
        """Deliver a run of which these jobs have ended, but for its close, and return what is committed."""
        async with self.under_way(*(one.job.name for one in jobs)) as delivery:
            for one in jobs:
                await delivery.ended(one)
            assert await delivery.flush(SECONDS) == []
        return await self.committed()

    async def recovered(self, runs: Sequence[SpooledRun] | None = None) -> int:
        """Have a later run finish what is in the spool."""
        return await deliver_pending(
            self.spool,
            self.spool.pending(self.log) if runs is None else runs,
            self.opened(),
            finder=FINDER,
            concurrency=self.concurrency,
            redactor=self.redactor,
            log=self.log,
        )

    def attempt(
        self, job: str, files: Mapping[str, bytes], *, number: int = 1, printed: str = "ran\n"
    ) -> Path:
        """Leave what an attempt of a job leaves, and return its output."""
        space = self.run.workspace(job, number)
        space.make()
        for name, content in files.items():
            path = space.output / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        space.captured.write_text(printed)
        return space.output

    def note(self, *lines: str) -> None:
        """Write lines to the run's log."""
        with self.run.log.open("a") as stream:
            stream.writelines(f"{line}\n" for line in lines)

    def finished(
        self,
        job: str,
        status: JobStatus = JobStatus.SUCCEEDED,
        *,
        attempts: int = 1,
        first: int = 1,
        outputs: tuple[Output, ...] = (),
        checkpoint: bool = False,
        **more: Any,
    ) -> Finished:
        """Return a job that ended; all its attempts but the last failed."""
        moment = now()
        statuses = [JobStatus.FAILED] * (attempts - 1) + [status]
        tries = tuple(
            Attempt(number=number, started=moment, finished=moment, status=one)
            for number, one in enumerate(statuses, first)
        )
        record = JobRecord(
            run=self.run.run,
            name=job,
            status=status,
            finished=moment,
            **{"attempts": tries} | more,
        )
        return Finished(job=record, outputs=outputs, checkpoint=checkpoint)

    def record(self, status: RunStatus = RunStatus.SUCCEEDED, **more: Any) -> RunRecord:
        """Return what the run's manifest says."""
        return RunRecord(
            run=self.run.run,
            schedule=self.batch.schedule,
            batch=self.batch.name,
            status=status,
            started=now(),
            finished=now(),
            agent="1",
            host=Host(name="host"),
            **more,
        )

    async def seen(self) -> Run:
        """Return what the batch's log says of the run."""
        state = fold(self.batch, await LogReader(self.bucket, self.batch).look())
        assert state.invalid == {}
        return state.runs[self.run.run]

    async def has(self, job: str) -> bool:
        """Tell whether a job is committed."""
        return job in (await self.seen()).results

    async def committed(self) -> dict[str, Ended]:
        """Return the jobs that are committed, after a look at everything that their entries name."""
        jobs = {name: result.job for name, result in (await self.seen()).results.items()}
        for job in jobs.values():
            await self.sound(job)
        return jobs

    async def sound(self, job: Ended) -> Package | None:
        """Check that all that a job's entry names is in the bucket, as it says, and return its package."""
        if job.state is not None:
            await self.held(job.state)
        if job.package is None:
            return None
        key = parse_key(job.package.key)
        assert isinstance(key, JobKey)
        package = read_package(key, await self.held(job.package))
        assert isinstance(package, Package), package
        for resource in package.resources:
            stored = JobKey(key.run, key.job, resource.path).text
            digest = resource.hash.removeprefix("sha256:")
            await self.held(Object(key=stored, bytes=resource.bytes, sha256=digest))
        return package

    async def package(self, job: str) -> Package:
        """Return the package of a job that is committed, after a look at everything that it names."""
        package = await self.sound((await self.committed())[job])
        assert package is not None
        return package

    async def held(self, wanted: Object) -> bytes:
        """Return an object, which is as it was named."""
        data = await self.bucket.get(wanted.key, limit=MOST)
        assert data is not None, wanted.key
        assert (len(data), sha256(data).hexdigest()) == (wanted.bytes, wanted.sha256), wanted.key
        return data

    async def manifest(self) -> Manifest:
        """Return the run's manifest, all of whose objects are there."""
        closed = (await self.seen()).closed
        assert closed is not None
        assert closed.manifest is not None
        text = await self.held(closed.manifest)
        manifest = read_manifest(ManifestKey(self.run.run), text)
        assert isinstance(manifest, Manifest), manifest
        for resource in manifest.resources:
            digest = resource.hash.removeprefix("sha256:")
            key = f"runs/{self.run.run}/{resource.path}"
            await self.held(Object(key=key, bytes=resource.bytes, sha256=digest))
        return manifest

    async def content(self, job: str, path: str) -> bytes | None:
        """Return a file of a job."""
        return await self.bucket.get(JobKey(self.run.run, job, path).text)

    async def keys(self, prefix: str = "") -> list[str]:
        """Return the keys in the bucket."""
        return sorted([item.key async for item in self.bucket.list(prefix)])
