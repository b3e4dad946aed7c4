"""The server under the application: uvicorn, bounded in connections, times and sizes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.base.errors import UsageError

CONNECTIONS = 500
"""Beyond them, requests are answered 503."""
MOST_HEADER_BYTES = 16 * 1024
IDLE_SECONDS = 15.0
"""Within twice that a request must have come whole, or the next on a connection that is kept."""
STOP_SECONDS = 1


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:9464`, `[::]:9464` or `:9464` (all IPv4 addresses).

    Raises:
        UsageError: It is none of them.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise UsageError(f"invalid address {text!r}: expected host:port, such as 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Take an address.

    Raises:
        UsageError: The address cannot be had.
    """
    try:
        *_, address = min(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        family = socket.AF_INET6 if ":" in str(address[0]) else socket.AF_INET
        both = host == "::" and socket.has_dualstack_ipv6()
        listener = socket.create_server(
            (str(address[0]), port), family=family, dualstack_ipv6=both, backlog=128
        )
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error}", remedy="choose another with --listen"
        ) from error
    with listener:
        yield listener


class Protocol(H11Protocol):
    """A connection that is closed when no request comes of it: uvicorn waits for a header as long as it drips."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch."""
        super().connection_made(transport)
        self._last: Any = self
        self._watch = self.loop.call_later(IDLE_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Watch no more."""
        self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        waits = self.cycle is None or self.cycle.response_complete
        if self.transport.is_closing() or (waits and self._last is self.cycle):
            self.transport.abort()
            return
        self._last = self.cycle if waits else self
        self._watch = self.loop.call_later(IDLE_SECONDS, self._look)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the program."""
        yield


@asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Answer requests at a socket; at the end, those under way have a second."""
    config = uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve([listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await task
