"""A small HTTP server, on a loopback port unless told otherwise, that stops whatever its requests are doing."""

import base64
import socket
import ssl
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.parts.certificate import Certificate
from tests.parts.ports import LOOPBACK

STOP_SECONDS = 10


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that keeps connections open, writes no access log and can read a request's body.

    Attributes:
        owner: What it answers for: the server, unless that was made with another one.
    """

    protocol_version = "HTTP/1.1"
    owner: Any

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is the library's
        """Say nothing: tests look at what a server recorded, not at its output."""

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        """Send an answer of known length; one to HEAD without its body."""
        self.begin(status, len(body), headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
        """Send what comes before an answer's body."""
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def read_body(self) -> bytes:
        """The request's body, whether its length is given or it comes in chunks."""
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    # Of more connections than that at once the kernel drops some while this process waits for a core, and a client
    # tries again seconds later. The library's default is 5.
    request_queue_size = 128
    # A person's laptop has IPv6 and slow resolvers; neither matters on the loopback address.
    address_family = socket.AF_INET

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is what many tests are about."""

    def shutdown_request(self, request: Any) -> None:
        """Close without the orderly FIN of the default, so that a handler can choose a reset."""
        self.close_request(request)


def basic(user: str, password: str) -> str:
    """Return what a client that logs in has as `Authorization`."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


class LoopbackHttp:
    """An HTTP(S) server for a handler class, as a context manager.

    Attributes:
        host: The address at which it listens.
        port: Where it listens.
        closing: Set when it stops; a handler that stalls waits for this.
    """

    def __init__(
        self,
        handler: type[QuietHandler],
        *,
        owner: object = None,
        certificate: Certificate | None = None,
        host: str = LOOPBACK,
        port: int = 0,
    ) -> None:
        own = type(handler.__name__, (handler,), {"owner": owner or self})
        self._server = _Server((host, port), own)
        self._scheme = "http"
        if certificate is not None:
            self._scheme = "https"
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.file, certificate.key)
            # The handshake belongs to the connection's own thread: a client that stalls must not stop the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.host = host
        self.port: int = self._server.server_address[1]
        self.closing = threading.Event()
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    @property
    def url(self) -> str:
        """Its base URL, without a trailing slash."""
        return f"{self._scheme}://{self.host}:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(STOP_SECONDS)
