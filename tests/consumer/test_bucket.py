"""What home reads of a bucket: what is not as it should be, and what it gives up, of which nothing arrives any more."""

import asyncio
import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from traceback import walk_stack

import pytest

from agent.bucket.address import bucket_at
from agent.config.credentials import Credentials
from agent.config.settings import Store
from agent.contract.descriptor import Resource, Role
from agent.contract.layout import DESCRIPTOR, JobKey
from consumer.bucket import PART_BYTES, ReadOnlyBucket
from consumer.pull.fetch import fetch_job
from consumer.pull.folder import OURS, STAGING, Destination
from tests.bucket.bucket import Bucket
from tests.parts.ports import LOOPBACK

PART = 4 * 1024**2
SMALL = 1024**2
SECONDS = 30


@dataclass
class Halves:
    """A store that has sent the head of its one answer, and half of it, when `halfway` is set; the rest waits."""

    port: int
    halfway: threading.Event = field(default_factory=threading.Event)
    goes_on: threading.Event = field(default_factory=threading.Event)

    def bucket(self) -> ReadOnlyBucket:
        """Its bucket."""
        store = Store(url="s3://any", endpoint=f"http://{LOOPBACK}:{self.port}")
        return ReadOnlyBucket.open(bucket_at(store, Path()), Credentials("key", "secret"))


async def test_a_part_that_was_given_up_is_not_written_into_its_memory() -> None:
    """The memory may be another part's by then, and that part would not be what was hashed."""
    memory = bytearray(PART)
    with answering(PART, f"206 Partial\r\nContent-Range: bytes 0-{PART - 1}/{2 * PART}") as store:
        part = memoryview(memory)
        reading = asyncio.create_task(store.bucket().read("big", 0, part, size=2 * PART))
        async with asyncio.timeout(SECONDS):
            while not any(memory):  # noqa: ASYNC110 -- the store's client tells nobody
                await asyncio.sleep(0.01)
        await _given_up(reading)
        memory[:] = bytes(PART)
        store.goes_on.set()
    assert not any(memory)


async def test_a_file_that_was_given_up_is_not_stored(tmp_path: Path) -> None:
    """Another pull may be at work in the folder by then, and have it open under the same number."""
    key = JobKey("20261126T010203Z-abcdef", "quotes")
    file = Resource(
        name="file",
        path="files/file.bin",
        bytes=SMALL,
        hash=f"sha256:{sha256(b'!' * SMALL).hexdigest()}",
        mediatype="application/octet-stream",
        role=Role.RESULT,
    )
    with Destination.open(tmp_path) as destination, answering(SMALL, "200 OK") as store:
        work = fetch_job(store.bucket(), destination, key, b"{}", (file,), received=lambda _: None)
        fetching = asyncio.create_task(work)
        assert await asyncio.to_thread(store.halfway.wait, SECONDS)
        assert _is_running("_fetch_whole")
        await _given_up(fetching)
        with destination.staging(key.job, key.run):
            store.goes_on.set()
            async with asyncio.timeout(SECONDS):
                while _is_running("_fetch_whole"):  # noqa: ASYNC110 -- an abandoned thread tells nobody
                    await asyncio.sleep(0.01)
            staged = (tmp_path / OURS / STAGING / key.run / key.job).iterdir()
            assert [path.name for path in staged] == [DESCRIPTOR]


async def test_an_object_that_ends_early_is_read_to_its_end(bucket: Bucket) -> None:
    """It is no failure of the store: whoever counts the bytes knows that it is not what was committed."""
    bucket.objects.put("big", b"!" * (PART_BYTES + 1))
    for size in (PART_BYTES + 2, 2 * PART_BYTES + 1, 4 * PART_BYTES):
        pieces = [len(piece) async for piece in bucket.reader().pieces("big", size)]
        assert sum(pieces) == PART_BYTES + 1


async def test_a_pipe_in_a_folder_is_no_object(folder: Bucket, tmp_path: Path) -> None:
    """Nobody waits for what is written into it."""
    os.mkfifo(tmp_path / "bucket with spaces" / "pipe")
    assert await folder.reader().get("pipe", limit=1) is None


def _is_running(function: str) -> bool:
    """Tell whether a thread is in a function of that name."""
    frames = sys._current_frames().values()
    return any(frame.f_code.co_name == function for top in frames for frame, _ in walk_stack(top))


async def _given_up(task: "asyncio.Task[object]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@contextmanager
def answering(size: int, status: str) -> Iterator[Halves]:
    """Answer one request with so many bytes, in halves; end when the client has left."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        listener.settimeout(SECONDS)
        store = Halves(listener.getsockname()[1])

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(SECONDS)
                connection.recv(65536)
                head = (
                    f"HTTP/1.1 {status}\r\nContent-Length: {size}\r\nConnection: close\r\n"
                    'ETag: "1"\r\nLast-Modified: Thu, 26 Nov 2026 00:00:00 GMT\r\n\r\n'
                )
                connection.sendall(head.encode() + b"!" * (size // 2))
                store.halfway.set()
                store.goes_on.wait(SECONDS)
                with suppress(ConnectionError):  # it left before all had come
                    connection.sendall(b"!" * (size // 2))
                    while connection.recv(65536):
                        pass

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            yield store
        finally:
            store.goes_on.set()
            thread.join(SECONDS)
