"""Every failure Mayfly expects, as a type. Decisions only.

An expected failure is raised once, at the edge where it enters, `from` what caused it, and ends as a value in the
manifest. Anything that is not a `MayflyError` is a defect of ours.
"""

from enum import IntEnum
from typing import ClassVar, Literal

Refusal = Literal["unverified", "downgrade", "moved", "content", "install", "check", "trial", "bad"]
"""At which step a release is refused."""


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
        exit_code: That of a command which it ends.
        remedy: What a person can do about it, as one sentence; empty when there is nothing.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def with_remedy(self) -> str:
        """What went wrong and what can be done about it, on one line."""
        return f"{self} ({self.remedy})" if self.remedy else str(self)


class UsageError(MayflyError):
    """The command was called in a way that cannot work here, such as a second run beside a first."""

    exit_code = ExitCode.USAGE


class ShardError(UsageError):
    """Nobody can say which shard a run is, or two say different things; or its jobs cannot be dealt to shards."""


class StateError(MayflyError):
    """The state directory does not take what must be written: its disk is full, read-only, or broken."""

    exit_code = ExitCode.CONFIGURATION


class ReleaseError(MayflyError):
    """A release could not be found, fetched, installed or checked."""

    exit_code = ExitCode.NO_RELEASE


class ReleaseRefused(ReleaseError):  # noqa: N818 -- the name states the fact
    """A release is there and must not run.

    Attributes:
        kind: At which step it was refused, as the manifest says it.
        remedy: What a person can do about it.
    """

    def __init__(self, kind: Refusal, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.kind: Refusal = kind


class BrowserError(MayflyError):
    """No WebDriver session could be had."""


class ContainerError(MayflyError):
    """A container of a job could not be had: no engine, no image, a stack that does not come up."""


class MetadataError(MayflyError):
    """The metadata service of the machine did not answer."""


class PriceError(MayflyError):
    """Nobody said what the machine costs."""


class SecretsError(MayflyError):
    """A secret or a credential could not be read from its source."""


class SecretsUnreachable(SecretsError):  # noqa: N818 -- the name states the fact
    """A source of secrets did not answer: asking again later may help."""


class StoreError(MayflyError):
    """The bucket did not do what was asked.

    Attributes:
        code: The store's own word for it, such as `RequestTimeout`; empty when it gave none.
    """

    exit_code = ExitCode.NOT_DELIVERED
    code: str = ""


class StoreRefused(StoreError):  # noqa: N818 -- the name states the fact
    """The bucket does not let us: trying again with the same credentials would not help."""


class ProcessTimeout(MayflyError):  # noqa: N818 -- the name states the fact
    """A helper program outlived its wall-clock limit and was killed with its group."""
