"""Takes a run's files to the bucket, while the jobs still run and at the end.

What is hashed is what was sent: each file is opened once, beneath its folder, and its digest is computed from the very
bytes that went out. A file that changes afterwards has another signature and is sent again.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO

from agent.core.datapackage import Sealed
from agent.core.errors import StoreError
from agent.core.layout import run_key
from agent.core.redact import Redactor
from agent.steps import seal
from agent.steps.logs import Log
from agent.steps.progress import Progress
from agent.steps.seal import Signature
from agent.steps.spool import SpooledRun
from agent.steps.store import Bucket, Hashing

LOOK_SECONDS = 1.0
"""Between two looks at a running job's output. A file is settled when two looks agree on its signature."""

SMALL = 1024**2
"""Files up to this are read in one go; larger ones pass a narrower gate, so that memory stays bounded."""
LARGE_AT_ONCE = 2
TINY = 128 * 1024
MIDDLING_AT_ONCE = 16
"""Files between tiny and large that are held in memory at once; of tiny ones, as many as there are requests."""

RECEIPTS = 16
RECEIPT_SECONDS = 0.25
"""What was sent is written down for so many small files together, or after so long: a kill costs their upload again."""

LANDING_SECONDS = 5.0
PAUSE_SECONDS = 60.0
"""After a failed upload; the hand-off at the end has its own time for what is left."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """A file to send: `name` beneath `root`, to become the resource `path`.

    Attributes:
        root: A folder that a job may have changed in any way.
        name: The file's path in it.
        path: The resource's path.
        job: The job whose result it is; empty for the run's own.
        evidence: Whether secrets are taken out of it on the way; results are sent as they are.
    """

    root: Path
    name: str
    path: str
    job: str = ""
    evidence: bool = False


class Courier:
    """Sends the files of one run. It remembers what it sent, in the spool as well.

    Attributes:
        unreadable: Resources that were there and could not be read, with the reason.
    """

    def __init__(
        self,
        run: SpooledRun,
        bucket: "asyncio.Future[Bucket]",
        *,
        concurrency: int,
        redactor: Callable[[], Redactor | None],
        log: Log,
        progress: Progress,
    ) -> None:
        """Make a courier.

        Args:
            run: The run.
            bucket: Awaited before the first file; may raise StoreError each time.
            concurrency: Requests at once.
            redactor: Returns what hides secrets in evidence; None when they are not known, so that none is sent.
            log: Bound to the run.
            progress: Told of each file.
        """
        self._run = run
        self._bucket = bucket
        self._log = log
        self._progress = progress
        self._concurrency = concurrency
        self._redactor = redactor
        self._slots = asyncio.Semaphore(concurrency)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._middling = asyncio.Semaphore(MIDDLING_AT_ONCE)
        self._sent: dict[str, tuple[Signature, Sealed]] = {
            sealed.path: (mark, sealed) for sealed, mark in run.uploads()
        }
        self._receipts: list[tuple[Sealed, Signature]] = []
        self._recorded = monotonic()
        self.unreadable: dict[str, str] = {}

    @asynccontextmanager
    async def following(self, job: str, root: Path) -> AsyncIterator[None]:
        """Send what settles in a job's output while the block runs; failures wait for the end of the run."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._follow(job, root, stop))
        try:
            yield
        finally:
            stop.set()
            # What is on its way may arrive; what takes longer than this is sent again later.
            await asyncio.wait([task], timeout=LANDING_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, job: str, root: Path, stop: asyncio.Event) -> None:
        before: dict[str, Signature] = {}
        pause = LOOK_SECONDS
        while not await _set_within(stop, pause):
            contents = await asyncio.to_thread(seal.look, root)
            settled = [name for name, mark in contents.files.items() if before.get(name) == mark]
            before = contents.files
            pause = LOOK_SECONDS
            try:
                await self.send(parcels_of(job, root, settled), marks=before, stop=stop)
            except StoreError as error:
                self._log.warning("upload.postponed", job=job, reason=str(error))
                pause = PAUSE_SECONDS

    async def send(
        self,
        parcels: Iterable[Parcel],
        *,
        marks: Mapping[str, Signature],
        stop: asyncio.Event | None = None,
    ) -> None:
        """Send every parcel that is not in the bucket as it is now.

        Args:
            parcels: What to send. One whose file is gone, or is no longer a regular file, is left out.
            marks: Signatures by name, as of a look; a file that was sent with the same one is not sent again.
            stop: Once set, nothing more is begun.

        Raises:
            StoreError: One could not be sent; the others may have been.
        """
        waiting = [parcel for parcel in parcels if not self._has(parcel, marks)]
        queue = iter(waiting)
        failures: list[StoreError] = []

        async def work() -> None:
            for parcel in queue:
                if failures or (stop is not None and stop.is_set()):
                    return
                async with self._slots:
                    try:
                        await self._send(parcel, marks.get(parcel.name), settled=stop is not None)
                    except StoreError as error:
                        failures.append(error)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._concurrency, len(waiting))):
                    group.create_task(work())
        finally:
            self._record()
        if failures:
            raise failures[0]

    def _has(self, parcel: Parcel, marks: Mapping[str, Signature]) -> bool:
        sent = self._sent.get(parcel.path)
        return sent is not None and sent[0] == marks.get(parcel.name)

    async def _send(self, parcel: Parcel, looked: Signature | None, *, settled: bool) -> None:
        """Send a parcel; with `settled`, only one that is as it was when it was looked at."""
        bucket = await asyncio.shield(self._bucket)
        try:
            with seal.open_result(parcel.root, parcel.name) as (stream, found):
                if settled and found != looked:
                    return  # it is being written again
                # Of a hundred thousand files one signature each is enough in memory.
                mark = looked if looked == found else found
                sealed = await self._put(bucket, parcel, stream, mark.size)
        except OSError as error:
            self._sent.pop(parcel.path, None)
            if not isinstance(error, FileNotFoundError):
                self.unreadable[parcel.path] = seal.why_unreadable(error)
            return
        if sealed is None:
            return
        self.unreadable.pop(parcel.path, None)
        self._sent[parcel.path] = (mark, sealed)
        self._receipts.append((sealed, mark))
        late = monotonic() - self._recorded > RECEIPT_SECONDS
        if late or len(self._receipts) >= RECEIPTS or sealed.bytes > SMALL:
            self._record()
        self._progress.sent(sealed.bytes)

    def _record(self) -> None:
        """Write down in the spool what was sent."""
        receipts, self._receipts, self._recorded = self._receipts, [], monotonic()
        if not receipts:
            return
        try:
            self._run.record_uploads(receipts)
        except OSError as error:
            # A later run sends the files once more; this one has them in memory.
            self._log.warning("upload.not_noted", files=len(receipts), reason=str(error))

    async def _put(
        self, bucket: Bucket, parcel: Parcel, stream: IO[bytes], size: int
    ) -> Sealed | None:
        key = run_key(self._run.run_id, parcel.path)
        if size > SMALL and not parcel.evidence:
            return await self._put_large(bucket, key, parcel, stream, size)
        async with self._middling if size > TINY else nullcontext():
            data = _read(stream, size)
            if parcel.evidence:
                redactor = self._redactor()
                if redactor is None:
                    return None
                data = redactor.data(data)
            await bucket.put(key, data)
        return Sealed(parcel.path, len(data), hashlib.sha256(data).hexdigest(), parcel.job)

    async def _put_large(
        self, bucket: Bucket, key: str, parcel: Parcel, stream: IO[bytes], size: int
    ) -> Sealed:
        async with self._large:
            reader = Hashing(stream, digest := hashlib.sha256(), limit=size)
            try:
                await bucket.put_stream(key, reader)
            except StoreError:
                if reader.broken is not None:
                    raise reader.broken from None
                raise
        return Sealed(parcel.path, reader.count, digest.hexdigest(), parcel.job)

    def sealed(self, parcels: Iterable[Parcel]) -> list[Sealed]:
        """Return those of the parcels that are in the bucket, as they are there, in their order."""
        rows = ((parcel, self._sent.get(parcel.path)) for parcel in parcels)
        return [row[1].of_job(parcel.job) for parcel, row in rows if row is not None]

    def has_sent(self, parcel: Parcel, mark: Signature) -> bool:
        """Tell whether a file is in the bucket as it is now."""
        return self._has(parcel, {parcel.name: mark})

    def forget(self, path: str) -> None:
        """Have a resource sent again: the bucket does not have it as it was sent."""
        self._sent.pop(path, None)


def parcels_of(job: str, root: Path, names: Iterable[str]) -> list[Parcel]:
    """Return a job's results as parcels, in the order of their paths."""
    return [Parcel(root, name, f"{job}/{name}", job) for name in sorted(names)]


def _read(stream: IO[bytes], size: int) -> bytes:
    """Return a file's first `size` bytes, or all when it has fewer."""
    data = stream.read(size)
    while 0 < len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    """Tell whether an event was set before `seconds` were over."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
