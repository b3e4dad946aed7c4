"""Downloads a job of a run into its staging folder, and believes nothing of it before it is hashed."""

import asyncio
import fcntl
import mmap
import os
import stat
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from agent.base.threads import begun
from agent.contract.descriptor import Resource
from agent.contract.layout import DESCRIPTOR, JobKey
from consumer.bucket import ANSWERS_AT_ONCE, ReadOnlyBucket, TooLargeError
from consumer.pull.durable import make_durable
from consumer.pull.folder import Destination, FolderError, edge, new_file, walk

SMALL_BYTES = 1024**2
"""Up to this, a file comes with one answer, and reaches the disk when it is right. Most files are small."""
UNDER_WAY_BYTES = 12 * 1024**2
"""Of small ones together, as they declare. The client bounds each request as a whole (two minutes), and all share the
line: 48 of a mebibyte would need more than three megabits a second, and starve the parts of larger ones beside them."""
STORED_AT_ONCE = 4
"""Of small ones: more threads take Python's lock from each other at every call of the system, which costs the processor
more than it saves; fewer would wait for a folder that is on another computer."""
LARGE_AT_ONCE = 4
PART_BYTES = 10 * 1024**2
"""What one request asks of a larger one: two of the parts in which the agent sent it, since a store works a sixth more
for ranges that end within its parts. Four take 17 s on 20 Mbit/s, and the client allows two minutes."""
PARTS_AT_ONCE = 4
"""Of larger ones together: parts in memory, on their way from the store or to the disk; 40 MiB."""
CHUNK_BYTES = 1024**2
TELL_SECONDS = 0.1
"""Between two reports of small files that arrived. Each wakes the event loop, which takes Python's lock from those that
fetch."""

Received = Callable[[int], None]
"""Is told of bytes that arrived."""


class _WrongError(Exception):
    """A file is not what the package says."""


async def fetch_job(
    bucket: ReadOnlyBucket,
    destination: Destination,
    key: JobKey,
    package: bytes,
    resources: tuple[Resource, ...],
    *,
    received: Received,
) -> list[str]:
    """Stage a job of a run, whole and durable; what an earlier pull staged and is right stays.

    Args:
        bucket: Where it comes from.
        destination: Where it goes.
        key: The job's package.
        package: Its text, as it was committed.
        resources: The files that it names.
        received: Is told of bytes that arrived.

    Returns:
        What is not as the package says. With problems the staging is gone.

    Raises:
        StoreError: The bucket failed; the staging stays.
        FolderError: The folder did; the staging stays, unless the disk did not keep it.
    """
    wanted = {resource.path: resource for resource in resources}
    path = destination.folder_of(key.job, key.run)
    with (
        edge("look into what is staged of", path),
        destination.staging(key.job, key.run) as folder,
    ):
        there = await asyncio.to_thread(_verified, folder, wanted, package)
    if there is None:
        await all_ended(asyncio.to_thread(destination.clear, key.job, key.run))
        there = frozenset()
    received(sum(wanted[path].bytes for path in there & wanted.keys()))
    with destination.staging(key.job, key.run) as folder:
        fetching = _Fetching(bucket, folder, path, key, received)
        try:
            if DESCRIPTOR not in there:
                with fetching.noting_problems(DESCRIPTOR, len(package)):
                    fetching.write(DESCRIPTOR, package)
            await fetching.all([file for path, file in wanted.items() if path not in there])
            if not fetching.problems:
                await asyncio.to_thread(make_durable, folder)
                return []
        except OSError as error:
            # A sync failed. The kernel tells that once, and shows the files as if it had written them: none is kept.
            await all_ended(asyncio.to_thread(destination.clear, key.job, key.run))
            raise FolderError(f"could not store {path}: {error.strerror}", whole=True) from error
    await all_ended(asyncio.to_thread(destination.clear, key.job, key.run))
    return fetching.problems


class _Memory:
    """Memory for parts, used again and again: the kernel takes longer for a fresh page than its bytes to be copied."""

    def __init__(self) -> None:
        self._free: list[memoryview] = []
        self._left = asyncio.Semaphore(PARTS_AT_ONCE)

    @property
    def is_taken(self) -> bool:
        """Whether there is none at once, or others wait for it."""
        return self._left.locked()

    async def take(self) -> memoryview:
        """Return memory for one part, page by page aligned, when there is some."""
        await self._left.acquire()
        return self._free.pop() if self._free else memoryview(mmap.mmap(-1, PART_BYTES))

    def give_back(self, buffer: memoryview) -> None:
        """Let others have it."""
        self._free.append(buffer)
        self._left.release()


