"""The values that every step of finding and installing a release needs."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from agent.base.engine import PULL_SECONDS
from agent.base.errors import Refusal, ReleaseError, ReleaseRefused
from agent.base.logs import Log
from agent.config.settings import Browser, Release
from agent.jobs.interface import Isolation
from agent.release.checks import Checks
from agent.release.memory import Memory
from agent.release.store import ReleaseStore
from agent.secrets.keyring import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseContext:
    """The values of one run, or of one command.

    Attributes:
        release_store: Where releases are kept; nobody else may use it meanwhile.
        memory: What is known of releases; what is learnt is added, and sent where a kill must not lose it.
        environ: The agent's environment, of which git and uv get what they need.
        version: This agent's version.
        now: The time (aware).
        isolation: How the programs of a new release are started for its self-check; None leaves that out.
        browser: The browser that the configuration prefers; None leaves a pinned image to the browser.
        pull_seconds: Limit of an image's pull.
        keyring: Credentials of a private repository; None leaves it to git and ssh of this user.
        machine: Whether nobody watches, so that a repository that is not verified deserves a warning.
    """

    settings: Release
    release_store: ReleaseStore
    memory: Memory
    environ: Mapping[str, str]
    version: str
    now: datetime
    log: Log
    isolation: Callable[[], Awaitable[Isolation]] | None = None
    browser: Browser | None = None
    pull_seconds: float = PULL_SECONDS
    keyring: Keyring | None = None
    machine: bool = False

    @property
    def checks(self) -> Checks:
        """What a release is checked against."""
        return Checks(self.settings.jobs, self.version, self.environ)


@contextmanager
def refusing(kind: Refusal) -> Iterator[None]:
    """Name the step at which a release is rejected.

    Raises:
        ReleaseRefused: The block raised a ReleaseError.
    """
    try:
        yield
    except ReleaseRefused:
        raise
    except ReleaseError as error:
        raise ReleaseRefused(kind, str(error), remedy=error.remedy) from error


def since(started: float) -> float:
    """Return the seconds since a moment of the monotonic clock, for the log."""
    return round(time.monotonic() - started, 3)
