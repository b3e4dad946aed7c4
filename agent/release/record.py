"""What the machine remembers about releases, in one file that is replaced as a whole."""

from itertools import count
from pathlib import Path

from pydantic import ValidationError

from agent.base import durable
from agent.base.errors import ReleaseError
from agent.release.trial import Memory


class Remembered:
    """The memory of releases; without a file it is empty.

    A damaged file may hold a pin, marks and the minimum version. It is never overwritten: the first change gives it
    another name, and the new memory says so until an operator has decided about releases again.

    Attributes:
        memory: As it is on disk.
    """

    def __init__(self, path: Path, memory: Memory, aside: Path | None = None) -> None:
        self._path = path
        self._aside = aside
        self.memory = memory

    @property
    def damaged(self) -> bool:
        """Whether what is on disk cannot be read."""
        return self._aside is not None

    @classmethod
    def read(cls, path: Path) -> "Remembered":
        """Return what a file remembers."""
        try:
            return cls(path, Memory.model_validate_json(path.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return cls(path, Memory())
        except ValidationError as error:
            return cls._damaged(path, error.errors()[0]["msg"])
        except OSError as error:
            return cls._damaged(path, error.strerror or str(error))

    @classmethod
    def _damaged(cls, path: Path, reason: str) -> "Remembered":
        names = (path.with_name(f"{path.name}.damaged-{number}") for number in count(1))
        aside = next(name for name in names if not name.exists())
        lost = (
            f"the record of releases was damaged and is now {aside} ({reason}): what was pinned or marked as bad is"
            " forgotten, and the minimum version may be lower; mayfly release pin, unpin or rollback ends this warning"
        )
        return cls(path, Memory(lost=lost), aside)

    def keep(self, memory: Memory) -> None:
        """Make a memory durable, if it is another one; a damaged file gets another name first.

        Raises:
            ReleaseError: The disk does not take it.
        """
        if memory == self.memory and not self.damaged:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._aside is not None:
                # Both names until the new memory is there: a power cut in between leaves the damage to be seen.
                self._aside.hardlink_to(self._path)
            durable.write_atomic(self._path, memory.model_dump_json(indent=1).encode())
        except OSError as error:
            raise ReleaseError(f"{self._path} could not be written: {error}") from error
        self.memory, self._aside = memory, None
