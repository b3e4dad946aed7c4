"""What the steps of an update have in common."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from agent.base.errors import Refusal, ReleaseError, ReleaseRefused
from agent.base.logs import Log
from agent.config.settings import Release
from agent.release.checks import Checks
from agent.release.git import no_login
from agent.release.images import Images
from agent.release.memory import Memory
from agent.release.mirror import Mirror
from agent.release.repository import TRACK, Repository, parse_repository
from agent.release.selfcheck import SelfCheck
from agent.release.store import ReleaseStore
from agent.release.trust import line_of
from agent.secrets.keyring import Keyring


@dataclass(frozen=True, slots=True)
class ReleaseContext:
    """What an attempt has at hand.

    Attributes:
        settings: Which repository, and what of it.
        release_store: Where releases are kept.
        repository: The repository.
        checks: What a release must show before it may run.
        self_check: Whether its programs start; None where nothing of it runs yet.
        images: Whether its browser's image is here; None likewise.
        memory: What is known of releases.
        now: The time (aware).
        log: Told of each step, with its seconds.
        keyring: What opens a private repository; None leaves it to git and ssh of this user.
    """

    settings: Release
    release_store: ReleaseStore
    repository: Repository
    checks: Checks
    self_check: SelfCheck | None
    images: Images | None
    memory: Memory
    now: datetime
    log: Log
    keyring: Keyring | None = None

    @classmethod
    def of(
        cls,
        settings: Release,
        release_store: ReleaseStore,
        memory: Memory,
        *,
        environ: Mapping[str, str],
        version: str,
        now: datetime,
        log: Log,
        self_check: SelfCheck | None = None,
        images: Images | None = None,
        keyring: Keyring | None = None,
    ) -> Self:
        """Return the context of an agent with this version and environment, of which git and uv get what they need.

        Raises:
            ReleaseError: The configuration names no repository.
        """
        return cls(
            settings,
            release_store,
            _repository(settings, environ),
            Checks(settings.jobs, version, environ),
            self_check,
            images,
            memory,
            now,
            log,
            keyring,
        )

    @property
    def line(self) -> str:
        """The line of releases that is followed."""
        branch, track = self.settings.branch, self.settings.track or TRACK
        return line_of(self.repository.url, branch, track)

    def mirror(self) -> Mirror:
        """Return the repository that the agent owns."""
        return Mirror(
            self.release_store.mirror,
            self.repository,
            environ=self.checks.environ,
            seconds=self.settings.timeout,
            log=self.log,
            login=self.keyring.git if self.keyring else no_login,
        )


def _repository(settings: Release, environ: Mapping[str, str]) -> Repository:
    if settings.repository is None:
        raise ReleaseError(
            "no repository is configured",
            remedy="set release.repository, or see it work first: mayfly demo",
        )
    try:
        return parse_repository(settings.repository, environ.get("HOME"))
    except ValueError as error:
        raise ReleaseError(
            f"release.repository {error}",
            remedy='write for example "https://example.com/me/scrapers.git"',
        ) from error


@contextmanager
def refusing(kind: Refusal) -> Iterator[None]:
    """Name the step at which a release turned out to be wrong.

    Raises:
        ReleaseRefused: What the block raised as a ReleaseError.
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
