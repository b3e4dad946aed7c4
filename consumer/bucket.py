"""The bucket as home sees it: to be read, never written."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import LocalStore, S3Store

from agent.base.errors import StoreError
from agent.bucket.address import (
    REQUEST_SECONDS,
    RETRY_SECONDS,
    LocalBucket,
    S3Bucket,
    s3_parameters,
    store_error,
)
from agent.config.credentials import Credentials

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult

CHUNK_BYTES = 1024**2
"""What is held of an object while it is read as a stream."""
ANSWERS_AT_ONCE = 48
"""Small objects that are on their way: what takes time with them is the way to the store."""
FRAME_BYTES = 256 * 1024
"""What is taken from the client at a time, where it is copied at once: a larger one costs new pages each time."""
PART_BYTES = 8 * 1024**2
"""What one request of `pieces` asks of a large object. Two each of four objects take half a minute on 20 Mbit/s, and
the client allows two minutes; who reads one object has to take a megabit a second."""
ANSWER_SECONDS = float(REQUEST_SECONDS + RETRY_SECONDS)
"""How long a store may be silent: the client's own limits in sum, for stores that are folders and pipes as well."""


class TooLargeError(StoreError):
    """An object has more bytes than anything of its kind can have."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing; `written` is when it arrived, by the store's clock."""

    key: str
    bytes: int
    written: datetime


class Source(Protocol):
    """What a reader of logs needs of a bucket; each method raises `StoreError` when the store fails it."""

    def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Yield the objects under a prefix whose keys sort after `after`; some that are new may be lacking."""

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content, of `limit` bytes at most; None when there is none."""


