"""The uploader of a run: sends files of its jobs to the bucket, while the jobs run and when they have ended.

The digest of a file is that of the bytes that were sent: it is opened once, and hashed on the way. A file that changes
afterwards has another signature and is sent again.
"""

import asyncio
import hashlib
import os
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import IO

from agent.base.errors import StoreError
from agent.base.logs import Log
from agent.base.redact import Redactor
from agent.base.stop import first
from agent.bucket.address import PASSING
from agent.bucket.store import PIECE_BYTES, Bucket
from agent.contract.descriptor import Role, Sealed
from agent.contract.layout import JobKey
from agent.delivery.database import fenced
from agent.delivery.scan import Scan, Signature, open_file, read_start, walk, why_unreadable
from agent.delivery.sent import OutboxFile, SentFiles, result_file

SCAN_SECONDS = 1.0
"""Between two scans of a running job's output. A file is settled when two scans agree on its signature."""
SCAN_SHARE = 10
"""A scan that takes long is made less often: it takes a tenth of the time at most."""

SMALL = 1024**2
"""Files up to this are read in one go; larger ones pass a narrower gate, so that memory stays bounded."""
LARGE_AT_ONCE = 2
LARGE_TRIES = 3
TINY = 128 * 1024
MIDDLING_AT_ONCE = 16
"""Files between tiny and large that are in memory at once; of tiny ones, as many as there are requests."""
MOST_REDACTED = 64 * 1024**2
"""Bytes of a log or of evidence that are sent: secrets are removed in memory. Logs have a much lower limit."""

NOTED_AT_ONCE = 64
NOTE_SECONDS = 0.25
"""Small files are noted as sent together, so many or after so long: a kill costs the upload of one such group."""

MOST_REMEMBERED = 10_000
"""Files of one scan that are compared with the next; the others follow once these are sent."""

LANDING_SECONDS = 5.0
"""For uploads that are under way when a job ends."""
PAUSE_SECONDS = 60.0
"""After a failed upload while a job runs; when it has ended, everything that is lacking is sent."""


