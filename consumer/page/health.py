"""How home itself is: what the service tells its page and `mayfly status`. Decisions only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Problem:
    """Something at home that does not work.

    Attributes:
        kind: `disk`, `folder`, `hook`, `store` or `invalid` (an object that cannot be what it should be).
        subject: What it is about: a job, a run, a key, a folder.
        reason: What happened.
        remedy: What a person can do.
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
        pending: Packages that are in the bucket, wanted, and not at home.
        problems: Disk, folders, hooks, and what was rejected.
    """

    ended: datetime | None = None
    pending: int = 0
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
