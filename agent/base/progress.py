"""What a run tells whoever watches it; the log has the same facts for those who come later."""

from typing import Protocol

from agent.core.results import JobResult


class Progress(Protocol):
    """A watcher. Its methods return at once and never raise."""

    def phase(self, name: str) -> None:
        """A part of the run began, such as `release` or `hand-off`."""

    def planned(self, jobs: tuple[str, ...]) -> None:
        """These jobs will run."""

    def started(self, job: str, attempt: int) -> None:
        """An attempt of a job began."""

    def ended(self, result: JobResult) -> None:
        """A job ended or was skipped."""

    def sent(self, size: int) -> None:
        """A file of `size` bytes is in the bucket."""


class NullProgress:
    """Nobody watches."""

    def phase(self, name: str) -> None:
        """Ignore it."""

    def planned(self, jobs: tuple[str, ...]) -> None:
        """Ignore it."""

    def started(self, job: str, attempt: int) -> None:
        """Ignore it."""

    def ended(self, result: JobResult) -> None:
        """Ignore it."""

    def sent(self, size: int) -> None:
        """Ignore it."""
