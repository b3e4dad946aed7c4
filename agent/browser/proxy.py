"""A WebDriver proxy: a second address of the browser, where scrapers look that were written for a Selenium Grid.

They use `http://localhost:4444/wd/hub` or `http://selenium:4444`. A Grid of today and a chromedriver are elsewhere, and
the latter has no `/wd/hub` and answers only to the name localhost. So the head of a request is rewritten, and the rest
is passed on as it is; as each connection is for one request, the proxy need not know where a request ends.
"""

import asyncio
import base64
import ipaddress
import json
import ssl
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from agent.base.redact import without_credentials

PREFIX = "/wd/hub"
"""The root of Selenium servers before version 4."""

CONNECT_SECONDS = 5.0
MAX_HEAD = 64 * 1024
MOST_CONNECTIONS = 100
"""At once: a session has one or two. Each takes two descriptors of the agent, which may have 1024 for all its work."""
_CHUNK = 64 * 1024
_NAMES = frozenset({"localhost", "selenium", "host.docker.internal"})
_REPLACED = frozenset({"host", "origin", "expect"})
"""Fields that are not passed on: a client that expects an answer before it sends the body sends it without one."""


class Refused(Exception):  # noqa: N818 -- the name states the fact
    """A request that is not passed on: its status line, and why."""


class Request(NamedTuple):
    """The head of a request as it is passed on, up to and with the empty line; and whether it asks for a WebSocket."""

    head: bytes
    upgrade: bool


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
    upgrade = known.get("upgrade", "").lower() == "websocket"
    dropped = _REPLACED if upgrade else _REPLACED | {"connection", "upgrade"}
    out = [f"{method} {path} {version}", f"Host: {url.netloc.rpartition('@')[2]}"]
    out += [f"{name}: {value}" for name, value in fields if name.lower() not in dropped]
    out += [] if "authorization" in known else _login(url)
    out += [] if upgrade else ["Connection: close"]
    return Request(("\r\n".join(out) + "\r\n\r\n").encode("latin-1"), upgrade)


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError(line)
    return name, value


def _login(url: SplitResult) -> list[str]:
    """Return the field with the login of an address, as a client that has the address would send it."""
    if url.username is None:
        return []
    login = f"{unquote(url.username)}:{unquote(url.password or '')}"
    return [f"Authorization: Basic {base64.b64encode(login.encode()).decode()}"]


def _is_ours(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    with suppress(ValueError):
        ipaddress.ip_address(name)
        return True
    return name in _NAMES


def _is_among(
    peer: tuple[str, int] | None, subnets: Collection[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Tell whether the other end of a connection, None when it is gone, has an address in one of the subnets."""
    return peer is not None and any(ipaddress.ip_address(peer[0]) in subnet for subnet in subnets)


@asynccontextmanager
async def webdriver_proxy(
    host: str, port: int, target: Callable[[], str], *, peers: Collection[str] | None = None
) -> AsyncIterator[None]:
    """Listen at an address during the block, and pass requests on to the browser whose URL `target` returns each time.

    With `peers`, subnets such as `172.18.0.0/16`, whoever has an address outside of them gets no answer.

    Raises:
        OSError: The address is taken, or not this machine's.
        ValueError: One of the peers is not a subnet.
    """
    subnets = None if peers is None else [ipaddress.ip_network(peer) for peer in peers]
    open_now: set[asyncio.Task[None]] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if subnets is not None and not _is_among(writer.get_extra_info("peername"), subnets):
            writer.transport.abort()
            return
        task = asyncio.current_task()
        if task is not None:
            open_now.add(task)
            task.add_done_callback(open_now.discard)
        with suppress(OSError, EOFError, asyncio.CancelledError):
            if len(open_now) > MOST_CONNECTIONS:
                writer.write(_answer("503 Service Unavailable", "too many connections at once"))
            else:
                await _serve(reader, writer, target())
            writer.close()
            await writer.wait_closed()  # a client that reads nothing has its connection until then
        writer.transport.abort()

    server = await asyncio.start_server(answer, host, port, limit=MAX_HEAD)
    try:
        yield
    finally:
        server.close()
        for task in list(open_now):
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str) -> None:
    """Pass on one request, and its answer."""
    try:
        request = await _request(reader, target)
        inner, outer = await _connect(target)
    except Refused as error:
        writer.write(_answer(*error.args))
        await writer.drain()
        return
    outer.write(request.head)
    sending = asyncio.create_task(_send(reader, outer))
    try:
        chunk = await inner.read(_CHUNK)
        if not request.upgrade:
            sending.cancel()  # what a client sends after this is another request, which nobody has checked
        while chunk:
            writer.write(chunk)
            await writer.drain()
            chunk = await inner.read(_CHUNK)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        outer.close()


async def _request(reader: asyncio.StreamReader, target: str) -> Request:
    try:
        return passed_on(await reader.readuntil(b"\r\n\r\n"), target)
    except asyncio.LimitOverrunError as error:
        raise Refused("431 Request Header Fields Too Large", "its head is too long") from error


async def _send(reader: asyncio.StreamReader, outer: asyncio.StreamWriter) -> None:
    """Pass on what the client sends, and that it has no more to say; it may still be told something."""
    with suppress(OSError):
        while chunk := await reader.read(_CHUNK):
            outer.write(chunk)
            await outer.drain()
    if outer.can_write_eof():
        outer.write_eof()


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


def _answer(status: str, reason: str) -> bytes:
    """Return an error in the form of WebDriver."""
    value = {"error": "unknown error", "message": f"mayfly: {reason}", "stacktrace": ""}
    body = json.dumps({"value": value}).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json; charset=utf-8\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