class _Line:
    """What small files may have on their way together; for threads."""

    def __init__(self) -> None:
        self._left = UNDER_WAY_BYTES
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Wait until so many bytes may be on their way, and count them meanwhile."""
        with self._changed:
            self._changed.wait_for(lambda: self._left >= size)
            self._left -= size
        try:
            yield
        finally:
            with self._changed:
                self._left += size
                self._changed.notify_all()


@dataclass
class _Fetching:
    bucket: ReadOnlyBucket
    folder: int
    path: Path
    key: JobKey
    received: Received
    memory: _Memory = field(default_factory=_Memory)
    line: _Line = field(default_factory=_Line)
    problems: list[str] = field(default_factory=list)
    arrived: deque[int] = field(default_factory=deque)
    turns: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(STORED_AT_ONCE))
    ended: bool = False

    async def all(self, files: list[Resource]) -> None:
        """Fetch files, some at a time; the first failure, or problem, ends it.

        Raises:
            OSError: What was written did not reach the disk.
        """
        small = [file for file in files if file.bytes <= SMALL_BYTES]
        large = iter([file for file in files if file.bytes > SMALL_BYTES])
        queue = iter(small)
        telling = asyncio.create_task(self._tell_now_and_then())
        works: list[asyncio.Future[None]] = []
        try:
            # One after the other: when a thread cannot be begun, those before it are ended below.
            works.extend(
                asyncio.wrap_future(begun(lambda: self._fetch_whole(queue)))
                for _ in range(min(ANSWERS_AT_ONCE, len(small)))
            )
            works.extend(
                asyncio.create_task(self._fetch_in_parts(large)) for _ in range(LARGE_AT_ONCE)
            )
            await asyncio.gather(*works)
        finally:
            for work in (*works, telling):
                work.cancel()
            ends = (*works, telling, asyncio.to_thread(self._end))
            await asyncio.gather(*ends, return_exceptions=True)
            self._tell()

    def _end(self) -> None:
        """Let no thread store anything more; one whose answer is still on its way goes on until it has come."""
        self.ended = True
        for _ in range(STORED_AT_ONCE):
            self.turns.acquire()
        self.turns.release(STORED_AT_ONCE)

    async def _tell_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            self._tell()

    def _tell(self) -> None:
        """Tell what arrived in threads since the last time."""
        size = 0
        while self.arrived:
            size += self.arrived.popleft()
        if size:
            self.received(size)

    def _fetch_whole(self, files: Iterator[Resource]) -> None:
        """Fetch small files, in a thread; of each nothing is written before all of it is right.

        A thread that went back to the event loop with every file would cost as much as the files themselves.
        """
        for file in files:
            if self.ended or self.problems:
                return
            with self.noting_problems(file.path, file.bytes):
                with self.line.taken(file.bytes):
                    if self.ended or self.problems:
                        return
                    content = self.bucket.content(self._key_of(file), file.bytes)
                if content is None:
                    raise FileNotFoundError
                with self.turns:
                    if self.ended or self.problems:
                        return
                    _check(file, len(content), sha256(content).hexdigest())
                    self.write(file.path, content)
                    self.arrived.append(len(content))

    async def _fetch_in_parts(self, files: Iterator[Resource]) -> None:
        for file in files:
            if self.problems:
                return
            with self.noting_problems(file.path, file.bytes):
                await self._in_parts(self._key_of(file), file)

    def _key_of(self, file: Resource) -> str:
        return JobKey(self.key.run, self.key.job, file.path).text

    @contextmanager
    def noting_problems(self, path: str, size: int) -> Iterator[None]:
        """Note why a file that declares so many bytes cannot be had."""
        try:
            yield
        except FileNotFoundError:
            self.problems.append(f"{path!r}: it is not in the bucket")
        except TooLargeError:
            self.problems.append(f"{path!r}: it has more than the {size} bytes it declares")
        except _WrongError as error:
            self.problems.append(f"{path!r}: {error}")

    async def _in_parts(self, key: str, file: Resource) -> None:
        """Fetch a file part by part, with never more on the disk than it declares."""
        digest, size = sha256(), 0
        if file.bytes > PART_BYTES and await self.bucket.size(key) != file.bytes:
            raise _WrongError(f"it does not have the {file.bytes} bytes it declares")
        with self._created(file.path) as descriptor:
            async with aclosing(self._parts(key, file)) as parts:
                async for part in parts:
                    hashing = asyncio.to_thread(digest.update, part)
                    writing = asyncio.to_thread(self._write_part, descriptor, part, file.path)
                    await all_ended(hashing, writing)
                    size += len(part)
                    self.received(len(part))
            _check(file, size, digest.hexdigest())
            if file.bytes > PART_BYTES:
                # Now and not with all others: the disk has something to do while these are fetched.
                await asyncio.to_thread(os.fsync, descriptor)

    async def _parts(self, key: str, file: Resource) -> AsyncGenerator[memoryview, None]:
        """Yield a file's parts in their order; each is valid until the next is asked for.

        Those that follow are on their way meanwhile, as far as there is memory for them.
        """
        starts = deque(range(0, file.bytes, PART_BYTES))
        ahead = deque[tuple[memoryview, asyncio.Task[int]]]()
        try:
            while starts or ahead:
                # Who has none waits for memory in turn; more than one is for times when nobody waits.
                while starts and not (ahead and self.memory.is_taken):
                    buffer, start = await self.memory.take(), starts.popleft()
                    part = buffer[: file.bytes - start]
                    work = self.bucket.read(key, start, part, size=file.bytes)
                    ahead.append((buffer, asyncio.create_task(work)))
                buffer, reading = ahead[0]
                yield buffer[: await reading]
                ahead.popleft()
                self.memory.give_back(buffer)
        finally:
            for _, reading in ahead:
                reading.cancel()
            await asyncio.gather(*(reading for _, reading in ahead), return_exceptions=True)
            for buffer, _ in ahead:
                self.memory.give_back(buffer)

    def write(self, path: str, content: bytes) -> None:
        """Store a file at once."""
        with self._created(path) as descriptor:
            self._write(descriptor, content, path)

    @contextmanager
    def _created(self, path: str) -> Iterator[int]:
        with ExitStack() as stack:
            with edge("store", self.path / path):
                try:
                    descriptor = stack.enter_context(new_file(self.folder, path))
                except (FileExistsError, NotADirectoryError) as error:
                    # Some file systems ignore case, some the form of accents: which names meet, only they can tell.
                    raise _WrongError("DEST has its name for another file of the job") from error
            yield descriptor

    def _write_part(self, descriptor: int, part: memoryview, path: str) -> None:
        """Write a part of a large file past the page cache: that costs half of the time, and the sync has little to do.

        Memory, place and length suit every disk, but those of the last part, which goes the usual way.
        """
        with suppress(OSError):  # a file system that cannot
            fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_DIRECT if len(part) == PART_BYTES else 0)
        self._write(descriptor, part, path)

    def _write(self, descriptor: int, piece: bytes | memoryview, path: str) -> None:
        view = memoryview(piece)
        with edge("store", self.path / path):
            while view:
                view = view[os.write(descriptor, view) :]


async def all_ended(*works: Coroutine[Any, Any, None]) -> None:
    """Wait for threads, also when this is cancelled: what they use is used for something else afterwards."""
    running = asyncio.gather(*works, return_exceptions=True)
    try:
        found = await asyncio.shield(running)
    except asyncio.CancelledError:
        await running
        raise
    for error in found:
        if error is not None:
            raise error


def _check(file: Resource, size: int, digest: str) -> None:
    """Compare what came with what the package says.

    Raises:
        _WrongError: It is something else.
    """
    if size != file.bytes:
        raise _WrongError(f"it has {size} bytes, and declares {file.bytes}")
    if f"sha256:{digest}" != file.hash:
        raise _WrongError("its content is not what the package says")


def _verified(folder: int, wanted: Mapping[str, Resource], package: bytes) -> frozenset[str] | None:
    """Return which files are staged as they should be, and remove those that are not.

    Returns:
        None when there is something that does not belong there.
    """
    fine = set()
    expected = {path: (file.bytes, file.hash) for path, file in wanted.items()}
    expected[DESCRIPTOR] = len(package), f"sha256:{sha256(package).hexdigest()}"
    for path, parent, name, mode in walk(folder):
        if path not in expected or not stat.S_ISREG(mode):
            return None
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as stream:
            found, size = sha256(), os.fstat(descriptor).st_size
            while size == expected[path][0] and (chunk := stream.read(CHUNK_BYTES)):
                found.update(chunk)
        if (size, f"sha256:{found.hexdigest()}") == expected[path]:
            fine.add(path)
        else:
            os.unlink(name, dir_fd=parent)
    return frozenset(fine)