class Uploader:
    """Sends the files of one run's jobs, and notes in the run's database what it sent.

    What it is made with is described at `Delivery`. While the secrets are not known, no log and no evidence is sent.
    """

    def __init__(
        self,
        run: str,
        sent: SentFiles,
        bucket: "asyncio.Future[Bucket]",
        *,
        concurrency: int,
        redactor: Callable[[], Redactor | None],
        log: Log,
        progress: Callable[[int], None],
    ) -> None:
        self._run = run
        self._sent = sent
        self._bucket = bucket
        self._concurrency = concurrency
        self._redactor = redactor
        self._log = log
        self._progress = progress
        self._requests = asyncio.Semaphore(concurrency)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)
        self._middling = asyncio.Semaphore(MIDDLING_AT_ONCE)
        self._notes: deque[tuple[OutboxFile, Sealed, Signature]] = deque()
        self._noting = Lock()
        self._noted = monotonic()

    @property
    def redacts(self) -> bool:
        """Whether logs and evidence can be sent, because the secrets to hide in them are known."""
        return self._redactor() is not None

    @asynccontextmanager
    async def watch(self, job: str, root: Path) -> AsyncIterator[None]:
        """Send what settles in a job's output while the block runs; failures wait for the job's end."""
        stop = asyncio.Event()
        task = asyncio.create_task(self._follow(job, root, stop))
        try:
            yield
        finally:
            stop.set()
            try:
                # What is on its way may arrive; what takes longer than this is sent again at the end.
                await asyncio.wait([task], timeout=LANDING_SECONDS)
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _follow(self, job: str, root: Path, stop: asyncio.Event) -> None:
        before: dict[str, Signature] = {}
        pause = SCAN_SECONDS
        while await first(stop.wait(), seconds=pause) is None:
            began = monotonic()
            try:
                unsent = await asyncio.to_thread(self._unsent, job, root)
                pause = max(SCAN_SECONDS, SCAN_SHARE * (monotonic() - began))
                settled = [file for file in unsent if before.get(file.path) == file.signature]
                before = {file.path: file.signature for file in unsent if file.signature}
                if settled:
                    await self.send([settled], stop=stop)
            except (StoreError, OSError) as error:
                self._log.warning("upload.postponed", job=job, reason=str(error))
                pause = PAUSE_SECONDS

    def _unsent(self, job: str, root: Path) -> list[OutboxFile]:
        """Return files of a job that the bucket does not have as they are now: about `MOST_REMEMBERED` at most."""
        unsent: list[OutboxFile] = []
        for some in results_of(job, root, Scan()):
            unsent += self._sent.lacking(some)
            if len(unsent) >= MOST_REMEMBERED:
                break
        return unsent

    async def send(
        self, pages: Iterable[Sequence[OutboxFile]], *, stop: asyncio.Event | None = None
    ) -> dict[OutboxFile, str]:
        """Send files.

        Args:
            pages: Files that the bucket lacks, some at a time; read in a thread.
            stop: Set to begin no further upload. With it, a file that has changed since its scan is left out.

        Returns:
            What could not be read, with the reason; of a file that is gone, an empty one.

        Raises:
            StoreError: One could not be sent; the others may have been.
            OSError: The disk refuses to remember what was sent, or one of `SHORTAGES`.
        """
        supply = _Supply(pages)
        unreadable: dict[OutboxFile, str] = {}
        failures: list[StoreError | OSError] = []

        async def work(others: int) -> None:
            begun = not others
            while not failures and not (stop is not None and stop.is_set()):
                try:
                    file = await supply.next()
                    if file is None:
                        return
                    if not begun:  # one worker more with each file: most jobs leave fewer than there may be requests
                        begun = True
                        group.create_task(work(others - 1))
                    # Large files wait before they take a request, so that no small one waits for them.
                    gate = self._large if file.size > SMALL else nullcontext()
                    async with gate, self._requests:
                        problem = await self._send(file, settled=stop is not None)
                except (StoreError, OSError) as error:
                    failures.append(error)
                else:
                    if problem is not None:
                        unreadable[file] = problem

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(work(self._concurrency - 1))
        finally:
            await fenced(self._note)
        if failures:
            raise failures[0]
        return unreadable

    async def _send(self, file: OutboxFile, *, settled: bool) -> str | None:
        """Send a file, with `settled` only if it is as it was scanned; see `send` for what is returned."""
        bucket = await asyncio.shield(self._bucket)
        try:
            with open_file(file.root, file.name) as (stream, found):
                if settled:
                    if found != file.signature:
                        return None  # it is being written again
                    # Its program goes on. A write to a mapped page that is dirty already changes no signature; and a
                    # power cut could take this content from the disk, and leave it in the bucket.
                    await asyncio.to_thread(os.fsync, stream.fileno())
                sealed = await self._put(bucket, file, stream, found.size)
        except FileNotFoundError:
            return ""
        except OSError as error:
            return why_unreadable(error)
        if sealed is None:
            return None
        self._notes.append((file, sealed, found))
        late = monotonic() - self._noted > NOTE_SECONDS
        if late or len(self._notes) >= NOTED_AT_ONCE or sealed.bytes > SMALL:
            await fenced(self._note)
        self._progress(sealed.bytes)
        return None

    def _note(self) -> None:
        """Note in the run's database what was sent, of whichever job.

        The lock is held until it is written: a job's package is sealed next, and names only what is noted by then.
        """
        with self._noting:
            self._noted = monotonic()
            notes = list(self._notes)
            if notes:
                self._sent.note(notes)
            for _ in notes:
                self._notes.popleft()

    async def _put(
        self, bucket: Bucket, file: OutboxFile, stream: IO[bytes], size: int
    ) -> Sealed | None:
        key = JobKey(self._run, file.job, file.path).text
        if file.role is not Role.RESULT:
            return await self._put_redacted(bucket, key, file, stream, size)
        if size > SMALL:
            return await self._put_large(bucket, key, file, stream, size)
        if size <= TINY:
            data = read_start(stream, size)
            await bucket.put(key, data)
            return _sealed(file, data)
        async with self._middling:
            data = await asyncio.to_thread(read_start, stream, size)
            await bucket.put(key, data)
            return await asyncio.to_thread(_sealed, file, data)

    async def _put_redacted(
        self, bucket: Bucket, key: str, file: OutboxFile, stream: IO[bytes], size: int
    ) -> Sealed | None:
        redactor = self._redactor()
        if redactor is None:
            return None
        read = await asyncio.to_thread(read_start, stream, min(size, MOST_REDACTED))
        data = await asyncio.to_thread(redactor.data, read)
        await bucket.put(key, data)
        return await asyncio.to_thread(_sealed, file, data)

    async def _put_large(
        self, bucket: Bucket, key: str, file: OutboxFile, stream: IO[bytes], size: int
    ) -> Sealed:
        for last in (*[False] * (LARGE_TRIES - 1), True):
            stream.seek(0)
            digest = hashlib.sha256()
            try:
                await bucket.put_stream(key, _hashed(stream, digest, size))
            except StoreError as error:
                if last or error.code not in PASSING:
                    raise
            else:
                break
        return Sealed(file.path, stream.tell(), digest.hexdigest(), file.role, file.original)


def results_of(job: str, root: Path, result: Scan) -> Iterator[list[OutboxFile]]:
    """Yield a job's results, in the order of their paths, some at a time."""
    for some in walk(root, result):
        yield [result_file(job, root, found) for found in some]


def _hashed(stream: IO[bytes], digest: "hashlib._Hash", limit: int) -> Iterator[bytes]:
    """Yield a file in pieces and hash them, so that the hash is that of the bytes that were sent.

    It ends at `limit` bytes: somebody may append to the file faster than it is sent.
    """
    while chunk := stream.read(min(PIECE_BYTES, limit - stream.tell())):
        digest.update(chunk)
        yield chunk


def _sealed(file: OutboxFile, data: bytes) -> Sealed:
    digest = hashlib.sha256(data).hexdigest()
    return Sealed(file.path, len(data), digest, file.role, file.original)


class _Supply:
    """Gives files to several workers; the next page is read when one needs it."""

    def __init__(self, pages: Iterable[Sequence[OutboxFile]]) -> None:
        self._rest: Iterator[Sequence[OutboxFile]] | None = iter(pages)
        self._ready: deque[OutboxFile] = deque()
        self._turn = asyncio.Lock()

    async def next(self) -> OutboxFile | None:
        """Return the next file; None after the last."""
        async with self._turn:
            while not self._ready and self._rest is not None:
                more = await fenced(next, self._rest, None)
                if more is None:
                    # Every worker asks once more: a thread looks for the first of them alone.
                    self._rest = None
                else:
                    self._ready += more
            return self._ready.popleft() if self._ready else None
