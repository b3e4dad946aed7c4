"""Downloads a job of a run into its staging folder, and believes nothing of it before it is hashed."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from agent.contract.descriptor import Resource
from agent.contract.layout import DESCRIPTOR, JobKey
from consumer.bucket import PART_BYTES, ReadOnlyBucket, TooLargeError
from consumer.pull.durable import make_durable
from consumer.pull.folder import Destination, FolderError, edge, new_file, walk

SMALL_BYTES, SMALL_AT_ONCE = 1024**2, 48
"""Up to this, a file comes with one answer, and reaches the disk when it is right. Most files are small, and what
takes time with them is the way to the store."""
LARGE_AT_ONCE = 4
"""Of each larger one about a mebibyte is in memory, and two requests are on their way."""
CHUNK_BYTES = 1024**2

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
    with (
        edge("look into what is staged of", key.text),
        destination.staging(key.job, key.run) as folder,
    ):
        there = await asyncio.to_thread(_verified, folder, wanted, package)
    if there is None:
        destination.clear(key.job, key.run)
        there = frozenset()
    received(sum(wanted[path].bytes for path in there & wanted.keys()))
    with destination.staging(key.job, key.run) as folder:
        fetching = _Fetching(bucket, folder, key, received)
        try:
            if DESCRIPTOR not in there:
                with _created(folder, DESCRIPTOR) as descriptor:
                    _write(descriptor, package, DESCRIPTOR)
            await fetching.all([file for path, file in wanted.items() if path not in there])
            if not fetching.problems:
                await asyncio.to_thread(make_durable, folder)
                return []
        except OSError as error:
            # A sync failed. The kernel tells that once, and shows the files as if it had written them: none is kept.
            destination.clear(key.job, key.run)
            raise FolderError(
                f"could not store {key.text}: {error.strerror}", whole=True
            ) from error
    destination.clear(key.job, key.run)
    return fetching.problems


@dataclass
class _Fetching:
    bucket: ReadOnlyBucket
    folder: int
    key: JobKey
    received: Received
    problems: list[str] = field(default_factory=list)

    async def all(self, files: list[Resource]) -> None:
        """Fetch files, some at a time; the first failure, or problem, ends it.

        Raises:
            OSError: What was written did not reach the disk.
        """
        small = iter([file for file in files if file.bytes <= SMALL_BYTES])
        large = iter([file for file in files if file.bytes > SMALL_BYTES])
        workers = [self._work(small, self._whole) for _ in range(min(SMALL_AT_ONCE, len(files)))]
        workers += [self._work(large, self._by_pieces) for _ in range(LARGE_AT_ONCE)]
        tasks = [asyncio.create_task(worker) for worker in workers]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(
        self, files: Iterator[Resource], fetch: Callable[[str, Resource], Awaitable[None]]
    ) -> None:
        for file in files:
            if self.problems:
                return
            try:
                await fetch(JobKey(self.key.run, self.key.job, file.path).text, file)
            except FileNotFoundError:
                self.problems.append(f"{file.path!r}: it is not in the bucket")
            except _WrongError as error:
                self.problems.append(f"{file.path!r}: {error}")

    async def _whole(self, key: str, file: Resource) -> None:
        """Fetch a file of which nothing is written before all of it is right."""
        try:
            content = await self.bucket.get(key, limit=file.bytes)
        except TooLargeError as error:
            raise _too_long(file) from error
        if content is None:
            raise FileNotFoundError
        _check(file, len(content), sha256(content).hexdigest())
        with _created(self.folder, file.path) as descriptor:
            _write(descriptor, content, file.path)
        self.received(len(content))

    async def _by_pieces(self, key: str, file: Resource) -> None:
        """Fetch a file piece by piece, with never more on the disk than it declares."""
        digest, size = sha256(), 0
        if file.bytes > PART_BYTES and await self.bucket.size(key) != file.bytes:
            raise _WrongError(f"it does not have the {file.bytes} bytes it declares")
        with _created(self.folder, file.path) as descriptor:
            async for piece in self.bucket.pieces(key, file.bytes):
                size += len(piece)
                if size > file.bytes:
                    raise _too_long(file)
                digest.update(piece)
                _write(descriptor, piece, file.path)
                self.received(len(piece))
            _check(file, size, digest.hexdigest())
            if file.bytes > PART_BYTES:
                # Now and not with all others: the disk has something to do while these are fetched.
                await asyncio.to_thread(os.fsync, descriptor)


@contextmanager
def _created(folder: int, path: str) -> Iterator[int]:
    with ExitStack() as stack:
        with edge("store", path):
            descriptor = stack.enter_context(new_file(folder, path))
        yield descriptor


def _too_long(file: Resource) -> _WrongError:
    return _WrongError(f"it has more than the {file.bytes} bytes it declares")


def _check(file: Resource, size: int, digest: str) -> None:
    """Compare what came with what the package says.

    Raises:
        _WrongError: It is something else.
    """
    if size != file.bytes:
        raise _WrongError(f"it has {size} bytes, and declares {file.bytes}")
    if f"sha256:{digest}" != file.hash:
        raise _WrongError("its content is not what the package says")


def _write(descriptor: int, piece: bytes, path: str) -> None:
    view = memoryview(piece)
    with edge("store", path):
        while view:
            view = view[os.write(descriptor, view) :]


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
