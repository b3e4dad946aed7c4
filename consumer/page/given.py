"""What pages are given besides runs: the request, the state of home, texts from the bucket. Decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from consumer.page.words import Language

MOST_LOG_BYTES = 2 * 1024**2
"""Of a run's log, or of what a job printed, that a page takes: the end of it."""
MOST_VIEW_BYTES = 256 * 1024
"""Of a file that a page shows: the beginning of it."""


@dataclass(frozen=True, slots=True)
class Visit:
    """Who asks for what.

    Attributes:
        language: See `consumer.page.words.language_for`.
        path: The path as it was asked for, from `/`.
        query: Names and their last values.
    """

    language: Language
    path: str = "/"
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something at home that does not work.

    Attributes:
        kind: `disk`, `hook`, `store`, or `invalid` (an object that cannot be what it should be).
        subject: What it is about: a job, a run, a key.
        since: Since when, where that is known.
    """

    kind: str
    subject: str
    reason: str
    remedy: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pull:
    """How the pull beside the service is.

    Attributes:
        ended: When one last ended; None before the first.
        pending: Packages that are in the bucket, wanted, and not at home; None while nobody knows.
        problems: Disk, folders, hooks, and what was rejected.
    """

    ended: datetime | None = None
    pending: int | None = 0
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Health:
    """How home itself is.

    Attributes:
        bucket: The bucket's name, for people.
        read: When it was last read to the end; None before that.
        problem: Why it could not be read the last time; empty when it could.
        rejected: Objects that cannot be used, by key, with the reason: `History.invalid`.
        pull: None where nothing is pulled.
    """

    bucket: str
    read: datetime | None = None
    problem: str = ""
    rejected: Mapping[str, str] = field(default_factory=dict)
    pull: Pull | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """The end of a log, or the beginning of a file.

    Attributes:
        content: What there is of it, at most `MOST_LOG_BYTES` or `MOST_VIEW_BYTES`.
        cut: Whether there is more.
        problem: Why there is nothing; empty otherwise.
    """

    content: bytes = b""
    cut: bool = False
    problem: str = ""
