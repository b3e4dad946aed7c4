"""The server under the application: bounded in threads, connections, times and sizes."""

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from agent.base.errors import UsageError

THREADS = 8
CONNECTIONS = 100
SILENT_SECONDS = 60
"""After which a connection that says nothing is closed."""
MAX_HEADER_BYTES = 16 * 1024
MAX_BODY_BYTES = 16 * 1024
"""Of requests, which have no body that anybody looks at."""
HELD_BYTES = 4 * 1024**2
"""Of a response that its reader does not take; the thread that makes it waits then."""
STOP_SECONDS = 1


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:9464`, `[::]:9464` or `:9464` (all addresses).

    Raises:
        UsageError: It is none of them.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004
        raise UsageError(f"{text!r} is no address to listen at", remedy="such as 127.0.0.1:9464")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104


class Listener:
    """An address that is taken; requests wait until there is an application for them.

    Attributes:
        port: The port.
    """

    def __init__(self, host: str, port: int) -> None:
        from waitress.server import create_server  # noqa: PLC0415 -- an extra

        self._application: Any = None
        self._server = create_server(
            self._answer,
            host=host,
            port=port,
            threads=THREADS,
            connection_limit=CONNECTIONS,
            channel_timeout=SILENT_SECONDS,
            cleanup_interval=10,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES,
            outbuf_high_watermark=HELD_BYTES,
            ident="",
            clear_untrusted_proxy_headers=True,
        )
        # An address with several families, such as a name, makes several servers.
        self.port = port or int(getattr(self._server, "effective_port", 0))
        self._thread = threading.Thread(target=self._server.run, name="serve", daemon=True)

    def serve(self, application: Any) -> None:
        """Answer requests with a WSGI application, in threads."""
        self._application = application
        self._thread.start()

    def _answer(self, environ: Any, start_response: Any) -> Any:
        return self._application(environ, start_response)

    def close(self) -> None:
        """Give the address back, and end the threads."""
        self._server.close()
        self._server.task_dispatcher.shutdown(cancel_pending=True, timeout=STOP_SECONDS)
        if self._thread.ident is not None:
            self._thread.join(STOP_SECONDS)


@contextmanager
def listening(host: str, port: int) -> Iterator[Listener]:
    """Take an address.

    Raises:
        UsageError: The address cannot be had.
    """
    # Its words about slow readers and full queues are no events of ours.
    logging.getLogger("waitress").setLevel(logging.CRITICAL)
    try:
        listener = Listener(host, port)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error}", remedy="choose another with --listen"
        ) from error
    with closing(listener):
        yield listener
