"""Files of runs, from the bucket through the server: only what the verified manifest of a committed run names.

Everything in them comes from strangers, so nothing is ever shown as what it might be: pictures only when their first
bytes are those of PNG or JPEG, the agent's texts as plain text, all else as a download, in a sandbox without rights.
"""

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self, TypeVar
from urllib.parse import quote

from agent.core.ids import is_run_id
from agent.core.layout import MANIFEST, manifest_key, run_key

from agent.base.errors import MayflyError, StoreError
from agent.contract.names import MAX_PATH_BYTES, path_problem
from consumer.answers import run_url
from consumer.archive.intake import (
    MAX_REF,
    IncredibleError,
    text_of,
    verified_document,
)
from consumer.archive.reader import Reader
from consumer.archive.schema import ArchiveError
from consumer.bucket import ANSWER_SECONDS, ReadOnlyBucket, TooLargeError
from consumer.queries import FileLine, RunFiles
from consumer.serve.http import Response, plain

MAX_MANIFEST_BYTES = 16 * 1024**2
"""About 50,000 files; a larger manifest is looked at with `mayfly verify` and `mayfly pull`."""
MAX_PICTURE_BYTES = 20 * 1024**2
"""As much evidence as an agent keeps of a job. Pictures are hashed before the first byte is sent."""
AT_ONCE = 4
"""Requests that may wait for the bucket or for a slow reader: half of the server's threads, so that metrics always
have one."""
MAX_TEXT_BYTES = 1024**3
"""Of a log that is read to its end to be verified, however little of it is kept."""
LISTED = 1000
KEPT_MANIFESTS = 4
GRACE_SECONDS = 5.0
PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n", "image/jpeg": b"\xff\xd8\xff"}
TEXTS = (".log", ".jsonl", ".txt", ".html", ".json", ".csv", ".md", ".xml")
SANDBOX = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}

BUSY = "too many files are being read; try again"

Value = TypeVar("Value")


class NotThereError(MayflyError):
    """There is no such run, or it has no such file."""


@dataclass(frozen=True, slots=True)
class Named:
    """A file as a verified manifest names it."""

    path: str
    bytes: int
    hash: str
    mediatype: str
    job: str
    partial: bool
    original: str

    @property
    def shown(self) -> str:
        """What people call it: the name that the job gave it."""
        return f"{self.job}/{self.original}" if self.original else self.path


