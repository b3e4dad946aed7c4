"""Brings one job from its folder to its sealed package in the bucket; after that only its entry is missing.

Files are sent, the package is sealed in the run's database and put, then the job's state; a listing shows whether the
bucket has all of it. A kill at any point costs nothing: the same run, or a later one, begins again.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path

from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.bucket.store import Bucket, ObjectInfo
from agent.contract.described import MOST_OWN_BYTES, Said, carry_over
from agent.contract.descriptor import Role, Sealed
from agent.contract.entries import Ended, Object
from agent.contract.layout import DESCRIPTOR, FILES, LOGS, JobKey, StateKey, job_prefix
from agent.contract.package import JobRecord, seal_package
from agent.contract.results import JobStatus
from agent.delivery.database import CHUNK, Database, fenced
from agent.delivery.scan import (
    Found,
    Scan,
    Signature,
    open_file,
    read_start,
    walk,
    why_unreadable,
)
from agent.delivery.sealing import (
    cut_short,
    entry_of,
    refusal_sentence,
    with_note,
    with_refusals,
    without_package,
)
from agent.delivery.sent import OutboxFile, SentFiles, evidence_file, log_file
from agent.delivery.spool import EVIDENCE, SpooledJob, SpooledRun, Workspace
from agent.delivery.uploader import Uploader, results_of

PAGE = 1000
"""Objects of a listing that are compared at once."""
SORTED_AT_ONCE = 5000
"""Files that are ordered by their size: so many are held, of a job that may have left a hundred thousand."""
MOST_EVIDENCE = 30
"""Files of evidence that one attempt may leave."""
MOST_EVIDENCE_BYTES = 20 * 1024**2
REASON_LOG = f"{LOGS}job.log"
"""The one file of a job that left none: it says why. A Data Package needs a resource."""


@dataclass(frozen=True, slots=True)
class _Left:
    """What a job left.

    Attributes:
        results: Its results.
        others: Its logs and its evidence.
    """

    results: Scan = field(default_factory=Scan)
    others: Scan = field(default_factory=Scan)


class Preparer:
    """Prepares the jobs of one run.

    Its methods raise `StoreError` when the bucket fails, or twice does not hold what it accepted, and `OSError` when
    the disk refuses.
    """

    def __init__(
        self, run: SpooledRun, uploader: Uploader, bucket: "asyncio.Future[Bucket]", log: Log
    ) -> None:
        self._run = run
        self._uploader = uploader
        self._bucket = bucket
        self._log = log

    async def prepare(self, name: str, *, smallest_first: bool = False) -> Ended:
        """Bring a job that ended into the bucket, and return its entry for the batch's log.

        Its smallest files go first, of some thousands at a time, where there may not be time for all.
        """
        for last in (False, True):
            job = await fenced(self._job, name)
            entry = job.entry or await self._seal(job, smallest_first=smallest_first)
            entry = await self._put(entry)
            # An answer of 200 is not proof that a store has kept an object, so its own listing is asked.
            wrong = await self._differences(name, entry.package) if entry.package else []
            if not wrong:
                return entry
            await fenced(self._run.sent.forget, name, wrong)
            await fenced(self._run.unseal, name)
            if last:
                more = f" (and {len(wrong) - 1} more files)" if len(wrong) > 1 else ""
                raise not_held(f"{job_prefix(self._run.run, name)}{min(wrong)}{more}")
        raise AssertionError("the last round returns or raises")

    async def prepare_partly(self, name: str) -> Ended:
        """Prepare a job without sending any more of its files: its machine, and its disk, are about to be gone."""
        job, sent = await fenced(self._job, name), self._run.sent
        entry = job.entry
        if entry is None:
            await self._uploader.send([])  # notes what was sent last
            left = _Left()
            await fenced(deque, self._expected(job, left), 0)  # of each page, nothing is kept
            await fenced(sent.forget, name, await self._differences(name))
            await self._give_reason(job)
            entry = await fenced(self._seal_now, job, left)
        entry = await self._put(entry)
        if entry.package and await self._differences(name, entry.package):
            raise not_held(entry.package.key)
        return entry

    async def waiting_bytes(self, name: str) -> int:
        """Return the bytes of a job's results that are not in the bucket yet; it may still run.

        It is an estimate: what cannot be read now counts as nothing.
        """
        return await fenced(self._waiting_bytes, name)

    def _waiting_bytes(self, name: str) -> int:
        size = 0
        with suppress(OSError):
            root = self._run.output(name)
            for some in results_of(name, root, Scan()) if root else ():
                size += sum(file.size for file in self._run.sent.lacking(some))
        return size

    def _job(self, name: str) -> SpooledJob:
        job = self._run.ended(name)
        if job is None:
            raise ValueError(f"job {name} has not ended")
        return job

    async def _seal(self, job: SpooledJob, *, smallest_first: bool) -> Ended:
        if job.finished.job.status is JobStatus.SKIPPED:
            entry = without_package(job.finished.job)
            await fenced(self._run.seal, entry)
            return entry
        left = await self._send(job, smallest_first=smallest_first)
        await self._give_reason(job)
        return await fenced(self._seal_now, job, left)

    async def _send(self, job: SpooledJob, *, smallest_first: bool) -> _Left:
        """Send what the bucket lacks of a job, and return what it left."""
        left = _Left()
        pages = self._expected(job, left)
        if smallest_first:
            files, size = chain.from_iterable(pages), attrgetter("size")
            pages = iter(lambda: sorted(islice(files, SORTED_AT_ONCE), key=size), [])
        unreadable = await self._uploader.send(pages)
        await fenced(self._run.sent.drop, job.name, [file.path for file in unreadable])
        for file, reason in unreadable.items():
            if reason:  # else it is gone
                scan = left.results if file.role is Role.RESULT else left.others
                scan.refuse(file.name, reason)
        return left

    def _expected(self, job: SpooledJob, left: _Left) -> Iterator[list[OutboxFile]]:
        """Let the package name what a job left, and yield what the bucket lacks of it, some at a time."""
        self._run.sent.expect_nothing(job.name)
        for some in self._files_of(job, left):
            yield self._run.sent.expect(some)

    def _files_of(self, job: SpooledJob, left: _Left) -> Iterator[list[OutboxFile]]:
        """Yield everything that a job left, some at a time: its results, what it printed, what explains a failure."""
        spaces = self._run.workspaces(job.name)
        if spaces:
            yield from results_of(job.name, spaces[-1].output, left.results)
        ended = {one.number: one.status for one in job.finished.job.attempts}
        for space in spaces:
            told = [*_printed(job.name, space, left.others)]
            if ended.get(space.number) is not JobStatus.SUCCEEDED:
                told += _evidence(job.name, space, left.others)
            if not self._uploader.redacts:
                # Of what was sent earlier, secrets were taken out.
                lacking = self._run.sent.lacking(told)
                told = [file for file in told if file not in lacking]
            yield told

    async def _give_reason(self, job: SpooledJob) -> None:
        """Put a log that says why there is nothing, where there is nothing."""
        name, sent, record = job.name, self._run.sent, job.finished.job
        if await fenced(lambda: next(sent.sealed(name), None)) is not None:
            return
        if unsent := await fenced(sent.unsent, name):
            record = cut_short(record, unsent)
        text = f"{record.status}: {record.message or 'it left no file'}\n".encode()
        mark = Signature(0, len(text), 0, 0)
        file = OutboxFile(name, self._run.root, "", REASON_LOG, Role.LOG, mark)
        sealed = Sealed(REASON_LOG, len(text), hashlib.sha256(text).hexdigest(), Role.LOG)
        bucket = await asyncio.shield(self._bucket)
        await bucket.put(JobKey(self._run.run, name, REASON_LOG).text, text)
        await fenced(sent.note, [(file, sealed, mark)])
        await fenced(sent.expect, [file])

    async def _differences(self, name: str, package: Object | None = None) -> list[str]:
        """Compare a job with a listing: return the paths that are missing or have another size, delete what is surplus.

        Surplus are early uploads: of a failed attempt, or of a file that the job has renamed or removed since. The
        package is compared as well, once it was put.
        """
        bucket, sent = await asyncio.shield(self._bucket), self._run.sent
        prefix = job_prefix(self._run.run, name)
        wrong = [DESCRIPTOR] if package else []
        await fenced(sent.hold_nothing, name)
        async for page in _pages(bucket.list(prefix)):
            listed = [(item.key.removeprefix(prefix), item.bytes) for item in page]
            if package and (DESCRIPTOR, package.bytes) in listed:
                wrong = []
            surplus = await fenced(sent.hold, name, listed)
            keys = [prefix + path for path in surplus if path != DESCRIPTOR]
            try:
                await bucket.delete(keys)
            except StoreError as error:
                # Nothing names them, so nobody takes them for results.
                self._log.info("upload.surplus_stays", job=name, reason=str(error))
        return [*wrong, *await fenced(sent.missing, name)]

    def _seal_now(self, job: SpooledJob, left: _Left) -> Ended:
        """Seal a job's package: from now on it does not change. It tells what could not be sent or read."""
        name, sent, run = job.name, self._run.sent, self._run
        files, size = sent.count(name)
        refused, unread = left.results, left.others
        record = with_refusals(job.finished.job, refused.listed(), refused.refusals, files=files)
        if unread.refusals:
            sentence = refusal_sentence(unread.listed(), unread.refusals)
            record = with_note(record, f"of its logs and evidence, {sentence}")
        if unsent := sent.unsent(name):
            record = cut_short(record, unsent)
        if run.workspaces(name) and not self._uploader.redacts:
            record = with_note(
                record, "without its logs: the secrets to hide in them are not known"
            )
        record = record.model_copy(update={"state": self._state_of(record, job)})
        said, plan = self._said(name), run.planned and run.planned.release
        # A release on trial may yet be replaced in the plan.
        commit = plan.commit if plan and plan.trial is None else None

        def seal(_: object) -> Ended:
            digest = run.database.keep(name, seal_package(record, sent.sealed(name), said))
            entry = entry_of(
                record,
                Object(key=JobKey(run.run, name).text, bytes=digest.bytes, sha256=digest.sha256),
                job.finished.outputs,
                files=files,
                size=size,
                refused=refused.refusals,
                commit=commit,
            )
            run.seal(entry)
            return entry

        return run.database.within(seal, durable=True)

    def _state_of(self, record: JobRecord, job: SpooledJob) -> Object | None:
        """Return what a job left for its next run, if that is kept."""
        succeeded = record.status is JobStatus.SUCCEEDED
        if not (succeeded or job.finished.checkpoint):
            return None
        key = StateKey(job.name, self._run.run, checkpoint=not succeeded)
        return self._saved_state(job.name, key.text)

    def _saved_state(self, name: str, key: str) -> Object | None:
        """Return a job's state as it is on the disk; None without one, or when it cannot be read."""
        archive = self._run.saved_state(name)
        try:
            return _object(key, archive)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._log.warning("state.unreadable", job=name, reason=why_unreadable(error))
            return None

    def _said(self, name: str) -> Said:
        """Return what a job says of its own data, in a file that is one of its results."""
        root, files = self._run.output(name), _Named(self._run.sent, name)
        if root is None or f"{FILES}{DESCRIPTOR}" not in files:
            return Said()
        try:
            with open_file(root, DESCRIPTOR) as (stream, _):
                return carry_over(read_start(stream, MOST_OWN_BYTES + 1), files)
        except OSError as error:
            return Said(notes=(f"{DESCRIPTOR} of the job is not used: {why_unreadable(error)}",))

    async def _put(self, entry: Ended) -> Ended:
        """Put a sealed package, then the job's state, and return the entry: without the state if that was lost."""
        bucket = await asyncio.shield(self._bucket)
        if entry.package is not None:
            await put_document(bucket, entry.package, self._run.database, entry.name)
        if entry.state is not None and not await self._put_state(bucket, entry.name, entry.state):
            entry = entry.model_copy(update={"state": None})
            await fenced(self._run.seal, entry)
        return entry

    async def _put_state(self, bucket: Bucket, name: str, state: Object) -> bool:
        """Put a job's state; False when it is no longer what was sealed."""
        archive = self._run.saved_state(name)
        if await fenced(self._saved_state, name, state.key) != state:
            self._log.warning("state.lost", job=name, file=str(archive))
            return False

        async def put() -> None:
            with archive.open("rb") as stream:
                if state.bytes <= CHUNK:
                    await bucket.put(state.key, stream.read())
                else:
                    await bucket.put_stream(state.key, iter(partial(stream.read, CHUNK), b""))

        await put_surely(bucket, state.key, state.bytes, put)
        return True


