"""Addresses that do not answer, each in a way of its own; every one ends with its `with` block."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.parts.ports import LOOPBACK

ACCEPT_POLL_SECONDS = 0.1
FILLED_SECONDS = 0.3
MOST_FILLERS = 64


@contextmanager
def refused() -> Iterator[str]:
    """`host:port` that refuses connections: bound, so that nobody else takes it, and not listening."""
    with socket.socket() as held:
        held.bind((LOOPBACK, 0))
        yield _address(held)


@contextmanager
def stalled_connect() -> Iterator[str]:
    """`host:port` whose connections are never established: its backlog is full and nothing is accepted."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(0)
        for _ in range(MOST_FILLERS):
            filler = held.enter_context(socket.socket())
            filler.settimeout(FILLED_SECONDS)
            try:
                filler.connect(listener.getsockname())
            except TimeoutError:
                yield _address(listener)
                return
        raise RuntimeError(f"the backlog took {MOST_FILLERS} connections and is not full")


@contextmanager
def silent(first_words: bytes = b"") -> Iterator[str]:
    r"""`host:port` that accepts, says `first_words` and then nothing, for as long as the block lasts.

    Without words it is a TLS server that never shakes hands, or an HTTP server that never answers; with the beginning
    of a response (`b"HTTP/1.1 200 OK\r\nContent-Ty"`) one that stops inside its headers.
    """
    closing = threading.Event()
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind((LOOPBACK, 0))
        listener.listen(16)
        listener.settimeout(ACCEPT_POLL_SECONDS)

        def accept() -> None:
            while not closing.is_set():
                try:
                    connection = held.enter_context(listener.accept()[0])
                except TimeoutError:
                    continue
                connection.sendall(first_words)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield _address(listener)
        finally:
            closing.set()
            thread.join(5)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()
    return f"{host}:{port}"
