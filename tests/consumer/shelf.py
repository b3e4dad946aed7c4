"""A bucket that a test fills as an agent would: in a folder, or on the S3 server."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from agent.core.settings import Store
from agent.core.storage import bucket_at, static_credentials
from consumer.bucket import ReadOnlyBucket
from tests.parts.seaweed import S3Server

PREFIX = "prod/osaka"


class Shelf(ABC):
    """Somewhere to put objects, and how a reader gets there.

    Attributes:
        store: The bucket as a configuration says it.
        keys: Credentials as an environment has them.
    """

    def __init__(self, store: Store, keys: Mapping[str, str]) -> None:
        self.store = store
        self.keys = dict(keys)

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Store an object, over what is there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object."""

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's content."""

    def reader(self) -> ReadOnlyBucket:
        """Return the bucket as home sees it."""
        address = bucket_at(self.store, Path("/nowhere"))
        return ReadOnlyBucket.open(address, static_credentials(self.keys))

    @property
    def environ(self) -> dict[str, str]:
        """What a command must be told to use it."""
        settings = {
            "MAYFLY_STORE_URL": self.store.url,
            "MAYFLY_STORE_ENDPOINT": self.store.endpoint,
        }
        return {**self.keys, **{name: value for name, value in settings.items() if value}}


class FolderShelf(Shelf):
    """A `file://` bucket."""

    def __init__(self, root: Path) -> None:
        super().__init__(Store(url=root.as_uri()), {})
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def put(self, key: str, content: bytes) -> None:
        """Write a file."""
        path = self._root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, key: str) -> None:
        """Remove a file."""
        (self._root / key).unlink()

    def get(self, key: str) -> bytes:
        """Read a file."""
        return (self._root / key).read_bytes()


class S3Shelf(Shelf):
    """A bucket of the S3 server, below a prefix."""

    def __init__(self, server: S3Server, bucket: str) -> None:
        keys = {
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
        }
        super().__init__(Store(url=f"s3://{bucket}/{PREFIX}", endpoint=server.url), keys)
        self._server = server
        self._bucket = bucket

    def put(self, key: str, content: bytes) -> None:
        """Put an object."""
        self._server.put(self._bucket, f"{PREFIX}/{key}", content)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._server.delete(self._bucket, f"{PREFIX}/{key}")

    def get(self, key: str) -> bytes:
        """Get an object."""
        return self._server.get(self._bucket, f"{PREFIX}/{key}")