class Bridge:
    """Lets threads use what lives in an event loop; every wait is bounded."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call(self, work: Coroutine[None, None, Value]) -> Value:
        """Return what a coroutine returns.

        Raises:
            StoreError: It takes too long.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(ANSWER_SECONDS + GRACE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise StoreError("the bucket does not answer") from None

    def pieces(self, source: AsyncIterator[bytes]) -> Iterator[bytes]:
        """Yield what an asynchronous iterator yields."""

        async def following() -> bytes | None:
            return await anext(source, None)

        while (piece := self.call(following())) is not None:
            yield piece


class Files:
    """The files of committed runs."""

    def __init__(self, bucket: ReadOnlyBucket, reader: Reader, bridge: Bridge) -> None:
        self._bucket = bucket
        self._reader = reader
        self._bridge = bridge
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(AT_ONCE)
        self._kept: OrderedDict[str, dict[str, Named]] = OrderedDict()

    def listed(self, run: str) -> RunFiles:
        """Return the files of a run, for the page."""
        if not self._slots.acquire(blocking=False):
            return RunFiles(problem=BUSY)
        try:
            named = self.named(run)
        except MayflyError as error:
            return RunFiles(problem=str(error))
        finally:
            self._slots.release()
        lines = (
            FileLine(
                one.shown, run_url(run, one.path), one.bytes, one.mediatype, one.job, one.partial
            )
            for _, one in zip(range(LISTED), named.values(), strict=False)
        )
        return RunFiles(tuple(lines), len(named))

    def named(self, run: str) -> dict[str, Named]:
        """Return the files that the verified manifest of a run names, by path.

        Raises:
            NotThereError: There is no such run, or its manifest cannot be believed.
            StoreError: The bucket cannot be read.
        """
        with self._lock:
            if run in self._kept:
                self._kept.move_to_end(run)
                return self._kept[run]
        found = _named(self._manifest(run)[1])
        with self._lock:
            self._kept[run] = found
            while len(self._kept) > KEPT_MANIFESTS:
                self._kept.popitem(last=False)
            return found

    def _manifest(self, run: str) -> tuple[bytes, dict[str, object]]:
        about = self._reader.committed(run) if is_run_id(run) else None
        if about is None:
            raise NotThereError("there is no such run")
        if about.bytes > MAX_MANIFEST_BYTES:
            raise NotThereError("its manifest is too large to be shown here")
        try:
            text = self._bridge.call(self._bucket.get(manifest_key(run), limit=about.bytes))
            if text is None:
                raise NotThereError("its manifest is not in the bucket any more")
            return text, verified_document(text, about.bytes, about.sha256)
        except (IncredibleError, TooLargeError) as error:
            raise NotThereError(str(error)) from error

    def respond(self, run: str, path: str, *, content: bool) -> Response:
        """Return a file; `content` is False for HEAD."""
        if not self._slots.acquire(blocking=False):
            return plain(503, BUSY)
        try:
            response = self._answer(run, path, content=content)
        except BaseException:
            self._slots.release()
            raise
        if isinstance(response.body, bytes):
            self._slots.release()
            return response
        return replace(response, body=_Stream(response.body, self._slots.release))

    def _answer(self, run: str, path: str, *, content: bool) -> Response:
        try:
            if path == MANIFEST:
                text, _ = self._manifest(run)
                return Response(200, {**SANDBOX, "Content-Type": "text/plain; charset=utf-8"}, text)
            one = self.named(run).get(path)
            if one is None:
                return plain(404, "no such file")
            return self._file(run, one, content=content)
        except NotThereError as error:
            return plain(404, str(error))
        except StoreError:
            return plain(502, "the bucket cannot be read now")
        except ArchiveError:
            return plain(503, "the history cannot be read now")

    def _file(self, run: str, one: Named, *, content: bool) -> Response:
        if one.mediatype in PICTURES and one.bytes <= MAX_PICTURE_BYTES:
            body = b"".join(self._pieces(run, one))
            real = body.startswith(PICTURES[one.mediatype])
            kind = {"Content-Type": one.mediatype} if real else _download(one)
            return Response(200, {**SANDBOX, **kind}, body)
        shown = not one.job and one.path.endswith(TEXTS)
        kind = {"Content-Type": "text/plain; charset=utf-8"} if shown else _download(one)
        if not content:
            return Response(200, {**SANDBOX, **kind}, length=one.bytes)
        return Response(200, {**SANDBOX, **kind}, self._pieces(run, one), one.bytes)

    def head_of(self, run: str, path: str, limit: int) -> bytes:
        """Return the whole lines within the first `limit` bytes of a file, all of which is verified.

        Raises:
            NotThereError: There is no such file, or it is not what the manifest says.
            StoreError: The bucket cannot be read.
        """
        one = self.named(run).get(path)
        if one is None or one.bytes > MAX_TEXT_BYTES:
            raise NotThereError("there is no such file, or it is too large")
        kept = bytearray()
        for piece in self._pieces(run, one):
            kept += piece[: max(0, limit - len(kept))]
        return bytes(kept) if one.bytes <= limit else bytes(kept[: kept.rfind(b"\n") + 1])

    def _pieces(self, run: str, one: Named) -> Iterator[bytes]:
        """Yield a file; the last piece only when all of it is as declared, so that a lie ends short of its length.

        Raises:
            NotThereError: It is not there, or not what the manifest says.
            StoreError: The bucket cannot be read.
        """
        digest, size, held = sha256(), 0, b""
        source = self._bucket.pieces(run_key(run, one.path), one.bytes)
        try:
            for piece in self._bridge.pieces(source):
                size += len(piece)
                if size > one.bytes:
                    break
                digest.update(piece)
                if held:
                    yield held
                held = piece
        except FileNotFoundError:
            raise NotThereError("the file is not in the bucket any more") from None
        if size != one.bytes or f"sha256:{digest.hexdigest()}" != one.hash:
            raise NotThereError("the file is not what its manifest says")
        yield held


class _Stream:
    """Pieces; a failure on the way ends them short of the declared length, which every client notices.

    The server calls `close` when they end, and when nobody wants them any more.
    """

    def __init__(self, pieces: Iterator[bytes], ended: Callable[[], None]) -> None:
        self._pieces = pieces
        self._ended: Callable[[], None] | None = ended

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._pieces)
        except MayflyError:
            raise StopIteration from None

    def close(self) -> None:
        """End, once."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()


def _download(one: Named) -> dict[str, str]:
    name = quote(one.shown.rpartition("/")[2], safe="")
    return {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }


def _named(document: dict[str, object]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    resources = document.get("resources")
    for one in resources if isinstance(resources, list) else []:
        if not isinstance(one, dict):
            continue
        path, size, digest = one.get("path"), one.get("bytes"), one.get("hash")
        if not isinstance(path, str) or path_problem(path) or not isinstance(digest, str):
            continue
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**63:
            continue
        kind, job, original = (one.get(key) for key in ("mediatype", "mayfly:job", "mayfly:path"))
        found[path] = Named(
            path=path,
            bytes=size,
            hash=digest,
            mediatype=text_of(kind, MAX_REF) if isinstance(kind, str) else "",
            job=text_of(job, MAX_REF) if isinstance(job, str) else "",
            partial=one.get("mayfly:partial") is True,
            original=text_of(original, MAX_PATH_BYTES) if isinstance(original, str) else "",
        )
    return found
