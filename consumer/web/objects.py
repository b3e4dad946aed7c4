"""Objects of runs as answers of the service.

All of it is untrusted: a picture is shown as one only when its first bytes are those of one, logs and evidence are
plain text, everything else is a download, and all come in a sandbox without rights.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from agent.base.errors import MayflyError, StoreError
from consumer.objects import AbsentError, File, Objects
from consumer.page.file import PICTURES
from consumer.web.guard import PIECE_BYTES, plain

AT_ONCE = 4
"""Objects that are sent, and again that are read for a page; each may hold some megabytes."""
WAIT_SECONDS = 30.0
"""For a turn; then 503."""
TEXTS = (".log", ".jsonl", ".txt", ".html", ".json", ".csv", ".md", ".xml")
SANDBOX = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cache-Control": "private, max-age=3600",
}


@asynccontextmanager
async def turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    """Wait for a turn, and hold it.

    Raises:
        StoreError: It does not come in time.
    """
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            await turns.acquire()
    except TimeoutError:
        raise StoreError("too many files are being read; try again") from None
    try:
        yield
    finally:
        turns.release()


class ObjectResponse(Response):
    """A committed object; a failure on the way ends it short of its length, which every client notices."""

    def __init__(self, objects: Objects, turns: asyncio.Semaphore, file: File) -> None:
        self._objects = objects
        self._turns = turns
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it, in small pieces, as long as somebody is there."""
        request, started = Request(scope, receive), False
        try:
            async with (
                turn(self._turns),
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
            if not started:  # else the server closes the connection, short of the length
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
    return plain(503, f"not now: {error}", {"Retry-After": "30"})


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
