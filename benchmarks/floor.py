"""What each step of a transfer takes alone, in Python: `floor.py STEP REPORT FOLDER URLS`; the report is JSON.

STEP is `hash`, `hash2` (two threads), `write`, `read`, `send`, `get` or `put`. `URLS` is JSON: a signed URL and a size
in bytes for each file. The report has `wall` and `cpu` in seconds, without Python's start. `read` and `send` do as
little as a client can: connections that stay open, one buffer for each, no check of what comes. `get` and `put` do the
same with Mayfly's client, obstore, in threads, as Mayfly does. `write` stores and syncs as a pull does.
"""

import fcntl
import hashlib
import json
import mmap
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore.store import S3Store

T = TypeVar("T")
PART = 10 * 1024**2
FRAME = 256 * 1024
LARGE_AT_ONCE, SMALL_AT_ONCE = 4, 16
SMALL = 1024**2


@dataclass(frozen=True)
class Piece:
    """A part of a file, of so many bytes: no larger than `PART`, unless it is for a client that needs no buffer."""

    number: int
    url: str
    start: int
    bytes: int


def hashing(pieces: Sequence[Piece], threads: int) -> None:
    """Hash as many bytes as there are, each file by one thread."""
    buffer = memoryview(bytes(PART))

    def one(sizes: list[int]) -> None:
        digest = hashlib.sha256()
        for size in sizes:
            digest.update(buffer[:size])

    _in_threads(one, _files(pieces).values(), threads)


def writing(pieces: Sequence[Piece], folder: Path) -> None:
    """Write the files, large ones past the page cache, and sync."""
    from consumer.pull.durable import make_durable  # noqa: PLC0415 -- no part of the other steps

    root, small = os.open(folder, os.O_RDONLY), memoryview(bytes(SMALL))

    def one(file: tuple[int, list[int]]) -> None:
        number, sizes = file
        buffer = memoryview(mmap.mmap(-1, PART)) if sizes[0] > SMALL else small
        descriptor = os.open(folder / str(number), os.O_WRONLY | os.O_CREAT, 0o644)
        for size in sizes:
            with suppress(OSError):  # a file system that cannot
                fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT if size == PART else 0)
            os.write(descriptor, buffer[:size])
        if sizes[0] == PART:
            os.fsync(descriptor)
        os.close(descriptor)

    _in_threads(one, _files(pieces).items(), LARGE_AT_ONCE)
    make_durable(root)


def _files(pieces: Sequence[Piece]) -> dict[int, list[int]]:
    """Return the sizes of each file's pieces."""
    files: dict[int, list[int]] = {}
    for piece in pieces:
        files.setdefault(piece.number, []).append(piece.bytes)
    return files


def reading(pieces: Sequence[Piece]) -> None:
    """Read all of them, and do nothing with what comes."""

    def work(left: "deque[Piece]") -> None:
        buffer = memoryview(bytearray(FRAME))
        with _connected(pieces) as connection:
            while piece := _next(left):
                last = piece.start + piece.bytes - 1
                _ask(connection, "GET", piece.url, f"Range: bytes={piece.start}-{last}\r\n")
                there = _answer(connection, buffer)
                while there < piece.bytes:
                    there += connection.recv_into(buffer)

    _workers(work, pieces)


def sending(pieces: Sequence[Piece]) -> None:
    """Send as many bytes, each piece as an object."""

    def work(left: "deque[Piece]") -> None:
        content, buffer = memoryview(bytes(FRAME)), memoryview(bytearray(FRAME))
        with _connected(pieces) as connection:
            while piece := _next(left):
                _ask(connection, "PUT", piece.url, f"Content-Length: {piece.bytes}\r\n")
                for start in range(0, piece.bytes, FRAME):
                    connection.sendall(content[: piece.bytes - start])
                _answer(connection, buffer)

    _workers(work, pieces)


def getting(pieces: Sequence[Piece]) -> None:
    """Read all of them with Mayfly's client."""
    store = _client(pieces)

    def one(piece: Piece) -> None:
        whole = piece.bytes <= SMALL
        part = (piece.start, piece.start + piece.bytes)
        answer = obstore.get(store, _key_of(piece), options=None if whole else {"range": part})
        deque([answer.bytes()] if whole else answer.stream(min_chunk_size=FRAME), maxlen=0)

    _in_threads(one, pieces, _at_once(pieces))


def putting(pieces: Sequence[Piece]) -> None:
    """Send as many bytes with Mayfly's client, each piece as an object."""
    store, content = _client(pieces), bytes(max(piece.bytes for piece in pieces))

    def one(piece: Piece) -> None:
        obstore.put(store, _key_of(piece), content[: piece.bytes], use_multipart=False)

    _in_threads(one, pieces, _at_once(pieces))


def _client(pieces: Sequence[Piece]) -> S3Store:
    url = urlsplit(pieces[0].url)
    return S3Store(
        url.path.split("/")[1],
        endpoint=f"{url.scheme}://{url.netloc}",
        region="us-east-1",
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
    )


def _key_of(piece: Piece) -> str:
    return unquote(urlsplit(piece.url).path.split("/", maxsplit=2)[2])


def _connected(pieces: Sequence[Piece]) -> socket.socket:
    url = urlsplit(pieces[0].url)
    connection = socket.create_connection((url.hostname, url.port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _ask(connection: socket.socket, method: str, address: str, header: str) -> None:
    url = urlsplit(address)
    head = f"{method} {url.path}?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n{header}\r\n"
    connection.sendall(head.encode())


def _answer(connection: socket.socket, buffer: memoryview) -> int:
    """Read the head of an answer; return how many bytes of its body came with it."""
    count, end = 0, -1
    while end < 0:
        count += connection.recv_into(buffer[count:])
        end = bytes(buffer[:count]).find(b"\r\n\r\n")
    if bytes(buffer[9:10]) != b"2":
        raise RuntimeError(bytes(buffer[:count]).decode(errors="replace"))
    return count - end - 4


def _next(left: "deque[Piece]") -> Piece | None:
    return left.popleft() if left else None


def _workers(work: "Callable[[deque[Piece]], None]", pieces: Sequence[Piece]) -> None:
    left, count = deque(pieces), _at_once(pieces)
    _in_threads(work, [left] * count, count)


def _at_once(pieces: Sequence[Piece]) -> int:
    return LARGE_AT_ONCE if max(piece.bytes for piece in pieces) > SMALL else SMALL_AT_ONCE


def _in_threads(work: Callable[[T], None], items: Iterable[T], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, items))


def main(step: str, report: Path, folder: Path, urls: Path) -> None:
    """Do one step, and write the report."""
    files = json.loads(urls.read_text())
    pieces = [
        Piece(number, url, start, min(PART, size - start))
        for number, (url, size) in enumerate(files)
        for start in range(0, size, PART)
    ]
    steps: dict[str, Callable[[], None]] = {
        "hash": lambda: hashing(pieces, 1),
        "hash2": lambda: hashing(pieces, 2),
        "write": lambda: writing(pieces, folder),
        "read": lambda: reading(pieces),
        "send": lambda: sending([Piece(n, url, 0, size) for n, (url, size) in enumerate(files)]),
        "get": lambda: getting(pieces),
        "put": lambda: putting([Piece(n, url, 0, size) for n, (url, size) in enumerate(files)]),
    }
    began, used = time.monotonic(), time.process_time()
    steps[step]()
    told = {"wall": time.monotonic() - began, "cpu": time.process_time() - used}
    report.write_text(json.dumps(told))


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
