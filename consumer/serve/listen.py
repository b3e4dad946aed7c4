"""The server under the application: bounded in threads, connections, times and sizes."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.core.errors import UsageError

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


@contextmanager
def listening(application: Any, host: str, port: int) -> Iterator[int]:
    """Serve a WSGI application in threads; yield the port.

    Raises:
        UsageError: The address cannot be had.
    """
    from waitress.server import create_server  # noqa: PLC0415 -- an extra

    # Its words about slow readers and full queues are no events of ours.
    logging.getLogger("waitress").setLevel(logging.CRITICAL)
    try:
        server = create_server(
            application,
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
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot listen at {host}:{port}: {error}", remedy="choose another with --listen"
        ) from error
    thread = threading.Thread(target=server.run, name="serve", daemon=True)
    thread.start()
    try:
        # An address with several families, such as a name, makes several servers.
        yield port or int(getattr(server, "effective_port", 0))
    finally:
        server.close()
        server.task_dispatcher.shutdown(cancel_pending=True, timeout=STOP_SECONDS)
        thread.join(STOP_SECONDS)
