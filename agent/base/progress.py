"""Progress of a run for whoever watches it; the log has the same facts."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class JobEnd:
    """How a job ended, as far as somebody who watches wants to know.

    Attributes:
        name: The job.
        status: As in its package, such as `succeeded`.
        succeeded: Whether that is a success.
        seconds: Over all attempts.
    """

    name: str
    status: str
    succeeded: bool
    seconds: float = 0.0


class Progress(Protocol):
    """Its methods return at once and never raise."""

    def phase(self, name: str) -> None:
        """A part of the run began, such as `release` or `hand-off`."""

    def planned(self, jobs: tuple[str, ...]) -> None:
        """These jobs will run."""

    def started(self, job: str, attempt: int) -> None:
        """An attempt of a job began."""

    def ended(self, end: JobEnd) -> None:
        """A job ended or was skipped."""

    def sent(self, size: int) -> None:
        """A file of `size` bytes is in the bucket."""


class NullProgress:
    """Ignores all progress."""

    def _ignore(self, *_: object, **__: object) -> None:
        return

    phase = planned = started = ended = sent = _ignore
