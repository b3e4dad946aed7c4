"""What a run needs to reach what is private: read when it is first needed, kept in memory, hidden in every log."""

import asyncio
from collections.abc import Callable, Mapping

from agent.config.settings import Settings
from agent.secrets.private import GitLogin, git_login, parse_git_file
from agent.secrets.sources import read_credentials

Hide = Callable[[Mapping[str, str]], None]


def _nothing(_secrets: Mapping[str, str]) -> None:
    pass


class Keyring:
    """The credentials of repository, registries and package indexes.

    What could not be read is asked for again at the next need; what was read is not, so that a run sees one state.

    Args:
        settings: Where they are.
        environ: The agent's environment.
        hide: Told of each secret before it is used.
    """

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], hide: Hide = _nothing
    ) -> None:
        self._settings = settings
        self._environ = environ
        self._hide = hide
        self._git: GitLogin | None = None
        self._reading = asyncio.Lock()

    async def git(self) -> GitLogin | None:
        """Return what opens the repository; None leaves it to what git and ssh of this user have.

        Raises:
            SecretsError: It could not be read, or opens nothing.
        """
        source = self._settings.release.credentials
        if source is None:
            return None
        async with self._reading:
            if self._git is None:
                found = await read_credentials(
                    source, "release.credentials", self._environ, parse_git_file
                )
                login = git_login(found, source)
                self._hide(login.secrets)
                self._git = login
            return self._git
