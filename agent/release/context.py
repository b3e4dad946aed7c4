"""What every step of an update needs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from agent.base.errors import Refusal, ReleaseError, ReleaseRefused
from agent.base.logs import Log
from agent.config.settings import Release
from agent.release.checks import Checks
from agent.release.images import Images
from agent.release.memory import Memory
from agent.release.selfcheck import SelfCheck
from agent.release.store import ReleaseStore
from agent.secrets.keyring import Keyring


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseContext:
    """What every step of an update needs.

    Attributes:
        settings: Which repository, and what of it.
        release_store: Where releases are kept; nobody else may use it meanwhile.
        memory: What is known of releases; what is learnt is added, and sent where a kill must not lose it.
        environ: The agent's environment, of which git and uv get what they need.
        version: This agent's version.
        now: The time (aware).
        log: Gets each step, with its seconds.
        self_check: Tries the programs of a new release; None leaves that out.
        images: Pulls the image that a new release pins; None leaves that to the browser.
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
    self_check: SelfCheck | None = None
    images: Images | None = None
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
