"""Objects beneath keys, whatever they mean: in a folder, or on the S3 server below a prefix."""

import re
from abc import ABC, abstractmethod
from pathlib import Path

from agent.config.settings import Store
from tests.parts.seaweed import S3Server

PREFIX = "prod/osaka"
DRAFT = re.compile(r"[^#/]*#\d+")
"""The name of an upload under way; one with another `#` before it is a name like any other."""


class Objects(ABC):
    """A place for objects, and how a program gets there.

    Attributes:
        store: The place as a configuration says it.
        credentials: The keys to it as an environment has them.
    """

    def __init__(self, store: Store, credentials: dict[str, str]) -> None:
        self.store = store
        self.credentials = credentials

    @property
    def environ(self) -> dict[str, str]:
        """What a command must be told to use it."""
        settings = {
            "MAYFLY_STORE_URL": self.store.url,
            "MAYFLY_STORE_ENDPOINT": self.store.endpoint,
        }
        return {**self.credentials, **{name: value for name, value in settings.items() if value}}

    @abstractmethod
    def stamps(self, prefix: str = "") -> dict[str, object]:
        """Return the keys that begin with a prefix, each with what changes whenever it is written again."""

    def keys(self, prefix: str = "") -> list[str]:
        """Return the keys that begin with a prefix, in order."""
        return sorted(self.stamps(prefix))

    @abstractmethod
    def get(self, key: str) -> bytes:
        """Return an object's content."""

    @abstractmethod
    def put(self, key: str, content: bytes) -> None:
        """Store an object, over what is there."""

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object."""


class FolderObjects(Objects):
    """The files of a folder, which need not be there yet."""

    def __init__(self, root: Path) -> None:
        super().__init__(Store(url=root.as_uri()), {})
        self.root = root

    def stamps(self, prefix: str = "") -> dict[str, object]:
        """Leave out the store's own drafts (`name#number`), which are no objects."""
        paths = (self.root / prefix.rpartition("/")[0]).rglob("*")
        keys = {path.relative_to(self.root).as_posix(): path for path in paths}
        return {
            key: (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            for key, path in keys.items()
            if key.startswith(prefix) and not DRAFT.fullmatch(path.name) and path.is_file()
            for stat in [path.stat()]
        }

    def get(self, key: str) -> bytes:
        """Read a file."""
        return (self.root / key).read_bytes()

    def put(self, key: str, content: bytes) -> None:
        """Write a file."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def delete(self, key: str) -> None:
        """Remove a file."""
        (self.root / key).unlink()


class S3Objects(Objects):
    """The objects of a bucket of the S3 server, below a prefix."""

    def __init__(
        self, server: S3Server, bucket: str, prefix: str = PREFIX, *, endpoint: str = ""
    ) -> None:
        store = Store(url=f"s3://{bucket}/{prefix}", endpoint=endpoint or server.url)
        super().__init__(store, server.environ)
        self._client = server.client()
        self._bucket, self._prefix = bucket, f"{prefix}/"

    def stamps(self, prefix: str = "") -> dict[str, object]:
        """List the objects."""
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._prefix + prefix
        )
        return {
            entry["Key"].removeprefix(self._prefix): (
                entry["ETag"],
                entry["Size"],
                entry["LastModified"],
            )
            for page in pages
            for entry in page.get("Contents", [])
        }

    def get(self, key: str) -> bytes:
        """Get an object."""
        answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        content: bytes = answer["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        """Put an object."""
        self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=content)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        self._client.delete_object(Bucket=self._bucket, Key=self._prefix + key)
