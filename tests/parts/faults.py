"""What can go wrong between a client and an object store, as values for `FaultProxy.inject`."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Delay:
    """The request reaches the store `seconds` late."""

    seconds: float


@dataclass(frozen=True)
class Throttle:
    """Bodies pass at `bytes_per_second`, in both directions."""

    bytes_per_second: int


@dataclass(frozen=True)
class ResetUpload:
    """The connection is reset after `after_bytes` of the request's body; the store sees nothing of it."""

    after_bytes: int


@dataclass(frozen=True)
class ResetDownload:
    """The store answers, and the connection is reset after `after_bytes` of the answer's body."""

    after_bytes: int


@dataclass(frozen=True)
class LoseAnswer:
    """The store does what it was asked to, and the connection is reset before a byte of its answer."""


@dataclass(frozen=True)
class HalfClose:
    """The request is read, and the way back is closed without a byte of an answer; the way there stays open."""


@dataclass(frozen=True)
class BlackHole:
    """The request is read, and nothing ever comes back."""


@dataclass(frozen=True)
class Answer:
    """The proxy answers by itself; the store sees nothing."""

    status: int
    code: str = "InternalError"


@dataclass(frozen=True)
class IgnoreConditions:
    """A store that does not know conditional writes: a put with a condition overwrites what is there."""


@dataclass(frozen=True)
class Lie:
    """A put is answered with 200 and an ETag, and nothing is stored."""


@dataclass(frozen=True)
class Corrupt:
    """A put is answered with 200, and what `change` makes of the content is stored; half of it by default."""

    change: Callable[[bytes], bytes] = lambda content: content[: len(content) // 2]


Fault = (
    Delay
    | Throttle
    | ResetUpload
    | ResetDownload
    | LoseAnswer
    | HalfClose
    | BlackHole
    | Answer
    | IgnoreConditions
    | Lie
    | Corrupt
)
