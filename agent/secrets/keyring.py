"""What a run needs to reach what is private: read when it is first needed, kept in memory, hidden in every log."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.config.settings import Settings
from agent.secrets.docker import client_folder, ecr_login
from agent.secrets.private import GitLogin, git_login, parse_git_file
from agent.secrets.registries import Login, login_from, needed
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
        self._logins: dict[str, Login] = {}
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

    async def registry(self, host: str) -> Login:
        """Return the login of a registry: the configuration's, or for ECR the role's.

        Raises:
            SecretsError: There is none.
        """
        async with self._reading:
            if host not in self._logins:
                login = await self._read_registry(host)
                self._hide({f"registry {host}": login.password})
                self._logins[host] = login
            return self._logins[host]

    async def _read_registry(self, host: str) -> Login:
        entry = self._settings.registry.get(host)
        if entry is None:
            return await ecr_login(host, self._environ)
        key = f'registry."{host}".credentials'
        found = await read_credentials(entry.credentials, key, self._environ)
        return login_from(found, entry.credentials)

    @asynccontextmanager
    async def docker(
        self, images: Iterable[str], builds: Iterable[str] = ()
    ) -> AsyncIterator[Path | None]:
        """Have the logins that images need where docker's client finds them (`docker --config`), for one command.

        Args:
            images: Names of images to pull.
            builds: Texts that name more of them.

        Raises:
            SecretsError: A login could not be read.
        """
        hosts = needed(images, builds, self._settings.registry)
        if not hosts:
            yield None
            return
        logins = {host: await self.registry(host) for host in hosts}
        with client_folder(logins, self._environ) as folder:
            yield folder
