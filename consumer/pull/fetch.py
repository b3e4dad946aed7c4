"""Downloads a job of a run into its staging folder, and believes nothing of it before it is hashed."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

from agent.core.layout import run_key
from agent.core.manifest import Resource

from consumer.bucket import PART_BYTES, ReadOnlyBucket
from consumer.pull.durable import make_durable
from consumer.pull.place import Destination, PlaceError, new_file, open_folder
from consumer.pull.plan import JobFiles

SMALL_BYTES, SMALL_AT_ONCE = 128 * 1024, 64
"""Most files are small, and what takes time with them is the way to the store: 1,280 files a second over 50 ms."""
MIDDLE_BYTES, MIDDLE_AT_ONCE = 1024**2, 16
"""Up to this, a file comes with one answer, and reaches the disk when it is right."""
LARGE_AT_ONCE = 4
"""Of each larger one about a mebibyte is in memory, and two requests are on their way."""
FOLDERS_AT_HAND = 16
"""Descriptors that are kept; manifests list files by folder."""
CHUNK_BYTES = 1024**2

Named = tuple[str, Resource]
"""A file and its path within the job's folder."""
Received = Callable[[int], None]
"""Is told of bytes that arrived."""
_Fetch = Callable[[str, Resource, "_Folders"], Awaitable[None]]


class _WrongError(Exception):
    """A file is not what the manifest says."""


async def fetch_job(
    bucket: ReadOnlyBucket, dest: Destination, run: str, job: JobFiles, received: Received
) -> list[str]:
    """Stage a job of a run, whole and durable; what an earlier pull staged and is right stays.

    Returns:
        What is not as the manifest says. With problems the staging is gone.

    Raises:
        StoreError: The bucket failed; the staging stays.
        PlaceError: The folder did; the staging stays, unless the disk did not keep it.
    """
    wanted = {job.inner(file): file for file in job.files}
    with dest.staging(run, job.name) as folder:
        there = await asyncio.to_thread(_verified, folder, wanted)
    if there is None:
        dest.clear_staging(run, job.name)
        there = frozenset()
    received(sum(wanted[path].bytes for path in there))
    with dest.staging(run, job.name) as folder:
        fetching = _Fetching(bucket, folder, run, received)
        try:
            await fetching.all({path: file for path, file in wanted.items() if path not in there})
            if not fetching.problems:
                await asyncio.to_thread(make_durable, folder)
                return []
        except OSError as error:
            # A sync failed. The kernel tells that once, and shows the files as if it had written them: none is kept.
            with suppress(PlaceError):
                dest.clear_staging(run, job.name)
            raise PlaceError(f"could not store {run}: {error.strerror}") from error
    dest.clear_staging(run, job.name)
    return fetching.problems


