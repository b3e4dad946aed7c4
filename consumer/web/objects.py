"""Objects of runs, read from the bucket: only what an entry commits, directly or through a package.

All of it is untrusted: a picture is shown as one only when its first bytes are those of one, logs and evidence are
plain text, everything else is a download, and all come in a sandbox without rights. The last piece is sent when size
and digest of the whole are right, so that what is forged ends short of its length.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.base.errors import MayflyError, StoreError
from agent.contract.descriptor import Resource, Role
from agent.contract.entries import Invalid, Object
from agent.contract.layout import DESCRIPTOR, EVIDENCE, LOGS, JobKey, LogKey, ManifestKey, parse_key
from agent.contract.package import Package
from consumer.bucket import ReadOnlyBucket
from consumer.entries import read_package
from consumer.model import Batch, Run
from consumer.page.given import MOST_LOG_BYTES, MOST_VIEW_BYTES, Text
from consumer.store import Store
from consumer.web.guard import PIECE_BYTES, plain

MOST_PACKAGE_BYTES = 4 * 1024**2
"""About 16,000 files; a larger package is looked at with `mayfly verify` and `mayfly pull`."""
MOST_READ_BYTES = 64 * 1024**2
"""Of a file that is read to its end to be verified, of which little is shown."""
KEPT_PACKAGES = 8
AT_ONCE = 4
"""Objects that are read for somebody; each may hold some megabytes."""
WAIT_SECONDS = 30.0
"""For a turn; then 503."""
EXPIRES = timedelta(days=2)
"""A run of which an object is not there, so long after it began, has been deleted; before that the store may lag."""
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
TEXTS = (".log", ".jsonl", ".txt", ".html", ".json", ".csv", ".md", ".xml")
SANDBOX = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}

Runs = Mapping[str, tuple[Batch, Run]]


class AbsentError(MayflyError):
    """There is no such object, or it is not what was committed."""


@dataclass(frozen=True, slots=True)
class File:
    """An object that is committed.

    Attributes:
        object: Its key, size and digest.
        mediatype: What it says that it is.
        name: What people call it.
        ours: Whether Mayfly wrote it, or keeps it as evidence: a text of it is shown.
    """

    object: Object
    mediatype: str
    name: str
    ours: bool


class Objects:
    """What is committed, read from the bucket."""

    def __init__(self, bucket: ReadOnlyBucket, store: Store) -> None:
        self._bucket = bucket
        self._store = store
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._packages: OrderedDict[tuple[str, str], Package] = OrderedDict()

    def use(self, store: Store) -> None:
        """Go on with a history that was opened again."""
        self._store = store

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and hold it.

        Raises:
            StoreError: It does not come in time.
        """
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._turns.acquire()
        except TimeoutError:
            raise StoreError("too many files are being read; try again") from None
        try:
            yield
        finally:
            self._turns.release()

    async def package(self, runs: Runs, run: str, job: str) -> Package | Invalid | None:
        """Return a job's package; None when it has none.

        Raises:
            StoreError: The bucket cannot be read.
        """
        if (run, job) in self._packages:
            self._packages.move_to_end((run, job))
            return self._packages[run, job]
        key = JobKey(run, job)
        committed = _of_job(runs, key)
        if committed is None:
            return None
        if committed.bytes > MOST_PACKAGE_BYTES:
            return Invalid("it is too large to be shown here: see `mayfly pull`")
        text = await self._bucket.get(committed.key, limit=committed.bytes)
        if text is None:
            await self._expire(*runs[run])
            return Invalid("it is not in the bucket any more")
        package = read_package(key, committed, text)
        if isinstance(package, Package):
            self._packages[run, job] = package
            while len(self._packages) > KEPT_PACKAGES:
                self._packages.popitem(last=False)
        return package

    async def file(self, runs: Runs, key: str) -> File:
        """Return the committed object at a key.

        Raises:
            AbsentError: Nothing commits it.
            StoreError: The bucket cannot be read.
        """
        match parse_key(key):
            case JobKey(run, job, path) as parsed if path != DESCRIPTOR:
                package = await self.package(runs, run, job)
                if isinstance(package, Package):
                    found = next((one for one in package.resources if one.path == path), None)
                    if found is not None:
                        return file_of(parsed, found)
                if isinstance(package, Invalid):
                    raise AbsentError(f"the job's package cannot be used: {package.reason}")
                committed = None
            case JobKey() as parsed:
                committed = _of_job(runs, parsed)
            case ManifestKey(run):
                closed = runs[run][1].closed if run in runs else None
                committed = closed.manifest if closed else None
            case LogKey(run):
                parts = await self._parts(runs, run)
                committed = next((part for part in parts if part.key == key), None)
            case _:
                committed = None
        if committed is None or committed.key != key:
            raise AbsentError("there is no such file")
        return File(committed, "text/plain", key.rpartition("/")[2], ours=True)

    async def log(self, runs: Runs, run: str) -> Text:
        """Return the end of a run's log, of the parts that are committed."""
        try:
            parts, cut, size = [], False, 0
            for part in reversed(await self._parts(runs, run)):
                if size >= MOST_LOG_BYTES:
                    cut = True
                    break
                text = await self.end(part, MOST_LOG_BYTES - size)
                parts.append(text.content)
                cut, size = text.cut, size + len(text.content)
        except MayflyError as error:
            return Text(problem=str(error))
        return Text(b"".join(reversed(parts)), cut)

    async def end(self, committed: Object, most: int) -> Text:
        """Return the end of an object.

        Raises:
            AbsentError, StoreError: It cannot be had.
        """
        kept = bytearray()
        async for piece in self._whole(committed):
            kept += piece
            del kept[:-most]
        return Text(bytes(kept), committed.bytes > most)

    async def beginning(self, committed: Object) -> Text:
        """Return the beginning of an object, all of which is verified."""
        kept = bytearray()
        try:
            async for piece in self._whole(committed):
                kept += piece[: max(0, MOST_VIEW_BYTES - len(kept))]
        except MayflyError as error:
            return Text(problem=str(error))
        return Text(bytes(kept), committed.bytes > MOST_VIEW_BYTES)

    def _whole(self, committed: Object) -> AsyncIterator[bytes]:
        if committed.bytes > MOST_READ_BYTES:
            raise AbsentError("it is too large to be shown here")
        return self.pieces(committed)

    async def pieces(self, committed: Object) -> AsyncGenerator[bytes, None]:
        """Yield an object; the last piece only when all of it is what was committed.

        Raises:
            AbsentError: It is not there, or not that.
            StoreError: The bucket cannot be read.
        """
        digest, size, held = sha256(), 0, b""
        found = self._bucket.pieces(committed.key, committed.bytes)
        try:
            async with aclosing(cast("AsyncGenerator[bytes, None]", found)) as source:
                async for piece in source:
                    size += len(piece)
                    if size > committed.bytes:
                        break
                    digest.update(piece)
                    if held:
                        yield held
                    held = piece
        except FileNotFoundError:
            raise AbsentError("the file is not in the bucket any more") from None
        if size != committed.bytes or digest.hexdigest() != committed.sha256:
            raise AbsentError("the file is not what was committed")
        yield held

    async def _parts(self, runs: Runs, run: str) -> tuple[Object, ...]:
        if run not in runs:
            return ()
        return await asyncio.to_thread(self._store.log_parts, runs[run][0].id, run)

    async def _expire(self, batch: Batch, run: Run) -> None:
        if batch.looked - run.started > EXPIRES:
            await asyncio.to_thread(self._store.expire, batch.id, run.id)


