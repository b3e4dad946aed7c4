"""What the machine remembers about releases, in one file that is replaced as a whole."""

from pathlib import Path

from pydantic import ValidationError

from agent.core.errors import ReleaseError
from agent.core.trial import Memory
from agent.steps import durable


class Remembered:
    """The memory of releases; a file that is gone or damaged remembers nothing.

    Attributes:
        memory: As it is on disk.
    """

    def __init__(self, path: Path, memory: Memory) -> None:
        self._path = path
        self.memory = memory

    @classmethod
    def read(cls, path: Path) -> "Remembered":
        """Return what a file remembers."""
        try:
            return cls(path, Memory.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            return cls(path, Memory())

    def keep(self, memory: Memory) -> None:
        """Make a memory durable, if it is another one.

        Raises:
            ReleaseError: The disk does not take it.
        """
        if memory == self.memory:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            durable.write_atomic(self._path, memory.model_dump_json(indent=1).encode())
        except OSError as error:
            raise ReleaseError(f"{self._path} could not be written: {error}") from error
        self.memory = memory