@dataclass
class _Fetching:
    bucket: ReadOnlyBucket
    folder: int
    run: str
    received: Received
    problems: list[str] = field(default_factory=list)

    async def all(self, files: dict[str, Resource]) -> None:
        """Fetch files, some at a time; the first failure, or problem, ends it.

        Raises:
            OSError: What was written did not reach the disk.
        """
        small: list[Named] = []
        middle: list[Named] = []
        large: list[Named] = []
        for path, file in files.items():
            if file.bytes > MIDDLE_BYTES:
                large.append((path, file))
            else:
                (small if file.bytes <= SMALL_BYTES else middle).append((path, file))
        with _Folders(self.folder) as folders:
            workers = (
                *self._workers(small, SMALL_AT_ONCE, self._whole, folders),
                *self._workers(middle, MIDDLE_AT_ONCE, self._whole, folders),
                *self._workers(large, LARGE_AT_ONCE, self._by_pieces, folders),
            )
            tasks = [asyncio.create_task(worker) for worker in workers]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    def _workers(
        self, files: Sequence[Named], most: int, fetch: _Fetch, folders: "_Folders"
    ) -> Iterator[Coroutine[None, None, None]]:
        """Yield what works through these files side by side, each on one at a time."""
        queue = iter(files)

        async def work() -> None:
            for path, file in queue:
                if self.problems:
                    return
                try:
                    await fetch(path, file, folders)
                except FileNotFoundError:
                    self.problems.append(f"{file.path!r}: it is not in the bucket")
                except _WrongError as error:
                    self.problems.append(f"{file.path!r}: {error}")

        return (work() for _ in range(min(most, len(files))))

    async def _whole(self, path: str, file: Resource, folders: "_Folders") -> None:
        """Fetch a file of which nothing is written before all of it is right."""
        key = run_key(self.run, file.path)
        # Of an empty object there is no part, only a size.
        content = await self.bucket.part(key, 0, file.bytes + 1) if file.bytes else b""
        size = len(content) if file.bytes else await self.bucket.size(key)
        _check(file, size, sha256(content).hexdigest())
        descriptor = folders.create(path)
        try:
            _write(descriptor, content, path)
        finally:
            os.close(descriptor)
        self.received(size)

    async def _by_pieces(self, path: str, file: Resource, folders: "_Folders") -> None:
        """Fetch a file piece by piece, with never more on the disk than it declares."""
        key, digest, size = run_key(self.run, file.path), sha256(), 0
        if file.bytes > PART_BYTES and await self.bucket.size(key) != file.bytes:
            raise _WrongError(f"it does not have the {file.bytes} bytes it declares")
        descriptor = folders.create(path)
        try:
            async for piece in self.bucket.pieces(key, file.bytes):
                size += len(piece)
                if size > file.bytes:
                    break
                digest.update(piece)
                _write(descriptor, piece, path)
                self.received(len(piece))
            _check(file, size, digest.hexdigest())
            if file.bytes > PART_BYTES:
                # Now and not with all others: the disk has something to do while these are fetched.
                await asyncio.to_thread(os.fsync, descriptor)
        finally:
            os.close(descriptor)


class _Folders:
    """The folders below one, by their paths within it: the last few are open."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for folder in self._open.values():
            os.close(folder)

    def create(self, path: str) -> int:
        """Return a descriptor of a new file in place of what is there; a link on the way is an error.

        Raises:
            PlaceError: It cannot be made.
        """
        above, _, name = path.rpartition("/")
        try:
            folder = self._folder(above) if above else self._root
            try:
                return new_file(folder, name)
            except FileExistsError:
                os.unlink(name, dir_fd=folder)
                return new_file(folder, name)
        except OSError as error:
            raise PlaceError(f"could not store {path}: {error.strerror}") from error

    def _folder(self, path: str) -> int:
        known = self._open.pop(path, None)
        if known is None:
            above, _, name = path.rpartition("/")
            known = open_folder(self._folder(above) if above else self._root, name, make=True)
            if len(self._open) >= FOLDERS_AT_HAND:
                os.close(self._open.pop(next(iter(self._open))))
        self._open[path] = known
        return known


def _check(file: Resource, size: int, digest: str) -> None:
    """Compare what came with what the manifest says.

    Raises:
        _WrongError: It is something else.
    """
    if size > file.bytes:
        raise _WrongError(f"it has more than the {file.bytes} bytes it declares")
    if size != file.bytes:
        raise _WrongError(f"it has {size} bytes, and declares {file.bytes}")
    if f"sha256:{digest}" != file.hash:
        raise _WrongError("its content is not what the manifest says")


def _write(descriptor: int, piece: bytes, path: str) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise PlaceError(f"could not store {path}: {error.strerror}") from error


def _verified(folder: int, wanted: dict[str, Resource]) -> frozenset[str] | None:
    """Return which files are staged as they should be; None when there is something that does not belong there."""
    fine = set()
    for path, parent, name, mode in _walk(folder, ""):
        if path not in wanted or not stat.S_ISREG(mode):
            return None
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(descriptor, "rb") as stream:
            if os.fstat(descriptor).st_size != wanted[path].bytes:
                continue
            digest = sha256()
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
        if f"sha256:{digest.hexdigest()}" == wanted[path].hash:
            fine.add(path)
    return frozenset(fine)


def _walk(folder: int, prefix: str) -> Iterator[tuple[str, int, str, int]]:
    """Yield `(path, parent's descriptor, name, mode)` of everything below a folder that is no folder."""
    for name in os.listdir(folder):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if not stat.S_ISDIR(mode):
            yield f"{prefix}{name}", folder, name, mode
            continue
        inner = open_folder(folder, name)
        try:
            yield from _walk(inner, f"{prefix}{name}/")
        finally:
            os.close(inner)