def _of_job(runs: Runs, key: JobKey) -> Object | None:
    jobs = runs[key.run][1].jobs if key.run in runs else ()
    return next((job.committed(key.run) for job in jobs if job.name == key.job), None)


def file_of(key: JobKey, resource: Resource) -> File:
    """Return a file of a job, as its package has it."""
    committed = Object(
        key=JobKey(key.run, key.job, resource.path).text,
        bytes=resource.bytes,
        sha256=resource.hash.removeprefix("sha256:"),
    )
    name = (resource.original or resource.path).rpartition("/")[2]
    return File(committed, resource.mediatype, name, resource.path.startswith((LOGS, EVIDENCE)))


def log_of(package: Package) -> Resource | None:
    """Return what the job's last attempt printed."""
    return next((one for one in reversed(package.resources) if one.role == Role.LOG), None)


class ObjectResponse(Response):
    """A committed object; a failure on the way ends it short of its length, which every client notices."""

    def __init__(self, objects: Objects, file: File) -> None:
        self._objects = objects
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, in small pieces, as long as somebody is there."""
        request, started = Request(scope, receive), False
        try:
            async with (
                self._objects.turn(),
                aclosing(self._objects.pieces(self._file.object)) as pieces,
            ):
                async for piece in pieces:
                    if not started:
                        await send(self._start(piece))
                        started = True
                    if request.method == "HEAD":
                        break
                    for at in range(0, len(piece), PIECE_BYTES):
                        if await request.is_disconnected():
                            return
                        body = piece[at : at + PIECE_BYTES]
                        await send({"type": "http.response.body", "body": body, "more_body": True})
        except (AbsentError, StoreError) as error:
            if started:
                raise
            await problem(error)(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b""})

    def _start(self, first: bytes) -> dict[str, object]:
        headers = {**SANDBOX, **_kind(self._file, first)}
        headers["Content-Length"] = str(self._file.object.bytes)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        return {"type": "http.response.start", "status": 200, "headers": raw}


def problem(error: MayflyError) -> Response:
    """Return the answer where an object cannot be had."""
    if isinstance(error, AbsentError):
        return plain(404, str(error))
    return plain(503, f"the bucket cannot be read now: {error}", {"Retry-After": "30"})


def _kind(file: File, first: bytes) -> dict[str, str]:
    magic = PICTURES.get(file.mediatype)
    if magic and first.startswith(magic):
        return {"Content-Type": file.mediatype}
    if not magic and file.ours and file.object.key.endswith(TEXTS):
        return {"Content-Type": "text/plain; charset=utf-8"}
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name, safe='')}",
    }
