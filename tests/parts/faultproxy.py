"""An HTTP proxy in front of the S3 server, with faults that a test switches on and off.

Requests are passed on byte for byte, with their Host header, so that their signatures stay valid. A client signs its
conditions and the hash of its content (obstore does both), so the faults that change either are done by the proxy
itself, as a user of the store.
"""

import hashlib
import http.client
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote

from tests.parts.faults import (
    Answer,
    BlackHole,
    Corrupt,
    Delay,
    Fault,
    HalfClose,
    IgnoreConditions,
    Lie,
    LoseAnswer,
    ResetDownload,
    ResetUpload,
    Throttle,
)
from tests.parts.loopback_http import LoopbackHttp, QuietHandler
from tests.parts.ports import LOOPBACK, free_port
from tests.parts.seaweed import S3Server

UPSTREAM_SECONDS = 60
PIECES_PER_SECOND = 20
CONDITIONS = ("If-None-Match", "If-Match")
OF_ITS_OWN = ("transfer-encoding", "connection", "content-length")
"""Headers that every connection has of its own."""


@dataclass(frozen=True)
class Seen:
    """One request that arrived at the proxy.

    Attributes:
        path: The request target, with its query and still percent-encoded.
        size: Bytes of the request's body that were read.
        status: What was answered; None when nothing was.
        headers: By lower-case name.
    """

    method: str
    path: str
    size: int
    status: int | None
    headers: dict[str, str]


@dataclass
class _Rule:
    fault: Fault
    method: str
    path: str
    left: float


class _ConnectionLostError(Exception):
    """Inside the proxy: this connection ends with a reset, now."""


