"""The demo site's HTTP server: threads, but not without end."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import socket
from typing import Any

from demo_site.pages import Answer, answer

MAX_CONNECTIONS = 64
"""Connections served at a time; one more is closed at once."""

IDLE_SECONDS = 15
"""After which a silent connection is closed."""

MAX_BODY = 64 * 1024
CHUNK_PAUSE = 0.05


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, asks `answer`, and sends what it says."""

    protocol_version = "HTTP/1.1"
    server_version = "demo-site"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        """Answer a GET."""
        self._send(answer("GET", self.path, b""))

    def do_HEAD(self) -> None:
        """Answer a HEAD."""
        self._send(answer("HEAD", self.path, b""))

    def do_POST(self) -> None:
        """Answer a POST with a body of a stated, modest length."""
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            self._send(Answer(413, b"too long, or of unknown length\n", "text/plain"))
            return
        self._send(answer("POST", self.path, self.rfile.read(int(length))))

    def _send(self, found: Answer) -> None:
        time.sleep(found.delay)
        self.send_response(found.status)
        headers = {
            "Content-Type": found.mediatype,
            "Content-Length": str(len(found.body)),
            "Cache-Control": "no-store",
        }
        for name, value in (headers | found.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        size = max(-(-len(found.body) // found.chunks), 1)
        for start in range(0, len(found.body), size):
            self.wfile.write(found.body[start : start + size])
            if start + size < len(found.body):
                time.sleep(CHUNK_PAUSE)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- the name is http.server's
        """Write one line a request to stderr."""
        print(format % args, file=sys.stderr, flush=True)


class DemoServer(ThreadingHTTPServer):
    """The demo site on an address; port 0 picks a free one."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int]) -> None:
        super().__init__(address, _Handler)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Serve a connection in a thread of its own, if there is a place."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(
        self, request: socket | tuple[bytes, socket], client_address: Any
    ) -> None:
        """Serve a connection and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """Pass over visitors who leave early, which browsers do; anything else is reported."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)
