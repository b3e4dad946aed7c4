"""Progress of a run for whoever watches it; the log has the same facts."""

from typing import Protocol

from agent.core.results import JobResult


class Progress(Protocol):
    """Its methods return at once and never raise."""

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
    """Ignores all progress."""

    def _ignore(self, *_: object, **__: object) -> None:
        return

    phase = planned = started = ended = sent = _ignore
