"""Expected failures, as types. Decisions only.

An expected failure is raised once, at the edge where it enters (`raise ... from error`), and becomes a value in the
manifest. Any other exception is a defect of ours.
"""

from enum import IntEnum
from typing import ClassVar, Literal

Refusal = Literal["unverified", "downgrade", "moved", "content", "install", "check", "trial", "bad"]
"""The step at which a release is rejected."""


class ExitCode(IntEnum):
    """Exit codes of `mayfly`."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3
    CONFIGURATION = 4
    NO_RELEASE = 5
    NOT_DELIVERED = 6
    INTERRUPTED = 7
    FAILED = 8


class MayflyError(Exception):
    """An expected failure.

    Attributes:
        exit_code: Exit code of a command that it ends.
        remedy: What a person can do about it, in one sentence; empty if nothing.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def with_remedy(self) -> str:
        """Message and remedy on one line."""
        return f"{self} ({self.remedy})" if self.remedy else str(self)


class UsageError(MayflyError):
    """The command cannot work as it was called, for example while another run is active."""

    exit_code = ExitCode.USAGE


class ShardError(UsageError):
    """The run's shard is unknown or contradictory, or its jobs cannot be assigned to shards."""


class StateError(MayflyError):
    """The state directory cannot be written: its disk is full, read-only or broken."""

    exit_code = ExitCode.CONFIGURATION


class ReleaseError(MayflyError):
    """A release could not be found, fetched, installed or checked."""

    exit_code = ExitCode.NO_RELEASE


class ReleaseRefused(ReleaseError):  # noqa: N818 -- the name states the fact
    """A release exists and must not run; `kind` is the step at which it was rejected, as in the manifest."""

    def __init__(self, kind: Refusal, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.kind: Refusal = kind


class BrowserError(MayflyError):
    """No WebDriver session is available."""


class ContainerError(MayflyError):
    """A job's container cannot start: no engine, no image, or the stack does not come up."""


class MetadataError(MayflyError):
    """The machine's metadata service did not answer."""


class PriceError(MayflyError):
    """The machine's price is unknown."""


class SecretsError(MayflyError):
    """A secret or a credential could not be read from its source."""


class SecretsUnreachable(SecretsError):  # noqa: N818 -- the name states the fact
    """A source of secrets did not answer; a retry may help."""


class StoreError(MayflyError):
    """The bucket failed a request; `code` is the store's error code, such as `RequestTimeout`, or empty."""

    exit_code = ExitCode.NOT_DELIVERED
    code: str = ""


class StoreRefused(StoreError):  # noqa: N818 -- the name states the fact
    """The bucket denied access: a retry with the same credentials would not help."""


class ProcessTimeout(MayflyError):  # noqa: N818 -- the name states the fact
    """A program exceeded its wall-clock limit and was killed with its process group."""


class ProcessOverflow(MayflyError):  # noqa: N818 -- the name states the fact
    """A program printed more than it may and was killed with its process group."""
