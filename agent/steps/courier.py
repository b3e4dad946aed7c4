"""Takes a run's files to the bucket, while the jobs still run and at the end.

What is hashed is what was sent: each file is opened once, beneath its folder, and its digest is computed from the very
bytes that went out. A file that changes afterwards has another signature and is sent again.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from time import monotonic
from typing import IO

from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.base.progress import Progress
from agent.base.redact import Redactor
from agent.bucket.store import Bucket, Hashing
from agent.contract.names import bucket_path, written
from agent.core.datapackage import Sealed
from agent.core.layout import run_key
from agent.steps import seal
from agent.steps.receipts import Parcel
from agent.steps.seal import Seen, Signature
from agent.steps.spool import SpooledRun

LOOK_SECONDS = 1.0
"""Between two looks at a running job's output. A file is settled when two looks agree on its signature."""

SMALL = 1024**2
"""Files up to this are read in one go; larger ones pass a narrower gate, so that memory stays bounded."""
LARGE_AT_ONCE = 2
TINY = 128 * 1024
MIDDLING_AT_ONCE = 16
"""Files between tiny and large that are held in memory at once; of tiny ones, as many as there are requests."""

RECEIPTS = 64
RECEIPT_SECONDS = 0.25
"""What was sent is written down for so many small files together, or after so long: a kill costs their upload again."""

MOST_REMEMBERED = 10_000
"""Files of one look that the next is compared with; what is beyond has its turn when these are sent."""

LANDING_SECONDS = 5.0
PAUSE_SECONDS = 60.0
"""After a failed upload; the hand-off at the end has its own time for what is left."""


class Courier:
    """Sends the files of one run. What it sent, it writes down in the spool, and nowhere else.

    Attributes:
        unreadable: What was there and could not be read, with the reason.
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
        self._receipts: list[tuple[Sealed, Signature]] = []
        self._recorded = monotonic()
        self.unreadable: dict[Parcel, str] = {}

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
            pause = LOOK_SECONDS
            try:
                unsent = await asyncio.to_thread(self._unsent, job, root)
                settled = [parcel for parcel in unsent if before.get(parcel.path) == parcel.mark]
                before = {parcel.path: parcel.mark for parcel in unsent if parcel.mark}
                if settled:
                    await self.send([settled], stop=stop)
            except (StoreError, OSError) as error:
                self._log.warning("upload.postponed", job=job, reason=str(error))
                pause = PAUSE_SECONDS

    def _unsent(self, job: str, root: Path) -> list[Parcel]:
        """Return the files of a job that are not in the bucket, or not as they are now; the first thousands of them."""
        unsent: list[Parcel] = []
        for some in parcels_of(job, root, Seen()):
            unsent += self._run.receipts.lacking(some)
            if len(unsent) >= MOST_REMEMBERED:
                break
        return unsent

    async def send(
        self,
        parcels: Iterable[Sequence[Parcel]],
        *,
        expected: bool = False,
        stop: asyncio.Event | None = None,
    ) -> None:
        """Send every parcel that is not in the bucket as it is now.

        Args:
            parcels: What to send, some at a time; taken in a thread. One whose file is gone, or is no longer a regular
                file, is left out.
            expected: Whether the manifest shall name them.
            stop: Once set, nothing more is begun; what is no longer as it was when it was looked at, is left out.

        Raises:
            StoreError: One could not be sent; the others may have been.
            OSError: The disk refuses to remember what was sent.
        """
        receipts = self._run.receipts
        supply = _Supply(parcels, receipts.expect if expected else receipts.lacking)
        failures: list[StoreError | OSError] = []

        async def work() -> None:
            while not failures and not (stop is not None and stop.is_set()):
                try:
                    parcel = await supply.next()
                    if parcel is None:
                        return
                    async with self._slots:
                        await self._send(parcel, settled=stop is not None)
                except (StoreError, OSError) as error:
                    failures.append(error)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._concurrency):
                    group.create_task(work())
        finally:
            self._record()
        if failures:
            raise failures[0]

    async def _send(self, parcel: Parcel, *, settled: bool) -> None:
        """Send a parcel; with `settled`, only one that is as it was when it was looked at."""
        bucket = await asyncio.shield(self._bucket)
        try:
            with seal.open_result(parcel.root, parcel.name) as (stream, found):
                if settled and found != parcel.mark:
                    return  # it is being written again
                sealed = await self._put(bucket, parcel, stream, found.size)
        except OSError as error:
            self._run.receipts.drop(parcel.path)
            if not isinstance(error, FileNotFoundError):
                self.unreadable[parcel] = seal.why_unreadable(error)
            return
        if sealed is None:
            return
        self.unreadable.pop(parcel, None)
        self._receipts.append((sealed, found))
        late = monotonic() - self._recorded > RECEIPT_SECONDS
        if late or len(self._receipts) >= RECEIPTS or sealed.bytes > SMALL:
            self._record()
        self._progress.sent(sealed.bytes)

    def _record(self) -> None:
        """Write down in the spool what was sent."""
        receipts, self._receipts, self._recorded = self._receipts, [], monotonic()
        if receipts:
            self._run.receipts.note(receipts)

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
        return _sealed(parcel, len(data), hashlib.sha256(data).hexdigest())

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
        return _sealed(parcel, reader.count, digest.hexdigest())


def _sealed(parcel: Parcel, size: int, digest: str) -> Sealed:
    return Sealed(parcel.path, size, digest, parcel.of_job, original=parcel.original)


class _Supply:
    """Hands out what lacks in the bucket, to many at once; threads ask the disk, no further than is needed."""

    def __init__(
        self,
        parcels: Iterable[Sequence[Parcel]],
        lacking: Callable[[Sequence[Parcel]], list[Parcel]],
    ) -> None:
        self._rest = iter(parcels)
        self._lacking = lacking
        self._ready: deque[Parcel] = deque()
        self._turn = asyncio.Lock()

    async def next(self) -> Parcel | None:
        """Return one more; None when there is none."""
        async with self._turn:
            while not self._ready:
                more = await asyncio.to_thread(self._more)
                if more is None:
                    return None
                self._ready += more
            return self._ready.popleft()

    def _more(self) -> list[Parcel] | None:
        some = next(self._rest, None)
        return None if some is None else self._lacking(some)


def parcels_of(job: str, root: Path, seen: Seen) -> Iterator[list[Parcel]]:
    """Yield a job's results as parcels, in the order of their paths, some at a time."""
    for some in seal.walk(root, seen):
        yield [_result(job, root, name, mark) for name, mark in some]


def _result(job: str, root: Path, name: str, mark: Signature) -> Parcel:
    path = bucket_path(name)
    original = "" if path == name else written(name)
    return Parcel(root, name, f"{job}/{path}", job, mark, original=original)


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
