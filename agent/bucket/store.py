"""The bucket: the only module of the agent that sends bytes to a store.

Requests are retried by the client itself, within `agent.bucket.address.RETRY_SECONDS`, except those of
`Bucket.put_once`, which a log repeats under another key. An answer of 4xx is final to the client; `Bucket.put` retries
those that a store means for the moment.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, S3Store

from agent.base.durable import sync_file_system
from agent.base.errors import SecretsUnreachable, StoreError
from agent.bucket.address import (
    ONCE_SECONDS,
    PASSING,
    PAUSES,
    LocalBucket,
    S3Bucket,
    s3_parameters,
    store_error,
)
from agent.config.credentials import Credentials
from agent.machine.aws import aws_session
from agent.machine.metadata import metadata_endpoint

PART_BYTES = 5 * 1024**2
"""Files above this go in parts of this size: S3 allows 10,000 of them, so 48 GiB."""
PARTS_AT_ONCE = 2
"""Of one file; several files are sent at once: a third costs 11 MB of memory with four files, and saves no time."""
ABORT_SECONDS = 3.0
"""To remove the parts of an upload that is cut off: on a machine that is taken back, the commit needs the time."""
PIECE_BYTES = 1024**2
NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(0)}
"""A retry by the client would change the store's time of the object's arrival."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing.

    Attributes:
        key: Relative to the bucket's prefix.
        bytes: Its size.
        written: When it was last written, by the store's clock.
        etag: The store's tag of its content: the MD5 of an object put at once, unless KMS encrypts it; may be empty.
    """

    key: str
    bytes: int
    written: datetime
    etag: str = ""


class Bucket:
    """A bucket below its prefix. All methods raise `StoreError` when the store fails them.

    Attributes:
        name: Its address, for people.
        identity: Its address and its service's: no other bucket has it.
    """

    def __init__(
        self,
        store: LocalStore | S3Store,
        name: str,
        folder: Path | None = None,
        once: S3Store | None = None,
        identity: str = "",
    ) -> None:
        self._store = store
        self._once = once or store
        self._folder = folder
        self.name = name
        self.identity = identity or name

    @classmethod
    def open(
        cls,
        address: LocalBucket | S3Bucket,
        credentials: Credentials | None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> "Bucket":
        """Return a bucket; nothing is sent yet.

        Args:
            address: Where it is.
            credentials: Its keys; None leaves them to boto3's chain (profile, role).
            environ: The environment of that chain.

        Raises:
            StoreError: A local bucket's folder cannot be made, or there are no keys.
            SecretsUnreachable: The machine's metadata service has no keys of a role, or not yet.
        """
        if isinstance(address, LocalBucket):
            with _edge("open", str(address.root)):
                store = LocalStore(address.root, mkdir=True)
                return cls(store, f"file://{address.root}", address.root)
        parameters = s3_parameters(address, credentials, lambda: _boto3_chain(environ))
        with _edge("open", address.name):
            limit = {"timeout": timedelta(seconds=ONCE_SECONDS)}
            options = {
                "client_options": parameters["client_options"] | limit,
                "retry_config": NO_RETRIES,
            }
            once = S3Store(address.bucket, **parameters | options)
            many = S3Store(address.bucket, **parameters)
            return cls(many, address.name, once=once, identity=address.identity)

    async def sync(self) -> None:
        """Make durable what was put: a folder, local or of a network, is synced; a store does so before it answers."""
        if self._folder is not None:
            with _edge("sync", str(self._folder)):
                await asyncio.to_thread(sync_file_system, self._folder)

    async def put(self, key: str, data: bytes) -> None:
        """Write an object, in place of an older one."""
        for pause in (*PAUSES, None):
            try:
                with _edge("put", key):
                    await obstore.put_async(self._store, key, data, use_multipart=False)
            except StoreError as error:
                if pause is None or error.code not in PASSING:
                    raise
                await asyncio.sleep(pause)
            else:
                return

    async def put_once(self, key: str, data: bytes) -> None:
        """Write an object with one request: after an error it may be there, or arrive later, or never."""
        with _edge("put", key):
            await obstore.put_async(self._once, key, data, use_multipart=False)

    async def put_stream(self, key: str, chunks: Iterator[bytes]) -> None:
        """Write an object of any size, in parts, with bounded memory; when it is cut off, its parts are removed.

        What `chunks` raises is raised as it is.
        """
        # `obstore.put_async` would leave the parts in the bucket, unseen and paid for.
        writer = obstore.open_writer_async(
            self._store, key, buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )
        try:
            while chunk := await asyncio.to_thread(next, chunks, b""):
                with _edge("put", key):
                    await writer.write(chunk)
            with _edge("put", key):
                await writer.close()
        except BaseException as error:
            await _abort(writer, error)
            raise

    async def get(self, key: str, *, limit: int | None = None) -> bytes | None:
        """Return a small object's content; None if it does not exist.

        Raises:
            StoreError: It has more than `limit` bytes.
        """
        with _edge("get", key):
            answer = await self._found(key, limit)
            return None if answer is None else bytes(await answer.bytes_async())

    async def size(self, key: str) -> int | None:
        """Return the bytes of an object; None if it does not exist."""
        with _edge("inspect", key):
            try:
                return int((await obstore.head_async(self._store, key))["size"])
            except FileNotFoundError:
                return None

    async def download(self, key: str, target: IO[bytes], *, limit: int) -> bool:
        """Copy an object into a stream; return whether it exists. What the stream raises is raised as it is.

        Raises:
            StoreError: It has more than `limit` bytes.
        """
        with _edge("get", key):
            answer = await self._found(key, limit)
            if answer is None:
                return False
            chunks = aiter(answer.stream(min_chunk_size=PIECE_BYTES))
        while True:
            with _edge("get", key):
                chunk = await anext(chunks, None)
            if chunk is None:
                return True
            await asyncio.to_thread(target.write, chunk)

    async def _found(self, key: str, limit: int | None) -> "obstore.GetResult | None":
        try:
            answer = await obstore.get_async(self._store, key)
        except FileNotFoundError:
            return None
        if limit is not None and answer.meta["size"] > limit:
            raise StoreError(f"{key} has {answer.meta['size']} bytes, more than {limit}")
        return answer

    async def list(self, prefix: str, *, after: str | None = None) -> AsyncIterator[ObjectInfo]:
        """Yield the objects under a prefix whose keys sort after `after`; the order is the store's."""
        with _edge("list", prefix):
            async for batch in obstore.list(self._store, prefix, offset=after, chunk_size=1000):
                for item in batch:
                    etag = (item["e_tag"] or "").strip('"')
                    yield ObjectInfo(item["path"], item["size"], item["last_modified"], etag)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; missing ones are fine."""
        if keys:
            with _edge("delete", keys[0]):
                try:
                    await obstore.delete_async(self._store, list(keys))
                except FileNotFoundError:
                    return


async def _abort(writer: "obstore.AsyncWritableFile", error: BaseException) -> None:
    """Remove the parts that arrived, as far as the store does so at once; its lifecycle rule removes the others."""
    with suppress(BaseError, OSError, TimeoutError):
        async with asyncio.timeout(ABORT_SECONDS):
            await writer.__aexit__(type(error), error, None)


def _boto3_chain(environ: Mapping[str, str]) -> Any:
    # boto3 takes a third of a second and 30 MB: only where no keys were given.
    from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415

    try:
        return Boto3CredentialProvider(aws_session(environ))
    except Exception as error:
        # On EC2 they are a role's, and its metadata service may be late after a boot.
        late = metadata_endpoint(environ) is not None
        raise (SecretsUnreachable if late else StoreError)(
            "no credentials for the bucket were found",
            remedy="set store.credentials, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or attach a role",
        ) from error


@contextmanager
def _edge(action: str, key: str) -> Iterator[None]:
    """Turn the client's errors into a `StoreError` with a reason of one line."""
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        denied = isinstance(error, PermissionDeniedError | UnauthenticatedError)
        raise store_error(action, key, str(error), denied=denied) from error