async def put_document(bucket: Bucket, target: Object, database: Database, name: str) -> None:
    """Put a document as it was sealed.

    Raises:
        StoreError: The bucket failed.
        ValueError: It is not in the database as it was sealed.
    """
    if await fenced(database.digest, name) != (target.bytes, target.sha256):
        raise ValueError(f"{target.key} is damaged in {database.path}")

    if target.bytes <= CHUNK:
        data = await fenced(lambda: b"".join(database.chunks(name)))
        await bucket.put(target.key, data)
    else:
        await bucket.put_stream(target.key, database.chunks(name))


async def put_surely(
    bucket: Bucket, key: str, size: int, put: Callable[[], Awaitable[None]]
) -> None:
    """Put an object and check its size in the bucket; put it a second time if that differs.

    Raises:
        StoreError: The bucket failed, or twice did not hold what it accepted.
    """
    for _ in ("first", "second"):
        await put()
        if await bucket.size(key) == size:
            return
    raise not_held(key)


def not_held(what: str) -> StoreError:
    """Return the error of a bucket that lost what it accepted."""
    return StoreError(
        f"the bucket accepted {what} and does not hold it as it was sent",
        remedy="check the bucket's health and lifecycle rules",
    )


class _Named(Mapping[str, Sealed]):
    """What a job's package names, by path: looked up in the table, not held."""

    def __init__(self, sent: SentFiles, job: str) -> None:
        self._sent = sent
        self._job = job

    def __getitem__(self, path: str) -> Sealed:
        sealed = self._sent.one(self._job, path)
        if sealed is None:
            raise KeyError(path)
        return sealed

    def __iter__(self) -> Iterator[str]:
        return (sealed.path for sealed in self._sent.sealed(self._job))

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def _pages(items: AsyncIterator[ObjectInfo]) -> AsyncIterator[list[ObjectInfo]]:
    page: list[ObjectInfo] = []
    async for item in items:
        page.append(item)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def _printed(job: str, space: Workspace, others: Scan) -> Iterator[OutboxFile]:
    """Yield the file of what an attempt printed, if there is one."""
    name = space.captured.name
    try:
        with open_file(space.root, name) as (_, signature):
            pass
    except FileNotFoundError:
        return
    except OSError as error:
        others.refuse(name, why_unreadable(error))
        return
    yield log_file(job, space.root, Found(name, signature), space.number)


def _evidence(job: str, space: Workspace, others: Scan) -> Iterator[OutboxFile]:
    """Yield what an attempt put aside to explain a failure, within limits."""
    size = 0
    for found in islice(chain.from_iterable(walk(space.evidence, others)), MOST_EVIDENCE):
        size += found.signature.size
        if size <= MOST_EVIDENCE_BYTES:
            yield evidence_file(job, space.output, EVIDENCE, found, space.number)


def _object(key: str, path: Path) -> Object:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return Object(key=key, bytes=stream.tell(), sha256=digest)
