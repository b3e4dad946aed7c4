"""The bucket as home reads it: what is given up stays given up."""

import asyncio
import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from agent.bucket.address import bucket_at
from agent.config.credentials import Credentials
from agent.config.settings import Store
from consumer.bucket import ReadOnlyBucket
from tests.parts.ports import LOOPBACK

PART = 4 * 1024**2
SECONDS = 30


async def test_a_read_that_was_given_up_writes_nothing_more(tmp_path: Path) -> None:
    """Its memory may be another part's by then, and that part would not be what was hashed."""
    goes_on = threading.Event()
    with socket.create_server((LOOPBACK, 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(_answer_in_two, listener, goes_on))
        store = Store(url="s3://any", endpoint=f"http://{LOOPBACK}:{listener.getsockname()[1]}")
        bucket = ReadOnlyBucket.open(bucket_at(store, tmp_path), Credentials("key", "secret"))
        memory = bytearray(PART)
        reading = asyncio.create_task(bucket.read("big", 0, memoryview(memory), size=2 * PART))
        async with asyncio.timeout(SECONDS):
            while not any(memory):  # noqa: ASYNC110 -- the store's client tells nobody
                await asyncio.sleep(0.01)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        memory[:] = bytes(PART)
        goes_on.set()
        await serving
    assert not any(memory)


def _answer_in_two(listener: socket.socket, goes_on: threading.Event) -> None:
    """Answer one request with half of a part, and with the rest later; return when the client has left."""
    listener.settimeout(SECONDS)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(SECONDS)
        connection.recv(65536)
        head = (
            f"HTTP/1.1 206 Partial Content\r\nContent-Length: {PART}\r\n"
            f"Content-Range: bytes 0-{PART - 1}/{2 * PART}\r\n"
            "Last-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(head.encode() + b"!" * (PART // 2))
        goes_on.wait(SECONDS)
        with suppress(ConnectionError):  # it left before all had come
            connection.sendall(b"!" * (PART // 2))
            while connection.recv(65536):
                pass