class FaultProxy:
    """A proxy in front of an `S3Server`, as a context manager.

    Attributes:
        seen: The requests that were answered or given up, in the order in which they were.
        met: How many requests have met a fault.
    """

    def __init__(self, store: S3Server) -> None:
        self.store = store
        self.seen: list[Seen] = []
        self.met = 0
        self._rules: list[_Rule] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        # Not one of the kernel's choice, which another program may be given between `refuse` and `accept`.
        self._port = free_port()
        self._http = self._listener()

    @property
    def url(self) -> str:
        """The endpoint for clients, without a trailing slash."""
        return f"http://{LOOPBACK}:{self._port}"

    def __enter__(self) -> Self:
        self._http.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.refuse()

    def inject(
        self, fault: Fault, *, times: int | None = None, method: str = "", path: str = ""
    ) -> None:
        """Let a fault happen to the next `times` requests, or to all, of a method whose target contains `path`.

        The first fault that matches happens to a request, and no other. `path` is compared with the encoded target.
        """
        with self._lock:
            self._rules.append(_Rule(fault, method, path, float("inf") if times is None else times))

    def relent(self) -> None:
        """Take all faults away; what has met one already has met it."""
        with self._lock:
            self._rules.clear()

    def heal(self) -> None:
        """Take all faults away; requests that are stuck in one are reset."""
        self.relent()
        self.disconnect()

    def disconnect(self) -> None:
        """Reset every connection that is open."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _reset_on_close(connection)
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def refuse(self) -> None:
        """Stop listening and reset what is connected: clients are refused from now on."""
        self._http.__exit__(None, None, None)
        self.disconnect()

    def accept(self) -> None:
        """Listen again, where it did before `refuse`."""
        self._http = self._listener()
        self._http.__enter__()

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests of a method, whose target contains `path`, were answered or given up."""
        with self._lock:
            return sum(_matches(one.method, one.path, method, path) for one in self.seen)

    def take_fault(self, method: str, target: str) -> Fault | None:
        """The fault that happens to this request, which uses it up once."""
        with self._lock:
            for rule in self._rules:
                if rule.left > 0 and _matches(method, target, rule.method, rule.path):
                    rule.left -= 1
                    self.met += 1
                    return rule.fault
        return None

    def record(self, seen: Seen) -> None:
        """Note a request that is about to be answered, or is given up."""
        with self._lock:
            self.seen.append(seen)

    def opened(self, connection: socket.socket) -> None:
        """Note a connection, to be able to reset it."""
        with self._lock:
            self._open.add(connection)

    def closed(self, connection: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._open.discard(connection)

    @property
    def closing(self) -> threading.Event:
        """Set when the listener is at its end."""
        return self._http.closing

    def _listener(self) -> LoopbackHttp:
        return LoopbackHttp(_Exchange, owner=self, port=self._port)


def _matches(method: str, target: str, wanted_method: str, wanted_path: str) -> bool:
    return wanted_method in ("", method) and wanted_path in target


def _reset_on_close(connection: socket.socket) -> None:
    with suppress(OSError):  # it has just been closed by its own thread
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _pieces(content: bytes, rate: int) -> Iterator[bytes]:
    step = max(1, rate // PIECES_PER_SECOND)
    for start in range(0, len(content), step):
        yield content[start : start + step]


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class _Exchange(QuietHandler):
    """One connection of a client."""

    owner: FaultProxy

    def setup(self) -> None:
        super().setup()
        self.owner.opened(self.connection)

    def finish(self) -> None:
        self.owner.closed(self.connection)
        super().finish()

    def _exchange(self) -> None:
        fault = self.owner.take_fault(self.command, self.path)
        self._read = 0
        self._noted = False
        try:
            body = self._body(fault)
            reply = self._reply(fault, body)
            # Before the client has its answer, so that a test which then counts requests counts this one.
            self._note(None if isinstance(fault, LoseAnswer) else reply.status)
            self._send(fault, reply)
        except (_ConnectionLostError, OSError):
            self._note(None)
            _reset_on_close(self.connection)
            self.close_connection = True

    def _note(self, status: int | None) -> None:
        if not self._noted:
            headers = {name.lower(): value for name, value in self.headers.items()}
            self.owner.record(Seen(self.command, self.path, self._read, status, headers))
            self._noted = True

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _exchange  # noqa: N815 -- the library's names

    def _body(self, fault: Fault | None) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        if isinstance(fault, ResetUpload):
            self._read = len(self.rfile.read(min(length, fault.after_bytes)))
            raise _ConnectionLostError
        if not isinstance(fault, Throttle):
            body = self.read_body()
        else:
            body = b"".join(self._slowly(length, fault.bytes_per_second))
        self._read = len(body)
        return body

    def _slowly(self, length: int, rate: int) -> Iterator[bytes]:
        step = max(1, rate // PIECES_PER_SECOND)
        for start in range(0, length, step):
            yield self.rfile.read(min(step, length - start))
            self.owner.closing.wait(1 / PIECES_PER_SECOND)

    def _reply(self, fault: Fault | None, body: bytes) -> _Reply:
        match fault:
            case Delay(seconds):
                self.owner.closing.wait(seconds)
            case BlackHole():
                self._hold()
            case HalfClose():
                self.connection.shutdown(socket.SHUT_WR)
                self._hold()
            case Answer(status, code):
                text = f"<Error><Code>{code}</Code><Message>injected</Message></Error>"
                return _Reply(status, (("Content-Type", "application/xml"),), text.encode())
            case Lie() if self.command == "PUT":
                return _stored(body)
            case Corrupt(change) if self._puts_object:
                return self._put(change(body))
            case IgnoreConditions() if self._puts_object and any(
                self.headers[name] for name in CONDITIONS
            ):
                return self._put(body)
        return self._forward(body)

    def _hold(self) -> None:
        """Say nothing until the client goes, the fault is healed or the proxy stops."""
        self._note(None)
        self.connection.settimeout(1 / PIECES_PER_SECOND)
        while not self.owner.closing.is_set():
            try:
                if not self.connection.recv(1):
                    break
            except TimeoutError:
                continue
        raise _ConnectionLostError

    @property
    def _puts_object(self) -> bool:
        """Whether this puts a whole object, not a part of one or a property of one."""
        return self.command == "PUT" and "?" not in self.path

    def _put(self, content: bytes) -> _Reply:
        bucket, _, key = unquote(self.path).removeprefix("/").partition("/")
        self.owner.store.put(bucket, key, content)
        return _stored(content)

    def _forward(self, body: bytes) -> _Reply:
        upstream = http.client.HTTPConnection(
            LOOPBACK, self.owner.store.port, timeout=UPSTREAM_SECONDS
        )
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                # The proxy has met the expectation itself, and gives the whole body at once.
                if name.lower() not in ("expect", "transfer-encoding"):
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            raise _ConnectionLostError from error
        finally:
            upstream.close()
        return _Reply(answer.status, tuple(answer.getheaders()), content)

    def _send(self, fault: Fault | None, reply: _Reply) -> None:
        if isinstance(fault, LoseAnswer):
            raise _ConnectionLostError
        kept = {name: value for name, value in reply.headers if name.lower() not in OF_ITS_OWN}
        told = dict(reply.headers).get("Content-Length") if self.command == "HEAD" else None
        self.begin(reply.status, int(told or len(reply.body)), kept)
        if isinstance(fault, ResetDownload):
            self.wfile.write(reply.body[: fault.after_bytes])
            raise _ConnectionLostError
        if isinstance(fault, Throttle):
            for piece in _pieces(reply.body, fault.bytes_per_second):
                self.wfile.write(piece)
                self.owner.closing.wait(1 / PIECES_PER_SECOND)
        else:
            self.wfile.write(reply.body)


def _stored(content: bytes) -> _Reply:
    """What S3 answers to a put: the ETag of a single put is the MD5 of the content."""
    return _Reply(200, (("ETag", f'"{hashlib.md5(content).hexdigest()}"'),), b"")
