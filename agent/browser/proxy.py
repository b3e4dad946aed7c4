"""A WebDriver proxy: a second address of the browser, where scrapers look that were written for a Selenium Grid.

They use `http://localhost:4444/wd/hub` or `http://selenium:4444`. A Grid of today and a chromedriver are elsewhere, and
the latter has no `/wd/hub` and answers only to the name localhost. So heads of requests are rewritten; answers are
passed on as they are.
"""

import asyncio
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.base.redact import without_credentials

PREFIX = "/wd/hub"
"""The root of Selenium servers before version 4."""

CONNECT_SECONDS = 5.0
MAX_HEAD = 64 * 1024
_CHUNK = 64 * 1024
_NAMES = frozenset({"localhost", "selenium", "host.docker.internal"})


class Refused(Exception):  # noqa: N818 -- the name states the fact
    """A request that is not passed on: its status line, and why."""


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request as it is passed on, and what follows it.

    Attributes:
        head: Up to and with the empty line.
        length: Bytes of its body; None for a body in chunks.
        upgrade: Whether the rest of the connection is not HTTP.
    """

    head: bytes
    length: int | None = 0
    upgrade: bool = False


def passed_on(head: bytes, target: str) -> Request:
    """Return a request's head in the form that the browser at `target` needs.

    A page in a browser can reach this address as well, by name or by redirecting its own name here: a page's requests
    have `Origin`, and requests for another name have that in `Host`.

    Raises:
        Refused: It is not a client's.
    """
    try:
        first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, path, version = first.split(" ")
        fields = [(name.strip(), value.strip()) for name, value in (_field(line) for line in lines)]
    except ValueError as error:
        raise Refused("400 Bad Request", "it is not HTTP") from error
    known = {name.lower(): value for name, value in fields}
    host = known.get("host", "")
    if not _is_ours(host):
        raise Refused("403 Forbidden", "it was meant for another host")
    if "origin" in known and urlsplit(known["origin"]).netloc != host:
        raise Refused("403 Forbidden", "it comes from a page")
    url = urlsplit(target)
    path = f"{url.path.rstrip('/')}{path.removeprefix(PREFIX) or '/'}"
    kept = [item for item in fields if item[0].lower() not in {"host", "origin"}]
    out = [f"{method} {path} {version}", f"Host: {url.netloc.rpartition('@')[2]}"]
    out += [f"{name}: {value}" for name, value in kept]
    length = known.get("content-length", "0")
    if not (length.isascii() and length.isdecimal()):
        raise Refused("400 Bad Request", "its length is not a number")
    return Request(
        ("\r\n".join(out) + "\r\n\r\n").encode("latin-1"),
        None if "chunked" in known.get("transfer-encoding", "").lower() else int(length),
        upgrade="upgrade" in known.get("connection", "").lower(),
    )


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(line)
    return name, value


def _is_ours(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in _NAMES


@asynccontextmanager
async def webdriver_proxy(host: str, port: int, target: Callable[[], str]) -> AsyncIterator[None]:
    """Listen at an address during the block, and pass requests on to a browser.

    Args:
        host: The address.
        port: Its port.
        target: Returns the browser's WebDriver URL; asked for each connection.

    Raises:
        OSError: The address is taken, or not this machine's.
    """
    open_now: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            open_now.add(task)
            task.add_done_callback(open_now.discard)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            await _serve(reader, writer, target())
        writer.close()

    server = await asyncio.start_server(answer, host, port, limit=MAX_HEAD)
    try:
        yield
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
    """Pass on the requests of one connection, over one connection to the browser."""
    try:
        request = await _next(reader, target)
        if request is None:
            return
        inner, outer = await _connect(target)
    except Refused as error:
        writer.write(_answer(*error.args))
        await writer.drain()
        return
    back = asyncio.create_task(_pump(inner, writer))
    forth = asyncio.create_task(_forward(request, reader, outer, target))
    try:
        done, _ = await asyncio.wait({back, forth}, return_when=asyncio.FIRST_COMPLETED)
        if forth in done and not isinstance(forth.exception(), Refused):
            # The client has no more to say; it may still be told something.
            if outer.can_write_eof():
                outer.write_eof()
            await back
    finally:
        back.cancel()
        forth.cancel()
        await asyncio.gather(back, forth, return_exceptions=True)
        outer.close()


async def _next(reader: asyncio.StreamReader, target: str) -> Request | None:
    """Return the next request's head; None at the end."""
    try:
        return passed_on(await reader.readuntil(b"\r\n\r\n"), target)
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError as error:
        raise Refused("431 Request Header Fields Too Large", "its head is too long") from error


async def _connect(target: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    url = urlsplit(target)
    secure = ssl.create_default_context() if url.scheme == "https" else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await asyncio.open_connection(
                url.hostname or "", url.port or (443 if secure else 80), ssl=secure
            )
    except (OSError, TimeoutError) as error:
        shown = without_credentials(target) or "yet"
        raise Refused("502 Bad Gateway", f"there is no browser at {shown}") from error


async def _forward(
    request: Request | None, reader: asyncio.StreamReader, outer: asyncio.StreamWriter, target: str
) -> None:
    while request is not None:
        outer.write(request.head)
        if request.upgrade:
            await _pump(reader, outer)
            return
        await _body(request.length, reader, outer)
        request = await _next(reader, target)


async def _body(
    length: int | None, reader: asyncio.StreamReader, outer: asyncio.StreamWriter
) -> None:
    if length is None:
        while True:
            line = await reader.readuntil(b"\r\n")
            outer.write(line)
            size = int(line.split(b";")[0], 16)
            if size == 0:
                break
            await _body(size + 2, reader, outer)
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            outer.write(line)
        outer.write(line)
        length = 0
    while length:
        chunk = await reader.read(min(length, _CHUNK))
        if not chunk:
            raise EOFError
        outer.write(chunk)
        await outer.drain()
        length -= len(chunk)
    await outer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()


def _answer(status: str, reason: str) -> bytes:
    """Return an error in the form of WebDriver."""
    value = {"error": "unknown error", "message": f"mayfly: {reason}", "stacktrace": ""}
    body = json.dumps({"value": value}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
