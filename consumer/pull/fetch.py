"""Downloads a job of a run into its staging folder, and believes nothing of it before it is hashed."""

import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256

from agent.core.layout import run_key
from agent.core.manifest import Resource
from consumer.bucket import PART_BYTES, ReadOnlyBucket
from consumer.pull.place import Destination, PlaceError, new_file, open_folder
from consumer.pull.plan import JobFiles

FILES_AT_ONCE = 16
"""Each holds about a mebibyte of its file."""
CHUNK_BYTES = 1024**2

Received = Callable[[int], None]
"""Is told of bytes that arrived."""


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
        PlaceError: The folder did; the staging stays.
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
        await fetching.all({path: file for path, file in wanted.items() if path not in there})
        if not fetching.problems:
            try:
                await asyncio.to_thread(_sync_folders, folder)
            except OSError as error:
                raise PlaceError(f"could not store {run}: {error.strerror}") from error
            return []
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
        """Fetch files, some at a time; the first failure, or problem, ends it."""
        queue = iter(files.items())

        async def work() -> None:
            for path, file in queue:
                if self.problems:
                    return
                try:
                    await self.one(path, file)
                except _WrongError as error:
                    self.problems.append(f"{file.path!r}: {error}")

        tasks = [asyncio.create_task(work()) for _ in range(min(FILES_AT_ONCE, len(files)))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def one(self, path: str, file: Resource) -> None:
        """Fetch a file, with never more on the disk than it declares."""
        key, digest, size = run_key(self.run, file.path), sha256(), 0
        try:
            descriptor = _create(self.folder, path)
        except OSError as error:
            raise PlaceError(f"could not store {path}: {error.strerror}") from error
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                if file.bytes > PART_BYTES and await self.bucket.size(key) != file.bytes:
                    raise _WrongError(f"it does not have the {file.bytes} bytes it declares")
                async for piece in self.bucket.pieces(key, file.bytes):
                    size += len(piece)
                    if size > file.bytes:
                        raise _WrongError(f"it has more than the {file.bytes} bytes it declares")
                    digest.update(piece)
                    _write(stream.fileno(), piece, path)
                    self.received(len(piece))
                if size != file.bytes:
                    raise _WrongError(f"it has {size} bytes, and declares {file.bytes}")
                if f"sha256:{digest.hexdigest()}" != file.hash:
                    raise _WrongError("its content is not what the manifest says")
                await _synced(stream.fileno(), path)
        except FileNotFoundError:
            raise _WrongError("it is not in the bucket") from None


async def _synced(descriptor: int, path: str) -> None:
    try:
        await asyncio.to_thread(os.fsync, descriptor)
    except OSError as error:
        raise PlaceError(f"could not store {path}: {error.strerror}") from error


def _write(descriptor: int, piece: bytes, path: str) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise PlaceError(f"could not store {path}: {error.strerror}") from error


def _create(folder: int, path: str) -> int:
    """Return a descriptor of a new file below a folder; a link on the way is an error."""
    *parents, name = path.split("/")
    here = os.dup(folder)
    try:
        for parent in parents:
            inner = open_folder(here, parent, make=True)
            os.close(here)
            here = inner
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=here)
        return new_file(here, name)
    finally:
        os.close(here)


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


def _sync_folders(folder: int) -> None:
    """Make the names in a folder, and below it, durable."""
    for _, _, _, inner in os.fwalk(".", dir_fd=folder):
        os.fsync(inner)