class ReadOnlyBucket:
    """A bucket, seen below its prefix. All methods raise `StoreError` when the store fails them.

    Attributes:
        name: Its address, for people.
        identity: Tells it from every other bucket.
    """

    def __init__(
        self,
        store: LocalStore | S3Store,
        name: str,
        identity: str,
        folder: Path | None = None,
    ) -> None:
        self._store = store
        self._folder = folder
        self._threads = ThreadPoolExecutor(ANSWERS_AT_ONCE, thread_name_prefix="bucket")
        self.name = name
        self.identity = identity

    @classmethod
    def open(
        cls, address: LocalBucket | S3Bucket, credentials: Credentials | None
    ) -> "ReadOnlyBucket":
        """Return a bucket; nothing is sent yet.

        Args:
            address: Where it is.
            credentials: Its keys; None leaves them to boto3's chain (profile, role).

        Raises:
            StoreError: The folder of a local bucket does not exist, or no credentials were found.
        """
        if isinstance(address, LocalBucket):
            root = address.root.resolve()
            if not root.is_dir():
                raise _no_bucket(address.root)
            with _edge("open", str(address.root)):
                store = LocalStore(address.root)
                return cls(store, f"file://{address.root}", f"file://{root}", root)
        parameters = s3_parameters(address, credentials, _boto3_chain)
        with _edge("open", address.name):
            return cls(S3Store(address.bucket, **parameters), address.name, address.identity)

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Yield the objects under a prefix whose keys sort after `after`; the order is the store's."""
        with self._asking("list", prefix):
            self._check_folder()
            async for batch in obstore.list(self._store, prefix, offset=after, chunk_size=1000):
                for item in batch:
                    yield ObjectInfo(item["path"], item["size"], item["last_modified"])

    async def get(self, key: str, *, limit: int) -> bytes | None:
        """Return an object's content, or None when there is none.

        Raises:
            TooLargeError: It has more than `limit` bytes.
        """
        # Half of the processor's time that the client takes for an answer in the event loop.
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self.content, key, limit)

    def content(self, key: str, limit: int) -> bytes | None:
        """Do what `get` does, in the thread of the caller."""
        with self._asking("get", key):
            if self._folder is not None and (self._folder / key).is_fifo():
                return None  # no listing shows it, and its reader would wait for a writer
            try:
                answer = obstore.get(self._store, key)
            except FileNotFoundError:
                self._check_folder()
                return None
            if answer.meta["size"] > limit:
                raise TooLargeError(f"{key} has more than {limit} bytes")
            return bytes(answer.bytes())

    async def size(self, key: str) -> int:
        """Return an object's size.

        Raises:
            FileNotFoundError: There is none.
        """
        with self._asking("look at", key):
            async with asyncio.timeout(ANSWER_SECONDS):
                return int((await obstore.head_async(self._store, key))["size"])

    async def read(self, key: str, start: int, part: memoryview, *, size: int) -> int:
        """Read a part of an object into memory.

        Args:
            key: The object's.
            start: Where the part begins.
            part: Where it goes, with as many bytes as are wanted: a few mebibytes, because the client bounds each
                request as a whole. This view is released in the end: nothing is written through it any more.
            size: What the object should have. Who wants all of it in one part hears of a larger one.

        Returns:
            The bytes that came: less than wanted where the object ends earlier.

        Raises:
            FileNotFoundError: There is none.
            TooLargeError: More came than was wanted.
        """
        loop = asyncio.get_running_loop()
        with self._asking("get", key), part:
            async with asyncio.timeout(ANSWER_SECONDS):
                # Frame by frame in the event loop, the same takes half as much of the processor's time again.
                return await loop.run_in_executor(self._threads, self._fill, key, start, part, size)

    def _fill(self, key: str, start: int, part: memoryview, size: int) -> int:
        count = 0
        answer = obstore.get(self._store, key, options=_range(start, start + len(part), size))
        for chunk in answer.stream(min_chunk_size=FRAME_BYTES):
            if len(chunk) > len(part) - count:
                raise TooLargeError(f"{key} has more than {size} bytes")
            part[count : count + len(chunk)] = chunk
            count += len(chunk)
        return count

    async def pieces(self, key: str, size: int) -> AsyncIterator[bytes]:
        """Yield the content of an object that should have `size` bytes; of a large one, no more than that.

        Large objects come in requests of `PART_BYTES`, because the client bounds each request as a whole; the next is
        sent before this one is read, since a store takes milliseconds to answer. When no piece comes for
        `ANSWER_SECONDS`, that is a failure of the store.

        Raises:
            FileNotFoundError: There is none.
        """
        starts = [*range(0, size, PART_BYTES)] or [0]
        asked = asyncio.create_task(self._ask(key, starts[0], size))
        try:
            with self._asking("get", key):
                for following in [*starts[1:], size]:
                    answer = await asked
                    # Of an object that ends earlier there is no such part: who counts the bytes finds that out.
                    more = following < min(size, answer.meta["size"])
                    if more:
                        asked = asyncio.create_task(self._ask(key, following, size))
                    stream = aiter(answer.stream(min_chunk_size=CHUNK_BYTES))
                    # Not around the loop: a limit must not run while the reader of these pieces has the word.
                    while True:
                        async with asyncio.timeout(ANSWER_SECONDS):
                            chunk = await anext(stream, None)
                        if chunk is None:
                            break
                        yield bytes(chunk)
                    if not more:
                        return
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)

    @contextmanager
    def _asking(self, action: str, key: str) -> Iterator[None]:
        try:
            with _edge(action, key):
                yield
        except FileNotFoundError:
            self._check_folder()
            raise

    def _check_folder(self) -> None:
        """Tell a folder that was removed, or is not mounted any more, from one without objects."""
        if self._folder is not None and not self._folder.is_dir():
            raise _no_bucket(self._folder)

    async def _ask(self, key: str, start: int, size: int) -> "GetResult":
        async with asyncio.timeout(ANSWER_SECONDS):
            options = _range(start, min(start + PART_BYTES, size), size)
            return await obstore.get_async(self._store, key, options=options)


def _range(start: int, end: int, size: int) -> "GetOptions":
    """Return what asks for a part of an object; for all of an object that should be no larger."""
    return {"range": (start, end)} if end - start < size else {}


def _no_bucket(root: Path) -> StoreError:
    return StoreError(
        f"there is no bucket in {root}",
        remedy="say which one with --store or store.url; the first `mayfly run` makes a local one",
    )


def _boto3_chain() -> Any:
    # boto3 takes a third of a second and 30 MB: only where no keys were given. The image for home does without it.
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

        return Boto3CredentialProvider()
    except Exception as error:
        raise StoreError(
            "no credentials for the bucket were found",
            remedy="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        ) from error


@contextmanager
def _edge(action: str, key: str) -> Iterator[None]:
    """Turn what the client raises into a `StoreError` with one line of reason."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError, ValueError) as error:
        denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        raise store_error(action, key, str(error), denied=denied) from error
