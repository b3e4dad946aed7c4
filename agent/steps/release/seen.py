"""Which commit each tag was when it was last installed: a tag that is another one now was moved."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from agent.core.errors import ReleaseError
from agent.steps import durable


class _Memory(BaseModel):
    model_config = ConfigDict(frozen=True)

    tags: Mapping[str, Mapping[str, str]] = {}
    """Repository to tag to commit."""


class Seen:
    """The memory of tags, in a file; a file that is gone or damaged remembers nothing."""

    def __init__(self, path: Path, memory: _Memory) -> None:
        self._path = path
        self._memory = memory

    @classmethod
    def read(cls, path: Path) -> "Seen":
        """Return what a file remembers."""
        try:
            return cls(path, _Memory.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            return cls(path, _Memory())

    def commit(self, repository: str, tag: str) -> str | None:
        """Return the commit that a tag was, or None when it was never installed."""
        return self._memory.tags.get(repository, {}).get(tag)

    def remember(self, repository: str, tag: str, commit: str) -> None:
        """Remember what a tag is now.

        Raises:
            ReleaseError: The disk does not take it.
        """
        if self.commit(repository, tag) == commit:
            return
        known = {**self._memory.tags.get(repository, {}), tag: commit}
        self._memory = _Memory(tags={**self._memory.tags, repository: known})
        try:
            durable.write_atomic(self._path, self._memory.model_dump_json(indent=1).encode())
        except OSError as error:
            raise ReleaseError(f"{self._path} could not be written: {error}") from error
